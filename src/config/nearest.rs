//! The known name that a mistyped one was probably meant to be.

/// The candidate nearest to `name`, by edits of the letters alone (case, `-` and `_` do not count).
/// `None` when nothing is near enough to be a likely meaning.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = squash(name);
    let (distance, best) = candidates
        .map(|candidate| (edits(&wanted, &squash(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= wanted.len() / 2).then_some(best)
}

fn squash(name: &str) -> Vec<char> {
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Levenshtein distance, one row at a time.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["--port", "--upstream-db", "--query-url"];

    #[test]
    fn a_typing_error_finds_its_option() {
        assert_eq!(nearest("--prot", NAMES.into_iter()), Some("--port"));
        assert_eq!(nearest("--upstreamDb", NAMES.into_iter()), Some("--upstream-db"));
        assert_eq!(nearest("--quary-urls", NAMES.into_iter()), Some("--query-url"));
    }

    #[test]
    fn a_name_like_no_other_finds_nothing() {
        assert_eq!(nearest("--zzzzzzzzzzzz", NAMES.into_iter()), None);
    }
}
