//! Documents as text: what serde_json's pretty printing makes, but a string without escapes in it is copied as a whole.

use serde_json::Value;

/// Writes a text, value by value. Whatever JSON cannot hold makes it `None`.
#[derive(Debug, Default)]
pub(super) struct Printer {
    bytes: Vec<u8>,
    depth: usize,
}

impl Printer {
    /// One that is likely to write so many bytes.
    pub(super) fn of_size(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), depth: 0 }
    }

    /// The text as it stands in a file, with a newline at the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b'\n');
        self.bytes
    }

    pub(super) fn value(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::Null => self.word("null"),
            Value::Bool(true) => self.word("true"),
            Value::Bool(false) => self.word("false"),
            Value::Number(number) => self.word(number.as_str()),
            Value::String(text) => self.string(text.as_bytes()),
            Value::Array(list) => self.array(list, Self::value),
            Value::Object(map) => self.object(map.iter().map(|(key, value)| (key.as_bytes(), value)), Self::value),
        }
    }

    /// A word or a number as it is.
    pub(super) fn word(&mut self, word: &str) -> Option<()> {
        self.bytes.extend_from_slice(word.as_bytes());
        Some(())
    }

    pub(super) fn integer(&mut self, number: isize) -> Option<()> {
        serde_json::to_writer(&mut self.bytes, &number).ok()
    }

    /// A string, which must be UTF-8.
    pub(super) fn string(&mut self, text: &[u8]) -> Option<()> {
        // Without a way out in the middle it is done many bytes at once.
        let escaped =
            text.iter().fold(false, |found, byte| found | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\'));
        if escaped {
            return serde_json::to_writer(&mut self.bytes, std::str::from_utf8(text).ok()?).ok();
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(text);
        self.bytes.push(b'"');
        Some(())
    }

    pub(super) fn array<T>(
        &mut self,
        list: impl IntoIterator<Item = T>,
        each: impl FnMut(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.lines(*b"[]", list, each)
    }

    pub(super) fn object<'k, T>(
        &mut self,
        fields: impl IntoIterator<Item = (&'k [u8], T)>,
        mut each: impl FnMut(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.lines(*b"{}", fields, |printer, (key, value)| {
            printer.string(key)?;
            printer.word(": ")?;
            each(printer, value)
        })
    }

    /// A line for each item; nothing between the brackets where there is none.
    fn lines<T>(
        &mut self,
        [open, close]: [u8; 2],
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> Option<()>,
    ) -> Option<()> {
        self.bytes.push(open);
        self.depth += 1;
        let mut is_empty = true;
        for item in items {
            if !is_empty {
                self.bytes.push(b',');
            }
            is_empty = false;
            self.new_line();
            each(self, item)?;
        }
        self.depth -= 1;
        if !is_empty {
            self.new_line();
        }
        self.bytes.push(close);
        Some(())
    }

    fn new_line(&mut self) {
        self.bytes.push(b'\n');
        for _ in 0..self.depth {
            self.bytes.extend_from_slice(b"  ");
        }
    }
}
