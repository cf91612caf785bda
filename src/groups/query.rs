//! One query of a group, from the name that a client sent to the view that answers it.

use crate::model::ids::RecordId;
use crate::protocol::cookie::Cookie;
use crate::protocol::upstream::QueryBody;
use crate::views::view::ViewId;
use crate::zql::limits::Limits;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// Spelled out by the client: JSON text of the AST.
    Ast(String),
    /// Known to the app by name: JSON text of the arguments.
    Named {
        /// Name.
        name: String,
        /// JSON array.
        args: String,
    },
    /// Asked for by more than is kept: it is refused.
    TooMuch {
        /// Name, if the app knows it by one.
        name: String,
        /// What is too much, for whoever asked.
        why: String,
    },
}

impl Spec {
    /// What a message says, unless that is more than one query, or the group with all others, may have.
    /// `asked`: bytes by which the others are spelled.
    pub fn of(body: &QueryBody<'_>, asked: usize, limits: &Limits) -> Spec {
        let (name, text, most, what) = match body {
            QueryBody::Ast(ast) => ("", ast.get(), limits.text, "a query"),
            QueryBody::Named { name, args } => {
                (name.as_str(), args.get(), limits.arguments, "arguments of a query")
            }
        };
        let too_much = |why: String| Spec::TooMuch { name: name.to_owned(), why };
        if text.len() > most {
            return too_much(format!("{what} may have {most} bytes, and these are {}", text.len()));
        }
        if asked + name.len() + text.len() > limits.asked {
            return too_much(format!(
                "the queries of a client group may be spelled by {} bytes: close some, or give them fewer arguments",
                limits.asked
            ));
        }
        match body {
            QueryBody::Ast(_) => Spec::Ast(text.to_owned()),
            QueryBody::Named { name, .. } => Spec::Named { name: name.clone(), args: text.to_owned() },
        }
    }

    /// Bytes that it has.
    pub fn bytes(&self) -> usize {
        match self {
            Spec::Ast(text) => text.len(),
            Spec::Named { name, args } => name.len() + args.len(),
            // Why is a sentence.
            Spec::TooMuch { name, .. } => name.len(),
        }
    }
}

/// One query. Shared by all clients of the group that want it.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What was asked for.
    pub spec: Spec,
    /// View whose rows the group has for it.
    pub current: Option<ViewId>,
    /// View that is being made for it; takes the place of `current` when it is ready.
    pub pending: Option<ViewId>,
    /// Transformation is under way; counts requests, so that only the newest is used.
    pub transforming: Option<u64>,
    /// Refused by the app or the planner until a client asks again, or it cannot be answered here.
    pub failed: bool,
    /// It names what there is not, or not any more: it is planned anew when the tables change.
    pub unplanned: bool,
    /// It is this server that cannot answer it, and why. It is tried again by itself ([`super::failures`]).
    pub trouble: Option<Box<str>>,
    /// Clients have been told that they do not have it because it was refused.
    pub refusal_told: bool,
    /// Whether clients have been told that they have it.
    pub got: bool,
    /// Cookie of the last change of `got`.
    pub got_changed: Cookie,
    /// The record whose rows clients had for it before the process started.
    pub recorded: Option<RecordId>,
}

impl Query {
    /// A query that nothing is known of yet.
    pub fn new(spec: Spec) -> Query {
        Query {
            spec,
            current: None,
            pending: None,
            transforming: None,
            failed: false,
            unplanned: false,
            trouble: None,
            refusal_told: false,
            got: false,
            got_changed: Cookie { major: 0, config: 0 },
            recorded: None,
        }
    }

    /// Whether it still has to be transformed.
    pub fn is_missing(&self) -> bool {
        self.current.is_none() && self.pending.is_none() && self.transforming.is_none() && !self.failed
    }

    /// Whether the app refused it, or what it asks for does not exist: only a client that asks again changes that.
    pub fn is_refused(&self) -> bool {
        self.failed && self.trouble.is_none()
    }

    /// Whether its clients wait for a first answer.
    pub fn is_waiting(&self) -> bool {
        !self.failed && self.current.is_none()
    }

    /// Whether clients have had it since before the process started, and no view answers it yet.
    pub fn is_resuming(&self) -> bool {
        self.got && self.current.is_none() && !self.failed
    }

    /// Whether its rows are about to be replaced (rule 16).
    pub fn is_swapping(&self) -> bool {
        self.current.is_some() && self.pending.is_some()
    }
}
