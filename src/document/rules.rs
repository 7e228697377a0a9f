//! The schema's rules: a finding for each one a document breaks.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::path::{Path, Step};

/// The schema this program writes.
pub const SCHEMA: &str = "1.0";

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where, as a path; `.` for the document itself.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

type Test = fn(&Value) -> bool;

/// Field, whether it must be there, which types it may have, and the words for them.
const FIELDS: [(&str, Need, Test, &str); 8] = [
    ("schemaVersion", Need::Optional, Value::is_string, "a string"),
    ("phase", Need::Required, Value::is_string, "a string"),
    ("completedTasks", Need::Required, Value::is_array, "an array"),
    ("signals", Need::Required, Value::is_object, "an object"),
    ("lastActivation", Need::Required, Value::is_string, "a string"),
    ("lastSignal", Need::Optional, |value| value.is_string() || value.is_null(), "a string or null"),
    ("metadata", Need::Optional, Value::is_object, "an object"),
    ("degradedMode", Need::Optional, Value::is_object, "an object"),
];

/// All the rules that `document` breaks, in the order of the schema; empty for a good one.
#[must_use]
pub fn check(document: &Value) -> Vec<Finding> {
    let finding = |path: &str, problem: String| Finding { path: path.to_owned(), problem };
    let Some(fields) = document.as_object() else {
        return vec![finding(".", format!("must be an object, and is {}", type_of(document)))];
    };
    let mut findings = Vec::new();
    for (name, need, test, expected) in FIELDS {
        match fields.get(name) {
            None if need == Need::Required => {
                findings.push(finding(&format!(".{name}"), format!("is missing; it must be {expected}")));
            }
            Some(value) if !test(value) => {
                let problem = format!("must be {expected}, and is {}", type_of(value));
                findings.push(finding(&format!(".{name}"), problem));
            }
            _ => {}
        }
    }
    for (name, value) in fields.get("signals").and_then(Value::as_object).into_iter().flatten() {
        if value.is_object() || value.is_array() {
            let problem = format!("must be a number, string, boolean or null, and is {}", type_of(value));
            findings.push(finding(
                &Path(vec![Step::Key("signals".to_owned()), Step::Key(name.clone())]).to_string(),
                problem,
            ));
        }
    }
    if let Some(version) = fields.get("schemaVersion").and_then(Value::as_str)
        && version != SCHEMA
    {
        let problem = format!("is {version:?}; this program writes {SCHEMA:?}");
        findings.push(finding(".schemaVersion", problem));
    }
    findings
}

/// The type of a value in words that fit behind "is".
#[must_use]
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_broken_rule_is_a_finding_that_says_where_and_what() {
        let document = json!({
            "schemaVersion": "1.0", "phase": 3, "signals": {"A": 1, "B-2": []}, "lastActivation": "", "metadata": []
        });
        let findings: Vec<String> = check(&document).iter().map(ToString::to_string).collect();
        assert_eq!(
            findings,
            [
                ".phase: must be a string, and is a number",
                ".completedTasks: is missing; it must be an array",
                ".metadata: must be an object, and is an array",
                ".signals.\"B-2\": must be a number, string, boolean or null, and is an array",
            ]
        );
    }

    #[test]
    fn unknown_fields_break_no_rule() {
        let document = json!({
            "phase": "", "completedTasks": [1, {}], "signals": {"a": null, "b": true, "c": "x", "d": 1.5},
            "lastActivation": "", "context": {"anything": ["{{goes}}"]}
        });
        assert_eq!(check(&document), []);
    }
}
