//! The schema's rules: a finding for each broken rule.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::json_type::JsonType;
use super::path::{DocPath, PathStep};
use super::schema::{self, Need};

/// The path of the document itself.
const WHOLE: &str = ".";

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The path; `.` for the document itself.
    pub path: String,
    /// The problem there.
    pub problem: String,
}

impl Finding {
    /// A problem of the whole document.
    pub fn of_document(problem: impl Into<String>) -> Self {
        Self { path: WHOLE.to_owned(), problem: problem.into() }
    }

    /// Returns whether it is about the whole document.
    pub fn is_of_document(&self) -> bool {
        self.path == WHOLE
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// The rules that `document` breaks, in the order of the schema; empty for a valid one.
pub fn check(document: &Value) -> Vec<Finding> {
    let finding = |path: &str, problem: String| Finding { path: path.to_owned(), problem };
    let Some(fields) = document.as_object() else {
        let problem = format!("must be an object, and is {}", type_of(document));
        return vec![Finding::of_document(problem)];
    };
    let mut findings = Vec::new();
    let schema = schema::current();
    for field in schema.fields {
        let (path, expected) = (format!(".{}", field.name), field.expected);
        match fields.get(field.name) {
            None if field.need == Need::Required => {
                findings.push(finding(&path, format!("is missing; it must be {expected}")));
            }
            Some(value) if !(field.test)(value) => {
                let problem = format!("must be {expected}, and is {}", type_of(value));
                findings.push(finding(&path, problem));
            }
            _ => {}
        }
    }
    for (name, value) in fields.get("signals").and_then(Value::as_object).into_iter().flatten() {
        // Old documents have objects there.
        if value.is_array() {
            let problem =
                "must be a number, string, boolean, object or null, and is an array".to_owned();
            findings.push(finding(
                &DocPath(vec![PathStep::Key("signals".to_owned()), PathStep::Key(name.clone())])
                    .to_string(),
                problem,
            ));
        }
    }
    if let Some(version) = fields.get("schemaVersion").and_then(Value::as_str)
        && version != schema.version
    {
        let problem = format!("is {version:?}; this program writes {:?}", schema.version);
        findings.push(finding(".schemaVersion", problem));
    }
    findings
}

/// The type of a value in words that fit after "is".
pub fn type_of(value: &Value) -> &'static str {
    JsonType::of(value).noun()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_broken_rule_is_a_finding_with_its_place() {
        let document = json!({
            "schemaVersion": "1.0", "phase": 3, "signals": {"A": 1, "B-2": []},
            "lastActivation": "", "metadata": []
        });
        let findings: Vec<String> = check(&document).iter().map(ToString::to_string).collect();
        assert_eq!(
            findings,
            [
                ".phase: must be a string, and is a number",
                ".completedTasks: is missing; it must be an array",
                ".metadata: must be an object, and is an array",
                ".signals.\"B-2\": must be a number, string, boolean, object or null, \
                 and is an array",
            ]
        );
    }

    #[test]
    fn unknown_fields_break_no_rule() {
        let document = json!({
            "phase": "", "completedTasks": [1, {}],
            "signals": {"a": null, "b": true, "c": "x", "d": 1.5},
            "lastActivation": "", "context": {"anything": ["{{goes}}"]}
        });
        assert_eq!(check(&document), []);
    }
}
