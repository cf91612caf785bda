//! Inputs that are nearly right: seeds that were changed in a few places.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

/// Longest input: what matters happens in short ones, and more of them.
const MAX_LENGTH: usize = 32 << 10;

/// One change of bytes.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Number(Index, u64, usize),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Cut(Index),
}

fn edit(words: Vec<&'static [u8]>) -> impl Strategy<Value = Edit> {
    let words: Vec<Vec<u8>> = words.into_iter().map(<[u8]>::to_vec).chain([vec![]]).collect();
    let odd = select(vec![
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        u64::MAX >> 1,
        u64::MAX,
    ]);
    prop_oneof![
        (any::<Index>(), 1u8..).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        (any::<Index>(), select(words)).prop_map(|(at, word)| Edit::Insert(at, word)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, new)| Edit::Insert(at, new)),
        (any::<Index>(), odd, 1usize..=8).prop_map(|(at, number, width)| Edit::Number(at, number, width)),
        (any::<Index>(), 1usize..64).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), 1usize..64, 2usize..200)
            .prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        any::<Index>().prop_map(Edit::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let place = |at: &Index| at.index(bytes.len() + 1);
    match edit {
        Edit::Flip(at, bits) => {
            let at = place(at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
        }
        Edit::Insert(at, new) => {
            let at = place(at);
            bytes.splice(at..at, new.iter().copied());
        }
        Edit::Number(at, number, width) => {
            let at = place(at);
            let end = bytes.len().min(at + width);
            bytes.splice(at..end, number.to_be_bytes()[8 - width..].iter().copied());
        }
        Edit::Remove(at, count) => {
            let at = place(at);
            bytes.drain(at..bytes.len().min(at + count));
        }
        Edit::Repeat(at, length, times) => {
            let at = place(at);
            let part = bytes[at..bytes.len().min(at + length)].repeat(*times);
            bytes.splice(at..at, part);
        }
        Edit::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
    }
    bytes.truncate(MAX_LENGTH);
}

/// Bytes made of one of the seeds, with these words put in here and there.
pub fn bytes(seeds: Vec<Vec<u8>>, words: Vec<&'static [u8]>) -> impl Strategy<Value = Vec<u8>> {
    (select(seeds), prop::collection::vec(edit(words), 0..6)).prop_map(|(mut bytes, edits)| {
        edits.iter().for_each(|edit| apply(&mut bytes, edit));
        bytes
    })
}

/// The same for texts.
pub fn text(seeds: &[&str], words: Vec<&'static [u8]>) -> impl Strategy<Value = String> + use<> {
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    bytes(seeds, words).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Where to cut bytes into pieces.
pub fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..12)
}

/// The pieces.
pub fn pieces<'b>(bytes: &'b [u8], cuts: &[Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// One change of a JSON value, somewhere within it.
#[derive(Debug, Clone)]
enum Change {
    To(Value),
    Remove,
    Add(String, Value),
    Wrap(usize),
    Twice,
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        select(vec![-1i64, 0, 1, i64::MAX, i64::MIN, 1 << 53]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        select(vec!["", "item", "id", "asc", "=", "IN", "LIKE", "and", "EXISTS", "__proto__"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any_value().prop_map(Change::To),
        Just(Change::Remove),
        (select(vec!["id", "ast", "more", "name"]), any_value())
            .prop_map(|(key, value)| Change::Add(key.into(), value)),
        (1usize..80).prop_map(Change::Wrap),
        Just(Change::Twice),
    ]
}

/// Follows a path into a value, as deep as both go, and changes what is there.
fn change_at(value: &mut Value, path: &[Index], change: &Change) {
    let (next, rest) = match path.split_first() {
        Some((next, rest)) => (next, rest),
        None => return change_here(value, change),
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            let at = next.index(items.len());
            match (rest, change) {
                ([], Change::Remove) => drop(items.remove(at)),
                ([], Change::Twice) => items.insert(at, items[at].clone()),
                _ => change_at(&mut items[at], rest, change),
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(next.index(fields.len())).cloned().unwrap_or_default();
            match (rest, change) {
                ([], Change::Remove) => drop(fields.remove(&key)),
                _ => change_at(&mut fields[&key], rest, change),
            }
        }
        _ => change_here(value, change),
    }
}

fn change_here(value: &mut Value, change: &Change) {
    match change {
        Change::To(new) => *value = new.clone(),
        Change::Wrap(depth) => *value = (0..*depth).fold(value.take(), |inner, _| json!([inner])),
        Change::Add(key, new) => {
            if let Some(fields) = value.as_object_mut() {
                fields.insert(key.clone(), new.clone());
            }
        }
        Change::Remove | Change::Twice => {}
    }
}

/// JSON values made of one of the seeds.
pub fn value(seeds: &[&str]) -> impl Strategy<Value = Value> + use<> {
    let seeds: Vec<Value> =
        seeds.iter().map(|seed| serde_json::from_str(seed).expect("a seed is JSON")).collect();
    let paths = prop::collection::vec(any::<Index>(), 0..9);
    (select(seeds), prop::collection::vec((paths, change()), 0..4)).prop_map(|(mut value, changes)| {
        changes.iter().for_each(|(path, change)| change_at(&mut value, path, change));
        value
    })
}
