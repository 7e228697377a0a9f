//! Plain regular expressions: ASCII literals, groups, `|`, `.`, `\w` and the like, `*`, `+`, `?`.
//! Most are so. One walk over the text checks the syntax, and finds the literals of each match.

/// The deepest nesting of groups.
const DEEPEST: usize = 32;

/// Returns whether a text may match a pattern, where `has` returns whether it contains a literal.
/// `None` if the pattern is not plain, or wrong.
pub fn may_match(pattern: &str, has: &mut dyn FnMut(&str) -> bool) -> Option<bool> {
    let mut walk = Walk { pattern, at: 0, has };
    let may_match = walk.alternatives(0)?;
    (walk.at == pattern.len()).then_some(may_match)
}

struct Walk<'p, 'h> {
    pattern: &'p str,
    at: usize,
    has: &'h mut dyn FnMut(&str) -> bool,
}

/// The number of times that something occurs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    OnceOrMore,
    MaybeNever,
}

impl Walk<'_, '_> {
    fn byte(&self, place: usize) -> Option<u8> {
        self.pattern.as_bytes().get(place).copied()
    }

    fn alternatives(&mut self, depth: usize) -> Option<bool> {
        let mut may_match = self.sequence(depth)?;
        while self.byte(self.at) == Some(b'|') {
            self.at += 1;
            may_match |= self.sequence(depth)?;
        }
        Some(may_match)
    }

    fn sequence(&mut self, depth: usize) -> Option<bool> {
        let mut may_match = true;
        let mut begin = self.at; // of the literal that ends here, if it is not empty
        loop {
            let here = self.at;
            let byte = self.byte(here);
            let is_literal = byte.is_some_and(is_literal);
            let escaped = if byte == Some(b'\\') { self.byte(here + 1) } else { None };
            if !is_literal {
                may_match &= self.has(begin, here);
            }
            match (byte, escaped) {
                (None | Some(b'|' | b')'), _) => return Some(may_match),
                (Some(b'('), _) if depth < DEEPEST => {
                    let inner = self.group(depth)?;
                    may_match &= self.times()? == Times::MaybeNever || inner;
                    begin = self.at;
                    continue;
                }
                (Some(b'.'), _) => {
                    self.at += 1;
                    self.times()?;
                    begin = self.at;
                    continue;
                }
                (_, Some(b'd' | b'D' | b's' | b'S' | b'w' | b'W')) => {
                    self.at += 2;
                    self.times()?;
                    begin = self.at;
                    continue;
                }
                (Some(b'^' | b'$'), _) | (_, Some(b'b' | b'B')) => {
                    self.at += if escaped.is_some() { 2 } else { 1 };
                    (self.times()? == Times::Once).then_some(())?;
                    begin = self.at;
                    continue;
                }
                (_, Some(punctuation)) if is_special(punctuation) => begin = here + 1,
                _ if is_literal => {}
                _ => return None,
            }
            // A literal character, of which `begin` to `end` is the literal up to here.
            let (character, end) =
                if escaped.is_some() { (here + 1, here + 2) } else { (here, here + 1) };
            self.at = end;
            match self.times()? {
                Times::Once => continue,
                Times::OnceOrMore => may_match &= self.has(begin, end),
                Times::MaybeNever => may_match &= self.has(begin, character),
            }
            begin = self.at;
        }
    }

    /// The alternatives in parentheses.
    fn group(&mut self, depth: usize) -> Option<bool> {
        self.at += 1;
        if self.byte(self.at) == Some(b'?') {
            (self.byte(self.at + 1) == Some(b':')).then_some(())?;
            self.at += 2;
        }
        let inner = self.alternatives(depth + 1)?;
        (self.byte(self.at) == Some(b')')).then_some(())?;
        self.at += 1;
        Some(inner)
    }

    /// The sign of repetition that is here, greedy or not; `None` for more than one, and for
    /// counts.
    fn times(&mut self) -> Option<Times> {
        let times = match self.byte(self.at) {
            Some(b'+') => Times::OnceOrMore,
            Some(b'*' | b'?') => Times::MaybeNever,
            _ => Times::Once,
        };
        if times != Times::Once {
            self.at += 1;
            if self.byte(self.at) == Some(b'?') {
                self.at += 1;
            }
        }
        (!matches!(self.byte(self.at), Some(b'*' | b'+' | b'?' | b'{'))).then_some(times)
    }

    fn has(&mut self, begin: usize, end: usize) -> bool {
        let literal = self.pattern.get(begin..end).unwrap_or_default();
        literal.is_empty() || (self.has)(literal)
    }
}

/// True for characters that stand for themselves.
fn is_literal(byte: u8) -> bool {
    const LITERAL: [bool; 256] = table(b" _-/:;,\"'<>=!@#%&~`", true);
    LITERAL[usize::from(byte)]
}

/// True for characters that stand for themselves after a `\`.
fn is_special(byte: u8) -> bool {
    const SPECIAL: [bool; 256] = table(b"\\.+*?()|[]{}^$-/", false);
    SPECIAL[usize::from(byte)]
}

/// Marks these characters, and perhaps all ASCII letters and digits.
const fn table(characters: &[u8], alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = alphanumeric && (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut place = 0;
    while place < characters.len() {
        table[characters[place] as usize] = true;
        place += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literals(pattern: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        may_match(pattern, &mut |literal| {
            found.push(literal.to_owned());
            true
        })?;
        Some(found)
    }

    #[test]
    fn a_literal_ends_where_something_else_may_follow() {
        let some = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        for (pattern, words) in [
            (r"\b(make|cargo) +target-5\b", &["make", "cargo", " ", "target-5"][..]),
            (r"a\.b\\c", &["a", ".b", r"\c"]),
            ("ab+c?d*e", &["ab", "e"]),
            ("^(?:ab|)x??y$", &["ab", "y"]),
            ("", &[]),
        ] {
            assert_eq!(literals(pattern), some(words), "{pattern}");
        }
        for other in
            ["a{2}", "[a]", "(?i)a", "(a", "a)", "a**", "^*", r"\pL", r"a\", "ä", r"\b{end}"]
        {
            assert_eq!(literals(other), None, "{other}");
        }
    }

    #[test]
    fn one_branch_is_enough_and_all_of_a_sequence_is_needed() {
        let may = |pattern: &str, text: &str| may_match(pattern, &mut |word| text.contains(word));
        for text in ["make it", "do cargo it"] {
            assert_eq!(may("(make|cargo).*it", text), Some(true), "{text}");
        }
        assert_eq!(may("(make|cargo).*it", "make"), Some(false));
        assert_eq!(may("(make)?.*it", "it"), Some(true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_plain_pattern_is_a_regular_expression(
            pattern in r"([ab.*+?|()^$ {}-]|\\.|\(\?:|\[a\]){0,9}",
        ) {
            if may_match(&pattern, &mut |_| false).is_some() {
                prop_assert!(regex_syntax::parse(&pattern).is_ok(), "{}", pattern);
            }
        }
    }
}
