//! The rows of an initial copy, in either format of COPY (`docs/spec/replication.md` §8).
//!
//! Binary is the default: most types take no parsing and their bytes no unescaping. A type whose
//! binary form is not simpler than its text comes as the text of its output function inside the
//! binary row, and goes through the conversion that streaming uses (ruling 29).

mod binary;
mod text;

use super::published::PublishedTable;
use super::types::{Form, Kind, Malformed, Stored};
use crate::model::catalogue::{Column, Table, quote};

/// A format of COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `FORMAT text`: every value goes through its text, as when streaming.
    Text,
    /// `FORMAT binary`.
    Binary,
}

/// How the columns of one table are read from the rows of a copy.
pub struct Columns {
    format: Format,
    /// In order; the form is of the binary format.
    columns: Vec<(Kind, Form)>,
    /// Positions of those of the key, where there is more to be kept of it than its values.
    key: Vec<usize>,
}

impl Columns {
    /// Of these columns.
    pub fn new<'t>(format: Format, columns: impl IntoIterator<Item = &'t Column>) -> Columns {
        let rules = |column: &Column| (Kind::of_column(column), Form::of(column.type_oid));
        Columns { format, columns: columns.into_iter().map(rules).collect(), key: Vec::new() }
    }

    /// Of a table of the catalogue: its published columns, and after them what tells keys apart, if there is a place
    /// for it.
    pub fn of(format: Format, table: &Table) -> Columns {
        let there = table.published_columns();
        let columns = Columns::new(format, there.iter().map(|at| &table.columns[usize::from(*at)]));
        let key = table.exact_key().map(|_| table.upstream_key()).unwrap_or_default();
        let key = (0..there.len()).filter(|at| key.contains(&there[*at])).collect();
        Columns { key, ..columns }
    }

    /// Calls `set` with every column of a row, in order. `Ok(false)`: these are not the
    /// columns of the table.
    pub fn read<E: From<(usize, Malformed)>>(
        &self,
        row: &[u8],
        set: impl FnMut(usize, &Stored<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        match self.format {
            Format::Text => text::columns(row, &self.columns, &self.key, set),
            Format::Binary => binary::columns(row, &self.columns, &self.key, set),
        }
    }
}

/// The rows in one message of a copy; `first`: it is the copy's first. `None`: it has none.
/// An error if this is no copy in that format.
pub fn row(format: Format, message: bytes::Bytes, first: bool) -> Result<Option<bytes::Bytes>, Malformed> {
    match format {
        Format::Text => Ok(Some(message)),
        Format::Binary => binary::row(message, first),
    }
}

/// The statement that copies a table.
pub fn statement(published: &PublishedTable, format: Format) -> String {
    let table = &published.table;
    let columns: Vec<&Column> = table.columns.iter().filter(|c| !c.is_exact_key()).collect();
    let names: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
    let selected: Vec<String> = columns
        .iter()
        .zip(&published.outputs)
        .map(|(column, output)| match (format, Form::of(column.type_oid)) {
            // What COPY in text format would print, and what is streamed.
            (Format::Binary, Form::Text) => format!("pg_catalog.textin({output}({}))", quote(&column.name)),
            _ => quote(&column.name),
        })
        .collect();
    let name = format!("{}.{}", quote(&table.schema), quote(&table.upstream_name));
    // A partitioned table has no rows of its own. Children by inheritance are published
    // by themselves, so ONLY.
    let only = if published.partitioned { "" } else { "ONLY " };
    let format = match format {
        Format::Text => "",
        Format::Binary => " (FORMAT binary)",
    };
    let selected_all = selected.join(", ");
    match &table.row_filter {
        None if !published.partitioned && !published.generated && !names.is_empty() && selected == names => {
            format!("COPY {name} ({selected_all}) TO STDOUT{format}")
        }
        None => format!("COPY (SELECT {selected_all} FROM {only}{name}) TO STDOUT{format}"),
        Some(filter) => {
            format!("COPY (SELECT {selected_all} FROM {only}{name} WHERE {filter}) TO STDOUT{format}")
        }
    }
}

#[cfg(test)]
mod reading {
    use super::{Form, Kind, Malformed, Stored};

    /// A value is not what its type says.
    #[derive(Debug)]
    pub(super) struct Bad;

    impl From<(usize, Malformed)> for Bad {
        fn from(_: (usize, Malformed)) -> Self {
            Bad
        }
    }

    pub(super) type Set<'a> = &'a mut dyn FnMut(usize, &Stored<'_>) -> Result<(), Bad>;

    /// What a row's columns are, as text, by one of the readers; `None`: they are not the table's.
    pub(super) fn seen(
        expected: &[(Kind, Form)],
        columns: impl FnOnce(&[(Kind, Form)], Set<'_>) -> Result<bool, Bad>,
    ) -> Result<Option<Vec<String>>, Bad> {
        let mut seen = Vec::new();
        let whole = columns(expected, &mut |at, value| {
            seen.push(format!("{at}:{:?}", value.clone().into_value()));
            Ok(())
        })?;
        Ok(whole.then_some(seen))
    }
}
