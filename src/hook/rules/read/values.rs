//! Reads the values of rules, and reports those of a wrong type or form.

use std::borrow::Cow;

use super::super::source::Node;
use super::super::{Scope, Weight};
use super::{Fields, REMARKS, Reader};
use crate::document::json_type::JsonType;
use crate::hook::files::FilePattern;
use crate::hook::pattern::{Case, Pattern};
use crate::name::{Name, nearest};

impl<'a> Reader<'a> {
    /// The fields of an object, the first of equal ones; notes misspelt `known` ones.
    pub(super) fn object(&mut self, node: Node<'a>, known: &[&str]) -> Option<Fields<'a>> {
        let Some(fields) = node.fields() else { return self.must_be(node, JsonType::Object) };
        let mut kept: Vec<(Cow<'a, str>, Node<'a>)> = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            if kept.iter().any(|(other, _)| *other == name) {
                self.bad(value, "the key is used twice in one object");
                continue;
            }
            if let Some(meant) = meant_by(&name, known) {
                self.find(
                    value,
                    Weight::Odd,
                    format!("there is no field `{name}`; did you mean `{meant}`?"),
                );
            }
            kept.push((name, value));
        }
        kept.retain(|(_, value)| !value.is_null());
        Some(Fields(kept))
    }

    /// The usable rules of an array, one for each element.
    pub(super) fn each<T>(
        &mut self,
        top: &Fields<'a>,
        name: &str,
        read: fn(&mut Self, Node<'a>, usize) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = top.get(name) else { return Vec::new() };
        let Some(elements) = node.elements() else {
            self.must_be::<()>(node, JsonType::Array);
            return Vec::new();
        };
        elements
            .enumerate()
            .filter_map(|(index, node)| self.unless_bad(|reader| read(reader, node, index)))
            .collect()
    }

    /// The result of `read`, if it reports no bad finding.
    pub(super) fn unless_bad<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.count_bad();
        read(self).filter(|_| self.count_bad() == before)
    }

    pub(super) fn count_bad(&self) -> usize {
        self.findings.iter().filter(|finding| finding.weight == Weight::Bad).count()
    }

    pub(super) fn text(&mut self, node: Node<'a>) -> Option<Cow<'a, str>> {
        let Some(text) = node.text() else {
            return self.must_be(node, JsonType::String);
        };
        if text.trim().is_empty() {
            self.bad(node, "it is empty");
            return None;
        }
        Some(text)
    }

    pub(super) fn owned(&mut self, node: Node<'a>) -> Option<String> {
        self.text(node).map(Cow::into_owned)
    }

    pub(super) fn name(&mut self, node: Node<'a>, what: &str) -> Option<Name> {
        let text = self.text(node)?;
        self.as_name(node, what, &text)
    }

    pub(super) fn as_name(&mut self, node: Node<'a>, what: &str, text: &str) -> Option<Name> {
        Name::parse(what, text).map_err(|error| self.bad(node, error.message)).ok()
    }

    pub(super) fn required<T>(
        &mut self,
        rule: Node<'a>,
        fields: &Fields<'a>,
        name: &str,
        read: impl FnOnce(&mut Self, Node<'a>) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = fields.get(name) else {
            self.bad(rule, format!("it has no `{name}`"));
            return None;
        };
        read(self, node)
    }

    pub(super) fn optional<T>(
        &mut self,
        fields: &Fields<'a>,
        name: &str,
        read: impl FnOnce(&mut Self, Node<'a>) -> Option<T>,
    ) -> Option<T> {
        fields.get(name).and_then(|node| read(self, node))
    }

    pub(super) fn list<T>(
        &mut self,
        fields: &Fields<'a>,
        name: &str,
        read: impl Fn(&mut Self, Node<'a>) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = fields.get(name) else { return Vec::new() };
        let Some(elements) = node.elements() else {
            self.must_be_like::<()>(node, "an array of strings");
            return Vec::new();
        };
        elements.filter_map(|element| read(self, element)).collect()
    }

    pub(super) fn pattern(&mut self, node: Node<'a>, case: Case) -> Option<Pattern> {
        let text = self.text(node)?;
        self.checked(node, &text, Pattern::parse(&text, case))
    }

    /// Reports a pattern that cannot be used; one that is only too large where everything is read.
    pub(super) fn checked(
        &mut self,
        node: Node<'a>,
        text: &str,
        parsed: Result<Pattern, String>,
    ) -> Option<Pattern> {
        let compiled = parsed.and_then(|pattern| {
            if self.scope == Scope::All {
                pattern.compile()?;
            }
            Ok(pattern)
        });
        compiled.map_err(|why| self.bad(node, is_bad(text, why))).ok()
    }

    pub(super) fn glob(
        &mut self,
        node: Node<'a>,
        parse: impl FnOnce(&str) -> Result<FilePattern, String>,
    ) -> Option<FilePattern> {
        let text = self.text(node)?;
        parse(&text).map_err(|why| self.bad(node, format!("{text:?} is not a glob: {why}"))).ok()
    }

    pub(super) fn flag(&mut self, node: Node<'a>) -> Option<bool> {
        node.value::<bool>().or_else(|| self.must_be_like(node, "true or false"))
    }

    /// A phase: a text, or the digits of a number.
    pub(super) fn phase(&mut self, node: Node<'a>) -> Option<String> {
        node.digits().map(str::to_owned).or_else(|| self.owned(node))
    }

    /// A required file and its possible places: as named, below `docs/`, and with `.md`.
    pub(super) fn places(&mut self, node: Node<'a>) -> Option<Vec<FilePattern>> {
        let as_named = self.glob(node, FilePattern::under_the_root)?;
        let name = self.text(node)?;
        let others = [format!("docs/{name}"), format!("{name}.md")];
        let others = others.iter().filter_map(|name| FilePattern::under_the_root(name).ok());
        Some(std::iter::once(as_named).chain(others).collect())
    }
}

pub(super) fn is_bad(pattern: &str, why: String) -> String {
    format!("{pattern:?} is not a regular expression: {why}")
}

/// The known field closest to a misspelt name.
fn meant_by<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if known.contains(&name) || REMARKS.contains(&name) {
        return None;
    }
    nearest(name, known.iter().copied())
}
