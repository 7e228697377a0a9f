//! The values of a program: jaq's, with jq's operations and jq's messages where jaq's differ.
//!
//! Each method that is more than a call of jaq's can become one when jaq does the same.

use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{ValR, ValX};
use jaq_json::{Map, Num, Rc, Val};
use jaq_std::ValT;

use super::jq::{Error, Jq, MAX_NESTED, error};
use super::text::{no_index, not_iterable};
use super::{bounds, number, text};

/// The longest string that a repetition may make, in bytes; jq's limit is 2 GiB, more than a
/// program may use here.
const MAX_REPEATED: usize = 1 << 29;

impl Jq {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self(Val::utf8_str(text.into().into_bytes()))
    }

    pub(super) fn float(float: f64) -> Self {
        Self(Val::Num(number::of_float(float)))
    }

    /// The bytes of a string.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Val::TStr(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The string, with jq's replacement for invalid UTF-8.
    pub(super) fn string(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.bytes().map(String::from_utf8_lossy)
    }

    /// A number as a float.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.0 {
            Val::Num(number) => Some(number::to_float(number)),
            _ => None,
        }
    }

    pub(super) fn object(pairs: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (Val::utf8_str(key.as_bytes()), value.0));
        Self(Val::obj(pairs.collect()))
    }

    fn calculated(self, other: &Self, what: &str) -> Error {
        let (left, right) = (text::shown(&self.0), text::shown(&other.0));
        error(format_args!("{left} and {right} cannot be {what}"))
    }
}

impl From<bool> for Jq {
    fn from(bool: bool) -> Self {
        Self(bool.into())
    }
}

impl From<isize> for Jq {
    fn from(number: isize) -> Self {
        Self(number.into())
    }
}

impl From<usize> for Jq {
    fn from(number: usize) -> Self {
        Self(number.into())
    }
}

impl From<f64> for Jq {
    fn from(number: f64) -> Self {
        Self::float(number)
    }
}

impl From<String> for Jq {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// The path of a slice, with both of its ends.
impl From<Range<Self>> for Jq {
    fn from(range: Range<Self>) -> Self {
        Self::object([
            ("start", range.start.unwrap_or_default()),
            ("end", range.end.unwrap_or_default()),
        ])
    }
}

impl FromIterator<Self> for Jq {
    fn from_iter<I: IntoIterator<Item = Self>>(values: I) -> Self {
        let array = Val::Arr(Rc::new(values.into_iter().map(|value| value.0).collect()));
        bounds::nested(&array);
        Self(array)
    }
}

impl fmt::Display for Jq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::json(&self.0))
    }
}

impl jaq_core::ValT for Jq {
    fn from_num(digits: &str) -> ValR<Self> {
        Ok(Self(Val::Num(match digits.starts_with('.') {
            true => number::of_digits(&format!("0{digits}")),
            false => number::of_digits(digits),
        })))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(pairs: I) -> ValR<Self> {
        let pairs = pairs.into_iter().map(|(key, value)| match key.0 {
            Val::TStr(_) => Ok((key.0, value.0)),
            key => Err(error(format_args!("Cannot use {} as object key", text::shown(&key)))),
        });
        let object = Val::obj(pairs.collect::<Result<Map, _>>()?);
        bounds::nested(&object);
        Ok(Self(object))
    }

    fn key_values(self) -> Box<dyn Iterator<Item = ValR<(Self, Self), Self>>> {
        let go_on = |pair| bounds::go_on().map(|()| pair);
        match self.0 {
            Val::Arr(list) => {
                let pairs = Rc::unwrap_or_clone(list).into_iter().enumerate();
                Box::new(pairs.map(move |(at, value)| go_on((at.into(), Self(value)))))
            }
            Val::Obj(map) => {
                let pairs = Rc::unwrap_or_clone(map).into_iter();
                Box::new(pairs.map(move |(key, value)| go_on((Self(key), Self(value)))))
            }
            other => Box::new(std::iter::once(Err(not_iterable(&other)))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR<Self>>> {
        let go_on = |value| bounds::go_on().map(|()| Self(value));
        match self.0 {
            Val::Arr(list) => Box::new(Rc::unwrap_or_clone(list).into_iter().map(go_on)),
            Val::Obj(map) => Box::new(Rc::unwrap_or_clone(map).into_values().map(go_on)),
            other => Box::new(std::iter::once(Err(not_iterable(&other)))),
        }
    }

    fn index(self, key: &Self) -> ValR<Self> {
        match (self.0, &key.0) {
            (Val::Obj(map), name @ Val::TStr(_)) => Ok(Self(match Rc::try_unwrap(map) {
                Ok(mut map) => map.get_mut(name).map(std::mem::take).unwrap_or_default(),
                Err(map) => map.get(name).cloned().unwrap_or_default(),
            })),
            (Val::Arr(list), Val::Num(at)) => {
                let Some(at) = number::position(at, list.len()).filter(|at| *at < list.len())
                else {
                    return Ok(Self::default());
                };
                Ok(Self(match Rc::try_unwrap(list) {
                    Ok(mut list) => std::mem::take(&mut list[at]),
                    Err(list) => list[at].clone(),
                }))
            }
            (Val::Null, Val::Obj(_)) => Ok(Self::default()),
            (list @ (Val::Arr(_) | Val::TStr(_)), ends @ Val::Obj(map)) => {
                number::ends_of(ends, 0)?;
                let end = |name: &str| map.get(&Val::utf8_str(name.to_owned())).cloned().map(Self);
                let (start, end) = (end("start"), end("end"));
                Self(list).range(start.as_ref()..end.as_ref())
            }
            (Val::Null, Val::TStr(_) | Val::Num(_) | Val::Null) => Ok(Self::default()),
            (Val::Arr(list), Val::Arr(part)) => Ok(super::strings::positions(&list, part)),
            (other, key) => Err(no_index(&other, key)),
        }
    }

    fn range(self, range: Range<&Self>) -> ValR<Self> {
        let ends =
            |len| number::ends(range.start.map(|start| &start.0), range.end.map(|end| &end.0), len);
        match self.0 {
            Val::Null => ends(0).map(|_| Self::default()),
            Val::Arr(list) => {
                let part = ends(list.len())?;
                Ok(Self(Val::Arr(Rc::new(match Rc::try_unwrap(list) {
                    Ok(mut list) => list.drain(part).collect(),
                    Err(list) => list[part].to_vec(),
                }))))
            }
            Val::TStr(string) => {
                let text = String::from_utf8_lossy(&string);
                let part = ends(text.chars().count())?;
                let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
                let (start, end) = (at(part.start), at(part.end));
                Ok(Self(match text {
                    std::borrow::Cow::Borrowed(_) => Val::utf8_str(string.slice(start..end)),
                    std::borrow::Cow::Owned(text) => {
                        Val::utf8_str(text[start..end].to_owned().into_bytes())
                    }
                }))
            }
            other => Err(error(format_args!("Cannot index {} with object", text::kind(&other)))),
        }
    }

    // Assignments are natives, see `assign`; jaq's own, which call these, are never compiled.
    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        _: Opt,
        _: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        Err(Error::path_expr(self).into())
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        _: &Self,
        _: Opt,
        _: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        Err(Error::path_expr(self).into())
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        _: Range<&Self>,
        _: Opt,
        _: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        Err(Error::path_expr(self).into())
    }

    fn as_bool(&self) -> bool {
        !matches!(self.0, Val::Null | Val::Bool(false))
    }

    fn into_string(self) -> Self {
        match self.0 {
            Val::TStr(_) => self,
            other => Self::text(text::json(&other)),
        }
    }
}

/// The operations that jaq's own natives require of a value.
impl ValT for Jq {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self.0 {
            Val::Arr(list) => Ok(Rc::unwrap_or_clone(list).into_iter().map(Self).collect()),
            other => Err(Self(other)),
        }
    }

    fn is_int(&self) -> bool {
        self.0.is_int()
    }

    fn as_isize(&self) -> Option<isize> {
        match &self.0 {
            Val::Num(number) => number::to_isize(number),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        self.number()
    }

    fn is_utf8_str(&self) -> bool {
        self.0.is_utf8_str()
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        self.bytes()
    }

    fn as_sub_str(&self, part: &[u8]) -> Self {
        Self(self.0.as_sub_str(part))
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self(Val::from_utf8_bytes(bytes))
    }
}

impl Add for Jq {
    type Output = ValR<Self>;
    fn add(self, other: Self) -> ValR<Self> {
        match (self.0, other.0) {
            (Val::Num(left), Val::Num(right)) => Ok(Self(Val::Num(number::bounded(left + right)))),
            (left @ Val::TStr(_), right @ Val::TStr(_))
            | (left @ Val::Arr(_), right @ Val::Arr(_))
            | (left @ Val::Obj(_), right @ Val::Obj(_)) => both(left + right),
            (Val::Null, value) | (value, Val::Null) => Ok(Self(value)),
            (left, right) => Err(Self(left).calculated(&Self(right), "added")),
        }
    }
}

impl Sub for Jq {
    type Output = ValR<Self>;
    fn sub(self, other: Self) -> ValR<Self> {
        match (self.0, other.0) {
            (Val::Num(left), Val::Num(right)) => Ok(Self(Val::Num(number::bounded(left - right)))),
            (left @ Val::Arr(_), right @ Val::Arr(_)) => both(left - right),
            (left, right) => Err(Self(left).calculated(&Self(right), "subtracted")),
        }
    }
}

impl Mul for Jq {
    type Output = ValR<Self>;
    fn mul(self, other: Self) -> ValR<Self> {
        match (self.0, other.0) {
            (Val::Num(left), Val::Num(right)) => Ok(Self(Val::Num(number::product(left, right)))),
            (Val::TStr(text), Val::Num(times)) | (Val::Num(times), Val::TStr(text)) => {
                repeated(&text, number::to_float(&times))
            }
            (left @ Val::Obj(_), right @ Val::Obj(_)) => {
                if text::is_nested(&left, MAX_NESTED) && text::is_nested(&right, MAX_NESTED) {
                    return Err(error("Object merge too deep"));
                }
                both(left * right)
            }
            (left, right) => Err(Self(left).calculated(&Self(right), "multiplied")),
        }
    }
}

impl Div for Jq {
    type Output = ValR<Self>;
    fn div(self, other: Self) -> ValR<Self> {
        match (self.0, other.0) {
            (Val::Num(left), Val::Num(right)) => match number::quotient(&left, &right) {
                Some(quotient) => Ok(Self(Val::Num(quotient))),
                None => Err(Self(Val::Num(left))
                    .calculated(&Self(Val::Num(right)), "divided because the divisor is zero")),
            },
            (left @ Val::TStr(_), right @ Val::TStr(_)) => both(left / right),
            (left, right) => Err(Self(left).calculated(&Self(right), "divided")),
        }
    }
}

impl Rem for Jq {
    type Output = ValR<Self>;
    fn rem(self, other: Self) -> ValR<Self> {
        match (self.0, other.0) {
            (Val::Num(left), Val::Num(right)) => match number::remainder(&left, &right) {
                Some(remainder) => Ok(Self(Val::Num(remainder))),
                None => Err(Self(Val::Num(left)).calculated(
                    &Self(Val::Num(right)),
                    "divided (remainder) because the divisor is zero",
                )),
            },
            (left, right) => Err(Self(left).calculated(&Self(right), "divided")),
        }
    }
}

impl Neg for Jq {
    type Output = ValR<Self>;
    fn neg(self) -> ValR<Self> {
        match self.0 {
            Val::Num(Num::Int(0)) => Ok(Self(Val::Num(Num::Float(-0.0)))),
            Val::Num(number) => Ok(Self(Val::Num(-number))),
            other => Err(error(format_args!("{} cannot be negated", text::shown(&other)))),
        }
    }
}

/// The result of a jaq operation on two values that it supports.
fn both(result: jaq_json::ValR) -> ValR<Jq> {
    result.map(Jq).map_err(error)
}

fn repeated(text: &[u8], times: f64) -> ValR<Jq> {
    if times < 0.0 || times.is_nan() {
        return Ok(Jq::default());
    }
    // The fraction is dropped.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // saturates, and is not negative
    let times = times as usize;
    match text.len().checked_mul(times) {
        Some(length) if length <= MAX_REPEATED => Ok(Jq(Val::utf8_str(text.repeat(times)))),
        _ => Err(error("Repeat string result too long")),
    }
}
