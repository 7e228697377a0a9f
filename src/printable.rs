//! Text from file names and documents for a terminal, a log or a reader of JSON.
//!
//! Control characters have effects on a terminal; bidirectional and line-separator characters make
//! a line look different from what was printed ("Trojan Source", CVE-2021-42574). Both are escaped.

/// Returns whether a character changes how the text around it is shown, and is escaped for that.
pub fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` on one line, with [steering](is_steering) characters as `\n`, `\u{1b}`, `\u{202e}`.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_steering(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Escapes steering characters in a JSON text as `\u202e`: the value stays the same, since such a
/// character can only occur in a string. Line feeds, which lay out a text of several lines, stay.
pub fn json_text(text: String) -> String {
    let escaped = |c: char| is_steering(c) && c != '\n';
    if !text.contains(escaped) {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if escaped(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STEERING: &str = "\u{0}\u{1b}\n\u{7f}\u{85}\u{9b}\u{61c}\u{200e}\u{200f}\
                            \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2028}\u{2029}\
                            \u{2066}\u{2067}\u{2068}\u{2069}";

    #[test]
    fn no_line_carries_a_character_that_steers() {
        let line = one_line(STEERING);
        assert!(!line.contains(is_steering), "{line:?}");
        assert!(line.starts_with(r"\u{0}\u{1b}\n\u{7f}\u{85}"), "{line}");
        assert_eq!(one_line("naïve – ‘quoted’ 日本語 👩‍💻"), "naïve – ‘quoted’ 日本語 👩‍💻");
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let value = serde_json::json!({ STEERING: [STEERING, "plain"] });
        let text = json_text(value.to_string());
        assert!(!text.contains(is_steering), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
