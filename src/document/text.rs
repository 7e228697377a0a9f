//! Conversions of a JSON file's text by other programs: byte order marks, line ends, conflict
//! markers.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text without a byte order mark at its beginning. RFC 8259 (8.1) lets a parser ignore one.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The way in which another program converted a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// A byte order mark was put before it.
    Mark,
    /// Its line ends became CR LF.
    LineEnds,
    /// Both.
    MarkAndLineEnds,
}

impl Conversion {
    /// The conversion in words that fit after "has".
    pub fn words(self) -> &'static str {
        match self {
            Self::Mark => "a byte order mark (BOM)",
            Self::LineEnds => "CR LF line ends",
            Self::MarkAndLineEnds => "a byte order mark (BOM) and CR LF line ends",
        }
    }
}

/// The text before such a conversion: JSON has carriage returns only between tokens. `None` if it
/// shows no sign of a conversion.
pub fn unconverted(text: &Bytes) -> Option<(Bytes, Conversion)> {
    let rest = without_mark(text);
    let has_mark = rest.len() < text.len();
    let lines = match memchr(b'\r', rest) {
        Some(_) => {
            Cow::Owned(rest.iter().copied().filter(|byte| *byte != b'\r').collect::<Vec<u8>>())
        }
        None => Cow::Borrowed(rest),
    };
    match (has_mark, lines) {
        (false, Cow::Borrowed(_)) => None,
        (true, Cow::Borrowed(rest)) => Some((text.slice_ref(rest), Conversion::Mark)),
        (true, Cow::Owned(lines)) => Some((lines.into(), Conversion::MarkAndLineEnds)),
        (false, Cow::Owned(lines)) => Some((lines.into(), Conversion::LineEnds)),
    }
}

/// The line, counted from 1, at which git's conflict markers begin, if a text has them.
pub fn conflict_markers(text: &[u8]) -> Option<usize> {
    let mut lines = text.split(|byte| *byte == b'\n').enumerate();
    let begin = lines.find(|(_, line)| line.starts_with(b"<<<<<<< "))?.0;
    lines.find(|(_, line)| line.trim_ascii_end() == b"=======")?;
    lines.find(|(_, line)| line.starts_with(b">>>>>>> "))?;
    Some(begin + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_is_taken_back_and_named() {
        let plain = Bytes::from_static(b"{\n}\n");
        assert_eq!(unconverted(&plain), None);
        for (text, conversion) in [
            (&b"\xef\xbb\xbf{\n}\n"[..], Conversion::Mark),
            (b"{\r\n}\r\n", Conversion::LineEnds),
            (b"\xef\xbb\xbf{\r\n}\r\n", Conversion::MarkAndLineEnds),
        ] {
            assert_eq!(
                unconverted(&Bytes::copy_from_slice(text)),
                Some((plain.clone(), conversion))
            );
        }
    }

    #[test]
    fn conflict_markers_are_all_three_in_order() {
        let conflict = b"{\n<<<<<<< HEAD\n  \"a\": 1\n=======\r\n  \"a\": 2\n>>>>>>> theirs\n}\n";
        assert_eq!(conflict_markers(conflict), Some(2));
        for text in [
            &b"{}"[..],
            b"<<<<<<< HEAD\n>>>>>>> x\n",
            b">>>>>>> x\n=======\n<<<<<<< y\n",
            b"x <<<<<<< ",
        ] {
            assert_eq!(conflict_markers(text), None);
        }
    }
}
