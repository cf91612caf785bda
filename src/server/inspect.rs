//! Answers the inspector (`docs/spec/view-syncer.md` §13): whoever has shown the administrator's
//! password on a connection of a group sees what the group's queries are and cost, and may
//! have one analysed.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor::{now, sleep, spawn};
use serde_json::{Map, Value, json};

use super::analyse::{Running, analyse};
use super::core::Core;
use super::serving::Serving;
use super::status::Password;
use crate::backend::transform;
use crate::backend::turns::CallKind;
use crate::core::session::Session;
use crate::groups::inspect::Inspected;
use crate::protocol::inspect::{self, Analyze, Request};
use crate::zql::custom_query::Named;

/// Protocol version from which on the time of a reading is a number.
const PLAIN_TIMES: u32 = 51;

/// How long a wrong password is not answered.
const GUESS: Duration = Duration::from_millis(200);

/// Handles one request. It is answered in any case; nothing ends the connection.
pub async fn handle(session: &Rc<Session>, serving: &Rc<Serving>, id: &str, request: Request) {
    let group = session.request.group_id.as_str();
    if let Request::Authenticate(password) = &request {
        let is_right = is_password(session, serving, password);
        serving.with(|s| s.let_inspect(group, is_right));
        if !is_right {
            sleep(GUESS).await;
        }
        return session.outbox.message(&inspect::authenticated(id, is_right));
    }
    if !serving.config.development && !serving.with(|s| s.may_inspect(group)) {
        return session.outbox.message(&inspect::authenticated(id, false));
    }
    match request {
        Request::Authenticate(_) => {}
        Request::Version => {
            session.outbox.message(&inspect::reply("version", id, json!(serving.config.server_version)));
        }
        Request::Metrics => {
            let costs = serving.with(|s| s.costs(group));
            let value = json!({
                "query-materialization-server": costs.readings.to_digest(),
                "query-update-server": costs.updates.to_digest(),
            });
            session.outbox.message(&inspect::reply("metrics", id, value));
        }
        Request::Queries { client_id } => {
            let rows = queries(session, serving, client_id.as_deref()).await;
            session.outbox.message(&inspect::reply("queries", id, rows));
        }
        Request::Analyze(wanted) => {
            let (session, serving, id) = (session.clone(), serving.clone(), id.to_owned());
            // It may take long, and the tab goes on meanwhile.
            spawn(async move { answer_analysis(&session, &serving, &id, &wanted).await }).detach();
        }
    }
}

/// Without a password only developers are let in.
fn is_password(session: &Session, serving: &Serving, given: &str) -> bool {
    let config = &serving.config;
    match &config.admin_password {
        Some(password) => serving.status.judge(password, given, session.from, now()) == Password::Right,
        None => config.development && given.is_empty(),
    }
}

async fn answer_analysis(session: &Session, serving: &Serving, id: &str, wanted: &Analyze) {
    let result = match Running::begin(serving) {
        Err(error) => Err(error),
        // While the app is asked, too: whoever asks for many must not have all of them wait here.
        Ok(_running) => match spelled_out(session, serving, wanted).await {
            Ok(ast) => analyse(session, serving, &ast, wanted).await,
            Err(error) => Err(error),
        },
    };
    let body = match result {
        Ok(value) => inspect::reply("analyze-query", id, value),
        Err(why) => inspect::failed(id, &why),
    };
    session.outbox.message(&body);
}

/// The query as JSON text: as it was given, or as the app spells it out.
async fn spelled_out(session: &Session, serving: &Serving, wanted: &Analyze) -> Result<String, String> {
    let Some((name, args)) = &wanted.named else {
        return wanted.ast.clone().ok_or_else(|| "there is neither a query nor the name of one".to_owned());
    };
    let named = Named { hash: "inspect".to_owned(), name: name.clone(), args: args.clone() };
    let texts = ask(session, serving, std::slice::from_ref(&named)).await?;
    let found = texts.into_iter().find(|(hash, _)| *hash == named.hash);
    found.map(|(_, text)| text).ok_or_else(|| format!("the app does not answer the query {name:?}"))
}

/// What the app makes of these queries, for this connection. Nothing but the answer comes of it.
async fn ask(
    session: &Session,
    serving: &Serving,
    queries: &[Named],
) -> Result<Vec<(String, String)>, String> {
    let core: &Core = serving;
    if core.config.query.urls.is_empty() {
        return Err("ZERO_QUERY_URL is not set: the app cannot be asked for named queries".to_owned());
    }
    let context = session.query_context.borrow().clone();
    let call = (CallKind::Transform, session.request.group_id.as_str());
    let body = core.caller.post(call, &core.config.query, &context, transform::request(queries)).await;
    body.and_then(|body| transform::texts(&body)).map_err(|error| error.message)
}

/// The group's queries. Those that the app knows by name are shown as it spells them out now; if it
/// cannot be asked they go without.
async fn queries(session: &Session, serving: &Serving, client: Option<&str>) -> Value {
    let (group, clock) = (session.request.group_id.as_str(), serving.clock());
    let rows = serving.with(|s| s.inspect(group, client, clock));
    let mut named: Vec<Named> = rows.iter().filter_map(|row| row.named.clone()).collect();
    named.sort_by(|a, b| a.hash.cmp(&b.hash));
    named.dedup_by(|a, b| a.hash == b.hash);
    let texts =
        if named.is_empty() { Vec::new() } else { ask(session, serving, &named).await.unwrap_or_default() };
    let texts: HashMap<String, String> = texts.into_iter().collect();
    let version = session.request.protocol_version().unwrap_or_default();
    rows.iter().map(|row| describe(row, texts.get(&row.query_id), version)).collect()
}

fn describe(row: &Inspected, text: Option<&String>, version: u32) -> Value {
    let parsed = |text: &String| serde_json::from_str::<Value>(text).ok();
    let ast = row.ast.as_ref().or(text).and_then(parsed);
    let args = row.named.as_ref().and_then(|named| parsed(&named.args)).filter(Value::is_array);
    json!({
        "clientID": row.client_id,
        "queryID": row.query_id,
        "ast": ast,
        "name": row.named.as_ref().map(|named| &named.name),
        "args": args,
        "got": row.got,
        "deleted": row.deleted,
        "ttl": row.ttl,
        "inactivatedAt": row.inactivated_at,
        "rowCount": row.row_count,
        "metrics": metrics(row, version),
    })
}

fn metrics(row: &Inspected, version: u32) -> Value {
    let mut out = Map::new();
    let milliseconds = row.reading.map(|time| time as f64 / 1e6);
    if version >= PLAIN_TIMES {
        out.extend(milliseconds.map(|time| ("query-hydration-server-ms".to_owned(), json!(time))));
    } else {
        let mut one = crate::views::time_digest::TimeDigest::default();
        row.reading.into_iter().for_each(|time| one.record(time));
        out.insert("query-materialization-server".to_owned(), one.to_digest());
    }
    out.insert("query-update-server".to_owned(), row.updates.to_digest());
    Value::Object(out)
}
