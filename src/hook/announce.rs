//! What the agent is told, in the form that its documentation asks for.

use std::fmt;

use serde_json::{Value, json};

use super::rules::named::{Enforcement, Priority};
use crate::name::Name;

/// What the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Announcement {
    /// A skill is activated; after so many seconds.
    Activation {
        /// Its code.
        code: Name,
        /// How long to wait before, in seconds.
        delay: f64,
    },
    /// A skill would be next; after so many seconds.
    Suggestion {
        /// Its code.
        code: Name,
        /// How long to wait before, in seconds.
        delay: f64,
        /// The signal after which it comes.
        signal: Name,
    },
    /// A rule's own words.
    Message(String),
    /// A skill by name is triggered.
    Skill {
        /// Its name.
        name: String,
        /// How strongly its rules want it.
        enforcement: Enforcement,
        /// Its rank.
        priority: Priority,
        /// Its rules' own words about the file that triggered it.
        message: Option<String>,
    },
}

impl fmt::Display for Announcement {
    /// A hook cannot wait for a delay to be over: its caller would wait for it. So whoever reads this is told of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activation { code, delay } if *delay > 0.0 => write!(f, "[ACTIVATE:{code}] (wait {delay} s before)"),
            Self::Activation { code, .. } => write!(f, "[ACTIVATE:{code}]"),
            Self::Suggestion { code, delay, signal } => {
                let wait = if *delay > 0.0 { format!(" (wait {delay} s before)") } else { String::new() };
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

/// The events that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// A prompt was submitted.
    Prompt,
    /// A tool was used.
    Tool,
}

impl Answers {
    /// The event's name.
    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Self::Prompt => "UserPromptSubmit",
            Self::Tool => "PostToolUse",
        }
    }

    /// The command that answers it.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Prompt => "skill-activation-prompt",
            Self::Tool => "post-tool-use-tracker",
        }
    }
}

/// What goes to standard output; nothing where there is nothing to tell.
#[must_use]
pub fn answer(event: Answers, announcements: &[Announcement]) -> Option<Value> {
    let lines: Vec<String> = announcements.iter().map(ToString::to_string).collect();
    let output = json!({"hookEventName": event.event(), "additionalContext": lines.join("\n")});
    (!lines.is_empty()).then(|| json!({ "hookSpecificOutput": output }))
}
