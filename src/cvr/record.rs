//! What a record log says, one record after another: order is truth (rule 23).

use crate::model::ids::RecordId;
use serde::{Deserialize, Serialize};

use crate::model::version::StateVersion;
use crate::protocol::cookie::Cookie;

/// A row as a record names it: the place of its identity in the view's list, and its key.
pub type RecordedRow = (u16, Box<[u8]>);

/// An identity that outlives the numbers of a catalogue: table and key columns by name.
pub type NamedIdentity = (String, Vec<String>);

/// Change of one view by one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedDelta {
    /// Version that the batch ended with.
    pub end: StateVersion,
    /// Rows that came in.
    pub entered: Vec<RecordedRow>,
    /// Rows that went out.
    pub left: Vec<RecordedRow>,
    /// Members before and after whose contents changed.
    pub edited: Vec<RecordedRow>,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// First of a file: who writes it.
    Header(Header),
    /// A client schema, which groups refer to by its number; JSON.
    Schema(u64, String),
    /// A view is recorded from here on. Of one that is known already all is written again: what was
    /// known goes on until that is complete.
    Start(StartRecord),
    /// The rows of a view are of these identities from here on.
    Identities(RecordId, Vec<NamedIdentity>),
    /// A delta from before: journal only.
    Journal(RecordId, RecordedDelta),
    /// Rows that the view holds.
    Members(RecordId, Vec<RecordedRow>),
    /// All members have been written; how many there are.
    Complete(RecordId, u64),
    /// What the next batch, or the next view that was read anew, did beside what its own record says. It counts
    /// only once that record is there: of a batch all or nothing takes effect.
    Deltas(Vec<(RecordId, RecordedDelta)>),
    /// A batch took effect, here for the views that it changed.
    Batch(BatchRecord),
    /// A view is right at this version and not after it, until it is read anew.
    Stale(RecordId, StateVersion),
    /// It was read anew, and is at the head again.
    Rejoin(RecordId, Vec<RecordedDelta>),
    /// Nobody has the view any more.
    Gone(RecordId),
    /// A group, whole.
    Group(Box<GroupRecord>),
    /// Rows of a view that a group left, for tabs that were away.
    Left(LeftRecord),
    /// A group is forgotten.
    GroupGone(String),
    /// Everything from before is in this file, too.
    Checkpoint,
}

/// Who writes a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version at which the replica began: a lower one means that it was replaced by an older one.
    pub replica: u64,
    /// Epoch of the process.
    pub epoch: u64,
    /// The core.
    pub core: usize,
    /// Counts the files of one core and epoch.
    pub sequence: u64,
    /// Version of the core when the file was begun.
    pub head: u64,
}

/// A view whose members follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecord {
    /// Which life.
    pub id: RecordId,
    /// What it asks, as bytes that are the same in every process (rule 11).
    pub key: Vec<u8>,
    /// Its journal knows nothing from before.
    pub floor: StateVersion,
    /// It is right at this version and not after it; `None`: it is at the head.
    pub stale: Option<StateVersion>,
    /// Identities of its rows.
    pub identities: Vec<NamedIdentity>,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Version before it.
    pub previous: StateVersion,
    /// Version that it ended with.
    pub end: StateVersion,
    /// By view.
    pub deltas: Vec<(RecordId, RecordedDelta)>,
}

/// What a group was at one cookie.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its id.
    pub id: String,
    /// Number of its client schema.
    pub schema: u64,
    /// The user that it belongs to, null if that is somebody who is not logged in; `None`: no connection was let
    /// in yet.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub user: Option<Option<String>>,
    /// A token has shown that it is that user's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_proved: bool,
    /// The browser profile; `None`: of an old client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Box<str>>,
    /// Lowest cookie of this life of the group, unless that is the lowest of all.
    #[serde(default, skip_serializing_if = "is_lowest", rename = "born")]
    pub first_cookie: (u64, u64),
    /// Last cookie issued. The log has it under an older name, so that older logs can be read.
    #[serde(rename = "label")]
    pub cookie: (u64, u64),
    /// Data version of the state that it stands for.
    pub version: u64,
    /// Cookies below it cannot be served from history.
    pub floor: (u64, u64),
    /// What its clients want was too much to be written: they have to say it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// The group's clock, in milliseconds.
    pub clock: f64,
    /// When the last connection went, in milliseconds since 1970; `None`: somebody is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<u64>,
    /// Epochs before this one: each with the last version that its history is known up to, and
    /// the last cookie of a record (two numbers).
    pub seals: Vec<(u64, u64, u64, u64)>,
    /// Clients.
    pub clients: Vec<ClientRecord>,
    /// Queries.
    pub queries: Vec<QueryRecord>,
    /// Queries that are gone, with the cookie at which clients were told.
    pub removed: Vec<(String, (u64, u64))>,
    /// Views, with the cookie since which the group has them.
    pub views: Vec<(u64, u64, (u64, u64))>,
    /// Mutation results that were not cleaned up: client and mutation.
    pub results: Vec<(String, u64)>,
    /// Results that were, with the cookie at which clients were told; patch operations.
    pub results_gone: Vec<((u64, u64), String)>,
    /// The same of those that clients have not been told of yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results_going: Vec<String>,
}

/// A cookie as records have it.
pub fn cookie((major, config): (u64, u64)) -> Cookie {
    Cookie { major, config }
}

/// The log that a view or a group goes on in: epoch and core.
pub type Log = (u64, usize);

fn is_false(value: &bool) -> bool {
    !value
}

/// Floor of a group of which nothing can be served from history: above every cookie that it can have been given.
pub const NOTHING: (u64, u64) = (u64::MAX, u64::MAX);

/// Tells null from a field that is not there. Otherwise, after a restart, a group of somebody who is not logged in would
/// be the first comer's.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

fn is_lowest(cookie: &(u64, u64)) -> bool {
    *cookie == (0, 0)
}

/// One client of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Its id.
    pub id: String,
    /// Deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// By query hash: what it wants or wanted.
    pub desires: Vec<DesireRecord>,
}

/// One query as one client wants or wanted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesireRecord {
    /// Hash of the query.
    pub hash: String,
    /// Time to live in milliseconds.
    pub ttl: f64,
    /// Time on the group's clock since when it is not wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive: Option<f64>,
    /// Whether it is wanted.
    pub desired: bool,
    /// Cookie of the last change.
    pub changed: (u64, u64),
}

/// One query of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// Its hash.
    pub hash: String,
    /// Its name in the app; `None`: clients spelled it out.
    pub name: Option<String>,
    /// JSON of its arguments, or of the query itself.
    pub text: String,
    /// Refused, until a client asks again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Clients have been told so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refusal_told: bool,
    /// Clients have been told that they have it.
    pub got: bool,
    /// Cookie of the last change of that.
    pub got_changed: (u64, u64),
    /// Whose rows the group has for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<(u64, u64)>,
}

/// Rows of a view that a group left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftRecord {
    /// The group.
    pub group: String,
    /// Cookie since which it had the view.
    pub since: (u64, u64),
    /// Cookie at which it left.
    pub until: (u64, u64),
    /// Identities of the rows.
    pub identities: Vec<NamedIdentity>,
    /// What a tab may hold because of it.
    pub rows: Vec<RecordedRow>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delta(end: u64) -> RecordedDelta {
        let row = |n: u8| (u16::from(n), vec![n, 1, 2].into());
        RecordedDelta {
            end: StateVersion(end),
            entered: vec![row(1)],
            left: vec![],
            edited: vec![row(2), row(3)],
        }
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let id = RecordId { epoch: 300, number: 1 << 50 };
        let identity = ("issue".to_owned(), vec!["id".to_owned()]);
        let group = GroupRecord {
            id: "g".into(),
            schema: 1,
            user: Some(Some("u".into())),
            is_proved: true,
            profile: Some("p1".into()),
            first_cookie: (5, 1),
            cookie: (5, 6),
            version: 5,
            floor: (0, 0),
            lost: true,
            clock: 1.5,
            left_at: Some(1_700_000_000_000),
            seals: vec![(1, 4, 4, 2)],
            clients: vec![ClientRecord { id: "c".into(), deleted: false, desires: vec![] }],
            queries: vec![],
            removed: vec![("h".into(), (1, 2))],
            views: vec![(300, 1, (5, 0))],
            results: vec![("c".into(), 3)],
            results_gone: vec![((5, 1), "{}".into())],
            results_going: vec!["{}".into()],
        };
        let nobody = GroupRecord { user: Some(None), ..group.clone() };
        let unknown = GroupRecord { user: None, ..group.clone() };
        let start = StartRecord {
            id,
            key: vec![1, 2],
            floor: StateVersion(9),
            stale: Some(StateVersion(8)),
            identities: vec![identity.clone()],
        };
        let left = LeftRecord {
            group: "g".into(),
            since: (1, 2),
            until: (3, 4),
            identities: vec![identity],
            rows: vec![(0, vec![1].into())],
        };
        let records = [
            Record::Header(Header { replica: 1, epoch: 300, core: 0, sequence: 2, head: 8 }),
            Record::Schema(1, "{}".into()),
            Record::Start(start),
            Record::Identities(id, vec![("issue".to_owned(), vec![])]),
            Record::Journal(id, delta(7)),
            Record::Members(id, vec![(0, vec![].into())]),
            Record::Complete(id, 1),
            Record::Deltas(vec![(id, delta(8)), (id, delta(9))]),
            Record::Batch(BatchRecord {
                previous: StateVersion(7),
                end: StateVersion(8),
                deltas: vec![(id, delta(8))],
            }),
            Record::Stale(id, StateVersion(8)),
            Record::Rejoin(id, vec![delta(9), delta(10)]),
            Record::Gone(id),
            Record::Group(Box::new(group)),
            Record::Group(Box::new(nobody)),
            Record::Group(Box::new(unknown)),
            Record::Left(left),
            Record::GroupGone("g".into()),
            Record::Checkpoint,
        ];
        for record in records {
            let mut out = Vec::new();
            record.write(&mut out);
            assert_eq!(Record::read(&out), Ok(record));
            let cut = out.len() - 1;
            assert!(cut == 0 || Record::read(&out[..cut]).is_err(), "a part of a record is none");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_wild_to_be_refused(bytes: Vec<u8>) {
            let _ = Record::read(&bytes);
        }
    }
}
