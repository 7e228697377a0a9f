//! jq programs over documents, run by jaq inside this process: the only entry to all of it.
//!
//! Where jaq reads or computes differently from jq, a file in this directory compensates for it,
//! and can be dropped when jaq does the same: `tokens` and `tree` change the program, `value` and
//! `number` the operations, `natives` and others the functions. See `docs/jq.md` for the remaining
//! differences.
//!
//! Invariants: a number that a filter does not calculate with keeps its digits; an output is always
//! a JSON value no deeper than [`MAX_DEPTH`]; no filter ends the process by `halt`; and a watched
//! filter terminates, see [`bounds`].

mod assign;
pub mod bounds;
mod dates;
mod definitions;
mod formats;
mod jq;
mod jq_output;
mod math;
mod natives;
mod number;
mod oniguruma;
mod outputs;
mod parse;
mod regex;
mod strings;
mod syntax;
#[cfg(test)]
mod tests;
mod text;
mod tokens;
mod tree;
mod value;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_core::load::parse::Def;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, compile};
use jaq_json::{Num, Rc, Val};
use serde_json::{Number, Value};
use thiserror::Error;

use self::bounds::{Excess, Run, Time};
use self::definitions::{definitions, natives};
use self::jq::{Data, Jq};
use self::syntax::Problem;
use super::diff::cut;
use super::json_type::JsonType;
use super::lazy::LazyDocument;
use super::new_document::NewDocument;
use super::path::DocPath;

pub use self::formats::base64_text;
pub use self::jq_output::JqOutput;

/// The deepest nesting of arrays and objects that a filter may read or produce.
pub const MAX_DEPTH: usize = 128;

/// A source of so few bytes cannot nest deep or loop.
const PLAIN_SOURCE: usize = 4;

/// The name of the user's program in the program that jaq loads.
const MAIN: &str = "__main";

/// The reason why a filter could not be compiled or run, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FilterError {
    /// The error and its position; runtime errors keep jq's message.
    pub message: String,
    /// An alternative to try, if there is one.
    pub hint: Option<String>,
    /// The limit that the program exceeded, if that is the reason.
    pub excess: Option<Excess>,
}

impl From<String> for FilterError {
    fn from(message: String) -> Self {
        Self { message, hint: None, excess: None }
    }
}

/// Returns whether a program is to be compiled and run by [`bounds::watched`]; one that needs few
/// resources is not.
pub fn is_heavy(source: &str) -> bool {
    source.len() > PLAIN_SOURCE && syntax::is_heavy(source)
}

impl From<Excess> for FilterError {
    fn from(excess: Excess) -> Self {
        let (message, hint) = match excess {
            Excess::Memory => {
                let message = format!("it uses more than {} GiB of memory", bounds::MEMORY >> 30);
                (message, "a loop that has no end, or work for jq itself: `state read | jq …`")
            }
            Excess::Time => (
                "it ran out of time; nothing was written".to_owned(),
                "`--filter-timeout T` gives it more",
            ),
            Excess::Depth => {
                let message = "it recurses too deep, or nests a value too deep".to_owned();
                (
                    message,
                    "a recursion that has no end, or one whose call is not the last thing it does",
                )
            }
        };
        Self { message, hint: Some(hint.to_owned()), excess: Some(excess) }
    }
}

/// A compiled jq program with the values of its variables.
pub struct Filter {
    program: jaq_core::Filter<Data>,
    vars: Vec<Jq>,
    time: Time,
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
            vars.push(Jq(to_val(value, 0)?));
        }
        syntax::check(source)?;
        let source = &*tokens::surrogates(source);
        // Parsing and compiling all definitions takes longer than a commit, and many programs need
        // none of them. One that compiles without them, and without the natives they hide, means
        // the same with them.
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let program = match compiled(source, &names, std::iter::empty()) {
            Err(_) => match compiled(source, &names, definitions::named_in(source).into_iter()) {
                Err(_) => compiled(source, &names, definitions())?,
                program => program?,
            },
            program => program?,
        };
        Ok(Self { program, vars, time: Time::default() })
    }

    /// The same program with these time limits.
    #[must_use]
    pub fn within(self, time: Time) -> Self {
        Self { time, ..self }
    }

    /// Runs the program on a document and passes its outputs to `each` one by one, until it breaks.
    ///
    /// # Errors
    /// The first error of the program, or the first output that is not a JSON value.
    pub fn run_each(
        &self,
        document: &LazyDocument,
        mut each: impl FnMut(Value) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        self.run(jq_output::input(document)?, |val| Ok(each(to_output(val)?)))
    }

    /// Runs the program on a document and passes its outputs to `each` in jq's representation.
    ///
    /// # Errors
    /// As with [`Self::run_each`].
    pub fn make_each(
        &self,
        document: &LazyDocument,
        mut each: impl FnMut(NewDocument) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        let old = jq_output::input(document)?;
        let old_text = document.text().unwrap_or_default();
        self.run(old.clone(), |val| Ok(each(JqOutput::of(&old, &old_text, val)?.into())))
    }

    fn run(
        &self,
        input: Val,
        mut each: impl FnMut(Val) -> Result<ControlFlow<()>, FilterError>,
    ) -> Result<(), FilterError> {
        let run = Run::begin(self.time);
        let ctx = Ctx::<Data>::new(&self.program.lut, Vars::new(self.vars.clone()));
        let mut outputs = self.program.id.run((ctx, Jq(input)));
        loop {
            // jaq panics on a few odd arguments; its caller may hold a lock and must not.
            let next = catch_unwind(AssertUnwindSafe(|| outputs.next()));
            let next = next.map_err(|_| "the filter made jaq panic".to_owned())?;
            if let Some(excess) = run.excess() {
                return Err(excess.into()); // whatever error the stopped program returned
            }
            let Some(output) = next else { break };
            let val = output.map_err(|exception| runtime_error(exception))?;
            if each(val.0)?.is_break() {
                break;
            }
        }
        drop(outputs);
        drop(run);
        Ok(())
    }
}

/// A program compiled with these definitions.
fn compiled<'s>(
    source: &'s str,
    names: &[&'s str],
    defs: impl Iterator<Item = Def<&'static str>>,
) -> Result<jaq_core::Filter<Data>, FilterError> {
    let arena = Arena::default();
    let body = syntax::parse(source).map_err(|problem| match problem {
        Problem::Syntax(expected, found) => syntax_error(source, expected, found),
        Problem::Meaning(sentence) => sentence.into(),
    })?;
    let main = Def { name: MAIN, args: Vec::new(), body };
    let defs = defs.map(|def| Def { name: def.name, args: def.args, body: def.body });
    let loader = Loader::new(defs.chain([main]));
    let modules = loader.load(&arena, File { code: MAIN, path: () });
    let modules = modules.map_err(|_| "the filter does not compile".to_owned())?;
    let compiler = Compiler::default().with_funs(natives()).with_global_vars(names.iter().copied());
    compiler.compile(modules).map_err(|errors| undefined(source, &errors))
}

fn runtime_error(exception: jaq_core::Exn<'_, Jq>) -> FilterError {
    let error = match exception.get_err() {
        Ok(error) => error,
        Err(exception) => {
            return match exception.get_halt().ok().and_then(Excess::of_halt) {
                Some(excess) => excess.into(),
                None => "`break` has no label here".to_owned().into(),
            };
        }
    };
    let shown = error.to_string();
    let message = match error.into_val().0 {
        // jaq's own messages are shown unchanged; those of `error("…")` are shown as JSON.
        Val::TStr(text) if *text == shown => in_jqs_words(&shown),
        Val::TStr(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => format!("(not a string): {}", cut(&shown)),
    };
    message.into()
}

fn to_output(val: Val) -> Result<Value, FilterError> {
    if is_deeper_than(&val, MAX_DEPTH) {
        // Dropping it recurses, and may overflow the stack. Leaked, its reference count keeps other
        // owners from dropping it too.
        std::mem::forget(val);
        return Err(too_deep("produced").into());
    }
    Ok(to_value(val)?)
}

fn is_deeper_than(val: &Val, levels: usize) -> bool {
    match val {
        Val::Arr(_) | Val::Obj(_) if levels == 0 => true,
        Val::Arr(list) => list.iter().any(|val| is_deeper_than(val, levels - 1)),
        Val::Obj(map) => map
            .iter()
            .any(|(key, val)| [key, val].iter().any(|part| is_deeper_than(part, levels - 1))),
        _ => false,
    }
}

fn to_val(value: &Value, depth: usize) -> Result<Val, String> {
    Ok(match value {
        Value::Null => Val::Null,
        Value::Bool(bool) => Val::Bool(*bool),
        // As an integer it would lose its sign.
        Value::Number(n) if n.as_str() == "-0" => Val::Num(Num::Dec(n.to_string().into())),
        Value::Number(number) => Val::Num(number::of_digits(number.as_str())),
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

/// Converts a value and consumes it, so that a large one is not in memory twice.
fn to_value(val: Val) -> Result<Value, String> {
    Ok(match val {
        Val::Null => Value::Null,
        Val::Bool(bool) => Value::Bool(bool),
        Val::Num(number) => to_number(&number)?,
        Val::TStr(text) => Value::String(to_text(&text)?),
        Val::BStr(_) => return Err(unfit("a byte string")),
        Val::Arr(list) => {
            Rc::unwrap_or_clone(list).into_iter().map(to_value).collect::<Result<_, _>>()?
        }
        Val::Obj(map) => {
            let pair = |(key, val): (Val, Val)| match key {
                Val::TStr(key) => Ok((to_text(&key)?, to_value(val)?)),
                _ => Err(unfit("an object key that is not a string")),
            };
            Value::Object(Rc::unwrap_or_clone(map).into_iter().map(pair).collect::<Result<_, _>>()?)
        }
    })
}

/// Converts a number: digits unchanged; a calculated integer without a `.0`, as jq writes it.
fn to_number(number: &Num) -> Result<Value, String> {
    let text = match number {
        Num::Float(float) if !float.is_finite() => return Err(unfit(&number.to_string())),
        _ => number::text(number),
    };
    // `fromjson` accepts numbers that JSON does not have, such as `+1.5` and `01.5`.
    text.parse::<Number>().map_err(|_| unfit(&format!("the number {text}")))?;
    // The parsed number cannot be used: serde_json has made `1e+400` of `1e400`.
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

/// The names of all functions with their number of arguments: `map/1`.
fn builtins() -> Jq {
    let defs = definitions().map(|def| (def.name, def.args.len()));
    let names =
        natives().map(|native| (native.0, native.1.len())).chain(defs).collect::<BTreeSet<_>>();
    let names =
        names.into_iter().filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    names.map(|(name, arity)| Jq::text(format!("{name}/{arity}"))).collect()
}

/// `$ENV`, as far as it is UTF-8.
fn environment() -> Jq {
    let utf8 = |text: OsString| text.into_string().ok().map(Val::from);
    let pairs = std::env::vars_os().filter_map(|(k, v)| Some((utf8(k)?, utf8(v)?)));
    Jq(Val::obj(pairs.collect()))
}

fn syntax_error(source: &str, expected: &str, found: &str) -> FilterError {
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
    let path = DocPath::parse_filter(&format!(".{}", source.trim())).filter(|_| *arity == 0);
    FilterError {
        message: format!("undefined function \"{name}\"/{arity} at {at}"),
        hint: path.map(|path| format!("did you mean `{path}`?")),
        excess: None,
    }
}

/// The position of a part of the source, in characters from 1.
fn place(source: &str, part: &str) -> String {
    let offset = part.as_ptr().addr().checked_sub(source.as_ptr().addr());
    let before = offset.and_then(|at| source.get(..at)).unwrap_or_default();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    match before.matches('\n').count() {
        0 => format!("column {column}"),
        lines => format!("line {}, column {column}", lines + 1),
    }
}

/// Shortens jaq's messages, which contain whole values where jq names their type: a document is too
/// long for an error.
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
            let key = if key.starts_with('"') { key } else { type_of(key) };
            format!("cannot index {} with {}", type_of(value), cut(key))
        }
        ref words => {
            let words: Vec<_> = words.iter().map(|word| cut(word)).collect();
            words.join(" ")
        }
    }
}

/// The type of a value from its text, as jaq writes it: bytes are strings after a `b`.
fn type_of(value: &str) -> &'static str {
    JsonType::of_first_byte(value.trim_start_matches('b').bytes().next()).name()
}
