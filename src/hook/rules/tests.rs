#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn findings(text: &str) -> Vec<String> {
    parse(text.as_bytes(), Scope::All).unwrap().findings.iter().map(ToString::to_string).collect()
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
    let found: Vec<(usize, &str)> = reading.bad().map(|finding| (finding.line, finding.place.as_str())).collect();
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
    let Rules { skills, transitions, tool_rules } = reading.rules;
    assert_eq!((skills.len(), transitions.len(), tool_rules.len()), (1, 1, 1));
    assert_eq!((transitions[0].start, transitions[0].delay), (Start::Automatic, 1.5));
}

#[test]
fn of_a_tools_use_only_its_own_rules_are_read() {
    let text = r#"{"skills": 7, "tool_rules": [
      {"tool": "Read|Write", "emit_signal": "A"}, {"tool": "Wri.e", "emit_signal": "B"}, {"tool": "*", "emit_signal": "C"},
      {"tool": "Wr", "emit_signal": "D"}, {"tool": "Bash", "command_regex": "(", "emit_signal": "E"}]}"#;
    let emitted = |tool: &str| {
        let reading = parse(text.as_bytes(), Scope::Tool(tool)).unwrap();
        let names = reading.rules.tool_rules.iter().map(|rule| rule.emits.as_ref().unwrap().to_string());
        (names.collect::<Vec<_>>().concat(), reading.bad().count())
    };
    assert_eq!(emitted("Write"), ("ABC".to_owned(), 0));
    assert_eq!(emitted("Read"), ("AC".to_owned(), 0));
    assert_eq!(emitted("Bash"), ("C".to_owned(), 1));
}

#[test]
fn what_was_probably_meant_is_said_and_harms_nothing() {
    let text = r#"{"skils": [], "tool_rules": [
      {"tool": "T", "emit_signal": "S", "path_globs": "x", "priority": 7, "description": "d"}],
      "phase_transitions": {"S": {"next_activation": "NOBODY", "auto_triger": true}}}"#;
    let found = findings(text);
    assert_eq!(found.len(), 4, "{found:#?}");
    for (found, words) in found.iter().zip(["`skills`", "`path_glob`", "`auto_trigger`", "NOBODY"]) {
        assert!(found.contains("note: ") && found.contains(words), "{found}");
    }
    assert_eq!(parse(text.as_bytes(), Scope::Tool("T")).unwrap().rules.tool_rules.len(), 1);
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
        ("\u{feff}{}", 1),
    ] {
        let fault = parse(text.as_bytes(), Scope::All).unwrap_err();
        assert_eq!(fault.line, line, "{text:?}: {fault}");
    }
    assert_eq!(parse(b"{\n\"\xff\"}", Scope::All).unwrap_err().line, 2);
    for fine in ["{}", "{\"skills\": null}", "{\"$schema\": \"x\", \"phase_transitions\": {\"_comment\": \"y\"}}"] {
        assert_eq!(findings(fine), Vec::<String>::new(), "{fine}");
    }
    assert!(findings(r#"{"skills": {}, "tool_rules": 7, "phase_transitions": []}"#).len() == 3);
    assert!(findings(r#"{"skills": [], "skills": []}"#)[0].contains("twice"));
    assert!(findings(r#"{"skills": [{"skill": "\ud800"}]}"#)[0].contains("half a character"));
}

#[test]
fn a_pattern_that_would_take_all_memory_is_refused() {
    let text = r#"{"tool_rules": [{"tool": "T", "command_regex": "((a{1,100}){1,100}){1,100}", "emit_signal": "S"}]}"#;
    assert!(findings(text)[0].contains("size limit"), "{:?}", findings(text));
    let deep = format!(r#"{{"tool_rules": [{{"tool": "{}", "emit_signal": "S"}}]}}"#, "(".repeat(100_000));
    assert_eq!(findings(&deep).len(), 1);
    let nested = format!("{{\"skills\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(nested.as_bytes(), Scope::All).unwrap().bad().count(), 1);
}

#[test]
fn a_delay_that_cannot_be_is_told_by_what_is_wrong_with_it() {
    let told = |delay: &str| {
        findings(&format!(r#"{{"phase_transitions": {{"S": {{"next_activation": "A", "delay_seconds": {delay}}}}}}}"#))
            .concat()
    };
    for (delay, wrong) in [
        ("-5", "and it is negative"),
        ("-1e400", "and it is negative"),
        ("1e308", "and it is over 1000000000"),
        ("1e400", "and it is over 1000000000"),
        ("\"5\"", "and this is a string"),
    ] {
        let told = told(delay);
        assert!(
            told.contains("delay_seconds: it must be a number of seconds, 0 or more, ") && told.contains(wrong),
            "{told}"
        );
    }
    for fine in ["0", "-0", "0.5", "1e9"] {
        assert!(!told(fine).contains("delay_seconds"), "{}", told(fine));
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_finds_faults_within_the_text(text in "[\\[\\]{}\",:\\\\ \na-z0-9\\*\\(]{0,80}") {
        let lines = 1 + text.matches('\n').count();
        let found = match parse(text.as_bytes(), Scope::All) {
            Ok(reading) => reading.findings,
            Err(fault) => vec![fault],
        };
        prop_assert!(found.iter().all(|finding| (1..=lines).contains(&finding.line)));
    }

    #[test]
    fn no_field_of_a_rule_can_make_it_panic(field in "tool|path_glob|command_regex|requires_signal|emit_signal|phase|message", value in "\\PC{0,40}") {
        let value = serde_json::Value::String(value);
        let text = format!(r#"{{"tool_rules": [{{"tool": "T", "{field}": {value}}}], "skills": [{{"skill": "s", "activation_code": "A", "trigger_conditions": {{"user_patterns": [{value}], "file_patterns": [{value}]}}}}]}}"#);
        prop_assert!(parse(text.as_bytes(), Scope::All).is_ok());
    }
}
