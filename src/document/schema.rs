//! The schema: its version, the fields it knows, and the migration steps to it.
//!
//! A new schema is a new [`Schema`] value: another version, its fields, and one more [`Migration`].
//! Nothing else changes.

use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};

/// The names of the seal's fields inside `metadata`; a writer's own values for them are ignored.
pub const OWN_FIELDS: [&str; 5] = ["created", "lastModified", "revision", "lineage", "digest"];

/// A schema.
#[derive(Debug)]
pub struct Schema {
    /// Its version, as documents declare it.
    pub version: &'static str,
    /// The fields that have a rule, in the order in which findings list them.
    pub fields: &'static [Field],
    /// The steps from older versions, oldest first; the last one leads to `version`.
    pub steps: &'static [Migration],
}

/// The rule of a field at the top of the document.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether it may be absent.
    pub need: Need,
    /// Returns whether a value has one of its types.
    pub test: fn(&Value) -> bool,
    /// Those types in words that fit after "must be".
    pub expected: &'static str,
}

/// Whether a field may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It may not.
    Required,
    /// It may.
    Optional,
}

/// The migration step from one version to the next.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The version before the step.
    pub from: &'static str,
    /// Changes the fields of the document. It adds only what can be derived, and drops nothing.
    pub apply: fn(&mut Map<String, Value>),
}

/// Version 1.0, the first that documents declare.
pub static V1_0: Schema = Schema { version: "1.0", fields: &V1_0_FIELDS, steps: &[] };

const V1_0_FIELDS: [Field; 8] = [
    Field::new("schemaVersion", Need::Optional, Value::is_string, "a string"),
    Field::new("phase", Need::Required, Value::is_string, "a string"),
    Field::new("completedTasks", Need::Required, Value::is_array, "an array"),
    Field::new("signals", Need::Required, Value::is_object, "an object"),
    Field::new("lastActivation", Need::Required, Value::is_string, "a string"),
    Field::new(
        "lastSignal",
        Need::Optional,
        |value| value.is_string() || value.is_null(),
        "a string or null",
    ),
    Field::new("metadata", Need::Optional, Value::is_object, "an object"),
    Field::new("degradedMode", Need::Optional, Value::is_object, "an object"),
];

impl Field {
    /// A rule.
    pub const fn new(
        name: &'static str,
        need: Need,
        test: fn(&Value) -> bool,
        expected: &'static str,
    ) -> Self {
        Self { name, need, test, expected }
    }
}

static IN_USE: OnceLock<&'static Schema> = OnceLock::new();

/// The schema that this process reads and writes: [`V1_0`], unless [`take_up`] set another.
pub fn current() -> &'static Schema {
    IN_USE.get().copied().unwrap_or(&V1_0)
}

/// Makes this process read and write another schema. Only a separate program calls this, before
/// anything else: the tests build one with the next schema. Returns false if a schema was set
/// before.
pub fn take_up(schema: &'static Schema) -> bool {
    IN_USE.set(schema).is_ok()
}

/// `MAJOR.MINOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A form of the document that is not the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldForm {
    /// It has fields that an older rule allowed, or declares no version.
    Legacy,
    /// It declares this older version.
    Schema(String),
}

impl fmt::Display for OldForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy => f.write_str("legacy"),
            Self::Schema(version) => f.write_str(version),
        }
    }
}
