//! Times and their ages, as tables and status views show them.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

use crate::error::one_line;
use crate::time::{parse_rfc3339, rfc3339};

/// A time that is shown.
pub(super) struct Moment {
    /// Its text, which may come from a file.
    text: String,
    /// The time, if the text states one.
    time: Option<SystemTime>,
}

impl From<&str> for Moment {
    fn from(text: &str) -> Self {
        Self { text: one_line(text), time: parse_rfc3339(text) }
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self { text: rfc3339(time), time: Some(time) }
    }
}

impl Moment {
    /// Its text, without fractions of a second.
    pub(super) fn to_second(&self) -> String {
        self.time.map_or_else(|| self.text.clone(), rfc3339)
    }

    /// The age in parentheses; nothing if the text states no time.
    pub(super) fn ago(&self, now: SystemTime) -> String {
        match self.seconds_before(now) {
            None => String::new(),
            Some(..0) => " (in the future: a clock is wrong)".to_owned(),
            Some(_) => format!(" ({} ago)", self.age(now)),
        }
    }

    /// The age alone; the text if it has no age.
    pub(super) fn past(&self, now: SystemTime) -> String {
        match self.seconds_before(now) {
            Some(0..) => format!("{} ago", self.age(now)),
            _ => self.text.clone(),
        }
    }

    /// The age without `ago`; the text if it has no age.
    pub(super) fn age(&self, now: SystemTime) -> String {
        match self.seconds_before(now) {
            None | Some(..0) => self.text.clone(),
            Some(seconds @ 0..120) => format!("{seconds} s"),
            Some(seconds @ 120..7200) => format!("{} min", seconds / 60),
            Some(seconds @ 7200..172_800) => format!("{} h", seconds / 3600),
            Some(seconds) => format!("{} days", seconds / 86_400),
        }
    }

    fn seconds_before(&self, now: SystemTime) -> Option<i64> {
        let time = DateTime::<Utc>::from(self.time?);
        Some((DateTime::<Utc>::from(now) - time).num_seconds())
    }
}
