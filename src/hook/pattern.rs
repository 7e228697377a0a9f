//! Regular expressions of rules. Each is compiled when a text first needs it: compiling takes
//! longer than everything else in a hook.
//!
//! The syntax is checked at once: of a [`plain`] pattern by a walk over its text, of another by a
//! parser, which also finds literals of which a match needs one. A text without what a match needs
//! is refused without compiling.

mod plain;

use std::cell::OnceCell;

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

/// The largest compiled pattern, in bytes: nested counted repetitions grow without bound.
const SIZE_LIMIT: usize = 4 << 20;
/// The most literals of a pattern that are searched for.
const MOST_LITERALS: usize = 64;

/// How letters are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Upper and lower case differ.
    Sensitive,
    /// They are the same.
    Insensitive,
}

/// A regular expression.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    case: Case,
    needs: Needs,
    compiled: OnceCell<Option<Regex>>,
}

/// What a text needs to have in it for a match.
#[derive(Debug)]
enum Needs {
    /// The literals of a plain pattern: [`plain::may_match`] finds them in its text.
    Plain,
    /// One of these; in lower case, if case makes no difference.
    OneOf(Vec<String>),
    /// Nothing is known.
    Unknown,
}

impl Needs {
    /// Parses a pattern that is not plain.
    fn of_parsed(text: &str, case: Case) -> Result<Self, String> {
        let parsed = regex_syntax::parse(text).map_err(|error| problem(&error))?;
        Ok(match (literals(&parsed), case) {
            (Some(found), Case::Sensitive) => Self::OneOf(found),
            (Some(found), Case::Insensitive) if found.iter().all(|literal| literal.is_ascii()) => {
                Self::OneOf(found.iter().map(|text| text.to_ascii_lowercase()).collect())
            }
            _ => Self::Unknown,
        })
    }
}

impl Pattern {
    /// Checks the syntax of a pattern; the error says what is wrong with it.
    pub fn parse(text: &str, case: Case) -> Result<Self, String> {
        let needs = match plain::may_match(text, &mut |_| false) {
            Some(_) => Needs::Plain,
            None => Needs::of_parsed(text, case)?,
        };
        Ok(Self { text: text.to_owned(), case, needs, compiled: OnceCell::new() })
    }

    /// Checks the syntax of a pattern; `None` if `subject` lacks what each match needs.
    pub fn parse_for(
        subject: &Subject<'_>,
        text: &str,
        case: Case,
    ) -> Result<Option<Self>, String> {
        if subject.may_match(text, case) == Some(false) {
            return Ok(None);
        }
        Self::parse(text, case).map(|pattern| Some(pattern).filter(|it| it.may_match(subject)))
    }

    /// Compiles it now; the error says why that is impossible.
    pub fn compile(&self) -> Result<(), String> {
        let built = RegexBuilder::new(&self.text)
            .case_insensitive(self.case == Case::Insensitive)
            .size_limit(SIZE_LIMIT)
            .build();
        let problem = built.as_ref().err().map(ToString::to_string);
        let _ = self.compiled.set(built.ok());
        problem.map_or(Ok(()), Err)
    }

    /// Returns false if `subject` lacks what each match needs. Compiles nothing.
    pub fn may_match(&self, subject: &Subject<'_>) -> bool {
        match &self.needs {
            Needs::Plain => subject.may_match(&self.text, self.case).unwrap_or(true),
            Needs::OneOf(literals) => {
                let text = subject.for_case(self.case);
                literals.iter().any(|literal| text.contains(literal))
            }
            Needs::Unknown => true,
        }
    }

    /// Returns whether it matches somewhere in `text`. One that is too large matches nothing;
    /// `hook check` reports it.
    pub fn is_match(&self, text: &Subject<'_>) -> bool {
        if !self.may_match(text) {
            return false;
        }
        if self.compiled.get().is_none() {
            let _ = self.compile();
        }
        self.compiled.get().and_then(Option::as_ref).is_some_and(|regex| regex.is_match(text.text))
    }
}

/// A text that patterns are matched with.
#[derive(Debug)]
pub struct Subject<'t> {
    text: &'t str,
    lower: OnceCell<String>,
    folded: OnceCell<String>,
}

impl<'t> Subject<'t> {
    /// The subject of a text.
    pub fn of(text: &'t str) -> Self {
        Self { text, lower: OnceCell::new(), folded: OnceCell::new() }
    }

    /// The text in lower case.
    pub fn lower(&self) -> &str {
        self.lower.get_or_init(|| self.text.to_lowercase())
    }

    /// Returns whether a plain pattern may match this text; `None` if it is not plain.
    fn may_match(&self, pattern: &str, case: Case) -> Option<bool> {
        let text = self.for_case(case);
        plain::may_match(pattern, &mut |literal| match case {
            Case::Sensitive => text.contains(literal),
            Case::Insensitive => text.contains(&literal.to_ascii_lowercase()),
        })
    }

    fn for_case(&self, case: Case) -> &str {
        match case {
            Case::Sensitive => self.text,
            // The one letter that regular expressions fold to an ASCII letter and lower case
            // does not: U+017F, the long s.
            Case::Insensitive => self.folded.get_or_init(|| self.lower().replace('\u{17f}', "s")),
        }
    }
}

/// Literals of which each match has at least one. `None` if there are none, or too many.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            Some(vec![String::from_utf8(literal.0.to_vec()).ok().filter(|text| !text.is_empty())?])
        }
        HirKind::Capture(capture) => literals(&capture.sub),
        HirKind::Repetition(repeated) if repeated.min > 0 => literals(&repeated.sub),
        // The rarest: the one with the longest literals.
        HirKind::Concat(parts) => parts
            .iter()
            .filter_map(literals)
            .max_by_key(|found| found.iter().map(String::len).min()),
        HirKind::Alternation(branches) => {
            let found: Option<Vec<_>> = branches.iter().map(literals).collect();
            found.map(|found| found.concat()).filter(|found| found.len() <= MOST_LITERALS)
        }
        _ => None,
    }
}

/// What is wrong with a pattern, without the pattern.
fn problem(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_literals_of_a_pattern_are_what_each_match_needs() {
        let literals_of = |text: &str| match Pattern::parse(text, Case::Insensitive).unwrap().needs
        {
            Needs::OneOf(literals) => Some(literals),
            Needs::Plain | Needs::Unknown => None,
        };
        let some = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        assert_eq!(literals_of("(Create|add)[^.]*(component|page)"), some(&["component", "page"]));
        assert_eq!(literals_of("deploy{1,2}(s|ed)?"), some(&["deplo"]));
        assert_eq!(literals_of(r"\bfix\b{end}"), some(&["fix"]));
        assert_eq!(literals_of("(a|[b]*)"), None);
        assert_eq!(literals_of("größe"), None, "only ASCII letters have one lower case");
    }

    #[test]
    fn a_text_without_the_literals_compiles_nothing() {
        let pattern = Pattern::parse("deploy .* now", Case::Insensitive).unwrap();
        assert!(!pattern.is_match(&Subject::of("nothing of the kind")));
        assert!(pattern.compiled.get().is_none());
        assert!(pattern.is_match(&Subject::of("Deploy it NOW")));
    }

    #[test]
    fn a_pattern_that_is_too_large_matches_nothing() {
        let pattern = Pattern::parse(r"(\w{500}){500}", Case::Sensitive).unwrap();
        assert!(pattern.compile().unwrap_err().contains("size limit"));
        assert!(!pattern.is_match(&Subject::of("a")));
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_regular_expression_matches(
            pattern in "[sS]|a[sS\u{17f}|()?*+.]{0,6}|(?:[aks]|\\(a\\|k\\)|s\\?|\u{212a}){0,6}",
            text in "[aA]?[kKsS\u{17f}\u{212a}]{0,4}",
            sensitive in any::<bool>(),
        ) {
            let case = if sensitive { Case::Sensitive } else { Case::Insensitive };
            let Ok(ours) = Pattern::parse(&pattern, case) else { return Ok(()) };
            let theirs = RegexBuilder::new(&pattern).case_insensitive(!sensitive).build().unwrap();
            prop_assert_eq!(ours.is_match(&Subject::of(&text)), theirs.is_match(&text));
        }
    }
}
