//! Flags of a bench command: declared once, for parsing and for `--help`.

use std::collections::HashMap;
use std::str::FromStr;

use super::error::BenchError;

/// One flag, written `--name VALUE` or `--name=VALUE`.
pub struct Flag {
    /// Name without the dashes.
    pub name: &'static str,
    /// What the value is, in `--help`.
    pub value: &'static str,
    /// Value when it is not given; `None` = it has to be given or may be absent.
    pub default: Option<&'static str>,
    /// One line of help, with the unit.
    pub help: &'static str,
}

/// The flags as they were given.
#[derive(Debug)]
pub struct Args {
    values: HashMap<&'static str, String>,
    rest: Vec<String>,
}

impl Args {
    /// Sorts out a command line. An unknown flag is an error: a misspelt one would
    /// silently measure something else.
    pub fn parse(given: &[String], flags: &[&'static [Flag]], positional: bool) -> Result<Args, BenchError> {
        let known = || flags.iter().flat_map(|f| f.iter());
        let mut values: HashMap<&'static str, String> =
            known().filter_map(|f| Some((f.name, f.default?.to_owned()))).collect();
        let mut rest = Vec::new();
        let mut given = given.iter();
        while let Some(word) = given.next() {
            let Some(name) = word.strip_prefix("--") else {
                if !positional {
                    return Err(BenchError::Usage(format!(
                        "{word:?} is not a flag; flags look like --name VALUE"
                    )));
                }
                rest.push(word.clone());
                continue;
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, given.next().cloned()),
            };
            let Some(flag) = known().find(|f| f.name == name) else {
                return Err(BenchError::Usage(format!("there is no flag --{name}; --help lists them")));
            };
            let Some(value) = value else {
                return Err(BenchError::Usage(format!("--{name} needs a value: {}", flag.value)));
            };
            values.insert(flag.name, value);
        }
        Ok(Args { values, rest })
    }

    /// The value of a flag that has to be there.
    pub fn text(&self, name: &str) -> Result<&str, BenchError> {
        self.optional(name).ok_or_else(|| BenchError::Usage(format!("--{name} is missing")))
    }

    /// The value of a flag that may be absent; an empty value counts as absent.
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The value of a flag as a number.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<T, BenchError> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|_| BenchError::Usage(format!("--{name} {text}: not a number of the right kind")))
    }

    /// A number that may be absent.
    pub fn optional_number<T: FromStr>(&self, name: &str) -> Result<Option<T>, BenchError> {
        self.optional(name).map(|_| self.number(name)).transpose()
    }

    /// Arguments without a name.
    pub fn rest(&self) -> &[String] {
        &self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag { name: "rate", value: "N", default: Some("5"), help: "" },
        Flag { name: "url", value: "URL", default: None, help: "" },
    ];

    fn parse(words: &[&str], positional: bool) -> Result<Args, BenchError> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Args::parse(&words, &[FLAGS], positional)
    }

    #[test]
    fn both_spellings_and_defaults() {
        let args = parse(&["--url", "ws://h", "--rate=7"], false).unwrap();
        assert_eq!(args.text("url").unwrap(), "ws://h");
        assert_eq!(args.number::<u32>("rate").unwrap(), 7);
        assert_eq!(parse(&[], false).unwrap().number::<u32>("rate").unwrap(), 5);
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for words in [&["--raet", "7"][..], &["--rate"], &["7"]] {
            assert_eq!(parse(words, false).unwrap_err().exit_status(), 2, "{words:?}");
        }
        assert!(parse(&["--rate", "x"], false).unwrap().number::<u32>("rate").is_err());
        assert!(parse(&[], false).unwrap().text("url").is_err());
        assert_eq!(parse(&["a.json"], true).unwrap().rest(), ["a.json"]);
    }
}
