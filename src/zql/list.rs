//! The values of an IN: found by halves, and one text for statements, however many there are of both.

use std::sync::Arc;

use super::sql::json_array;
use super::test::compare;
use crate::model::value::Value;

/// Values in order, each once.
#[derive(Debug)]
pub struct List {
    values: Box<[Value]>,
    json: Arc<str>,
}

impl PartialEq for List {
    fn eq(&self, other: &List) -> bool {
        self.values == other.values
    }
}

impl List {
    /// Of values of one type, without NULL.
    pub fn new(values: impl Iterator<Item = Value>) -> List {
        let mut values: Vec<Value> = values.filter(can_be_stored).collect();
        values.sort_unstable_by(compare);
        values.dedup_by(|a, b| compare(a, b).is_eq());
        let json = json_array(&values).into();
        List { values: values.into(), json }
    }

    /// Whether a value is one of them.
    pub fn contains(&self, value: &Value) -> bool {
        self.values.binary_search_by(|one| compare(one, value)).is_ok()
    }

    /// The values.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The values as a JSON array, for `json_each`.
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(|value| size_of::<Value>() + value.heap_size()).sum::<usize>()
            + self.json.len()
    }
}

/// Postgres stores no text with a NUL, and not every version of SQLite reads all of one out of JSON.
fn can_be_stored(value: &Value) -> bool {
    !matches!(value, Value::Text(text) if memchr::memchr(0, text.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_list_is_found_whatever_its_order() {
        let numbers = [3.0, 1.5, 9e15, 1e300, -4.0, 3.0].map(Value::number);
        let list = List::new(numbers.iter().cloned());
        assert_eq!(list.values().len(), 5);
        assert!(numbers.iter().all(|number| list.contains(number)));
        assert!(list.contains(&Value::Real(3.0)) && !list.contains(&Value::Integer(4)));
        assert!(!list.contains(&Value::Integer(i64::MAX)));
        assert!(!List::new([].into_iter()).contains(&Value::Integer(0)));
    }

    #[test]
    fn a_text_with_a_nul_is_nobodys() {
        let list = List::new(["a\0zzz", "b"].map(|text| Value::Text(text.into())).into_iter());
        assert!(!list.json().contains('a') && !list.contains(&Value::Text("a".into())));
    }
}
