//! The next document, before it is sealed.

use serde_json::{Map, Value};

use super::chunks::Chunks;
use super::contents::are_same_without_seal;
use super::lazy::{LazyDocument, SKELETON_FIELDS};
use super::pretty::Printer;
use super::query::JqOutput;
use super::{json, schema};

/// A new document, made as a value or by jq. The output of jq is not converted: it is checked and
/// sealed by its skeleton: the fields of the skeleton are written in place of its own.
#[derive(Debug)]
pub struct NewDocument {
    skeleton: Value,
    output: Option<JqOutput>,
    /// Fields that are whole in the skeleton, in addition to [`SKELETON_FIELDS`].
    extra_fields: Vec<String>,
}

impl From<Value> for NewDocument {
    fn from(value: Value) -> Self {
        Self { skeleton: value, output: None, extra_fields: Vec::new() }
    }
}

impl From<JqOutput> for NewDocument {
    fn from(output: JqOutput) -> Self {
        match output.skeleton(&SKELETON_FIELDS) {
            Some(skeleton) => Self { skeleton, output: Some(output), extra_fields: Vec::new() },
            None => output.into_value().into(), // not an object: a check reports it
        }
    }
}

impl NewDocument {
    /// A draft of an existing document, in which these fields can be changed. The others are not
    /// parsed.
    pub fn edit<'a>(base: &LazyDocument, fields: impl IntoIterator<Item = &'a str>) -> Self {
        let output = base.text().and_then(|text| JqOutput::of_text(&text));
        let (Some(output), Value::Object(skeleton)) = (output, base.skeleton()) else {
            return Value::clone(base).into();
        };
        let (mut skeleton, mut extra_fields) = (skeleton.clone(), Vec::new());
        for name in fields.into_iter().filter(|name| !SKELETON_FIELDS.contains(name)) {
            if let Some(value) = output.value(name) {
                skeleton.insert(name.to_owned(), value);
                extra_fields.push(name.to_owned());
            }
        }
        Self { skeleton: skeleton.into(), output: Some(output), extra_fields }
    }

    fn is_whole(&self, field: &str) -> bool {
        SKELETON_FIELDS.contains(&field) || self.extra_fields.iter().any(|name| name == field)
    }

    /// The changeable part of the document: the fields requested, and those of [`SKELETON_FIELDS`].
    pub fn root_mut(&mut self) -> &mut Value {
        &mut self.skeleton
    }

    /// The document with the [`SKELETON_FIELDS`] fields whole. Of the others only the type need be
    /// right.
    pub fn skeleton(&self) -> &Value {
        &self.skeleton
    }

    /// The fields of the skeleton, if it is an object. Only those of [`SKELETON_FIELDS`] may be
    /// changed.
    pub(super) fn fields_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.skeleton.as_object_mut()
    }

    /// Sets `schemaVersion` to the current schema.
    pub fn set_schema(&mut self) {
        if let Some(fields) =
            self.fields_mut().filter(|fields| !fields.contains_key("schemaVersion"))
        {
            fields.shift_insert(0, "schemaVersion".into(), schema::current().version.into());
        }
    }

    /// Returns whether it equals the document that it was made from, apart from the fields of the
    /// seal.
    pub fn is_same_as(&self, base: &LazyDocument) -> bool {
        match &self.output {
            None => are_same_without_seal(&self.skeleton, base),
            Some(output) if base.text().is_some() => {
                let mut skeleton = self.skeleton.clone();
                let is_same =
                    |name: &String| output.value(name).as_ref() == self.skeleton.get(name);
                for name in &self.extra_fields {
                    if let (Some(field), Some(old)) =
                        (skeleton.get_mut(name), base.skeleton().get(name))
                    {
                        *field = old.clone();
                    }
                }
                output.kept_the_rest()
                    && self.extra_fields.iter().all(is_same)
                    && are_same_without_seal(&skeleton, base.skeleton())
            }
            Some(_) => are_same_without_seal(&self.to_value(), base),
        }
    }

    /// The document's text as written to a file. `None` if it holds values that JSON cannot hold;
    /// jq's outputs are checked for these.
    pub fn to_text(&self) -> Option<Chunks> {
        let mut printer =
            Printer::over(self.output.as_ref().map(JqOutput::old_text).unwrap_or_default());
        match (&self.output, &self.skeleton) {
            (Some(output), Value::Object(fields)) => {
                let fields = fields.iter().map(|(key, value)| {
                    let field = output.field(key).filter(|_| !self.is_whole(key));
                    field.map_or((key.as_bytes(), Err(value)), |(key, field)| (key, Ok(field)))
                });
                printer.object(fields, |printer, field| match field {
                    Ok(field) => field.print(printer),
                    Err(value) => printer.value(value),
                })?;
            }
            (_, skeleton) => printer.value(skeleton)?,
        }
        Some(printer.finish())
    }

    /// Returns whether it is nested too deep; jq's outputs are checked for this.
    pub fn is_nested_too_deep(&self) -> bool {
        json::is_nested_too_deep(&self.skeleton)
    }

    /// The whole document.
    pub fn to_value(&self) -> Value {
        match &self.output {
            None => self.skeleton.clone(),
            Some(_) => {
                self.to_text().and_then(|text| json::parse(&text.whole()).ok()).unwrap_or_default()
            }
        }
    }

    /// The document, once its text is written.
    pub(super) fn into_document(self, text: &Chunks) -> LazyDocument {
        match self.output {
            None => self.skeleton.into(),
            Some(output) => {
                // It may be large, and the process is about to end: that frees it faster than
                // dropping it node by node.
                std::mem::forget(output);
                LazyDocument::with_skeleton(self.skeleton, text.clone())
            }
        }
    }
}
