//! Parsers of strings in programs.

use jaq_core::ValR;
use jaq_json::{Num, Val};

use super::jq::{Jq, MAX_NESTED, error};
use super::{number as numbers, text, to_val};
use crate::document::json as strict;

fn refused(value: &Jq, what: &str) -> ValR<Jq> {
    Err(error(format_args!("{} cannot be parsed as a {what}", text::shown(&value.0))))
}

pub(super) fn boolean(value: Jq) -> ValR<Jq> {
    match (&value.0, value.bytes()) {
        (Val::Bool(_), _) => Ok(value),
        (_, Some(b"true")) => Ok(true.into()),
        (_, Some(b"false")) => Ok(false.into()),
        _ => refused(&value, "boolean"),
    }
}

/// A number in the syntax of jq's C library: a sign, leading zeroes, a point at either end.
pub(super) fn number(value: Jq) -> ValR<Jq> {
    let Some(text) = value.bytes() else {
        return if matches!(value.0, Val::Num(_)) { Ok(value) } else { refused(&value, "number") };
    };
    let Some(unsigned) =
        std::str::from_utf8(text).ok().map(|text| text.strip_prefix(['+', '-']).unwrap_or(text))
    else {
        return refused(&value, "number");
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
        }
        None => (unsigned, None),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = are_digits(whole)
        && are_digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && are_digits(exponent));
    if !is_number {
        return refused(&value, "number");
    }
    // In JSON's form, which keeps its digits.
    let sign = if text.starts_with(b"-") { "-" } else { "" };
    let whole = whole.trim_start_matches('0');
    let mut digits = format!("{sign}{}", if whole.is_empty() { "0" } else { whole });
    if !part.is_empty() {
        digits.push('.');
        digits.push_str(part);
    }
    if let Some(at) = unsigned.find(['e', 'E']) {
        digits.push_str(&unsigned[at..]);
    }
    Ok(Jq(Val::Num(numbers::of_digits(&digits))))
}

/// The one JSON value in a string.
pub(super) fn json(value: Jq) -> ValR<Jq> {
    let Some(bytes) = value.bytes() else {
        return Err(error(format_args!(
            "{} cannot be parsed as JSON: it is not a string",
            text::shown(&value.0)
        )));
    };
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let trimmed = bytes.trim_ascii();
    match trimmed.strip_prefix(b"-").unwrap_or(trimmed) {
        b"nan" | b"NaN" => return Ok(Jq(Val::Num(Num::Float(f64::NAN)))),
        _ => {}
    }
    let failed = |problem: String| {
        let text = text::short(&value.0);
        error(format_args!("{problem} (while parsing {text})"))
    };
    if nesting(bytes) > MAX_NESTED {
        return Err(failed("Exceeds depth limit for parsing".to_owned()));
    }
    match strict::parse(bytes) {
        Ok(parsed) => to_val(&parsed, 0).map(Jq).map_err(failed),
        // A document may have neither duplicate keys nor so many levels; another text may.
        Err(problem) => {
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            deserializer.disable_recursion_limit();
            let parsed = serde::Deserialize::deserialize(&mut deserializer);
            let parsed: serde_json::Value = parsed.map_err(|_| failed(problem.to_string()))?;
            deserializer.end().map_err(|_| failed(problem.to_string()))?;
            to_deep_val(&parsed).map(Jq).map_err(failed)
        }
    }
}

fn to_deep_val(value: &serde_json::Value) -> Result<Val, String> {
    match value {
        serde_json::Value::Array(list) => list.iter().map(to_deep_val).collect(),
        serde_json::Value::Object(map) => {
            let pairs =
                map.iter().map(|(key, value)| Ok((Val::from(key.clone()), to_deep_val(value)?)));
            Ok(Val::obj(pairs.collect::<Result<_, String>>()?))
        }
        other => to_val(other, 0),
    }
}

/// The nesting depth of brackets outside of strings.
fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
