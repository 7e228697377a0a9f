//! What an editor or agent tells: the documented fields, and those of older hooks.
//!
//! Fields that nobody asks for may hold anything, of any depth; they are passed over without being kept.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The largest event that is read, in bytes.
pub const LIMIT: usize = 64 << 20;

/// An event, whichever it is.
#[derive(Debug, Default)]
pub struct Event {
    /// What it calls itself, if it does.
    pub name: Option<String>,
    /// Where the editor is at work.
    pub cwd: Option<PathBuf>,
    /// What was asked for: `prompt`, once `message`.
    pub prompt: Option<String>,
    /// The tool that was used.
    pub tool: Option<ToolUse>,
}

/// A tool that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolUse {
    /// Which: `tool_name`, once `tool`.
    pub name: String,
    /// The file it was used on.
    pub path: Option<PathBuf>,
    /// The command it ran.
    pub command: Option<String>,
    /// How that went.
    pub outcome: Outcome,
}

/// Whether the use of a tool came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It did, as far as is told.
    #[default]
    Done,
    /// It failed or was interrupted.
    Failed,
}

impl Event {
    /// Reads an event.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        // Where an object is expected serde would take a list, field by field.
        if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(de::Error::custom("an event is a JSON object"));
        }
        let raw: Raw = serde_json::from_slice(bytes)?;
        let name = raw.hook_event_name.text();
        let failed = name.as_deref() == Some(TOOL_FAILED) || raw.tool_response.is_failure();
        let tool = raw.tool_name.text().or(raw.tool.text()).map(|tool| ToolUse {
            name: tool,
            path: raw.tool_input.path().or(raw.input.path()).map(PathBuf::from),
            command: raw.tool_input.command().or(raw.input.command()),
            outcome: if failed { Outcome::Failed } else { Outcome::Done },
        });
        Ok(Self {
            name,
            cwd: raw.cwd.text().map(PathBuf::from),
            prompt: raw.prompt.text().or(raw.message.text()),
            tool,
        })
    }
}

impl ToolUse {
    /// The file, as seen from where the editor is at work.
    #[must_use]
    pub fn absolute_path(&self, cwd: &Path) -> Option<PathBuf> {
        self.path.as_ref().map(|path| cwd.join(path))
    }
}

/// The event of a tool whose use failed.
const TOOL_FAILED: &str = "PostToolUseFailure";

#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    hook_event_name: Scalar,
    cwd: Scalar,
    prompt: Scalar,
    message: Scalar,
    tool_name: Scalar,
    tool: Scalar,
    tool_input: Facts,
    input: Facts,
    tool_response: Facts,
}

/// One value, as far as anybody asks: what is inside a list or an object is passed over.
#[derive(Debug, Default, PartialEq)]
enum Scalar {
    #[default]
    Nothing,
    Flag(bool),
    Number(i64),
    Text(String),
    Other,
}

impl Scalar {
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Whether it says more than "no" or nothing.
    fn says_something(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Flag(false) | Self::Number(0)) && *self != Self::Text(String::new())
    }
}

/// What is told of a tool's input or its response: the fields of an object, or a plain text in place of one.
#[derive(Debug, Default)]
struct Facts {
    fields: Vec<(String, Scalar)>,
    text: Option<String>,
}

/// The fields of a tool's input and response that mean something here. A file's whole content is not among them.
const ASKED_FOR: [&str; 13] = [
    "file_path",
    "notebook_path",
    "filePath",
    "path",
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
        names.iter().find_map(|name| self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value))
    }

    fn path(&self) -> Option<String> {
        let named = self.get(&["file_path", "notebook_path", "filePath", "path"]);
        named.and_then(Scalar::text).or_else(|| self.text.clone())
    }

    fn command(&self) -> Option<String> {
        self.get(&["command"]).and_then(Scalar::text).or_else(|| self.text.clone())
    }

    fn is_failure(&self) -> bool {
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

    // A number that is no integer comes as an object, too (serde_json's `arbitrary_precision`).
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tool(json: &str) -> ToolUse {
        Event::parse(json.as_bytes()).unwrap().tool.unwrap()
    }

    #[test]
    fn the_documented_fields_and_the_older_ones_say_the_same() {
        let now = r#"{"session_id":"x","cwd":"/p","hook_event_name":"UserPromptSubmit","prompt":"go on"}"#;
        let event = Event::parse(now.as_bytes()).unwrap();
        assert_eq!((event.prompt.as_deref(), event.cwd.as_deref()), (Some("go on"), Some(Path::new("/p"))));
        let then = Event::parse(br#"{"message":"go on"}"#).unwrap();
        assert_eq!((then.prompt.as_deref(), then.name), (Some("go on"), None));

        let write = r#"{"tool_name":"Write","tool_input":{"file_path":"/p/a","content":"x"},"tool_response":{"success":true,"filePath":"/p/a"}}"#;
        let old = r#"{"tool":"Write","input":{"file_path":"/p/a"}}"#;
        assert_eq!(tool(write), tool(old));
        let bash = r#"{"tool_name":"Bash","tool_input":{"command":"make"},"tool_response":{"stdout":"error","stderr":"","interrupted":false,"exit_code":0}}"#;
        let older = r#"{"tool":"Bash","input":"make"}"#;
        assert_eq!((tool(bash).command, tool(bash).outcome), (tool(older).command, tool(older).outcome));
    }

    #[test]
    fn a_use_that_failed_shows_in_what_is_told_of_it() {
        for response in [
            r#"{"success":false}"#,
            r#"{"is_error":true}"#,
            r#"{"interrupted":true}"#,
            r#"{"error":"no such file"}"#,
            r#"{"error":{"a":1}}"#,
            r#"{"exit_code":1}"#,
        ] {
            let event = format!(r#"{{"tool_name":"Bash","tool_response":{response}}}"#);
            assert_eq!(tool(&event).outcome, Outcome::Failed, "{response}");
        }
        for response in
            ["null", "\"Error? no\"", "[]", "17", "1.5", r#"{"success":true,"error":null}"#, r#"{"code":404}"#]
        {
            let event = format!(r#"{{"tool_name":"Bash","tool_response":{response}}}"#);
            assert_eq!(tool(&event).outcome, Outcome::Done, "{response}");
        }
        let failed = r#"{"hook_event_name":"PostToolUseFailure","tool_name":"Bash"}"#;
        assert_eq!(tool(failed).outcome, Outcome::Failed);
    }

    #[test]
    fn what_nobody_asks_for_may_be_anything() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let event = format!(
            r#"{{"x":{deep},"tool_response":{{"structured":{deep},"n":1.5}},"tool_input":{{"edits":{deep},"command":"c"}},"tool_name":"T","prompt":{deep},"cwd":7,"message":"m","half":"\ud83d","input":{{"content":"\ud83d"}}}}"#
        );
        let event = Event::parse(event.as_bytes()).unwrap();
        assert_eq!((event.prompt.as_deref(), event.cwd), (Some("m"), None));
        assert_eq!(event.tool.unwrap().command.as_deref(), Some("c"));
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in ["", "garbage", "[]", "7", "{\"prompt\":\"x\"", "{} {}", "\u{feff}{}"] {
            assert!(Event::parse(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
