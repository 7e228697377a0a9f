//! Announcements for the agent, in the form that its documentation asks for.

use std::fmt;

use serde_json::{Value, json};

use super::rules::named::{Enforcement, Priority};
use crate::name::Name;

/// An announcement for the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Announcement {
    /// A skill is activated after a delay.
    Activation {
        /// The skill's code.
        code: Name,
        /// The delay, in seconds.
        delay: f64,
    },
    /// A skill is suggested, after a delay.
    Suggestion {
        /// The skill's code.
        code: Name,
        /// The delay, in seconds.
        delay: f64,
        /// The signal that it follows.
        signal: Name,
    },
    /// The message of a rule.
    Message(String),
    /// A skill by name is triggered.
    Skill {
        /// Its name.
        name: String,
        /// The emphasis of the announcement.
        enforcement: Enforcement,
        /// The skill's priority.
        priority: Priority,
        /// The skill's message about the file that triggered it.
        message: Option<String>,
    },
}

impl fmt::Display for Announcement {
    /// A hook cannot wait for a delay: its caller waits for it. The announcement names the delay.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activation { code, delay } if *delay > 0.0 => {
                write!(f, "[ACTIVATE:{code}] (wait {delay} s before)")
            }
            Self::Activation { code, .. } => write!(f, "[ACTIVATE:{code}]"),
            Self::Suggestion { code, delay, signal } => {
                let wait =
                    if *delay > 0.0 { format!(" (wait {delay} s before)") } else { String::new() };
                write!(f, "{signal} is reached; next, if wanted: {code}{wait}")
            }
            Self::Message(text) => f.write_str(text),
            Self::Skill { name, enforcement, priority, message } => {
                write!(f, "[ACTIVATE:{name}] ({enforcement}; priority {priority})")?;
                message.as_ref().map_or(Ok(()), |message| write!(f, "\n{message}"))
            }
        }
    }
}

/// The events that hooks answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A prompt was submitted.
    Prompt,
    /// A tool was used.
    Tool,
    /// A session begins, is resumed, or was compacted.
    Session,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Session, Self::Prompt, Self::Tool];

    /// The event's name.
    pub fn event(self) -> &'static str {
        match self {
            Self::Prompt => "UserPromptSubmit",
            Self::Tool => "PostToolUse",
            Self::Session => "SessionStart",
        }
    }

    /// The command that answers it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Prompt => "skill-activation-prompt",
            Self::Tool => "post-tool-use-tracker",
            Self::Session => "session-start",
        }
    }
}

/// The output for standard output; `None` without announcements.
pub fn answer(event: EventKind, announcements: &[Announcement]) -> Option<Value> {
    let lines: Vec<String> = announcements.iter().map(ToString::to_string).collect();
    (!lines.is_empty()).then(|| context(event, &lines))
}

/// Lines for the agent, as output of the hook for this event.
pub fn context(event: EventKind, lines: &[String]) -> Value {
    let output = json!({"hookEventName": event.event(), "additionalContext": lines.join("\n")});
    json!({ "hookSpecificOutput": output })
}
