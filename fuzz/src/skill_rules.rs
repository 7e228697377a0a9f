//! The input of hooks: the rules in `config/`, and the event that an editor sends. Any bytes are
//! read or refused.

use pipeline_state::hook::event::{HookEvent, ToolUse};
use pipeline_state::hook::rules::{Scope, parse};

pub fn check(bytes: &[u8]) {
    explains_rules(bytes);
    if let Ok(event) = HookEvent::parse(bytes) {
        let again = HookEvent::parse(bytes).expect("it was read just now");
        assert_eq!(format!("{again:?}"), format!("{event:?}"));
    }
}

/// Every finding names an existing line and a problem; a narrower scope has no more findings.
fn explains_rules(bytes: &[u8]) {
    let used = ToolUse { name: "Bash".to_owned(), ..ToolUse::default() };
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
    let reading = match parse(bytes, Scope::All) {
        Ok(reading) => reading,
        Err(finding) => {
            assert!(
                (1..=lines).contains(&finding.line) && !finding.message.is_empty(),
                "{finding:?}"
            );
            for scope in [Scope::Prompts, Scope::Tool(&used)] {
                parse(bytes, scope).expect_err("of what is no rules nothing can be used");
            }
            return;
        }
    };
    for finding in &reading.findings {
        assert!((1..=lines).contains(&finding.line) && !finding.message.is_empty(), "{finding:?}");
    }
    for scope in [Scope::Prompts, Scope::Tool(&used)] {
        let part =
            parse(bytes, scope).expect("rules are rules, however much of them is read").rules;
        assert!(
            part.skills.len() <= reading.rules.skills.len()
                && part.tool_rules.len() <= reading.rules.tool_rules.len()
        );
    }
}
