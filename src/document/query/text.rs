//! Values as text: JSON, and the form used in jq's errors.

use jaq_json::Val;

use super::jq::{Error, MAX_NESTED, error};
use super::number;

/// The longest value that an error shows, in bytes.
const SHOWN: usize = 29;

/// The name of a value's type.
pub(super) fn kind(value: &Val) -> &'static str {
    match value {
        Val::Null => "null",
        Val::Bool(_) => "boolean",
        Val::Num(_) => "number",
        Val::TStr(_) | Val::BStr(_) => "string",
        Val::Arr(_) => "array",
        Val::Obj(_) => "object",
    }
}

/// Type and value, shortened: `string ("very-long…")`.
pub(super) fn shown(value: &Val) -> String {
    format!("{} ({})", kind(value), short(value))
}

/// A value, shortened.
pub(super) fn short(value: &Val) -> String {
    let mut json = Writer { text: String::new(), limit: 4 * SHOWN, depth: MAX_NESTED + 1 };
    json.value(value);
    let mut text = json.text;
    if text.len() > SHOWN {
        let close = match value {
            Val::TStr(_) => "\"",
            Val::Arr(_) => "]",
            Val::Obj(_) => "}",
            _ => "",
        };
        let mut end = SHOWN - 3 - close.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
        text.push_str(close);
    }
    text
}

/// A value as `tojson` writes it.
pub(super) fn json(value: &Val) -> String {
    let mut json = Writer { text: String::new(), limit: usize::MAX, depth: MAX_NESTED + 1 };
    json.value(value);
    json.text
}

/// Returns whether arrays and objects are nested more than `levels` deep.
pub(super) fn is_nested(value: &Val, levels: usize) -> bool {
    // Without recursion, and with a limit: shared values are visited many times.
    let mut visits = 1_usize << 22;
    let mut open: Vec<(&Val, usize)> = vec![(value, 0)];
    while let Some((value, depth)) = open.pop() {
        if depth > levels {
            return true;
        }
        visits -= 1;
        if visits == 0 {
            return false;
        }
        let containers = |value: &&Val| matches!(value, Val::Arr(_) | Val::Obj(_));
        match value {
            Val::Arr(list) => {
                open.extend(list.iter().filter(containers).map(|value| (value, depth + 1)))
            }
            Val::Obj(map) => {
                open.extend(map.values().filter(containers).map(|value| (value, depth + 1)))
            }
            _ => {}
        }
    }
    false
}

/// Writes until the limit is reached.
struct Writer {
    text: String,
    limit: usize,
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Val) {
        if self.text.len() > self.limit {
            return;
        }
        match value {
            Val::Null => self.text.push_str("null"),
            Val::Bool(bool) => self.text.push_str(if *bool { "true" } else { "false" }),
            Val::Num(number) => self.text.push_str(&number::text(number)),
            Val::TStr(bytes) | Val::BStr(bytes) => self.string(&String::from_utf8_lossy(bytes)),
            Val::Arr(_) | Val::Obj(_) if self.depth == 0 => {
                self.text.push_str("\"<skipped: too deep>\"")
            }
            Val::Arr(list) => {
                self.depth -= 1;
                self.text.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        self.text.push(',');
                    }
                    self.value(value);
                }
                self.text.push(']');
                self.depth += 1;
            }
            Val::Obj(map) => {
                self.depth -= 1;
                self.text.push('{');
                for (at, (key, value)) in map.iter().enumerate() {
                    if at > 0 {
                        self.text.push(',');
                    }
                    self.value(key);
                    self.text.push(':');
                    self.value(value);
                }
                self.text.push('}');
                self.depth += 1;
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..='\u{1f}' | '\u{7f}' => {
                    self.text.push_str(&format!("\\u{:04x}", u32::from(c)))
                }
                c => self.text.push(c),
            }
            if self.text.len() > self.limit {
                break;
            }
        }
        self.text.push('"');
    }
}

/// jq's message for a value without parts.
pub(super) fn not_iterable(value: &Val) -> Error {
    error(format_args!("Cannot iterate over {}", shown(value)))
}

/// jq's message for a key of the wrong type.
pub(super) fn no_index(value: &Val, key: &Val) -> Error {
    let of = kind(value);
    match key {
        Val::TStr(_) | Val::Num(_) => error(format_args!("Cannot index {of} with {}", shown(key))),
        other => error(format_args!("Cannot index {of} with {}", kind(other))),
    }
}
