//! A JSON text with values that know their line and their place.
//!
//! One walk over the text notes where each value begins and ends. Nothing else is built: a hook
//! reads the rules many times a minute, and needs few of them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{RuleFinding, Weight};
use crate::document::json::lexer::{Lexer, Quoted};
use crate::document::json_type::JsonType;
use crate::document::text::without_mark;

/// Usual number of an object's fields.
const USUAL: usize = 8;

/// A JSON text and its values, in the order in which they begin. The keys of an object are among
/// them, each before its value.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    values: Vec<Span>,
}

/// The place of a value in the text.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: usize,
    end: usize,
    /// The index of the first value after it and after those inside it.
    next: usize,
}

/// A value in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    source: &'a Source<'a>,
    index: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, RuleFinding> {
        let fault = |line, message| RuleFinding {
            line,
            place: String::new(),
            message,
            weight: Weight::Bad,
        };
        let bytes = without_mark(bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            fault(1 + newlines(before), "it is not UTF-8".to_owned())
        })?;
        if text.trim().is_empty() {
            return Err(fault(1, "it is empty; `{}` is a file without rules".to_owned()));
        }
        let values =
            Walk::over(text).ok_or_else(|| match serde_json::from_str::<&RawValue>(text) {
                Err(error) => fault(
                    error.line().max(1),
                    format!("it is not valid JSON: {}", without_place(&error)),
                ),
                Ok(_) => fault(1, "it is not valid JSON".to_owned()),
            })?;
        Ok(Self { text, values })
    }

    pub(super) fn root(&'a self) -> Node<'a> {
        Node { source: self, index: 0 }
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// The message of serde_json without the line and column at its end.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

impl<'a> Node<'a> {
    fn span(self) -> Span {
        self.source.values.get(self.index).copied().unwrap_or(Span { begin: 0, end: 0, next: 0 })
    }

    /// The value as written.
    fn raw(self) -> &'a str {
        let Span { begin, end, .. } = self.span();
        self.source.text.get(begin..end).unwrap_or_default()
    }

    /// The line at which it begins.
    pub(super) fn line(self) -> usize {
        let before = self.source.text.as_bytes().get(..self.span().begin);
        1 + newlines(before.unwrap_or_default())
    }

    /// Its place in the document, as in `skills[2].phase`.
    pub(super) fn place(self) -> String {
        let (mut place, mut at) = (String::new(), self.source.root());
        while at.index < self.index {
            let holds = |child: &Self| (child.index..child.span().next).contains(&self.index);
            let step = match at.kind() {
                JsonType::Object => {
                    at.pairs().find(|(_, value)| holds(value)).map(|(key, value)| {
                        let dot = if place.is_empty() { "" } else { "." };
                        (format!("{dot}{}", key.text().unwrap_or(key.raw().into())), value)
                    })
                }
                _ => at
                    .inside()
                    .enumerate()
                    .find(|(_, value)| holds(value))
                    .map(|(index, value)| (format!("[{index}]"), value)),
            };
            let Some((step, child)) = step else { break };
            place.push_str(&step);
            at = child;
        }
        place
    }

    /// The type of the value.
    pub(super) fn kind(self) -> JsonType {
        JsonType::of_first_byte(self.raw().bytes().next())
    }

    pub(super) fn is_null(self) -> bool {
        self.kind() == JsonType::Null
    }

    /// True if it is a negative number, as written.
    pub(super) fn is_negative(self) -> bool {
        self.raw().starts_with('-')
    }

    /// The digits of a number, as written.
    pub(super) fn digits(self) -> Option<&'a str> {
        Some(self.raw()).filter(|_| self.kind() == JsonType::Number)
    }

    /// The value, if it has this type.
    pub(super) fn value<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.raw()).ok()
    }

    /// The text of a string.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        Quoted::written(self.raw())?.text()
    }

    /// The values directly inside an array, or the keys and values of an object in turn.
    fn inside(self) -> impl Iterator<Item = Self> {
        let end = self.span().next;
        let child = move |index| Self { index, ..self };
        let first = Some(child(self.index + 1)).filter(|first| first.index < end);
        std::iter::successors(first, move |last| {
            Some(child(last.span().next)).filter(|next| next.index < end)
        })
    }

    fn pairs(self) -> impl Iterator<Item = (Self, Self)> {
        let mut inside = self.inside();
        std::iter::from_fn(move || Some((inside.next()?, inside.next()?)))
    }

    /// The fields of an object, in order, equal ones included.
    pub(super) fn fields(self) -> Option<Vec<(Cow<'a, str>, Self)>> {
        let mut fields = Vec::with_capacity(USUAL);
        for (key, value) in self.pairs() {
            fields.push((key.text()?, value));
        }
        (self.kind() == JsonType::Object).then_some(fields)
    }

    /// The elements of an array.
    pub(super) fn elements(self) -> Option<impl Iterator<Item = Self>> {
        (self.kind() == JsonType::Array).then(|| self.inside())
    }
}

/// A walk over a JSON text, which notes the values.
struct Walk<'a> {
    lexer: Lexer<'a>,
    values: Vec<Span>,
}

impl Walk<'_> {
    /// The values of a text; `None` if it is not one JSON value.
    fn over(text: &str) -> Option<Vec<Span>> {
        let mut walk = Walk { lexer: Lexer::new(text), values: Vec::with_capacity(text.len() / 8) };
        let mut open: Vec<(usize, u8)> = Vec::new(); // it may be nested to any depth
        loop {
            walk.lexer.space();
            let (begin, index) = (walk.lexer.at(), walk.values.len());
            let bracket = walk.lexer.peek()?;
            if let Some(close) = closing(bracket) {
                walk.lexer.eat(bracket)?;
                walk.note(begin);
                open.push((index, close));
                walk.lexer.space();
                if walk.lexer.peek()? != close {
                    if close == b'}' {
                        walk.key()?;
                    }
                    continue;
                }
            } else {
                walk.scalar()?;
            }
            // After a value: a comma and the next one, or the ends of what it is in.
            loop {
                walk.lexer.space();
                let Some(&(outer, close)) = open.last() else {
                    return walk.lexer.peek().is_none().then_some(walk.values);
                };
                if walk.lexer.eat(b',').is_some() {
                    if close == b'}' {
                        walk.lexer.space();
                        walk.key()?;
                    }
                    break;
                }
                walk.lexer.eat(close)?;
                open.pop();
                let (end, next) = (walk.lexer.at(), walk.values.len());
                let outer = walk.values.get_mut(outer)?;
                (outer.end, outer.next) = (end, next);
            }
        }
    }

    /// Notes a value that ends here.
    fn note(&mut self, begin: usize) {
        let next = self.values.len() + 1;
        self.values.push(Span { begin, end: self.lexer.at(), next });
    }

    fn key(&mut self) -> Option<()> {
        let begin = self.lexer.at();
        self.lexer.string()?;
        self.note(begin);
        self.lexer.space();
        self.lexer.eat(b':')
    }

    fn scalar(&mut self) -> Option<()> {
        let begin = self.lexer.at();
        match self.lexer.peek()? {
            b'"' => self.lexer.string().map(|_| ())?,
            b't' => self.lexer.word("true")?,
            b'f' => self.lexer.word("false")?,
            b'n' => self.lexer.word("null")?,
            _ => self.lexer.number().map(|_| ())?,
        }
        self.note(begin);
        Some(())
    }
}

/// The bracket that closes this one, if it is one.
fn closing(open: u8) -> Option<u8> {
    match open {
        b'{' => Some(b'}'),
        b'[' => Some(b']'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_text_is_json_here_if_serde_json_reads_it(
            text in concat!(
                r#"([\[\]{},: \n]|"a"|"b":|-?(0|1|20)(\.|\.5)?([eE][-+]?[05]?)?|true|null|"#,
                r#"nul|"(\\u00e|\\u00e9|\\ud83d|\\n|\\x|é|\t)"){0,9}"#,
            ),
        ) {
            let theirs: Result<&RawValue, _> = serde_json::from_str(&text);
            prop_assert_eq!(Walk::over(&text).is_some(), theirs.is_ok(), "{}", text);
        }
    }

    #[test]
    fn values_know_their_text_and_their_place() {
        let text = r#" {"a": [1, {"b\u0021": "x"}, []], "c": {}} "#;
        let source = Source { text, values: Walk::over(text).unwrap_or_default() };
        let found: Vec<(String, &str)> = (0..source.values.len())
            .map(|index| Node { source: &source, index })
            .map(|node| (node.place(), node.raw()))
            .collect();
        let values = [
            ("a", r#"[1, {"b\u0021": "x"}, []]"#),
            ("a[0]", "1"),
            ("a[1]", r#"{"b\u0021": "x"}"#),
            ("a[1].b!", r#""x""#),
            ("a[2]", "[]"),
            ("c", "{}"),
        ];
        for value in values {
            assert!(found.contains(&(value.0.to_owned(), value.1)), "{value:?} {found:?}");
        }
        let fields = source.root().fields().unwrap_or_default();
        assert_eq!(fields.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "c"]);
    }
}
