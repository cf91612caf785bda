//! Connections and what they bring: checks, registration, changes of what clients want
//! (`docs/spec/sync-protocol.md` §4.4, §7).

use super::config_change::ConfigChange;
use super::desires::Client;
use super::execution::named;
use super::group::Group;
use super::shared::Shared;
use super::step::{ZERO, config_step};
use super::syncer::*;
use crate::groups::sink::{Connection, Phase};
use crate::model::ids::ConnectionId;
use crate::protocol::client_schema::ClientSchema;
use crate::protocol::cookie::Cookie;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::poke::poke_start;
use crate::protocol::poke_writer::{Place, PokeWriter};
use crate::protocol::upstream::{InitConnection, QueryBody, QueryOp};
use crate::zql::custom_query::Named;
use hashbrown::HashSet;

impl Syncer {
    /// Checks what can be checked before the app is asked: cookie, client schema, user
    /// (`docs/spec/view-syncer.md` §2.4).
    pub fn check(&self, arrival: &Arrival, init: &InitConnection) -> Result<(), ProtocolError> {
        let known = self.groups.get(&arrival.group_id);
        let Some(group) = known else {
            return match (&arrival.base_cookie, &init.client_schema) {
                (Some(cookie), _) if *cookie > ZERO => Err(not_known()),
                (_, None) => Err(ProtocolError::new(
                    Kind::InvalidConnectionRequest,
                    "a new client group must send its client schema",
                )),
                (_, Some(sent)) => self.check_schema(sent),
            };
        };
        if init.client_schema.as_ref().is_some_and(|sent| *sent != group.schema.schema) {
            return Err(ProtocolError::new(
                Kind::InvalidConnectionRequest,
                "the client schema differs from the one that the client group began with",
            ));
        }
        match arrival.base_cookie {
            // Cookies of servers without epochs are older than anything here.
            Some(cookie) if cookie < group.first_cookie && cookie.epoch() > 0 => Err(not_known()),
            Some(cookie) if self.is_impossible(group, cookie) => Err(ProtocolError::new(
                Kind::InvalidConnectionRequestBaseCookie,
                format!("the client has cookie {cookie}, which is ahead of the server's {}", group.cookie),
            )),
            _ => group.schema.misfit.clone().map_or(Ok(()), Err),
        }
    }

    /// Somebody comes to a group, and may be let in once the app has said so: it is not purged meanwhile.
    pub fn touch(&mut self, group_id: &str, now: f64) {
        if let Some(group) = self.groups.get_mut(group_id) {
            group.left_at = group.left_at.map(|_| now);
        }
    }

    pub(super) fn check_schema(&self, sent: &ClientSchema) -> Result<(), ProtocolError> {
        self.shared.schemas.check(sent, &self.shared.catalogue)
    }

    /// Whether nobody can have issued this cookie to the group (rule 21): it is of our
    /// epoch, or of a server without epochs, and ahead of what was issued.
    pub(super) fn is_impossible(&self, group: &Group, cookie: Cookie) -> bool {
        (cookie.epoch() == self.shared.epoch || cookie.config == 0) && cookie > group.cookie
    }

    /// Named queries that the app has to transform for a connection that arrives: those of
    /// the group, and those that it brings.
    pub fn prospective(&self, group_id: &str, ops: &[QueryOp]) -> Vec<Named> {
        let mut out: Vec<Named> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        if let Some(group) = self.groups.get(group_id) {
            // A refused query is asked for again only when a client puts it again.
            for (hash, query) in group.queries.iter().filter(|(_, query)| !query.failed) {
                out.extend(named(hash, &query.spec));
                seen.insert(hash);
            }
        }
        for op in ops {
            if let QueryOp::Put { hash, query: Some(QueryBody::Named { name, args }), .. } = op
                && args.get().len() <= self.shared.query_limits.arguments
                && seen.insert(hash)
            {
                out.push(Named { hash: hash.clone(), name: name.clone(), args: args.get().to_owned() });
            }
        }
        out
    }

    /// Takes a validated connection in: registers the client, applies what it brings, tells
    /// everybody (`docs/spec/sync-protocol.md` §4.4).
    pub fn init(&mut self, arrival: Arrival, init: &InitConnection, now: f64) -> Result<(), ProtocolError> {
        // The world may have changed while the app was asked.
        self.check(&arrival, init)?;
        let group_id = arrival.group_id.clone();
        let known = self.groups.contains_key(&group_id);
        let joined = self.join(arrival, init, now);
        if joined.is_err() && !known {
            self.drop_untold(&group_id);
        }
        joined
    }

    pub(super) fn join(
        &mut self,
        arrival: Arrival,
        init: &InitConnection,
        now: f64,
    ) -> Result<(), ProtocolError> {
        if !self.groups.contains_key(&arrival.group_id) {
            let Some(schema) = &init.client_schema else { return Ok(()) };
            let schema = self.shared.schemas.resolve(schema, &self.shared.catalogue)?;
            let mut group = Group::new(arrival.group_id.clone(), schema);
            let (version, epoch) = (self.shared.version, self.shared.epoch);
            group.begin_at(self.shared.forgotten.first(&arrival.group_id, version, epoch)?);
            self.groups.insert(arrival.group_id.clone(), Box::new(group));
        }
        let Some(group) = self.groups.get_mut(&arrival.group_id) else { return Ok(()) };
        belong_to(group, &mut self.shared, &arrival)?;
        if init.deleted.iter().flatten().any(|id| *id == arrival.client_id) {
            return Err(ProtocolError::new(Kind::Internal, "a client must not delete itself"));
        }
        let unsure = group.is_unsure(&self.shared, &arrival.client_id, arrival.base_cookie, &init.desired);
        let mut change = ConfigChange::default();
        group.register(&arrival.client_id, self.shared.limits.clients, &mut change)?;
        if let Err(error) = group.desire(
            &arrival.client_id,
            &init.desired,
            (&self.shared.query_limits, &self.shared.limits),
            now,
            &mut change,
        ) {
            // What was taken before a limit was reached has happened: the other tabs are told.
            config_step(group, &mut self.shared, &change)?;
            self.due.insert(arrival.group_id);
            return Err(error);
        }
        let gone = gone(group, &arrival.client_id, init);
        gone.iter().for_each(|id| group.delete_client(id, now, &mut change));
        // A tab exactly at the group's cookie takes part in its steps from here on.
        let in_step =
            arrival.base_cookie.unwrap_or(group.first_cookie) == group.cookie && group.cookie >= group.floor;
        let resends = group.count_resend(&arrival.client_id, unsure);
        // Most groups have one tab, and a list that grows by itself has room for four.
        group.connections.reserve_exact(1);
        group.connections.push(Connection {
            id: arrival.id,
            client_id: arrival.client_id,
            dialect: arrival.dialect,
            sink: arrival.sink.clone(),
            cookie: arrival.base_cookie,
            phase: if in_step { Phase::Live } else { Phase::Behind },
            resends,
        });
        self.connections.insert(arrival.id, arrival.group_id.clone());
        if group.left_at.is_some() {
            // Its record says since when nobody is there.
            self.shared.note(group);
        }
        group.connections_changed(now);
        if in_step && !change.is_change() {
            // The first poke is due even if it is empty: the client trusts its queries only
            // after one (trap T8).
            greet(group, &mut self.shared, arrival.id);
        }
        config_step(group, &mut self.shared, &change)?;
        // What `activeClients` alone implies is not acknowledged: nobody waits for it.
        if init.deleted.as_ref().is_some_and(|ids| !ids.is_empty()) {
            acknowledge_deletions(group, &gone);
        }
        if let Some(group) = self.groups.get(&arrival.group_id) {
            self.tell_trouble(group, arrival.id);
        }
        self.due.insert(arrival.group_id);
        Ok(())
    }

    /// Applies a change of a client's desired set.
    pub fn change_desired(
        &mut self,
        id: ConnectionId,
        ops: &[QueryOp],
        now: f64,
    ) -> Result<(), ProtocolError> {
        let Some((group, shared, client)) = self.of_connection(id) else { return Ok(()) };
        let mut change = ConfigChange::default();
        // Another tab may have deleted it meanwhile.
        group.register(&client, shared.limits.clients, &mut change)?;
        let desired = group.desire(&client, ops, (&shared.query_limits, &shared.limits), now, &mut change);
        // What was taken before a limit was reached has happened: the other tabs are told.
        config_step(group, shared, &change)?;
        let group_id = group.id.clone();
        self.due.insert(group_id);
        desired
    }

    /// Deletes clients of the group and tells all its tabs.
    pub fn delete_clients(
        &mut self,
        id: ConnectionId,
        ids: &[String],
        now: f64,
    ) -> Result<(), ProtocolError> {
        let Some((group, shared, client)) = self.of_connection(id) else { return Ok(()) };
        if ids.contains(&client) {
            return Err(ProtocolError::new(Kind::Internal, "a client must not delete itself"));
        }
        let mut change = ConfigChange::default();
        group.register(&client, shared.limits.clients, &mut change)?;
        let ids = distinct(ids);
        ids.iter().for_each(|id| group.delete_client(id, now, &mut change));
        config_step(group, shared, &change)?;
        if !ids.is_empty() {
            acknowledge_deletions(group, &ids);
        }
        Ok(())
    }

    pub(super) fn of_connection(&mut self, id: ConnectionId) -> Option<(&mut Group, &mut Shared, String)> {
        let group_id = self.connections.get(&id)?;
        let group = self.groups.get_mut(group_id)?;
        let client = group.connection(id)?.client_id.clone();
        Some((group, &mut self.shared, client))
    }

    /// Takes a connection out.
    pub fn disconnect(&mut self, id: ConnectionId, now: f64) {
        if let Some(catchup) = self.catchups.remove(&id) {
            catchup.abandon(&self.shared);
        }
        let Some(group_id) = self.connections.remove(&id) else { return };
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        group.connections.retain(|c| c.id != id);
        group.connections_changed(now);
        if group.connections.is_empty() {
            // Its clock stands from now on.
            self.shared.note(group);
        }
    }
}

fn not_known() -> ProtocolError {
    ProtocolError::new(Kind::ClientNotFound, "the client group is not known here; it has to start anew")
}

fn greet(group: &mut Group, shared: &mut Shared, id: ConnectionId) {
    let cookie = group.cookie;
    let Some(connection) = group.connection(id) else { return };
    let poke_id = cookie.to_string();
    let base = connection.cookie.map(|l| l.to_string());
    let mut frames = vec![poke_start(&poke_id, base.as_deref())];
    frames.extend(PokeWriter::new(Place::first(connection.dialect), &poke_id).finish());
    frames.push(shared.end_frame(&poke_id, &poke_id));
    connection.cookie = Some(cookie);
    connection.sink.send(&frames);
}

/// A group is its first user's, and of one browser profile.
fn belong_to(group: &mut Group, shared: &mut Shared, arrival: &Arrival) -> Result<(), ProtocolError> {
    if let Some(user) = &group.user {
        user.admits(&arrival.user)?;
    }
    // Once its user has been proved, that is asked of everybody.
    if group.user.as_ref() != Some(&arrival.user) {
        group.user = Some(arrival.user.clone());
        shared.note(group);
    }
    if group.profile.as_deref() != arrival.profile_id.as_deref() {
        group.profile = arrival.profile_id.as_deref().map(Box::from);
        shared.note(group);
    }
    Ok(())
}

/// Clients that are no more, as one that connects says.
fn gone(group: &Group, client_id: &str, init: &InitConnection<'_>) -> Vec<String> {
    let mut gone: Vec<String> = Vec::new();
    if let Some(active) = &init.active_clients {
        let active: HashSet<&String> = active.iter().collect();
        let is_gone =
            |(id, client): &(&String, &Client)| !client.deleted && *id != client_id && !active.contains(id);
        gone.extend(group.clients.iter().filter(is_gone).map(|(id, _)| id.clone()));
    }
    gone.extend(init.deleted.iter().flatten().cloned());
    distinct(&gone)
}

/// Each id once, in order.
fn distinct(ids: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    ids.iter().filter(|id| seen.insert(*id)).cloned().collect()
}

fn acknowledge_deletions(group: &Group, ids: &[String]) {
    let frame = downstream::delete_clients(ids);
    for connection in &group.connections {
        connection.sink.send(std::slice::from_ref(&frame));
    }
}
