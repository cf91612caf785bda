//! The `.env` file (`docs/spec/config-ops.md` §2.1).
//!
//! Understood: `NAME=value`, `export NAME=value`, comments, single quotes (taken as written), double
//! quotes (`\n`, `\"`, `${NAME}`), and `${NAME}` or `${NAME:-default}` in unquoted values. Quoted values
//! may span lines; an unquoted one ends at `#`. Commands are never run.

use std::collections::HashMap;

/// What a file says, in its order; a later line wins over an earlier one of the same name.
#[derive(Debug, Default, PartialEq)]
pub struct DotEnv {
    /// Names and values.
    pub values: Vec<(String, String)>,
    /// Numbers of the lines (from 1) that were not understood and are ignored.
    pub bad_lines: Vec<usize>,
}

/// Reads the text of a `.env` file. `${NAME}` is looked up in `env` first, then in the lines above.
pub fn parse(text: &str, env: &HashMap<String, String>) -> DotEnv {
    let text = text.replace("\r\n", "\n");
    let mut read = DotEnv::default();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut line = 1;
    while !rest.is_empty() {
        let before = rest;
        if !entry(&mut rest, env, &mut read.values) {
            read.bad_lines.push(line);
        }
        line += before[..before.len() - rest.len()].matches('\n').count();
    }
    read
}

/// Takes one line (more when a quoted value goes on) off `rest`. `false` when it makes no sense.
fn entry(rest: &mut &str, env: &HashMap<String, String>, values: &mut Vec<(String, String)>) -> bool {
    let line = rest.split('\n').next().unwrap_or_default();
    let content = line.trim_start();
    if content.is_empty() || content.starts_with('#') {
        skip_line(rest);
        return true;
    }
    let content = content.strip_prefix("export ").unwrap_or(content).trim_start();
    let Some((name, _)) = content.split_once('=').filter(|(name, _)| is_name(name.trim())) else {
        skip_line(rest);
        return false;
    };
    let name = name.trim().to_owned();
    let value_at = rest.find('=').map_or(rest.len(), |at| at + 1);
    *rest = rest[value_at..].trim_start_matches([' ', '\t']);
    let value = value(rest, &|name| {
        let above = || values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        env.get(name).cloned().or_else(above)
    });
    skip_line(rest);
    values.push((name, value));
    true
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn skip_line(rest: &mut &str) {
    *rest = rest.find('\n').map_or("", |end| &rest[end + 1..]);
}

/// Takes a value off `rest`, up to its closing quote or the end of its line.
fn value(rest: &mut &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"' | '`'));
    if let Some(end) = quote.and_then(|quote| closing(&rest[1..], quote)) {
        let inside = &rest[1..1 + end];
        *rest = &rest[end + 2..];
        return match quote {
            Some('"') => expand(inside, true, lookup),
            _ => inside.to_owned(),
        };
    }
    let line = rest.split('\n').next().unwrap_or_default();
    let raw = line.split('#').next().unwrap_or_default().trim();
    *rest = &rest[line.len()..];
    expand(raw, false, lookup)
}

/// Where the quote that closes `text` is; a backslash escapes the next character in double quotes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// Replaces `${NAME}` and, in double quotes, the escapes. An unknown name becomes empty.
fn expand(text: &str, escapes: bool, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut ahead = rest.chars().skip(1);
        match (rest.starts_with('$'), ahead.next()) {
            (true, Some('{')) if rest.contains('}') => {
                let end = rest.find('}').unwrap_or(rest.len() - 1);
                let (name, default) = rest[2..end].split_once(":-").unwrap_or((&rest[2..end], ""));
                let found = lookup(name).filter(|value| !value.is_empty());
                out.push_str(found.as_deref().unwrap_or(default));
                rest = &rest[end + 1..];
            }
            (false, Some('$')) => take(&mut out, &mut rest, '$'),
            (false, Some('n')) if escapes => take(&mut out, &mut rest, '\n'),
            (false, Some('r')) if escapes => take(&mut out, &mut rest, '\r'),
            (false, Some('t')) if escapes => take(&mut out, &mut rest, '\t'),
            (false, Some(c @ ('"' | '\\'))) if escapes => take(&mut out, &mut rest, c),
            _ => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// Puts `c` for the two ASCII characters at the head of `rest`.
fn take(out: &mut String, rest: &mut &str, c: char) {
    out.push(c);
    *rest = &rest[2..];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let env = HashMap::from([("HOST".to_owned(), "db.example.com".to_owned())]);
        parse(text, &env).values
    }

    fn value_of(text: &str) -> String {
        read(&format!("A={text}\nB=2"))[0].1.clone()
    }

    #[test]
    fn comments_blank_lines_and_export() {
        let pairs = read("# first\n\n  export A = 1 # why\nB=2\r\nC=");
        let expected = [("A", "1"), ("B", "2"), ("C", "")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn quotes() {
        assert_eq!(value_of("'a # ${HOST} \\n' # comment"), "a # ${HOST} \\n");
        assert_eq!(value_of("\"a # ${HOST}\\n\\\"b\\\"\" # comment"), "a # db.example.com\n\"b\"");
        assert_eq!(value_of("\"two\nlines\""), "two\nlines");
        assert_eq!(value_of("\"never closed"), "\"never closed");
    }

    #[test]
    fn expansion() {
        assert_eq!(value_of("postgres://${HOST}/db"), "postgres://db.example.com/db");
        assert_eq!(value_of("${NOBODY}x${NOBODY:-y}"), "xy");
        assert_eq!(value_of("\\${HOST} $HOST $"), "${HOST} $HOST $");
        assert_eq!(read("A=1\nB=${A}2")[1].1, "12");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[A=\\$\\{\\}\\\\'\"#: \\né-]{0,40}") {
            parse(&text, &HashMap::new());
        }
    }

    #[test]
    fn a_command_is_text() {
        assert_eq!(value_of("$(rm -rf x)"), "$(rm -rf x)");
    }

    #[test]
    fn a_line_that_makes_no_sense_is_reported_with_its_number() {
        let read = parse("A=\"1\n2\"\nwhat is this\nB=2", &HashMap::new());
        assert_eq!(read.bad_lines, [3]);
        assert_eq!(read.values.len(), 2);
    }
}
