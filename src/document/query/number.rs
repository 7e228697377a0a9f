//! jq's arithmetic over jaq's numbers.
//!
//! Invariants: an integer stays exact up to the largest float, and beyond it is that float; so no
//! operation on numbers takes long. A float with an integral value is written as an integer.

use std::ops::Range;

use jaq_json::{Num, Rc, Val};
use jaq_std::ValT as _;

use super::jq::{Error, error};

/// Integers of more digits are kept as text and calculated with as floats: all of them are infinite
/// as such.
const MAX_DIGITS: usize = 309;
/// The bits of the largest float.
const MAX_BITS: u64 = 1024;
/// Integral floats below this are exact integers.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A number from its digits, which are kept where they exceed an integer.
pub(super) fn of_digits(digits: &str) -> Num {
    if digits == "-0" || digits.len() > MAX_DIGITS {
        return Num::Dec(Rc::new(digits.to_owned()));
    }
    Num::from_str_radix(digits, 10).unwrap_or_else(|| Num::Dec(Rc::new(digits.to_owned())))
}

/// The result of a calculation; an integer where it is a small one.
pub(super) fn of_float(float: f64) -> Num {
    if float.fract() == 0.0 && float.abs() < EXACT && !(float == 0.0 && float.is_sign_negative()) {
        #[allow(clippy::cast_possible_truncation)] // an integral value that fits
        return Num::Int(float as isize);
    }
    Num::Float(float)
}

pub(super) fn to_float(number: &Num) -> f64 {
    Val::Num(number.clone()).as_f64().unwrap_or(f64::NAN)
}

/// An integral value, if it fits.
pub(super) fn to_isize(number: &Num) -> Option<isize> {
    number.as_isize().or_else(|| {
        let float = to_float(number);
        #[allow(clippy::cast_possible_truncation)] // an integral value that fits
        (float.fract() == 0.0 && float.abs() < EXACT).then_some(float as isize)
    })
}

/// A result limited to the range of a float.
pub(super) fn bounded(number: Num) -> Num {
    match &number {
        Num::BigInt(big) if big.bits() > MAX_BITS => Num::Float(to_float(&number)),
        Num::Float(float) => of_float(*float),
        _ => number,
    }
}

pub(super) fn product(left: Num, right: Num) -> Num {
    let is_negative = |number: &Num| matches!(number, Num::Int(n) if *n < 0);
    match (&left, &right) {
        (Num::Int(0), other) | (other, Num::Int(0)) if is_negative(other) => Num::Float(-0.0),
        _ => bounded(left * right),
    }
}

/// The quotient; `None` for a divisor of zero. An integer that is divisible by another is divided
/// exactly.
pub(super) fn quotient(left: &Num, right: &Num) -> Option<Num> {
    let divisor = to_float(right);
    if divisor == 0.0 {
        return None;
    }
    if let (Num::Int(left), Num::Int(right)) = (left, right)
        && *left != 0
        && left.checked_rem(*right) == Some(0)
    {
        return left.checked_div(*right).map(Num::Int);
    }
    Some(of_float(to_float(left) / divisor))
}

/// The remainder of the integral parts; `None` if that of the divisor is zero.
pub(super) fn remainder(left: &Num, right: &Num) -> Option<Num> {
    if let (Num::Int(left), Num::Int(right)) = (left, right) {
        return (*right != 0).then(|| Num::Int(left.checked_rem(*right).unwrap_or(0)));
    }
    if matches!((left, right), (Num::Int(_) | Num::BigInt(_), Num::Int(_) | Num::BigInt(_))) {
        let is_zero = *right == Num::Int(0);
        return (!is_zero).then(|| left.clone() % right.clone());
    }
    let (left, right) = (to_float(left), to_float(right));
    if left.is_nan() || right.is_nan() {
        return Some(Num::Float(f64::NAN));
    }
    #[allow(clippy::cast_possible_truncation)] // saturates, as jq's conversion does
    let (left, right) = (left as isize, right as isize);
    (right != 0).then(|| Num::Int(left.checked_rem(right).unwrap_or(0)))
}

/// The index in an array that a number means; `None` if there is none.
pub(super) fn position(number: &Num, len: usize) -> Option<usize> {
    let at = match number {
        Num::Int(at) => *at,
        _ => {
            let float = to_float(number).floor();
            if float.is_nan() {
                return None;
            }
            #[allow(clippy::cast_possible_truncation)] // saturates
            let at = float as isize;
            at
        }
    };
    if at < 0 { len.checked_add_signed(at) } else { usize::try_from(at).ok() }
}

/// The range that a slice means in a value of this length.
pub(super) fn ends(
    start: Option<&Val>,
    end: Option<&Val>,
    len: usize,
) -> Result<Range<usize>, Error> {
    let bound = |bound: Option<&Val>, otherwise: usize, round: fn(f64) -> f64| match bound {
        None | Some(Val::Null) => Ok(otherwise),
        Some(Val::Num(number)) => {
            let float = to_float(number);
            if float.is_nan() {
                return Ok(otherwise);
            }
            #[allow(clippy::cast_precision_loss)] // no array is so long
            let float = if float < 0.0 { float + len as f64 } else { float };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
            Ok((round(float) as usize).min(len))
        }
        Some(_) => Err(error("Start and end indices of an array slice must be numbers")),
    };
    let start = bound(start, 0, f64::floor)?;
    Ok(start..bound(end, len, f64::ceil)?.max(start))
}

/// The range that `{"start": …, "end": …}` means: both keys must be present, even if null.
pub(super) fn ends_of(slice: &Val, len: usize) -> Result<Range<usize>, Error> {
    let end = |name: &str| match slice {
        Val::Obj(map) => map.get(&Val::utf8_str(name.to_owned())),
        _ => None,
    };
    let (Some(start), Some(end)) = (end("start"), end("end")) else {
        return Err(error("Start and end indices of an array slice must be numbers"));
    };
    ends(Some(start), Some(end), len)
}

/// The text of a number in a document: null or the largest float where JSON cannot hold it.
pub(super) fn text(number: &Num) -> String {
    match number {
        Num::Float(float) if float.is_nan() => "null".to_owned(),
        Num::Float(float) => of_finite(float.clamp(f64::MIN, f64::MAX)),
        Num::Dec(digits) => digits.to_string(),
        _ => number.to_string(),
    }
}

/// A float in jq's notation: its digits with up to fifteen zeroes after or four before them, or an
/// exponent of two digits or more.
pub(super) fn of_finite(float: f64) -> String {
    let shortest = format!("{float:e}");
    let Some((digits, exponent)) = shortest.split_once('e') else { return shortest };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    if (-4..0).contains(&exponent)
        || usize::try_from(exponent).is_ok_and(|exponent| exponent < count + 15)
    {
        return format!("{float}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}
