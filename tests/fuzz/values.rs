//! Values as Postgres prints and sends them.

use std::borrow::Cow;

use kelvin::upstream::types::{Element, Form, Kind, Stored, convert, convert_binary};
use proptest::prelude::*;
use proptest::sample::select;

use super::engine::fuzz;
use super::mutate::{bytes, text};

const SEEDS: [&str; 18] = [
    "0",
    "-9223372036854775808",
    "1e400",
    "NaN",
    "-Infinity",
    "12345.67890",
    "t",
    "2024-01-02 03:04:05.678901+02:30",
    "4713-01-01 BC",
    "infinity",
    "24:00:00",
    "12:00:00+15:59",
    "{\"a\":[1,null]}",
    "\\x00ff",
    "10.0.0.1",
    "{1,NULL,\"a \\\"b\\\\\"}",
    "[0:1]={{1},{2}}",
    "{(1,2),(0,0);(3,4),(1,1)}",
];

fn kinds() -> Vec<Kind> {
    let elements = [
        Element::Integer,
        Element::Number,
        Element::Boolean,
        Element::Date,
        Element::Time,
        Element::TimeTz,
        Element::Timestamp,
        Element::Json,
        Element::Text,
    ];
    let scalars = [
        Kind::Integer,
        Kind::Number,
        Kind::Float,
        Kind::Boolean,
        Kind::Date,
        Kind::Time,
        Kind::TimeTz,
        Kind::Timestamp,
        Kind::Json,
        Kind::Bytes,
        Kind::Inet,
        Kind::Text,
    ];
    let arrays = elements.map(|element| Kind::Array(element, b','));
    let others = elements.map(|element| Kind::Array(element, b';'));
    scalars.into_iter().chain(arrays).chain(others).collect()
}

#[test]
fn printed_values_are_converted_or_refused() {
    let words: Vec<&[u8]> =
        vec![b"{", b"}", b"\"", b"NULL", b",", b"\\", b"99999999999999999999", b" BC", b"-"];
    fuzz((select(kinds()), text(&SEEDS, words)), |(kind, text)| {
        let Ok(stored) = convert(kind, Cow::Borrowed(&text)) else { return Ok(()) };
        match (kind, &stored) {
            // JSON elements are embedded as they are: Postgres has looked at them.
            (Kind::Array(element, _), Stored::Text(json)) if element != Element::Json => {
                let parsed = serde_json::from_str::<&serde_json::value::RawValue>(json);
                prop_assert!(parsed.is_ok() && json.starts_with('['), "{text:?} becomes {json:?}");
                prop_assert!(json.len() <= 32 * text.len() + 64);
            }
            (Kind::Array(..), _) => {}
            (Kind::Integer, stored) => {
                prop_assert_eq!(stored, &Stored::Integer(text.parse().expect("a number")))
            }
            (Kind::Bytes, Stored::Blob(bytes)) => prop_assert_eq!(bytes.len() * 2 + 2, text.len()),
            _ => {}
        }
        Ok(())
    });
}

#[test]
fn sent_values_are_converted_or_refused() {
    let oids = select(vec![
        16, 17, 20, 21, 23, 25, 700, 701, 1043, 1082, 1083, 1114, 1184, 1266, 1700, 2950, 114, 3802, 869,
    ]);
    let seeds = vec![
        vec![0; 8],
        vec![0xff; 8],
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![1, b'{', b'}'],
        b"text".to_vec(),
        vec![0x7f; 16],
    ];
    fuzz((oids, bytes(seeds, vec![])), |(oid, bytes)| {
        let _ = convert_binary(Form::of(oid), Kind::of(oid, ""), &bytes);
        Ok(())
    });
}
