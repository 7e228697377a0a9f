//! Degraded mode: a note in the state that something is out of order, and the features to leave
//! alone in the meantime.

use serde_json::{Value, json};

use super::json as text;
use crate::error::{Error, Kind, Result};
use crate::time::with_millis;

/// The field of the document.
const FIELD: &str = "degradedMode";

/// The degraded mode that a state records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Degraded {
    /// Whether the mode is on.
    pub is_on: bool,
    /// The reason.
    pub reason: String,
    /// The start, RFC 3339.
    pub since: String,
    /// The features to leave alone.
    pub features: Vec<String>,
}

impl Degraded {
    /// Reads it from a document. A field that is missing, or that another program filled
    /// differently, means normal mode.
    pub fn of(document: &Value) -> Self {
        let Some(field) = document.get(FIELD) else { return Self::default() };
        let word =
            |name: &str| field.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let features = field.get("disabledFeatures").and_then(Value::as_array);
        Self {
            is_on: field.get("enabled").and_then(Value::as_bool).unwrap_or_default(),
            reason: word("reason"),
            since: word("timestamp"),
            features: features
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Writes it into a document.
    pub fn put_into(&self, document: &mut Value) {
        let field = json!({
            "enabled": self.is_on,
            "reason": self.reason,
            "timestamp": self.since,
            "disabledFeatures": self.features,
        });
        if let Some(fields) = document.as_object_mut() {
            fields.insert(FIELD.to_owned(), field);
        }
    }

    /// Its start for JSON; `None` in normal mode.
    pub fn since_view(&self) -> Option<String> {
        Some(with_millis(&self.since)).filter(|since| !since.is_empty())
    }

    /// Returns whether a feature is to be left alone.
    pub fn disables(&self, feature: &str) -> bool {
        self.is_on && self.features.iter().any(|disabled| disabled == feature)
    }
}

/// Parses features: a JSON array of strings, or names separated by commas.
pub fn features(words: &str) -> Result<Vec<String>> {
    let bad = |why: &str| {
        let message = format!("{words:?} names no features: {why}");
        Error::new(Kind::InvalidJson, message)
            .hint_command("recover degrade --help", "a JSON array of strings, or a,b,c")
    };
    let names: Vec<String> = if words.trim_start().starts_with(['[', '{', '"']) {
        let array = text::parse(words.as_bytes()).map_err(|error| bad(&error.to_string()))?;
        let names = array.as_array().ok_or_else(|| bad("it is not an array"))?.iter();
        let names = names.map(|name| name.as_str().map(str::to_owned));
        names.collect::<Option<_>>().ok_or_else(|| bad("one of them is not a string"))?
    } else {
        words.split(',').map(|name| name.trim().to_owned()).collect()
    };
    match names.iter().any(|name| name.trim().is_empty()) && !words.trim().is_empty() {
        true => Err(bad("one of them is empty")),
        false => Ok(names.into_iter().filter(|name| !name.is_empty()).collect()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn features_are_an_array_or_names_with_commas() {
        assert_eq!(
            features(r#"["real-time-updates", "notifications"]"#).unwrap(),
            ["real-time-updates", "notifications"]
        );
        assert_eq!(features("a, b,c").unwrap(), ["a", "b", "c"]);
        assert_eq!(features("[]").unwrap(), Vec::<String>::new());
        assert_eq!(features("").unwrap(), Vec::<String>::new());
        for bad in ["[1]", "{}", "[\"a\"", "a,,b", "[\"\"]", "\"a\""] {
            assert_eq!(features(bad).unwrap_err().code() as u8, 4, "{bad}");
        }
    }

    #[test]
    fn what_was_noted_reads_back_and_nonsense_is_normal() {
        let noted = Degraded {
            is_on: true,
            reason: "disk".into(),
            since: "2023-11-01T10:30:00Z".into(),
            features: vec!["a".into()],
        };
        let mut document = json!({});
        noted.put_into(&mut document);
        assert_eq!(Degraded::of(&document), noted);
        assert!(noted.disables("a") && !noted.disables("b"));
        for other in
            [json!({}), json!({"degradedMode": 3}), json!({"degradedMode": {"enabled": "yes"}})]
        {
            assert!(!Degraded::of(&other).is_on);
        }
    }
}
