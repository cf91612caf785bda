//! Connections of a core and what they ask of others: the app, which answers when the test says so, and whoever judges
//! tokens, who takes all of them.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use bytes::Bytes;
use kelvin::auth::token::Token;
use kelvin::backend::call::CallError;
use kelvin::backend::context::Context;
use kelvin::backend::turns::CallKind;
use kelvin::core::admission::Arrived;
use kelvin::core::effect::{Effect, End, Event, QuestionId};
use kelvin::core::outbox::Outbox;
use kelvin::model::ids::ConnectionId;
use kelvin::protocol::connect::ConnectRequest;

use super::{Core, ENDLESS};
use crate::model::socket::{Line, SimulatedSocket};

/// Tasks that serve connections.
const SERVING: [&str; 6] = [
    "messages of a connection",
    "asking for queries",
    "mutations",
    "clean-ups",
    "looking after connections",
    "checks that are repeated",
];

impl Core {
    /// Somebody comes; whether it is let in.
    pub fn arrive(&mut self, id: ConnectionId, request: ConnectRequest, first: String) -> (Line, bool) {
        let socket = Rc::new(SimulatedSocket::default());
        let send_buffer = self.entrance.connections.send_buffer.clone();
        let version = request.protocol_version().expect("a version");
        let outbox = Outbox::new(id, socket.clone(), version, self.entrance.metrics.clone(), send_buffer);
        let line = Line { id, outbox: outbox.clone(), socket };
        if let Some(error) = self.value.refusal(&request) {
            outbox.fail_with(&error, None);
            return (line, false);
        }
        let session = self.value.admit(Arrived {
            id,
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            request: Rc::new(request),
            outbox,
            token: Ok(None),
            context: Context::default(),
            first: Some(first),
            timestamp: 0,
        });
        // It can be told errors at once.
        line.outbox.settled();
        (line, session.is_some())
    }

    /// A client sends a message.
    pub fn message(&mut self, id: ConnectionId, message: String) {
        self.value.handle(Event::Message(id, message));
    }

    /// A connection is over.
    pub fn leave(&mut self, line: &Line) {
        let end = if line.outbox.has_ended() { End::Ours } else { End::Peer };
        self.value.handle(Event::Left(line.id, end));
        self.perform();
        line.outbox.hang_up();
    }

    /// The app answers.
    pub fn answer(&mut self, id: QuestionId, answer: Result<Bytes, CallError>) {
        self.calls.remove(&id);
        self.value.handle(Event::Answered(id, answer));
    }

    /// Asks whoever knows.
    pub(super) fn ask(&mut self, effect: Effect) {
        match effect {
            Effect::Call(id, call) => {
                let of_group = self.calls.values().filter(|other| other.group == call.group);
                let others = of_group.filter(|other| other.kind == call.kind).count();
                let one_at_a_time = matches!(call.kind, CallKind::Push | CallKind::CleanUp);
                assert!(!one_at_a_time || others == 0, "a second call for {}: {:?}", call.group, call.kind);
                self.calls.insert(id, *call);
            }
            Effect::DropCall(id) => drop(self.calls.remove(&id)),
            Effect::Judge { id, token, .. } => {
                self.value.handle(Event::Judged(id, Ok(Some(Token::opaque(&token)))));
            }
            Effect::Inspect { id, .. } => self.value.handle(Event::Inspected(id)),
            _ => {}
        }
    }

    /// Handles messages, and takes answers of the app, until there is nothing of it to do.
    pub fn serve(&mut self) {
        while SERVING.iter().any(|what| self.run(what, ENDLESS)) {}
    }
}
