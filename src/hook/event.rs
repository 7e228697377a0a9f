//! Events of an editor or agent: the documented fields, and those of older hooks.
//!
//! Other fields may hold anything, at any depth; they are skipped and not kept.

mod facts;
mod text;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::Error as _;

use self::facts::{Facts, Scalar};
use crate::document::text::without_mark;

/// The largest event that is read, in bytes.
pub const LIMIT: usize = 64 << 20;

/// An event of any kind.
#[derive(Debug, Default)]
pub struct HookEvent {
    /// The event's own name, if any.
    pub name: Option<String>,
    /// The editor's working directory.
    pub cwd: Option<PathBuf>,
    /// The prompt: `prompt`, in older hooks `message`.
    pub prompt: Option<String>,
    /// The used tool.
    pub tool: Option<ToolUse>,
}

/// The use of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolUse {
    /// The tool's name: `tool_name`, in older hooks `tool`.
    pub name: String,
    /// The file it was used on.
    pub path: Option<PathBuf>,
    /// The command it ran.
    pub command: Option<String>,
    /// The result.
    pub outcome: ToolOutcome,
    /// True if the tool created the file.
    pub created: bool,
}

/// The result of a tool's use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolOutcome {
    /// It completed, or reported no failure.
    #[default]
    Done,
    /// It failed or was interrupted.
    Failed,
}

impl HookEvent {
    /// Reads an event without its byte order mark. A character cut in the middle becomes U+FFFD.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let bytes = without_mark(bytes);
        // In place of an object serde would accept an array, field by field.
        if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(serde_json::Error::custom("an event is a JSON object"));
        }
        let raw: Raw =
            serde_json::from_slice(bytes).or_else(|error| match text::replaced(bytes) {
                Some(whole) => serde_json::from_str(&whole),
                None => Err(error),
            })?;
        let name = raw.hook_event_name.text();
        let failed = name.as_deref() == Some(TOOL_FAILED) || raw.tool_response.is_failure();
        let tool = raw.tool_name.text().or(raw.tool.text()).map(|tool| ToolUse {
            name: tool,
            path: raw.tool_input.path().or(raw.input.path()).map(PathBuf::from),
            command: raw.tool_input.command().or(raw.input.command()),
            outcome: if failed { ToolOutcome::Failed } else { ToolOutcome::Done },
            created: raw.tool_response.is_creation(),
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
    /// The file's path, resolved against the editor's working directory. That is relative to this
    /// program's, which is used where the event has none.
    pub fn absolute_path(&self, cwd: Option<&Path>) -> Option<PathBuf> {
        let path = cwd.unwrap_or(Path::new("")).join(self.path.as_ref()?);
        if path.is_absolute() {
            return Some(path);
        }
        Some(std::env::current_dir().unwrap_or_default().join(path))
    }
}

/// The event of a tool that failed.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tool(json: &str) -> ToolUse {
        HookEvent::parse(json.as_bytes()).unwrap().tool.unwrap()
    }

    #[test]
    fn the_documented_fields_and_the_older_ones_say_the_same() {
        let now = concat!(
            r#"{"session_id":"x","cwd":"/p","hook_event_name":"UserPromptSubmit","#,
            r#""prompt":"go on"}"#
        );
        let event = HookEvent::parse(now.as_bytes()).unwrap();
        assert_eq!(
            (event.prompt.as_deref(), event.cwd.as_deref()),
            (Some("go on"), Some(Path::new("/p")))
        );
        let then = HookEvent::parse(br#"{"message":"go on"}"#).unwrap();
        assert_eq!((then.prompt.as_deref(), then.name), (Some("go on"), None));

        let write = concat!(
            r#"{"tool_name":"Write","tool_input":{"file_path":"/p/a","content":"x"},"#,
            r#""tool_response":{"success":true,"filePath":"/p/a"}}"#
        );
        let old = r#"{"tool":"Write","input":{"file_path":"/p/a"}}"#;
        assert_eq!(tool(write), tool(old));
        let bash = concat!(
            r#"{"tool_name":"Bash","tool_input":{"command":"make"},"#,
            r#""tool_response":{"stdout":"error","stderr":"","interrupted":false,"#,
            r#""exit_code":0}}"#
        );
        let older = r#"{"tool":"Bash","input":"make"}"#;
        assert_eq!(
            (tool(bash).command, tool(bash).outcome),
            (tool(older).command, tool(older).outcome)
        );
    }

    #[test]
    fn a_failed_use_is_recognized_by_its_response() {
        for response in [
            r#"{"success":false}"#,
            r#"{"is_error":true}"#,
            r#"{"interrupted":true}"#,
            r#"{"error":"no such file"}"#,
            r#"{"error":{"a":1}}"#,
            r#"{"exit_code":1}"#,
        ] {
            let event = format!(r#"{{"tool_name":"Bash","tool_response":{response}}}"#);
            assert_eq!(tool(&event).outcome, ToolOutcome::Failed, "{response}");
        }
        for response in [
            "null",
            "\"Error? no\"",
            "[]",
            "17",
            "1.5",
            r#"{"success":true,"error":null}"#,
            r#"{"code":404}"#,
        ] {
            let event = format!(r#"{{"tool_name":"Bash","tool_response":{response}}}"#);
            assert_eq!(tool(&event).outcome, ToolOutcome::Done, "{response}");
        }
        let failed = r#"{"hook_event_name":"PostToolUseFailure","tool_name":"Bash"}"#;
        assert_eq!(tool(failed).outcome, ToolOutcome::Failed);
    }

    #[test]
    fn unused_fields_may_hold_anything() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let event = format!(
            r#"{{"x":{deep},"tool_response":{{"structured":{deep},"n":1.5}},
                "tool_input":{{"edits":{deep},"command":"c"}},"tool_name":"T","prompt":{deep},
                "cwd":7,"message":"m","half":"\ud83d","input":{{"content":"\ud83d"}}}}"#
        );
        let event = HookEvent::parse(event.as_bytes()).unwrap();
        assert_eq!((event.prompt.as_deref(), event.cwd), (Some("m"), None));
        assert_eq!(event.tool.unwrap().command.as_deref(), Some("c"));
    }

    #[test]
    fn half_a_character_does_not_cost_the_event() {
        for (cut, whole) in [
            (&br#"{"prompt":"go on \ud83d"}"#[..], "go on \u{fffd}"),
            (
                br#"{"prompt":"\uDE00 go \\ud83d on \ud83d\ud83d\ude00"}"#,
                "\u{fffd} go \\ud83d on \u{fffd}\u{1f600}",
            ),
            (b"{\"prompt\":\"go on \xf0\x9f\"}", "go on \u{fffd}"),
            (b"{\"prompt\":\"go\xff\\n\\udc00\"}", "go\u{fffd}\n\u{fffd}"),
        ] {
            assert_eq!(
                HookEvent::parse(cut).unwrap().prompt.as_deref(),
                Some(whole),
                "{}",
                cut.escape_ascii()
            );
        }
    }

    #[test]
    fn a_byte_order_mark_in_front_is_skipped() {
        let event = HookEvent::parse("\u{feff}{\"prompt\":\"go on\"}".as_bytes()).unwrap();
        assert_eq!(event.prompt.as_deref(), Some("go on"));
    }

    #[test]
    fn a_response_says_whether_the_file_was_made() {
        for (kind, created) in [("create", true), ("update", false), ("text", false)] {
            let event = format!(r#"{{"tool_name":"Write","tool_response":{{"type":"{kind}"}}}}"#);
            assert_eq!(tool(&event).created, created, "{kind}");
        }
        assert!(!tool(r#"{"tool_name":"Write"}"#).created);
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [
            "",
            "garbage",
            "[]",
            "7",
            "{\"prompt\":\"x\"",
            "{\"prompt\":\"\\ud83d",
            "{\"prompt\":\"\\",
            "{} {}",
            "\u{feff}",
            "\u{feff}\u{feff}{}",
        ] {
            assert!(HookEvent::parse(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
