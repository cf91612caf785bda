//! Takes down everything that the evaluator finds, in the terms of the model.

use std::collections::{BTreeMap, BTreeSet};

use kelvin::model::key;
use kelvin::model::value::Value;
use kelvin::replica::reader::ReadError;
use kelvin::zql::evaluate::{Collect, ScopeKey};
use kelvin::zql::plan::{Kind, Node, Plan};
use rusqlite::types::ValueRef;

use super::cell::Cell;
use super::tree::Chosen;

/// What was found.
#[derive(Default)]
pub struct Probe {
    /// Visible values of the rows of emitted nodes, by node and identity.
    pub rows: BTreeMap<(usize, String), Vec<Value>>,
    /// Rows that one node gave twice.
    pub repeated: Vec<(usize, String)>,
    pub chosen: Chosen,
    pub scopes: BTreeSet<(usize, String)>,
    /// Keys of the node at hand.
    keys: Vec<Box<[u8]>>,
    /// Nodes that choose rows, and nodes whose rows are sent.
    witnesses: BTreeSet<usize>,
    emitted: BTreeSet<usize>,
    /// Identity bytes of earlier choices, by node and key bytes.
    previous: BTreeMap<(usize, Vec<u8>), Vec<Vec<u8>>>,
    raw: BTreeMap<(usize, Vec<u8>), Vec<Vec<u8>>>,
}

impl Probe {
    /// For an evaluation of a plan.
    pub fn of(plan: &Plan) -> Probe {
        let nodes = |is: fn(&Node) -> bool| (0..plan.nodes.len()).filter(|n| is(&plan.nodes[*n])).collect();
        Probe {
            witnesses: nodes(|node| node.kind == Kind::Witness),
            emitted: nodes(|node| node.emitted),
            ..Probe::default()
        }
    }

    /// For an evaluation that prefers the witnesses found by another.
    pub fn after(earlier: &Probe) -> Probe {
        let (witnesses, emitted) = (earlier.witnesses.clone(), earlier.emitted.clone());
        Probe { previous: earlier.raw.clone(), witnesses, emitted, ..Probe::default() }
    }
}

impl Collect for Probe {
    fn row(
        &mut self,
        node: usize,
        key: usize,
        identity: &[u8],
        row: &rusqlite::Row<'_>,
    ) -> Result<(), ReadError> {
        let key = &*self.keys[key];
        if self.witnesses.contains(&node) {
            self.chosen.entry((node, name(key))).or_default().push(name(identity));
            self.raw.entry((node, key.to_vec())).or_default().push(identity.to_vec());
        }
        if !self.emitted.contains(&node) {
            return Ok(());
        }
        // The last one is the row's version.
        let count = row.as_ref().column_count() - 1;
        let values: Result<Vec<Value>, _> = (0..count).map(|c| row.get_ref(c).map(value)).collect();
        let key = (node, name(identity));
        if self.rows.insert(key.clone(), values?).is_some() {
            self.repeated.push(key);
        }
        Ok(())
    }

    fn keys(&mut self, node: usize, keys: &[ScopeKey]) -> Result<(), ReadError> {
        self.keys = keys.iter().map(|key| key.bytes.clone()).collect();
        for key in keys.iter().filter(|_| node > 0) {
            assert!(self.scopes.insert((node, name(&key.bytes))), "a key comes twice");
        }
        Ok(())
    }

    fn witnesses(&self, node: usize, key: &[u8]) -> Vec<Vec<u8>> {
        self.previous.get(&(node, key.to_vec())).cloned().unwrap_or_default()
    }
}

/// Key bytes as the model names keys.
pub fn name(bytes: &[u8]) -> String {
    let parts: Vec<String> = key::values(bytes)
        .into_iter()
        .map(|value| match value {
            Value::Null => panic!("a key with NULL"),
            Value::Integer(i) => super::cell::name(&Cell::Int(i)),
            Value::Real(r) => super::cell::name(&Cell::Real(r)),
            Value::Text(t) => super::cell::name(&Cell::Text(t.into())),
            Value::Blob(_) => panic!("a key with bytes"),
        })
        .collect();
    parts.join(",")
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Integer(i),
        ValueRef::Real(r) => Value::Real(r),
        ValueRef::Text(t) => Value::Text(std::str::from_utf8(t).expect("UTF-8").into()),
        ValueRef::Blob(b) => Value::Blob(b.into()),
    }
}
