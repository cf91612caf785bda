//! LIKE and ILIKE: whole string, code points, `\` escapes (`docs/spec/zql.md` §4.4, ruling 4).
//!
//! One matcher for rows on the core and for statements of SQLite, where nothing can end it before it is
//! over. So its time must not be the product of a pattern that one client chose and of a text that
//! another one did: whatever both are, each byte of the text is looked at a bounded number of times.
//!
//! - What stands before the first `%` and after the last one has its place: it is compared there.
//! - What stands between two `%` goes to the first place where it fits. If it has no `_`, that place is found by
//!   the two-way search of `memchr`, which is linear. `_` at its ends only asks for some characters more. With `_`
//!   in its midst it is searched for with one bit for each of its characters ([`super::shift_and`]); their
//!   number is bounded, so that this is linear, too.
//!
//! The first place is as good as any: what comes later has the more room.

use std::sync::Arc;

use memchr::memmem::Finder;

use super::shift_and::{ShiftAnd, Token};

/// Longest pattern, in bytes. SQLite, and so the reference, takes 50,000.
pub const MAX_PATTERN: usize = 64 << 10;

/// Most parts between two `%`: each has a prepared search of some hundred bytes. People write one or two.
pub const MAX_PARTS: usize = 1_024;

/// Most characters of a part between two `%` that has `_` in its midst: a text takes one step for each of
/// its characters and each 64 of these.
pub const MAX_WILD: usize = 256;

/// Folds case as ILIKE does, on both sides: full Unicode lower-casing.
pub fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// A pattern that can be looked for.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    first: Fixed,
    /// `None`: there is no `%`, and the first part is all there is.
    rest: Option<Rest>,
}

/// What follows the first `%`.
#[derive(Debug, Clone)]
struct Rest {
    parts: Vec<Part>,
    /// Characters that there must be between the last of the parts and the end.
    skip: usize,
    last: Fixed,
}

/// Text in a certain place: some characters of any kind, then these, and so on.
#[derive(Debug, Clone, Default)]
struct Fixed(Vec<(usize, Box<str>)>);

/// What stands between two `%`.
#[derive(Debug, Clone)]
struct Part {
    /// Characters that there must be before it.
    skip: usize,
    search: Search,
}

#[derive(Debug, Clone)]
enum Search {
    Text(Box<Finder<'static>>),
    Wild(ShiftAnd),
}

impl Pattern {
    /// Prepares a pattern; of ILIKE it must be folded already. An error says why it cannot be used.
    pub fn new(pattern: &str) -> Result<Pattern, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("a LIKE pattern has at most {MAX_PATTERN} bytes"));
        }
        let mut parts = tokens(pattern)?;
        let last = if parts.len() > 1 { parts.pop() } else { None };
        let mut parts = parts.into_iter();
        let first = Fixed::new(&parts.next().unwrap_or_default());
        let text = Arc::from(pattern);
        let Some(last) = last else { return Ok(Pattern { text, first, rest: None }) };
        if parts.len() > MAX_PARTS {
            return Err(format!("a LIKE pattern has at most {MAX_PARTS} parts between two %"));
        }
        let mut rest = Rest { parts: Vec::new(), skip: 0, last: Fixed::new(&last) };
        for part in parts {
            let (before, core, after) = trimmed(&part);
            rest.skip += before;
            if !core.is_empty() {
                rest.parts.push(Part { skip: rest.skip, search: Search::new(core)? });
                rest.skip = after;
            }
        }
        Ok(Pattern { text, first, rest: Some(rest) })
    }

    /// Whether the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        self.try_match(text).is_some()
    }

    fn try_match(&self, text: &str) -> Option<()> {
        let start = self.first.forward(text)?;
        let Some(rest) = &self.rest else { return (start == text.len()).then_some(()) };
        let end = rest.last.backward(text)?;
        let mut between = text.get(start..end)?;
        for part in &rest.parts {
            between = part.search.after(skipped(between, part.skip)?)?;
        }
        skipped(between, rest.skip).map(|_| ())
    }

    /// The pattern as it is spelled.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The smallest text, and the first one that is beyond, of those that it can match: what it begins
    /// with. `None`: it begins with a wildcard.
    pub fn range(&self) -> Option<(&str, Option<String>)> {
        let (skip, begin) = self.first.0.first()?;
        (*skip == 0 && !begin.is_empty()).then(|| (&**begin, beyond(begin)))
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let parts = self.rest.iter().flat_map(|rest| &rest.parts).map(|part| match &part.search {
            Search::Text(finder) => size_of::<Finder>() + finder.needle().len(),
            Search::Wild(search) => search.bytes(),
        });
        let fixed = self.first.bytes() + self.rest.as_ref().map_or(0, |rest| rest.last.bytes());
        self.text.len() + parts.map(|bytes| size_of::<Part>() + bytes).sum::<usize>() + fixed
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

/// The parts of a pattern: what stands before, between and after its `%`.
fn tokens(pattern: &str) -> Result<Vec<Vec<Token>>, String> {
    let mut parts = vec![Vec::new()];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let token = match c {
            '%' => {
                parts.push(Vec::new());
                continue;
            }
            '_' => Token::One,
            '\\' => Token::Char(chars.next().ok_or("a LIKE pattern must not end in a single backslash")?),
            c => Token::Char(c),
        };
        if let Some(part) = parts.last_mut() {
            part.push(token);
        }
    }
    Ok(parts)
}

/// How many `_` there are at each end of a part, and what is between them.
fn trimmed(part: &[Token]) -> (usize, &[Token], usize) {
    let is_text = |token: &Token| *token != Token::One;
    let Some(first) = part.iter().position(is_text) else { return (part.len(), &[], 0) };
    let last = part.iter().rposition(is_text).unwrap_or(first);
    (first, &part[first..=last], part.len() - 1 - last)
}

/// What follows so many characters of a text.
fn skipped(text: &str, count: usize) -> Option<&str> {
    let mut chars = text.chars();
    for _ in 0..count {
        chars.next()?;
    }
    Some(chars.as_str())
}

/// The first text that is greater than all that begin with this one, in the order of bytes.
fn beyond(begin: &str) -> Option<String> {
    let mut chars: Vec<char> = begin.chars().collect();
    while let Some(last) = chars.pop() {
        // There are no characters between U+D7FF and U+E000.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            return Some(chars.into_iter().chain([next]).collect());
        }
    }
    None
}

impl Fixed {
    fn new(part: &[Token]) -> Fixed {
        let mut pieces = Vec::new();
        let mut rest = part;
        while !rest.is_empty() {
            let skip = rest.iter().take_while(|token| **token == Token::One).count();
            let text = rest[skip..].iter().map_while(|token| match token {
                Token::Char(c) => Some(*c),
                Token::One => None,
            });
            let text: String = text.collect();
            rest = &rest[skip + text.chars().count()..];
            pieces.push((skip, text.into()));
        }
        Fixed(pieces)
    }

    /// Where it ends in a text that begins with it.
    fn forward(&self, text: &str) -> Option<usize> {
        let mut rest = text;
        for (skip, piece) in &self.0 {
            rest = skipped(rest, *skip)?.strip_prefix(&**piece)?;
        }
        Some(text.len() - rest.len())
    }

    /// Where it begins in a text that ends with it.
    fn backward(&self, text: &str) -> Option<usize> {
        let mut rest = text;
        for (skip, piece) in self.0.iter().rev() {
            let mut chars = rest.strip_suffix(&**piece)?.chars();
            for _ in 0..*skip {
                chars.next_back()?;
            }
            rest = chars.as_str();
        }
        Some(rest.len())
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, piece)| size_of::<(usize, Box<str>)>() + piece.len()).sum()
    }
}

impl Search {
    fn new(core: &[Token]) -> Result<Search, String> {
        let text: Option<String> = core
            .iter()
            .map(|token| match token {
                Token::Char(c) => Some(*c),
                Token::One => None,
            })
            .collect();
        match text {
            Some(text) => Ok(Search::Text(Box::new(Finder::new(text.as_bytes()).into_owned()))),
            None if core.len() > MAX_WILD => Err(format!(
                "between two % of a LIKE pattern there are at most {MAX_WILD} characters with a _ among them"
            )),
            None => Ok(Search::Wild(ShiftAnd::new(core))),
        }
    }

    /// What follows the first place where it fits.
    fn after<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Search::Text(finder) => {
                let at = finder.find(text.as_bytes())? + finder.needle().len();
                // Both are UTF-8, so one is found in the other only at a border of characters.
                text.get(at..)
            }
            Search::Wild(search) => search.after(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn matches(text: &str, pattern: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    /// The definition, tried out in all ways.
    fn slowly(text: &[char], pattern: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|at| slowly(&text[at..], rest)),
            ['_', rest @ ..] => !text.is_empty() && slowly(&text[1..], rest),
            ['\\', c, rest @ ..] | [c, rest @ ..] => text.first() == Some(c) && slowly(&text[1..], rest),
        }
    }

    #[test]
    fn vectors_of_the_specification() {
        for (text, pattern, expected) in [
            ("open", "op%", true),
            ("open", "OP%", false),
            ("a%b", "a\\%b", true),
            ("a%b", "a\\_b", false),
            ("x\ny", "x%y", true),
            ("x\ny", "x_y", true),
            ("😀", "_", true),
            ("😀", "__", false),
            ("", "%", true),
            ("", "_", false),
            ("", "", true),
            ("abcabd", "%abd", true),
            ("aba", "ab%ba", false),
            ("abc", "%_%_%_%", true),
            ("abc", "%____%", false),
            ("xaxbxcx", "%a_b%c_", true),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text:?} LIKE {pattern:?}");
        }
        assert!(matches(&fold("MÜLLER"), &fold("müller")));
        assert!(!matches(&fold("straße"), &fold("strasse")));
        assert!(Pattern::new("a\\").is_err() && Pattern::new("a\\\\").is_ok());
    }

    #[test]
    fn a_nul_is_a_character_like_others() {
        assert!(!matches("abc", "%\0zzz"));
        assert!(matches("a\0zzz", "%\0zzz") && matches("a\0b", "a_b"));
    }

    #[test]
    fn patterns_that_would_take_too_much_are_refused() {
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN)).is_ok());
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(Pattern::new(&format!("{}%", "%a".repeat(MAX_PARTS))).is_ok());
        assert!(Pattern::new(&format!("{}%", "%a".repeat(MAX_PARTS + 1))).is_err());
        let wild = |length: usize| format!("%a{}b%", "_".repeat(length - 2));
        assert!(Pattern::new(&wild(MAX_WILD)).is_ok() && Pattern::new(&wild(MAX_WILD + 1)).is_err());
        // At the ends of a part they cost nothing.
        assert!(Pattern::new(&format!("%{0}b{0}%", "_".repeat(10_000))).is_ok());
    }

    /// Texts that took the product of both lengths. That takes ten seconds and more for each, and three for the one
    /// with `_`, whose length has a bound; all of them together take a tenth of one. Of this thread alone, whatever
    /// else the machine has to do.
    #[test]
    fn long_texts_and_long_patterns_take_the_sum_of_both() {
        use rustix::time::{ClockId, clock_gettime};
        let spent = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let text = "a".repeat(1 << 20);
        let began = spent();
        let run = |length: usize| "a".repeat(length);
        let wild = format!("a_{}", run(MAX_WILD - 3));
        for pattern in [
            format!("%{}b%", run(40_000)),
            format!("%{}b", run(40_000)),
            format!("%{}b%", "_".repeat(40_000)),
            format!("%{wild}b%"),
            format!("{}%b%", format!("%{wild}").repeat(100)),
            format!("{}b%", "%a".repeat(MAX_PARTS - 1)),
        ] {
            assert!(!matches(&text, &pattern), "{}", &pattern[..20]);
        }
        let took = spent() - began;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }

    #[test]
    fn a_range_holds_all_that_a_pattern_can_match() {
        let range = |pattern: &str| {
            let pattern = Pattern::new(pattern).unwrap();
            pattern.range().map(|(lower, upper)| (lower.to_owned(), upper))
        };
        assert_eq!(range("ab%c"), Some(("ab".into(), Some("ac".into()))));
        assert_eq!(range("a\\%_"), Some(("a%".into(), Some("a&".into()))));
        assert_eq!(range("a\u{10ffff}%"), Some(("a\u{10ffff}".into(), Some("b".into()))));
        assert_eq!(range("\u{10ffff}%"), Some(("\u{10ffff}".into(), None)));
        assert_eq!(range("\u{d7ff}%"), Some(("\u{d7ff}".into(), Some("\u{e000}".into()))));
        assert_eq!((range("%a"), range("_a"), range("")), (None, None, None));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab%_\\\\é😀\0]{0,12}", pattern in "[ab%_é😀\0]{0,10}|[ab%_\\\\é]{0,8}") {
            prop_assume!(Pattern::new(&pattern).is_ok());
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            prop_assert_eq!(matches(&text, &pattern), slowly(&chars(&text), &chars(&pattern)));
        }

        #[test]
        fn what_matches_is_within_the_range(text in "[ab%é\u{d7ff}\u{10ffff}]{0,6}", pattern in "[ab%_é\u{d7ff}\u{10ffff}]{0,5}") {
            let pattern = Pattern::new(&pattern).unwrap();
            if let Some((lower, upper)) = pattern.range().filter(|_| pattern.matches(&text)) {
                prop_assert!(&*text >= lower && upper.is_none_or(|upper| text < upper));
            }
        }
    }
}
