//! `skill-rules.json`: what prompts and tools mean in this pipeline.
//!
//! It has one of two forms: `skills` is an array of [`Skill`]s, or an object of skills by name ([`named`]).
//!
//! Every rule stands for itself: a bad one is left out and found fault with, at its line, and the others are read.
//! Fields that are not known here are left to whoever wrote them.

pub mod named;
mod read;
mod source;

use std::fmt;

use regex::Regex;
use serde::Serialize;

use self::named::NamedSkill;
use super::files::FilePattern;
use crate::name::Name;

/// Where the rules are, below the directory of `config/`.
pub const FILE: &str = "skill-rules.json";
/// The largest file of rules, in bytes.
pub const LIMIT: u64 = 4 << 20;

/// How a file of rules has its skills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `skills` is an array, or missing.
    #[default]
    Array,
    /// `skills` is an object.
    Object,
}

impl Form {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// The rules that can be used.
#[derive(Debug, Default)]
pub struct Rules {
    /// The form of the file.
    pub form: Form,
    /// Skills by name; there are none in the form of an array.
    pub named: Vec<NamedSkill>,
    /// What prompts activate, first things first.
    pub skills: Vec<Skill>,
    /// What comes after a signal.
    pub transitions: Vec<Transition>,
    /// What used tools mean.
    pub tool_rules: Vec<ToolRule>,
}

/// What a prompt may activate.
#[derive(Debug)]
pub struct Skill {
    /// What it is called.
    pub skill: String,
    /// What is announced.
    pub code: Name,
    /// The phase that begins with it.
    pub phase: Option<String>,
    /// One of these must match the prompt, whatever its case; where there are none, every prompt will do.
    pub prompts: Vec<Regex>,
    /// One of these must match something, if there are any.
    pub files: Vec<FilePattern>,
    /// Files that must exist, each by the places where it may be.
    pub exists: Vec<Vec<FilePattern>>,
}

/// What comes after a signal.
#[derive(Debug)]
pub struct Transition {
    /// The signal.
    pub signal: Name,
    /// The activation that is next.
    pub next: Name,
    /// Whether it is to take place without anybody's asking.
    pub start: Start,
    /// How long to wait before that, in seconds. The hook does not: it says so.
    pub delay: f64,
}

/// How an activation that is next comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is announced as such.
    Automatic,
    /// Likewise once this signal is given; suggested until then.
    Approved(Name),
    /// It is suggested.
    Suggested,
}

/// What it means that a tool was used.
#[derive(Debug)]
pub struct ToolRule {
    /// Which tools.
    pub tool: ToolPattern,
    /// What it was used on or for.
    pub object: Object,
    /// The signal that must have been there before.
    pub requires: Option<Name>,
    /// The signal that is given.
    pub emits: Option<Name>,
    /// The phase that begins.
    pub phase: Option<String>,
    /// What the agent is told.
    pub message: Option<String>,
}

/// Which tools a rule is about, by their whole names.
#[derive(Debug)]
pub enum ToolPattern {
    /// All.
    Any,
    /// Those that are named.
    OneOf(Vec<String>),
    /// Those that match.
    Matching(Regex),
}

impl ToolPattern {
    /// Whether it is about this tool.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(names) => names.iter().any(|other| other == name),
            Self::Matching(regex) => regex.is_match(name),
        }
    }
}

/// What a tool must have been used on.
#[derive(Debug)]
pub enum Object {
    /// Anything.
    Any,
    /// A file that matches.
    Path(FilePattern),
    /// A command in which this is found.
    Command(Regex),
}

/// How much of the rules somebody needs. Nothing else is read: compiling patterns takes longer than all else that a hook
/// computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// What prompts mean.
    Prompts,
    /// What it means that this tool was used.
    Tool(&'a str),
    /// Everything.
    All,
}

/// A file of rules, read.
#[derive(Debug, Default)]
pub struct Reading {
    /// What can be used.
    pub rules: Rules,
    /// What is wrong with the rest, in the order of the file.
    pub findings: Vec<Finding>,
    /// The line of `skills`, or of the file's beginning.
    pub line: usize,
}

/// Something about the rules that deserves a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The line in the file, from 1.
    pub line: usize,
    /// Where in the document, as in `tool_rules[2].command_regex`; empty for the document itself.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// How bad that is.
    pub weight: Weight,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The rule, or the whole file, cannot be used.
    Bad,
    /// It can, but it may not be what was meant.
    Odd,
}

impl fmt::Display for Finding {
    /// As it stands behind the file's name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.weight == Weight::Odd { "note: " } else { "" };
        let place = if self.place.is_empty() { String::new() } else { format!("{}: ", self.place) };
        write!(f, "{}: {note}{place}{}", self.line, self.message)
    }
}

impl Reading {
    /// What keeps rules from being used.
    pub fn bad(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Bad)
    }
}

/// Reads a file of rules. The error is of a text that is no JSON object, of which nothing can be used.
///
/// It ends well or not, but it never panics, whatever the bytes are.
pub fn parse(bytes: &[u8], scope: Scope<'_>) -> Result<Reading, Finding> {
    read::rules(&source::Source::new(bytes)?, scope)
}

#[cfg(test)]
mod tests;
