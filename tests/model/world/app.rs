//! The app of a world: what it is asked, and what it answers, late or never.

use bytes::Bytes;
use kelvin::backend::call::CallError;
use kelvin::backend::turns::CallKind;
use kelvin::core::effect::{AppCall, QuestionId};
use serde_json::{Value, json};

use super::World;
use crate::model::cell::Cell;
use crate::model::choices::Choices;
use crate::model::database::Write;
use crate::model::spelled::spelled;

fn read(call: &AppCall) -> Value {
    serde_json::from_slice(&call.body).expect("the app can read it")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

impl World {
    /// The queries of a group are asked for once more: for those missing, or for all.
    pub fn ask(&mut self, group: usize, all: bool) {
        if all {
            self.renew(group);
        }
        self.core.serve();
    }

    /// The app answers one request, or fails it.
    pub fn reply(&mut self, choices: &mut Choices, failing: bool) {
        let calls: Vec<QuestionId> = self.core.calls.keys().copied().collect();
        if calls.is_empty() {
            return;
        }
        let id = calls[choices.below(calls.len())];
        match failing {
            true => self.fail(id),
            false => self.answer(choices, id),
        }
        if !self.is_late() {
            self.core.serve();
        }
    }

    /// Whether the app is being asked.
    pub fn owes(&self) -> bool {
        !self.core.calls.is_empty()
    }

    /// The app is away.
    pub fn fail(&mut self, id: QuestionId) {
        self.failures += 1;
        self.log.push(format!("the app fails {:?}", self.core.calls[&id].kind));
        self.core.answer(id, Err(CallError::internal("internal", "the app is away")));
    }

    /// The app answers a request.
    pub fn answer(&mut self, choices: &mut Choices, id: QuestionId) {
        let Some(call) = self.core.calls.remove(&id) else { return };
        let answer = match call.kind {
            CallKind::Transform => self.transform(choices, &call),
            CallKind::Push => self.run_mutations(choices, &call),
            CallKind::CleanUp => self.forget_results(&call),
        };
        self.core.answer(id, Ok(Bytes::from(answer.to_string())));
    }

    /// The app lets somebody in, and says nothing of queries.
    pub fn answer_nothing(&mut self, id: QuestionId) {
        let answer = json!({"kind": "QueryResponse", "userID": null, "queries": []});
        self.core.answer(id, Ok(Bytes::from(answer.to_string())));
    }

    fn group_named(&self, name: &str) -> usize {
        self.groups.iter().position(|group| group.id == name).expect("a group")
    }

    fn transform(&mut self, choices: &mut Choices, call: &AppCall) -> Value {
        let group = self.group_named(&call.group);
        let asked = read(call);
        let mut queries = Vec::new();
        for query in asked[1].as_array().expect("a list") {
            let hash = text(&query["id"]);
            let number: usize = hash[1..].parse().expect("a hash of the test");
            let form = self.groups[group].forms[number];
            let ast = self.scenario.queries[number][form].clone().filter(|_| !choices.percent(2));
            self.log.push(format!("{} {hash} is {:?}", call.group, ast.as_ref().map(|_| form)));
            queries.push(match ast {
                Some(ast) => json!({"id": hash, "name": query["name"], "ast": spelled(&ast)}),
                None => json!({"error": "app", "id": hash, "name": query["name"], "message": "no"}),
            });
        }
        match choices.percent(20) {
            true => json!(["transformed", queries]),
            false => json!({"kind": "QueryResponse", "userID": null, "queries": queries}),
        }
    }

    /// Each mutation of a client is run once, and in order.
    fn run_mutations(&mut self, choices: &mut Choices, call: &AppCall) -> Value {
        let group = self.group_named(&call.group);
        let mut out = Vec::new();
        for mutation in read(call)["mutations"].as_array().expect("a list") {
            let (client, id) = (text(&mutation["clientID"]), mutation["id"].as_u64().expect("a number"));
            let tabs = &self.groups[group].tabs;
            let tab = tabs.iter().position(|tab| tab.client == client).expect("a tab");
            let result = match tabs[tab].mutations + 1 {
                next if id == next => {
                    self.mutate_as(choices, group, tab);
                    json!({})
                }
                next if id < next => json!({"error": "alreadyProcessed", "details": "it was run"}),
                _ => {
                    self.failures += 1;
                    json!({"error": "oooMutation", "details": "one before it is missing"})
                }
            };
            out.push(json!({"id": {"clientID": client, "id": id}, "result": result}));
        }
        json!({"kind": "MutateResponse", "userID": null, "mutations": out})
    }

    /// Results that clients have taken note of go.
    fn forget_results(&mut self, call: &AppCall) -> Value {
        let body = read(call);
        let of = &body["mutations"][0]["args"][0];
        let is_noted = |client: &str, id: u64| match text(&of["type"]) {
            "single" => {
                text(&of["clientID"]) == client && id <= of["upToMutationID"].as_u64().expect("a number")
            }
            _ => of["clientIDs"].as_array().expect("a list").iter().any(|gone| text(gone) == client),
        };
        let group = Cell::Text(call.group.to_string());
        let table = self.db.schema.find("test_0.mutations");
        let rows = self.db.rows(table).filter(|row| row[0] == group).cloned();
        let noted = rows.filter(|row| {
            let client = row[1].json();
            is_noted(text(&client), row[2].number().unwrap_or(0.0) as u64)
        });
        let writes: Vec<Write> = noted.map(|row| Write::Delete { table, row }).collect();
        writes.iter().for_each(|write| self.db.apply(write));
        if !writes.is_empty() {
            self.commit(writes);
        }
        json!({"kind": "MutateResponse", "userID": null, "mutations": []})
    }
}
