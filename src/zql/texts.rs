//! SQL texts that plans have in common: queries of one shape differ in their constants alone.

use std::sync::Arc;

use hashbrown::HashSet;

use super::builder::Statement;
use super::plan::Plan;
use super::sql::Statements;

/// Most texts that are remembered. A large application has some thousand; beyond that, all
/// are forgotten, and plans made from then on share anew.
const MAX_TEXTS: usize = 10_000;

/// Most bytes of them: a page or two each, for as many as there may be.
const MAX_BYTES: usize = 32 << 20;

/// The texts of all plans of a core.
#[derive(Default)]
pub struct Texts {
    known: HashSet<Arc<str>>,
    bytes: usize,
    /// Bytes of all that was ever new.
    brought: usize,
}

impl Texts {
    fn share(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.known.get(text) {
            text.clone_from(known);
            return;
        }
        if self.known.len() >= MAX_TEXTS || self.bytes + text.len() > MAX_BYTES {
            *self = Texts { brought: self.brought, ..Texts::default() };
        }
        self.bytes += text.len();
        self.brought += text.len();
        self.known.insert(text.clone());
    }

    fn share_statement(&mut self, statement: &mut Statement) {
        self.share(&mut statement.text);
    }

    /// Has a plan use the texts that others have. Those that nobody had count as its own.
    pub fn share_plan(&mut self, plan: &mut Plan) {
        let before = self.brought;
        for node in &mut plan.nodes {
            match &mut node.statements {
                Statements::Once(once) => {
                    self.share_statement(&mut once.statement);
                    // Nobody else has the plan yet.
                    if let Some(driving) = once.driving.as_mut().and_then(Arc::get_mut) {
                        driving.statements_mut().for_each(|statement| self.share_statement(statement));
                    }
                }
                Statements::PerKey(statement) | Statements::Batch(statement) => {
                    self.share_statement(statement);
                }
                Statements::Witness { fill, holds } => {
                    self.share_statement(fill);
                    self.share_statement(holds);
                }
                Statements::Never => {}
            }
            self.share_statement(&mut node.holds);
            self.share_statement(&mut node.lookup);
            if let Some(refill) = &mut node.refill {
                refill.texts().for_each(|text| self.share(text));
            }
        }
        plan.conditions.iter_mut().filter_map(|c| c.parents.as_mut()).for_each(|text| self.share(text));
        plan.bytes += self.brought - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_count_once() {
        let mut texts = Texts::default();
        let (mut a, mut b): (Arc<str>, Arc<str>) = ("SELECT 1".into(), "SELECT 1".into());
        assert!(!Arc::ptr_eq(&a, &b));
        texts.share(&mut a);
        texts.share(&mut b);
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!((texts.brought, texts.bytes), (8, 8));
    }

    #[test]
    fn long_texts_are_not_kept_for_ever() {
        let mut texts = Texts::default();
        for n in 0..40 {
            texts.share(&mut format!("{n}{}", " ".repeat(1 << 20)).into());
        }
        assert!(texts.bytes <= MAX_BYTES && texts.known.len() < 32);
    }
}
