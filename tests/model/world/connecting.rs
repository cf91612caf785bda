//! Tabs of a world that come and go, and what they send.

use kelvin::backend::turns::CallKind;
use kelvin::model::ids::ConnectionId;
use kelvin::protocol::connect::ConnectRequest;
use kelvin::protocol::dialect::Dialect;
use kelvin::protocol::upstream::QueryOp;

use super::{Broken, World, changes};
use crate::model::choices::Choices;
use crate::model::upstream;

/// Protocol versions of the dialects.
const VERSIONS: [(Dialect, f64); 2] = [(Dialect::Text, 51.0), (Dialect::Binary, 52.0)];

impl World {
    /// A tab connects; it may be refused.
    pub fn connect(&mut self, choices: &mut Choices, group: usize, tab: usize) -> Result<(), Broken> {
        let before = self.core.calls.keys().next_back().copied();
        let is_in = self.arrive(choices, group, tab);
        if self.is_late() {
            return Ok(());
        }
        if !is_in {
            return self.receive(group, tab, usize::MAX);
        }
        self.core.serve();
        // Whoever is asked first has let it in by answering, whatever it says of the queries.
        let name = self.groups[group].id.as_str();
        let mut asked = self.core.calls.iter().filter(|(id, call)| {
            Some(**id) > before && call.kind == CallKind::Transform && &*call.group == name
        });
        if let Some(id) = asked.next().map(|(id, _)| *id) {
            match choices.percent(60) {
                true => self.answer(choices, id),
                false => self.answer_nothing(id),
            }
            self.core.serve();
        }
        let line = self.groups[group].tabs[tab].line.as_ref();
        match line.is_some_and(|line| line.outbox.has_ended()) {
            true => self.receive(group, tab, usize::MAX),
            false => Ok(()),
        }
    }

    /// Whether somebody takes its time.
    pub(super) fn is_late(&mut self) -> bool {
        self.lateness.as_mut().is_some_and(|choices| choices.percent(40))
    }

    /// A tab connects, and is not heard of yet. False: it is not let in, and told so.
    pub fn arrive(&mut self, choices: &mut Choices, group: usize, tab: usize) -> bool {
        self.connections += 1;
        let known = &mut self.groups[group];
        let others: Vec<String> = known.tabs.iter().map(|t| t.client.clone()).collect();
        let (group_id, believed) = (known.id.clone(), known.schema.of_clients());
        let tab = &mut known.tabs[tab];
        let base_cookie = tab.receiver.store.cookie.clone();
        let schema = base_cookie.is_none().then_some(believed);
        let stored = tab.receiver.store.desired.get(&tab.client).cloned().unwrap_or_default();
        let active = choices.percent(15).then_some(others);
        let first = upstream::init(&changes(&stored, &tab.wanted), schema.as_ref(), active.as_deref());
        let dialect = self.dialects.next();
        let version = VERSIONS.iter().find(|(known, _)| *known == dialect).expect("a version").1;
        let (client, wanted) = (&tab.client, &tab.wanted);
        self.log
            .push(format!("{group_id}/{client}, {dialect:?}, comes at {base_cookie:?}, wants {wanted:?}"));
        let request = ConnectRequest {
            version,
            client_id: client.clone(),
            group_id,
            user_id: None,
            base_cookie,
            wsid: format!("{client} {}", self.connections),
            profile_id: None,
            auth_token: None,
            init_connection: None,
        };
        let (line, is_in) = self.core.arrive(ConnectionId(self.connections), request, first);
        if choices.clone().percent(30) {
            line.socket.most.set(1 + choices.clone().below(100));
        }
        self.sockets.push(line.socket.clone());
        tab.receiver.connected(dialect);
        tab.receiver.awaits_connected = is_in;
        tab.sent = tab.mutations;
        tab.line = Some(line);
        is_in
    }

    /// The tab's socket goes; what it has not read is lost.
    pub fn disconnect(&mut self, group: usize, tab: usize) {
        let tab = &mut self.groups[group].tabs[tab];
        if let Some(line) = tab.line.take() {
            self.log.push(format!("{} leaves", tab.client));
            tab.receiver.disconnected();
            self.core.leave(&line);
        }
    }

    /// The tab's network goes, and the server does not see it.
    pub fn vanish(&mut self, group: usize, tab: usize) {
        let tab = &mut self.groups[group].tabs[tab];
        if let Some(line) = tab.line.take() {
            self.log.push(format!("{} vanishes", tab.client));
            tab.receiver.disconnected();
            line.socket.stopped.set(true);
            self.vanished.push(line);
        }
    }

    /// The server sees that connections are gone.
    pub fn notice_vanished(&mut self) {
        std::mem::take(&mut self.vanished).iter().for_each(|line| self.core.leave(line));
    }

    /// A connected tab sends a message.
    fn send(&mut self, group: usize, tab: usize, message: String) {
        let Some(id) = self.groups[group].tabs[tab].line.as_ref().map(|line| line.id) else { return };
        self.core.message(id, message);
        if !self.is_late() {
            self.core.serve();
        }
    }

    /// A connected tab wants other queries.
    pub fn want(&mut self, group: usize, tab: usize, ops: Vec<QueryOp<'static>>) -> Result<(), Broken> {
        self.log.push(format!("{} wants {ops:?}", self.groups[group].tabs[tab].client));
        self.send(group, tab, upstream::change(&ops));
        Ok(())
    }

    /// A connected tab says that others are gone.
    pub fn delete(&mut self, group: usize, tab: usize, clients: &[String]) {
        self.send(group, tab, upstream::delete(clients));
    }

    /// A connected tab of a group shows another token: all queries are asked for anew.
    pub fn renew(&mut self, group: usize) {
        let tabs = &self.groups[group].tabs;
        if let Some(tab) = (0..tabs.len()).find(|tab| tabs[*tab].line.is_some()) {
            self.tokens += 1;
            self.send(group, tab, upstream::token(&format!("token {}", self.tokens)));
        }
    }

    /// A connected tab sends a mutation.
    pub fn push(&mut self, group: usize, tab: usize) {
        let known = &mut self.groups[group];
        let tab_of = &mut known.tabs[tab];
        if tab_of.line.is_some() {
            tab_of.sent = tab_of.sent.max(tab_of.mutations) + 1;
            let message = upstream::push(&known.id, &tab_of.client, tab_of.sent);
            self.log.push(format!("{} sends mutation {}", tab_of.client, tab_of.sent));
            self.send(group, tab, message);
        }
    }

    /// A connected tab has taken note of the results of its mutations.
    pub fn acknowledge(&mut self, group: usize, tab: usize) {
        let tab_of = &self.groups[group].tabs[tab];
        let noted = tab_of.receiver.store.lmids.get(&tab_of.client).copied();
        if let Some(noted) = noted {
            let message = upstream::acknowledge(&tab_of.client, noted);
            self.send(group, tab, message);
        }
    }
}
