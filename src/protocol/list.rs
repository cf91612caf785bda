//! Lists and objects in messages. One of millions is refused at the first entry that is too many, and what nobody reads is not
//! kept: a frame of eight megabytes would else hold a core up for a tenth of a second.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A list of at most so many entries.
pub struct AtMost<T, const MOST: usize>(pub Vec<T>);

/// An object of at most so many fields.
pub struct MapAtMost<T, const MOST: usize>(pub BTreeMap<String, T>);

/// A list that nobody reads, of whatever it says.
pub struct Unread;

/// A list of texts that nobody reads.
pub struct UnreadTexts;

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut kept = Vec::new();
        let keep = |entry| {
            kept.push(entry);
            if kept.len() > MOST { Err(format!("a list has more than {MOST} entries")) } else { Ok(()) }
        };
        from.deserialize_seq(Each(keep, PhantomData))?;
        Ok(AtMost(kept))
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for MapAtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields(PhantomData))
    }
}

/// For a field that holds the map itself.
pub fn map_at_most<'de, T: Deserialize<'de>, const MOST: usize, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    MapAtMost::<T, MOST>::deserialize(from).map(|map| map.0)
}

struct Fields<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Fields<T, MOST> {
    type Value = MapAtMost<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut kept, mut fields) = (BTreeMap::new(), 0);
        while let Some((name, value)) = map.next_entry()? {
            kept.insert(name, value);
            // Each counts, also under a name that was there: it has to be read.
            fields += 1;
            if fields > MOST {
                return Err(A::Error::custom(format!("an object has more than {MOST} fields")));
            }
        }
        Ok(MapAtMost(kept))
    }
}

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Each(|_: IgnoredAny| Ok(()), PhantomData)).map(|()| Unread)
    }
}

impl<'de> Deserialize<'de> for UnreadTexts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Each(|_: UnreadText| Ok(()), PhantomData)).map(|()| UnreadTexts)
    }
}

/// Gives each entry of a list to a function, which may end it.
struct Each<T, F>(F, PhantomData<T>);

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(entry) = list.next_element()? {
            (self.0)(entry).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

struct UnreadText;

impl<'de> Deserialize<'de> for UnreadText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = UnreadText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<UnreadText, E> {
                Ok(UnreadText)
            }
        }
        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_at_the_first_entry_that_is_too_many() {
        let read = |json: &str| serde_json::from_str::<AtMost<u8, 2>>(json).map(|list| list.0);
        assert_eq!(read("[1,2]").expect("two"), [1, 2]);
        // What comes after it is not looked at.
        let error = read("[1,2,3,nothing").expect_err("three").to_string();
        assert!(error.starts_with("a list has more than 2 entries"), "{error}");
        assert!(read("{}").is_err() && read("[1,2").is_err() && read(r#"["a"]"#).is_err());
    }

    #[test]
    fn an_object_ends_at_the_first_field_that_is_too_many() {
        let read = |json: &str| serde_json::from_str::<MapAtMost<u8, 2>>(json).map(|map| map.0.len());
        assert_eq!(read(r#"{"a":1,"a":3}"#).expect("two"), 1);
        let error = read(r#"{"a":1,"a":2,"a":3,nothing"#).expect_err("three").to_string();
        assert!(error.starts_with("an object has more than 2 fields"), "{error}");
        let error = read(r#"{"a":1,"b":2,"c":3,nothing"#).expect_err("three").to_string();
        assert!(error.starts_with("an object has more than 2 fields"), "{error}");
        assert!(read("[]").is_err() && read(r#"{"a":1"#).is_err());
    }

    #[test]
    fn what_nobody_reads_is_a_list_all_the_same() {
        let texts = |json: &str| serde_json::from_str::<UnreadTexts>(json).is_ok();
        assert!(texts("[]") && texts(r#"["a","\u0000"]"#));
        assert!(!texts("[1]") && !texts(r#""a""#) && !texts(r#"["a"#));
        let any = |json: &str| serde_json::from_str::<Unread>(json).is_ok();
        assert!(any(r#"[1,{"a":[]},"b"]"#));
        assert!(!any("1") && !any("{}") && !any("[1"));
    }
}
