//! The two written forms of a time: RFC 3339 in documents and logs, and without punctuation in file
//! names. Always UTC.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::{Serialize as _, Serializer};

/// The longest duration of options and variables: 100 years. A longer one is reduced to it, and
/// adding it to any time of a clock does not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The last second with a year of four digits, the most that the written forms have.
const LAST_SECOND: i64 = 253_402_300_799;
/// The first.
const FIRST_SECOND: i64 = -62_167_219_200;

/// The calendar date of a time; a time outside the years 0 to 9999 becomes the nearest one inside.
/// File systems keep times outside any calendar.
fn date(time: SystemTime) -> DateTime<Utc> {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds)
        }
    };
    DateTime::from_timestamp(seconds.clamp(FIRST_SECOND, LAST_SECOND), 0).unwrap_or_default()
}

/// `2023-11-01T10:30:00Z`
pub fn rfc3339(time: SystemTime) -> String {
    date(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2023-11-01T10:30:00.123Z`
pub fn rfc3339_millis(time: SystemTime) -> String {
    let seconds = date(time);
    let exact = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => seconds + Duration::from_millis(since.subsec_millis().into()),
        Err(_) => seconds,
    };
    exact.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A time of RFC 3339 with milliseconds; text that states no time as it is.
pub fn with_millis(text: &str) -> String {
    parse_rfc3339(text).map_or_else(|| text.to_owned(), rfc3339_millis)
}

/// `20231101-103000`
pub fn compact(time: SystemTime) -> String {
    date(time).format("%Y%m%d-%H%M%S").to_string()
}

/// Reads a time of RFC 3339.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from)
}

/// Serializes a time as RFC 3339 with milliseconds.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339_millis(*time))
}

/// Serializes a time as RFC 3339 with milliseconds, or as null.
pub fn serialize_some<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(rfc3339_millis).serialize(serializer)
}

/// Serializes a text that should state a time, with milliseconds.
pub fn serialize_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&with_millis(text))
}

/// Serializes such a text, or null.
#[allow(clippy::ref_option)] // as serde calls it
pub fn serialize_some_text<S: Serializer>(
    text: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    text.as_deref().map(with_millis).serialize(serializer)
}

/// Reads `20231101-103000`.
pub fn parse_compact(text: &str) -> Option<SystemTime> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%d-%H%M%S").ok()?;
    Some(time.and_utc().into())
}

/// The time of these seconds since 1970; `None` if a clock cannot have it.
pub fn from_epoch_seconds(seconds: f64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// Seconds since 1970 with six decimals, the form of signals.
pub fn epoch_seconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}

/// The beginning of a period that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// This long ago.
    Ago(Duration),
    /// This time.
    At(SystemTime),
}

impl Since {
    /// The time, seen from `now`.
    pub fn before(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Ago(age) => now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            Self::At(time) => time,
        }
    }
}

/// Parses the beginning of a period: a duration before now, or a time of RFC 3339.
pub fn parse_since(text: &str) -> Result<Since, String> {
    if let Some(time) = parse_rfc3339(text) {
        return Ok(Since::At(time));
    }
    parse_duration(text)
        .map(Since::Ago)
        .map_err(|_| format!("{text:?} is not a time: write 2h, 30m, 3d or 2026-01-31T12:00:00Z"))
}

/// Parses a duration of options and variables: `30`, `0.5`, `5s`, `2m`, `1h`, `3d`, `250ms`. More
/// than 100 years are read as 100 years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("{text:?} is not a duration: write 30, 0.5, 5s or 2m")),
    };
    let plain = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds * unit).ok())
        .map(|duration| duration.min(LONGEST))
        .ok_or_else(|| format!("{text:?} is not a duration: write 30, 0.5, 5s or 2m"))
}

/// A duration as [`parse_duration`] reads it: `30s`, `2m`, `0.25s`.
pub fn written_duration(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_nanos()) {
        (seconds, 0) if seconds > 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_begins_at_a_time_or_some_time_ago() {
        assert_eq!(parse_since("3d"), Ok(Since::Ago(Duration::from_secs(3 * 86_400))));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_698_834_600);
        assert_eq!(parse_since("2023-11-01T11:30:00+01:00"), Ok(Since::At(time)));
        assert!(parse_since("yesterday").is_err() && parse_since("").is_err());
    }

    #[test]
    fn durations_have_the_units_of_the_contract() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(
            ["30", "0.5", "5s", "2m", "1h", "250ms", "0"].map(millis),
            [Ok(30_000), Ok(500), Ok(5000), Ok(120_000), Ok(3_600_000), Ok(250), Ok(0)]
        );
        for bad in ["", "s", "-1", "5x", "nan", "inf", "1e999", "1 s", "five"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_written_duration_is_read_back() {
        for text in ["0s", "30s", "2m", "90s", "0.25s", "61m"] {
            assert_eq!(parse_duration(text).map(written_duration).as_deref(), Ok(text));
        }
    }

    #[test]
    fn no_duration_or_time_overflows() {
        for huge in ["99999999999999999", "1e18", "99999999999999999h", "18446744073709551615"] {
            let Ok(duration) = parse_duration(huge) else { continue };
            assert!(std::time::Instant::now().checked_add(duration).is_some(), "{huge}");
            assert!(rfc3339(SystemTime::now() + duration).starts_with("21"), "{huge}");
        }
        assert_eq!(parse_duration("99999999999999999"), Ok(LONGEST));
        let (end, start) = (Duration::from_secs(i64::MAX as u64), Duration::from_secs(1 << 62));
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + end), "9999-12-31T23:59:59Z");
        assert_eq!(compact(SystemTime::UNIX_EPOCH + end), "99991231-235959");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - start), "0000-01-01T00:00:00Z");
        assert_eq!(
            rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
            "1969-12-31T23:59:59Z"
        );
        assert_eq!(rfc3339_millis(SystemTime::UNIX_EPOCH + end), "9999-12-31T23:59:59.000Z");
        assert_eq!(rfc3339_millis(SystemTime::UNIX_EPOCH - start), "0000-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_written_time_gets_milliseconds() {
        assert_eq!(with_millis("2023-11-01T11:30:00+01:00"), "2023-11-01T10:30:00.000Z");
        assert_eq!(with_millis("2023-11-01T10:30:00.1239Z"), "2023-11-01T10:30:00.123Z");
        assert_eq!(with_millis("yesterday"), "yesterday");
    }

    #[test]
    fn a_file_names_time_reads_back() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_698_834_600);
        assert_eq!(
            (rfc3339(time), compact(time)),
            ("2023-11-01T10:30:00Z".into(), "20231101-103000".into())
        );
        assert_eq!(parse_compact(&compact(time)), Some(time));
    }
}
