//! Colours of the output.

use std::io::IsTerminal;

use crate::config::Color;

/// A colour that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// There is a problem.
    Red,
    /// There is no problem.
    Green,
    /// Something is worth knowing.
    Yellow,
}

/// The use of colours on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// Words are coloured.
    Coloured,
    /// Text is plain.
    Plain,
}

impl Palette {
    /// The palette of a stream.
    pub fn of(color: Color, stream: &impl IsTerminal) -> Self {
        match color {
            Color::Always => Self::Coloured,
            Color::Auto if stream.is_terminal() => Self::Coloured,
            Color::Auto | Color::Never => Self::Plain,
        }
    }

    /// The text in a colour, where the stream has colours.
    pub fn paint(self, text: &str, paint: Paint) -> String {
        let code = match paint {
            Paint::Red => "31",
            Paint::Green => "32",
            Paint::Yellow => "33",
        };
        match self {
            Self::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}
