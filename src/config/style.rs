//! The look of results and errors: format, colours, amount.

use std::ffi::{OsStr, OsString};

use super::environment::Environment;

/// The format of results and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The use of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Even in a pipe.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// Its name as a value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// The style of results and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputStyle {
    /// Their format.
    pub format: Format,
    /// Their use of colours.
    pub color: Color,
}

impl OutputStyle {
    /// The look of errors in a word, to be handed to another process.
    pub fn as_arg(self) -> &'static str {
        match self.format {
            Format::Json => "json",
            Format::Text => self.color.name(),
        }
    }

    /// The look with this name.
    pub fn from_arg(word: &OsStr) -> Self {
        let format = if word == "json" { Format::Json } else { Format::Text };
        Self {
            format,
            color: word.to_str().and_then(|word| parse_color(word).ok()).unwrap_or(Color::Auto),
        }
    }
}

/// The amount of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results only.
    Quiet,
    /// Results and confirmations.
    Normal,
    /// The steps (`-v`).
    Info,
    /// Details of the steps (`-vv`, `DEBUG=1`).
    Debug,
}

/// Reads `text` or `json`.
pub fn parse_format(text: &str) -> std::result::Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

/// Reads `auto`, `always` or `never`.
pub fn parse_color(text: &str) -> std::result::Result<Color, String> {
    match text {
        "auto" => Ok(Color::Auto),
        "always" => Ok(Color::Always),
        "never" => Ok(Color::Never),
        _ => Err(format!("{text:?} is none of auto, always, never")),
    }
}

/// The use of colours: as requested; by default on a terminal, unless it is a dumb one or
/// `NO_COLOR` is set.
pub(super) fn color(wanted: Option<Color>, env: &dyn Environment) -> Color {
    match wanted.unwrap_or(Color::Auto) {
        Color::Auto
            if env.get("NO_COLOR").is_some()
                || env.get("TERM").is_some_and(|term| term == "dumb") =>
        {
            Color::Never
        }
        color => color,
    }
}

/// The style of errors and help, determined before the options are parsed: for errors of parsing
/// them.
pub fn early_style(arguments: &[OsString], env: &dyn Environment) -> OutputStyle {
    let mut format = match env.get("PIPELINE_FORMAT") {
        Some(value) if value == "json" => Format::Json,
        _ => Format::Text,
    };
    let mut wanted = None;
    let mut words = arguments
        .iter()
        .take_while(|argument| *argument != OsStr::new("--"))
        .filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        let (option, joined) =
            word.split_once('=').map_or((word, None), |(option, value)| (option, Some(value)));
        match option {
            "--json" => format = Format::Json,
            "--format" => {
                format = joined
                    .or_else(|| words.next())
                    .and_then(|word| parse_format(word).ok())
                    .unwrap_or_default()
            }
            "--color" => {
                wanted = joined.or_else(|| words.next()).and_then(|word| parse_color(word).ok());
            }
            _ => {}
        }
    }
    OutputStyle { format, color: color(wanted, env) }
}
