//! Decisions for skills by name ([`super::rules::named`]): which are announced, in which order.

use std::cell::OnceCell;
use std::path::Path;

use super::announce::Announcement;
use super::decide::{Effects, Unmet};
use super::event::{ToolOutcome, ToolUse};
use super::files::{Project, ProjectFile};
use super::pattern::{Pattern, Subject};
use super::rules::named::{ChangeScope, NamedSkill};

/// Tools that take a file and do not change it.
const READERS: [&str; 5] = ["Read", "Grep", "Glob", "LS", "NotebookRead"];

/// Inputs of the decisions beside the rules and the event.
pub trait Surroundings {
    /// True if a variable of the environment is set and not empty.
    fn is_set(&self, variable: &str) -> bool;
    /// The contents of a changed file, if they can be read.
    fn contents(&self) -> Option<String>;
}

/// Announces all skills that a prompt triggers, by priority; the first is the activation that the
/// state keeps.
pub fn on_prompt(skills: &[NamedSkill], prompt: &str, around: &dyn Surroundings) -> Effects {
    let prompt = Subject::of(prompt);
    let skills = skills.iter().filter(|skill| unmet_by_prompt(skill, &prompt, around).is_none());
    let announced = announce(skills, |_| None);
    Effects {
        activation: announced.first().map(|(name, _)| (*name).to_owned()),
        announcements: announced.into_iter().map(|(_, announcement)| announcement).collect(),
        ..Effects::default()
    }
}

/// The condition of a skill that a prompt does not meet.
pub fn unmet_by_prompt(
    skill: &NamedSkill,
    prompt: &Subject<'_>,
    around: &dyn Surroundings,
) -> Option<Unmet> {
    let is_meant = skill.keywords.iter().any(|keyword| prompt.lower().contains(keyword))
        || skill.intents.iter().any(|intent| intent.is_match(prompt));
    if !is_meant {
        return Some(Unmet::Prompt);
    }
    is_switched_off(skill, around).then_some(Unmet::SwitchedOff)
}

/// A changed file.
#[derive(Debug)]
pub struct Changed<'a> {
    /// The use of the tool that changed it.
    pub used: &'a ToolUse,
    /// The file.
    pub file: ProjectFile<'a>,
    /// Its contents, once they were needed.
    pub text: OnceCell<Option<String>>,
}

/// The condition of a skill that the change of a file does not meet.
pub fn unmet_by_change(
    skill: &NamedSkill,
    changed: &Changed<'_>,
    around: &dyn Surroundings,
) -> Option<Unmet> {
    let Changed { used, file, text } = changed;
    if used.outcome == ToolOutcome::Failed {
        return Some(Unmet::Failed);
    }
    if READERS.contains(&used.name.as_str()) {
        return Some(Unmet::Unchanged);
    }
    let matches = |pattern| file.is_match(pattern);
    let Some(triggers) = skill.files.as_ref().filter(|triggers| triggers.paths.iter().any(matches))
    else {
        return Some(Unmet::Path);
    };
    if triggers.changes == ChangeScope::Creation && !used.created {
        return Some(Unmet::NotNew);
    }
    if triggers.exclusions.iter().any(matches) {
        return Some(Unmet::Excluded);
    }
    if is_switched_off(skill, around) {
        return Some(Unmet::SwitchedOff);
    }
    let text = || text.get_or_init(|| around.contents()).as_deref();
    let has = |pattern: &Pattern| text().is_some_and(|text| pattern.is_match(&Subject::of(text)));
    if !triggers.contents.is_empty() && !triggers.contents.iter().any(has) {
        return Some(Unmet::Contents);
    }
    let is_marked = |marker: &String| text().is_some_and(|text| text.contains(marker));
    skill.skip.markers.iter().any(is_marked).then_some(Unmet::Marked)
}

/// Announces all skills that the change of a file triggers, by priority. `path` is absolute.
pub fn on_change(
    skills: &[NamedSkill],
    used: &ToolUse,
    path: &Path,
    project: &Project,
    around: &dyn Surroundings,
) -> Vec<Announcement> {
    let changed = Changed { used, file: project.file(path), text: OnceCell::new() };
    let shown = path.display().to_string();
    let message =
        |skill: &NamedSkill| Some(skill.block_message.as_ref()?.replace("{file_path}", &shown));
    let triggered =
        skills.iter().filter(|skill| unmet_by_change(skill, &changed, around).is_none());
    let announced = announce(triggered, message);
    announced.into_iter().map(|(_, announcement)| announcement).collect()
}

fn is_switched_off(skill: &NamedSkill, around: &dyn Surroundings) -> bool {
    skill.skip.variable.as_ref().is_some_and(|variable| around.is_set(variable))
}

fn announce<'s>(
    skills: impl Iterator<Item = &'s NamedSkill>,
    message: impl Fn(&NamedSkill) -> Option<String>,
) -> Vec<(&'s str, Announcement)> {
    let mut skills: Vec<&NamedSkill> = skills.collect();
    skills.sort_by_key(|skill| skill.priority);
    let announcement = |skill: &NamedSkill| Announcement::Skill {
        name: skill.name.clone(),
        enforcement: skill.enforcement,
        priority: skill.priority,
        message: message(skill),
    };
    skills.into_iter().map(|skill| (skill.name.as_str(), announcement(skill))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hook::rules::{Scope, parse};

    const RULES: &str = r#"{"skills": {
      "style": {"priority": "low", "promptTriggers": {"keywords": ["CSS"]}},
      "database": {"enforcement": "block", "priority": "critical",
      "blockMessage": "look at {file_path}",
        "promptTriggers": {"intentPatterns": ["alter.*?table"]},
        "fileTriggers": {"pathPatterns": ["**/*.sql"], "pathExclusions": ["**/test/**"],
        "contentPatterns": ["DROP"]},
        "skipConditions": {"fileMarkers": ["@checked"], "envOverride": "SKIP_DB"}},
      "new": {"fileTriggers": {"pathPatterns": ["src/*"], "createOnly": true}}}}"#;

    struct Given {
        variable: &'static str,
        contents: Option<&'static str>,
    }

    impl Surroundings for Given {
        fn is_set(&self, variable: &str) -> bool {
            variable == self.variable
        }

        fn contents(&self) -> Option<String> {
            self.contents.map(str::to_owned)
        }
    }

    fn skills() -> Vec<NamedSkill> {
        let reading = parse(RULES.as_bytes(), Scope::All).unwrap();
        assert!(reading.findings.is_empty(), "{:?}", reading.findings);
        reading.rules.named
    }

    fn announced(announcements: &[Announcement]) -> Vec<String> {
        announcements.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_prompt_announces_all_skills_it_triggers_by_priority() {
        let around = |variable| Given { variable, contents: None };
        let prompt = "Alter the TABLE and its css";
        let effects = on_prompt(&skills(), prompt, &around(""));
        assert_eq!(effects.activation.as_deref(), Some("database"));
        assert_eq!(
            announced(&effects.announcements),
            [
                "[ACTIVATE:database] (required before going on; priority critical)",
                "[ACTIVATE:style] (suggested; priority low)"
            ]
        );
        assert_eq!(
            on_prompt(&skills(), prompt, &around("SKIP_DB")).activation.as_deref(),
            Some("style")
        );
        assert_eq!(on_prompt(&skills(), "hello", &around("")), Effects::default());
    }

    #[test]
    fn a_change_announces_a_skill_whose_path_and_contents_both_match() {
        let change = |tool: &str, created, path: &str, contents, variable| {
            let used = ToolUse { name: tool.into(), created, ..ToolUse::default() };
            let project = Project::of_root(Path::new("/p"));
            let around = Given { variable, contents };
            announced(&on_change(&skills(), &used, Path::new(path), &project, &around))
        };
        let sql = |path, contents, variable| change("Edit", false, path, contents, variable);
        assert_eq!(
            sql("/p/a/b.sql", Some("DROP TABLE x"), ""),
            ["[ACTIVATE:database] (required before going on; priority critical)\n\
                 look at /p/a/b.sql"]
        );
        for (path, contents, variable) in [
            ("/p/a/b.sql", Some("SELECT"), ""),
            ("/p/a/b.sql", None, ""),
            ("/p/a/b.sql", Some("DROP -- @checked"), ""),
            ("/p/a/b.sql", Some("DROP"), "SKIP_DB"),
            ("/p/test/b.sql", Some("DROP"), ""),
            ("/p/a/b.txt", Some("DROP"), ""),
            ("/elsewhere/b.sql", Some("DROP"), ""),
        ] {
            assert!(sql(path, contents, variable).is_empty(), "{path} {contents:?} {variable}");
        }
        assert!(
            change("Read", false, "/p/a/b.sql", Some("DROP"), "").is_empty(),
            "nothing was changed"
        );
        assert_eq!(change("Write", true, "/p/src/a", None, "").len(), 1);
        assert!(
            change("Write", false, "/p/src/a", None, "").is_empty(),
            "the file was there before"
        );
    }
}
