//! Decisions for skills by name ([`super::rules::named`]): which are announced, in which order.

use super::announce::Announcement;
use super::decide::Effects;
use super::event::{ToolOutcome, ToolUse};
use super::files::Project;
use super::rules::named::{ChangeScope, FileTriggers, NamedSkill};

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
    let lower = prompt.to_lowercase();
    let triggered = |skill: &&NamedSkill| {
        skill.keywords.iter().any(|keyword| lower.contains(keyword))
            || skill.intents.iter().any(|intent| intent.is_match(prompt))
    };
    let skills = skills.iter().filter(triggered).filter(|skill| !is_switched_off(skill, around));
    let announced = announce(skills, |_| None);
    Effects {
        activation: announced.first().map(|(name, _)| (*name).to_owned()),
        announcements: announced.into_iter().map(|(_, announcement)| announcement).collect(),
        ..Effects::default()
    }
}

/// Announces all skills that the change of a file triggers, by priority. `path` is absolute.
pub fn on_change(
    skills: &[NamedSkill],
    used: &ToolUse,
    path: &std::path::Path,
    project: &Project,
    around: &dyn Surroundings,
) -> Vec<Announcement> {
    if used.outcome == ToolOutcome::Failed || READERS.contains(&used.name.as_str()) {
        return Vec::new();
    }
    let is_meant = |triggers: &FileTriggers| {
        let matches = |pattern| project.is_meant(pattern, path);
        (triggers.changes == ChangeScope::All || used.created)
            && triggers.paths.iter().any(matches)
            && !triggers.exclusions.iter().any(matches)
    };
    let meant = |skill: &&NamedSkill| {
        skill.files.as_ref().is_some_and(is_meant) && !is_switched_off(skill, around)
    };
    let meant: Vec<&NamedSkill> = skills.iter().filter(meant).collect();
    let looks_inside = |skill: &&NamedSkill| {
        !skill.skip.markers.is_empty()
            || skill.files.as_ref().is_some_and(|files| !files.contents.is_empty())
    };
    let text = if meant.iter().any(looks_inside) { around.contents() } else { None };
    let fits = |skill: &&NamedSkill| {
        let contents = skill.files.as_ref().map_or(&[][..], |files| &files.contents);
        let has = |regex: &regex::Regex| text.as_ref().is_some_and(|text| regex.is_match(text));
        let is_marked = |marker: &String| text.as_ref().is_some_and(|text| text.contains(marker));
        (contents.is_empty() || contents.iter().any(has))
            && !skill.skip.markers.iter().any(is_marked)
    };
    let shown = path.display().to_string();
    let message =
        |skill: &NamedSkill| Some(skill.block_message.as_ref()?.replace("{file_path}", &shown));
    let announced = announce(meant.into_iter().filter(fits), message);
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
    use std::path::Path;

    use super::*;
    use crate::hook::rules::{Scope, parse};

    const RULES: &str = r#"{"skills": {
      "style": {"priority": "low", "promptTriggers": {"keywords": ["CSS"]}},
      "database": {"enforcement": "block", "priority": "critical", "blockMessage": "look at {file_path}",
        "promptTriggers": {"intentPatterns": ["alter.*?table"]},
        "fileTriggers": {"pathPatterns": ["**/*.sql"], "pathExclusions": ["**/test/**"], "contentPatterns": ["DROP"]},
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
            [
                "[ACTIVATE:database] (required before going on; priority critical)\nlook at /p/a/b.sql"
            ]
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
