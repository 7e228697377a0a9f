//! Functions that jq has and jaq lacks or defines differently, where a definition in jq's language
//! would be too slow or inexact. Each can be dropped when jaq has it.

use std::time::SystemTime;

use jaq_core::box_iter::box_once;
use jaq_core::native::{self, bome, v};
use jaq_core::{Bind, Exn, Native, PathsPtr, RunPtr, ValR, ValT as _};
use jaq_json::{Num, Rc, Val};

use super::jq::{Data, Error, Jq, MAX_NESTED, error};
use super::{bounds, dates, environment, formats, number, parse, regex, strings, text};

pub(super) type Fun = native::Fun<Data>;

/// The guard in a recursive function's calls and the steps of a list of values: it stops endless
/// programs.
pub(super) const STEP: &str = "_step";
/// A value as a part of a string.
pub(super) const TEXT: &str = "_text";
/// The input, if it is neither false nor null.
pub(super) const TRUE: &str = "_true";
/// The last output, or null.
pub(super) const LAST: &str = "_last_or_null";

/// A native of the input and these arguments: `native!("has", has, key)`.
macro_rules! native {
    ($name:expr, $fun:expr) => {
        native::run(($name, v(0), |cv| bome($fun(cv.1))))
    };
    ($name:expr, $fun:expr, $a:ident) => {
        native::run(($name, v(1), |mut cv| {
            let $a = cv.0.pop_var();
            bome($fun(cv.1, $a))
        }))
    };
    ($name:expr, $fun:expr, $a:ident, $b:ident) => {
        native::run(($name, v(2), |mut cv| {
            let ($b, $a) = (cv.0.pop_var(), cv.0.pop_var());
            bome($fun(cv.1, $a, $b))
        }))
    };
}

/// jaq's natives that are kept under another name, for the definitions that replace them.
pub(super) const RENAMED: [(&str, &str); 4] =
    [("limit", "_limit"), ("skip", "_skip"), ("group_by", "_group_by"), ("sort_by", "_sort_by")];

/// Seconds since 1970.
fn now() -> Jq {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Jq(Val::Num(Num::Float(since.as_secs_f64())))
}

/// All natives.
#[allow(clippy::too_many_lines)] // a table
pub(super) fn all() -> Vec<Fun> {
    vec![
        with_paths(STEP, v(0), |cv| step(cv.1), |cv| step(cv.1)),
        with_paths(
            TRUE,
            v(0),
            |cv| Box::new(cv.1.as_bool().then_some(Ok(cv.1)).into_iter()),
            |cv| Box::new(cv.1.0.as_bool().then_some(Ok(cv.1)).into_iter()),
        ),
        native!(TEXT, |value: Jq| Ok(value.into_string())),
        native::run((LAST, fun(), |mut cv| {
            let (filter, ctx) = cv.0.pop_fun();
            let last = filter.run((ctx, cv.1)).try_fold(Jq::default(), |_, output| output);
            box_once(last)
        })),
        native::run(("range", v(3), |cv| range(cv))),
        with_paths(
            "getpath",
            v(1),
            |mut cv| {
                let path = cv.0.pop_var();
                bome(getpath(cv.1, &path))
            },
            |mut cv| {
                let path = cv.0.pop_var();
                let (value, mut to) = cv.1;
                let found = getpath(value, &path);
                if let Val::Arr(keys) = &path.0 {
                    for key in keys.iter() {
                        to = to.cons(Jq(key.clone()));
                    }
                }
                box_once(found.map(|value| (value, to)).map_err(Exn::from))
            },
        ),
        native!("env", |_| Ok(environment())),
        native!("now", |_| Ok(now())),
        // `debug` and `stderr` pass their input on; a filter writes nothing but its results.
        native::run(("debug_empty", v(0), |_| Box::new(std::iter::empty()))),
        native::run(("stderr_empty", v(0), |_| Box::new(std::iter::empty()))),
        native!("builtins", |_| Ok(super::builtins())),
        native!("null", |_| Ok(Jq::default())),
        native!("true", |_| Ok(Jq::from(true))),
        native!("false", |_| Ok(Jq::from(false))),
        native!("nan", |_| Ok(Jq(Val::Num(Num::Float(f64::NAN))))),
        native!("infinite", |_| Ok(Jq(Val::Num(Num::Float(f64::INFINITY))))),
        native!("error", |value| Err(Error::new(value))),
        with_paths(
            "empty",
            v(0),
            |_| Box::new(std::iter::empty()),
            |_| Box::new(std::iter::empty()),
        ),
        with_paths(
            "select",
            fun(),
            |mut cv| {
                let (filter, ctx) = cv.0.pop_fun();
                let tests = filter.run((ctx, cv.1.clone()));
                Box::new(tests.filter_map(move |test| chosen(test, || cv.1.clone())))
            },
            |mut cv| {
                let (filter, ctx) = cv.0.pop_fun();
                let tests = filter.run((ctx, cv.1.0.clone()));
                Box::new(tests.filter_map(move |test| chosen(test, || cv.1.clone())))
            },
        ),
        native::run(("map", fun(), |mut cv| {
            let (filter, ctx) = cv.0.pop_fun();
            let outputs = cv.1.values().map(|value| value.map_err(Exn::from));
            let outputs = outputs.flat_map(move |value| match value {
                Ok(value) => filter.run((ctx.clone(), value)),
                Err(problem) => box_once(Err(problem)),
            });
            box_once(outputs.collect())
        })),
        native!("tostring", |value: Jq| Ok(value.into_string())),
        native!("tojson", |value: Jq| Ok(Jq::text(text::json(&value.0)))),
        native!("fromjson", parse::json),
        native!("tonumber", parse::number),
        native!("toboolean", parse::boolean),
        native!("type", |value: Jq| Ok(Jq::text(text::kind(&value.0)))),
        native!("length", length),
        native!("utf8bytelength", strings::byte_length),
        native!("not", |value: Jq| Ok(Jq::from(!value.as_bool()))),
        native!("abs", abs),
        native!("keys", |value: Jq| keys(value, true)),
        native!("keys_unsorted", |value: Jq| keys(value, false)),
        native!("has", has, key),
        native!("contains", contains, other),
        native!("bsearch", bsearch, wanted),
        native!("sort", |value: Jq| sorted(value)),
        native!("min", |value: Jq| least(value, false)),
        native!("max", |value: Jq| least(value, true)),
        native!("reverse", strings::reverse),
        native!("explode", strings::explode),
        native!("implode", strings::implode),
        native!("startswith", strings::starts_with, part),
        native!("endswith", strings::ends_with, part),
        native!("ltrimstr", strings::trim_start_of, part),
        native!("rtrimstr", strings::trim_end_of, part),
        native!(
            "trimstr",
            |text, part: Jq| {
                strings::trim_end_of(strings::trim_start_of(text, part.clone())?, part)
            },
            part
        ),
        native!("trim", |text| strings::trimmed(text, true, true)),
        native!("ltrim", |text| strings::trimmed(text, true, false)),
        native!("rtrim", |text| strings::trimmed(text, false, true)),
        native!("ascii_downcase", |text| strings::cased(
            text,
            "ascii_downcase",
            str::to_ascii_lowercase
        )),
        native!("ascii_upcase", |text| strings::cased(
            text,
            "ascii_upcase",
            str::to_ascii_uppercase
        )),
        native!("_indices", strings::indices, part),
        native!("_strindices", strings::string_indices, part),
        native!("_split", strings::split, separator),
        native!("join", strings::join, separator),
        native!("@text", |value: Jq| Ok(value.into_string())),
        native!("@json", |value: Jq| Ok(Jq::text(text::json(&value.0)))),
        native!("@csv", formats::csv),
        native!("@tsv", formats::tsv),
        native!("@html", formats::html),
        native!("@uri", formats::uri),
        native!("@urid", formats::from_uri),
        native!("@sh", formats::sh),
        native!("@base64", formats::base64),
        native!("@base64d", formats::from_base64),
        native!("@base32", formats::base32),
        native!("@base32d", formats::from_base32),
        native!("_match", regex::matches, pattern, flags),
        native!("_test", regex::test, pattern, flags),
        native::run(("_sub", [Bind::Var(()), Bind::Fun(()), Bind::Var(())].into(), |cv| {
            regex::substitute(cv)
        })),
        native!("gmtime", dates::gmtime),
        native!("localtime", dates::localtime),
        native!("mktime", dates::mktime),
        native!("strptime", dates::strptime, format),
        native!("strftime", dates::strftime, format),
        native!("strflocaltime", dates::strflocaltime, format),
    ]
}

fn with_paths(
    name: &'static str,
    args: Box<[Bind]>,
    run: RunPtr<Data>,
    paths: PathsPtr<Data>,
) -> Fun {
    (name, args, Native::<Data>::new(run).with_paths(paths))
}

fn fun() -> Box<[Bind]> {
    [Bind::Fun(())].into()
}

fn chosen<'a, T>(
    test: jaq_core::ValX<'a, Jq>,
    value: impl FnOnce() -> T,
) -> Option<jaq_core::ValX<'a, T, Jq>> {
    match test {
        Ok(test) => test.as_bool().then(|| Ok(value())),
        Err(problem) => Some(Err(problem)),
    }
}

/// Passes its input on, unless the program is stopped; no `try` catches that.
fn step<'a, T: 'a>(value: T) -> jaq_core::ValXs<'a, T, Jq> {
    box_once(match bounds::stopped() {
        None => Ok(value),
        Some(excess) => Err(Exn::halt(excess as i32)),
    })
}

fn range<'a>(mut cv: jaq_core::Cv<'a, Data>) -> jaq_core::ValXs<'a, Jq> {
    let (by, to, from) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
    let (Val::Num(by), Val::Num(to), Val::Num(from)) = (by.0, to.0, from.0) else {
        return bome(Err(error("Range bounds must be numeric")));
    };
    let (step, end) = (number::to_float(&by), number::to_float(&to));
    let mut next = Some(from);
    Box::new(std::iter::from_fn(move || {
        if let Some(excess) = bounds::stopped() {
            return next.take().map(|_| Err(Exn::halt(excess as i32)));
        }
        let now = next.take()?;
        let at = number::to_float(&now);
        let is_inside = if step > 0.0 { at < end } else { step < 0.0 && at > end };
        if !is_inside {
            return None;
        }
        next = Some(number::bounded(now.clone() + by.clone()));
        Some(Ok(Jq(Val::Num(now))))
    }))
}

fn getpath(mut value: Jq, path: &Jq) -> ValR<Jq> {
    let Val::Arr(keys) = &path.0 else { return Err(error("Path must be specified as an array")) };
    if keys.len() > MAX_NESTED {
        return Err(error("Path too deep"));
    }
    for key in keys.iter() {
        if matches!(value.0, Val::Null) {
            break; // whatever the rest of the path is
        }
        value = value.index(&Jq(key.clone()))?;
    }
    Ok(value)
}

fn length(value: Jq) -> ValR<Jq> {
    Ok(match &value.0 {
        Val::Null => Jq::from(0_usize),
        Val::Num(_) => return abs(value),
        Val::TStr(_) | Val::BStr(_) => {
            Jq::from(value.string().map_or(0, |text| text.chars().count()))
        }
        Val::Arr(list) => Jq::from(list.len()),
        Val::Obj(map) => Jq::from(map.len()),
        Val::Bool(_) => return Err(error(format_args!("{} has no length", text::shown(&value.0)))),
    })
}

fn abs(value: Jq) -> ValR<Jq> {
    match &value.0 {
        Val::Num(number) if number::to_float(number) < 0.0 => -value,
        _ => Ok(value),
    }
}

fn keys(value: Jq, sorted: bool) -> ValR<Jq> {
    match &value.0 {
        Val::Obj(map) => {
            let mut keys: Vec<Val> = map.keys().cloned().collect();
            if sorted {
                keys.sort();
            }
            Ok(Jq(Val::Arr(Rc::new(keys))))
        }
        Val::Arr(list) => Ok((0..list.len()).map(Jq::from).collect()),
        other => Err(error(format_args!("{} has no keys", text::shown(other)))),
    }
}

fn has(value: Jq, key: Jq) -> ValR<Jq> {
    match (&value.0, &key.0) {
        (Val::Obj(map), Val::TStr(_)) => Ok(map.contains_key(&key.0).into()),
        (Val::Arr(list), Val::Num(at)) => {
            let at = number::to_float(at);
            #[allow(clippy::cast_precision_loss)] // no array is so long
            Ok((at >= 0.0 && at < list.len() as f64).into())
        }
        (of, key) => {
            let (of, key) = (text::kind(of), text::kind(key));
            Err(error(format_args!("Cannot check whether {of} has a {key} key")))
        }
    }
}

fn contains(value: Jq, other: Jq) -> ValR<Jq> {
    fn inside(value: &Val, other: &Val) -> Result<bool, Error> {
        Ok(match (value, other) {
            (Val::Obj(value), Val::Obj(other)) => {
                for (key, other) in other.iter() {
                    match value.get(key) {
                        Some(value) if inside(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Val::Arr(value), Val::Arr(other)) => {
                for other in other.iter() {
                    bounds::go_on()?;
                    let mut found = false;
                    for value in value.iter().filter(|value| text::kind(value) == text::kind(other))
                    {
                        if inside(value, other)? {
                            found = true;
                            break;
                        }
                    }
                    if !found {
                        return Ok(false);
                    }
                }
                true
            }
            (Val::TStr(value), Val::TStr(other)) => memchr::memmem::find(value, other).is_some(),
            (value, other) => value == other,
        })
    }
    if text::kind(&value.0) != text::kind(&other.0) {
        let (value, other) = (text::shown(&value.0), text::shown(&other.0));
        return Err(error(format_args!(
            "{value} and {other} cannot have their containment checked"
        )));
    }
    if text::is_nested(&other.0, MAX_NESTED) && text::is_nested(&value.0, MAX_NESTED) {
        return Err(error("Containment check too deep"));
    }
    inside(&value.0, &other.0).map(Jq::from)
}

fn bsearch(value: Jq, wanted: Jq) -> ValR<Jq> {
    let Val::Arr(list) = &value.0 else {
        return Err(error(format_args!("{} cannot be searched from", text::shown(&value.0))));
    };
    Ok(match list.binary_search(&wanted.0) {
        Ok(at) => at.into(),
        Err(at) => Jq::from(-1 - isize::try_from(at).unwrap_or_default()),
    })
}

fn sorted(value: Jq) -> ValR<Jq> {
    match value.0 {
        Val::Arr(mut list) => {
            let array = Val::Arr(list.clone());
            if list.len() > 1 && text::is_nested(&array, MAX_NESTED) {
                return Err(error("Comparison too deep"));
            }
            drop(array);
            Rc::make_mut(&mut list).sort();
            Ok(Jq(Val::Arr(list)))
        }
        other => Err(error(format_args!(
            "{} cannot be sorted, as it is not an array",
            text::shown(&other)
        ))),
    }
}

fn least(value: Jq, most: bool) -> ValR<Jq> {
    let Val::Arr(list) = &value.0 else {
        let shown = text::shown(&value.0);
        return Err(error(format_args!("{shown} and {shown} cannot be iterated over")));
    };
    let found = if most { list.iter().max() } else { list.iter().min() };
    Ok(Jq(found.cloned().unwrap_or_default()))
}
