//! Text that is not quite Unicode: a prompt or a command may be cut in the middle of a character.

use std::borrow::Cow;

/// The JSON with U+FFFD in place of invalid UTF-8 and of escapes that are half of a surrogate pair,
/// which RFC 8259 (8.2) allows. `None` if there is neither.
pub(super) fn replaced(json: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(json);
    match (without_halves(&text), text) {
        (Some(whole), _) => Some(whole),
        (None, Cow::Owned(text)) => Some(text),
        (None, Cow::Borrowed(_)) => None,
    }
}

fn without_halves(text: &str) -> Option<String> {
    let (mut whole, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let taken = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                found = true;
                whole.push_str("\\ufffd");
                rest = escape.get(6..)?;
                continue;
            }
            (Some(_), _) => 6,
            // an escaped backslash begins no escape
            (None, _) => 1 + escape.chars().nth(1)?.len_utf8(),
        };
        let (escape, behind) = escape.split_at(taken);
        whole.push_str(escape);
        rest = behind;
    }
    whole.push_str(rest);
    found.then_some(whole)
}

/// The UTF-16 unit of an escape at the beginning.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}
