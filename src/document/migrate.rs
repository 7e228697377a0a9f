//! Migration: pure steps from an older form of the document to the current one.
//!
//! A document is old for one of two reasons. It declares an older version: the steps of the
//! [`schema`] convert it. Or it has fields that an older rule allowed: `from_legacy` corrects
//! them, whatever version the document declares.

use serde_json::{Map, Value, json};

use super::lazy::LazyDocument;
use super::rules::{self, Finding};
use super::schema::{self, OldForm, Version};
use super::seal::{Document, Older};

/// A document in the current form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migrated {
    /// The document.
    pub value: Value,
    /// Its previous form, if that was another.
    pub from: Option<OldForm>,
}

/// A document that a newer program wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooNew {
    /// Its `schemaVersion`.
    pub version: String,
}

/// The reason why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A newer program wrote it.
    TooNew(TooNew),
    /// It breaks these rules even in the current form.
    Invalid(Vec<Finding>),
}

/// The version that a document declares: a string, or a number as old hooks wrote it.
fn declared(document: &Value) -> Option<String> {
    match document.get("schemaVersion")? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Refuses a document with a newer schema than this program's: it must not be overwritten.
pub fn refuse_newer(document: &Value) -> Result<(), TooNew> {
    let newer = |text: &String| Version::parse(text) > Version::parse(schema::current().version);
    declared(document).filter(newer).map_or(Ok(()), |version| Err(TooNew { version }))
}

/// Returns whether a document declares the current form.
fn is_present(document: &Value) -> bool {
    let text = document.get("schemaVersion").and_then(Value::as_str);
    text.is_some_and(|text| Version::parse(text) == Version::parse(schema::current().version))
}

/// Returns whether a document has the current form and satisfies the rules; its skeleton is enough.
pub fn is_current(document: &Value) -> bool {
    is_present(document) && rules::check(document).is_empty()
}

/// Migrates a document to the current form. A document in that form is returned unchanged; one that
/// no step can correct is returned with the rules still broken.
pub fn to_current(document: &Value) -> Result<Migrated, TooNew> {
    refuse_newer(document)?;
    if is_current(document) {
        return Ok(Migrated { value: document.clone(), from: None });
    }
    let from = match declared(document) {
        Some(version) if !is_present(document) => OldForm::Schema(version),
        _ => OldForm::Legacy,
    };
    let mut value = document.clone();
    let Some(fields) = value.as_object_mut() else {
        return Ok(Migrated { value, from: None });
    };
    from_legacy(fields);
    step_forward(&mut value);
    let fields = value.as_object_mut();
    let metadata = fields.map(|fields| fields.entry("metadata").or_insert_with(|| json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("migrated".into(), true.into());
        metadata.insert("migratedFrom".into(), from.to_string().into());
    }
    Ok(Migrated { value, from: Some(from) })
}

/// The document in the current form, if it satisfies the rules there.
pub fn usable(document: &Value) -> Result<Migrated, Unfit> {
    let migrated = to_current(document).map_err(Unfit::TooNew)?;
    match rules::check(&migrated.value) {
        findings if findings.is_empty() => Ok(migrated),
        findings => Err(Unfit::Invalid(findings)),
    }
}

/// A sealed document with its value in the current form, if it satisfies the rules there.
pub fn usable_sealed(document: Document) -> Result<Document, Unfit> {
    if is_current(document.value.skeleton()) {
        return Ok(document);
    }
    let Migrated { value, from } = usable(&document.value)?;
    let Some(from) = from else { return Ok(document) };
    let older = Some(Older { from, value: document.value });
    Ok(Document { value: LazyDocument::from(value), seal: document.seal, older })
}

/// Applies the steps from the version that a document declares; from an unknown version, all of
/// them.
pub(super) fn step_forward(document: &mut Value) {
    let (schema, version) = (schema::current(), declared(document));
    let version = version.as_deref().and_then(Version::parse);
    let Some(fields) = document.as_object_mut() else { return };
    for step in schema.steps.iter().filter(|step| Version::parse(step.from) >= version) {
        (step.apply)(fields);
    }
    if fields.contains_key("schemaVersion") {
        fields.insert("schemaVersion".into(), schema.version.into());
    } else {
        fields.shift_insert(0, "schemaVersion".into(), schema.version.into());
    }
}

/// Corrects the forms that the shell scripts and their hooks wrote: times at the top, nulls for
/// "nothing", numbers for names. `phase` is never invented: a document without one is not a state
/// document.
fn from_legacy(fields: &mut Map<String, Value>) {
    for name in ["phase", "lastActivation"] {
        if let Some(Value::Number(number)) = fields.get(name) {
            let digits = number.to_string();
            fields.insert(name.into(), digits.into());
        }
    }
    for (name, nothing) in
        [("completedTasks", json!([])), ("signals", json!({})), ("lastActivation", json!(""))]
    {
        if fields.get(name).is_none_or(Value::is_null) {
            fields.insert(name.into(), nothing);
        }
    }
    for (name, nothing) in [("metadata", json!({})), ("degradedMode", Value::Null)] {
        if fields.get(name).is_some_and(Value::is_null) {
            if nothing.is_null() {
                fields.shift_remove(name);
            } else {
                fields.insert(name.into(), nothing);
            }
        }
    }
    // A time at the top moves into metadata, unless metadata has one of its own; then both are
    // kept.
    for name in ["created", "lastModified"] {
        if !fields.get(name).is_some_and(Value::is_string) {
            continue;
        }
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if metadata.get(name).is_none()
            && metadata.is_object()
            && let Some(time) = fields.shift_remove(name)
            && let Some(Value::Object(metadata)) = fields.get_mut("metadata")
        {
            metadata.insert(name.into(), time);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn migrated(document: Value) -> Migrated {
        let migrated = to_current(&document).unwrap();
        assert_eq!(rules::check(&migrated.value), [], "{document}");
        assert_eq!(
            to_current(&migrated.value).unwrap(),
            Migrated { from: None, ..migrated.clone() },
            "idempotent"
        );
        migrated
    }

    #[test]
    fn a_document_of_the_present_schema_stays_as_it_is() {
        let seed = json!({
            "schemaVersion": "1.0", "phase": "pre-init", "completedTasks": [],
            "signals": {"PHASE1_START": 1635789123.456}, "lastActivation": "SPEC_GEN_V1",
            "metadata": {"created": "x"}
        });
        assert_eq!(migrated(seed.clone()), Migrated { value: seed, from: None });
    }

    #[test]
    fn the_smallest_legacy_document_is_migrated() {
        let smallest =
            json!({"phase": "pre-init", "completedTasks": [], "signals": {}, "lastActivation": ""});
        let Migrated { value, from } = migrated(smallest);
        assert_eq!(from, Some(OldForm::Legacy));
        assert_eq!(value["schemaVersion"], "1.0");
        assert_eq!(value["metadata"], json!({"migrated": true, "migratedFrom": "legacy"}));
        assert_eq!(value.as_object().unwrap().keys().next().unwrap(), "schemaVersion");
    }

    #[test]
    fn nothing_that_a_template_put_there_is_lost() {
        let template = json!({
            "phase": "{{PHASE}}", "completedTasks": [],
            "signals": {"A": null, "B": null, "C": null, "D": null, "E": null, "F": null, "G": null,
            "H": null},
            "lastActivation": "", "metadata": {"version": "3.0", "project": "{{PROJECT_NAME}}"},
            "context": {"a": [1]}, "statistics": {"n": 0}
        });
        let value = migrated(template.clone()).value;
        for field in ["phase", "signals", "context", "statistics"] {
            assert_eq!(value[field], template[field]);
        }
        assert_eq!(value["metadata"]["version"], "3.0");
        assert_eq!(value["metadata"]["project"], "{{PROJECT_NAME}}");
    }

    #[test]
    fn what_old_hooks_wrote_is_understood() {
        let old = super::super::json::parse(
            br#"{"schemaVersion":"1.0","phase":1.50,"completedTasks":null,
                "signals":{"A":1635789123,"B":true},
                "lastActivation":7,"degradedMode":null,"metadata":null}"#,
        )
        .unwrap();
        let Migrated { value, from } = migrated(old);
        assert_eq!(from, Some(OldForm::Legacy));
        assert_eq!((&value["phase"], &value["lastActivation"]), (&json!("1.50"), &json!("7")));
        assert_eq!(value["signals"].to_string(), r#"{"A":1635789123,"B":true}"#);
        assert_eq!(migrated(json!({"phase": "1.5"})).value["phase"], "1.5");
    }

    #[test]
    fn times_at_the_top_move_into_metadata() {
        let value =
            migrated(json!({"phase": "x", "created": "2023", "lastModified": "2024"})).value;
        assert_eq!(value["metadata"]["created"], "2023");
        assert_eq!(value.get("created"), None);
        let both =
            migrated(json!({"phase": "x", "created": "2023", "metadata": {"created": "2022"}}))
                .value;
        assert_eq!(
            (&both["created"], &both["metadata"]["created"]),
            (&json!("2023"), &json!("2022"))
        );
    }

    #[test]
    fn an_older_version_migrates_a_newer_is_refused() {
        assert_eq!(
            migrated(json!({"schemaVersion": "0.9", "phase": "x"})).from,
            Some(OldForm::Schema("0.9".to_owned()))
        );
        for version in [json!("1.1"), json!("2.0"), json!("10.0"), json!(2)] {
            assert!(
                to_current(&json!({"schemaVersion": version, "phase": "x"})).is_err(),
                "{version}"
            );
        }
    }

    #[test]
    fn a_phase_is_never_invented() {
        for document in [json!({}), json!({"name": "my-package"}), json!({"phase": null})] {
            assert_ne!(rules::check(&to_current(&document).unwrap().value), []);
        }
    }
}
