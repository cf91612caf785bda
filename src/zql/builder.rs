//! A statement under construction, and one that is done.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use hashbrown::HashSet;

use crate::model::value::Value;

/// Shortest text that is worth to be shared among the statements of a plan.
const SHARED: usize = 64;

/// SQL text and the constants bound after the variable parameters.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Text; equal for all queries of one shape, so that prepared statements are shared.
    pub text: Arc<str>,
    /// Constants, in order, after the variable ones.
    pub constants: Arc<[Constant]>,
}

/// A constant of a statement.
#[derive(Debug, Clone)]
pub enum Constant {
    /// Its own.
    Value(Value),
    /// A long text, which other statements of the plan have, too.
    Shared(Arc<str>),
}

impl Statement {
    /// About how many bytes its constants take that no other statement has.
    pub(super) fn bytes_of_constants(&self) -> usize {
        bytes_of(&self.constants)
    }
}

fn bytes_of(constants: &[Constant]) -> usize {
    let own = |constant: &Constant| match constant {
        Constant::Value(value) => value.heap_size(),
        Constant::Shared(_) => 0,
    };
    constants.iter().map(|constant| size_of::<Constant>() + own(constant)).sum()
}

/// The long texts of a plan, each once.
#[derive(Debug, Default)]
pub(super) struct SharedTexts {
    texts: RefCell<HashSet<Arc<str>>>,
    bytes: Cell<usize>,
}

impl SharedTexts {
    fn share(&self, text: &str) -> Arc<str> {
        let mut texts = self.texts.borrow_mut();
        if let Some(known) = texts.get(text) {
            return known.clone();
        }
        self.bytes.set(self.bytes.get() + text.len());
        let text: Arc<str> = text.into();
        texts.insert(text.clone());
        text
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

/// Text under construction with its constants.
pub(super) struct Builder<'s> {
    text: String,
    constants: Vec<Constant>,
    shared: Option<&'s SharedTexts>,
}

impl<'s> Builder<'s> {
    /// An empty one of a plan that is being made.
    pub fn new(shared: &'s SharedTexts) -> Builder<'s> {
        Builder { text: String::new(), constants: Vec::new(), shared: Some(shared) }
    }

    /// One that goes on from a statement.
    pub fn after(statement: &Statement) -> Builder<'static> {
        Builder { text: statement.text.to_string(), constants: statement.constants.to_vec(), shared: None }
    }

    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub fn bind(&mut self, value: &Value) {
        let constant = match (value, self.shared) {
            (Value::Text(text), Some(shared)) if text.len() >= SHARED => Constant::Shared(shared.share(text)),
            _ => Constant::Value(value.clone()),
        };
        self.bind_constant(constant);
    }

    pub fn bind_text(&mut self, text: &Arc<str>) {
        self.bind_constant(Constant::Shared(text.clone()));
    }

    fn bind_constant(&mut self, constant: Constant) {
        self.text.push('?');
        self.constants.push(constant);
    }

    /// Constants so far.
    pub fn bound(&self) -> usize {
        self.constants.len()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.constants.len() * size_of::<Constant>()
    }

    pub fn finish(self) -> Statement {
        Statement { text: self.text.into(), constants: self.constants.into() }
    }
}
