//! Answers of the app that may serve once more (`docs/spec/view-syncer.md` §8.2).
//!
//! A page that drops a query and wants it again a moment later need not have it transformed
//! again. Nothing is shared between connections, nor between the tokens of one: only what
//! the app has answered to exactly the same is used.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::transform::Transformation;
use crate::model::ids::ConnectionId;
use crate::zql::ast::Ast;
use crate::zql::custom_query::{Named, Transformed};

/// How long an answer may serve, in milliseconds. As the reference.
pub const LIFETIME: f64 = 5_000.0;

/// Most answers kept on a core. Beyond it the oldest go: they cost a request at most.
pub const MAX_ANSWERS: usize = 1_000;

/// Most bytes of answers, and of what was asked, kept on a core. They are kept for seconds, for whoever
/// asks for the same: a thousand large ones must not pile up meanwhile.
pub const MAX_BYTES: usize = 16 << 20;

/// Who asked, with which of its tokens, for what.
type Question = (ConnectionId, u64, Named);

/// The answers of a core.
#[derive(Default)]
pub struct Answers {
    kept: HashMap<Rc<Question>, (f64, Box<Ast>)>,
    /// Oldest first, with the bytes of each.
    order: VecDeque<(f64, Rc<Question>, usize)>,
    bytes: usize,
}

impl Answers {
    /// Keeps what the app answered to these questions. Refusals are not kept: users try again.
    pub fn keep(
        &mut self,
        connection: ConnectionId,
        revision: u64,
        asked: &[Named],
        answer: &Transformation,
        now: f64,
    ) {
        for (hash, transformed) in &answer.queries {
            if let (Transformed::Ast(ast), Some(named)) =
                (transformed, asked.iter().find(|n| n.hash == *hash))
            {
                let question = Rc::new((connection, revision, named.clone()));
                let bytes = 2 * (named.hash.len() + named.name.len() + named.args.len()) + ast.bytes();
                self.bytes += bytes;
                self.order.push_back((now, question.clone(), bytes));
                self.kept.insert(question, (now, ast.clone()));
            }
        }
        self.forget(now);
    }

    /// Forgets what is too old, or too much.
    pub fn forget(&mut self, now: f64) {
        while let Some((at, ..)) = self.order.front() {
            let is_too_much = self.order.len() > MAX_ANSWERS || self.bytes > MAX_BYTES;
            if !is_too_much && now - at < LIFETIME {
                return;
            }
            let Some((at, question, bytes)) = self.order.pop_front() else { return };
            self.bytes -= bytes;
            if self.kept.get(&question).is_some_and(|(kept, _)| *kept == at) {
                self.kept.remove(&question);
            }
        }
    }

    /// Forgets all of them: memory is short.
    pub fn clear(&mut self) {
        *self = Answers::default();
    }

    /// Takes out of `asked` what has been answered before, and returns the answers.
    pub fn find(
        &self,
        connection: ConnectionId,
        revision: u64,
        asked: &mut Vec<Named>,
        now: f64,
    ) -> Transformation {
        let mut queries = Vec::new();
        asked.retain(|named| {
            let question = (connection, revision, named.clone());
            match self.kept.get(&question).filter(|(at, _)| now - at < LIFETIME) {
                Some((_, ast)) => queries.push((named.hash.clone(), Transformed::Ast(ast.clone()))),
                None => return true,
            }
            false
        });
        Transformation { user_id: None, queries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zql::limits::Limits;
    use crate::zql::parser::{self, Strictness};

    const TAB: ConnectionId = ConnectionId(1);

    fn named(hash: &str, args: &str) -> Named {
        Named { hash: hash.to_owned(), name: "q".to_owned(), args: args.to_owned() }
    }

    fn answered(answers: &mut Answers, hash: &str, now: f64) {
        let ast = parser::parse(r#"{"table":"t"}"#, Strictness::Tolerant, &Limits::DEFAULT).expect("a query");
        let queries = vec![
            (hash.to_owned(), Transformed::Ast(Box::new(ast))),
            ("refused".to_owned(), Transformed::Refused(serde_json::json!({}))),
        ];
        let answer = Transformation { user_id: None, queries };
        answers.keep(TAB, 0, &[named(hash, "[]"), named("refused", "[]")], &answer, now);
    }

    fn is_known(answers: &Answers, tab: ConnectionId, revision: u64, query: Named, now: f64) -> bool {
        let mut asked = vec![query];
        let found = answers.find(tab, revision, &mut asked, now);
        assert_eq!(found.queries.len() + asked.len(), 1);
        asked.is_empty()
    }

    #[test]
    fn only_the_same_question_with_the_same_token_is_answered_again() {
        let mut answers = Answers::default();
        answered(&mut answers, "a", 0.0);
        assert!(is_known(&answers, TAB, 0, named("a", "[]"), 4_999.0));
        assert!(!is_known(&answers, TAB, 0, named("a", "[]"), 5_000.0), "it is too old");
        assert!(!is_known(&answers, TAB, 0, named("a", "[1]"), 1.0));
        assert!(!is_known(&answers, TAB, 1, named("a", "[]"), 1.0), "another token");
        assert!(!is_known(&answers, ConnectionId(2), 0, named("a", "[]"), 1.0), "another connection");
        assert!(!is_known(&answers, TAB, 0, named("refused", "[]"), 1.0));
    }

    #[test]
    fn answers_that_are_old_or_too_many_go() {
        let mut answers = Answers::default();
        answered(&mut answers, "a", 0.0);
        answered(&mut answers, "a", 3_000.0);
        answered(&mut answers, "b", 6_000.0);
        assert!(is_known(&answers, TAB, 0, named("a", "[]"), 6_000.0), "the later of two");
        answered(&mut answers, "b", 9_000.0);
        assert_eq!((answers.kept.len(), answers.order.len()), (1, 2));
        answers.forget(14_000.0);
        assert_eq!((answers.kept.len(), answers.order.len()), (0, 0), "nobody has to ask for that");
        for n in 0..2 * MAX_ANSWERS {
            answered(&mut answers, &n.to_string(), 9_000.0);
        }
        assert_eq!((answers.kept.len(), answers.order.len()), (MAX_ANSWERS, MAX_ANSWERS));
        for n in 0..20 {
            answered(&mut answers, &format!("{n}{}", " ".repeat(1 << 20)), 9_000.0);
        }
        assert!(answers.bytes <= MAX_BYTES && !answers.order.is_empty(), "{}", answers.bytes);
        answers.forget(14_000.0);
        assert_eq!(answers.bytes, 0);
    }
}
