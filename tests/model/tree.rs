//! The nodes of a query as the specification has them, and whether what was found for
//! each of them is right: root and related rows exactly, witnesses within the envelope of
//! ruling 1 (`docs/spec/zql.md` §5.1, §7).

use std::collections::{BTreeMap, BTreeSet};

use kelvin::zql::ast::{Ast, Condition, Correlated, System};

use super::cell;
use super::database::{Database, Row};
use super::meaning::Binding;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Root,
    Related,
    Witness,
}

/// One node; a parent comes before its children.
pub struct Node<'q> {
    pub ast: &'q Ast,
    pub table: usize,
    pub role: Role,
    /// Parent and the tie to it.
    pub edge: Option<(usize, &'q Correlated)>,
    /// Its rows are sent to clients.
    pub sent: bool,
}

/// The rows chosen for an EXISTS: client identities by node and correlation key.
pub type Chosen = BTreeMap<(usize, String), Vec<String>>;

/// Client identities with their rows, by table: what a client ends up with.
pub type Synced = BTreeMap<(usize, String), Row>;

/// Lists the nodes of a query.
pub fn nodes<'q>(db: &Database, ast: &'q Ast) -> Vec<Node<'q>> {
    let mut out = Vec::new();
    add(db, ast, Role::Root, None, true, &mut out);
    out
}

fn add<'q>(
    db: &Database,
    ast: &'q Ast,
    role: Role,
    edge: Option<(usize, &'q Correlated)>,
    visible: bool,
    out: &mut Vec<Node<'q>>,
) {
    let table = db.schema.find(&ast.table);
    let known = db.schema.spec(table).client_key.is_some();
    let index = out.len();
    out.push(Node { ast, table, role, edge, sent: visible && known });
    if let Some(condition) = &ast.condition {
        add_conditions(db, condition, index, true, visible, out);
    }
    let related = if role == Role::Witness { &[] } else { ast.related.as_slice() };
    for (position, child) in related.iter().enumerate() {
        let alias = &child.subquery.alias;
        // Of several with one alias, the last counts.
        let is_last = related[position + 1..].iter().all(|later| later.subquery.alias != *alias);
        if is_last || alias.is_none() {
            let visible = visible && child.system == System::Client;
            add(db, &child.subquery, Role::Related, Some((index, child)), visible, out);
        }
    }
    // What sends nothing, and has nothing below that does, is no part of the answer.
    if role != Role::Root && out[index..].iter().all(|node| !node.sent) {
        out.truncate(index);
    }
}

/// `must_hold`: the condition holds for every row of the node, so a NOT EXISTS has no rows.
fn add_conditions<'q>(
    db: &Database,
    condition: &'q Condition,
    parent: usize,
    must_hold: bool,
    visible: bool,
    out: &mut Vec<Node<'q>>,
) {
    match condition {
        Condition::Simple { .. } => {}
        Condition::And(all) => {
            all.iter().for_each(|c| add_conditions(db, c, parent, must_hold, visible, out));
        }
        Condition::Or(any) => {
            let must_hold = must_hold && any.len() == 1;
            any.iter().for_each(|c| add_conditions(db, c, parent, must_hold, visible, out));
        }
        Condition::Exists { related, negated, .. } => {
            if related.system == System::Client && !(*negated && must_hold) {
                add(db, &related.subquery, Role::Witness, Some((parent, related)), visible, out);
            }
        }
    }
}

/// Checks the rows chosen for every EXISTS and returns what a client must have because of
/// this query. `before`: earlier choices, which stay for as long as they can.
pub fn judge(
    db: &Database,
    nodes: &[Node],
    chosen: &Chosen,
    before: Option<&Chosen>,
) -> Result<Synced, String> {
    let mut rows: Vec<BTreeMap<String, Row>> = Vec::new();
    let mut keys_used = BTreeSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut found = BTreeMap::new();
        for binding in bindings(db, node, nodes, &rows) {
            let name = |row: &Row| db.identity(node.table, row);
            if node.role != Role::Witness {
                found.extend(db.select(node.ast, &binding).into_iter().map(|r| (name(r), r.clone())));
                continue;
            }
            let all: BTreeMap<String, Row> =
                db.witnesses(node.ast, &binding).into_iter().map(|r| (name(r), r.clone())).collect();
            let key = (index, key_name(&binding));
            keys_used.insert(key.clone());
            let picked = chosen.get(&key).cloned().unwrap_or_default();
            check_choice(&picked, &all, before.and_then(|b| b.get(&key)))
                .map_err(|e| format!("node {index}, key {}: {e}", key.1))?;
            found.extend(picked.into_iter().filter_map(|p| Some((p.clone(), all.get(&p)?.clone()))));
        }
        rows.push(found);
    }
    if let Some((key, _)) =
        chosen.iter().find(|(key, picked)| !keys_used.contains(*key) && !picked.is_empty())
    {
        return Err(format!("witnesses for {key:?}, which no row has as its key"));
    }
    let sent = nodes.iter().zip(rows).filter(|(node, _)| node.sent);
    Ok(sent.flat_map(|(node, rows)| rows.into_iter().map(|(id, r)| ((node.table, id), r))).collect())
}

fn check_choice(
    picked: &[String],
    all: &BTreeMap<String, Row>,
    before: Option<&Vec<String>>,
) -> Result<(), String> {
    let distinct: BTreeSet<&String> = picked.iter().collect();
    if distinct.len() != picked.len() {
        return Err(format!("{picked:?} has duplicates"));
    }
    if let Some(stranger) = picked.iter().find(|p| !all.contains_key(*p)) {
        return Err(format!("{stranger} is no witness; {:?} are", all.keys()));
    }
    if picked.len() != all.len().min(3) {
        return Err(format!("{picked:?} of {:?}", all.keys()));
    }
    let kept = before.into_iter().flatten().find(|b| all.contains_key(*b) && !picked.contains(b));
    match kept {
        Some(lost) => Err(format!("{lost} was a witness, still is one, and was given up for {picked:?}")),
        None => Ok(()),
    }
}

/// The distinct keys that a node's parent rows give.
fn bindings(db: &Database, node: &Node, nodes: &[Node], rows: &[BTreeMap<String, Row>]) -> Vec<Binding> {
    let Some((parent, correlated)) = node.edge else { return vec![Binding::new()] };
    let parents = rows[parent].values();
    let all = parents.filter_map(|row| db.bind(nodes[parent].table, correlated, row));
    let by_name: BTreeMap<String, Binding> = all.map(|b| (key_name(&b), b)).collect();
    by_name.into_values().collect()
}

/// A correlation key as a text.
pub fn key_name(binding: &Binding) -> String {
    let parts: Vec<String> = binding.iter().map(|(_, value)| cell::name(value)).collect();
    parts.join(",")
}
