//! The two ways a time is written: RFC 3339 in documents and logs, and without punctuation in file names. Always UTC.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};

/// `2023-11-01T10:30:00Z`
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `2023-11-01T10:30:00.123Z`
#[must_use]
pub fn rfc3339_millis(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `20231101-103000`
#[must_use]
pub fn compact(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y%m%d-%H%M%S").to_string()
}

/// Reads `20231101-103000`.
#[must_use]
pub fn parse_compact(text: &str) -> Option<SystemTime> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%d-%H%M%S").ok()?;
    Some(time.and_utc().into())
}

/// Seconds since 1970 with six decimals, as signals have them.
#[must_use]
pub fn epoch_seconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}

/// Reads a duration as options and variables have it: `30`, `0.5`, `5s`, `2m`, `1h`, `250ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is no duration: write 30, 0.5, 5s or 2m")),
    };
    let plain = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds * unit).ok())
        .ok_or_else(|| format!("{text:?} is no duration: write 30, 0.5, 5s or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_file_names_time_reads_back() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_698_834_600);
        assert_eq!((rfc3339(time), compact(time)), ("2023-11-01T10:30:00Z".into(), "20231101-103000".into()));
        assert_eq!(parse_compact(&compact(time)), Some(time));
    }
}
