//! The next document, before it is sealed.

use serde_json::{Map, Value};

use super::body::{Body, OUTLINED};
use super::parts::Parts;
use super::pretty::Printer;
use super::query::Made;
use super::seal::are_same_without_seal;
use super::{json, schema};

/// A new document, made as a value or by jq. The output of jq is not converted: it is checked and
/// sealed by its outline: the [`OUTLINED`] fields of the outline are written in place of its own.
#[derive(Debug)]
pub struct Draft {
    outline: Value,
    made: Option<Made>,
    /// Fields that are whole in the outline, in addition to [`OUTLINED`].
    besides: Vec<String>,
}

impl From<Value> for Draft {
    fn from(value: Value) -> Self {
        Self { outline: value, made: None, besides: Vec::new() }
    }
}

impl From<Made> for Draft {
    fn from(made: Made) -> Self {
        match made.outline(&OUTLINED) {
            Some(outline) => Self { outline, made: Some(made), besides: Vec::new() },
            None => made.into_value().into(), // not an object: a check reports it
        }
    }
}

impl Draft {
    /// A draft of an existing document, in which these fields can be changed. The others are not
    /// parsed.
    pub fn again<'a>(base: &Body, fields: impl IntoIterator<Item = &'a str>) -> Self {
        let made = base.text().and_then(|text| Made::again(&text));
        let (Some(made), Value::Object(outline)) = (made, base.outline()) else {
            return Value::clone(base).into();
        };
        let (mut outline, mut besides) = (outline.clone(), Vec::new());
        for name in fields.into_iter().filter(|name| !OUTLINED.contains(name)) {
            if let Some(value) = made.value(name) {
                outline.insert(name.to_owned(), value);
                besides.push(name.to_owned());
            }
        }
        Self { outline: outline.into(), made: Some(made), besides }
    }

    fn is_whole(&self, field: &str) -> bool {
        OUTLINED.contains(&field) || self.besides.iter().any(|name| name == field)
    }

    /// The changeable part of the document: the fields requested, and those of [`OUTLINED`].
    pub fn root_mut(&mut self) -> &mut Value {
        &mut self.outline
    }

    /// The document with the [`OUTLINED`] fields whole. Of the others only the type need be right.
    pub fn outline(&self) -> &Value {
        &self.outline
    }

    /// The fields of the outline, if it is an object. Only those of [`OUTLINED`] may be changed.
    pub(super) fn fields_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.outline.as_object_mut()
    }

    /// Sets `schemaVersion` to the current schema.
    pub fn say_schema(&mut self) {
        if let Some(fields) =
            self.fields_mut().filter(|fields| !fields.contains_key("schemaVersion"))
        {
            fields.shift_insert(0, "schemaVersion".into(), schema::current().version.into());
        }
    }

    /// Returns whether it equals the document that it was made from, apart from the fields of the
    /// seal.
    pub fn is_same_as(&self, base: &Body) -> bool {
        match &self.made {
            None => are_same_without_seal(&self.outline, base),
            Some(made) if base.text().is_some() => {
                let mut outline = self.outline.clone();
                let is_same = |name: &String| made.value(name).as_ref() == self.outline.get(name);
                for name in &self.besides {
                    if let (Some(field), Some(old)) =
                        (outline.get_mut(name), base.outline().get(name))
                    {
                        *field = old.clone();
                    }
                }
                made.kept_the_rest()
                    && self.besides.iter().all(is_same)
                    && are_same_without_seal(&outline, base.outline())
            }
            Some(_) => are_same_without_seal(&self.to_value(), base),
        }
    }

    /// The document's text as written to a file. `None` if it holds values that JSON cannot hold;
    /// jq's outputs are checked for these.
    pub fn to_text(&self) -> Option<Parts> {
        let mut printer = Printer::over(self.made.as_ref().map(Made::old_text).unwrap_or_default());
        match (&self.made, &self.outline) {
            (Some(made), Value::Object(fields)) => {
                let fields = fields.iter().map(|(key, value)| {
                    let field = made.field(key).filter(|_| !self.is_whole(key));
                    field.map_or((key.as_bytes(), Err(value)), |(key, field)| (key, Ok(field)))
                });
                printer.object(fields, |printer, field| match field {
                    Ok(field) => field.print(printer),
                    Err(value) => printer.value(value),
                })?;
            }
            (_, outline) => printer.value(outline)?,
        }
        Some(printer.finish())
    }

    /// Returns whether it is nested too deep; jq's outputs are checked for this.
    pub fn is_nested_too_deep(&self) -> bool {
        json::is_nested_too_deep(&self.outline)
    }

    /// The whole document.
    pub fn to_value(&self) -> Value {
        match &self.made {
            None => self.outline.clone(),
            Some(_) => {
                self.to_text().and_then(|text| json::parse(&text.whole()).ok()).unwrap_or_default()
            }
        }
    }

    /// The document, once its text is written.
    pub(super) fn into_body(self, text: &Parts) -> Body {
        match self.made {
            None => self.outline.into(),
            Some(made) => {
                // It may be large, and the process is about to end: that frees it faster than
                // dropping it node by node.
                std::mem::forget(made);
                Body::outlined(self.outline, text.clone())
            }
        }
    }
}
