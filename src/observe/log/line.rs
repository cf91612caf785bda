//! One log line, as text or as JSON.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::field::{Value, cut, write_json_text, write_line_text};
use super::{Format, Level};

/// The format, and the fields that are on every line.
pub(super) struct Context {
    format: Format,
    /// As they appear in a line, each with its separator before it.
    common: String,
}

impl Context {
    /// `fields` come after the process id.
    pub(super) fn new(format: Format, fields: &[(&str, Value<'_>)]) -> Context {
        let mut context = Context { format, common: String::new() };
        let mut common = String::new();
        context.field(&mut common, "pid", &Value::from(std::process::id()));
        for (name, value) in fields {
            context.field(&mut common, name, value);
        }
        context.common = common;
        context
    }

    /// The whole line, with its end.
    pub(super) fn line(
        &self,
        now: SystemTime,
        level: Level,
        worker: Option<(&'static str, usize)>,
        message: fmt::Arguments<'_>,
        fields: &[(&str, Value<'_>)],
    ) -> String {
        let mut line = String::with_capacity(256);
        match self.format {
            // Writing to a String does not fail.
            Format::Json => drop(write!(line, "{{\"level\":\"{}\"", level.name())),
            Format::Text => {
                write_time(now, &mut line);
                let _ = write!(line, " {:5}", level.name());
            }
        }
        line += &self.common;
        if let Some((worker, index)) = worker {
            self.field(&mut line, "worker", &Value::from(worker));
            self.field(&mut line, "workerIndex", &Value::from(index));
        }
        for (name, value) in fields {
            self.field(&mut line, name, value);
        }
        // Most messages are literals, which need no copy.
        match message.as_str() {
            Some(text) => self.message(&mut line, text),
            None => self.message(&mut line, &message.to_string()),
        }
        line.push('\n');
        line
    }

    fn field(&self, line: &mut String, name: &str, value: &Value<'_>) {
        match self.format {
            Format::Json => {
                line.push(',');
                write_json_text(name, line);
                line.push(':');
                value.write_json(line);
            }
            Format::Text => {
                line.push(' ');
                *line += name;
                line.push('=');
                value.write_text(line);
            }
        }
    }

    fn message(&self, line: &mut String, text: &str) {
        match self.format {
            Format::Json => {
                *line += ",\"message\":";
                write_json_text(text, line);
                line.push('}');
            }
            Format::Text => {
                line.push(' ');
                write_line_text(cut(text), line);
            }
        }
    }
}

/// `2026-08-01T12:34:56.789Z`
fn write_time(now: SystemTime, out: &mut String) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    // Writing to a String does not fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is the last of its year, in eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(format: Format, message: &str, fields: &[(&str, Value<'_>)]) -> String {
        let now = UNIX_EPOCH + Duration::from_millis(1_709_210_096_789);
        Context::new(format, &[("taskID", "t".into())]).line(
            now,
            Level::Warn,
            Some(("syncer", 3)),
            format_args!("{message}"),
            fields,
        )
    }

    #[test]
    fn json_is_one_object_with_level_context_fields_and_message() {
        let json = serde_json::json!({"a": 1});
        let fields = [
            ("component", Value::from("a \"b\"\n\u{1}")),
            ("watermark", 7u64.into()),
            ("lag", 1.5.into()),
            ("nan", f64::NAN.into()),
            ("none", None::<u64>.into()),
            ("state", (&json).into()),
        ];
        let line = line(Format::Json, "say \"x\"\n", &fields);
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "level": "WARN", "pid": std::process::id(), "taskID": "t", "worker": "syncer", "workerIndex": 3,
            "component": "a \"b\"\n\u{1}", "watermark": 7, "lag": 1.5, "nan": null, "none": null,
            "state": {"a": 1}, "message": "say \"x\"\n",
        });
        assert_eq!(read, expected);
        let keys: Vec<&String> = read.as_object().unwrap().keys().collect();
        assert_eq!((keys[0].as_str(), keys[keys.len() - 1].as_str()), ("level", "message"));
    }

    #[test]
    fn text_is_one_line_whatever_the_message() {
        let line = line(Format::Text, "bad\nline", &[("q", "two words".into()), ("n", (-1i64).into())]);
        let pid = std::process::id();
        assert_eq!(
            line,
            format!(
                "2024-02-29T12:34:56.789Z WARN  pid={pid} taskID=t worker=syncer workerIndex=3 \
                 q=\"two words\" n=-1 bad\\nline\n"
            )
        );
    }

    #[test]
    fn a_huge_text_is_cut_and_the_line_stays_json() {
        let line = line(Format::Json, &"é".repeat(1_000_000), &[]);
        assert!(line.len() < 20_000);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (10_957, (2000, 1, 1)),
            (11_016, (2000, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
