//! The page: style, script and data in one HTML file that loads nothing.
//!
//! The policy of the page allows its own style and script by their hashes, and nothing else. The
//! data is JSON that cannot end its element; the script shows it as text.

use sha2::{Digest as _, Sha256};

use super::Timeline;
use super::packed::Packed;
use crate::document::query::base64_text;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page of a timeline.
pub fn html(timeline: &Timeline) -> String {
    let data = serde_json::to_string(&Packed::of(timeline)).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        source(STYLE),
        source(SCRIPT)
    );
    let mut page = String::with_capacity(data.len() + data.len() / 8 + (64 << 10));
    let mut rest = PAGE;
    for (place, part) in [
        ("{{policy}}", policy.as_str()),
        ("{{style}}", STYLE),
        ("{{data}}", &inert(&data)),
        ("{{script}}", SCRIPT),
    ] {
        let Some((before, after)) = rest.split_once(place) else { continue };
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page + rest
}

/// A JSON text that contains no markup and no line separators: such characters can only occur in
/// its strings.
fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 8);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

/// The source of a policy that allows this text.
fn source(text: &str) -> String {
    format!("'sha256-{}'", base64_text(&Sha256::digest(text)))
}
