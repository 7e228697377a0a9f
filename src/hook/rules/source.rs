//! A JSON text with values that know their line and their place.
//!
//! One walk over the text notes where each value begins and ends. Nothing else is built: a hook
//! reads the rules many times a minute, and needs few of them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{RuleFinding, Weight};
use crate::document::text::without_mark;

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

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonType {
    Object,
    Array,
    String,
    Boolean,
    Null,
    Number,
}

impl JsonType {
    /// The type, with its article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Boolean => "a boolean",
            Self::Null => "null",
            Self::Number => "a number",
        }
    }
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
        match self.raw().as_bytes().first() {
            Some(b'{') => JsonType::Object,
            Some(b'[') => JsonType::Array,
            Some(b'"') => JsonType::String,
            Some(b't' | b'f') => JsonType::Boolean,
            Some(b'n') => JsonType::Null,
            _ => JsonType::Number,
        }
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
        let inner = self.raw().strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') { self.value().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
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
        let pairs = self.pairs().map(|(key, value)| Some((key.text()?, value)));
        (self.kind() == JsonType::Object).then(|| pairs.collect()).flatten()
    }

    /// The elements of an array.
    pub(super) fn elements(self) -> Option<impl Iterator<Item = Self>> {
        (self.kind() == JsonType::Array).then(|| self.inside())
    }
}

/// A walk over a JSON text, which notes the values.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Span>,
}

impl Walk<'_> {
    /// The values of a text; `None` if it is not one JSON value.
    fn over(text: &str) -> Option<Vec<Span>> {
        let mut walk = Walk { bytes: text.as_bytes(), at: 0, values: Vec::new() };
        let mut open: Vec<usize> = Vec::new(); // not the stack: it may be nested to any depth
        loop {
            walk.space();
            let (begin, index) = (walk.at, walk.values.len());
            match walk.peek()? {
                bracket @ (b'{' | b'[') => {
                    walk.at += 1;
                    walk.note(begin);
                    open.push(index);
                    walk.space();
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    if walk.peek()? != close {
                        if bracket == b'{' {
                            walk.key()?;
                        }
                        continue;
                    }
                }
                _ => walk.scalar()?,
            }
            // After a value: a comma and the next one, or the ends of what it is in.
            loop {
                walk.space();
                let Some(&outer) = open.last() else {
                    return (walk.at == walk.bytes.len()).then_some(walk.values);
                };
                let is_object = walk.bytes.get(walk.values.get(outer)?.begin) == Some(&b'{');
                let byte = walk.peek()?;
                walk.at += 1;
                match byte {
                    b',' if is_object => {
                        walk.space();
                        walk.key()?;
                        break;
                    }
                    b',' => break,
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                open.pop();
                let (end, next) = (walk.at, walk.values.len());
                let outer = walk.values.get_mut(outer)?;
                (outer.end, outer.next) = (end, next);
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Notes a value that ends here.
    fn note(&mut self, begin: usize) {
        let next = self.values.len() + 1;
        self.values.push(Span { begin, end: self.at, next });
    }

    fn key(&mut self) -> Option<()> {
        let begin = self.at;
        self.string()?;
        self.note(begin);
        self.space();
        self.eat(b':')
    }

    fn scalar(&mut self) -> Option<()> {
        let begin = self.at;
        match self.peek()? {
            b'"' => self.string()?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        self.note(begin);
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then(|| self.at += 4)?;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if self.eat(b'e').or_else(|| self.eat(b'E')).is_some() {
            let _ = self.eat(b'+').or_else(|| self.eat(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
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
            text in r#"([\[\]{},: \n]|"a"|"b":|-?(0|1|20)(\.|\.5)?([eE][-+]?[05]?)?|true|null|nul|"(\\u00e|\\u00e9|\\ud83d|\\n|\\x|é|\t)"){0,9}"#,
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
