//! Arrays: from Postgres' literal to JSON text.

use serde_json::Value as Json;

use super::kind::Element;
use super::{Malformed, Stored, millis, number, text, time};

/// Deepest nesting. Postgres allows six dimensions.
const MAX_DEPTH: usize = 8;

/// Converts an array literal, such as `{1,NULL,"a b"}` or `[0:1]={{1},{2}}`, with its elements separated by a byte that
/// depends on their type.
pub(super) fn to_json(element: Element, separator: u8, literal: &str) -> Result<String, Malformed> {
    let mut parser = Parser {
        literal,
        rest: after_bounds(literal).as_bytes(),
        element,
        separator,
        out: String::with_capacity(literal.len() + 8),
        scratch: Vec::new(),
    };
    parser.array(0)?;
    if parser.rest.is_empty() { Ok(parser.out) } else { Err(parser.malformed()) }
}

/// Skips the bounds that Postgres prints when an array does not start at 1.
fn after_bounds(literal: &str) -> &str {
    match literal.split_once('=') {
        Some((bounds, array)) if bounds.starts_with('[') && array.starts_with('{') => array,
        _ => literal,
    }
}

struct Parser<'a> {
    literal: &'a str,
    rest: &'a [u8],
    element: Element,
    separator: u8,
    out: String,
    scratch: Vec<u8>,
}

impl<'a> Parser<'a> {
    fn malformed(&self) -> Malformed {
        Malformed::new("array", self.literal)
    }

    fn array(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH || !self.take(b'{') {
            return Err(self.malformed());
        }
        self.out.push('[');
        if self.take(b'}') {
            self.out.push(']');
            return Ok(());
        }
        loop {
            match self.rest.first() {
                Some(b'{') => self.array(depth + 1)?,
                Some(b'"') => self.quoted()?,
                _ => self.bare()?,
            }
            if self.take(b'}') {
                self.out.push(']');
                return Ok(());
            }
            if !self.take(self.separator) {
                return Err(self.malformed());
            }
            self.out.push(',');
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn bare(&mut self) -> Result<(), Malformed> {
        let separator = self.separator;
        let end = self.rest.iter().position(|b| *b == separator || *b == b'}');
        let end = end.ok_or_else(|| self.malformed())?;
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        if value == b"NULL" {
            self.out.push_str("null");
            return Ok(());
        }
        let value = std::str::from_utf8(value).map_err(|_| self.malformed())?;
        write_element(self.element, value, &mut self.out)
    }

    fn quoted(&mut self) -> Result<(), Malformed> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let mut bytes = self.rest[1..].iter().enumerate();
        let mut end = None;
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    end = Some(at);
                    break;
                }
                b'\\' => match bytes.next() {
                    Some((_, escaped)) => scratch.push(*escaped),
                    None => break,
                },
                other => scratch.push(*other),
            }
        }
        let end = end.ok_or_else(|| self.malformed())?;
        self.rest = &self.rest[end + 2..];
        let value = std::str::from_utf8(&scratch).map_err(|_| self.malformed())?;
        write_element(self.element, value, &mut self.out)?;
        self.scratch = scratch;
        Ok(())
    }
}

fn write_element(element: Element, value: &str, out: &mut String) -> Result<(), Malformed> {
    match element {
        Element::Integer => {
            text::integer(value)?;
            out.push_str(value);
        }
        Element::Number => write_number(number(text::double(value)?), out),
        Element::Boolean => out.push_str(if text::boolean(value)? { "true" } else { "false" }),
        Element::Date => write_number(time::date(value)?.map_or(Stored::Null, millis), out),
        Element::Timestamp => write_number(time::timestamp(value)?.map_or(Stored::Null, millis), out),
        Element::Time => write_number(Stored::Integer(time::time(value)?), out),
        Element::TimeTz => write_number(Stored::Integer(time::time_tz(value)?), out),
        Element::Json => out.push_str(value),
        Element::Text => out.push_str(&Json::from(value).to_string()),
    }
    Ok(())
}

/// As JavaScript prints it; what no client can hold is null.
fn write_number(value: Stored<'_>, out: &mut String) {
    match value {
        Stored::Integer(i) => out.push_str(itoa::Buffer::new().format(i)),
        Stored::Real(r) => out.push_str(ryu_js::Buffer::new().format(r)),
        _ => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json() {
        for (element, literal, json) in [
            (Element::Integer, "{}", "[]"),
            (Element::Integer, "{1,NULL,-3}", "[1,null,-3]"),
            (Element::Integer, "[0:1][1:1]={{1},{2}}", "[[1],[2]]"),
            (
                Element::Text,
                r#"{a,"b c","NULL",NULL,"q\"\\","{x}","é"}"#,
                r#"["a","b c","NULL",null,"q\"\\","{x}","é"]"#,
            ),
            (Element::Text, "{=,\"[1:1]={\"}", r#"["=","[1:1]={"]"#),
            (Element::Boolean, "{{t,f},{f,NULL}}", "[[true,false],[false,null]]"),
            (Element::Number, "{1.50,NaN,1e+21,100,-0}", "[1.5,null,1e+21,100,0]"),
            (Element::Timestamp, "{\"2024-01-01 00:00:00.5+00\",infinity}", "[1704067200500,null]"),
            (Element::Json, r#"{"{\"a\": [1, 2]}",3}"#, r#"[{"a": [1, 2]},3]"#),
        ] {
            assert_eq!(to_json(element, b',', literal).unwrap(), json, "{literal}");
        }
        for (separator, literal, json) in [
            (b';', "{(1,2),(0,0);(3,4),(1,1)}", r#"["(1,2),(0,0)","(3,4),(1,1)"]"#),
            (b'|', r#"{{a,b|"c|d"}|{NULL|"}"}}"#, r#"[["a,b","c|d"],[null,"}"]]"#),
        ] {
            assert_eq!(to_json(Element::Text, separator, literal).unwrap(), json, "{literal}");
        }
    }

    #[test]
    fn broken_literals_are_refused() {
        for literal in ["", "{", "{1", "{1,}", "1", "{1}x", "{\"a}", "{{{{{{{{{{1}}}}}}}}}}"] {
            assert!(to_json(Element::Integer, b',', literal).is_err(), "{literal}");
        }
    }
}
