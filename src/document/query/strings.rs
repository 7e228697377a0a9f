//! String functions: jq counts characters, and refuses values that are not strings.

use jaq_core::{ValR, ValT as _};
use jaq_json::{Rc, Val};

use super::jq::{Jq, error};
use super::text::no_index;
use super::{bounds, number, text};

fn refuse(message: &str) -> ValR<Jq> {
    Err(error(message))
}

pub(super) fn byte_length(value: Jq) -> ValR<Jq> {
    match value.bytes() {
        Some(bytes) => Ok(bytes.len().into()),
        None => Err(error(format_args!(
            "{} only strings have UTF-8 byte length",
            text::shown(&value.0)
        ))),
    }
}

pub(super) fn reverse(value: Jq) -> ValR<Jq> {
    match value.0 {
        Val::TStr(_) => {
            Ok(Jq::text(value.string().unwrap_or_default().chars().rev().collect::<String>()))
        }
        Val::Arr(mut list) => {
            Rc::make_mut(&mut list).reverse();
            Ok(Jq(Val::Arr(list)))
        }
        Val::Null => Ok(Jq(Val::Arr(Rc::default()))),
        Val::Obj(map) if map.is_empty() => Ok(Jq(Val::Arr(Rc::default()))),
        other => Err(no_index(&other, &Val::from(0_usize))),
    }
}

pub(super) fn explode(value: Jq) -> ValR<Jq> {
    match value.string() {
        Some(text) => Ok(text.chars().map(|c| Jq::from(c as usize)).collect()),
        None => refuse("explode input must be a string"),
    }
}

pub(super) fn implode(value: Jq) -> ValR<Jq> {
    let Val::Arr(list) = &value.0 else { return refuse("implode input must be an array") };
    let chars = list.iter().map(|code| match code {
        Val::Num(number) if !number::to_float(number).is_nan() => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
            let code = number::to_float(number) as u32;
            let is_negative = number::to_float(number) < 0.0;
            Ok(char::from_u32(code).filter(|_| !is_negative).unwrap_or(char::REPLACEMENT_CHARACTER))
        }
        other => {
            let shown = text::shown(other);
            Err(error(format_args!(
                "{shown} can't be imploded, unicode codepoint needs to be numeric"
            )))
        }
    });
    Ok(Jq::text(chars.collect::<Result<String, _>>()?))
}

pub(super) fn starts_with(value: Jq, part: Jq) -> ValR<Jq> {
    match (value.bytes(), part.bytes()) {
        (Some(text), Some(part)) => Ok(text.starts_with(part).into()),
        _ => refuse("startswith() requires string inputs"),
    }
}

pub(super) fn ends_with(value: Jq, part: Jq) -> ValR<Jq> {
    match (value.bytes(), part.bytes()) {
        (Some(text), Some(part)) => Ok(text.ends_with(part).into()),
        _ => refuse("endswith() requires string inputs"),
    }
}

pub(super) fn trim_start_of(value: Jq, part: Jq) -> ValR<Jq> {
    let (Some(text), Some(part)) = (value.bytes(), part.bytes()) else {
        return refuse("startswith() requires string inputs");
    };
    Ok(text.strip_prefix(part).map(|rest| Jq::text(String::from_utf8_lossy(rest))).unwrap_or(value))
}

pub(super) fn trim_end_of(value: Jq, part: Jq) -> ValR<Jq> {
    let (Some(text), Some(part)) = (value.bytes(), part.bytes()) else {
        return refuse("endswith() requires string inputs");
    };
    Ok(text.strip_suffix(part).map(|rest| Jq::text(String::from_utf8_lossy(rest))).unwrap_or(value))
}

pub(super) fn trimmed(value: Jq, start: bool, end: bool) -> ValR<Jq> {
    let Some(text) = value.string() else { return refuse("trim input must be a string") };
    let mut rest = &*text;
    if start {
        rest = rest.trim_start();
    }
    if end {
        rest = rest.trim_end();
    }
    Ok(Jq::text(rest))
}

pub(super) fn cased(value: Jq, name: &str, case: fn(&str) -> String) -> ValR<Jq> {
    match value.string() {
        Some(text) => Ok(Jq::text(case(&text))),
        None => Err(error(format_args!("{name} input must be a string"))),
    }
}

/// The positions of an array in another.
pub(super) fn positions(list: &[Val], part: &[Val]) -> Jq {
    let windows = list.windows(part.len().max(1)).enumerate();
    let found = windows
        .filter(|(_, window)| !part.is_empty() && *window == part && bounds::go_on().is_ok());
    found.map(|(at, _)| Jq::from(at)).collect()
}

/// The positions of a value in a string, in characters, or in an array.
pub(super) fn indices(value: Jq, part: Jq) -> ValR<Jq> {
    match (&value.0, &part.0) {
        (Val::Null, _) => Ok(Jq::default()),
        (Val::TStr(_), Val::TStr(_)) => string_indices(value, part),
        (Val::Arr(list), Val::Arr(part)) => Ok(positions(list, part)),
        (Val::Arr(list), part) => {
            let found = list.iter().enumerate().filter(|(_, value)| *value == part);
            Ok(found.map(|(at, _)| Jq::from(at)).collect())
        }
        _ => value.index(&part),
    }
}

pub(super) fn string_indices(value: Jq, part: Jq) -> ValR<Jq> {
    let Some(text) = value.string() else {
        return Err(error(format_args!(
            "{} cannot be searched, as it is not a string",
            text::shown(&value.0)
        )));
    };
    let Some(part) = part.string() else {
        return Err(error(format_args!("{} is not a string", text::shown(&part.0))));
    };
    let Some(first) = part.chars().next() else { return Ok(Jq(Val::Null)) };
    let (mut found, mut from, mut chars) = (Vec::new(), 0, 0);
    while let Some(at) = text[from..].find(&*part) {
        bounds::go_on()?;
        chars += text[from..from + at].chars().count();
        found.push(Jq::from(chars));
        from += at + first.len_utf8();
        chars += 1;
    }
    Ok(found.into_iter().collect())
}

pub(super) fn split(value: Jq, separator: Jq) -> ValR<Jq> {
    match (&value.0, &separator.0) {
        (Val::TStr(_), Val::TStr(_)) => value / separator,
        _ => refuse("split input and separator must be strings"),
    }
}

/// Joins the elements with a separator; numbers and booleans become text.
pub(super) fn join(value: Jq, separator: Jq) -> ValR<Jq> {
    let parts: Vec<Jq> = match &value.0 {
        Val::Arr(list) => list.iter().cloned().map(Jq).collect(),
        Val::Obj(map) => map.values().cloned().map(Jq).collect(),
        other => return Err(super::text::not_iterable(other)),
    };
    let mut joined = Vec::new();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            match &separator.0 {
                Val::TStr(separator) => joined.extend_from_slice(separator),
                Val::Null => {}
                _ => return so_far(joined) + separator,
            }
        }
        match &part.0 {
            Val::TStr(text) => joined.extend_from_slice(text),
            Val::Null => {}
            Val::Num(_) | Val::Bool(_) => joined.extend_from_slice(text::json(&part.0).as_bytes()),
            _ => return so_far(joined) + part,
        }
    }
    Ok(so_far(joined))
}

fn so_far(joined: Vec<u8>) -> Jq {
    Jq(Val::utf8_str(joined))
}
