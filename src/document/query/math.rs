//! Mathematical functions with C's semantics. All are `libm`'s: the standard library would load the
//! system's mathematical library at every start. The last digit may differ from jq's.

use jaq_core::native::{self, bome, v};
use jaq_core::{Bind, ValR};
use jaq_json::{Num, Val};

use super::jq::{Error, Jq, error};
use super::natives::Fun;
use super::text;

fn float(value: &Jq) -> Result<f64, Error> {
    value.number().ok_or_else(|| error(format_args!("{} number required", text::shown(&value.0))))
}

/// Rounds a value; an integral one stays unchanged, however large.
fn rounded(value: Jq, round: fn(f64) -> f64) -> ValR<Jq> {
    match &value.0 {
        Val::Num(Num::Int(_) | Num::BigInt(_)) => Ok(value),
        _ => Ok(Jq::float(round(float(&value)?))),
    }
}

macro_rules! math {
    (rounded $name:literal, $fun:expr) => {
        native::run(($name, v(0), |cv| bome(rounded(cv.1, $fun))))
    };
    ($name:literal, $fun:expr) => {
        native::run(($name, v(0), |cv| bome(float(&cv.1).map(|x| Jq::float($fun(x))))))
    };
    (2 $name:literal, $fun:expr) => {
        native::run(($name, v(2), |mut cv| {
            let (y, x) = (cv.0.pop_var(), cv.0.pop_var());
            let both = float(&x).and_then(|x| Ok((x, float(&y)?)));
            bome(both.map(|(x, y)| Jq::float($fun(x, y))))
        }))
    };
    (pair $name:literal, $fun:expr) => {
        native::run(($name, v(0), |cv| {
            let pair = float(&cv.1).map($fun);
            bome(pair.map(|(x, y)| [Jq::float(x), Jq::float(y)].into_iter().collect()))
        }))
    };
}

/// All functions.
pub(super) fn all() -> Vec<Fun> {
    vec![
        math!(rounded "floor", libm::floor),
        math!(rounded "ceil", libm::ceil),
        math!(rounded "round", libm::round),
        math!(rounded "trunc", libm::trunc),
        math!(rounded "rint", libm::rint),
        math!(rounded "nearbyint", libm::rint),
        math!("fabs", f64::abs),
        math!("sqrt", libm::sqrt),
        math!("cbrt", libm::cbrt),
        math!("exp", libm::exp),
        math!("exp2", libm::exp2),
        math!("exp10", libm::exp10),
        math!("expm1", libm::expm1),
        math!("log", libm::log),
        math!("log2", libm::log2),
        math!("log10", libm::log10),
        math!("log1p", libm::log1p),
        math!("logb", logb),
        math!("significand", significand),
        math!("gamma", libm::lgamma),
        math!("lgamma", libm::lgamma),
        math!("tgamma", libm::tgamma),
        math!("sin", libm::sin),
        math!("cos", libm::cos),
        math!("tan", libm::tan),
        math!("asin", libm::asin),
        math!("acos", libm::acos),
        math!("atan", libm::atan),
        math!("sinh", libm::sinh),
        math!("cosh", libm::cosh),
        math!("tanh", libm::tanh),
        math!("asinh", libm::asinh),
        math!("acosh", libm::acosh),
        math!("atanh", libm::atanh),
        math!("erf", libm::erf),
        math!("erfc", libm::erfc),
        math!("j0", libm::j0),
        math!("j1", libm::j1),
        math!("y0", libm::y0),
        math!("y1", libm::y1),
        math!(pair "frexp", |x| {
            let (fraction, exponent) = libm::frexp(x);
            (fraction, f64::from(if x.is_finite() { exponent } else { 0 }))
        }),
        math!(pair "modf", |x| {
            let part = match x.is_infinite() {
                true => 0.0_f64.copysign(x),
                false => libm::copysign(x - libm::trunc(x), x),
            };
            (part, libm::trunc(x))
        }),
        math!(pair "lgamma_r", |x| {
            let (value, sign) = libm::lgamma_r(x);
            (value, f64::from(if x == 0.0 { 1_i32 } else { sign }))
        }),
        math!(2 "pow", libm::pow),
        math!(2 "atan2", libm::atan2),
        math!(2 "fmod", libm::fmod),
        math!(2 "fmin", f64::min),
        math!(2 "fmax", f64::max),
        math!(2 "fdim", libm::fdim),
        math!(2 "hypot", libm::hypot),
        math!(2 "copysign", f64::copysign),
        math!(2 "drem", libm::remainder),
        math!(2 "remainder", libm::remainder),
        math!(2 "nextafter", libm::nextafter),
        math!(2 "nexttoward", libm::nextafter),
        math!(2 "ldexp", |x, exponent| libm::scalbn(x, whole(exponent))),
        math!(2 "scalbln", |x, exponent| libm::scalbn(x, whole(exponent))),
        math!(2 "scalb", scalb),
        math!(2 "jn", |n, x| libm::jn(whole(n), x)),
        math!(2 "yn", |n, x| libm::yn(whole(n), x)),
        native::run(("fma", [Bind::Var(()), Bind::Var(()), Bind::Var(())].into(), |mut cv| {
            let (z, y, x) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
            let fma = || Ok(Jq::float(libm::fma(float(&x)?, float(&y)?, float(&z)?)));
            bome(fma())
        })),
    ]
}

/// The conversion of the processors that jq runs on, also where there is no such integer.
fn whole(number: f64) -> i32 {
    #[allow(clippy::cast_possible_truncation)] // in range
    if number > f64::from(i32::MIN) && number <= f64::from(i32::MAX) {
        number as i32
    } else {
        i32::MIN
    }
}

fn logb(x: f64) -> f64 {
    if x == 0.0 {
        f64::NEG_INFINITY
    } else if x.is_finite() {
        f64::from(libm::frexp(x).1 - 1)
    } else {
        x * x
    }
}

fn significand(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() { x } else { libm::frexp(x).0 * 2.0 }
}

fn scalb(x: f64, exponent: f64) -> f64 {
    if x.is_nan() || exponent.is_nan() {
        f64::NAN
    } else if exponent.is_infinite() {
        if exponent > 0.0 { x * f64::INFINITY } else { x * 0.0 }
    } else if libm::trunc(exponent) < exponent || libm::trunc(exponent) > exponent {
        f64::NAN
    } else {
        #[allow(clippy::cast_possible_truncation)] // saturates
        libm::scalbn(x, exponent as i32)
    }
}
