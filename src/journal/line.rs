//! A line of the journal: one JSON object between line feeds. Its last field, `sum`, is the
//! beginning of the SHA-256 of the text before it, so a reader accepts a line whole or skips it.

use serde_json::Value;

use crate::document::json;
use crate::document::seal::Digest;

/// The version of the lines that this program writes.
pub(super) const VERSION: u64 = 1;
/// The longest line, in bytes, with the line feeds around it.
pub const LINE_LIMIT: usize = 8 << 10;
const SUM_LENGTH: usize = 16;
const SUM_FIELD: &str = ",\"sum\":\"";

/// The reason why a line is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is torn or damaged.
    Damaged,
    /// A later version wrote it, or this program does not know its kind.
    Unknown,
}

/// The first `limit` bytes of `text`, cut between characters.
pub fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The line of an object, with its sum.
pub(super) fn seal(value: &Value) -> String {
    let text = value.to_string();
    let text = text.strip_suffix('}').unwrap_or(&text);
    format!("\n{text}{SUM_FIELD}{}\"}}\n", sum(text))
}

/// The object of a line without line feeds, if the sum is right and the version is known.
pub(super) fn unseal(line: &[u8]) -> Result<Value, Skipped> {
    let text = without_sum(line).ok_or(Skipped::Damaged)?;
    let value = json::parse(text.as_bytes()).map_err(|_| Skipped::Damaged)?;
    match value.get("v").and_then(Value::as_u64) {
        None => Err(Skipped::Damaged),
        Some(version) if version > VERSION => Err(Skipped::Unknown),
        Some(_) => Ok(value),
    }
}

fn sum(text: &str) -> String {
    cut(Digest::of(text.as_bytes()).as_str(), SUM_LENGTH).to_owned()
}

fn without_sum(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (text, end) = line.rsplit_once(SUM_FIELD)?;
    (end.strip_suffix("\"}")? == sum(text)).then(|| format!("{text}}}"))
}
