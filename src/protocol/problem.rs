//! What is wrong with what somebody has sent.

/// Most bytes of a message that says so. It may name what was sent: tables, columns, a cookie, an address. Whoever sends
/// a megabyte for one must not get it back, and into the log.
pub const MAX_MESSAGE: usize = 4 << 10;

/// A message of at most [`MAX_MESSAGE`] bytes: a longer one ends with a mark.
pub fn bounded(mut message: String) -> String {
    const MARK: &str = "…";
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE - MARK.len();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str(MARK);
    }
    message
}

/// Says it without quoting what was sent: it may have been a token, and errors are logged.
pub fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &text[..=first], &text[last..]),
        _ => text,
    }
}

/// Why a message cannot be taken.
pub type Invalid = String;

pub fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let short = "é".repeat(MAX_MESSAGE / 2);
        assert_eq!(bounded(short.clone()), short);
        for more in ["x", "é", "xé", "…"] {
            let cut = bounded(format!("{more}{short}"));
            assert!(cut.len() <= MAX_MESSAGE && cut.starts_with(more) && cut.ends_with("é…"), "{more}");
        }
    }

    #[test]
    fn what_was_sent_is_not_quoted() {
        let sent = r#""to\"ken""#;
        let error = serde_json::from_str::<u8>(sent).unwrap_err();
        assert_eq!(problem(&error), "invalid type: string \"…\", expected u8 at line 1 column 9");
        let error = serde_json::from_str::<u8>("{").unwrap_err();
        assert_eq!(problem(&error), error.to_string());
    }
}
