//! What the stored values of a key lose (`docs/spec/replication.md` §7.4).
//!
//! Numbers and times are stored as clients hold them, and two keys that upstream tells apart may then be one. Their
//! table has one more column in its key, with whatever tells a row from such others: nothing, in an ordinary row.

use super::binary::{EPOCH, fixed};
use super::{Form, Kind, Stored, convert, millis, time};

/// Whether different values of a column may be stored alike.
pub fn is_lossy(kind: Kind) -> bool {
    match kind {
        Kind::Number
        | Kind::Float
        | Kind::Date
        | Kind::Time
        | Kind::TimeTz
        | Kind::Timestamp
        | Kind::Array(..) => true,
        Kind::Integer | Kind::Boolean | Kind::Json | Kind::Bytes | Kind::Inet | Kind::Text => false,
    }
}

/// What is kept of the key of one row, whose columns are added in the order of their attribute numbers.
#[derive(Debug, Default)]
pub struct ExactKey {
    text: String,
    columns: usize,
    is_needed: bool,
}

impl ExactKey {
    /// Adds a column, whose value has this text.
    pub fn add(&mut self, kind: Kind, text: &str) {
        self.begin();
        match kind {
            Kind::Number if !is_exact(text) => self.keep(text),
            // Its digits are not compared: of a number half way between two shorter ones Postgres prints more of them
            // than are needed.
            Kind::Float if matches!(text, "NaN" | "Infinity" | "-Infinity") => self.keep(text),
            // In the form that a binary copy has, too: microseconds.
            Kind::Date if matches!(time::date(text), Ok(None)) => self.keep(text),
            Kind::Timestamp => match time::timestamp(text) {
                Ok(Some(micros)) => self.add_timestamp(micros),
                _ => self.keep(text),
            },
            Kind::Time => self.add_time(time::micros(text).unwrap_or_default()),
            // Two that are the same moment in different zones are different.
            Kind::TimeTz if !time::is_whole_utc(text) => self.keep(text),
            Kind::Array(element, _) if element.is_lossy() => self.keep(text),
            // Bounds are no part of what is stored, and tell arrays apart.
            Kind::Array(..) if text.starts_with('[') => {
                self.keep(text.split_once('=').map_or(text, |(bounds, _)| bounds));
            }
            _ => {}
        }
    }

    /// Adds a column, whose value has this binary form. What is kept is the same.
    pub fn add_binary(&mut self, form: Form, kind: Kind, field: &[u8]) {
        let days = || fixed(field).map(i32::from_be_bytes).unwrap_or_default();
        let long = || fixed(field).map(i64::from_be_bytes).unwrap_or_default();
        let infinity = |is_positive| if is_positive { "infinity" } else { "-infinity" };
        match form {
            Form::Text | Form::Raw => self.add(kind, &String::from_utf8_lossy(field)),
            Form::Double => {
                let n = fixed(field).map(f64::from_be_bytes).unwrap_or_default();
                self.begin();
                match n {
                    _ if n.is_nan() => self.keep("NaN"),
                    _ if n.is_infinite() => self.keep(if n > 0.0 { "Infinity" } else { "-Infinity" }),
                    _ => {}
                }
            }
            Form::Date => {
                self.begin();
                if matches!(days(), i32::MIN | i32::MAX) {
                    self.keep(infinity(days() > 0));
                }
            }
            Form::Timestamp => {
                self.begin();
                match long() {
                    i64::MIN | i64::MAX => self.keep(infinity(long() > 0)),
                    micros => self.add_timestamp(i128::from(micros) + EPOCH),
                }
            }
            Form::Time => {
                self.begin();
                self.add_time(long());
            }
            Form::Integer | Form::Boolean | Form::Uuid | Form::Jsonb | Form::Bytes => self.begin(),
        }
    }

    /// Adds a column of whose value nothing is known.
    pub fn add_nothing(&mut self) {
        self.begin();
    }

    /// The text that is stored with the row: empty, if its stored key says all.
    pub fn into_text(self) -> String {
        if self.is_needed { self.text } else { String::new() }
    }

    fn begin(&mut self) {
        if self.columns > 0 {
            self.text.push('\n');
        }
        self.columns += 1;
    }

    fn keep(&mut self, what: &str) {
        self.text.push_str(what);
        self.is_needed = true;
    }

    fn add_timestamp(&mut self, micros: i128) {
        let is_exact = match millis(micros) {
            Stored::Real(ms) if ms.fract() == 0.0 => ms as i128 * 1000 == micros,
            Stored::Real(ms) => (ms * 1000.0).round() as i128 == micros,
            _ => true,
        };
        if !is_exact {
            self.keep(&micros.to_string());
        }
    }

    fn add_time(&mut self, micros: i64) {
        if micros % 1000 != 0 {
            self.keep(itoa::Buffer::new().format(micros));
        }
    }
}

/// Whether a number is the one that is read back from what is stored of it.
fn is_exact(text: &str) -> bool {
    // A double tells all numbers of fifteen digits apart.
    if text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-') {
        return true;
    }
    match convert(Kind::Number, text.into()) {
        Ok(Stored::Integer(i)) => digits(text) == digits(itoa::Buffer::new().format(i)),
        Ok(Stored::Real(r)) => digits(text) == digits(&format!("{r:e}")),
        _ => false,
    }
}

/// A decimal number as its sign, its digits without zeros at either end, and the exponent of the last.
fn digits(text: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let negative = whole.starts_with('-');
    let all = format!("{}{fraction}", whole.trim_start_matches(['-', '+']));
    let without_end = all.trim_end_matches('0');
    let exponent = exponent.parse::<i64>().unwrap_or_default() - fraction.len() as i64
        + (all.len() - without_end.len()) as i64;
    match without_end.trim_start_matches('0') {
        "" => (false, String::new(), 0),
        some => (negative, some.to_owned(), exponent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::types::Element;

    fn kept(kind: Kind, text: &str) -> String {
        let mut exact = ExactKey::default();
        exact.add(kind, text);
        exact.into_text()
    }

    #[test]
    fn nothing_is_kept_of_what_the_stored_value_says() {
        for (kind, texts) in [
            (
                Kind::Number,
                &[
                    "0",
                    "-0.00",
                    "1.50",
                    "0.1",
                    "123456789012.345",
                    "12345678901234567",
                    "1e+21",
                    "5e-324",
                    "100000000000000000000",
                ][..],
            ),
            (Kind::Date, &["2024-02-29", "5874897-12-31", "4713-01-01 BC"]),
            (Kind::Time, &["24:00:00", "01:02:03.004"]),
            (Kind::TimeTz, &["01:02:03.004+00", "24:00:00+00"]),
            (
                Kind::Timestamp,
                &["2024-02-29 12:34:56.789012", "294276-12-31 23:59:59.998+00", "1700-01-01 00:00:00.000001"],
            ),
            (Kind::Array(Element::Text, b','), &["{a,b}"]),
            (Kind::Text, &["NaN"]),
        ] {
            for text in texts {
                // The last digit of this one is not the double's.
                let expected = if *text == "12345678901234567" { *text } else { "" };
                assert_eq!(kept(kind, text), expected, "{kind:?} {text}");
            }
        }
    }

    #[test]
    fn what_is_lost_is_kept() {
        for (kind, text, expected) in [
            (Kind::Number, "9007199254740993", "9007199254740993"),
            (Kind::Number, "0.10000000000000000001", "0.10000000000000000001"),
            (Kind::Number, "NaN", "NaN"),
            (Kind::Number, "-Infinity", "-Infinity"),
            (Kind::Date, "infinity", "infinity"),
            (Kind::Timestamp, "-infinity", "-infinity"),
            (Kind::Timestamp, "294276-12-31 23:59:59.999999+00", "9224318015999999999"),
            (Kind::Timestamp, "294276-12-31 23:59:59.999+00", "9224318015999999000"),
            (Kind::Time, "01:02:03.0049", "3723004900"),
            (Kind::TimeTz, "01:02:03+01", "01:02:03+01"),
            (Kind::Array(Element::Number, b','), "{NaN}", "{NaN}"),
            (Kind::Array(Element::Text, b','), "[0:0]={\"a=b\"}", "[0:0]"),
        ] {
            assert_eq!(kept(kind, text), expected, "{kind:?} {text}");
        }
    }

    #[test]
    fn times_that_differ_by_a_microsecond_are_two_however_far_away() {
        let stored = |micros: i128| {
            let mut exact = ExactKey::default();
            exact.begin();
            exact.add_timestamp(micros);
            let number = match millis(micros) {
                Stored::Integer(i) => i as f64,
                Stored::Real(r) => r,
                other => panic!("{other:?}"),
            };
            (number.to_bits(), exact.into_text())
        };
        let mut at: i128 = 1_000_000;
        while at < 9_224_318_015_999_999_999 {
            for near in at..at + 2_100 {
                for micros in [near, -near] {
                    assert_ne!(stored(micros), stored(micros + 1), "{micros}");
                }
            }
            at = at * 7 / 3 + 1;
        }
    }

    #[test]
    fn a_binary_value_keeps_what_its_text_keeps() {
        let binary = |oid, field: &[u8]| {
            let mut exact = ExactKey::default();
            exact.add_binary(Form::of(oid), Kind::of(oid, ""), field);
            exact.into_text()
        };
        let micros = |text: &str| (time::timestamp(text).unwrap().unwrap() - EPOCH) as i64;
        let far = "294276-12-31 23:59:59.999999";
        assert_eq!(binary(1114, &micros(far).to_be_bytes()), kept(Kind::Timestamp, far));
        assert_eq!(binary(1184, &i64::MIN.to_be_bytes()), kept(Kind::Timestamp, "-infinity"));
        assert_eq!(binary(1082, &i32::MAX.to_be_bytes()), kept(Kind::Date, "infinity"));
        assert_eq!(binary(1083, &3_723_004_900i64.to_be_bytes()), kept(Kind::Time, "01:02:03.0049"));
        assert_eq!(binary(701, &f64::NAN.to_be_bytes()), kept(Kind::Number, "NaN"));
        assert_eq!(binary(701, &f64::NEG_INFINITY.to_be_bytes()), kept(Kind::Number, "-Infinity"));
        assert_eq!(binary(1700, b"9007199254740993"), kept(Kind::Number, "9007199254740993"));
    }

    #[test]
    fn columns_of_a_key_keep_apart_what_each_has_lost() {
        let two = |a: &str, b: &str| {
            let mut exact = ExactKey::default();
            exact.add(Kind::Number, a);
            exact.add(Kind::Number, b);
            exact.into_text()
        };
        assert_eq!(two("1", "2"), "");
        assert_eq!(two("NaN", "2"), "NaN\n");
        assert_eq!(two("1", "NaN"), "\nNaN");
    }
}
