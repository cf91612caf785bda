//! From the text that a user typed to a value of the option's type (`docs/spec/config-ops.md` §2.2).

use super::option::{Kind, Opt};

/// A value of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Text`] and [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Number`]; finite.
    Number(f64),
    /// Of [`Kind::Whole`], within its limits.
    Whole(i64),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::List`]; trimmed, without empty items.
    List(Vec<String>),
}

/// What is wrong with a text, and what to do.
#[derive(Debug, PartialEq)]
pub struct Problem {
    /// Continues the sentence "ZERO_X=value …".
    pub what: String,
    /// A sentence.
    pub remedy: String,
}

/// Reads the words of one option. `words` has several entries only for a list given by flags.
pub fn read(opt: &Opt, words: &[String]) -> Result<Value, Problem> {
    let first = words.first().map(String::as_str).unwrap_or_default();
    match opt.kind {
        Kind::Text => Ok(Value::Text(first.to_owned())),
        Kind::Number => match javascript_number(first).filter(|n| n.is_finite()) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(problem(opt, first, "is not a number", "Give a number".to_owned())),
        },
        Kind::Whole { min, max } => match javascript_number(first).and_then(whole) {
            Some(n) if (min..=max).contains(&n) => Ok(Value::Whole(n)),
            _ => Err(problem(opt, first, "is not accepted", whole_remedy(min, max))),
        },
        Kind::Bool => match first.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(problem(opt, first, "is neither true nor false", "Give true or false".to_owned())),
        },
        Kind::List => Ok(Value::List(items(words))),
        Kind::Choice(choices) => match choices.iter().find(|choice| **choice == first) {
            Some(choice) => Ok(Value::Text((*choice).to_owned())),
            None => {
                let remedy = format!("Give {}, in lower case", choices.join(" or "));
                Err(problem(opt, first, "is not one of the choices", remedy))
            }
        },
    }
}

/// The default of the table as a value. `None` when there is no literal one.
pub fn default_of(opt: &Opt) -> Option<Value> {
    let text = opt.default?;
    let words: Vec<String> = match opt.kind {
        Kind::List => split_commas(text),
        _ => vec![text.to_owned()],
    };
    read(opt, &words).ok()
}

/// The items of a list as the environment gives it.
pub fn split_commas(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn items(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

fn whole_remedy(min: i64, max: i64) -> String {
    match max {
        i64::MAX => format!("Give a whole number, {min} or more"),
        _ => format!("Give a whole number from {min} to {max}"),
    }
}

fn problem(opt: &Opt, value: &str, what: &str, mut remedy: String) -> Problem {
    if opt.default.is_some() {
        remedy = format!("{remedy} ({})", opt.default_text());
    }
    // Kubernetes gives every container variables that are named after the services of its namespace.
    if value.starts_with("tcp://") || value.starts_with("udp://") {
        remedy += ". It looks like a Kubernetes service link: rename the service, or set \
                   enableServiceLinks: false in the pod";
    }
    Problem { what: what.to_owned(), remedy: remedy + "." }
}

/// `number` without loss as an integer; `None` when it has a fraction or is too large.
fn whole(number: f64) -> Option<i64> {
    /// 2^53: above it neighbouring integers are the same number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// What JavaScript's `Number(text)` gives; `None` for NaN.
pub fn javascript_number(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0.0);
    }
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return radix_number(digits, radix);
        }
    }
    match text.trim_start_matches(['+', '-']) {
        "Infinity" => return text.parse().ok(),
        // Rust also reads "inf" and "nan" in any case, which JavaScript does not.
        rest if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => return None,
        _ => {}
    }
    text.parse().ok()
}

fn radix_number(digits: &str, radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    digits.chars().try_fold(0.0, |sum, c| Some(sum * f64::from(radix) + f64::from(c.to_digit(radix)?)))
}

#[cfg(test)]
mod tests {
    use super::super::option::{boolean, choice, list, number, whole};
    use super::*;

    fn one(opt: &Opt, text: &str) -> Result<Value, Problem> {
        read(opt, &[text.to_owned()])
    }

    #[test]
    fn numbers_are_read_as_javascript_reads_them() {
        for (text, number) in [
            ("12", 12.0),
            (" 12\t", 12.0),
            ("1e3", 1000.0),
            ("0x10", 16.0),
            ("0b101", 5.0),
            ("0o17", 15.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("-3", -3.0),
            ("+3", 3.0),
            ("  ", 0.0),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(javascript_number(text), Some(number), "{text:?}");
        }
        for text in ["abc", "30_000", "1,5", "inf", "nan", "infinity", "0x", "0xg", "--1", "1 2", "1n"] {
            assert_eq!(javascript_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_fraction_or_a_value_out_of_range_is_not_a_whole_number() {
        let opt = whole("a.b", 0, 10);
        assert_eq!(one(&opt, "1e1"), Ok(Value::Whole(10)));
        for text in ["11", "-1", "1.5", "Infinity", "x"] {
            assert!(one(&opt, text).is_err(), "{text:?}");
        }
        assert!(one(&number("a.b"), "Infinity").is_err());
    }

    #[test]
    fn booleans_ignore_case_but_not_blanks() {
        let opt = boolean("a.b");
        for (text, on) in [("true", true), ("TRUE", true), ("1", true), ("False", false), ("0", false)] {
            assert_eq!(one(&opt, text), Ok(Value::Bool(on)), "{text:?}");
        }
        for text in ["yes", " true", "on", "2"] {
            assert!(one(&opt, text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn list_items_are_trimmed_and_empty_ones_dropped() {
        let opt = list("a.b");
        assert_eq!(
            read(&opt, &split_commas("a, b ,,c,")),
            Ok(Value::List(vec!["a".into(), "b".into(), "c".into()]))
        );
    }

    #[test]
    fn choices_are_exact() {
        let opt = choice("a.b", &["text", "json"]);
        assert_eq!(one(&opt, "json"), Ok(Value::Text("json".into())));
        assert!(one(&opt, "JSON").is_err());
    }

    #[test]
    fn a_kubernetes_service_link_is_recognised() {
        let problem = one(&whole("port", 0, 65_535), "tcp://10.0.0.1:4848").unwrap_err();
        assert!(problem.remedy.contains("enableServiceLinks"), "{problem:?}");
    }
}
