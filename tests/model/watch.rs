//! Compares what a tab holds with what plain SQL says, whenever its cookie moves.
//!
//! Which state a cookie stands for is noted when a group issues it: the data version, and the
//! queries that the group has. All else is found from the store of the tab alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use kelvin::groups::group::Group as State;
use kelvin::zql::ast::Ast;
use serde_json::{Value, json};

use super::client::Store;
use super::database::Write;
use super::envelope;
use super::oracle::{Answer, Number, Oracle};
use super::schema::Schema;
use super::world::{Asts, Broken};

/// Queries that are got, and what each means.
type Got = BTreeMap<String, Rc<Ast>>;

/// What a cookie of a group stands for.
#[derive(Clone, Default)]
struct Meaning {
    /// First and last data version, and what was got then: a query may come to mean something else
    /// that has the same rows, which is nothing that anybody is told.
    first: (u64, Got),
    last: (u64, Got),
    desired: BTreeMap<String, BTreeSet<String>>,
}

/// Rows by table and key.
type Names = HashMap<(String, String), Number>;

/// What clients with one schema can see.
struct Seen {
    schema: Schema,
    answers: HashMap<(usize, u64), Rc<Answer>>,
    names: HashMap<u64, Rc<Names>>,
}

pub struct Watch {
    pub oracle: Oracle,
    /// By group and cookie.
    meanings: HashMap<(String, String), Meaning>,
    /// Cookies of a group, in order.
    cookies: BTreeMap<String, BTreeSet<String>>,
    seen: Vec<Seen>,
    /// Stores looked at.
    pub checked: usize,
}

impl Watch {
    pub fn new(schema: &Schema, believed: &[Schema]) -> Watch {
        let seen = |schema: &Schema| {
            let (answers, names) = (HashMap::new(), HashMap::new());
            Seen { schema: schema.clone(), answers, names }
        };
        Watch {
            oracle: Oracle::new(schema),
            meanings: HashMap::new(),
            cookies: BTreeMap::new(),
            seen: believed.iter().map(seen).collect(),
            checked: 0,
        }
    }

    pub fn commit(&mut self, version: u64, writes: &[Write]) {
        self.oracle.commit(version, writes);
    }

    /// Notes what the group's cookie stands for.
    pub fn note(&mut self, state: &State, asts: &Asts, generation: impl Fn(&State, &str) -> Option<u64>) {
        let (group, cookie) = (state.id.to_string(), state.cookie.to_string());
        let version = state.version.0;
        let key = (group, cookie);
        let got = state.queries.iter().filter(|(_, query)| query.got).filter_map(|(hash, query)| {
            let ast = asts.get(&(query.current?, generation(state, hash)?))?;
            Some((hash.clone(), ast.clone()))
        });
        let got: Got = got.collect();
        if let Some(known) = self.meanings.get_mut(&key) {
            known.last = (version, got);
            return;
        }
        let desired = state.clients.iter().map(|(id, client)| {
            let wanted = client.desires.iter().filter(|(_, desire)| desire.desired);
            (id.clone(), wanted.map(|(hash, _)| hash.clone()).collect::<BTreeSet<_>>())
        });
        let desired = desired.filter(|(_, set)| !set.is_empty()).collect();
        let meaning = Meaning { first: (version, got.clone()), last: (version, got), desired };
        self.cookies.entry(key.0.clone()).or_default().insert(key.1.clone());
        self.meanings.insert(key, meaning);
    }

    /// Looks at a store. `which`: of the schemas that clients believe.
    pub fn check(&mut self, group: &str, which: usize, store: &Store) -> Result<(), Broken> {
        let Some(cookie) = &store.cookie else { return Ok(()) };
        // A cookie that nobody saw being issued was followed at once by another of the same state.
        let cookies = self.cookies.get(group);
        let issued = cookies.and_then(|all| all.range(cookie.clone()..).next()).cloned();
        let issued = issued.ok_or(format!("nobody issued {cookie}"))?;
        let meaning = self.meanings[&(group.to_owned(), issued.clone())].clone();
        self.checked += 1;
        let got: BTreeSet<String> = meaning.first.1.keys().cloned().collect();
        if store.got != got {
            return Err(format!("got {:?}, but {got:?} at {issued}", store.got));
        }
        if issued == *cookie && store.desired != meaning.desired {
            return Err(format!("desires {:?}, but {:?} at {issued}", store.desired, meaning.desired));
        }
        let (first, last) = (meaning.first, meaning.last);
        self.check_at(group, which, store, &first)?;
        if last != first { self.check_at(group, which, store, &last) } else { Ok(()) }
    }

    fn check_at(
        &mut self,
        group: &str,
        which: usize,
        store: &Store,
        meaning: &(u64, Got),
    ) -> Result<(), Broken> {
        let (version, got) = (meaning.0, &meaning.1);
        let names = self.names(which, version);
        let mut held = BTreeSet::new();
        for (key, value) in &store.rows {
            let number = names.get(key).ok_or(format!("{key:?}: there is no such row at {version}"))?;
            let expected = &self.oracle.versions[*number].value;
            if !is_same(value, expected) {
                return Err(format!("{key:?} is {value}, but {expected} at {version}"));
            }
            held.insert(*number);
        }
        let mut asts: Vec<&Rc<Ast>> = Vec::new();
        for ast in got.values() {
            if !asts.contains(&ast) {
                asts.push(ast);
            }
        }
        let answers: Vec<Rc<Answer>> = asts.into_iter().map(|ast| self.answer(which, ast, version)).collect();
        envelope::check(&held, &answers).map_err(|e| self.explain(&e, got, version))?;
        // A group that gave up its views after a while without tabs has no data version, but
        // still knows its mutations.
        if version == 0 { Ok(()) } else { self.check_mutations(group, store, version) }
    }

    fn answer(&mut self, which: usize, ast: &Rc<Ast>, version: u64) -> Rc<Answer> {
        let since = self.oracle.unchanged_since(ast, version);
        let seen = &mut self.seen[which];
        let key = (Rc::as_ptr(ast) as usize, since);
        let answer = || Rc::new(self.oracle.answer(ast, &seen.schema, version));
        seen.answers.entry(key).or_insert_with(answer).clone()
    }

    fn names(&mut self, which: usize, version: u64) -> Rc<Names> {
        let (oracle, seen) = (&self.oracle, &mut self.seen[which]);
        let schema = &seen.schema;
        let make = || {
            let alive = oracle.alive(version).map(|number| (number, &oracle.versions[number]));
            let known = alive.filter(|(_, v)| schema.spec(v.table).client_key.is_some());
            Rc::new(known.map(|(number, v)| (name(schema, v.table, &v.value), number)).collect())
        };
        seen.names.entry(version).or_insert_with(make).clone()
    }

    /// Last mutation ids and results of the group at a version.
    fn check_mutations(&self, group: &str, store: &Store, version: u64) -> Result<(), Broken> {
        let of = |name: &str| {
            let alive = self.oracle.alive(version).map(|number| &self.oracle.versions[number]);
            let table = self.oracle.find(name);
            alive.filter(move |v| v.table == table && v.value["clientGroupID"] == group)
        };
        let lmids: BTreeMap<String, u64> = of("test_0.clients")
            .map(|v| {
                let client = v.value["clientID"].as_str().unwrap_or_default().to_owned();
                (client, v.value["lastMutationID"].as_f64().unwrap_or_default() as u64)
            })
            .collect();
        if store.lmids != lmids {
            return Err(format!("mutation ids {:?}, but {lmids:?} at {version}", store.lmids));
        }
        let results: BTreeMap<String, Value> = of("test_0.mutations").map(|v| result(&v.value)).collect();
        if store.results != results {
            return Err(format!("results {:?}, but {results:?} at {version}", store.results));
        }
        Ok(())
    }

    /// An error with what its numbers stand for, for people.
    fn explain(&self, error: &str, got: &Got, version: u64) -> String {
        let digits = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok();
        let rows = error.split_whitespace().filter_map(digits).filter_map(|n| self.oracle.versions.get(n));
        let rows: Vec<String> = rows.map(|v| format!("{} {}", self.oracle.table(v.table), v.value)).collect();
        let queries: Vec<String> =
            got.iter().map(|(hash, ast)| format!("{hash}: {}", super::print::query(ast))).collect();
        format!("{error} at {version}:\n{}\nqueries\n{}", rows.join("\n"), queries.join("\n"))
    }
}

/// A row of results as clients hold it: by client and number.
fn result(row: &Value) -> (String, Value) {
    let number = row["mutationID"].as_f64().unwrap_or_default() as u64;
    (json!({"clientID": row["clientID"], "id": number}).to_string(), row["result"].clone())
}

/// The name that a client gives a row.
fn name(schema: &Schema, table: usize, value: &Value) -> (String, String) {
    let spec = schema.spec(table);
    let part = |column: usize| match &value[spec.columns[column].0] {
        Value::Number(n) if n.as_f64().is_some_and(|n| n.fract() == 0.0) => {
            (n.as_f64().unwrap_or_default() as i64).to_string()
        }
        other => other.to_string(),
    };
    let parts: Vec<String> = schema.identity(table).into_iter().map(part).collect();
    (spec.name.to_owned(), parts.join(","))
}

/// Equality as clients see it: numbers are doubles.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}
