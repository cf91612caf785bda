//! `--help`, made from the table.

use super::option::{Opt, Status, Visibility};
use super::table::GROUPS;

/// Columns of the text; the width of a terminal that nobody has resized.
const WIDTH: usize = 80;

const INTRO: &str = "\
Kelvin: a sync server for applications written with Rocicorp Zero

Usage: kelvin [OPTIONS]

Every option is a flag and an environment variable; both are named below. A flag
wins over the environment, that over a line of a .env file in the working
directory, that over the default. An empty value counts as unset.

You need one setting, and usually three:

  ZERO_UPSTREAM_DB   the Postgres that holds your data (wal_level=logical)
  ZERO_QUERY_URL     your endpoint that turns query names into queries
  ZERO_MUTATE_URL    your endpoint that runs mutators

For example:

  ZERO_UPSTREAM_DB=postgres://user:password@localhost:5432/app \\
  ZERO_QUERY_URL=http://localhost:3000/api/query \\
  ZERO_MUTATE_URL=http://localhost:3000/api/mutate \\
  kelvin

Clients then connect to http://localhost:4848.

  -h, --help       print this and exit
  -V, --version    print the version and exit
";

/// The whole text.
pub fn help() -> String {
    let mut text = INTRO.to_owned();
    for group in GROUPS {
        let visible: Vec<&Opt> =
            group.options.iter().copied().filter(|opt| opt.visibility == Visibility::Visible).collect();
        if visible.is_empty() {
            continue;
        }
        text += &format!("\n{}\n", group.title.to_uppercase());
        let (ignored, acting): (Vec<&Opt>, Vec<&Opt>) =
            visible.into_iter().partition(|opt| matches!(opt.status, Status::Ignored(_)));
        for opt in acting {
            option(&mut text, opt);
        }
        if !ignored.is_empty() {
            let flags: Vec<String> = ignored.iter().map(|opt| opt.flag()).collect();
            text.push('\n');
            wrap(&mut text, &format!("Accepted and ignored: {}", flags.join(", ")), "  ");
        }
    }
    text
}

fn option(text: &mut String, opt: &Opt) {
    *text += &format!("\n  {} {}\n", opt.flag(), opt.kind.placeholder());
    wrap(text, &format!("{} ({})", opt.env(), opt.default_text()), "      ");
    wrap(text, opt.doc, "      ");
    if let Some(status) = opt.status_text() {
        wrap(text, &status, "      ");
    }
}

/// Appends `paragraph` as lines of at most [`WIDTH`] columns; a word that is longer has its own line.
fn wrap(text: &mut String, paragraph: &str, indent: &str) {
    let mut columns = 0;
    for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if columns == 0 {
            *text += indent;
            columns = indent.len();
        } else if columns + 1 + length > WIDTH {
            text.push('\n');
            *text += indent;
            columns = indent.len();
        } else {
            text.push(' ');
            columns += 1;
        }
        *text += word;
        columns += length;
    }
    text.push('\n');
}
