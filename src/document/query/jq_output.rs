//! Documents in jq's representation, made from a text and written to one without a [`Value`].

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;
use jaq_json::{Map, Num, Rc, Val};
use serde_json::Value;

use super::number::of_digits;
use super::{FilterError, MAX_DEPTH, is_deeper_than, to_number, to_val, to_value, too_deep, unfit};
use crate::document::json::{self, Make};
use crate::document::lazy::{LazyDocument, SKELETON_FIELDS};
use crate::document::pretty::Printer;

/// The output of a program for a document: JSON, with the keys in the order of that document. Its
/// strings may share the document's text.
#[derive(Debug)]
pub struct JqOutput {
    val: Val,
    kept_the_rest: bool,
    old_text: Bytes,
}

impl JqOutput {
    /// Takes the output of a program for `old`; the strings of `old` are parts of `old_text`.
    pub(super) fn of(old: &Val, old_text: &Bytes, mut val: Val) -> Result<Self, FilterError> {
        if is_deeper_than(&val, MAX_DEPTH) {
            // Dropping it recurses, and may overflow the stack. Leaked, its reference count keeps
            // other owners from dropping it too.
            mem::forget(val);
            return Err(too_deep("produced").into());
        }
        let kept_the_rest = settle(Some(old), &mut val, &SKELETON_FIELDS)?;
        Ok(Self { val, kept_the_rest, old_text: old_text.clone() })
    }

    /// The text that many of its strings are parts of; empty if there is none.
    pub(in crate::document) fn old_text(&self) -> Bytes {
        self.old_text.clone()
    }

    /// An existing document of which at most the skeleton is changed.
    pub(in crate::document) fn of_text(text: &Bytes) -> Option<Self> {
        let val = json::make(text, Vals { text, numbers: Numbers::AsWritten }).ok()?;
        Some(Self { val, kept_the_rest: true, old_text: text.clone() })
    }

    /// Returns whether all fields outside of the skeleton are unchanged.
    pub(in crate::document) fn kept_the_rest(&self) -> bool {
        self.kept_the_rest
    }

    /// The object with these fields whole, and only the type of others.
    pub(in crate::document) fn skeleton(&self, whole: &[&str]) -> Option<Value> {
        let Val::Obj(map) = &self.val else { return None };
        let fields = map.iter().filter_map(|(key, val)| {
            let key = text_of(key)?;
            let value = if whole.contains(&key) { to_value(val.clone()).ok()? } else { shell(val) };
            Some((key.to_owned(), value))
        });
        Some(Value::Object(fields.collect()))
    }

    /// The whole value.
    pub(in crate::document) fn into_value(self) -> Value {
        to_value(self.val).unwrap_or_default()
    }

    /// One of its fields as a value.
    pub(in crate::document) fn value(&self, key: &str) -> Option<Value> {
        self.field(key).and_then(|(_, Shown(val))| to_value(val.clone()).ok())
    }

    /// One of its fields, with its name.
    pub(in crate::document) fn field(&self, key: &str) -> Option<(&[u8], Shown<'_>)> {
        let Val::Obj(map) = &self.val else { return None };
        let (key, val) = map.get_key_value(&Val::utf8_str(key.to_owned()))?;
        Some((bytes_of(key)?, Shown(val)))
    }
}

fn bytes_of(val: &Val) -> Option<&[u8]> {
    match val {
        Val::TStr(text) => Some(text),
        _ => None,
    }
}

fn text_of(val: &Val) -> Option<&str> {
    bytes_of(val).and_then(|text| std::str::from_utf8(text).ok())
}

/// An empty value of the same type, or a scalar as it is.
fn shell(val: &Val) -> Value {
    match val {
        Val::Null => Value::Null,
        Val::Bool(bool) => Value::Bool(*bool),
        Val::Num(number) => to_number(number).unwrap_or_default(),
        Val::BStr(_) | Val::TStr(_) => Value::String(String::new()),
        Val::Arr(_) => Value::Array(Vec::new()),
        Val::Obj(_) => Value::Object(serde_json::Map::new()),
    }
}

/// Refuses values that JSON cannot hold, and puts the keys in the order of `old`, new ones last: jq
/// reorders keys when it deletes others. Returns whether all is unchanged except for the fields
/// `aside`. Shared values are skipped.
fn settle(old: Option<&Val>, new: &mut Val, aside: &[&str]) -> Result<bool, String> {
    Ok(match (old, new) {
        (Some(Val::Arr(old)), Val::Arr(new)) if Rc::ptr_eq(old, new) => true,
        (Some(Val::Obj(old)), Val::Obj(new)) if Rc::ptr_eq(old, new) => true,
        (old, Val::Arr(new)) => {
            let old = if let Some(Val::Arr(old)) = old { Some(old) } else { None };
            let mut is_same = old.is_some_and(|old| old.len() == new.len());
            for (at, val) in Rc::make_mut(new).iter_mut().enumerate() {
                is_same &= settle(old.and_then(|old| old.get(at)), val, &[])?;
            }
            is_same
        }
        (old, Val::Obj(new)) => {
            let old = if let Some(Val::Obj(old)) = old { Some(old) } else { None };
            let new = Rc::make_mut(new);
            let mut is_same = old.is_some();
            for (key, val) in new.iter_mut() {
                let Val::TStr(name) = key else {
                    return Err(unfit("an object key that is not a string"));
                };
                let name =
                    std::str::from_utf8(name).map_err(|_| unfit("a string that is not UTF-8"))?;
                is_same &=
                    settle(old.and_then(|old| old.get(key)), val, &[])? || aside.contains(&name);
            }
            let count = |map: &Map| {
                map.keys()
                    .filter(|key| text_of(key).is_none_or(|key| !aside.contains(&key)))
                    .count()
            };
            if let Some(old) = old {
                is_same &= old.len() == new.len() || count(old) == count(new);
                order_keys(old, new);
            }
            is_same
        }
        (Some(Val::TStr(old)), Val::TStr(new)) if old == new => true,
        (_, Val::TStr(new)) => {
            std::str::from_utf8(new).map_err(|_| unfit("a string that is not UTF-8"))?;
            false
        }
        (_, Val::BStr(_)) => return Err(unfit("a byte string")),
        (Some(Val::Num(old)), Val::Num(new)) => has_same_digits(old, new)?,
        (_, Val::Num(new)) => to_number(new).map(|_| false)?,
        (Some(Val::Bool(old)), Val::Bool(new)) => old == new,
        (old, Val::Null) => matches!(old, Some(Val::Null)),
        (_, Val::Bool(_)) => false,
    })
}

fn has_same_digits(old: &Num, new: &Num) -> Result<bool, String> {
    match (old, new) {
        (Num::Int(old), Num::Int(new)) => Ok(old == new),
        (Num::Dec(old), Num::Dec(new)) if Rc::ptr_eq(old, new) => Ok(true),
        (Num::BigInt(old), Num::BigInt(new)) if Rc::ptr_eq(old, new) => Ok(true),
        _ => Ok(to_number(new)? == to_number(old)?),
    }
}

fn order_keys(old: &Map, new: &mut Map) {
    if old.keys().filter(|key| new.contains_key(*key)).zip(new.keys()).all(|(old, new)| old == new)
    {
        return;
    }
    let mut ordered = Map::default();
    for key in old.keys() {
        if let Some(val) = new.get_mut(key) {
            ordered.insert(key.clone(), mem::take(val));
        }
    }
    new.retain(|key, _| !old.contains_key(key));
    ordered.extend(mem::take(new));
    *new = ordered;
}

/// A value to be written.
pub(in crate::document) struct Shown<'a>(&'a Val);

impl Shown<'_> {
    pub(in crate::document) fn print(&self, printer: &mut Printer) -> Option<()> {
        match self.0 {
            Val::Null => printer.word("null"),
            Val::Bool(true) => printer.word("true"),
            Val::Bool(false) => printer.word("false"),
            Val::Num(Num::Int(number)) => printer.integer(*number),
            Val::Num(number) => printer.value(&to_number(number).ok()?),
            Val::BStr(text) | Val::TStr(text) => printer.string(text),
            Val::Arr(list) => printer.array(&**list, |printer, val| Shown(val).print(printer)),
            Val::Obj(map) => {
                let fields = map.iter().filter_map(|(key, val)| Some((bytes_of(key)?, val)));
                printer.object(fields, |printer, val| Shown(val).print(printer))
            }
        }
    }
}

/// The document in jq's representation.
pub(super) fn input(document: &LazyDocument) -> Result<Val, FilterError> {
    match document.text() {
        Some(text) => json::make(&text, Vals { text: &text, numbers: Numbers::ForJq })
            .map_err(|error| error.to_string().into()),
        None => Ok(to_val(document, 0)?),
    }
}

/// Builds jq's values; their strings are parts of the text.
#[derive(Clone, Copy)]
struct Vals<'t> {
    text: &'t Bytes,
    numbers: Numbers,
}

/// The representation of a number that is not a small integer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// A large integer that can be calculated with.
    ForJq,
    /// Its digits are kept.
    AsWritten,
}

impl<'t> Make<'t> for Vals<'t> {
    type Node = Val;
    type Object = Map;

    fn inside(self, _: Option<&str>) -> Self {
        self
    }

    fn null(self) -> Val {
        Val::Null
    }

    fn bool(self, value: bool) -> Val {
        Val::Bool(value)
    }

    fn number(self, digits: &'t str) -> Val {
        // As an integer it would lose its sign.
        let integer = digits.parse().ok().filter(|_| digits != "-0");
        match integer {
            Some(integer) => Val::Num(Num::Int(integer)),
            None if digits == "-0" || self.numbers == Numbers::AsWritten => {
                Val::Num(Num::Dec(digits.to_owned().into()))
            }
            None => Val::Num(of_digits(digits)),
        }
    }

    fn string(self, text: Cow<'t, str>) -> Val {
        match text {
            Cow::Borrowed(part) if self.text.as_ptr_range().contains(&part.as_ptr()) => {
                Val::utf8_str(self.text.slice_ref(part.as_bytes()))
            }
            text => Val::utf8_str(text.into_owned()),
        }
    }

    fn array(self, elements: Vec<Val>) -> Val {
        Val::Arr(elements.into())
    }

    fn insert(self, object: &mut Map, key: Cow<'t, str>, node: Val) -> Result<(), Cow<'t, str>> {
        let name = self.string(key.clone());
        if object.contains_key(&name) {
            return Err(key);
        }
        object.insert(name, node);
        Ok(())
    }

    fn object(self, object: Map) -> Val {
        Val::obj(object)
    }
}
