//! What the commits of `bench fanout`, `bench live` and `bench reconnect` change.

use super::error::BenchError;
use super::schedule::marker_text;
use super::sql::Sql;

/// Numbers of inserted issues stay below this: the column is a 32-bit integer.
const NUM_MAX: u64 = 1_000_000_000;

/// The change that a commit makes.
pub struct Change {
    /// The issues that are updated, one after another: the newest, so that they are in every window.
    ids: Vec<String>,
    insert: bool,
}

impl Change {
    /// Finds the newest issue; removes what an earlier run has inserted.
    pub fn prepare(sql: &mut Sql, insert: bool) -> Result<Change, BenchError> {
        Change::newest(sql, 1, insert)
    }

    /// Finds so many of the newest issues: each commit changes the next of them.
    pub fn in_turn(sql: &mut Sql, issues: u64) -> Result<Change, BenchError> {
        Change::newest(sql, issues, false)
    }

    fn newest(sql: &mut Sql, issues: u64, insert: bool) -> Result<Change, BenchError> {
        sql.execute("delete from issues where id like 'kf%'")?;
        let rows = sql.rows(&format!("select id from issues order by created_at desc, id limit {issues}"))?;
        let ids: Vec<String> =
            rows.into_iter().flatten().flatten().map(|id| id.replace('\'', "''")).collect();
        if (ids.len() as u64) < issues {
            return Err(BenchError::Failed("there are too few issues: run `kelvin-bench seed`".to_owned()));
        }
        Ok(Change { ids, insert })
    }

    /// The statement of the commit with this marker.
    pub fn sql(&self, marker: u64) -> String {
        let text = marker_text(marker);
        if self.insert {
            // A project of its own: `num` is unique in a project.
            format!(
                "insert into issues (id, project_id, num, title, creator_id, created_at) values \
                 ('kf{marker}', 'kf', {num}, '{text}', 'u0', timestamptz '2100-01-01' + {num} * interval '1 ms')",
                num = marker % NUM_MAX
            )
        } else {
            let id = &self.ids[(marker % self.ids.len() as u64) as usize];
            format!("update issues set title = '{text}', rev = rev + 1 where id = '{id}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_have_a_fixed_length() {
        for insert in [true, false] {
            let change = Change { ids: vec!["i1".to_owned()], insert };
            assert!(change.sql(7).contains("kelvin-bench:0000000000007"), "{insert}");
        }
    }

    #[test]
    fn each_issue_is_changed_before_one_is_again() {
        let change = Change { ids: ["i1", "i2", "i3"].map(str::to_owned).into(), insert: false };
        let mut changed: Vec<String> = (7..10).map(|marker| change.sql(marker)).collect();
        changed.iter_mut().for_each(|text| *text = text.split_off(text.len() - 4));
        changed.sort_unstable();
        assert_eq!(changed, ["'i1'", "'i2'", "'i3'"]);
    }
}
