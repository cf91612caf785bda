//! LIKE and ILIKE with SQLite's meaning: whole string, code points, `\` escapes
//! (`docs/spec/zql.md` §4.4, ruling 4).

/// Whether a pattern can be used: one that ends in a lone backslash cannot.
pub fn is_valid(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next().is_none() {
            return false;
        }
    }
    true
}

/// Folds case as ILIKE does, on both sides: full Unicode lower-casing.
pub fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// Whether `text` matches `pattern`, case-sensitively.
pub fn matches(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern = tokens(pattern);
    // Greedy with one remembered `%`: linear in practice, quadratic at worst.
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                retry = Some((t, p));
                p += 1;
            }
            Some(token) if token.accepts(text[t]) => {
                t += 1;
                p += 1;
            }
            _ => match &mut retry {
                Some((start, any)) => {
                    *start += 1;
                    t = *start;
                    p = *any + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|token| matches!(token, Token::Any))
}

enum Token {
    Any,
    One,
    Char(char),
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Token::Any => false,
            Token::One => true,
            Token::Char(expected) => *expected == c,
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut out = Vec::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '%' => Token::Any,
            '_' => Token::One,
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            c => Token::Char(c),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            ("", "%", true),
            ("", "_", false),
            ("abcabd", "%abd", true),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text:?} LIKE {pattern:?}");
        }
        assert!(matches(&fold("MÜLLER"), &fold("müller")));
        assert!(!matches(&fold("straße"), &fold("strasse")));
        assert!(!is_valid("a\\") && is_valid("a\\\\"));
    }

    proptest! {
        #[test]
        fn agrees_with_sqlite(text in "[ab%_\\\\é😀]{0,8}", pattern in "[ab%_\\\\é😀]{0,8}") {
            prop_assume!(is_valid(&pattern));
            let db = rusqlite::Connection::open_in_memory().unwrap();
            db.pragma_update(None, "case_sensitive_like", true).unwrap();
            let sqlite: bool =
                db.query_row("SELECT ? LIKE ? ESCAPE '\\'", (&text, &pattern), |r| r.get(0)).unwrap();
            prop_assert_eq!(matches(&text, &pattern), sqlite);
        }
    }
}
