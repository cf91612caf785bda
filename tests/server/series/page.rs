//! The page of `/metrics`, read as what scrapes it reads it.

use std::collections::{BTreeMap, BTreeSet};

/// What one look at the page showed.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Names that have a type.
    pub names: BTreeSet<String>,
    values: BTreeMap<String, f64>,
}

impl Page {
    /// Fails on anything that a scraper would refuse: a type or a series that is there twice.
    pub fn parse(text: &str) -> Page {
        let mut page = Page::default();
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let name = head.split(' ').next().expect("a name");
                assert!(page.names.insert(name.to_owned()), "{name} has two types");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value = value.parse().expect("a number");
                assert!(page.values.insert(series.to_owned(), value).is_none(), "{series} is there twice");
            }
        }
        page
    }

    /// A series; the sum over its labels; or the number of values of a histogram.
    pub fn value(&self, name: &str) -> f64 {
        let of = |name: &str| {
            let labels = format!("{name}{{");
            let own = self.values.iter().filter(|(series, _)| *series == name || series.starts_with(&labels));
            own.map(|(_, value)| *value).collect::<Vec<f64>>()
        };
        let mut found = of(name);
        if found.is_empty() {
            found = of(&format!("{name}_count"));
        }
        found.iter().sum()
    }
}
