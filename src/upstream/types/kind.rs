//! Which rule converts a column, and what clients see of it.

use crate::model::catalogue::{Column, ZeroType};

/// How the text of a type becomes a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// int2, int4, int8.
    Integer,
    /// numeric.
    Number,
    /// float4, float8.
    Float,
    /// bool.
    Boolean,
    /// date.
    Date,
    /// time without time zone.
    Time,
    /// time with time zone.
    TimeTz,
    /// timestamp with or without time zone.
    Timestamp,
    /// json, jsonb: the text as it is.
    Json,
    /// bytea.
    Bytes,
    /// inet: always with its prefix length, as a cast to text prints it.
    Inet,
    /// Everything else: the text as it is.
    Text,
    /// An array: JSON text. Its elements are separated by this.
    Array(Element, u8),
}

/// How the text of an array's element becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Digits as they are.
    Integer,
    /// A number as JavaScript prints it.
    Number,
    /// true or false.
    Boolean,
    /// Milliseconds.
    Date,
    /// Milliseconds.
    Time,
    /// Milliseconds.
    TimeTz,
    /// Milliseconds.
    Timestamp,
    /// Embedded as it is.
    Json,
    /// A string.
    Text,
}

/// OID of `box[]`, whose elements are separated by semicolons.
const BOXES: u32 = 1020;

impl Kind {
    /// The rule for a column of the catalogue.
    pub fn of_column(column: &Column) -> Kind {
        match (Kind::of(column.type_oid, &column.upstream_type), column.delimiter) {
            (Kind::Array(element, _), Some(delimiter)) => Kind::Array(element, delimiter),
            (kind, _) => kind,
        }
    }

    /// The rule for a type, from its OID (fixed for built-in types) and its name, which ends with `[]` for arrays. Those
    /// of types that are not built in may have another delimiter.
    pub fn of(type_oid: u32, upstream_type: &str) -> Kind {
        if upstream_type.ends_with("[]") {
            let delimiter = if type_oid == BOXES { b';' } else { b',' };
            return Kind::Array(Element::of_array(type_oid), delimiter);
        }
        match type_oid {
            16 => Kind::Boolean,
            17 => Kind::Bytes,
            869 => Kind::Inet,
            20 | 21 | 23 => Kind::Integer,
            700 | 701 => Kind::Float,
            1700 => Kind::Number,
            114 | 3802 => Kind::Json,
            1082 => Kind::Date,
            1083 => Kind::Time,
            1266 => Kind::TimeTz,
            1114 | 1184 => Kind::Timestamp,
            _ => Kind::Text,
        }
    }
}

impl Element {
    /// Whether different elements may be written alike.
    pub fn is_lossy(self) -> bool {
        use Element::{Date, Number, Time, TimeTz, Timestamp};
        matches!(self, Number | Date | Time | TimeTz | Timestamp)
    }

    fn of_array(array_oid: u32) -> Element {
        match array_oid {
            1000 => Element::Boolean,
            1005 | 1007 | 1016 => Element::Integer,
            1021 | 1022 | 1231 => Element::Number,
            199 | 3807 => Element::Json,
            1182 => Element::Date,
            1183 => Element::Time,
            1270 => Element::TimeTz,
            1115 | 1185 => Element::Timestamp,
            _ => Element::Text,
        }
    }
}

/// What the catalogue of Postgres says about a type.
#[derive(Debug, Clone, Copy)]
pub struct TypeFacts<'a> {
    /// `typname`.
    pub name: &'a str,
    /// `typtype`: b base, e enum, d domain, c composite, r range …
    pub class: char,
    /// Defined in `pg_catalog`.
    pub built_in: bool,
    /// A true array, not one of the fixed-length look-alikes such as `point`.
    pub array: bool,
}

/// Type that clients see; `None`: the column replicates and is not shown.
///
/// Domains and composites never match, as in the reference.
pub fn zero_type(facts: TypeFacts<'_>) -> Option<ZeroType> {
    if facts.array {
        return Some(ZeroType::Json);
    }
    match (facts.class, facts.built_in) {
        ('e', _) => Some(ZeroType::String),
        ('b', true) => match facts.name {
            "bool" => Some(ZeroType::Boolean),
            "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "date" | "time" | "timetz"
            | "timestamp" | "timestamptz" => Some(ZeroType::Number),
            "text" | "varchar" | "bpchar" | "uuid" | "cidr" | "inet" | "macaddr" | "macaddr8" | "pg_lsn" => {
                Some(ZeroType::String)
            }
            "json" | "jsonb" => Some(ZeroType::Json),
            _ => None,
        },
        // The isn extension, wherever it was installed.
        ('b', false) => match facts.name {
            "ean13" | "isbn" | "isbn13" | "ismn" | "ismn13" | "issn" | "issn13" | "upc" => {
                Some(ZeroType::String)
            }
            _ => None,
        },
        _ => None,
    }
}
