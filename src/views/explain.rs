//! What a view is, holds and costs: for people who ask why a core is busy.

use serde_json::{Value, json};

use super::registry::Views;
use super::state::Slots;
use super::view::{Status, View};
use crate::model::catalogue::Catalogue;
use crate::zql::plan::{Kind, Node};

impl Views {
    /// The views that have cost the core most, described; at most so many.
    pub fn explain(&self, most: usize, catalogue: &Catalogue) -> Vec<Value> {
        let mut views: Vec<(&View, usize)> = self.iter().collect();
        let cost = |view: &View| view.cost.nanoseconds + view.cost.reading_nanoseconds;
        views.sort_unstable_by_key(|(view, _)| (std::cmp::Reverse(cost(view)), view.generation));
        views.truncate(most);
        views.into_iter().map(|(view, subscribers)| explain(view, subscribers, catalogue)).collect()
    }
}

fn explain(view: &View, subscribers: usize, catalogue: &Catalogue) -> Value {
    let cost = &view.cost;
    let fallbacks: serde_json::Map<String, Value> =
        cost.fallbacks.iter().map(|(reason, times)| (reason.name().to_owned(), json!(times))).collect();
    let nodes = view.plan.nodes.iter().zip(&view.state.nodes);
    json!({
        "view": view.generation,
        "status": match view.status {
            Status::New => "being read",
            Status::Live => "live",
            Status::Stale(_) | Status::Recorded(_) => "being read anew",
        },
        "subscribers": subscribers,
        "rows": view.size,
        "bytes": view.bytes(),
        "journal": {"deltas": view.journal.len(), "rows": view.journal.keys()},
        "batches": cost.batches,
        "rowsLookedAt": cost.looked_at,
        "rowsEntered": cost.entered,
        "rowsLeft": cost.left,
        "rowsEdited": cost.edited,
        "milliseconds": cost.nanoseconds as f64 / 1e6,
        "readings": cost.readings,
        "readingMilliseconds": cost.reading_nanoseconds as f64 / 1e6,
        "readAnewBecause": fallbacks,
        "nodes": nodes.map(|(node, slots)| explain_node(node, slots, view, catalogue)).collect::<Vec<_>>(),
        "sql": view.plan.text(),
    })
}

fn explain_node(node: &Node, slots: &Slots, view: &View, catalogue: &Catalogue) -> Value {
    let held: usize = slots.values().map(|slot| slot.rows.len()).sum();
    let is_flat = node.kind == Kind::Root && view.state.is_flat(0);
    json!({
        "table": catalogue.get(node.table).name,
        "kind": match node.kind {
            Kind::Root => "root",
            Kind::Related => "related",
            Kind::Witness => "exists",
        },
        "sent": node.emitted,
        "keys": slots.len(),
        "rows": if is_flat { view.state.flat_rows } else { held },
    })
}
