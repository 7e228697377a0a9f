//! Dates with the semantics that jq has from the C library, in the plain locale.

use std::fmt::Write as _;

use chrono::{
    DateTime, Datelike, Days, Local, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone,
    Timelike, Utc,
};
use jaq_core::ValR;
use jaq_json::Val;

use super::jq::{Error, Jq, error};
use super::{number, text};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A broken-down time in C's form: months from 0, days from 1.
#[derive(Clone, Copy, Default)]
struct Broken {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    fraction: f64,
    /// Days from Sunday, and from the first of January; where they are known.
    weekday: Option<i64>,
    yearday: Option<i64>,
}

fn out_of_range() -> Error {
    error("the date is out of range")
}

impl Broken {
    fn of(time: NaiveDateTime, fraction: f64) -> Self {
        Self {
            year: time.year().into(),
            month: time.month0().into(),
            day: time.day().into(),
            hour: time.hour().into(),
            minute: time.minute().into(),
            second: time.second().into(),
            fraction,
            weekday: Some(time.weekday().num_days_from_sunday().into()),
            yearday: Some(time.ordinal0().into()),
        }
    }

    /// Reads an array of numbers; missing parts are 0.
    fn read(value: &Jq, what: &str) -> Result<Self, Error> {
        let Val::Arr(parts) = &value.0 else {
            return Err(error(format_args!("{what} requires array of 6 numbers")));
        };
        let numbers = parts.iter().map(|part| match part {
            Val::Num(number) => Some(number::to_float(number)),
            _ => None,
        });
        let Some(numbers) = numbers.collect::<Option<Vec<f64>>>() else {
            return Err(error(format_args!("{what} requires parsed datetime inputs")));
        };
        let at = |at: usize| numbers.get(at).copied().unwrap_or_default();
        #[allow(clippy::cast_possible_truncation)] // saturates, and is then out of range
        let whole = |n: usize| at(n) as i64;
        Ok(Self {
            year: whole(0),
            month: whole(1),
            day: whole(2),
            hour: whole(3),
            minute: whole(4),
            second: whole(5),
            fraction: at(5).fract(),
            weekday: None,
            yearday: None,
        })
    }

    /// The same moment with every part in its range.
    fn settled(self) -> Result<NaiveDateTime, Error> {
        let year = self.year.checked_add(self.month.div_euclid(12)).ok_or_else(out_of_range)?;
        let month = u32::try_from(self.month.rem_euclid(12) + 1).map_err(|_| out_of_range())?;
        let first =
            i32::try_from(year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, month, 1));
        let first =
            first.ok_or_else(out_of_range)?.and_hms_opt(0, 0, 0).ok_or_else(out_of_range)?;
        let seconds = self.hour.checked_mul(3600).zip(self.minute.checked_mul(60));
        let seconds = seconds
            .and_then(|(hours, minutes)| hours.checked_add(minutes)?.checked_add(self.second));
        let days =
            self.day.checked_sub(1).and_then(TimeDelta::try_days).ok_or_else(out_of_range)?;
        let seconds = seconds.and_then(TimeDelta::try_seconds).ok_or_else(out_of_range)?;
        first
            .checked_add_signed(days)
            .and_then(|time| time.checked_add_signed(seconds))
            .ok_or_else(out_of_range)
    }

    fn value(self) -> Jq {
        #[allow(clippy::cast_precision_loss)] // at most 60
        let second = Jq::float(self.second as f64 + self.fraction);
        let whole = [self.year, self.month, self.day, self.hour, self.minute];
        let days = [self.weekday.unwrap_or(8), self.yearday.unwrap_or(367)];
        let int = |n: i64| Jq::from(isize::try_from(n).unwrap_or_default());
        whole.into_iter().map(int).chain([second]).chain(days.into_iter().map(int)).collect()
    }
}

/// A number of seconds since 1970 as whole seconds and the fraction.
fn epoch(value: &Jq, what: &str) -> Result<(i64, f64), Error> {
    let Some(seconds) = value.number() else {
        return Err(error(format_args!("{what}() requires a number")));
    };
    if !seconds.is_finite() {
        return Err(error(format_args!(
            "error converting number of seconds since epoch to datetime"
        )));
    }
    #[allow(clippy::cast_possible_truncation)] // saturates, and is then out of range
    Ok((seconds.floor() as i64, seconds - seconds.floor()))
}

fn at(seconds: i64) -> Result<DateTime<Utc>, Error> {
    let problem = || error("error converting number of seconds since epoch to datetime");
    DateTime::from_timestamp(seconds, 0).ok_or_else(problem)
}

pub(super) fn gmtime(value: Jq) -> ValR<Jq> {
    let (seconds, fraction) = epoch(&value, "gmtime")?;
    Ok(Broken::of(at(seconds)?.naive_utc(), fraction).value())
}

pub(super) fn localtime(value: Jq) -> ValR<Jq> {
    let (seconds, fraction) = epoch(&value, "localtime")?;
    Ok(Broken::of(at(seconds)?.with_timezone(&Local).naive_local(), fraction).value())
}

pub(super) fn mktime(value: Jq) -> ValR<Jq> {
    if !matches!(value.0, Val::Arr(_)) {
        return Err(error("mktime requires array of 6 numbers"));
    }
    let seconds = Broken::read(&value, "mktime")?.settled()?.and_utc().timestamp();
    Ok(Jq::from(isize::try_from(seconds).unwrap_or_default()))
}

pub(super) fn strftime(value: Jq, format: Jq) -> ValR<Jq> {
    let time = match &value.0 {
        Val::Num(_) => at(epoch(&value, "strftime")?.0)?,
        Val::Arr(_) => Broken::read(&value, "strftime/1")?.settled()?.and_utc(),
        _ => return Err(error("strftime/1 requires parsed datetime inputs")),
    };
    let Some(format) = format.string() else {
        return Err(error("strftime/1 requires a string format"));
    };
    written(&time, "UTC", &format)
}

pub(super) fn strflocaltime(value: Jq, format: Jq) -> ValR<Jq> {
    let time = match &value.0 {
        Val::Num(_) => at(epoch(&value, "strflocaltime")?.0)?.with_timezone(&Local),
        Val::Arr(_) => {
            let local = Broken::read(&value, "strflocaltime/1")?.settled()?;
            Local.from_local_datetime(&local).earliest().ok_or_else(out_of_range)?
        }
        _ => return Err(error("strflocaltime/1 requires parsed datetime inputs")),
    };
    let Some(format) = format.string() else {
        return Err(error("strflocaltime/1 requires a string format"));
    };
    let zone = iana_zone(&time);
    written(&time, &zone, &format)
}

/// The name of a time zone, as far as the system reports it: `UTC`, or its offset.
fn iana_zone(time: &DateTime<Local>) -> String {
    if time.offset().fix().local_minus_utc() == 0 {
        "UTC".to_owned()
    } else {
        time.format("%z").to_string()
    }
}

fn written<Z: TimeZone>(time: &DateTime<Z>, zone: &str, format: &str) -> ValR<Jq>
where
    Z::Offset: std::fmt::Display,
{
    // The zone's name is inserted here, since the library knows no names.
    let mut named = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('%', Some('Z')) => {
                chars.next();
                named.push_str(&zone.replace('%', "%%"));
            }
            // The library puts a sign before a year of five digits, and C does not.
            ('%', Some('Y')) => {
                chars.next();
                let _ = write!(named, "{}", time.year());
            }
            ('%', Some('F')) => {
                chars.next();
                let _ = write!(named, "{}-%m-%d", time.year());
            }
            ('%', Some('C')) => {
                chars.next();
                let _ = write!(named, "{:02}", time.year().div_euclid(100));
            }
            ('%', Some('c')) => {
                chars.next();
                let _ = write!(named, "%a %b %e %H:%M:%S {}", time.year());
            }
            ('%', Some('G')) => {
                chars.next();
                let _ = write!(named, "{}", time.iso_week().year());
            }
            ('%', Some(other)) => {
                chars.next();
                named.extend(['%', other]);
            }
            _ => named.push(c),
        }
    }
    let mut text = String::new();
    match write!(text, "{}", time.format(&named)) {
        Ok(()) => Ok(Jq::text(text)),
        Err(_) => {
            Err(error(format_args!("strftime/1: unknown system failure in the format {format:?}")))
        }
    }
}

pub(super) fn strptime(value: Jq, format: Jq) -> ValR<Jq> {
    let (Some(input), Some(format)) = (value.string(), format.string()) else {
        return Err(error("strptime/1 requires string inputs and arguments"));
    };
    let mut reader = Reader {
        rest: &input,
        time: Broken { year: 1900, ..Broken::default() },
        ..Reader::default()
    };
    let read = reader.read(&format).filter(|()| reader.rest.is_empty());
    if read.is_none() {
        let (input, format) = (text::json(&value.0), text::json(&Jq::text(&*format).0));
        return Err(error(format_args!("date {input} does not match format {format}")));
    }
    reader.done().map(Broken::value)
}

/// Parses a date by a format.
#[derive(Default)]
struct Reader<'t> {
    rest: &'t str,
    time: Broken,
    /// Hours of a half day, and whether it is the second one.
    half: Option<i64>,
    is_pm: bool,
    century: Option<i64>,
    year_of_century: Option<i64>,
    epoch: Option<i64>,
}

impl Reader<'_> {
    fn read(&mut self, format: &str) -> Option<()> {
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c.is_whitespace() {
                self.rest = self.rest.trim_start();
            } else if c != '%' {
                self.rest = self.rest.strip_prefix(c)?;
            } else {
                let mut directive = chars.next()?;
                while matches!(directive, 'E' | 'O' | '-' | '_' | '0' | '^' | '#') {
                    directive = chars.next()?;
                }
                self.directive(directive)?;
            }
        }
        Some(())
    }

    fn directive(&mut self, directive: char) -> Option<()> {
        match directive {
            'Y' => {
                let sign = if self.rest.starts_with('-') { -1 } else { 1 };
                self.rest = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
                self.time.year = sign * self.number(0, 9999, 4)?;
                (self.century, self.year_of_century) = (None, None);
            }
            'C' => self.century = Some(self.number(0, 99, 2)?),
            'y' => self.year_of_century = Some(self.number(0, 99, 2)?),
            'm' => self.time.month = self.number(1, 12, 2)? - 1,
            'd' | 'e' => self.time.day = self.number(1, 31, 2)?,
            'H' | 'k' => {
                self.time.hour = self.number(0, 23, 2)?;
                self.half = None;
            }
            'I' | 'l' => self.half = Some(self.number(1, 12, 2)? % 12),
            'M' => self.time.minute = self.number(0, 59, 2)?,
            'S' => self.time.second = self.number(0, 61, 2)?,
            'p' | 'P' => self.is_pm = self.name(&["AM", "PM"])? == 1,
            'j' => self.time.yearday = Some(self.number(1, 366, 3)? - 1),
            'b' | 'B' | 'h' => self.time.month = self.name(&MONTHS)?,
            'a' | 'A' => self.time.weekday = Some(self.name(&DAYS)?),
            'u' => self.time.weekday = Some(self.number(1, 7, 1)? % 7),
            'w' => self.time.weekday = Some(self.number(0, 6, 1)?),
            'U' | 'W' | 'V' => drop(self.number(0, 53, 2)?),
            'G' => drop(self.number(0, 9999, 4)?),
            'g' => drop(self.number(0, 99, 2)?),
            's' => self.epoch = Some(self.number(0, i64::MAX, 18)?),
            'z' => self.zone()?,
            'Z' => {
                self.rest = self.rest.trim_start();
                self.rest = self.rest.trim_start_matches(|c: char| !c.is_whitespace());
            }
            'n' | 't' => self.rest = self.rest.trim_start(),
            '%' => self.rest = self.rest.strip_prefix('%')?,
            'D' | 'x' => self.read("%m/%d/%y")?,
            'F' => self.read("%Y-%m-%d")?,
            'T' | 'X' => self.read("%H:%M:%S")?,
            'R' => self.read("%H:%M")?,
            'r' => self.read("%I:%M:%S %p")?,
            'c' => self.read("%a %b %e %H:%M:%S %Y")?,
            _ => return None,
        }
        Some(())
    }

    /// A number of at most this many digits; white space may precede it.
    fn number(&mut self, least: i64, most: i64, digits: usize) -> Option<i64> {
        self.rest = self.rest.trim_start_matches(' ');
        let length = self.rest.bytes().take(digits).take_while(u8::is_ascii_digit).count();
        // Stops before a digit that makes it too large, like the C library.
        let mut end = length;
        let number = loop {
            let number: i64 = self.rest.get(..end)?.parse().ok()?;
            if number <= most {
                break number;
            }
            end -= 1;
        };
        self.rest = &self.rest[end..];
        (number >= least).then_some(number)
    }

    /// One of these names, whole or its first three letters, in any case.
    fn name(&mut self, names: &[&str]) -> Option<i64> {
        let starts = |name: &str| {
            self.rest.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name))
        };
        let (at, length) = names.iter().enumerate().find_map(|(at, name)| {
            let short = name.get(..3).unwrap_or(name);
            [*name, short].into_iter().find(|name| starts(name)).map(|name| (at, name.len()))
        })?;
        self.rest = &self.rest[length..];
        i64::try_from(at).ok()
    }

    /// `Z`, or hours and minutes; jq ignores the value.
    fn zone(&mut self) -> Option<()> {
        self.rest = self.rest.trim_start();
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Some(());
        }
        self.rest = self.rest.strip_prefix(['+', '-'])?;
        let digits = |text: &str, n: usize| {
            text.get(..n).is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit()))
        };
        if !digits(self.rest, 2) {
            return None;
        }
        self.rest = &self.rest[2..];
        let minutes = self.rest.strip_prefix(':').unwrap_or(self.rest);
        if digits(minutes, 2) {
            self.rest = &minutes[2..];
        }
        Some(())
    }

    fn done(self) -> Result<Broken, Error> {
        let mut time = self.time;
        if let Some(seconds) = self.epoch {
            return Ok(Broken::of(at(seconds)?.with_timezone(&Local).naive_local(), 0.0));
        }
        if let Some(hour) = self.half {
            time.hour = hour + if self.is_pm { 12 } else { 0 };
        }
        match (self.century, self.year_of_century) {
            (Some(century), year) => time.year = century * 100 + year.unwrap_or_default(),
            (None, Some(year)) => time.year = if year < 69 { 2000 + year } else { 1900 + year },
            (None, None) => {}
        }
        if let (Some(day), 0) = (time.yearday, time.day) {
            // The day of the year alone determines the date.
            let first =
                i32::try_from(time.year).ok().and_then(|year| NaiveDate::from_ymd_opt(year, 1, 1));
            let date =
                first.and_then(|first| first.checked_add_days(Days::new(u64::try_from(day).ok()?)));
            let date = date.ok_or_else(out_of_range)?;
            (time.month, time.day) = (date.month0().into(), date.day().into());
        }
        if (1..=31).contains(&time.day) {
            let settled = Broken::of(time.settled()?, 0.0);
            (time.weekday, time.yearday) = (settled.weekday, settled.yearday);
        }
        Ok(time)
    }
}
