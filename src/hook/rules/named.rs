//! Skills by name: the form of rules that `.claude/skills/skill-rules.json` has in many projects.

use std::fmt;

use regex::Regex;

use crate::hook::files::FilePattern;

/// The longest name of a skill, in characters.
pub const NAME_LIMIT: usize = 128;

/// A skill and what triggers it. Triggers are alternatives: any of them suffices.
#[derive(Debug)]
pub struct NamedSkill {
    /// Its name, as the file has it.
    pub name: String,
    /// How it is announced.
    pub enforcement: Enforcement,
    /// Its rank among the skills that are announced together.
    pub priority: Priority,
    /// Parts of prompts that trigger it, in lower case.
    pub keywords: Vec<String>,
    /// Patterns of prompts that trigger it.
    pub intents: Vec<Regex>,
    /// Changed files that trigger it.
    pub files: Option<FileTriggers>,
    /// When it is not announced.
    pub skip: SkipConditions,
    /// What else to announce of a changed file; `{file_path}` stands for its path.
    pub block_message: Option<String>,
}

/// How a skill is announced. A hook announces; it enforces nothing.
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

/// The rank of a skill, highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    Critical,
    /// Before most.
    High,
    /// Where a rule does not say.
    #[default]
    Medium,
    /// After all others.
    Low,
}

/// Which changed files trigger a skill.
#[derive(Debug, Default)]
pub struct FileTriggers {
    /// One of these must match the path.
    pub paths: Vec<FilePattern>,
    /// None of these may.
    pub exclusions: Vec<FilePattern>,
    /// One of these must match the contents, if there are any.
    pub contents: Vec<Regex>,
    /// Which changes count.
    pub changes: Changes,
}

/// Which changes of a file count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changes {
    /// All.
    #[default]
    All,
    /// The file was made.
    Creation,
}

/// When a skill is not announced although it is triggered.
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
    pub const WORDS: [(&'static str, Self); 4] =
        [("critical", Self::Critical), ("high", Self::High), ("medium", Self::Medium), ("low", Self::Low)];
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
