//! The formats: `@csv` and others.

use std::fmt::Write as _;

use jaq_core::ValR;
use jaq_json::Val;

use super::jq::{Jq, error};
use super::text;

/// A value as text.
fn plain(value: &Jq) -> String {
    value.string().map_or_else(|| text::json(&value.0), std::borrow::Cow::into_owned)
}

fn row(value: &Jq, format: &str, separator: &str, quoted: fn(&str) -> String) -> ValR<Jq> {
    let Val::Arr(cells) = &value.0 else {
        return Err(error(format_args!(
            "{} cannot be {format}-formatted, only an array can be",
            text::shown(&value.0)
        )));
    };
    let cells = cells.iter().map(|cell| match cell {
        Val::Null => Ok(String::new()),
        Val::Bool(_) | Val::Num(_) => Ok(text::json(cell)),
        Val::TStr(text) => Ok(quoted(&String::from_utf8_lossy(text))),
        other => Err(error(format_args!("{} is not valid in a {format} row", text::shown(other)))),
    });
    Ok(Jq::text(cells.collect::<Result<Vec<_>, _>>()?.join(separator)))
}

pub(super) fn csv(value: Jq) -> ValR<Jq> {
    row(&value, "csv", ",", |cell| format!("\"{}\"", cell.replace('"', "\"\"")))
}

pub(super) fn tsv(value: Jq) -> ValR<Jq> {
    row(&value, "tsv", "\t", |cell| {
        cell.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
    })
}

pub(super) fn html(value: Jq) -> ValR<Jq> {
    let mut escaped = String::new();
    for c in plain(&value).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    Ok(Jq::text(escaped))
}

pub(super) fn sh(value: Jq) -> ValR<Jq> {
    let words = match &value.0 {
        Val::Arr(list) => list.iter().cloned().map(Jq).collect(),
        _ => vec![value],
    };
    let words = words.into_iter().map(|word| match &word.0 {
        Val::TStr(text) => {
            Ok(format!("'{}'", String::from_utf8_lossy(text).replace('\'', "'\\''")))
        }
        Val::Arr(_) | Val::Obj(_) => {
            Err(error(format_args!("{} can not be escaped for shell", text::shown(&word.0))))
        }
        other => Ok(text::json(other)),
    });
    Ok(Jq::text(words.collect::<Result<Vec<_>, _>>()?.join(" ")))
}

pub(super) fn uri(value: Jq) -> ValR<Jq> {
    let mut escaped = String::new();
    for byte in plain(&value).bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    Ok(Jq::text(escaped))
}

pub(super) fn from_uri(value: Jq) -> ValR<Jq> {
    let text = plain(&value);
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    let decoded = loop {
        match rest {
            [] => break String::from_utf8(bytes).ok(),
            [b'%', high, low, tail @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let Some((high, low)) = digit(high).zip(digit(low)) else { break None };
                bytes.extend(u8::try_from(high * 16 + low));
                rest = tail;
            }
            [b'%', ..] => break None,
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    };
    let fail = || {
        error(format_args!(
            "{} is not a valid uri encoding",
            text::shown(&Jq::text(text.clone()).0)
        ))
    };
    decoded.map(Jq::text).ok_or_else(fail)
}

/// Encodes bytes in digits of `bits` bits; the last group is padded.
fn encoded(bytes: &[u8], digits: &[u8], bits: u32, group: usize) -> String {
    let (mut text, mut held, mut count) = (String::new(), 0_u32, 0);
    let digit = |value: u32| char::from(digits[(value & ((1 << bits) - 1)) as usize]);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        count += 8;
        while count >= bits {
            count -= bits;
            text.push(digit(held >> count));
        }
        held &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(digit(held << (bits - count)));
    }
    while text.len() % group != 0 {
        text.push('=');
    }
    text
}

/// Decodes such a text; excess bits and padding are dropped.
fn decoded(text: &str, digits: &[u8], bits: u32) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = digits.iter().position(|digit| *digit == byte)?;
        held = held << bits | u32::try_from(value).ok()?;
        count += bits;
        if count >= 8 {
            count -= 8;
            bytes.extend(u8::try_from(held >> count & 0xff));
        }
        held &= (1 << count) - 1;
    }
    Some(bytes)
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Bytes in base64, with padding.
pub fn base64_text(bytes: &[u8]) -> String {
    encoded(bytes, BASE64, 6, 4)
}

pub(super) fn base64(value: Jq) -> ValR<Jq> {
    Ok(Jq::text(base64_text(plain(&value).as_bytes())))
}

pub(super) fn from_base64(value: Jq) -> ValR<Jq> {
    let text = plain(&value);
    let shown = || text::shown(&Jq::text(text.clone()).0);
    let bytes = decoded(&text, BASE64, 6)
        .ok_or_else(|| error(format_args!("{} is not valid base64 data", shown())))?;
    if text.trim_end_matches('=').len() % 4 == 1 {
        return Err(error(format_args!("{} trailing base64 byte found", shown())));
    }
    Ok(Jq::text(String::from_utf8_lossy(&bytes)))
}

pub(super) fn base32(value: Jq) -> ValR<Jq> {
    Ok(Jq::text(encoded(plain(&value).as_bytes(), BASE32, 5, 8)))
}

pub(super) fn from_base32(value: Jq) -> ValR<Jq> {
    let text = plain(&value);
    match decoded(&text, BASE32, 5) {
        Some(bytes) => Ok(Jq::text(String::from_utf8_lossy(&bytes))),
        None => {
            Err(error(format_args!("{} is not valid base32 data", text::shown(&Jq::text(text).0))))
        }
    }
}
