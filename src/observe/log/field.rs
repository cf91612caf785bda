//! The value of a field of a log line.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};

/// Longest text of a message or field in bytes; the rest is cut off, so that one line cannot fill the
/// queue.
pub(super) const MAX_TEXT_BYTES: usize = 8 * 1024;

/// The value of a field. Made with `into()` from texts, numbers, booleans and options of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing: `null`.
    Null,
    /// A text.
    Text(Cow<'a, str>),
    /// A number without sign.
    Unsigned(u64),
    /// A number with sign.
    Signed(i64),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Anything else.
    Json(&'a serde_json::Value),
}

impl<'a> Value<'a> {
    /// What `value` displays.
    pub fn display(value: &dyn fmt::Display) -> Value<'a> {
        Value::Text(Cow::Owned(value.to_string()))
    }

    /// An error and its causes: `cannot write replica: disk full`.
    pub fn error(error: &dyn Error) -> Value<'a> {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // Writing to a String does not fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        Value::Text(Cow::Owned(text))
    }

    pub(super) fn write_json(&self, out: &mut String) {
        match self {
            Value::Text(text) => write_json_text(text, out),
            Value::Float(number) if !number.is_finite() => *out += "null",
            Value::Json(json) => *out += &json.to_string(),
            other => other.write_plain(out),
        }
    }

    /// For the text format: quoted only where it would be read as several words.
    pub(super) fn write_text(&self, out: &mut String) {
        match self {
            Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                write_json_text(text, out)
            }
            Value::Text(text) => write_line_text(cut(text), out),
            Value::Json(json) => *out += &json.to_string(),
            other => other.write_plain(out),
        }
    }

    fn write_plain(&self, out: &mut String) {
        // Writing to a String does not fail.
        let _ = match self {
            Value::Unsigned(number) => write!(out, "{number}"),
            Value::Signed(number) => write!(out, "{number}"),
            Value::Float(number) => write!(out, "{number}"),
            Value::Bool(on) => write!(out, "{on}"),
            Value::Null | Value::Text(_) | Value::Json(_) => write!(out, "null"),
        };
    }
}

/// As a JSON string.
pub(super) fn write_json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in cut(text).chars() {
        match c {
            '"' => *out += "\\\"",
            '\\' => *out += "\\\\",
            c if c.is_control() => write_escape(c, out),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// As it is, but on one line: a client must not be able to write lines of its own into the log.
pub(super) fn write_line_text(text: &str, out: &mut String) {
    for c in text.chars() {
        match c.is_control() {
            true => write_escape(c, out),
            false => out.push(c),
        }
    }
}

fn write_escape(c: char, out: &mut String) {
    match c {
        '\n' => *out += "\\n",
        '\t' => *out += "\\t",
        '\r' => *out += "\\r",
        c => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
}

/// The first [`MAX_TEXT_BYTES`] of `text`, to whole characters.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Value<'a> {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(on: bool) -> Self {
        Value::Bool(on)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Value::Float(number)
    }
}

impl<'a> From<&'a serde_json::Value> for Value<'a> {
    fn from(json: &'a serde_json::Value) -> Self {
        Value::Json(json)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

macro_rules! from_number {
    ($($from:ty => $variant:ident as $to:ty),+) => {
        $(impl From<$from> for Value<'_> {
            fn from(number: $from) -> Self {
                Value::$variant(number as $to)
            }
        })+
    };
}
from_number!(
    u8 => Unsigned as u64, u16 => Unsigned as u64, u32 => Unsigned as u64, u64 => Unsigned as u64,
    usize => Unsigned as u64, i16 => Signed as i64, i32 => Signed as i64, i64 => Signed as i64
);
