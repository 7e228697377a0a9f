//! The table of settings: the one place that knows the name of each in a file, its option, its
//! variable, its default, and whether a root's file may set it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::store_url::StoreUrl;
use super::style::{Color, Format, parse_color, parse_format};
use crate::store::{AutoRecover, ForeignEdits};
use crate::time::{parse_duration, written_duration};

/// The variable of the store.
pub(super) const STORE_VARIABLE: &str = "PIPELINE_STORE";

/// The longest lock timeout that a root's file may set.
const LONGEST_OF_ROOT: Duration = Duration::from_secs(600);

type Parse<T> = fn(&str) -> Result<T, String>;

/// The type of a setting's value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// A whole number.
    Count,
    /// A number of seconds, or a string with a unit.
    Duration,
    /// `true` or `false`.
    Switch,
}

impl Shape {
    /// The shape, to follow "it is not".
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Count => "a whole number",
            Self::Duration => "a number of seconds, or a string such as \"2m\"",
            Self::Switch => "true or false",
        }
    }
}

/// The file that a setting is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `ROOT/.pipeline-state.toml`, which a clone brings along.
    Root,
    /// The user's own file.
    User,
}

impl Scope {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }
}

/// A setting with values of type `T`.
#[derive(Debug)]
pub struct Setting<T> {
    /// Its name in files.
    pub name: &'static str,
    /// Its option, without dashes.
    pub option: Option<&'static str>,
    /// Its variable.
    pub variable: Option<&'static str>,
    /// The type of its value in a file.
    pub shape: Shape,
    /// Reads a value.
    pub parse: Parse<T>,
    /// Reads the value of a root's file; `None` if such a file cannot set it.
    pub parse_of_root: Option<Parse<T>>,
    /// The value where nothing sets it.
    pub default: fn() -> T,
}

impl<T> Setting<T> {
    /// Reads a value of a file.
    pub fn parse_in(&self, scope: Scope, text: &str) -> Result<T, String> {
        match (scope, self.parse_of_root) {
            (Scope::User, _) => (self.parse)(text),
            (Scope::Root, Some(parse)) => parse(text),
            (Scope::Root, None) => Err("it cannot be set here".to_owned()),
        }
    }
}

/// A setting of any type.
pub trait AnySetting: Sync {
    /// Its name in files.
    fn name(&self) -> &'static str;
    /// Its option, without dashes.
    fn option(&self) -> Option<&'static str>;
    /// Its variable.
    fn variable(&self) -> Option<&'static str>;
    /// The type of its value in a file.
    fn shape(&self) -> Shape;
    /// Returns whether a root's file can set it.
    fn is_for_roots(&self) -> bool;
    /// Checks a value of a file.
    fn check(&self, scope: Scope, text: &str) -> Result<(), String>;
}

impl<T> AnySetting for Setting<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn option(&self) -> Option<&'static str> {
        self.option
    }

    fn variable(&self) -> Option<&'static str> {
        self.variable
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn is_for_roots(&self) -> bool {
        self.parse_of_root.is_some()
    }

    fn check(&self, scope: Scope, text: &str) -> Result<(), String> {
        self.parse_in(scope, text).map(|_| ())
    }
}

/// `lock-timeout`
pub static LOCK_TIMEOUT: Setting<Duration> = Setting {
    name: "lock-timeout",
    option: Some("lock-timeout"),
    variable: Some("LOCK_TIMEOUT"),
    shape: Shape::Duration,
    parse: parse_duration,
    parse_of_root: Some(|text| {
        let timeout = parse_duration(text)?;
        let longest = written_duration(LONGEST_OF_ROOT);
        let is_short = timeout <= LONGEST_OF_ROOT;
        is_short
            .then_some(timeout)
            .ok_or(format!("{text:?} is more than {longest}, the limit here"))
    }),
    default: || Duration::from_secs(30),
};

/// `lock-exit`
pub static LOCK_EXIT: Setting<u8> = Setting {
    name: "lock-exit",
    option: Some("lock-exit"),
    variable: Some("PIPELINE_LOCK_EXIT"),
    shape: Shape::Count,
    parse: parse_number,
    parse_of_root: None,
    default: || 2,
};

/// `audit-log`
pub static AUDIT_LOG: Setting<PathBuf> = Setting {
    name: "audit-log",
    option: Some("audit-log"),
    variable: Some("AUDIT_LOG"),
    shape: Shape::Text,
    parse: |text| {
        let path = PathBuf::from(text);
        path.is_absolute().then_some(path).ok_or(format!("{text:?} is not an absolute path"))
    },
    parse_of_root: None,
    default: || PathBuf::from(crate::audit::DEFAULT),
};

/// `max-backups`
pub static MAX_BACKUPS: Setting<usize> = Setting {
    name: "max-backups",
    option: None,
    variable: Some("STATE_MAX_BACKUPS"),
    shape: Shape::Count,
    parse: parse_number,
    parse_of_root: Some(parse_number),
    default: || 5,
};

/// `backup-days`
pub static BACKUP_DAYS: Setting<u64> = Setting {
    name: "backup-days",
    option: None,
    variable: Some("STATE_BACKUP_DAYS"),
    shape: Shape::Count,
    parse: parse_number,
    parse_of_root: Some(parse_number),
    default: || 7,
};

/// `max-checkpoints`
pub static MAX_CHECKPOINTS: Setting<usize> = Setting {
    name: "max-checkpoints",
    option: None,
    variable: Some("STATE_MAX_CHECKPOINTS"),
    shape: Shape::Count,
    parse: parse_number,
    parse_of_root: Some(parse_number),
    default: || 20,
};

/// `checkpoint-days`
pub static CHECKPOINT_DAYS: Setting<u64> = Setting {
    name: "checkpoint-days",
    option: None,
    variable: Some("STATE_CHECKPOINT_DAYS"),
    shape: Shape::Count,
    parse: parse_number,
    parse_of_root: Some(parse_number),
    default: || 7,
};

/// `auto-recover`
pub static AUTO_RECOVER: Setting<AutoRecover> = Setting {
    name: "auto-recover",
    option: None,
    variable: Some("PIPELINE_AUTO_RECOVER"),
    shape: Shape::Switch,
    parse: |text| match text {
        "1" | "true" | "yes" | "on" => Ok(AutoRecover::Yes),
        "0" | "false" | "no" | "off" => Ok(AutoRecover::No),
        _ => Err(format!("{text:?} is neither 1 nor 0")),
    },
    parse_of_root: None,
    default: || AutoRecover::Yes,
};

/// `foreign-edits`
pub static FOREIGN_EDITS: Setting<ForeignEdits> = Setting {
    name: "foreign-edits",
    option: None,
    variable: Some("STATE_FOREIGN_EDITS"),
    shape: Shape::Text,
    parse: |text| match text {
        "accept" => Ok(ForeignEdits::Accept),
        "refuse" => Ok(ForeignEdits::Refuse),
        _ => Err(format!("{text:?} is neither accept nor refuse")),
    },
    parse_of_root: None,
    default: || ForeignEdits::Refuse,
};

/// `format`
pub static FORMAT: Setting<Format> = Setting {
    name: "format",
    option: Some("format"),
    variable: Some("PIPELINE_FORMAT"),
    shape: Shape::Text,
    parse: parse_format,
    parse_of_root: None,
    default: Format::default,
};

/// `color`
pub static COLOR: Setting<Color> = Setting {
    name: "color",
    option: Some("color"),
    variable: None,
    shape: Shape::Text,
    parse: parse_color,
    parse_of_root: None,
    default: || Color::Auto,
};

/// `store`
pub static STORE: Setting<Option<StoreUrl>> = Setting {
    name: "store",
    option: Some("store"),
    variable: Some(STORE_VARIABLE),
    shape: Shape::Text,
    parse: |text| StoreUrl::parse(text).map(Some),
    parse_of_root: Some(|text| StoreUrl::parse(text).map(Some)),
    default: || None,
};

/// All settings that a file can hold, in the order in which they are shown.
pub static ALL: [&dyn AnySetting; 12] = [
    &STORE,
    &LOCK_TIMEOUT,
    &LOCK_EXIT,
    &MAX_BACKUPS,
    &BACKUP_DAYS,
    &MAX_CHECKPOINTS,
    &CHECKPOINT_DAYS,
    &AUTO_RECOVER,
    &FOREIGN_EDITS,
    &AUDIT_LOG,
    &FORMAT,
    &COLOR,
];

/// Reads a number.
pub fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number in range"))
}

/// A value as `config` shows it, in JSON.
pub trait Shown {
    /// The value.
    fn shown(&self) -> Value;
}

impl Shown for Duration {
    fn shown(&self) -> Value {
        json!(written_duration(*self))
    }
}

impl Shown for usize {
    fn shown(&self) -> Value {
        json!(self)
    }
}

impl Shown for u64 {
    fn shown(&self) -> Value {
        json!(self)
    }
}

impl Shown for u8 {
    fn shown(&self) -> Value {
        json!(self)
    }
}

impl Shown for Path {
    fn shown(&self) -> Value {
        json!(self.display().to_string())
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> Value {
        self.as_path().shown()
    }
}

impl Shown for AutoRecover {
    fn shown(&self) -> Value {
        json!(*self == Self::Yes)
    }
}

impl Shown for ForeignEdits {
    fn shown(&self) -> Value {
        json!(match self {
            Self::Accept => "accept",
            Self::Refuse => "refuse",
        })
    }
}

impl Shown for Format {
    fn shown(&self) -> Value {
        json!(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Shown for Color {
    fn shown(&self) -> Value {
        json!(self.name())
    }
}

impl Shown for Option<StoreUrl> {
    fn shown(&self) -> Value {
        self.as_ref().map_or(Value::Null, |url| json!(url.to_string()))
    }
}
