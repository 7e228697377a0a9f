//! `skill-rules.json`: the meaning of prompts and tools in this pipeline.
//!
//! It has one of two forms: `skills` is an array of [`Skill`]s, or an object of skills by name
//! ([`named`]).
//!
//! Every rule stands alone: a bad one is skipped and reported with its line, the others are read.
//! Unknown fields are allowed.

pub mod named;
mod read;
mod source;

use std::fmt;

use serde::Serialize;

use self::named::NamedSkill;
use super::event::ToolUse;
use super::files::FilePattern;
use super::pattern::{Pattern, Subject};
use crate::name::Name;

/// Path of the rules below `config/`.
pub const FILE: &str = "skill-rules.json";
/// The largest file of rules, in bytes.
pub const LIMIT: u64 = 4 << 20;

/// Form of the skills in a file of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `skills` is an array, or missing.
    #[default]
    Array,
    /// `skills` is an object.
    Object,
}

impl Form {
    /// The form's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// The usable rules.
#[derive(Debug, Default)]
pub struct Rules {
    /// The form of the file.
    pub form: Form,
    /// Skills by name; empty in the form of an array.
    pub named: Vec<NamedSkill>,
    /// Skills that prompts activate, by precedence.
    pub skills: Vec<Skill>,
    /// Steps that follow signals.
    pub transitions: Vec<Transition>,
    /// Rules for used tools.
    pub tool_rules: Vec<ToolRule>,
}

/// A skill that prompts activate.
#[derive(Debug)]
pub struct Skill {
    /// Its index in the file.
    pub index: usize,
    /// The skill's name.
    pub skill: String,
    /// The announced code.
    pub code: Name,
    /// The phase that it begins.
    pub phase: Option<String>,
    /// One of these must match the prompt, in any case; an empty list matches every prompt.
    pub prompts: Vec<Pattern>,
    /// One of these must match a file, if there are any.
    pub files: Vec<FilePattern>,
    /// Files that must exist, each by the places where it may be.
    pub exists: Vec<Vec<FilePattern>>,
}

/// A step that follows a signal.
#[derive(Debug)]
pub struct Transition {
    /// The signal.
    pub signal: Name,
    /// The next activation.
    pub next: Name,
    /// The condition for starting it.
    pub start: Start,
    /// Delay before it, in seconds. The hook announces it and does not wait.
    pub delay: f64,
}

/// The start of a next activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It starts and is announced.
    Automatic,
    /// It starts once this signal exists; until then it is suggested.
    Approved(Name),
    /// It is suggested.
    Suggested,
}

/// A rule for a used tool.
#[derive(Debug)]
pub struct ToolRule {
    /// Its index in the file.
    pub index: usize,
    /// The tools.
    pub tool: ToolPattern,
    /// The file or command of the use.
    pub object: Object,
    /// The signal that must exist before.
    pub requires: Option<Name>,
    /// The signal to give.
    pub emits: Option<Name>,
    /// The new phase.
    pub phase: Option<String>,
    /// The message for the agent.
    pub message: Option<String>,
}

/// Tools of a rule, by their whole names.
#[derive(Debug)]
pub enum ToolPattern {
    /// All.
    Any,
    /// The named ones, separated by `|`.
    OneOf(String),
    /// The ones that match.
    Matching(Pattern),
}

impl ToolPattern {
    /// False if the rule does not cover this tool. Compiles nothing.
    pub fn may_match(&self, name: &str) -> bool {
        match self {
            Self::Matching(pattern) => pattern.may_match(&Subject::of(name)),
            Self::Any | Self::OneOf(_) => self.matches(name),
        }
    }

    /// True if the rule covers this tool.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(names) => names.split('|').any(|other| other == name),
            Self::Matching(pattern) => pattern.is_match(&Subject::of(name)),
        }
    }
}

/// The object of a tool's use.
#[derive(Debug)]
pub enum Object {
    /// Anything.
    Any,
    /// A file that matches.
    Path(FilePattern),
    /// A command that contains a match.
    Command(Pattern),
}

/// The part of the rules that a caller needs. The rest is not read: compiling patterns takes longer
/// than everything else in a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Rules for prompts.
    Prompts,
    /// Rules that this use of a tool may match, by its name and its command.
    Tool(&'a ToolUse),
    /// Everything.
    All,
}

/// A file of rules after reading.
#[derive(Debug, Default)]
pub struct ParsedRules {
    /// The usable rules.
    pub rules: Rules,
    /// Findings about the rest, in the order of the file.
    pub findings: Vec<RuleFinding>,
    /// The line of `skills`, or of the file's beginning.
    pub line: usize,
}

/// A problem in the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFinding {
    /// The line in the file, from 1.
    pub line: usize,
    /// The place in the document, as in `tool_rules[2].command_regex`; empty for the document
    /// itself.
    pub place: String,
    /// The problem.
    pub message: String,
    /// The severity.
    pub weight: Weight,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The rule, or the whole file, cannot be used.
    Bad,
    /// It can be used, but may not mean what its author intended.
    Odd,
}

impl fmt::Display for RuleFinding {
    /// Prints the finding as it follows the file's name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.weight == Weight::Odd { "note: " } else { "" };
        let place = if self.place.is_empty() { String::new() } else { format!("{}: ", self.place) };
        write!(f, "{}: {note}{place}{}", self.line, self.message)
    }
}

impl ParsedRules {
    /// The findings that make rules unusable.
    pub fn bad(&self) -> impl Iterator<Item = &RuleFinding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Bad)
    }
}

/// Reads a file of rules. Fails on a text that is not a JSON object, which has no usable rule.
///
/// It never panics, whatever the bytes are.
pub fn parse(bytes: &[u8], scope: Scope<'_>) -> Result<ParsedRules, RuleFinding> {
    read::rules(&source::Source::new(bytes)?, scope)
}

#[cfg(test)]
mod tests;
