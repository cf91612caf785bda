//! Relations as one connection has described them (`docs/spec/schema-changes.md` S7).

use std::collections::{HashMap, HashSet};

use super::pgoutput::{Pgoutput, parse};
use super::shape::Shape;
use super::stop::Stop;
use crate::model::catalogue::Table;

/// What a connection has said of relations.
#[derive(Default)]
pub struct Relations {
    known: HashMap<u32, Known>,
    /// Messages that described relations which are not in the catalogue.
    unknown: HashMap<u32, Box<[u8]>>,
    /// Those of which a look has shown that their rows are not wanted.
    ignored: HashSet<u32>,
}

struct Known {
    shape: Shape,
    /// The message that described it.
    said: Box<[u8]>,
}

impl Relations {
    /// Rows of a relation are to be taken so.
    pub fn know(&mut self, oid: u32, shape: Shape, said: &[u8]) {
        self.unknown.remove(&oid);
        self.known.insert(oid, Known { shape, said: said.into() });
    }

    /// A relation is not in the catalogue. Partitions are described too, beside the root that their changes are sent as. So
    /// only a change tells that a relation is published by itself.
    pub fn not_ours(&mut self, oid: u32, said: &[u8]) {
        self.known.remove(&oid);
        self.unknown.insert(oid, said.into());
        self.ignored.remove(&oid);
    }

    /// Rows of a relation are not wanted.
    pub fn ignore(&mut self, oid: u32, said: &[u8]) {
        self.not_ours(oid, said);
        self.ignored.insert(oid);
    }

    /// A look has shown that nothing is wanted of what is not in the catalogue.
    pub fn ignore_unknown(&mut self) {
        self.ignored.extend(self.unknown.keys());
    }

    /// A relation is being described again.
    pub fn forget(&mut self, oid: u32) {
        self.known.remove(&oid);
    }

    /// How rows of a relation are to be taken. `None`: they are not wanted.
    pub fn shape(&self, oid: u32) -> Result<Option<&Shape>, Stop> {
        if let Some(known) = self.known.get(&oid) {
            return Ok(Some(&known.shape));
        }
        match self.unknown.get(&oid) {
            Some(_) if self.ignored.contains(&oid) => Ok(None),
            Some(said) => Err(Stop::Look(match parse(said) {
                Ok(Pgoutput::Relation(of)) => format!("table {}.{} is published", of.schema, of.name),
                _ => format!("relation {oid} is published"),
            })),
            None => Err(Stop::Protocol(format!("a change of unknown relation {oid}"))),
        }
    }

    /// What the relations are that were known is not what it was: `table` finds it by OID.
    pub fn bring<'t>(&mut self, table: impl Fn(u32) -> Option<&'t Table>) {
        for (oid, mut known) in std::mem::take(&mut self.known) {
            let Some(table) = table(oid) else {
                self.not_ours(oid, &known.said);
                continue;
            };
            let was = known.shape.table;
            let is_copy = table.refill.as_ref().is_some_and(|refill| refill.table == was);
            if is_copy || table.id == was || table.filled_as == Some(was) {
                known.shape.bring_to(table);
                self.known.insert(oid, known);
                continue;
            }
            let shape = match parse(&known.said) {
                Ok(Pgoutput::Relation(of)) => Shape::exact(table, &of).or_else(|_| Shape::former(table, &of)),
                _ => Err("it was not described".to_owned()),
            };
            match shape {
                Ok(shape) => self.know(oid, shape, &known.said),
                // It is copied for another one's name: rows of before are in the copy.
                Err(_) => self.ignore(oid, &known.said),
            }
        }
    }

    /// Messages that have described what is in the catalogue by now.
    pub fn come(&mut self, is_there: impl Fn(u32) -> bool) -> Vec<Box<[u8]>> {
        let ignored = &self.ignored;
        let is_ours = |oid: &u32, _: &mut Box<[u8]>| is_there(*oid) && !ignored.contains(oid);
        self.unknown.extract_if(is_ours).map(|(_, said)| said).collect()
    }
}
