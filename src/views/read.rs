//! Rows of a statement as a commit lists them.

use rusqlite::Row as SqlRow;

use crate::model::commit::Row;
use crate::model::key::Scalar;
use crate::model::value::Value;
use crate::replica::reader::ReadError;
use crate::zql::plan::Node;

/// A row that one of the node's statements gave: all columns of the table, in its order.
/// Those that no client may see are NULL.
pub fn row(node: &Node, found: &SqlRow<'_>) -> Result<Row, ReadError> {
    let mut out = vec![Value::Null; node.width];
    for (position, column) in node.columns.iter().enumerate() {
        out[*column as usize] = Scalar::from(found.get_ref(position)?).to_value();
    }
    Ok(out.into())
}
