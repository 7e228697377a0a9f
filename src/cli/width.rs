//! Width of text on a terminal: none for an accent, two columns for a Chinese character, one for
//! most.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The columns that a text takes.
pub fn of(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// A text, cut if it takes more columns than this.
pub fn cut(text: &str, most: usize) -> String {
    if of(text) <= most {
        return text.to_owned();
    }
    let mut used = 1; // the dots
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= most
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    while of(&kept) + 1 > most && kept.pop().is_some() {} // some characters are wider together
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_takes_the_columns_that_a_terminal_gives_it() {
        for (text, columns) in [
            ("abc", 3),
            ("部署中", 6),
            ("e\u{301}", 1),
            ("🚀", 2),
            ("❤\u{fe0f}", 2),
            ("ｱ", 1),
            ("…", 1),
        ] {
            assert_eq!(of(text), columns, "{text}");
        }
    }

    #[test]
    fn a_cut_text_fits_and_is_as_long_as_possible() {
        assert_eq!(cut("部署中", 6), "部署中");
        assert_eq!(cut("部署中", 5), "部署…");
        assert_eq!(cut("部署中", 4), "部…");
        assert_eq!(cut("make all", 6), "make…");
        for text in [
            "❤\u{fe0f}❤\u{fe0f}❤\u{fe0f}",
            "e\u{301}e\u{301}e\u{301}",
            "👩\u{200d}🚀👩\u{200d}🚀",
            "🇩🇪🇫🇷",
        ] {
            for most in 1..8 {
                assert!(of(&cut(text, most)) <= most, "{text} {most}");
            }
        }
    }
}
