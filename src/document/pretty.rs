//! Documents as text: the output of serde_json's pretty printing, but a string without escapes is
//! copied as a whole, and text that an older text already has is shared, not copied.

use std::mem;
use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::chunks::Chunks;

/// The least number of contiguous bytes that are shared with the older text.
const SHARED: usize = 64 << 10;

/// Writes a text, value by value. A value that JSON cannot hold makes it `None`.
#[derive(Debug)]
pub(super) struct Printer {
    parts: Vec<Bytes>,
    new: Vec<u8>,
    old: Bytes,
    /// The place in `old` of the last written text that is not in `new` yet.
    run: Range<usize>,
    /// The text before each item but the first: a comma, and a line's indentation.
    line: Vec<u8>,
    escaped: Vec<u8>,
}

impl Printer {
    /// A printer that shares text with this one.
    pub(super) fn over(old: Bytes) -> Self {
        let (parts, new, escaped) = Default::default();
        Self { parts, new, old, run: 0..0, line: b",\n".to_vec(), escaped }
    }

    /// The finished text of a file, with a newline at the end.
    pub(super) fn finish(mut self) -> Chunks {
        self.put(b"\n");
        self.end_run();
        self.end_part();
        self.parts.into()
    }

    pub(super) fn value(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::Null => self.word("null"),
            Value::Bool(true) => self.word("true"),
            Value::Bool(false) => self.word("false"),
            Value::Number(number) => self.word(number.as_str()),
            Value::String(text) => self.string(text.as_bytes()),
            Value::Array(list) => self.array(list, Self::value),
            Value::Object(map) => {
                self.object(map.iter().map(|(key, value)| (key.as_bytes(), value)), Self::value)
            }
        }
    }

    /// A word or a number as it is.
    pub(super) fn word(&mut self, word: &str) -> Option<()> {
        self.put(word.as_bytes());
        Some(())
    }

    pub(super) fn integer(&mut self, number: isize) -> Option<()> {
        self.serialized(&number)
    }

    /// A string, which must be UTF-8.
    pub(super) fn string(&mut self, text: &[u8]) -> Option<()> {
        if let Some(place) = self.place_of(text) {
            if self.run.end != place.start {
                self.end_run();
                self.run.start = place.start;
            }
            self.run.end = place.end;
            return Some(());
        }
        // Without an early exit the loop processes many bytes at once.
        let escaped = text
            .iter()
            .fold(false, |found, byte| found | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\'));
        if escaped {
            return self.serialized(std::str::from_utf8(text).ok()?);
        }
        self.put(b"\"");
        self.put(text);
        self.put(b"\"");
        Some(())
    }

    pub(super) fn array<T>(
        &mut self,
        list: impl IntoIterator<Item = T>,
        each: impl FnMut(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.lines([b"[", b"]"], list, each)
    }

    pub(super) fn object<'k, T>(
        &mut self,
        fields: impl IntoIterator<Item = (&'k [u8], T)>,
        mut each: impl FnMut(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.lines([b"{", b"}"], fields, |printer, (key, value)| {
            printer.string(key)?;
            printer.put(b": ");
            each(printer, value)
        })
    }

    /// Writes a line for each item; nothing between the brackets where there is none.
    fn lines<T>(
        &mut self,
        [open, close]: [&[u8]; 2],
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.put(open);
        self.line.extend_from_slice(b"  ");
        let mut comma = 1;
        for item in items {
            self.new_line(comma);
            comma = 0;
            each(self, item)?;
        }
        self.line.truncate(self.line.len() - 2);
        if comma == 0 {
            self.new_line(1);
        }
        self.put(close);
        Some(())
    }

    /// Writes the text before an item, without its first `skipped` bytes.
    fn new_line(&mut self, skipped: usize) {
        let line = mem::take(&mut self.line);
        self.put(line.get(skipped..).unwrap_or_default());
        self.line = line;
    }

    fn serialized<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Option<()> {
        let mut text = mem::take(&mut self.escaped);
        text.clear();
        serde_json::to_writer(&mut text, value).ok()?;
        self.put(&text);
        self.escaped = text;
        Some(())
    }

    /// The place in the older text of a string with its quotes, if the string is a part of it. Such
    /// a string has no escapes.
    fn place_of(&self, text: &[u8]) -> Option<Range<usize>> {
        let start = text.as_ptr().addr().checked_sub(self.old.as_ptr().addr())?.checked_sub(1)?;
        let end = start.checked_add(text.len())?.checked_add(2)?;
        let (first, last) = (self.old.get(start)?, self.old.get(end - 1)?);
        (*first == b'"' && *last == b'"').then_some(start..end)
    }

    fn put(&mut self, bytes: &[u8]) {
        let goes_on = !self.run.is_empty()
            && self.old.get(self.run.end..).is_some_and(|rest| rest.starts_with(bytes));
        if goes_on {
            self.run.end += bytes.len();
        } else {
            self.end_run();
            self.new.extend_from_slice(bytes);
        }
    }

    fn end_run(&mut self) {
        let run = mem::replace(&mut self.run, 0..0);
        if run.len() < SHARED {
            self.new.extend_from_slice(self.old.get(run).unwrap_or_default());
        } else {
            self.end_part();
            self.parts.push(self.old.slice(run));
        }
    }

    fn end_part(&mut self) {
        if !self.new.is_empty() {
            self.parts.push(mem::take(&mut self.new).into());
        }
    }
}
