//! Dates and times as Postgres prints them with `DateStyle = ISO`, `TimeZone = UTC`.

use super::Malformed;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Microseconds since 1970 of a timestamp; one without a zone is read as UTC. `None` for
/// an infinity.
pub(super) fn timestamp(text: &str) -> Result<Option<i128>, Malformed> {
    if is_infinite(text) {
        return Ok(None);
    }
    let malformed = || Malformed::new("timestamp", text);
    let (text_, before_christ) = era(text);
    let (day, clock) = text_.split_once(' ').ok_or_else(malformed)?;
    let days = civil_days(day, before_christ).ok_or_else(malformed)?;
    let (local, offset) = clock_and_zone(clock).ok_or_else(malformed)?;
    Ok(Some(days as i128 * MICROS_PER_DAY as i128 + (local - offset) as i128))
}

/// Microseconds since 1970 of midnight UTC of a date.
pub(super) fn date(text: &str) -> Result<Option<i128>, Malformed> {
    if is_infinite(text) {
        return Ok(None);
    }
    let (day, before_christ) = era(text);
    let days = civil_days(day, before_christ).ok_or_else(|| Malformed::new("date", text))?;
    Ok(Some(days as i128 * MICROS_PER_DAY as i128))
}

/// Milliseconds since midnight, cut off below; 24:00:00 is 86,400,000.
pub(super) fn time(text: &str) -> Result<i64, Malformed> {
    Ok(micros(text)? / 1000)
}

/// Microseconds since midnight.
pub(super) fn micros(text: &str) -> Result<i64, Malformed> {
    match clock_and_zone(text) {
        Some((micros, 0)) => Ok(micros),
        _ => Err(Malformed::new("time", text)),
    }
}

/// Whether a time is in UTC, and has no microseconds.
pub(super) fn is_whole_utc(text: &str) -> bool {
    matches!(clock_and_zone(text), Some((micros, 0)) if micros % 1000 == 0)
}

/// Milliseconds since midnight UTC in [0, 24 h), except that 24:00:00 UTC itself stays
/// 86,400,000 as it does without a zone.
pub(super) fn time_tz(text: &str) -> Result<i64, Malformed> {
    let (local, offset) = clock_and_zone(text).ok_or_else(|| Malformed::new("time with zone", text))?;
    let utc = if local == MICROS_PER_DAY && offset == 0 {
        local
    } else {
        (local - offset).rem_euclid(MICROS_PER_DAY)
    };
    Ok(utc / 1000)
}

fn is_infinite(text: &str) -> bool {
    matches!(text, "infinity" | "-infinity")
}

fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`; years have four digits or more.
fn civil_days(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() < 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (digits(year)?, digits(month)?, digits(day)?);
    // There is no year 0: 1 BC comes before 1 AD.
    let year = if before_christ { 1 - year } else { year };
    Some(days_from_civil(year, month, day))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, which Postgres uses.
/// Counts in eras of 400 years that begin on 1 March, so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Microseconds since local midnight, and the zone's offset in microseconds, of
/// `HH:MM:SS[.ffffff][±HH[:MM[:SS]]]`.
fn clock_and_zone(text: &str) -> Option<(i64, i64)> {
    let (clock, zone) = match text.find(['+', '-']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut micros = seconds(whole, 3)? * MICROS_PER_SECOND;
    if !fraction.is_empty() {
        if fraction.len() > 6 {
            return None;
        }
        micros += digits(fraction)? * 10i64.pow(6 - fraction.len() as u32);
    }
    let offset = match zone.as_bytes().first() {
        None => 0,
        Some(b'-') => -seconds(&zone[1..], 1)? * MICROS_PER_SECOND,
        Some(_) => seconds(&zone[1..], 1)? * MICROS_PER_SECOND,
    };
    Some((micros, offset))
}

/// Seconds of `HH[:MM[:SS]]` with at least `least` parts.
fn seconds(text: &str, least: usize) -> Option<i64> {
    let mut total = 0;
    let mut count = 0;
    for (part, unit) in text.split(':').zip([3600, 60, 1]) {
        if part.len() != 2 {
            return None;
        }
        total += digits(part)? * unit;
        count += 1;
    }
    (count >= least && text.len() == count * 3 - 1).then_some(total)
}

fn digits(text: &str) -> Option<i64> {
    // Postgres prints at most six digits of a year; nine cannot overflow.
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_every_shape() {
        for (text, micros) in [
            ("1970-01-01 00:00:00", 0),
            ("1970-01-01 00:00:00+00", 0),
            ("2024-02-29 12:34:56.789012+00", 1_709_210_096_789_012),
            ("2024-02-29 12:34:56.7", 1_709_210_096_700_000),
            ("1969-12-31 23:59:59.999999+00", -1),
            ("2000-01-01 05:30:00+05:30", 946_684_800_000_000),
            ("0001-01-01 00:00:00+00 BC", -62_167_219_200_000_000),
            ("4714-11-24 00:00:00+00 BC", -210_866_803_200_000_000),
            ("294276-12-31 23:59:59.999999+00", 9_224_318_015_999_999_999),
        ] {
            assert_eq!(timestamp(text).unwrap(), Some(micros), "{text}");
        }
        assert_eq!(timestamp("-infinity").unwrap(), None);
        for bad in ["", "2024-01-01", "2024-1-1 00:00:00", "01/02/2024 00:00:00", "2024-01-01T00:00:00"] {
            assert!(timestamp(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_cut_to_milliseconds_and_brought_to_utc() {
        assert_eq!(time("24:00:00").unwrap(), 86_400_000);
        assert_eq!(time("01:02:03.0049").unwrap(), 3_723_004);
        assert_eq!(time_tz("24:00:00+00").unwrap(), 86_400_000);
        assert_eq!(time_tz("24:00:00-01").unwrap(), 3_600_000);
        assert_eq!(time_tz("23:00:00-01").unwrap(), 0);
        assert_eq!(time_tz("00:30:00+01").unwrap(), 84_600_000);
        assert_eq!(time_tz("00:00:00-15:59:59").unwrap(), 57_599_000);
        assert!(time("1:2:3").is_err());
    }
}
