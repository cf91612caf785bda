//! Messages of clients (`docs/spec/sync-protocol.md` §5, §7).

use std::collections::BTreeMap;

use serde_json::Number;
use serde_json::value::RawValue;

use super::client_schema::ClientSchema;
use super::inspect;

/// Most query operations in one message.
pub const MAX_QUERY_OPS: usize = 20_000;

/// Most mutations in one push. Clients send one per message.
pub const MAX_MUTATIONS: usize = 10_000;

/// Most ids of clients in one list: those that are gone, or all tabs of a browser.
pub const MAX_CLIENT_IDS: usize = 20_000;

/// Most headers that a client asks to add to calls of an endpoint.
pub const MAX_HEADERS: usize = 128;
/// Longest URL, and longest value of such a header, in bytes.
pub const MAX_TEXT: usize = 16 << 10;

/// Longest hash, name of a query or a mutator, and header, in bytes.
pub const MAX_NAME: usize = 1_024;

/// A message of a client.
#[derive(Debug)]
pub enum Upstream<'m> {
    /// First message of a connection.
    InitConnection(Box<InitConnection<'m>>),
    /// Change of what the client wants.
    ChangeDesiredQueries(Vec<QueryOp<'m>>),
    /// Clients that are gone.
    DeleteClients(Vec<String>),
    /// Mutations.
    Push(Box<Push<'m>>),
    /// Keepalive.
    Ping,
    /// A new token.
    UpdateAuth(String),
    /// Results of mutations have arrived.
    AckMutationResponses {
        /// Client whose results.
        client_id: String,
        /// Up to this mutation.
        id: u64,
    },
    /// Accepted and ignored.
    Ignored,
    /// Of the inspector.
    Inspect {
        /// Id to repeat in the answer.
        id: String,
        /// What is asked for.
        request: inspect::Request,
    },
}

/// One change of a desired set.
#[derive(Debug)]
pub enum QueryOp<'m> {
    /// Wanted.
    Put {
        /// Opaque id of the query in its group.
        hash: String,
        /// Time to live in milliseconds once it is not wanted; negative: for ever.
        ttl: Option<f64>,
        /// What it is, if the server should not know it yet.
        query: Option<QueryBody<'m>>,
    },
    /// Not wanted any more.
    Del {
        /// Id.
        hash: String,
    },
    /// Nothing is wanted any more.
    Clear,
}

/// What a query is.
#[derive(Debug)]
pub enum QueryBody<'m> {
    /// Spelled out by the client.
    Ast(&'m RawValue),
    /// Known to the app by name.
    Named {
        /// Name.
        name: String,
        /// JSON array of arguments.
        args: &'m RawValue,
    },
}

/// Body of `initConnection`.
#[derive(Debug)]
pub struct InitConnection<'m> {
    /// Changes of the desired set.
    pub desired: Vec<QueryOp<'m>>,
    /// Sent iff the client's cookie is null.
    pub client_schema: Option<ClientSchema>,
    /// Clients that are gone.
    pub deleted: Option<Vec<String>>,
    /// Override of the mutate endpoint.
    pub push_url: Option<String>,
    /// Headers for it.
    pub push_headers: BTreeMap<String, String>,
    /// Override of the query endpoint.
    pub query_url: Option<String>,
    /// Headers for it.
    pub query_headers: BTreeMap<String, String>,
    /// All live tabs; others are deleted. Absent: nobody is.
    pub active_clients: Option<Vec<String>>,
}

/// Body of `push`.
#[derive(Debug)]
pub struct Push<'m> {
    /// Group that the mutations belong to.
    pub group_id: String,
    /// The mutations.
    pub mutations: Vec<Mutation<'m>>,
    /// Version of the push format.
    pub push_version: Number,
    /// Legacy.
    pub schema_version: Option<Number>,
    /// Client time in milliseconds.
    pub timestamp: Number,
    /// Opaque.
    pub request_id: String,
}

/// One mutation.
#[derive(Debug)]
pub struct Mutation<'m> {
    /// Its JSON text, forwarded as it is.
    pub raw: &'m RawValue,
    /// Legacy CRUD mutation.
    pub crud: bool,
    /// Number within its client.
    pub id: u64,
    /// Client that made it; not always the sender.
    pub client_id: String,
}
