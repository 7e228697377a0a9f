//! The tokens of a JSON text (RFC 8259), as parts of it.

use std::borrow::Cow;

/// Bytes of a string that are looked at together.
const STRIDE: usize = 16;

/// A place in a text. Its methods return `None` if the token that they read is not there.
#[derive(Clone, Debug)]
pub struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

/// A string as it is written, with its quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'t> {
    written: &'t str,
    has_escapes: bool,
}

impl<'t> Quoted<'t> {
    /// A string that was read before, from its opening quote to its closing one.
    pub fn written(written: &'t str) -> Option<Self> {
        let is_whole = written.len() > 1 && written.starts_with('"') && written.ends_with('"');
        is_whole.then(|| Self { written, has_escapes: written.as_bytes().contains(&b'\\') })
    }

    /// Its text. `None` if an escape in it is half a character.
    pub fn text(self) -> Option<Cow<'t, str>> {
        let inner = self.written.get(1..self.written.len() - 1)?;
        if !self.has_escapes {
            return Some(Cow::Borrowed(inner));
        }
        let mut text = String::with_capacity(inner.len());
        let mut parts = inner.split('\\');
        text.push_str(parts.next()?);
        while let Some(part) = parts.next() {
            let (character, rest) = match part.as_bytes().first() {
                None => ('\\', parts.next()?), // two backslashes
                Some(b'u') => return serde_json::from_str(self.written).ok().map(Cow::Owned),
                Some(b'b') => ('\u{8}', part.get(1..)?),
                Some(b'f') => ('\u{c}', part.get(1..)?),
                Some(b'n') => ('\n', part.get(1..)?),
                Some(b'r') => ('\r', part.get(1..)?),
                Some(b't') => ('\t', part.get(1..)?),
                Some(other) => (char::from(*other), part.get(1..)?),
            };
            text.push(character);
            text.push_str(rest);
        }
        Some(Cow::Owned(text))
    }
}

impl<'t> Lexer<'t> {
    /// The beginning of a text.
    pub fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The offset of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte.
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes white space.
    pub fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Passes this byte.
    pub fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Reads a literal name.
    pub fn word(&mut self, word: &str) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        rest.starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Reads a string.
    pub fn string(&mut self) -> Option<Quoted<'t>> {
        let (begin, mut has_escapes) = (self.at, false);
        self.eat(b'"')?;
        loop {
            self.plain_characters();
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                0..b' ' => return None,
                _ => {}
            }
        }
        Some(Quoted { written: self.text.get(begin..self.at)?, has_escapes })
    }

    /// Passes bytes that stand for themselves, a stride at a time.
    fn plain_characters(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        for stride in rest.chunks_exact(STRIDE) {
            // Without an early exit the loop processes many bytes at once.
            let special = stride.iter().fold(false, |found, byte| {
                found | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\')
            });
            if special {
                let plain = |byte: &u8| !matches!(*byte, 0..b' ' | b'"' | b'\\');
                self.at += stride.iter().take_while(|byte| plain(byte)).count();
                return;
            }
            self.at += STRIDE;
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                digits.iter().all(u8::is_ascii_hexdigit).then(|| self.at += 4)
            }
            _ => None,
        }
    }

    /// Reads a number.
    pub fn number(&mut self) -> Option<&'t str> {
        let begin = self.at;
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
        self.text.get(begin..self.at)
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }
}
