//! `docs/settings.md`, made from the table. A test keeps the file equal to this.

use super::environment::{KNOWN, READ};
use super::option::{Opt, Visibility};
use super::table::GROUPS;

const INTRO: &str = "\
# Settings

<!-- Made from src/config/table/ by `KELVIN_WRITE_SETTINGS=1 cargo test --lib settings_page`. Do not edit. -->

Kelvin takes the settings of `zero-cache` under the same names. Each is a flag (`--port 4848` or
`--port=4848`) and an environment variable (`ZERO_PORT=4848`). A flag wins over the environment, that over a
line of a `.env` file in the working directory, that over the default. An empty value counts as unset.

- **Numbers**: `10`, `1e3`, `0x10`. **true|false**: also `1` and `0`, in any case; a flag without a value is
  true.
- **Lists**: separated by commas in the environment; as flags, several words or the flag repeated.
- **`.env`**: `NAME=value`, comments, `export`, quotes, `${NAME}` and `${NAME:-default}`.
- A setting that cannot be accepted ends the start with one message and exit status 2. An unknown `ZERO_*`
  variable is a warning.

Only `ZERO_UPSTREAM_DB` is required. *No effect yet* and *ignored* mean that the setting is accepted, so
that an existing deployment starts, but that nothing comes of it.
";

/// The whole page.
pub fn settings_page() -> String {
    let mut page = INTRO.to_owned();
    for group in GROUPS {
        page += &format!("\n## {}\n", group.title);
        for opt in group.options {
            option(&mut page, opt);
        }
    }
    page += "\n## Other variables\n\n| Variable | Effect |\n|---|---|\n";
    for (name, effect) in READ.iter().chain(KNOWN) {
        page += &format!("| `{name}` | {effect} |\n");
    }
    page
}

fn option(page: &mut String, opt: &Opt) {
    let kind = opt.kind.placeholder();
    *page += &format!(
        "\n### `{}`\n\n`{}` · {kind} · {}\n\n{}",
        opt.env(),
        opt.flag(),
        opt.default_text(),
        opt.doc
    );
    if let Visibility::Deprecated(advice) = opt.visibility {
        *page += &format!(" **Deprecated:** {advice}");
    }
    if let Some(status) = opt.status_text() {
        *page += &format!(" *{status}*");
    }
    page.push('\n');
}
