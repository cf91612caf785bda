//! The keys that the clients of `bench distinct` watch, and the commit that changes one.

use super::error::BenchError;
use super::query::Query;
use super::schedule::marker_text;
use super::sql::{Row, Sql};

/// What a view asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One issue; a commit changes it.
    Key,
    /// One issue with its comments; a commit changes a comment.
    Related,
    /// A project's issues that have a marked comment; a commit moves that comment from one
    /// issue to another, so that one comes and one goes.
    Exists,
}

impl Kind {
    /// Understands `key`, `related` and `exists`.
    pub fn parse(text: &str) -> Result<Kind, BenchError> {
        match text {
            "key" => Ok(Kind::Key),
            "related" => Ok(Kind::Related),
            "exists" => Ok(Kind::Exists),
            _ => Err(BenchError::Usage(format!("--kind {text}: key, related or exists"))),
        }
    }
}

/// The keys, in the order of their numbers.
pub struct Watched {
    kind: Kind,
    /// Of `key` and `related`: an issue, twice. Of `exists`: two issues of one project.
    issues: Vec<[String; 2]>,
    /// Of `exists`: the projects.
    projects: Vec<String>,
}

/// Issues that lie evenly among all.
fn issues_sql(keys: usize) -> String {
    format!(
        "with numbered as (select id, row_number() over (order by id) - 1 as at, count(*) over () as n \
         from issues where id like 'i%') \
         select id, id from numbered where at % greatest(n / {keys}, 1) = 0 order by at limit {keys}"
    )
}

/// Two issues of each of so many projects.
fn projects_sql(keys: usize) -> String {
    format!(
        "select min(id), max(id), project_id from issues where id like 'i%' group by project_id \
         having count(*) > 1 order by project_id limit {keys}"
    )
}

fn column(rows: &[Row], at: usize) -> Vec<String> {
    let cell = |row: &Row| row.get(at).cloned().flatten().unwrap_or_default().replace('\'', "''");
    rows.iter().map(cell).collect()
}

impl Watched {
    /// Chooses so many keys. A key of `related` and `exists` gets a comment of its own;
    /// those of an earlier run go first.
    pub fn prepare(sql: &mut Sql, kind: Kind, keys: usize) -> Result<Watched, BenchError> {
        sql.execute("delete from comments where id like 'kd%'")?;
        let rows = sql.rows(&if kind == Kind::Exists { projects_sql(keys) } else { issues_sql(keys) })?;
        if rows.len() < keys {
            let text = format!("there are only {} keys for {keys} views", rows.len());
            return Err(BenchError::Usage(text));
        }
        let pairs = column(&rows, 0).into_iter().zip(column(&rows, 1));
        let issues: Vec<[String; 2]> = pairs.map(|(a, b)| [a, b]).collect();
        if kind != Kind::Key {
            let row = |(key, [issue, _]): (usize, &[String; 2])| format!("('kd{key}', '{issue}', 'quiet')");
            let rows: Vec<String> = issues.iter().enumerate().map(row).collect();
            sql.execute(&format!("insert into comments (id, issue_id, body) values {}", rows.join(", ")))?;
        }
        Ok(Watched { kind, issues, projects: column(&rows, 2) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.issues.len()
    }

    /// The query of a key.
    pub fn query(&self, key: usize) -> Query {
        match self.kind {
            Kind::Key => Query::issue(&self.issues[key][0]),
            Kind::Related => Query::thread(&self.issues[key][0]),
            Kind::Exists => Query::marked(&self.projects[key]),
        }
    }

    /// The statement that changes what this key's view has; `turn` counts those of one key.
    pub fn change(&self, key: usize, turn: usize, marker: u64) -> String {
        let text = marker_text(marker);
        match self.kind {
            Kind::Key => {
                format!(
                    "update issues set title = '{text}', rev = rev + 1 where id = '{}'",
                    self.issues[key][0]
                )
            }
            Kind::Related => format!("update comments set body = '{text}' where id = 'kd{key}'"),
            Kind::Exists => {
                let issue = &self.issues[key][turn % 2];
                format!("update comments set issue_id = '{issue}', body = '{text}' where id = 'kd{key}'")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_of_exists_moves_with_every_turn() {
        let watched = Watched {
            kind: Kind::Exists,
            issues: vec![["i1".to_owned(), "i2".to_owned()]],
            projects: vec!["p1".to_owned()],
        };
        assert!(watched.change(0, 0, 7).contains("issue_id = 'i1'"));
        assert!(watched.change(0, 1, 8).contains("issue_id = 'i2'"));
        assert_eq!(watched.query(0), Query::marked("p1"));
    }
}
