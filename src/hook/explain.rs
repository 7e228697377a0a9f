//! An explanation of what an event would do, rule by rule.

use std::cell::OnceCell;
use std::path::Path;

use serde_json::Value;

use super::decide::{self, Unmet};
use super::event::ToolUse;
use super::files::{FilePattern, Project};
use super::named::{self, Changed, Surroundings};
use super::pattern::Subject;
use super::rules::Rules;

/// A rule, and whether it matches an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its place in the file, and its name.
    pub rule: String,
    /// The first condition that is not met; `None` if it matches.
    pub unmet: Option<Unmet>,
}

/// The skills that a prompt may activate, in the order of the file.
pub fn prompt(
    rules: &Rules,
    prompt: &str,
    has: &dyn Fn(&FilePattern) -> bool,
    around: &dyn Surroundings,
) -> Vec<Explained> {
    let prompt = Subject::of(prompt);
    let mut is_taken = false;
    let skills = rules.skills.iter().map(|skill| {
        let unmet = decide::unmet_by_prompt(skill, &prompt, has);
        let unmet = unmet.or(is_taken.then_some(Unmet::NotFirst));
        is_taken |= unmet.is_none();
        Explained {
            rule: format!("skills[{}] {} ({})", skill.index, skill.skill, skill.code),
            unmet,
        }
    });
    let mut explained: Vec<Explained> = skills.collect();
    explained.extend(rules.named.iter().map(|skill| Explained {
        rule: format!("skills.{}", skill.name),
        unmet: named::unmet_by_prompt(skill, &prompt, around),
    }));
    explained
}

/// The rules about the use of a tool, in the order of the file. `path` is the file's, absolute.
pub fn tool(
    rules: &Rules,
    used: &ToolUse,
    path: Option<&Path>,
    project: &Project,
    state: &Value,
    around: &dyn Surroundings,
) -> Vec<Explained> {
    let file = path.map(|path| project.file(path));
    let is_meant = |pattern: &FilePattern| file.as_ref().is_some_and(|file| file.is_match(pattern));
    let rule = |rule: &super::rules::ToolRule| Explained {
        rule: format!("tool_rules[{}]", rule.index),
        unmet: decide::unmet_by_tool(rule, used, &is_meant)
            .or_else(|| decide::unmet_by_state(rule, state)),
    };
    let mut explained: Vec<Explained> = rules.tool_rules.iter().map(rule).collect();
    if let Some(file) = path.map(|path| project.file(path)) {
        let changed = Changed { used, file, text: OnceCell::new() };
        explained.extend(rules.named.iter().map(|skill| Explained {
            rule: format!("skills.{}", skill.name),
            unmet: named::unmet_by_change(skill, &changed, around),
        }));
    }
    explained
}
