//! A JSON text that is edited in place: what is not touched stays as it is written.

use std::ops::Range;

use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The text of one JSON object, with its style.
#[derive(Clone, Debug)]
pub(super) struct JsonText {
    text: String,
    style: Style,
}

/// The layout of a text.
#[derive(Clone, Debug)]
enum Style {
    /// All on one line.
    Compact,
    /// A line for each member.
    Lines { indent: String, end: &'static str },
}

/// A member of an object, or an element of an array.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its key; empty for an element.
    pub key: String,
    /// All of it.
    pub whole: Range<usize>,
    /// Its value.
    pub value: Range<usize>,
}

impl JsonText {
    /// Takes a text that is valid JSON. A missing or blank one is an empty object.
    pub(super) fn new(text: &str) -> Self {
        let is_blank = text.trim_start_matches('\u{feff}').trim().is_empty();
        let text = if is_blank { "{}\n".to_owned() } else { text.to_owned() };
        let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let indented = text.lines().skip(1).find(|line| line.starts_with([' ', '\t']));
        let indent = indented.map(|line| {
            let rest = line.trim_start_matches([' ', '\t']);
            line.get(..line.len() - rest.len()).unwrap_or_default().to_owned()
        });
        let is_compact = !text.trim().contains('\n') && text.contains(':');
        let style = match is_compact {
            true => Style::Compact,
            false => Style::Lines { indent: indent.unwrap_or_else(|| "  ".to_owned()), end },
        };
        Self { text, style }
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The outermost value.
    pub(super) fn root(&self) -> Range<usize> {
        let start = self.text.find('{').unwrap_or_default();
        start..self.end_of(start)
    }

    /// The value at a place.
    pub(super) fn parse(&self, value: &Range<usize>) -> Value {
        let text = self.text.get(value.clone()).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The members of the object or array at a place; none of another value.
    pub(super) fn members(&self, container: &Range<usize>) -> Vec<Member> {
        let is_object = match self.byte(container.start) {
            Some(b'{') => true,
            Some(b'[') => false,
            _ => return Vec::new(),
        };
        let mut members = Vec::new();
        let mut at = self.past_blanks(container.start + 1);
        while at + 1 < container.end {
            let start = at;
            let mut key = String::new();
            if is_object {
                let end = self.end_of(at);
                key = serde_json::from_str(self.text.get(at..end).unwrap_or_default())
                    .unwrap_or_default();
                at = self.past_blanks(self.past_blanks(end) + 1); // the colon
            }
            let end = self.end_of(at);
            members.push(Member { key, whole: start..end, value: at..end });
            at = self.past_blanks(end);
            if self.byte(at) == Some(b',') {
                at = self.past_blanks(at + 1);
            }
        }
        members
    }

    /// The value of a key in the object at a place.
    pub(super) fn value_of(&self, object: &Range<usize>, key: &str) -> Option<Range<usize>> {
        self.members(object).into_iter().find(|member| member.key == key).map(|member| member.value)
    }

    /// Replaces a value.
    pub(super) fn replace(&mut self, place: Range<usize>, value: &Value) {
        self.text.replace_range(place, &value.to_string());
    }

    /// Adds a member at the end of the object, or an element at the end of the array, that lies
    /// this deep.
    pub(super) fn push(
        &mut self,
        container: &Range<usize>,
        depth: usize,
        key: &str,
        value: &Value,
    ) {
        let close = container.end.saturating_sub(1);
        let last = self.members(container).last().map(|member| member.whole.end);
        let key = if key.is_empty() { None } else { Some(Value::from(key).to_string()) };
        // A container that is closed on the line of its last member gets the new one there, too.
        let gap = last.and_then(|last| self.text.get(last..close));
        let is_on_one_line = gap.is_some_and(|gap| !gap.contains('\n'));
        let (added, tail) = match &self.style {
            Style::Lines { indent, end } if !is_on_one_line => {
                let line_end = format!("{end}{}", indent.repeat(depth + 1));
                let key = key.map_or_else(String::new, |key| format!("{key}: "));
                let value = pretty(value, indent).replace('\n', &line_end);
                (format!("{line_end}{key}{value}"), format!("{end}{}", indent.repeat(depth)))
            }
            style => {
                let blank = if matches!(style, Style::Compact) { "" } else { " " };
                let key = key.map_or_else(String::new, |key| format!("{key}:{blank}"));
                (format!("{}{key}{value}", if last.is_some() { blank } else { "" }), String::new())
            }
        };
        match last {
            Some(last) => self.text.insert_str(last, &format!(",{added}")),
            None => {
                self.text.replace_range(container.start + 1..close, &format!("{added}{tail}"));
            }
        }
    }

    /// Removes a member of the object or array at a place, with its comma.
    pub(super) fn remove(&mut self, container: &Range<usize>, number: usize) {
        let members = self.members(container);
        let Some(member) = members.get(number) else { return };
        let before = number.checked_sub(1).and_then(|before| members.get(before));
        let gone = match (before, members.get(number + 1)) {
            (Some(before), _) => before.whole.end..member.whole.end,
            (None, Some(next)) => member.whole.start..next.whole.start,
            (None, None) => container.start + 1..container.end.saturating_sub(1),
        };
        self.text.replace_range(gone, "");
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn past_blanks(&self, mut at: usize) -> usize {
        while self.byte(at).is_some_and(|byte| byte.is_ascii_whitespace()) {
            at += 1;
        }
        at
    }

    /// The end of the value, or of the key, that begins here.
    fn end_of(&self, start: usize) -> usize {
        let (mut at, mut depth, mut is_text) = (start, 0_usize, false);
        while let Some(byte) = self.byte(at) {
            match byte {
                b'\\' if is_text => at += 1,
                b'"' => {
                    is_text = !is_text;
                    if !is_text && depth == 0 {
                        return at + 1;
                    }
                }
                _ if is_text => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return at,
                b'}' | b']' if depth == 1 => return at + 1,
                b'}' | b']' => depth -= 1,
                b',' | b':' if depth == 0 => return at,
                byte if depth == 0 && byte.is_ascii_whitespace() => return at,
                _ => {}
            }
            at += 1;
        }
        at
    }
}

fn pretty(value: &Value, indent: &str) -> String {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    match value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(), // never: a value has no keys but strings
    }
}
