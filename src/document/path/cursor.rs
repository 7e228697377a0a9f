//! Parses paths.

use super::{DocPath, PathError, PathStep};

/// What is expected where a key begins.
pub(super) const KEY: &str =
    "a key (quote it unless it is only letters, digits, `_` and `-`, and begins with no digit)";

/// The form that is read: jq's own, or the laxer left side of `PATH=TEXT`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Of a jq program.
    Filter,
    /// Of an assignment.
    Target,
}

/// The rest of a text that is being parsed.
pub(super) struct Cursor<'a> {
    text: &'a str,
    rest: &'a str,
    form: Form,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, form: Form) -> Self {
        let rest = text;
        Self { text, rest, form }
    }

    /// Parses the longest path here, and returns the rest.
    pub(super) fn path(mut self) -> Result<(DocPath, &'a str), PathError> {
        let mut steps = Vec::new();
        if self.form == Form::Target
            && let Some(index) = self.dotted_index()
        {
            return self.rest_of(vec![PathStep::Index(index)]);
        }
        let dot = self.eat(".");
        if dot.is_none() && self.form == Form::Filter {
            return Err(self.expected("a dot"));
        }
        match self.key()? {
            Some(key) => steps.push(PathStep::Key(key)),
            None if self.rest.starts_with('[') => {}
            None if dot.is_some() => return Ok((DocPath(steps), self.rest)),
            None => return Err(self.expected(KEY)),
        }
        self.rest_of(steps)
    }

    /// `.1` or `.-1`, an error in jq: an index like `[1]`. At the beginning of a filter it is a
    /// number.
    fn dotted_index(&mut self) -> Option<i64> {
        let after = self.rest.strip_prefix('.')?;
        let length = after.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(after.len());
        let (digits, rest) = after.split_at(length);
        // `.1a` and `.1-2` are keys that need quotes, and `01` is not a number in jq.
        let ends = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let index =
            digits.parse::<i64>().ok().filter(|index| ends && index.to_string() == digits)?;
        self.rest = rest;
        Some(index)
    }

    fn rest_of(mut self, mut steps: Vec<PathStep>) -> Result<(DocPath, &'a str), PathError> {
        loop {
            if let Some(index) = self.dotted_index() {
                steps.push(PathStep::Index(index));
            } else if self.eat(".").is_some() {
                let key = self.key()?.ok_or_else(|| self.expected(KEY))?;
                steps.push(PathStep::Key(key));
            } else if self.eat("[").is_some() {
                steps.push(self.bracket()?);
                self.eat("]").ok_or_else(|| self.expected("`]`"))?;
            } else {
                return Ok((DocPath(steps), self.rest));
            }
        }
    }

    fn bracket(&mut self) -> Result<PathStep, PathError> {
        if self.form == Form::Target && self.eat("+").is_some() {
            return Ok(PathStep::Append);
        }
        if self.rest.starts_with('"') {
            return self.string().map(PathStep::Key);
        }
        let digits = self.rest.split(']').next().unwrap_or_default();
        // Only the canonical form counts: jq interprets `01` and `-0`.
        let index = digits.parse::<i64>().ok();
        let index = index.filter(|index| index.to_string() == digits);
        let index = index.ok_or_else(|| self.expected("an index, a quoted key or `+`"))?;
        self.rest = &self.rest[digits.len()..];
        Ok(PathStep::Index(index))
    }

    fn key(&mut self) -> Result<Option<String>, PathError> {
        if self.rest.starts_with('"') {
            return self.string().map(Some);
        }
        let dashes = self.form == Form::Target;
        let in_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || (dashes && c == '-');
        let len = self.rest.find(|c| !in_key(c)).unwrap_or(self.rest.len());
        let key = self.rest[..len].trim_end_matches('-');
        if !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Ok(None);
        }
        self.rest = &self.rest[key.len()..];
        Ok(Some(key.to_owned()))
    }

    /// A JSON string. jq's `\(…)` is not a JSON escape, so an interpolation is never read as a key.
    fn string(&mut self) -> Result<String, PathError> {
        let mut strings = serde_json::Deserializer::from_str(self.rest).into_iter();
        let Some(Ok(key)) = strings.next() else {
            return Err(self.expected("a JSON string"));
        };
        self.rest = &self.rest[strings.byte_offset()..];
        Ok(key)
    }

    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn expected(&self, expected: &'static str) -> PathError {
        let done = &self.text[..self.text.len() - self.rest.len()];
        PathError::Syntax(done.chars().count() + 1, expected)
    }
}
