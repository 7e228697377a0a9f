//! The effects of an event, as a pure function of the rules, the event and the state.

use serde_json::Value;

use super::announce::Announcement;
use super::event::{ToolOutcome, ToolUse};
use super::files::FilePattern;
use super::pattern::Subject;
use super::rules::named::NamedSkill;
use super::rules::{Object, Rules, Skill, Start, ToolRule};
use crate::name::Name;

/// The effects of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Signals to give, in order.
    pub signals: Vec<Name>,
    /// The new phase.
    pub phase: Option<String>,
    /// The announced activation; the state keeps the last.
    pub activation: Option<String>,
    /// Announcements for the agent.
    pub announcements: Vec<Announcement>,
}

impl Effects {
    /// True if the effects change the state. A signal always does: it has a time.
    pub fn change(&self, state: &Value) -> bool {
        let is = |field: &str, new: Option<&str>| {
            new.is_none_or(|new| state.get(field).and_then(Value::as_str) == Some(new))
        };
        let same = self.signals.is_empty()
            && is("phase", self.phase.as_deref())
            && is("lastActivation", self.activation.as_deref());
        !same
    }

    /// The effects on the state, in words.
    pub fn in_words(&self) -> String {
        let names: Vec<&str> = self.signals.iter().map(Name::as_str).collect();
        match (names.as_slice(), &self.phase, &self.activation) {
            ([], Some(phase), None) => format!("the phase {phase}"),
            ([], _, Some(code)) => format!("the activation {code}"),
            ([], None, None) => "nothing".to_owned(),
            ([name], ..) => format!("the signal {name}"),
            (names, ..) => format!("each of the signals {}", names.join(", ")),
        }
    }
}

/// The first condition of a rule that an event does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// No pattern or keyword matches the prompt.
    Prompt,
    /// No file pattern matches a file.
    Files,
    /// A file that must exist is missing.
    Exists,
    /// The use of the tool failed.
    Failed,
    /// It is for other tools.
    Tool,
    /// The glob does not match the file.
    Path,
    /// The pattern does not match the command.
    Command,
    /// A required signal is missing.
    Signal,
    /// The tool changes no file.
    Unchanged,
    /// It counts only for new files.
    NotNew,
    /// An exclusion matches the file.
    Excluded,
    /// A variable of the environment switches it off.
    SwitchedOff,
    /// No pattern matches the file's contents.
    Contents,
    /// The file has a marker that switches it off.
    Marked,
    /// Another skill, which comes first, is activated.
    NotFirst,
}

impl Unmet {
    /// The condition in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Prompt => "nothing in it matches the prompt",
            Self::Files => "no file pattern matches a file",
            Self::Exists => "a file that must exist is missing",
            Self::Failed => "the use of the tool failed",
            Self::Tool => "it is for other tools",
            Self::Path => "its globs do not match the file",
            Self::Command => "its pattern does not match the command",
            Self::Signal => "the signal that it requires is missing",
            Self::Unchanged => "this tool changes no file",
            Self::NotNew => "it counts only for new files",
            Self::Excluded => "an exclusion matches the file",
            Self::SwitchedOff => "a variable of the environment switches it off",
            Self::Contents => "no pattern matches the contents of the file",
            Self::Marked => "a marker in the file switches it off",
            Self::NotFirst => "it matches, and another skill comes first",
        }
    }
}

/// The condition of a skill that a prompt does not meet. `has` returns true if a glob matches a
/// file.
pub fn unmet_by_prompt(
    skill: &Skill,
    prompt: &Subject<'_>,
    has: &dyn Fn(&FilePattern) -> bool,
) -> Option<Unmet> {
    let some = |patterns: &[FilePattern]| patterns.iter().any(has);
    let is_meant =
        skill.prompts.is_empty() || skill.prompts.iter().any(|pattern| pattern.is_match(prompt));
    if !is_meant {
        Some(Unmet::Prompt)
    } else if !skill.files.is_empty() && !some(&skill.files) {
        Some(Unmet::Files)
    } else if !skill.exists.iter().all(|file| some(file)) {
        Some(Unmet::Exists)
    } else {
        None
    }
}

/// The condition of a rule that this use of a tool does not meet, whatever signals it requires.
pub fn unmet_by_tool(
    rule: &ToolRule,
    used: &ToolUse,
    is_meant: &dyn Fn(&FilePattern) -> bool,
) -> Option<Unmet> {
    if used.outcome == ToolOutcome::Failed {
        return Some(Unmet::Failed);
    }
    if !rule.tool.matches(&used.name) {
        return Some(Unmet::Tool);
    }
    match &rule.object {
        Object::Path(pattern) if !is_meant(pattern) => Some(Unmet::Path),
        Object::Command(pattern)
            if !used
                .command
                .as_ref()
                .is_some_and(|command| pattern.is_match(&Subject::of(command))) =>
        {
            Some(Unmet::Command)
        }
        Object::Any | Object::Path(_) | Object::Command(_) => None,
    }
}

/// The signal that a rule requires, if the state has it not.
pub fn unmet_by_state(rule: &ToolRule, state: &Value) -> Option<Unmet> {
    let is_met = rule.requires.as_ref().is_none_or(|name| is_given(state, name));
    (!is_met).then_some(Unmet::Signal)
}

/// A prompt activates the first skill with all conditions met. `has` returns true if a glob matches
/// a file.
///
/// One matching file pattern suffices; every required file must exist, in one of its places.
pub fn on_prompt(rules: &Rules, prompt: &str, has: &dyn Fn(&FilePattern) -> bool) -> Effects {
    let prompt = Subject::of(prompt);
    let skill = rules.skills.iter().find(|skill| unmet_by_prompt(skill, &prompt, has).is_none());
    skill.map_or_else(Effects::default, |skill| Effects {
        signals: Vec::new(),
        phase: skill.phase.clone(),
        activation: Some(skill.code.to_string()),
        announcements: vec![Announcement::Activation { code: skill.code.clone(), delay: 0.0 }],
    })
}

/// Returns false if no rule is about this use of a tool. Compiles no regular expression, and reads
/// no file.
pub fn may_concern(rules: &Rules, used: &ToolUse, is_meant: &dyn Fn(&FilePattern) -> bool) -> bool {
    let by_rule = |rule: &ToolRule| match &rule.object {
        Object::Path(pattern) => is_meant(pattern),
        Object::Any | Object::Command(_) => true,
    };
    let by_skill = |skill: &NamedSkill| {
        skill.files.as_ref().is_some_and(|files| files.paths.iter().any(is_meant))
    };
    used.outcome == ToolOutcome::Done
        && (rules.tool_rules.iter().any(by_rule) || rules.named.iter().any(by_skill))
}

/// The rules about this use of a tool, whatever signals they require. A failed use matches none.
/// `is_meant` returns true if a glob means the file of the event.
pub fn concerned<'r>(
    rules: &'r Rules,
    used: &ToolUse,
    is_meant: &dyn Fn(&FilePattern) -> bool,
) -> Vec<&'r ToolRule> {
    rules.tool_rules.iter().filter(|rule| unmet_by_tool(rule, used, is_meant).is_none()).collect()
}

/// Applies the rules without a required signal, or with one that existed before the event, in the
/// order of the file: the last phase counts, and so does the last signal.
pub fn on_tool(concerned: &[&ToolRule], rules: &Rules, state: &Value) -> Effects {
    let mut effects = Effects::default();
    for rule in concerned.iter().filter(|rule| unmet_by_state(rule, state).is_none()) {
        if let Some(phase) = &rule.phase {
            effects.phase = Some(phase.clone());
        }
        if let Some(message) = &rule.message {
            effects.announcements.push(Announcement::Message(message.clone()));
        }
        if let Some(signal) = rule.emits.as_ref().filter(|signal| !effects.signals.contains(signal))
        {
            effects.signals.push(signal.clone());
        }
    }
    for signal in &effects.signals {
        for transition in rules.transitions.iter().filter(|transition| transition.signal == *signal)
        {
            let (code, delay) = (transition.next.clone(), transition.delay);
            let starts = match &transition.start {
                Start::Automatic => true,
                Start::Approved(gate) => is_given(state, gate) || effects.signals.contains(gate),
                Start::Suggested => false,
            };
            effects.announcements.push(if starts {
                effects.activation = Some(code.to_string());
                Announcement::Activation { code, delay }
            } else {
                Announcement::Suggestion { code, delay, signal: signal.clone() }
            });
        }
    }
    effects
}

fn is_given(state: &Value, signal: &Name) -> bool {
    let value = state.get("signals").and_then(|signals| signals.get(signal.as_str()));
    value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hook::rules::{Scope, parse};

    const RULES: &str = r#"{
      "skills": [
        {"skill": "s", "activation_code": "SPEC", "phase": "p1",
            "trigger_conditions": {"user_patterns": ["write .*spec", "^specify"]}},
        {"skill": "d", "activation_code": "DEPLOY",
            "trigger_conditions": {"user_patterns": ["deploy"], "file_patterns": ["a", "b"]}},
        {"skill": "x", "activation_code": "EXTRA", "trigger_conditions": {"file_patterns": ["x"]}}
      ],
      "phase_transitions": {
        "ONE": {"next_activation": "SPEC", "auto_trigger": true, "delay_seconds": 2},
        "TWO": {"next_activation": "DEPLOY"}
      },
      "tool_rules": [
        {"tool": "Write|Edit", "path_glob": "a", "emit_signal": "ONE", "phase": "p2",
            "message": "well done"},
        {"tool": "Bash", "command_regex": "^make", "emit_signal": "TWO", "phase": "p3"},
        {"tool": "*", "requires_signal": "ONE", "emit_signal": "TWO", "phase": "p4"},
        {"tool": "Note", "message": "noted"}
      ]}"#;

    fn rules() -> Rules {
        let reading = parse(RULES.as_bytes(), Scope::All).unwrap();
        assert!(reading.findings.is_empty(), "{:?}", reading.findings);
        reading.rules
    }

    fn signals(effects: &Effects) -> Vec<&str> {
        effects.signals.iter().map(Name::as_str).collect()
    }

    fn after(tool: &str, command: Option<&str>, signals: Value) -> Effects {
        let used = ToolUse {
            name: tool.into(),
            command: command.map(str::to_owned),
            ..ToolUse::default()
        };
        let rules = rules();
        on_tool(&concerned(&rules, &used, &|_| true), &rules, &json!({ "signals": signals }))
    }

    #[test]
    fn a_prompt_activates_the_first_skill_whose_conditions_all_hold() {
        let code = |prompt: &str, there: &[&str]| {
            let has = |pattern: &FilePattern| {
                there.iter().any(|name| format!("{pattern:?}").contains(&format!("{name:?}")))
            };
            on_prompt(&rules(), prompt, &has).activation
        };
        assert_eq!(
            code("please WRITE a good Spec", &[]).as_deref(),
            Some("SPEC"),
            "whatever the case"
        );
        assert_eq!(code("specify and deploy", &["a", "b"]).as_deref(), Some("SPEC"), "the first");
        assert_eq!(code("deploy", &["a", "b"]).as_deref(), Some("DEPLOY"));
        assert_eq!(code("deploy", &["b"]).as_deref(), Some("DEPLOY"), "any of the globs will do");
        assert_eq!(code("deploy", &["docs/a"]).as_deref(), Some("DEPLOY"), "below docs/");
        assert_eq!(code("deploy", &["a.md"]).as_deref(), Some("DEPLOY"), "with .md");
        assert_eq!(code("deploy", &["c"]), None, "one must match something");
        assert_eq!(code("anything", &["x"]).as_deref(), Some("EXTRA"), "no pattern, any prompt");
        assert_eq!(code("hello", &[]), None);
    }

    #[test]
    fn all_rules_that_match_take_effect_together() {
        let effects = after("Write", None, json!({"ONE": 1.5}));
        assert_eq!((signals(&effects), effects.phase.as_deref()), (vec!["ONE", "TWO"], Some("p4")));
        let announced: Vec<String> =
            effects.announcements.iter().map(ToString::to_string).collect();
        assert_eq!(announced[0], "well done");
        assert!(
            announced[1].starts_with("[ACTIVATE:SPEC]") && announced[1].contains("2 s"),
            "{announced:?}"
        );
        assert!(
            announced[2].contains("DEPLOY") && !announced[2].contains("[ACTIVATE:"),
            "{announced:?}"
        );
        assert_eq!(effects.activation.as_deref(), Some("SPEC"));
    }

    #[test]
    fn a_required_signal_must_have_been_there_before_the_event() {
        for absent in [json!({}), json!({"ONE": null}), json!({"ONE": false})] {
            assert_eq!(signals(&after("Edit", None, absent)), ["ONE"]);
        }
        assert_eq!(signals(&after("Read", None, json!({"ONE": "yes"}))), ["TWO"]);
    }

    #[test]
    fn a_tool_is_meant_by_its_whole_name_and_a_command_by_a_part() {
        assert_eq!(signals(&after("Bash", Some("make test"), json!({}))), ["TWO"]);
        for (tool, command) in [
            ("Bash", Some("cmake")),
            ("Bash", None),
            ("bash", Some("make")),
            ("BashOutput", Some("make")),
        ] {
            assert!(signals(&after(tool, command, json!({}))).is_empty(), "{tool} {command:?}");
        }
        assert!(signals(&after("MultiEdit", None, json!({}))).is_empty());
        assert_eq!(
            after("Note", None, json!({})).announcements,
            [Announcement::Message("noted".into())]
        );
    }

    #[test]
    fn effects_equal_to_the_state_are_no_change() {
        let effects =
            Effects { phase: Some("p".into()), activation: Some("A".into()), ..Effects::default() };
        assert!(!effects.change(&json!({"phase": "p", "lastActivation": "A"})));
        for other in [
            json!({"phase": "q", "lastActivation": "A"}),
            json!({"phase": "p", "lastActivation": ""}),
        ] {
            assert!(effects.change(&other));
        }
        assert!(!Effects::default().change(&json!({})));
    }
}
