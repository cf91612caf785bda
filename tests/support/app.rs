//! The app: its tables, its queries, its backend with the endpoints `/query` and `/mutate`.
//!
//! The backend does what the stock server library does (`docs/spec/view-syncer.md` §8, §9),
//! and misbehaves when a test tells it to.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{self, Incoming};
use super::mutators::run_all;
use super::ports::listen;
use super::sql::Sql;

/// The app's tables.
pub const TABLES: &str = "
    CREATE TABLE item (id text PRIMARY KEY, owner text NOT NULL, n int8 NOT NULL, payload text);
    CREATE INDEX item_owner ON item (owner);
    CREATE TABLE pair (a text, b int4, c text, PRIMARY KEY (a, b));
    CREATE TABLE tick (id int8 PRIMARY KEY);
    CREATE TABLE hidden (id text PRIMARY KEY);
";

/// What clients believe the tables to be. `hidden` they do not know.
pub fn schema() -> Value {
    let column = |kind: &str| json!({"type": kind});
    json!({"tables": {
        "item": {"columns": {"id": column("string"), "owner": column("string"), "n": column("number"),
                             "payload": column("string")}, "primaryKey": ["id"]},
        "pair": {"columns": {"a": column("string"), "b": column("number"), "c": column("string")},
                 "primaryKey": ["a", "b"]},
        "tick": {"columns": {"id": column("number")}, "primaryKey": ["id"]},
    }})
}

/// A named query as a client asks for it.
#[derive(Debug, Clone)]
pub struct Query {
    pub name: String,
    pub args: Value,
    /// In milliseconds.
    pub ttl: Option<i64>,
}

/// A query of the app.
pub fn query(name: &str, args: Value) -> Query {
    Query { name: name.to_owned(), args, ttl: None }
}

/// Three items, two of them of x.
pub const THREE: &str =
    "INSERT INTO item VALUES ('a', 'x', 1, NULL), ('b', 'x', 1, NULL), ('c', 'y', 1, NULL)";

/// All items.
pub fn items() -> Query {
    query("items", json!([]))
}

/// The items of an owner.
pub fn of(owner: &str) -> Query {
    query("itemsOf", json!([owner]))
}

impl Query {
    pub fn ttl(self, ttl: i64) -> Query {
        Query { ttl: Some(ttl), ..self }
    }

    /// Opaque to the server.
    pub fn hash(&self) -> String {
        format!("{}:{}", self.name, self.args)
    }

    pub fn put(&self) -> Value {
        let mut op = json!({"op": "put", "hash": self.hash(), "name": self.name, "args": self.args});
        if let Some(ttl) = self.ttl {
            op["ttl"] = json!(ttl);
        }
        op
    }

    pub fn del(&self) -> Value {
        json!({"op": "del", "hash": self.hash()})
    }
}

/// The query behind a name, or why there is none.
fn ast(name: &str, args: &Value) -> Result<Value, Value> {
    let equals = |column: &str| {
        json!({"type": "simple", "op": "=", "left": {"type": "column", "name": column},
               "right": {"type": "literal", "value": args[0]}})
    };
    Ok(match name {
        "items" => json!({"table": "item", "orderBy": [["id", "asc"]]}),
        "itemsOf" => json!({"table": "item", "where": equals("owner"), "orderBy": [["id", "asc"]]}),
        "item" => json!({"table": "item", "where": equals("id"), "orderBy": [["id", "asc"]]}),
        "top" => json!({"table": "item", "limit": args[0], "orderBy": [["n", "desc"], ["id", "asc"]]}),
        "pairs" => json!({"table": "pair", "orderBy": [["a", "asc"], ["b", "asc"]]}),
        "ticks" => json!({"table": "tick", "orderBy": [["id", "asc"]]}),
        "hidden" => json!({"table": "hidden", "orderBy": [["id", "asc"]]}),
        // Whatever a test wants.
        "spelled" => args[0].clone(),
        "noTable" => json!({"table": "nonesuch", "orderBy": [["id", "asc"]]}),
        "noColumn" => json!({"table": "item", "where": equals("nonesuch"), "orderBy": [["id", "asc"]]}),
        "noOrderColumn" => json!({"table": "item", "orderBy": [["nonesuch", "asc"]]}),
        "noRelated" => json!({"table": "item", "orderBy": [["id", "asc"]], "related": [
            {"correlation": {"parentField": ["nonesuch"], "childField": ["id"]},
             "subquery": {"table": "item", "alias": "x", "orderBy": [["id", "asc"]]}}]}),
        "refused" => return Err(json!({"error": "app", "message": "not for you", "details": {"code": 7}})),
        "unparsed" => return Err(json!({"error": "parse", "message": "bad args", "details": [1]})),
        other => return Err(json!({"error": "app", "message": format!("no query {other}")})),
    })
}

/// What the backend does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What it should.
    Normal,
    /// Refuses.
    Status(u16, &'static str),
    /// Answers 200 with this.
    Text(String),
    /// Answers as it should, after a while.
    Slow(Duration),
    /// Does not answer until [`App::release`], then as it should.
    Hang,
    /// Sends the request elsewhere.
    Redirect(String),
    /// Closes the connection without an answer.
    Drop,
    /// Sends these bytes for an answer and closes the connection.
    Bytes(Vec<u8>),
    /// Begins an answer with the first bytes, and sends the others again and again until nobody wants them.
    Endless(Vec<u8>, Vec<u8>),
    /// Says that it is another user's.
    User(Value),
    /// Answers so after a while.
    After(Duration, Box<Answer>),
    /// The shape of older server libraries.
    Legacy,
}

/// A request that the backend got.
#[derive(Debug, Clone)]
pub struct Call {
    pub request: Incoming,
    pub body: Value,
}

impl Call {
    /// Names of the mutations, or of the queries, in the request.
    pub fn names(&self) -> Vec<String> {
        let list = if self.body.is_array() { &self.body[1] } else { &self.body["mutations"] };
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().map(|e| e["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Ids of the mutations in the request.
    pub fn ids(&self) -> Vec<u64> {
        let list = self.body["mutations"].as_array().cloned().unwrap_or_default();
        list.iter().map(|m| m["id"].as_u64().unwrap_or_default()).collect()
    }
}

/// One of the two endpoints.
#[derive(Default)]
struct Endpoint {
    script: VecDeque<Answer>,
    /// Comes before the script: what calls with a token get.
    by_token: Vec<(String, Answer)>,
    calls: Vec<Call>,
}

impl Endpoint {
    /// What calls with this token get from now on.
    fn rule(&mut self, token: &str, answer: Option<Answer>) {
        self.by_token.retain(|(t, _)| t != token);
        self.by_token.extend(answer.map(|answer| (token.to_owned(), answer)));
    }

    /// Takes note of a call and says what it gets.
    fn call(&mut self, call: Call) -> Answer {
        let token = call.request.header("authorization").map(|a| a.trim_start_matches("Bearer "));
        let ruled = self.by_token.iter().find(|(t, _)| token == Some(t)).map(|(_, answer)| answer.clone());
        self.calls.push(call);
        ruled.or_else(|| self.script.pop_front()).unwrap_or(Answer::Normal)
    }
}

#[derive(Default)]
struct State {
    query: Endpoint,
    mutate: Endpoint,
    /// How often [`App::release`] was called.
    released: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The app's backend.
pub struct App {
    pub port: u16,
    shared: Arc<Shared>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl App {
    /// Starts it beside a database. Its threads end with the process.
    pub fn start(postgres: u16, database: &str) -> App {
        let listener = listen();
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared::default());
        let (serving, database) = (shared.clone(), database.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, database) = (serving.clone(), database.clone());
                std::thread::spawn(move || serve(&shared, stream, postgres, &database));
            }
        });
        App { port, shared }
    }

    pub fn query_url(&self) -> String {
        format!("http://127.0.0.1:{}/query", self.port)
    }

    pub fn mutate_url(&self) -> String {
        format!("http://127.0.0.1:{}/mutate", self.port)
    }

    /// What the next calls of `/query` get; afterwards it behaves.
    pub fn script_query(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.shared).query.script.extend(answers);
    }

    /// What calls of `/query` with this token get from now on; `None`: what others do.
    pub fn rule_query(&self, token: &str, answer: Option<Answer>) {
        lock(&self.shared).query.rule(token, answer);
    }

    /// The same of calls of `/mutate`.
    pub fn rule_mutate(&self, token: &str, answer: Option<Answer>) {
        lock(&self.shared).mutate.rule(token, answer);
    }

    /// Calls of `/query` with this token so far.
    pub fn queries_with(&self, token: &str) -> Vec<Call> {
        let bearer = format!("Bearer {token}");
        let mut calls = self.queries();
        calls.retain(|c| c.request.header("authorization") == Some(&bearer));
        calls
    }

    /// Waits for this many calls of `/query` with the token.
    pub fn until_queries_with(&self, token: &str, count: usize) {
        let bearer = format!("Bearer {token}");
        let has_token = |c: &&Call| c.request.header("authorization") == Some(&bearer);
        self.wait(&format!("{count} calls with a token"), |s| {
            (s.query.calls.iter().filter(has_token).count() >= count).then_some(())
        });
    }

    /// What the next calls of `/mutate` get; afterwards it behaves.
    pub fn script_mutate(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.shared).mutate.script.extend(answers);
    }

    /// Behaves from now on.
    pub fn forget_script(&self) {
        let mut state = lock(&self.shared);
        state.query.script.clear();
        state.mutate.script.clear();
    }

    /// Lets calls go on that hang.
    pub fn release(&self) {
        lock(&self.shared).released += 1;
        self.shared.changed.notify_all();
    }

    /// Calls of `/query` so far.
    pub fn queries(&self) -> Vec<Call> {
        lock(&self.shared).query.calls.clone()
    }

    /// Calls of `/mutate` so far.
    pub fn mutations(&self) -> Vec<Call> {
        lock(&self.shared).mutate.calls.clone()
    }

    /// Waits for calls of `/mutate`: returns them all when the last one matches.
    pub fn until_mutation(&self, what: &str, matches: impl Fn(&Call) -> bool) -> Vec<Call> {
        self.wait(what, |s| s.mutate.calls.iter().any(&matches).then(|| s.mutate.calls.clone()))
    }

    /// Waits for this many calls of `/mutate` with the mutation.
    pub fn until_mutations(&self, count: usize, name: &str) -> Vec<Call> {
        let named =
            |s: &State| s.mutate.calls.iter().filter(|c| c.names() == [name]).cloned().collect::<Vec<_>>();
        self.wait(&format!("{count} times {name}"), |s| Some(named(s)).filter(|calls| calls.len() >= count))
    }

    /// Waits for this many calls of `/query`.
    pub fn until_queries(&self, count: usize) -> Vec<Call> {
        let what = format!("{count} calls of /query");
        self.wait(&what, |s| (s.query.calls.len() >= count).then(|| s.query.calls.clone()))
    }

    fn wait<T>(&self, what: &str, done: impl Fn(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(40);
        let mut state = lock(&self.shared);
        loop {
            if let Some(found) = done(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the backend waited in vain for {what}");
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn serve(shared: &Shared, mut stream: TcpStream, postgres: u16, database: &str) {
    let _ = stream.set_nodelay(true);
    let mut input = Vec::new();
    let mut sql = None;
    while let Ok(Some(request)) = http::read(&mut stream, &mut input) {
        let mutate = request.target.starts_with("/mutate");
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        // A release counts from the moment that the call can be seen.
        let (answer, released) = {
            let mut state = lock(shared);
            let endpoint = if mutate { &mut state.mutate } else { &mut state.query };
            let answer = endpoint.call(Call { request, body: body.clone() });
            shared.changed.notify_all();
            (answer, state.released)
        };
        let mut normal = |user: Option<&Value>| {
            if !mutate {
                return (200, transform(&body, user));
            }
            let connection = sql.get_or_insert_with(|| Sql::connect(postgres, database));
            match run_all(connection, &body) {
                Ok(answer) => (200, with_user(answer, user)),
                Err(error) => {
                    sql = None;
                    (500, error.to_string())
                }
            }
        };
        let answer = match answer {
            Answer::After(time, answer) => {
                std::thread::sleep(time);
                *answer
            }
            other => other,
        };
        let (status, text) = match answer {
            Answer::Normal | Answer::After(..) => normal(None),
            Answer::Status(status, text) => (status, text.to_owned()),
            Answer::Text(text) => (200, text),
            Answer::Slow(time) => {
                std::thread::sleep(time);
                normal(None)
            }
            Answer::Hang => {
                let mut state = lock(shared);
                while state.released == released {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                drop(state);
                normal(None)
            }
            Answer::Drop => return,
            Answer::Bytes(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Answer::Endless(first, again) => {
                let mut sent = stream.write_all(&first);
                while sent.is_ok() {
                    sent = stream.write_all(&again);
                }
                return;
            }
            Answer::Redirect(location) => match http::redirect(&mut stream, &location) {
                Ok(()) => continue,
                Err(_) => return,
            },
            Answer::User(user) => normal(Some(&user)),
            Answer::Legacy if mutate => {
                let answer: Value = serde_json::from_str(&normal(None).1).unwrap_or_default();
                (200, json!({"mutations": answer["mutations"]}).to_string())
            }
            Answer::Legacy => {
                let answer: Value = serde_json::from_str(&normal(None).1).unwrap_or_default();
                (200, json!(["transformed", answer["queries"]]).to_string())
            }
        };
        if http::respond(&mut stream, status, &text).is_err() {
            return;
        }
    }
}

fn with_user(mut answer: Value, user: Option<&Value>) -> String {
    if let Some(user) = user {
        answer["userID"] = user.clone();
    }
    answer.to_string()
}

fn transform(body: &Value, user: Option<&Value>) -> String {
    let asked = body[1].as_array().cloned().unwrap_or_default();
    let results: Vec<Value> = asked
        .iter()
        .map(|q| {
            let mut result = match ast(q["name"].as_str().unwrap_or_default(), &q["args"]) {
                Ok(ast) => json!({"ast": ast}),
                Err(error) => error,
            };
            result["id"] = q["id"].clone();
            result["name"] = q["name"].clone();
            result
        })
        .collect();
    with_user(json!({"kind": "QueryResponse", "queries": results}), user)
}
