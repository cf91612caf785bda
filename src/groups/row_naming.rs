//! How records name rows: by the place of their identity in a list, and by key.

use crate::cvr::record::{NamedIdentity, RecordedDelta, RecordedRow};
use crate::model::catalogue::Catalogue;
use crate::views::entries::IdentityId;
use crate::views::journal::Delta;
use crate::views::rows::{RowId, Rows};
use crate::views::view::View;

/// Names the rows of one view, or of several.
pub(super) struct RowNaming<'n> {
    rows: &'n Rows,
    identities: Vec<IdentityId>,
}

impl<'n> RowNaming<'n> {
    /// The rows of a view.
    pub fn of_view(view: &View, rows: &'n Rows) -> RowNaming<'n> {
        let mut identities = view.layout.identities.clone();
        identities.sort_unstable();
        identities.dedup();
        RowNaming { rows, identities }
    }

    /// These rows.
    pub fn of_rows(list: &[RowId], rows: &'n Rows) -> RowNaming<'n> {
        let mut identities: Vec<IdentityId> = list.iter().map(|id| rows.identity_of(*id)).collect();
        identities.sort_unstable();
        identities.dedup();
        RowNaming { rows, identities }
    }

    /// A row.
    pub fn row(&self, id: RowId) -> RecordedRow {
        let identity = self.rows.identity_of(id);
        let at = self.identities.binary_search(&identity).unwrap_or_default();
        (at as u16, self.rows.key_of(id).into())
    }

    /// A delta.
    pub fn delta(&self, delta: &Delta) -> RecordedDelta {
        let all = |list: &[RowId]| list.iter().map(|id| self.row(*id)).collect();
        RecordedDelta {
            end: delta.end,
            entered: all(&delta.entered),
            left: all(&delta.left),
            edited: all(&delta.edited),
        }
    }

    /// The identities that rows are named by.
    pub fn identities(&self, catalogue: &Catalogue) -> Vec<NamedIdentity> {
        let name = |identity: &IdentityId| {
            let described = self.rows.describe(*identity);
            let table = catalogue.get(described.table);
            let columns = described.key.iter().map(|c| table.columns[*c as usize].name.clone());
            (table.name.clone(), columns.collect())
        };
        self.identities.iter().map(name).collect()
    }
}
