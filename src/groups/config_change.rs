//! What a client wants changes: queries are added, dropped, forgotten (`docs/spec/view-syncer.md` §3).

use super::desires::{Client, Desire, MAX_DESIRED, clamp_ttl};
use super::group::Group;
use super::limits::GroupLimits;
use super::query::{Query, Spec};
use crate::protocol::cookie::Cookie;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::poke::QueryPatch;
use crate::protocol::upstream::QueryOp;
use crate::testing::met::{Limit, met};
use crate::zql::limits::Limits;

/// What a change of the configuration did.
#[derive(Debug, Default)]
pub struct ConfigChange {
    /// Patches to tell, by client.
    pub desired: Vec<(String, Vec<QueryPatch>)>,
    /// A client was registered: the cookie moves even without patches.
    pub registered: bool,
}

impl ConfigChange {
    /// Whether the cookie has to move.
    pub fn is_change(&self) -> bool {
        self.registered || !self.desired.is_empty()
    }

    /// Whether something happened to a query of a client.
    fn names(&self, client: &str, hash: &str) -> bool {
        let patches = self.desired.iter().find(|(c, _)| c == client).map(|(_, patches)| patches);
        patches.into_iter().flatten().any(|patch| match patch {
            QueryPatch::Put(named) | QueryPatch::Del(named) => named == hash,
        })
    }

    fn push(&mut self, client: &str, patch: QueryPatch) {
        match self.desired.iter_mut().find(|(c, _)| c == client) {
            Some((_, patches)) => patches.push(patch),
            None => self.desired.push((client.to_owned(), vec![patch])),
        }
    }
}

impl Group {
    /// Registers a client, of so many at `most`. Comes before any change of what it wants.
    pub fn register(
        &mut self,
        client: &str,
        most: usize,
        change: &mut ConfigChange,
    ) -> Result<(), ProtocolError> {
        if let Some(known) = self.clients.get_mut(client) {
            change.registered |= std::mem::take(&mut known.deleted);
            return Ok(());
        }
        if self.clients.len() >= most {
            // Deleted clients are kept only for tabs that were away.
            let before = self.clients.len();
            self.clients.retain(|_, c| !c.deleted);
            if self.clients.len() < before {
                self.forget_desires();
            }
        }
        if self.clients.len() >= most {
            return Err(ProtocolError::new(
                Kind::Internal,
                format!("the client group has more than {most} clients; close some tabs"),
            ));
        }
        self.clients.insert(client.to_owned(), Client::default());
        change.registered = true;
        Ok(())
    }

    /// Applies changes of a client's desired set, in order.
    pub fn desire(
        &mut self,
        client: &str,
        ops: &[QueryOp],
        limits: (&Limits, &GroupLimits),
        now: f64,
        change: &mut ConfigChange,
    ) -> Result<(), ProtocolError> {
        let clock = self.clock(now);
        let mut asked = None;
        for op in ops {
            match op {
                QueryOp::Put { hash, ttl, query } => {
                    let spec = query.as_ref().filter(|_| self.must_be_told(hash)).map(|body| {
                        let asked = asked.get_or_insert_with(|| self.bytes_asked());
                        // It takes the place of what it was.
                        let before = self.queries.get(hash).map_or(0, |query| query.spec.bytes());
                        *asked = asked.saturating_sub(before);
                        let spec = Spec::of(body, *asked, limits.0);
                        *asked += spec.bytes();
                        spec
                    });
                    self.put(client, (hash, *ttl, spec), limits.1, change)?;
                }
                QueryOp::Del { hash } => self.deactivate(client, hash, Some(clock), change),
                QueryOp::Clear => {
                    for hash in self.desired_hashes(client) {
                        self.deactivate(client, &hash, None, change);
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes by which its queries are spelled.
    pub fn bytes_asked(&self) -> usize {
        self.queries.values().map(|query| query.spec.bytes()).sum()
    }

    /// Whether it has to be said what a query is: it is not known, or was refused.
    fn must_be_told(&self, hash: &str) -> bool {
        self.queries.get(hash).is_none_or(|query| query.failed)
    }

    fn put(
        &mut self,
        client: &str,
        (hash, ttl, spec): (&str, Option<f64>, Option<Spec>),
        limits: &GroupLimits,
        change: &mut ConfigChange,
    ) -> Result<(), ProtocolError> {
        // Ids of the reference's internal queries.
        if matches!(hash, "lmids" | "mutationResults") {
            return Ok(());
        }
        let known = self.queries.contains_key(hash);
        if !known && self.queries.len() >= limits.queries {
            return Err(too_many(format!("the client group has more than {} queries", limits.queries)));
        }
        match (known, spec) {
            (true, spec) => {
                if let Some(query) = self.queries.get_mut(hash)
                    && std::mem::take(&mut query.failed)
                    && let Some(spec) = spec
                {
                    query.trouble = None;
                    query.refusal_told = false;
                    query.spec = spec;
                }
            }
            (false, Some(spec)) => {
                self.queries.insert(hash.to_owned(), Box::new(Query::new(spec)));
            }
            (false, None) => {
                return Err(ProtocolError::new(
                    Kind::Internal,
                    format!("query {hash} is not known here; its put must say what it is"),
                ));
            }
        }
        let ttl = clamp_ttl(ttl);
        let Some(record) = self.clients.get_mut(client) else { return Ok(()) };
        if !record.needs(hash, ttl) {
            return Ok(());
        }
        let many = record.desires.len() >= MAX_DESIRED;
        if many && !record.desires.contains_key(hash) && record.desired_count() >= MAX_DESIRED {
            return Err(too_many(format!("the client wants more than {MAX_DESIRED} queries at a time")));
        }
        if record.desires.len() >= limits.remembered_queries {
            met(Limit::RememberedQueries);
            // That one of them ended may just have happened, and is told with a cookie that is still to come.
            let is_over = |d: &Desire| !d.desired && d.inactive_since.is_none_or(|s| s + d.ttl <= self.clock);
            record.desires.retain(|hash, d| !is_over(d) || change.names(client, hash));
            (self.floor, self.desires_since) = (self.cookie, self.cookie);
        }
        let desire = Desire { ttl, inactive_since: None, desired: true, changed: self.cookie };
        record.desires.insert(hash.to_owned(), desire);
        change.push(client, QueryPatch::Put(hash.to_owned()));
        Ok(())
    }

    /// Takes a query out of a client's desired set. It stays for its time to live from
    /// `since` on, or not at all.
    fn deactivate(&mut self, client: &str, hash: &str, since: Option<f64>, change: &mut ConfigChange) {
        let Some(record) = self.clients.get_mut(client) else { return };
        let Some(desire) = record.desires.get_mut(hash).filter(|d| d.desired) else { return };
        desire.desired = false;
        desire.inactive_since = since;
        change.push(client, QueryPatch::Del(hash.to_owned()));
    }

    fn desired_hashes(&self, client: &str) -> Vec<String> {
        let Some(record) = self.clients.get(client) else { return Vec::new() };
        record.desires.iter().filter(|(_, d)| d.desired).map(|(hash, _)| hash.clone()).collect()
    }

    /// Deletes a client: what it wanted goes on for its time to live.
    pub fn delete_client(&mut self, client: &str, now: f64, change: &mut ConfigChange) {
        let clock = self.clock(now);
        let wanted = self.desired_hashes(client);
        for hash in &wanted {
            self.deactivate(client, hash, Some(clock), change);
        }
        if !wanted.is_empty() {
            // It may be there all the same, and says what it wants only when it connects.
            self.resend_soon(client);
        }
        if let Some(record) = self.clients.get_mut(client) {
            record.deleted = true;
        }
    }

    /// Stamps the changes with the cookie that tells them.
    pub fn stamp(&mut self, change: &ConfigChange, cookie: Cookie) {
        for (client, patches) in &change.desired {
            let Some(record) = self.clients.get_mut(client) else { continue };
            for patch in patches {
                let (QueryPatch::Put(hash) | QueryPatch::Del(hash)) = patch;
                if let Some(desire) = record.desires.get_mut(hash) {
                    desire.changed = cookie;
                }
            }
        }
    }
}

fn too_many(what: String) -> ProtocolError {
    ProtocolError::new(Kind::InvalidMessage, format!("{what}; close views that are not needed"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::*;
    use crate::groups::schema::Resolved;
    use crate::protocol::client_schema::ClientSchema;
    use crate::protocol::upstream::QueryBody;

    fn group() -> Group {
        let schema = ClientSchema { tables: BTreeMap::new() };
        Group::new("g".into(), Rc::new(Resolved { schema, keys: Rc::default(), misfit: None }))
    }

    fn put(hash: &str, ttl: f64) -> QueryOp<'static> {
        let args = serde_json::from_str::<&serde_json::value::RawValue>("[]").unwrap();
        let query = Some(QueryBody::Named { name: "q".into(), args });
        QueryOp::Put { hash: hash.into(), ttl: Some(ttl), query }
    }

    #[test]
    fn a_put_that_changes_nothing_is_no_change() {
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", usize::MAX, &mut change).unwrap();
        group
            .desire("c", &[put("1", 1000.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut change)
            .unwrap();
        assert_eq!(change.desired.len(), 1);
        let mut again = ConfigChange::default();
        group.register("c", usize::MAX, &mut again).unwrap();
        group
            .desire("c", &[put("1", 500.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut again)
            .unwrap();
        assert!(!again.is_change());
        group
            .desire("c", &[put("1", 2000.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut again)
            .unwrap();
        assert!(again.is_change(), "a longer time to live is one");
    }

    #[test]
    fn what_spells_too_much_is_not_kept_and_the_others_are() {
        let limits = Limits { arguments: 50, asked: 80, ..Limits::DEFAULT };
        let named = |args: &'static str| {
            let args = serde_json::from_str::<&serde_json::value::RawValue>(args).unwrap();
            Some(QueryBody::Named { name: "q".into(), args })
        };
        let put = |hash: &str, query| QueryOp::Put { hash: hash.into(), ttl: None, query };
        const LONG: &str = r#"["0123456789012345678901234567890123456789012345678901234567890123456789"]"#;
        const FAIR: &str = r#"["0123456789012345678901234567890123456789"]"#;
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", usize::MAX, &mut change).unwrap();
        let ops = [put("long", named(LONG)), put("a", named(FAIR)), put("b", named(FAIR))];
        group.desire("c", &ops, (&limits, &GroupLimits::default()), 0.0, &mut change).unwrap();
        let is_kept =
            |group: &Group, hash: &str| matches!(group.queries.get(hash).unwrap().spec, Spec::Named { .. });
        assert_eq!(["long", "a", "b"].map(|hash| is_kept(&group, hash)), [false, true, false]);
        assert!(group.clients.get("c").unwrap().desires.values().all(|desire| desire.desired));
        // When there is room again it is enough to ask again.
        group.queries.get_mut("b").unwrap().failed = true;
        group.queries.remove("a");
        group.queries.remove("long");
        group
            .desire("c", &[put("b", named(FAIR))], (&limits, &GroupLimits::default()), 0.0, &mut change)
            .unwrap();
        assert!(is_kept(&group, "b"));
    }

    #[test]
    fn ten_thousand_desired_queries_are_refused() {
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", usize::MAX, &mut change).unwrap();
        let ops: Vec<QueryOp> = (0..10_000).map(|i| put(&i.to_string(), 0.0)).collect();
        let error = group
            .desire("c", &ops, (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut change)
            .unwrap_err();
        assert_eq!(error.kind, Kind::InvalidMessage);
    }
}
