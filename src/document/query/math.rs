//! Functions of numbers, as C has them: the system's library where the standard library asks it, and
//! `libm` for the rest. Of those the last digit may differ from jq's.

use jaq_core::native::{self, bome, v};
use jaq_core::{Bind, ValR};
use jaq_json::{Num, Val};

use super::natives::Fun;
use super::text;
use super::value::{Error, Jq, error};

fn float(value: &Jq) -> Result<f64, Error> {
    value.number().ok_or_else(|| error(format_args!("{} number required", text::shown(&value.0))))
}

/// What is whole already stays as it is, however large.
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

/// All of them.
pub(super) fn all() -> Vec<Fun> {
    vec![
        math!(rounded "floor", f64::floor),
        math!(rounded "ceil", f64::ceil),
        math!(rounded "round", f64::round),
        math!(rounded "trunc", f64::trunc),
        math!(rounded "rint", f64::round_ties_even),
        math!(rounded "nearbyint", f64::round_ties_even),
        math!("fabs", f64::abs),
        math!("sqrt", f64::sqrt),
        math!("cbrt", f64::cbrt),
        math!("exp", f64::exp),
        math!("exp2", f64::exp2),
        math!("exp10", |x| 10_f64.powf(x)),
        math!("expm1", f64::exp_m1),
        math!("log", f64::ln),
        math!("log2", f64::log2),
        math!("log10", f64::log10),
        math!("log1p", f64::ln_1p),
        math!("logb", logb),
        math!("significand", significand),
        math!("gamma", libm::lgamma),
        math!("lgamma", libm::lgamma),
        math!("tgamma", libm::tgamma),
        math!("sin", f64::sin),
        math!("cos", f64::cos),
        math!("tan", f64::tan),
        math!("asin", f64::asin),
        math!("acos", f64::acos),
        math!("atan", f64::atan),
        math!("sinh", f64::sinh),
        math!("cosh", f64::cosh),
        math!("tanh", f64::tanh),
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
            let part = if x.is_infinite() { 0.0_f64.copysign(x) } else { x.fract().copysign(x) };
            (part, x.trunc())
        }),
        math!(pair "lgamma_r", |x| {
            let (value, sign) = libm::lgamma_r(x);
            (value, f64::from(if x == 0.0 { 1_i32 } else { sign }))
        }),
        math!(2 "pow", f64::powf),
        math!(2 "atan2", f64::atan2),
        math!(2 "fmod", |x: f64, y: f64| x % y),
        math!(2 "fmin", f64::min),
        math!(2 "fmax", f64::max),
        math!(2 "fdim", libm::fdim),
        math!(2 "hypot", f64::hypot),
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
            let fma = || Ok(Jq::float(float(&x)?.mul_add(float(&y)?, float(&z)?)));
            bome(fma())
        })),
    ]
}

/// As the conversion of the processors that jq runs on has it, where there is no such integer.
fn whole(number: f64) -> i32 {
    #[allow(clippy::cast_possible_truncation)] // in range
    if number > f64::from(i32::MIN) && number <= f64::from(i32::MAX) { number as i32 } else { i32::MIN }
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
    } else if exponent.fract() != 0.0 {
        f64::NAN
    } else {
        #[allow(clippy::cast_possible_truncation)] // saturates
        libm::scalbn(x, exponent as i32)
    }
}
