//! The form of a `/statz` page (`docs/spec/config-ops.md` §7.6): nothing but formatting.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json, json};

/// What the query string of a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `group=a,b`: only these; `None`: all. Names that do not exist are left out.
    pub groups: Option<Vec<String>>,
    /// `format=json`.
    pub json: bool,
    /// `pretty`, of the JSON form.
    pub pretty: bool,
}

impl Request {
    /// Reads the part of a URL after `?`.
    pub fn parse(query: &str) -> Request {
        let mut request = Request::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match name {
                "group" => {
                    let names = value.split(',').map(|name| name.trim().to_owned());
                    request.groups.get_or_insert_default().extend(names.filter(|name| !name.is_empty()));
                }
                "format" => request.json = value == "json",
                "pretty" => request.pretty = value != "false",
                _ => {}
            }
        }
        request
    }

    /// Whether `group` is asked for, so that others need not be collected.
    pub fn wants(&self, group: &str) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.iter().any(|name| name == group))
    }

    /// Type of the content of [`Page::render`].
    pub fn content_type(&self) -> &'static str {
        if self.json { "application/json" } else { "text/plain; charset=utf-8" }
    }
}

/// A page: groups of names and values, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Page {
    groups: Vec<(String, Vec<(String, Json)>)>,
}

impl Page {
    /// Adds a group. One that could not be collected becomes its error, and the others still answer.
    pub fn add(&mut self, group: &str, rows: Result<Vec<(String, Json)>, String>) {
        let rows = rows.unwrap_or_else(|error| vec![("error".to_owned(), json!(error))]);
        self.groups.push((group.to_owned(), rows));
    }

    /// The page as `request` asks for it.
    pub fn render(&self, request: &Request) -> String {
        let wanted = self.groups.iter().filter(|(group, _)| request.wants(group));
        if !request.json {
            return wanted.map(|(group, rows)| text(group, rows)).collect::<Vec<_>>().join("\n");
        }
        let groups: Map<String, Json> = wanted
            .map(|(group, rows)| (group.clone(), Json::Object(rows.iter().cloned().collect())))
            .collect();
        if request.pretty { format!("{:#}", Json::Object(groups)) } else { Json::Object(groups).to_string() }
    }
}

fn text(group: &str, rows: &[(String, Json)]) -> String {
    let rows: String = rows.iter().map(|(name, value)| format!("{name}: {value:#}\n")).collect();
    format!("=== {group} ===\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        page.add("replication", Ok(vec![("lsn".to_owned(), json!("0/1"))]));
        page.add("upstream", Err("gone".to_owned()));
        page.add("os", Ok(vec![("cpus".to_owned(), json!(2)), ("load".to_owned(), json!([1, 2]))]));
        page
    }

    fn render(query: &str) -> String {
        page().render(&Request::parse(query))
    }

    #[test]
    fn text_shows_every_group_and_a_failing_one_as_its_error() {
        let expected = "=== replication ===\nlsn: \"0/1\"\n\n=== upstream ===\nerror: \"gone\"\n\n=== os ===\n\
                        cpus: 2\nload: [\n  1,\n  2\n]\n";
        assert_eq!(render(""), expected);
    }

    #[test]
    fn groups_can_be_chosen_and_unknown_ones_are_left_out() {
        assert_eq!(render("group=os%2Cnothing&group=replication&format=json"), {
            r#"{"replication":{"lsn":"0/1"},"os":{"cpus":2,"load":[1,2]}}"#
        });
        assert_eq!(render("format=json&group=nothing"), "{}");
    }

    #[test]
    fn json_can_be_pretty() {
        assert!(render("format=json&pretty").starts_with("{\n  \"replication\": {\n"));
        assert_eq!(Request::parse("format=json").content_type(), "application/json");
    }
}
