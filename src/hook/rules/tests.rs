#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::hook::event::ToolUse;

fn findings(text: &str) -> Vec<String> {
    parse(text.as_bytes(), Scope::All).unwrap().findings.iter().map(ToString::to_string).collect()
}

fn used(tool: &str) -> ToolUse {
    ToolUse { name: tool.to_owned(), ..ToolUse::default() }
}

#[test]
fn every_bad_rule_is_found_at_its_line_and_the_others_are_kept() {
    let text = r#"{
  "skills": [
    {"skill": "good", "activation_code": "GOOD", "trigger_conditions": {"user_patterns": ["x"]}},
    {"skill": "a", "activation_code": "A",
     "trigger_conditions": {"user_patterns": [
       "fine",
       "un(closed"]}},
    {"skill": "b", "activation_code": "not a code", "trigger_conditions": {"user_patterns": ["x"]}},
    {"activation_code": "C", "trigger_conditions": {}},
    7
  ],
  "phase_transitions": {
    "GOOD": {"next_activation": "GOOD", "auto_trigger": true, "delay_seconds": 1.5},
    "bad signal": {"next_activation": "GOOD"},
    "D": {"auto_trigger": "yes",
          "delay_seconds": -1}
  },
  "tool_rules": [
    {"tool": "Write", "path_glob": "[", "emit_signal": "E"},
    {"tool": "Write", "path_glob": "a", "command_regex": "b", "emit_signal": "../etc"},
    {"tool": "Write"},
    {"tool": "Good", "emit_signal": "GOOD"}
  ]
}"#;
    let reading = parse(text.as_bytes(), Scope::All).unwrap();
    let found: Vec<(usize, &str)> =
        reading.bad().map(|finding| (finding.line, finding.place.as_str())).collect();
    assert_eq!(
        found,
        [
            (7, "skills[1].trigger_conditions.user_patterns[1]"),
            (8, "skills[2].activation_code"),
            (9, "skills[3]"),
            (9, "skills[3].trigger_conditions"),
            (10, "skills[4]"),
            (14, "phase_transitions.bad signal"),
            (15, "phase_transitions.D"),
            (15, "phase_transitions.D.auto_trigger"),
            (16, "phase_transitions.D.delay_seconds"),
            (19, "tool_rules[0].path_glob"),
            (20, "tool_rules[1]"),
            (20, "tool_rules[1].emit_signal"),
            (21, "tool_rules[2]"),
        ]
    );
    let Rules { skills, transitions, tool_rules, .. } = reading.rules;
    assert_eq!((skills.len(), transitions.len(), tool_rules.len()), (1, 1, 1));
    assert_eq!((&transitions[0].start, transitions[0].delay), (&Start::Automatic, 1.5));
}

#[test]
fn of_a_tools_use_only_its_own_rules_are_read() {
    let text = r#"{"skills": 7, "tool_rules": [
      {"tool": "Read|Write", "emit_signal": "A"}, {"tool": "Wri.e", "emit_signal": "B"},
      {"tool": "*", "emit_signal": "C"}, {"tool": "Wr", "emit_signal": "D"},
      {"tool": "Bash", "command_regex": "(", "emit_signal": "E"}]}"#;
    let emitted = |tool: &str| {
        let reading = parse(text.as_bytes(), Scope::Tool(&used(tool))).unwrap();
        let names =
            reading.rules.tool_rules.iter().map(|rule| rule.emits.as_ref().unwrap().to_string());
        (names.collect::<Vec<_>>().concat(), reading.bad().count())
    };
    assert_eq!(emitted("Write"), ("ABC".to_owned(), 0));
    assert_eq!(emitted("Read"), ("AC".to_owned(), 0));
    assert_eq!(emitted("Bash"), ("C".to_owned(), 1));
}

#[test]
fn a_rule_for_another_command_is_checked_and_not_kept() {
    let text = r#"{"tool_rules": [
      {"tool": "Bash", "command_regex": "make +all", "emit_signal": "A"},
      {"tool": "Bash", "command_regex": "make|[c]argo", "emit_signal": "B"},
      {"tool": "Bash", "command_regex": "make", "emit_signal": "no name"},
      {"tool": "Bash", "command_regex": "x", "emit_signal": "D"},
      {"tool": "Bash", "emit_signal": "E"}]}"#;
    let kept = |command: Option<&str>| {
        let used = ToolUse { command: command.map(str::to_owned), ..used("Bash") };
        let reading = parse(text.as_bytes(), Scope::Tool(&used)).unwrap();
        assert_eq!(reading.bad().count(), 1, "whatever the command is");
        reading.rules.tool_rules.iter().map(|rule| rule.index).collect::<Vec<_>>()
    };
    assert_eq!(kept(Some("make  all")), [0, 1, 4]);
    assert_eq!(kept(Some("cargo")), [1, 4]);
    assert_eq!(kept(Some("ls")), [4]);
    assert_eq!(kept(None), [4]);
}

#[test]
fn misspelt_fields_get_a_suggestion_and_do_no_harm() {
    let text = r#"{"skils": [], "tool_rules": [
      {"tool": "T", "emit_signal": "S", "path_globs": "x", "priority": 7, "description": "d"}],
      "phase_transitions": {"S": {"next_activation": "NOBODY", "auto_triger": true}}}"#;
    let found = findings(text);
    assert_eq!(found.len(), 4, "{found:#?}");
    for (found, words) in found.iter().zip(["`skills`", "`path_glob`", "`auto_trigger`", "NOBODY"])
    {
        assert!(found.contains("note: ") && found.contains(words), "{found}");
    }
    assert_eq!(parse(text.as_bytes(), Scope::Tool(&used("T"))).unwrap().rules.tool_rules.len(), 1);
}

#[test]
fn fields_that_hooks_do_not_use_are_named_once_each_and_change_nothing() {
    let text = r#"{"version": "2.0", "activation_mode": "codeword",
      "error_recovery": {"max_retries": 3}, "skills": [
        {"skill": "a", "activation_code": "A", "phase": 0, "priority": 1,
         "outputs": {"signals": ["S"]},
         "trigger_conditions": {"user_patterns": ["a"], "phase_state": "ready"}},
        {"skill": "b", "activation_code": "B", "phase": 1.50, "priority": 2,
         "outputs": {"signals": ["T"]},
         "trigger_conditions": {"user_patterns": ["b"], "phase_state": "ready",
         "signals_detected": ["S"]}}]}"#;
    let reading = parse(text.as_bytes(), Scope::All).unwrap();
    assert_eq!(reading.bad().count(), 0);
    let phases: Vec<_> = reading.rules.skills.iter().map(|skill| skill.phase.as_deref()).collect();
    assert_eq!(phases, [Some("0"), Some("1.50")], "a number is its digits");
    let found = findings(text);
    assert_eq!(found.len(), 5, "{found:#?}");
    for (name, line) in [
        ("error_recovery", 2),
        ("priority` is not used (2 times)", 3),
        ("outputs", 4),
        ("phase_state", 5),
        ("signals_detected", 9),
    ] {
        let is_it =
            |found: &&String| found.contains(name) && found.starts_with(&format!("{line}: note: "));
        assert_eq!(found.iter().filter(is_it).count(), 1, "{name}: {found:#?}");
    }
    assert!(parse(text.as_bytes(), Scope::Prompts).unwrap().findings.is_empty());
}

#[test]
fn a_transition_that_needs_approval_is_not_automatic() {
    let start = |fields: &str| {
        let text = format!(
            r#"{{"phase_transitions": {{
                "S": {{"next_activation": "A", "auto_trigger": true{fields}}}}}}}"#
        );
        parse(text.as_bytes(), Scope::All).unwrap().rules.transitions.remove(0).start
    };
    for free in ["", r#", "requires_user_confirmation": false"#, r#", "approval_gate": false"#] {
        assert_eq!(start(free), Start::Automatic, "{free}");
    }
    assert_eq!(
        start(r#", "approval_gate": "GO""#),
        Start::Approved(Name::parse("signal", "GO").unwrap())
    );
    for asking in [
        r#", "requires_user_confirmation": true"#,
        r#", "requires_user_command": true"#,
        r#", "approval_gate": true"#,
    ] {
        assert_eq!(start(asking), Start::Suggested, "{asking}");
    }
    let last =
        r#"{"phase_transitions": {"DONE": {"next_activation": null, "auto_trigger": false}}}"#;
    let reading = parse(last.as_bytes(), Scope::All).unwrap();
    assert!(
        reading.findings.is_empty() && reading.rules.transitions.is_empty(),
        "{:?}",
        reading.findings
    );
}

/// The form of `.claude/skills/skill-rules.json`, with fields that other programs use.
const BY_NAME: &str = r#"{"version": "1.0", "description": "d", "notes": {"a": "b"},
  "skills": {
    "_comment": "not a skill",
    "style": {"type": "domain", "enforcement": "suggest", "priority": "low", "description": "d",
      "promptTriggers": {"keywords": ["CSS"], "intentPatterns": ["(make|draw).*?page"]}},
    "team/database": {"type": "guardrail", "enforcement": "block", "priority": "critical",
      "promptTriggers": {"keywords": ["column"],
        "intentPatterns": ["(?!x)add", "(a)\\1", "alter.*?table"]},
      "fileTriggers": {"pathPatterns": ["**/*.sql", "["], "pathExclusions": ["**/test/**"],
        "contentPatterns": ["DROP\\s+TABLE"], "createOnly": false},
      "blockMessage": "look at {file_path}",
      "skipConditions": {"sessionSkillUsed": true, "fileMarkers": ["@checked"],
        "envOverride": "SKIP_DB"}},
    "odd": {"enforcement": "remind", "priority": 7, "alwaysActivate": true,
      "promptTriggers": {"keywords": ["odd"]}},
    "idle": {"enforcement": "warn", "priority": "high"}}}"#;

#[test]
fn unusable_patterns_of_skills_by_name_are_skipped() {
    let reading = parse(BY_NAME.as_bytes(), Scope::All).unwrap();
    let bad: Vec<String> = reading.bad().map(|finding| finding.place.clone()).collect();
    let place = "skills.team/database.";
    assert_eq!(
        bad,
        [
            format!("{place}promptTriggers.intentPatterns[0]"),
            format!("{place}promptTriggers.intentPatterns[1]"),
            format!("{place}fileTriggers.pathPatterns[1]")
        ]
    );
    let notes: Vec<String> = reading.findings.iter().map(ToString::to_string).collect();
    for words in [
        "`type` is not used (2 times)",
        "`sessionSkillUsed` is not used",
        "`alwaysActivate` is not used",
        "one of suggest",
        "one of critical",
        "skills.idle",
    ] {
        assert!(
            notes.iter().any(|note| note.contains("note: ") && note.contains(words)),
            "{words}: {notes:#?}"
        );
    }
    let Rules { form, named, skills, .. } = reading.rules;
    assert_eq!((form, named.len(), skills.len()), (Form::Object, 4, 0));
    assert_eq!((named[1].intents.len(), named[1].files.as_ref().unwrap().paths.len()), (1, 1));
    assert_eq!((named[2].priority, named[2].enforcement), Default::default());
}

#[test]
fn only_the_parts_of_named_skills_that_an_event_needs_are_read() {
    let named = |scope| parse(BY_NAME.as_bytes(), scope).unwrap().rules.named;
    assert!(named(Scope::Prompts).iter().all(|skill| skill.files.is_none()));
    let edit = named(Scope::Tool(&used("Edit")));
    assert!(edit.iter().all(|skill| skill.keywords.is_empty() && skill.intents.is_empty()));
    assert!(edit.iter().any(|skill| skill.files.is_some()));
}

#[test]
fn content_patterns_of_which_none_can_be_used_match_nothing() {
    let text = concat!(
        r#"{"skills": {"s": {"fileTriggers": {"pathPatterns": ["*"], "#,
        r#""contentPatterns": ["(?<=a)b"]}}}}"#
    );
    let reading = parse(text.as_bytes(), Scope::Tool(&used("Edit"))).unwrap();
    assert!(reading.rules.named[0].files.is_none());
}

#[test]
fn a_text_that_is_no_object_is_of_no_use_and_says_at_which_line() {
    for (text, line) in [
        ("", 1),
        ("[]", 1),
        ("\n\n7", 3),
        ("{\n\"skills\": [,]\n}", 2),
        ("{\n}\n}", 3),
        ("{\"a\":\n\"", 2),
        ("\u{feff}\u{feff}{}", 1),
    ] {
        let fault = parse(text.as_bytes(), Scope::All).unwrap_err();
        assert_eq!(fault.line, line, "{text:?}: {fault}");
    }
    assert_eq!(parse(b"{\n\"\xff\"}", Scope::All).unwrap_err().line, 2);
    for fine in [
        "{}",
        "\u{feff}{}",
        "{\"skills\": null}",
        "{\"$schema\": \"x\", \"phase_transitions\": {\"_comment\": \"y\"}}",
    ] {
        assert_eq!(findings(fine), Vec::<String>::new(), "{fine}");
    }
    assert!(findings(r#"{"skills": 7, "tool_rules": 7, "phase_transitions": []}"#).len() == 3);
    assert!(findings(r#"{"skills": [], "skills": []}"#)[0].contains("twice"));
    assert!(findings(r#"{"skills": [{"skill": "\ud800"}]}"#)[0].contains("half a character"));
}

#[test]
fn a_pattern_that_would_take_all_memory_is_refused() {
    let text = concat!(
        r#"{"tool_rules": [{"tool": "T", "command_regex": "((a{1,100}){1,100}){1,100}", "#,
        r#""emit_signal": "S"}]}"#
    );
    assert!(findings(text)[0].contains("size limit"), "{:?}", findings(text));
    let deep =
        format!(r#"{{"tool_rules": [{{"tool": "{}", "emit_signal": "S"}}]}}"#, "(".repeat(100_000));
    assert_eq!(findings(&deep).len(), 1);
    let nested = format!("{{\"skills\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(nested.as_bytes(), Scope::All).unwrap().bad().count(), 1);
}

#[test]
fn an_invalid_delay_is_reported_with_its_reason() {
    let problems_of = |delay: &str| {
        let transition = format!(r#"{{"next_activation": "A", "delay_seconds": {delay}}}"#);
        findings(&format!(r#"{{"phase_transitions": {{"S": {transition}}}}}"#)).concat()
    };
    for (delay, wrong) in [
        ("-5", "and it is negative"),
        ("-1e400", "and it is negative"),
        ("1e308", "and it is over 1000000000"),
        ("1e400", "and it is over 1000000000"),
        ("\"5\"", "and this is a string"),
    ] {
        let problems = problems_of(delay);
        assert!(
            problems.contains("delay_seconds: it must be a number of seconds, 0 or more, ")
                && problems.contains(wrong),
            "{problems}"
        );
    }
    for fine in ["0", "-0", "0.5", "1e9"] {
        assert!(!problems_of(fine).contains("delay_seconds"), "{}", problems_of(fine));
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_finds_faults_within_the_text(
        text in "[\\[\\]{}\",:\\\\ \na-z0-9\\*\\(]{0,80}",
    ) {
        let lines = 1 + text.matches('\n').count();
        let found = match parse(text.as_bytes(), Scope::All) {
            Ok(reading) => reading.findings,
            Err(fault) => vec![fault],
        };
        prop_assert!(found.iter().all(|finding| (1..=lines).contains(&finding.line)));
    }

    #[test]
    fn no_field_of_a_rule_can_make_it_panic(
        field in "tool|path_glob|command_regex|requires_signal|emit_signal|phase|message",
        value in "\\PC{0,40}",
    ) {
        let value = serde_json::Value::String(value);
        let conditions = format!(r#"{{"user_patterns": [{value}], "file_patterns": [{value}]}}"#);
        let text = format!(
            r#"{{"tool_rules": [{{"tool": "T", "{field}": {value}}}], "skills": [
            {{"skill": "s", "activation_code": "A", "trigger_conditions": {conditions}}}]}}"#
        );
        prop_assert!(parse(text.as_bytes(), Scope::All).is_ok());
    }
}
