//! The node types that a text is parsed into.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Number, Value};

/// Builds nodes from the tokens of a text.
pub(in crate::document) trait Make<'t>: Copy {
    /// The node of a value.
    type Node;
    /// An object that is being read.
    type Object: Default;

    /// The builder for nodes inside an array, or under a key of an object.
    fn inside(self, key: Option<&str>) -> Self;
    fn null(self) -> Self::Node;
    fn bool(self, value: bool) -> Self::Node;
    /// A number, as written in the text.
    fn number(self, digits: &'t str) -> Self::Node;
    fn string(self, text: Cow<'t, str>) -> Self::Node;
    /// Returns whether this array's elements are needed.
    fn keeps_elements(self) -> bool {
        true
    }
    fn array(self, elements: Vec<Self::Node>) -> Self::Node;
    /// Returns the key as an error if the object has it already.
    fn insert(
        self,
        object: &mut Self::Object,
        key: Cow<'t, str>,
        node: Self::Node,
    ) -> Result<(), Cow<'t, str>>;
    fn object(self, object: Self::Object) -> Self::Node;
}

/// Builds values.
#[derive(Clone, Copy)]
pub(super) enum Plain {
    /// The whole value.
    Whole,
    /// The document; only these fields are built whole.
    Top(&'static [&'static str]),
    /// A field of the document of which only the type is needed.
    Shell,
    /// The contents of such a field, which are not needed.
    Nothing,
}

impl Plain {
    fn is_whole(self) -> bool {
        matches!(self, Self::Whole)
    }
}

/// An object with contents that may not be needed. Duplicate keys are found all the same.
#[derive(Default)]
pub(super) struct Object<'t> {
    map: Map<String, Value>,
    keys: Keys<'t>,
}

impl<'t> Make<'t> for Plain {
    type Node = Value;
    type Object = Object<'t>;

    fn inside(self, key: Option<&str>) -> Self {
        match (self, key) {
            (Self::Whole, _) => Self::Whole,
            (Self::Top(whole), Some(key)) if whole.contains(&key) => Self::Whole,
            (Self::Top(_), Some(_)) => Self::Shell,
            _ => Self::Nothing,
        }
    }

    fn null(self) -> Value {
        Value::Null
    }

    fn bool(self, value: bool) -> Value {
        Value::Bool(value)
    }

    fn number(self, digits: &'t str) -> Value {
        if matches!(self, Self::Nothing) {
            return Value::Null;
        }
        // `Number::from_str` would rewrite the exponent; the parser has checked the digits.
        Value::Number(Number::from_string_unchecked(digits.to_owned()))
    }

    fn string(self, text: Cow<'t, str>) -> Value {
        Value::String(if self.is_whole() { text.into_owned() } else { String::new() })
    }

    fn keeps_elements(self) -> bool {
        self.is_whole()
    }

    fn array(self, elements: Vec<Value>) -> Value {
        Value::Array(elements)
    }

    fn insert(
        self,
        object: &mut Object<'t>,
        key: Cow<'t, str>,
        node: Value,
    ) -> Result<(), Cow<'t, str>> {
        if !matches!(self, Self::Whole | Self::Top(_)) {
            return object.keys.insert(key);
        }
        if object.map.contains_key(&*key) {
            return Err(key);
        }
        object.map.insert(key.into_owned(), node);
        Ok(())
    }

    fn object(self, object: Object<'t>) -> Value {
        Value::Object(object.map)
    }
}

/// The keys of an object: usually few, which are compared one by one.
#[derive(Default)]
struct Keys<'t> {
    first: Vec<Cow<'t, str>>,
    others: HashSet<Cow<'t, str>>,
}

impl<'t> Keys<'t> {
    const FEW: usize = 16;

    fn insert(&mut self, key: Cow<'t, str>) -> Result<(), Cow<'t, str>> {
        if self.first.contains(&key) || self.others.contains(&key) {
            return Err(key);
        }
        if self.first.len() < Self::FEW {
            self.first.push(key);
        } else {
            self.others.insert(key);
        }
        Ok(())
    }
}
