//! Skills by name: the form of `.claude/skills/skill-rules.json` in many projects.

use std::fmt;

use crate::hook::files::FilePattern;
use crate::hook::pattern::Pattern;

/// The longest name of a skill, in characters.
pub const NAME_LIMIT: usize = 128;

/// A skill and its triggers. One matching trigger suffices.
#[derive(Debug)]
pub struct NamedSkill {
    /// Its name, as the file has it.
    pub name: String,
    /// The emphasis of its announcement.
    pub enforcement: Enforcement,
    /// Its priority among skills that are announced together.
    pub priority: Priority,
    /// Parts of prompts that trigger it, in lower case.
    pub keywords: Vec<String>,
    /// Patterns of prompts that trigger it.
    pub intents: Vec<Pattern>,
    /// Changed files that trigger it.
    pub files: Option<FileTriggers>,
    /// Conditions that suppress it.
    pub skip: SkipConditions,
    /// The message about a changed file; `{file_path}` stands for its path.
    pub block_message: Option<String>,
}

/// The emphasis of an announcement. A hook announces; it enforces nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// As a suggestion.
    #[default]
    Suggest,
    /// As a warning.
    Warn,
    /// As required.
    Block,
}

/// The priority of a skill, highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    Critical,
    /// Before most.
    High,
    /// The default.
    #[default]
    Medium,
    /// After all others.
    Low,
}

/// Changed files that trigger a skill.
#[derive(Debug, Default)]
pub struct FileTriggers {
    /// One of these must match the path.
    pub paths: Vec<FilePattern>,
    /// None of these may match.
    pub exclusions: Vec<FilePattern>,
    /// One of these must match the contents, if there are any.
    pub contents: Vec<Pattern>,
    /// The kinds of changes that count.
    pub changes: ChangeScope,
}

/// Kinds of changes to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangeScope {
    /// All.
    #[default]
    All,
    /// The file was made.
    Creation,
}

/// Conditions that suppress a triggered skill.
#[derive(Debug, Default)]
pub struct SkipConditions {
    /// This variable of the environment is set.
    pub variable: Option<String>,
    /// The changed file contains one of these texts.
    pub markers: Vec<String>,
}

impl Enforcement {
    /// All, by the words that rules have for them.
    pub const WORDS: [(&'static str, Self); 3] =
        [("suggest", Self::Suggest), ("warn", Self::Warn), ("block", Self::Block)];
}

impl Priority {
    /// All, by the words that rules have for them.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("critical", Self::Critical),
        ("high", Self::High),
        ("medium", Self::Medium),
        ("low", Self::Low),
    ];
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suggest => "suggested",
            Self::Warn => "warning",
            Self::Block => "required before going on",
        })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, priority)| priority == self).map(|(word, _)| *word);
        f.write_str(word.unwrap_or_default())
    }
}
