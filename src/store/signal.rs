//! Signals: the content of their files, and their part in a commit.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::document::{json as text, seal};
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::time::epoch_seconds;

/// The effect of a commit on the signal files.
#[derive(Clone, Debug)]
pub enum Signals {
    /// It writes and removes these.
    These(Vec<SignalFile>),
    /// They follow the document, which is an old one.
    Follow,
}

impl Signals {
    /// They stay as they are.
    pub const STAY: Self = Self::These(Vec::new());

    /// Returns whether a commit is refused where these cannot be staged.
    pub fn are_needed(&self) -> bool {
        matches!(self, Self::These(files) if !files.is_empty())
    }
}

/// A signal's file: its new content, or nothing if it is to be removed.
#[derive(Clone, Debug)]
pub struct SignalFile {
    /// The signal.
    pub name: Name,
    /// The file's content; `None` removes it.
    pub content: Option<Vec<u8>>,
}

impl SignalFile {
    /// Sets a signal in `document`, which has its final phase, and returns the accompanying file.
    pub fn give(
        document: &mut Value,
        name: &Name,
        metadata: &Value,
        now: SystemTime,
    ) -> Result<Self> {
        let now = text::parse(epoch_seconds(now).as_bytes()).map_err(|error| {
            Error::new(Kind::Internal, format!("a time that is not a number: {error}"))
        })?;
        if let Some(signals) = document.get_mut("signals").and_then(Value::as_object_mut) {
            signals.insert(name.to_string(), now.clone());
        }
        if let Some(fields) = document.as_object_mut() {
            fields.insert("lastSignal".to_owned(), name.as_str().into());
        }
        let mut file = json!({"signal": name.as_str(), "phase": document.get("phase")});
        // json! would rewrite the digits of numbers.
        if let Some(fields) = file.as_object_mut() {
            fields.insert("timestamp".to_owned(), now);
            fields.insert("metadata".to_owned(), metadata.clone());
        }
        if text::is_nested_too_deep(&file) {
            let message = format!(
                "the signal's metadata is nested deeper than {} levels",
                text::MAX_DEPTH - 1
            );
            return Err(Error::new(Kind::InvalidJson, message).hint_command(
                "state signal --help",
                "keep what is nested in the document, or in a file",
            ));
        }
        Ok(Self { name: name.clone(), content: seal::to_bytes(&file) })
    }

    /// The name of the file.
    pub fn file(&self) -> String {
        format!("{}.json", self.name)
    }

    /// The content that is staged before the commit: of a signal that is to be removed, a file
    /// without a time.
    pub fn staged(&self) -> Option<Vec<u8>> {
        match &self.content {
            Some(content) => Some(content.clone()),
            None => seal::to_bytes(&json!({"signal": self.name.as_str(), "timestamp": null})),
        }
    }

    /// The staged content, if the state matches it.
    pub fn due(staged: Vec<u8>, state: &Value) -> Option<Self> {
        let draft = text::parse(&staged).ok()?;
        let name = named(&draft)?;
        let known = state.get("signals").and_then(|signals| signals.get(name.as_str()));
        match draft.get("timestamp")? {
            Value::Null => known.is_none().then_some(Self { name, content: None }),
            time => (known == Some(time)).then_some(Self { name, content: Some(staged) }),
        }
    }
}

/// The signal that a file belongs to.
pub fn named(file: &Value) -> Option<Name> {
    Name::parse("signal", file.get("signal")?.as_str()?).ok()
}

/// The file of a signal of which only the time is known.
pub fn blank(name: &Name, time: &Value) -> Value {
    let mut file = json!({"signal": name.as_str(), "phase": null});
    // json! would rewrite the digits of numbers.
    if let Some(fields) = file.as_object_mut() {
        fields.insert("timestamp".to_owned(), time.clone());
        fields.insert("metadata".to_owned(), json!({}));
    }
    file
}
