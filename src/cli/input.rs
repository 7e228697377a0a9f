//! Inputs: documents, JSON in arguments, filters.

use std::cell::RefCell;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::args::state::Program;
use crate::document::json_type::JsonType;
use crate::document::lazy::LazyDocument;
use crate::document::new_document::NewDocument;
use crate::document::path::{DocPath, PathError, PathStep};
use crate::document::query::bounds::Excess;
use crate::document::query::{Filter, FilterError};
use crate::document::{READ_LIMIT, json as text, migrate, rules};
use crate::error::{Error, Kind, Result, quote, quote_path};
use crate::store::diagnosis::newer_schema;

/// The largest inline JSON argument, in bytes.
const ARGUMENT_LIMIT: usize = 64 << 10;

/// Advice for an argument above [`ARGUMENT_LIMIT`].
const FROM_A_FILE: &str =
    "data of that size goes into the document by `state write FILE`, or stays in a file of its own";

/// A file, or standard input for `-`, up to the size of a document. It may be a link or a pipe:
/// `<(jq …)` is both.
pub(super) fn input(file: &Path) -> Result<Vec<u8>> {
    let shown = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let mut bytes = Vec::new();
    let read = match file {
        file if file == Path::new("-") => {
            std::io::stdin().lock().take(READ_LIMIT + 1).read_to_end(&mut bytes)
        }
        file => std::fs::File::open(file)
            .and_then(|file| file.take(READ_LIMIT + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::DependencyMissing,
            _ => Kind::of_io(&error),
        };
        Error::new(kind, format!("cannot read {shown}: {error}"))
            .hint_shell(format!("ls -ld {}", quote_path(file)), "see what is there")
    })?;
    if bytes.len() as u64 > READ_LIMIT {
        return Err(Error::new(
            Kind::TooLarge,
            format!("{shown} has over 64 MiB, the limit of a document"),
        )
        .hint_command(
            "state write --help",
            "a document may have 16 MiB; keep large data in files of their own",
        ));
    }
    Ok(bytes)
}

/// Input that is to become the document.
pub(super) fn parse_document(bytes: &[u8]) -> Result<Value> {
    let value = text::parse(bytes).map_err(|error| {
        Error::new(
            Kind::InvalidJson,
            format!("the input is not a valid JSON document: {error}; nothing was written"),
        )
        .hint_command("state validate FILE", "see what is wrong with it; `jq . FILE` shows where")
    })?;
    migrate::refuse_newer(&value).map_err(|too_new| newer_schema("the input", &too_new))?;
    Ok(value)
}

pub(super) fn inline_json(what: &str, json: &str) -> Result<Value> {
    if json.len() > ARGUMENT_LIMIT {
        let message =
            format!("the JSON of {what} has {} bytes, and 64 KiB is the limit", json.len());
        return Err(Error::new(Kind::TooLarge, message).hint_text(FROM_A_FILE));
    }
    text::parse(json.as_bytes()).map_err(|error| {
        let message = format!("the value of {what} is not valid JSON: {error}");
        Error::new(Kind::InvalidJson, message).hint_text(
            "text is in double quotes inside the shell's: '\"text\"'; objects are '{\"key\": 1}'",
        )
    })
}

fn variables(program: &Program) -> Result<Vec<(String, Value)>> {
    let mut variables = Vec::new();
    for pair in program.arg.chunks_exact(2) {
        if let [name, text] = pair {
            if text.len() > ARGUMENT_LIMIT {
                let message = format!(
                    "the text of ${name} has {} bytes, and 64 KiB is the limit",
                    text.len()
                );
                return Err(Error::new(Kind::TooLarge, message).hint_text(FROM_A_FILE));
            }
            variables.push((name.clone(), text.as_str().into()));
        }
    }
    for pair in program.argjson.chunks_exact(2) {
        if let [name, json] = pair {
            variables.push((name.clone(), inline_json(&format!("${name}"), json)?));
        }
    }
    for (name, _) in &variables {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            || !name.chars().all(plain)
        {
            return Err(Error::new(
                Kind::InvalidName,
                format!("{name:?} cannot be a variable's name in jq"),
            )
            .hint_text("a name has letters, digits and _, and begins with no digit"));
        }
    }
    Ok(variables)
}

/// A parsed filter: a plain path, which needs no jq, or a program.
pub(super) enum Query {
    Path(DocPath),
    Program(Box<Filter>),
}

impl Query {
    pub(super) fn parse(source: &str, program: &Program) -> Result<Self> {
        match DocPath::parse_filter(source) {
            Some(path) => {
                variables(program)?; // unused here, but they may be wrong
                Ok(Self::Path(path))
            }
            None => Ok(Self::Program(Box::new(compile(source, program)?))),
        }
    }

    /// All results, in order.
    pub(super) fn run(&self, document: &LazyDocument) -> Result<Vec<Value>> {
        match self {
            Self::Path(path) => {
                let found = path
                    .get(document.at(path))
                    .map_err(|error| path_error(&path.to_string(), error))?;
                Ok(vec![found.cloned().unwrap_or(Value::Null)])
            }
            Self::Program(filter) => {
                let mut results = Vec::new();
                let each = |result| {
                    results.push(result);
                    ControlFlow::Continue(())
                };
                filter.run_each(document, each).map_err(filter_error)?;
                Ok(results)
            }
        }
    }
}

pub(super) fn compile(source: &str, program: &Program) -> Result<Filter> {
    let filter = Filter::compile(source, &variables(program)?).map_err(filter_error)?;
    Ok(match program.filter_timeout {
        Some(timeout) => filter.within(timeout.into()),
        None => filter,
    })
}

pub(super) fn filter_error(error: FilterError) -> Error {
    let kind = if error.excess == Some(Excess::Time) { Kind::WaitTimeout } else { Kind::Filter };
    let failure = Error::new(kind, format!("the filter fails: {}", error.message));
    match error.hint {
        Some(hint) => failure.hint_text(hint),
        None => failure, // the help of the typed command follows
    }
}

/// An argument as messages show it: shortened where it is long.
pub(super) fn cut(argument: &str) -> String {
    const SHOWN: usize = 80;
    match argument.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", argument.get(..end).unwrap_or_default()),
        None => argument.to_owned(),
    }
}

/// The error about a path: it names the argument that holds the path, and the remedy.
pub(super) fn path_error(argument: &str, error: PathError) -> Error {
    let failure = Error::new(Kind::Path, format!("{:?}: {error}", cut(argument)));
    let set = |path: &str, rest: &str| format!("state set {}", quote(&format!("{path}{rest}")));
    match &error {
        PathError::Syntax(..) => {
            let key = argument.split(['=', ':']).next().unwrap_or_default().trim_start_matches('.');
            failure
                .hint_command(
                    set(&format!(".{}", Value::from(cut(key))), "=TEXT"),
                    "a key that is odd is quoted",
                )
                .hint_command("state set --help", "see what a path is")
        }
        PathError::Root => failure.hint_command("state write -", "replaces the whole document"),
        PathError::Owned(_) => failure
            .hint_command(
                "state set PATH=TEXT --if-revision N",
                "commits only on top of a revision",
            )
            .hint_command("state history", "see the revisions"),
        PathError::WrongParent { parent, found, child } => match (found, child.0.last()) {
            (JsonType::Object, Some(PathStep::Index(digits))) => failure.hint_command(
                set(&parent.to_string(), &format!(".\"{digits}\"=TEXT")),
                "a key of digits is quoted",
            ),
            (JsonType::Array, _) => failure.hint_command(
                set(&parent.to_string(), "[0]=TEXT"),
                "elements of an array have numbers; [+] appends",
            ),
            _ if parent.0.is_empty() => failure.hint_command("state read", "see what is there"),
            _ => failure.hint_command(
                set(&parent.to_string(), ":={}"),
                "makes it an object first; what it is now is lost",
            ),
        },
        PathError::OutOfRange(path, ..) => {
            failure.hint_command(set(path, "[+]=TEXT"), "appends to it")
        }
        _ => failure.hint_command("state read", "see what is there"),
    }
}

/// The one object that a program makes of the document.
pub(super) fn only_object(filter: &Filter, document: &LazyDocument) -> Result<NewDocument> {
    let results: RefCell<Vec<NewDocument>> = RefCell::default();
    filter
        .make_each(document, |result| {
            let mut results = results.borrow_mut();
            results.push(result);
            if results.len() > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(filter_error)?;
    let mut results = results.into_inner();
    let problem = match (results.pop(), results.is_empty()) {
        (Some(object), true) if object.skeleton().is_object() => return Ok(object),
        (Some(other), true) => format!("it yields {}", rules::type_of(other.skeleton())),
        (Some(_), false) => "it yields more than one result".to_owned(),
        (None, _) => "it yields nothing".to_owned(),
    };
    Err(Error::new(
        Kind::Filter,
        format!("the filter must yield exactly one object, the new document; {problem}"),
    )
    .hint_command("state update '.phase = \"build\"'", "for instance: assign to a part of it"))
}
