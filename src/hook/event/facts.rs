//! Values of an event, read lazily: texts, flags and numbers, one level deep.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One value; the contents of a list or an object are skipped.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Scalar {
    #[default]
    Nothing,
    Flag(bool),
    Number(i64),
    Text(String),
    Other,
}

impl Scalar {
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// True for anything but null, false, 0 and an empty text.
    fn says_something(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Flag(false) | Self::Number(0))
            && *self != Self::Text(String::new())
    }
}

/// A tool's input or response: the fields of an object, or a plain text in place of one.
#[derive(Debug, Default)]
pub(super) struct Facts {
    fields: Vec<(String, Scalar)>,
    text: Option<String>,
}

/// The fields of a tool's input and response that are read. A file's whole content is not among
/// them.
const ASKED_FOR: [&str; 14] = [
    "file_path",
    "notebook_path",
    "filePath",
    "path",
    "type",
    "command",
    "success",
    "is_error",
    "isError",
    "error",
    "interrupted",
    "exit_code",
    "exitCode",
    "returncode",
];

impl Facts {
    fn get(&self, names: &[&str]) -> Option<&Scalar> {
        names.iter().find_map(|name| {
            self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
        })
    }

    pub(super) fn path(&self) -> Option<String> {
        let named = self.get(&["file_path", "notebook_path", "filePath", "path"]);
        named.and_then(Scalar::text).or_else(|| self.text.clone())
    }

    pub(super) fn command(&self) -> Option<String> {
        self.get(&["command"]).and_then(Scalar::text).or_else(|| self.text.clone())
    }

    /// True if the tool created the file.
    pub(super) fn is_creation(&self) -> bool {
        self.get(&["type"]).and_then(Scalar::text).as_deref() == Some("create")
    }

    pub(super) fn is_failure(&self) -> bool {
        let says = |names: &[&str]| self.get(names).is_some_and(Scalar::says_something);
        self.get(&["success"]) == Some(&Scalar::Flag(false))
            || says(&["is_error", "isError"])
            || says(&["error"])
            || says(&["interrupted"])
            || says(&["exit_code", "exitCode", "returncode"])
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(i64::try_from(number).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    // A number that is not an integer also arrives as an object (serde_json's
    // `arbitrary_precision`).
    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Scalar, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FactsVisitor)
    }
}

struct FactsVisitor;

impl<'de> Visitor<'de> for FactsVisitor {
    type Value = Facts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Facts, E> {
        Ok(Facts::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Facts, E> {
        Ok(Facts::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Facts, E> {
        Ok(Facts::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Facts, E> {
        Ok(Facts::default())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Facts, E> {
        Ok(Facts { text: Some(text.to_owned()), ..Facts::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Facts, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Facts::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Facts, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = object.next_key::<String>()? {
            if ASKED_FOR.contains(&name.as_str()) {
                fields.push((name, object.next_value()?));
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Facts { fields, text: None })
    }
}
