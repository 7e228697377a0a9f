//! jq programs over documents, run by jaq inside this process.
//!
//! Invariants: a number that a filter does not calculate with keeps its digits; what comes out is
//! always a JSON value no deeper than [`MAX_DEPTH`]; and no filter ends the process by `halt`.
//!
//! Limitations: a filter may still loop for ever, use up the memory, or recurse (or print a value
//! nested some ten thousand deep in an error message) until the stack is used up, as in jq.

mod assign;
mod made;
mod syntax;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_core::data::JustLut;
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, ValT as _, Vars, compile, native};
use jaq_json::{Num, Rc, Val};
use serde_json::{Number, Value};
use thiserror::Error;

pub use self::made::Made;
use super::body::Body;
use super::diff::cut;
use super::draft::Draft;
use super::json;
use super::path::Path;

/// The deepest nesting of arrays and objects that a filter may read or produce.
pub const MAX_DEPTH: usize = 128;

/// Compiling and running a program recurses over its text; the limits of the text are made for a stack of this size.
pub const STACK: usize = 256 << 20;

/// So few bytes cannot nest deep.
const PLAIN_SOURCE: usize = 20;

/// Definitions over those of jaq.
const PRELUDE: &str = include_str!("query/prelude.jq");
/// The natives whose names definitions have, too.
const HIDDEN: [(&str, usize); 3] = [("halt", 1), ("ltrimstr", 1), ("rtrimstr", 1)];
/// What the program of the user is called by the program that jaq loads.
const MAIN: &str = "__main";

/// Why a filter could not be compiled or run, in words for one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FilterError {
    /// What went wrong and where; runtime errors keep jq's words.
    pub message: String,
    /// What to try instead, if there is something.
    pub hint: Option<String>,
}

impl From<String> for FilterError {
    fn from(message: String) -> Self {
        let hint = None;
        Self { message, hint }
    }
}

/// Whether a program should be compiled and run on a stack of [`STACK`]; the usual one needs none.
#[must_use]
pub fn is_deep(source: &str) -> bool {
    source.len() > PLAIN_SOURCE && syntax::is_deep(source)
}

/// A compiled jq program with the values of its variables.
pub struct Filter {
    program: jaq_core::Filter<JustLut<Val>>,
    vars: Vec<Val>,
}

impl Filter {
    /// Compiles a program in which each `(name, value)` can be used as `$name`.
    ///
    /// # Errors
    /// A syntax error, an undefined function or variable, or a variable nested too deep.
    pub fn compile(source: &str, values: &[(String, Value)]) -> Result<Self, FilterError> {
        let (mut names, mut vars) = (vec!["$ENV".to_owned()], vec![environment()]);
        for (name, value) in values {
            names.push(format!("${name}"));
            vars.push(to_val(value, 0)?);
        }
        syntax::check(source)?;
        // Reading and compiling all definitions takes longer than a commit, and many programs need none of them. One that
        // compiles without them, and without the natives they hide, means the same with them.
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let program = match compiled(source, &names, natives().filter(|fun| !is_hidden(fun)), std::iter::empty()) {
            Err(_) => compiled(source, &names, natives(), definitions())?,
            program => program?,
        };
        Ok(Self { program, vars })
    }

    /// Runs the program on a document and hands over its outputs one by one, until `each` breaks.
    ///
    /// # Errors
    /// The first error of the program, or the first output that is no JSON value.
    pub fn run_each(&self, document: &Body, mut each: impl FnMut(Value) -> ControlFlow<()>) -> Result<(), FilterError> {
        self.run(made::input(document)?, |val| Ok(each(to_output(val)?)))
    }

    /// Runs the program on a document and hands over what it makes of it.
    ///
    /// # Errors
    /// As with [`Self::run_each`].
    pub fn make_each(
        &self,
        document: &Body,
        mut each: impl FnMut(Draft) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        let old = made::input(document)?;
        let old_text = document.text().unwrap_or_default();
        self.run(old.clone(), |val| Ok(each(Made::of((&old, &old_text), val)?.into())))
    }

    fn run(
        &self,
        input: Val,
        mut each: impl FnMut(Val) -> Result<ControlFlow<()>, FilterError>,
    ) -> Result<(), FilterError> {
        let ctx = Ctx::<JustLut<Val>>::new(&self.program.lut, Vars::new(self.vars.clone()));
        let mut outputs = self.program.id.run((ctx, input));
        loop {
            // jaq panics on a few odd arguments; its caller may hold a lock and must not.
            let next = catch_unwind(AssertUnwindSafe(|| outputs.next()));
            let next = next.map_err(|_| "the filter made jaq panic".to_owned())?;
            let Some(output) = next else { return Ok(()) };
            let val = output.map_err(|exception| runtime_error(exception))?;
            if each(val)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// What is defined in jq's own language, by jaq and over it.
fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let prelude = load::parse(PRELUDE, |parser| parser.defs()).unwrap_or_default();
    let prelude = prelude.into_iter().map(|def| syntax::rewrite_def(def));
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let defs = defs.filter(|def| assign::natives().iter().all(|native| native.0 != def.name));
    let defs = defs.filter(|def| !["fromjson", "tonumber"].contains(&def.name));
    defs.chain(prelude)
}

/// What is defined in Rust.
fn natives() -> impl Iterator<Item = native::Fun<JustLut<Val>>> {
    // jaq's own `env` panics on a variable that is not UTF-8.
    let env = native::run(("env", native::v(0), |_| native::bome(Ok(environment()))));
    // jaq's own takes a text for any number of values, and gives those before an error.
    let fromjson = native::run(("fromjson", native::v(0), |cv| native::bome(from_json(&cv.1))));
    let funs = jaq_std::funs().chain(jaq_core::funs()).chain(jaq_json::funs());
    let funs = funs.filter(|fun| !["env", "fromjson"].contains(&fun.0)).chain([env, fromjson]);
    funs.chain(assign::natives())
}

/// Whether a definition has this native's name and number of arguments.
fn is_hidden(native: &native::Fun<JustLut<Val>>) -> bool {
    HIDDEN.contains(&(native.0, native.1.len()))
}

/// A program compiled with these definitions.
fn compiled<'s>(
    source: &'s str,
    names: &[&'s str],
    natives: impl Iterator<Item = native::Fun<JustLut<Val>>>,
    defs: impl Iterator<Item = Def<&'static str>>,
) -> Result<jaq_core::Filter<JustLut<Val>>, FilterError> {
    let arena = Arena::default();
    let Some(body) = syntax::parse(source) else {
        let errors = Loader::new([]).load(&arena, File { code: source, path: () }).err();
        return Err(syntax_error(source, &errors.unwrap_or_default()));
    };
    let main = Def { name: MAIN, args: Vec::new(), body };
    let defs = defs.map(|def| Def { name: def.name, args: def.args, body: def.body });
    let loader = Loader::new(defs.chain([main]));
    let modules = loader.load(&arena, File { code: MAIN, path: () });
    let modules = modules.map_err(|errors| syntax_error(source, &errors))?;
    let compiler = Compiler::default().with_funs(natives).with_global_vars(names.iter().copied());
    compiler.compile(modules).map_err(|errors| undefined(source, &errors))
}

fn runtime_error(exception: jaq_core::Exn<'_, Val>) -> FilterError {
    let Ok(error) = exception.get_err() else {
        return "the filter stopped itself".to_owned().into();
    };
    let shown = error.to_string();
    let message = match error.into_val() {
        // What jaq says itself is shown as it is; what `error("…")` says is shown as JSON.
        Val::TStr(text) if *text == shown => in_jqs_words(&shown),
        Val::TStr(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => format!("(not a string): {}", cut(&shown)),
    };
    message.into()
}

fn to_output(val: Val) -> Result<Value, FilterError> {
    if is_deeper_than(&val, MAX_DEPTH) {
        // Dropping it, which recurses, may use up the stack. Leaked, its reference count keeps everybody else from
        // dropping it too.
        std::mem::forget(val);
        return Err(too_deep("produced").into());
    }
    Ok(to_value(val)?)
}

fn is_deeper_than(val: &Val, levels: usize) -> bool {
    match val {
        Val::Arr(_) | Val::Obj(_) if levels == 0 => true,
        Val::Arr(list) => list.iter().any(|val| is_deeper_than(val, levels - 1)),
        Val::Obj(map) => map.iter().any(|(key, val)| [key, val].iter().any(|part| is_deeper_than(part, levels - 1))),
        _ => false,
    }
}

fn to_val(value: &Value, depth: usize) -> Result<Val, String> {
    Ok(match value {
        Value::Null => Val::Null,
        Value::Bool(bool) => Val::Bool(*bool),
        // As an integer it would come back without its sign.
        Value::Number(n) if n.as_str() == "-0" => Val::Num(Num::Dec(n.to_string().into())),
        Value::Number(number) => Val::from_num(number.as_str()).map_err(|e| e.to_string())?,
        // From bytes it takes one allocation, from a string three.
        Value::String(text) => Val::utf8_str(text.clone().into_bytes()),
        Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => return Err(too_deep("read")),
        Value::Array(list) => {
            let vals = list.iter().map(|value| to_val(value, depth + 1));
            vals.collect::<Result<_, _>>()?
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| (key, to_val(value, depth + 1)));
            let pairs = pairs.map(|(key, val)| Ok((Val::from(key.clone()), val?)));
            Val::obj(pairs.collect::<Result<_, String>>()?)
        }
    })
}

/// The value is taken apart on the way, so that a large one does not stand in memory twice.
fn to_value(val: Val) -> Result<Value, String> {
    Ok(match val {
        Val::Null => Value::Null,
        Val::Bool(bool) => Value::Bool(bool),
        Val::Num(number) => to_number(&number)?,
        Val::TStr(text) => Value::String(to_text(&text)?),
        Val::BStr(_) => return Err(unfit("a byte string")),
        Val::Arr(list) => Rc::unwrap_or_clone(list).into_iter().map(to_value).collect::<Result<_, _>>()?,
        Val::Obj(map) => {
            let pair = |(key, val): (Val, Val)| match key {
                Val::TStr(key) => Ok((to_text(&key)?, to_value(val)?)),
                _ => Err(unfit("an object key that is not a string")),
            };
            Value::Object(Rc::unwrap_or_clone(map).into_iter().map(pair).collect::<Result<_, _>>()?)
        }
    })
}

/// Digits as they are; a calculated integer without a `.0`, which is how jq writes it.
fn to_number(number: &Num) -> Result<Value, String> {
    let text = match number {
        Num::Float(float) if !float.is_finite() => return Err(unfit(&number.to_string())),
        Num::Float(float) if float.fract() == 0.0 && float.abs() < 1e17 => format!("{float:.0}"),
        _ => number.to_string(),
    };
    // `fromjson` takes more than JSON has, such as `+1.5` and `01.5`.
    text.parse::<Number>().map_err(|_| unfit(&format!("the number {text}")))?;
    // The parsed number itself will not do: serde_json has made `1e+400` of `1e400`.
    Ok(Value::Number(Number::from_string_unchecked(text)))
}

fn to_text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| unfit("a string that is not UTF-8"))
}

fn unfit(what: &str) -> String {
    format!("the filter produced {what}, which JSON cannot hold")
}

fn too_deep(verb: &str) -> String {
    format!("the filter {verb} a value nested more than {MAX_DEPTH} deep")
}

/// The one JSON value that a string holds.
fn from_json(text: &Val) -> Result<Val, jaq_core::Error<Val>> {
    let Val::TStr(bytes) = text else {
        return Err(jaq_core::Error::str(format_args!("{text} cannot be parsed as JSON: it is no string")));
    };
    let parsed = json::parse(bytes).map_err(|error| error.to_string());
    let val = parsed.and_then(|value| to_val(&value, 0));
    val.map_err(|error| jaq_core::Error::str(format_args!("{text} cannot be parsed as JSON: {error}")))
}

/// `$ENV`, as far as it is UTF-8.
fn environment() -> Val {
    let utf8 = |text: OsString| text.into_string().ok().map(Val::from);
    let pairs = std::env::vars_os().filter_map(|(k, v)| Some((utf8(k)?, utf8(v)?)));
    Val::obj(pairs.collect())
}

fn syntax_error(source: &str, errors: &load::Errors<&str, ()>) -> FilterError {
    let first = match errors.first().map(|(_, error)| error) {
        Some(load::Error::Lex(errors)) => errors.first().map(|(e, at)| (e.as_str(), *at)),
        Some(load::Error::Parse(errors)) => errors.first().map(|(e, at)| (e.as_str(), *at)),
        Some(load::Error::Io(_)) | None => None,
    };
    let (expected, found) = first.unwrap_or(("a filter without modules", source));
    let at = place(source, found);
    let found = match found.lines().next() {
        Some(line) => format!("`{}`", cut(line)),
        None => "the end".to_owned(),
    };
    format!("syntax error at {at}: expected {expected}, found {found}").into()
}

fn undefined(source: &str, errors: &compile::Errors<&str, ()>) -> FilterError {
    let Some((name, kind)) = errors.iter().flat_map(|(_, errors)| errors).next() else {
        return "the filter does not compile".to_owned().into();
    };
    let at = place(source, name);
    let compile::Undefined::Filter(arity) = kind else {
        return format!("undefined {} {name} at {at}", kind.as_str()).into();
    };
    let path = Path::parse_filter(&format!(".{}", source.trim())).filter(|_| *arity == 0);
    FilterError {
        message: format!("undefined function \"{name}\"/{arity} at {at}"),
        hint: path.map(|path| format!("did you mean `{path}`?")),
    }
}

/// Where a part of the source begins, counted in characters from 1.
fn place(source: &str, part: &str) -> String {
    let offset = part.as_ptr().addr().checked_sub(source.as_ptr().addr());
    let before = offset.and_then(|at| source.get(..at)).unwrap_or_default();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    match before.matches('\n').count() {
        0 => format!("column {column}"),
        lines => format!("line {}, column {column}", lines + 1),
    }
}

/// jaq writes out whole values where jq names their type; a document is too long for an error.
fn in_jqs_words(message: &str) -> String {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let words = message.split(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '[' | '{' if !in_string => depth += 1,
            ']' | '}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ' ' && depth == 0 && !in_string
    });
    match words.collect::<Vec<_>>()[..] {
        ["cannot", "index", value, "with", key] => {
            let key = if key.starts_with('"') { key } else { kind(key) };
            format!("cannot index {} with {}", kind(value), cut(key))
        }
        ref words => {
            let words: Vec<_> = words.iter().map(|word| cut(word)).collect();
            words.join(" ")
        }
    }
}

/// The type of a value that is written out.
fn kind(json: &str) -> &'static str {
    match json.as_bytes() {
        [b'{', ..] => "object",
        [b'[', ..] => "array",
        [b'"' | b'b', ..] => "string",
        [b't' | b'f', ..] => "boolean",
        _ => "number",
    }
}
