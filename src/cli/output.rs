//! Writing to the terminal: results, confirmations, warnings, errors, tables.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use super::progress::Progress;
use super::style::{Paint, Palette};
use super::table::Table;
use crate::config::{Config, Format, OutputStyle, Verbosity};
use crate::error::{Error, Hint, Invocation, Kind, one_line};
use crate::printable::json_text;

/// Destination of a run's output.
#[derive(Debug)]
pub struct Output<'a> {
    config: &'a Config,
}

/// Standard output was closed by its reader; the program ends without a word.
#[derive(Debug, thiserror::Error)]
#[error("the reader closed the pipe")]
pub struct PipeClosed;

/// Writes to standard output.
pub fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return PipeClosed.into();
        }
        Error::new(Kind::of_io(&error), format!("cannot write to standard output: {error}")).into()
    })
}

impl<'a> Output<'a> {
    /// The output that `config` asks for.
    pub fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// True if results are written as JSON.
    pub fn is_json(&self) -> bool {
        self.config.style.format == Format::Json
    }

    /// Writes a result as it is.
    pub fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        write_out(bytes)
    }

    /// Writes a result as a line of text, and nothing in it steers a terminal.
    pub fn line(&self, text: &str) -> anyhow::Result<()> {
        self.bytes(format!("{}\n", one_line(text)).as_bytes())
    }

    /// Writes a result as a line of JSON.
    pub fn json(&self, value: &Value) -> anyhow::Result<()> {
        self.bytes(json_text(format!("{value}\n")).as_bytes())
    }

    /// Confirms a change that is already made, so a failed write is ignored.
    pub fn confirm(&self, text: &str, value: &Value) {
        self.confirm_in_lines(&[text], value);
    }

    /// The same with facts that take a look at the system, as names of users do.
    pub fn confirm_with(&self, text: &str, facts: impl FnOnce() -> Value) {
        let facts = if self.is_json() { facts() } else { Value::Null };
        self.confirm(text, &facts);
    }

    /// The same in several lines.
    pub fn confirm_in_lines(&self, lines: &[&str], value: &Value) {
        if self.config.verbosity > Verbosity::Quiet {
            let mut lines = lines.iter();
            let written = if self.is_json() {
                self.json(value)
            } else {
                lines.try_for_each(|line| self.line(line))
            };
            if let Err(error) = written
                && !error.is::<PipeClosed>()
            {
                self.warning(&format!("it is done, but could not be confirmed: {error}"));
            }
        }
    }

    /// Warns on standard error.
    pub fn warning(&self, text: &str) {
        if self.is_json() {
            to_stderr(&json_text(format!("{}\n", json!({"warning": {"message": text}}))));
        } else {
            let head = Palette::of(self.config.style.color, &io::stderr())
                .paint("warning:", Paint::Yellow);
            to_stderr(&format!("{head} {}\n", one_line(text)));
        }
    }

    /// Writes a line for a person to standard error at any verbosity: the subject of a question.
    pub fn notice(&self, text: &str) {
        to_stderr(&format!("{}\n", one_line(text)));
    }

    /// Reports progress on standard error, unless `--quiet` is given.
    pub fn progress_line(&self, text: &str) {
        if self.config.verbosity == Verbosity::Quiet {
            return;
        }
        match self.config.style.format {
            Format::Json => {
                to_stderr(&json_text(format!("{}\n", json!({"progress": {"message": text}}))))
            }
            Format::Text => to_stderr(&format!("{}\n", one_line(text))),
        }
    }

    /// Counts the seconds on a terminal while something goes on that may take long.
    pub fn progress(&self, what: impl Into<String>) -> Option<Progress> {
        let is_wanted = !self.is_json() && self.config.verbosity > Verbosity::Quiet;
        is_wanted.then(|| Progress::begin(what.into()))
    }

    /// Reports a long wait for a lock, with its holders, on standard error.
    pub fn wait_notice(&self) -> impl Fn(&str) + use<> {
        let style = self.config.style;
        move |blockers| match style.format {
            Format::Json => {
                to_stderr(&json_text(format!("{}\n", json!({"waiting": {"for": blockers}}))))
            }
            Format::Text => {
                let head =
                    Palette::of(style.color, &io::stderr()).paint("waiting for", Paint::Yellow);
                to_stderr(&format!("{head} {}\n", one_line(blockers)));
            }
        }
    }

    /// A hint as it can be typed here.
    pub fn command(&self, hint: &Hint) -> String {
        hint.to_line(&self.config.invocation)
    }

    /// An error, as part of a result.
    pub fn error_text(&self, error: &Error) -> String {
        error.to_text(&self.paint("error:", Paint::Red), &self.config.invocation)
    }

    /// Shows an error.
    pub fn error(&self, error: &Error) {
        show_error(error, &self.config.invocation, self.config.style);
    }

    /// Writes a table.
    pub fn table(&self, table: Table) -> anyhow::Result<()> {
        self.bytes(table.render(self.palette()).as_bytes())
    }

    /// The palette of results.
    pub fn palette(&self) -> Palette {
        Palette::of(self.config.style.color, &io::stdout())
    }

    /// A word of a result in colour, where that is wanted.
    pub fn paint(&self, word: &str, colour: Paint) -> String {
        self.palette().paint(word, colour)
    }
}

/// Shows an error on standard error.
pub fn show_error(error: &Error, invoked: &Invocation, style: OutputStyle) {
    match style.format {
        Format::Json => to_stderr(&error.to_json(invoked)),
        Format::Text => {
            let label = Palette::of(style.color, &io::stderr()).paint("error:", Paint::Red);
            to_stderr(&error.to_text(&label, invoked));
        }
    }
}

/// Writes to standard error, which may be closed.
pub fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
