//! What is wrong with JSON that somebody has sent.

/// Says it without quoting what was sent: it may have been a token, and errors are logged.
pub fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &text[..=first], &text[last..]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_quoted() {
        let sent = r#""to\"ken""#;
        let error = serde_json::from_str::<u8>(sent).unwrap_err();
        assert_eq!(problem(&error), "invalid type: string \"…\", expected u8 at line 1 column 9");
        let error = serde_json::from_str::<u8>("{").unwrap_err();
        assert_eq!(problem(&error), error.to_string());
    }
}
