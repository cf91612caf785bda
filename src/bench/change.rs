//! What the commits of `bench fanout` and `bench live` change.

use super::error::BenchError;
use super::schedule::marker_text;
use super::sql::Sql;

/// Numbers of inserted issues stay below this: the column is a 32-bit integer.
const NUM_MAX: u64 = 1_000_000_000;

/// The change that a commit makes.
pub struct Change {
    /// The issue that is updated: the newest, so that it is in every window.
    id: String,
    insert: bool,
}

impl Change {
    /// Finds the newest issue; removes what an earlier run has inserted.
    pub fn prepare(sql: &mut Sql, insert: bool) -> Result<Change, BenchError> {
        sql.execute("delete from issues where id like 'kf%'")?;
        let rows = sql.rows("select id from issues order by created_at desc, id limit 1")?;
        let id = rows.into_iter().next().and_then(|r| r.into_iter().next().flatten());
        let id =
            id.ok_or_else(|| BenchError::Failed("there are no issues: run `kelvin bench seed`".to_owned()))?;
        Ok(Change { id: id.replace('\'', "''"), insert })
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
            format!("update issues set title = '{text}', rev = rev + 1 where id = '{}'", self.id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_have_a_fixed_length() {
        for insert in [true, false] {
            let change = Change { id: "i1".to_owned(), insert };
            assert!(change.sql(7).contains("kelvin-bench:0000000000007"), "{insert}");
        }
    }
}
