//! Whether a store is the union of some answers: root and related rows exactly, rows of
//! EXISTS within the envelope of `docs/spec/zql.md` §5.1 and ruling 1.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::oracle::{Answer, Number};

/// Most rows that are chosen for one key of one EXISTS.
const MOST: usize = 3;

/// Looks at a store that holds these rows. The error names the row or what it lacks.
pub fn check(held: &BTreeSet<Number>, answers: &[Rc<Answer>]) -> Result<(), String> {
    for answer in answers {
        if let Some(missing) = answer.exact.iter().find(|row| !held.contains(row)) {
            return Err(format!("row {missing} of a result is missing"));
        }
        let mut known = vec![None; answer.slots.len()];
        for slot in &answer.needed {
            if !is_served(answer, *slot, held, &mut known) {
                let rows: Vec<Number> = answer.slots[*slot].rows.iter().map(|(row, _)| *row).collect();
                return Err(format!("of the witnesses {rows:?} too few are there, or one lacks its own"));
            }
        }
    }
    explained(held, answers)
}

/// Whether so many rows of a slot are there as have to be, each with all that it needs.
fn is_served(answer: &Answer, slot: usize, held: &BTreeSet<Number>, known: &mut [Option<bool>]) -> bool {
    if let Some(served) = known[slot] {
        return served;
    }
    let Slots { sent, rows } = Slots::of(answer, slot);
    let mut good = 0;
    for (row, slots) in rows {
        let there = !sent || held.contains(row);
        if there && slots.iter().all(|inner| is_served(answer, *inner, held, known)) {
            good += 1;
        }
    }
    let served = good >= rows.len().min(MOST);
    known[slot] = Some(served);
    served
}

struct Slots<'a> {
    sent: bool,
    rows: &'a [(Number, Vec<usize>)],
}

impl Slots<'_> {
    fn of(answer: &Answer, slot: usize) -> Slots<'_> {
        Slots { sent: answer.slots[slot].sent, rows: &answer.slots[slot].rows }
    }
}

/// Gives every row that is in no result a place among the rows chosen for some EXISTS: each has
/// [`MOST`] places.
fn explained(held: &BTreeSet<Number>, answers: &[Rc<Answer>]) -> Result<(), String> {
    let exact: BTreeSet<Number> = answers.iter().flat_map(|answer| &answer.exact).copied().collect();
    let mut choices: BTreeMap<Number, Vec<(usize, usize)>> = BTreeMap::new();
    for (which, answer) in answers.iter().enumerate() {
        for slot in reachable(answer, held) {
            let Slots { sent, rows } = Slots::of(answer, slot);
            let extra = rows.iter().filter(|(row, _)| sent && held.contains(row) && !exact.contains(row));
            extra.for_each(|(row, _)| choices.entry(*row).or_default().push((which, slot)));
        }
    }
    let mut places: BTreeMap<(usize, usize), Vec<Number>> = BTreeMap::new();
    for row in held.difference(&exact) {
        if !place(*row, &choices, &mut places, &mut BTreeSet::new()) {
            return Err(format!("nothing explains row {row}"));
        }
    }
    Ok(())
}

/// Slots of rows that are there, or may be chosen though clients do not know them.
fn reachable(answer: &Answer, held: &BTreeSet<Number>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut next = answer.needed.clone();
    while let Some(slot) = next.pop() {
        if found.insert(slot) {
            let Slots { sent, rows } = Slots::of(answer, slot);
            let there = rows.iter().filter(|(row, _)| !sent || held.contains(row));
            next.extend(there.flat_map(|(_, slots)| slots));
        }
    }
    found
}

/// Finds a place for a row; others may have to move.
fn place(
    row: Number,
    choices: &BTreeMap<Number, Vec<(usize, usize)>>,
    places: &mut BTreeMap<(usize, usize), Vec<Number>>,
    tried: &mut BTreeSet<(usize, usize)>,
) -> bool {
    for slot in choices.get(&row).into_iter().flatten() {
        if !tried.insert(*slot) {
            continue;
        }
        let there = places.entry(*slot).or_default();
        if there.len() < MOST {
            there.push(row);
            return true;
        }
        for (at, other) in there.clone().into_iter().enumerate() {
            if place(other, choices, places, tried) {
                places.entry(*slot).or_default()[at] = row;
                return true;
            }
        }
    }
    false
}
