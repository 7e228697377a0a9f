//! Reads the values of rules, and reports those of a wrong type or form.

use std::borrow::Cow;

use super::super::source::Node;
use super::super::{RuleFinding, Scope, Weight};
use crate::document::json_type::JsonType;
use crate::hook::files::FilePattern;
use crate::hook::pattern::{Case, Pattern};
use crate::name::{Name, nearest};

/// Fields that are allowed everywhere: remarks.
pub(super) const REMARKS: [&str; 4] = ["description", "comment", "_comment", "$schema"];

/// An object's fields, `null` ones left out.
pub(super) struct Fields<'a>(pub Vec<(Cow<'a, str>, Node<'a>)>);

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, node)| *node)
    }
}

/// Reads values, and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    pub scope: Scope<'a>,
    findings: Vec<RuleFinding>,
    unused: Vec<Unused>,
}

/// A field for other programs that hooks ignore: reported once, however often it occurs.
struct Unused {
    name: String,
    why: &'static str,
    first: RuleFinding,
    count: usize,
}

impl Unused {
    fn finding(self) -> RuleFinding {
        let Self { name, why, first, count } = self;
        let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
        RuleFinding { message: format!("`{name}` is not used{times}: {why}"), ..first }
    }
}

impl<'a> Reader<'a> {
    /// One that reads what `scope` needs.
    pub(super) fn of(scope: Scope<'a>) -> Self {
        Self { scope, findings: Vec::new(), unused: Vec::new() }
    }

    /// What it has found, in the order of the lines.
    pub(super) fn into_findings(self) -> Vec<RuleFinding> {
        let mut findings = self.findings;
        findings.extend(self.unused.into_iter().map(Unused::finding));
        findings.sort_by_key(|finding| finding.line);
        findings
    }

    pub(super) fn find(&mut self, node: Node<'a>, weight: Weight, message: String) {
        let (line, place) = (node.line(), node.place());
        self.findings.push(RuleFinding { line, place, message, weight });
    }

    /// Notes a field that is there and that hooks do not use.
    pub(super) fn unused(&mut self, fields: &Fields<'a>, name: &str, why: &'static str) {
        let Some(node) = fields.get(name).filter(|_| self.scope == Scope::All) else { return };
        match self.unused.iter_mut().find(|unused| unused.name == name) {
            Some(unused) => unused.count += 1,
            None => {
                let (line, place) = (node.line(), node.place());
                let first =
                    RuleFinding { line, place, message: String::new(), weight: Weight::Odd };
                self.unused.push(Unused { name: name.to_owned(), why, first, count: 1 });
            }
        }
    }

    /// Notes all fields but these and remarks.
    pub(super) fn unused_but(&mut self, fields: &Fields<'a>, known: &[&str]) {
        let others = fields.0.iter().map(|(name, _)| &**name);
        for name in others.filter(|name| !known.contains(name) && !REMARKS.contains(name)) {
            self.unused(fields, name, "hooks do not know it");
        }
    }

    pub(super) fn bad(&mut self, node: Node<'a>, message: impl Into<String>) {
        self.find(node, Weight::Bad, message.into());
    }

    fn must_be<T>(&mut self, node: Node<'a>, wanted: JsonType) -> Option<T> {
        if node.kind() != wanted {
            return self.must_be_like(node, wanted.noun());
        }
        self.bad(node, "it has an escape in it that is half a character");
        None
    }

    pub(super) fn must_be_like<T>(&mut self, node: Node<'a>, wanted: &str) -> Option<T> {
        self.bad(node, format!("it must be {wanted}, and this is {}", node.kind().noun()));
        None
    }

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
