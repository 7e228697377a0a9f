//! Regular expressions with the semantics that jq has from Oniguruma, matched by `fancy-regex`.
//!
//! `$` also matches before a newline that ends the text. A search that backtracks too often is an
//! error.

use std::cell::RefCell;
use std::rc::Rc;

use fancy_regex::{Regex, RegexBuilder};
use jaq_core::box_iter::box_once;
use jaq_core::native::bome;
use jaq_core::{Cv, Exn, ValR, ValXs};
use jaq_json::Val;

use super::jq::{Data, Error, Jq, error};
use super::{bounds, oniguruma, text};

/// The limit of backtracking steps in a search.
const BACKTRACKS: usize = 5_000_000;
/// The largest compiled expression, in bytes.
const COMPILED: usize = 32 << 20;

#[derive(Clone, PartialEq, Eq)]
struct Key {
    pattern: String,
    ignore_case: bool,
    extended: bool,
    dot_is_all: bool,
    longest: bool,
    not_empty: bool,
    before_newline: bool,
}

thread_local! {
    /// The last expression: a filter on each element of a list compiles its expression once.
    static LAST: RefCell<Option<(Key, Rc<Regex>)>> = const { RefCell::new(None) };
}

/// An expression with its flags, for one text.
struct Search {
    regex: Rc<Regex>,
    text: String,
    global: bool,
}

fn search(value: &Jq, pattern: &Jq, flags: &Jq) -> Result<Search, Error> {
    let Some(text) = value.string() else {
        return Err(error(format_args!(
            "{} cannot be matched, as it is not a string",
            text::shown(&value.0)
        )));
    };
    let Some(pattern) = pattern.string() else {
        let (pattern, kind) = (text::short(&pattern.0), text::kind(&pattern.0));
        return Err(error(format_args!(
            "{pattern} ({kind}) cannot be matched, as it is not a string"
        )));
    };
    let mut key = Key {
        pattern: pattern.clone().into_owned(),
        ignore_case: false,
        extended: false,
        dot_is_all: false,
        longest: false,
        not_empty: false,
        before_newline: text.ends_with('\n'),
    };
    let mut global = false;
    if !matches!(flags.0, Val::Null) {
        let Some(letters) = flags.string() else {
            return Err(error(format_args!("{} is not a string", text::shown(&flags.0))));
        };
        for letter in letters.chars() {
            match letter {
                'g' => global = true,
                'i' => key.ignore_case = true,
                'x' => key.extended = true,
                's' => {} // `^` and `$` mean the whole text already
                'p' => key.dot_is_all = true,
                'l' => key.longest = true,
                'n' => key.not_empty = true,
                _ => return Err(error(format_args!("{letters} is not a valid modifier string"))),
            }
        }
    }
    let regex = compiled(key)?;
    Ok(Search { regex, text: text.into_owned(), global })
}

fn compiled(key: Key) -> Result<Rc<Regex>, Error> {
    let known = LAST.with_borrow(|last| {
        last.as_ref().filter(|last| last.0 == key).map(|last| Rc::clone(&last.1))
    });
    if let Some(regex) = known {
        return Ok(regex);
    }
    if key.longest {
        return Err(error("the flag l, for the longest match, is not supported"));
    }
    let pattern = oniguruma::translated(&key.pattern, key.before_newline, key.extended);
    let mut builder = RegexBuilder::new(&pattern);
    builder
        .case_insensitive(key.ignore_case)
        .ignore_whitespace(key.extended)
        .dot_matches_new_line(key.dot_is_all)
        .oniguruma_mode(true)
        .multi_line(false)
        .find_not_empty(key.not_empty)
        .delegate_size_limit(COMPILED)
        .backtrack_limit(BACKTRACKS);
    let regex = builder.build().map_err(|problem| {
        let problem = problem.to_string();
        let line = problem
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        error(format_args!("{} (at offset 0) is not a valid regex: {line}", key.pattern))
    })?;
    let regex = Rc::new(regex);
    LAST.set(Some((key, Rc::clone(&regex))));
    Ok(regex)
}

/// One match: its begin and end in bytes, and the groups, which may be absent.
struct Found {
    all: (usize, usize),
    groups: Vec<Option<(usize, usize)>>,
}

impl Search {
    fn failed(problem: &fancy_regex::Error) -> Error {
        error(format_args!("the search was given up: {problem}"))
    }

    fn found(&self) -> Result<Vec<Found>, Error> {
        let (mut found, mut from) = (Vec::new(), 0);
        while from <= self.text.len() {
            bounds::go_on()?;
            let captures =
                self.regex.captures_from_pos(&*self.text, from).map_err(|e| Self::failed(&e))?;
            let Some(captures) = captures else { break };
            let range = |group: fancy_regex::Match<'_>| (group.start(), group.end());
            let Some(all) = captures.get(0).map(range) else { break };
            let groups = (1..captures.len()).map(|group| captures.get(group).map(range)).collect();
            found.push(Found { all, groups });
            if !self.global {
                break;
            }
            // The next match may begin where this one ends, unless this one is empty.
            from = match self.text[all.1..].chars().next() {
                _ if all.1 > all.0 => all.1,
                Some(c) => all.1 + c.len_utf8(),
                None => break,
            };
        }
        Ok(found)
    }

    fn names(&self) -> Vec<Option<String>> {
        self.regex.capture_names().skip(1).map(|name| name.map(str::to_owned)).collect()
    }

    fn part(&self, range: (usize, usize)) -> Jq {
        Jq::text(&self.text[range.0..range.1])
    }

    /// The named groups, as an object.
    fn capture(&self, found: &Found, names: &[Option<String>]) -> Jq {
        let named = names.iter().zip(&found.groups).filter_map(|(name, group)| {
            let value = group.map(|range| self.part(range)).unwrap_or_default();
            Some((Val::from(name.clone()?), value.0))
        });
        Jq(Val::obj(named.collect()))
    }
}

/// Counts characters along the text.
struct Characters<'t> {
    text: &'t str,
    at: usize,
    count: usize,
}

impl Characters<'_> {
    fn before(&mut self, at: usize) -> usize {
        if at < self.at {
            (self.at, self.count) = (0, 0);
        }
        self.count += self.text[self.at..at].chars().count();
        self.at = at;
        self.count
    }
}

/// All matches, as jq's objects.
pub(super) fn matches(value: Jq, pattern: Jq, flags: Jq) -> ValR<Jq> {
    let search = search(&value, &pattern, &flags)?;
    let names = search.names();
    let mut characters = Characters { text: &search.text, at: 0, count: 0 };
    let found = search.found()?;
    let object = |found: &Found, characters: &mut Characters<'_>| {
        let mut place = |range: Option<(usize, usize)>| match range {
            Some(range) => {
                let text = &search.text[range.0..range.1];
                let offset = characters.before(range.0);
                (Jq::from(offset), Jq::from(text.chars().count()), search.part(range))
            }
            None => (Jq::from(-1_isize), Jq::from(0_usize), Jq::default()),
        };
        let (offset, length, string) = place(Some(found.all));
        let captures = found.groups.iter().zip(&names).map(|(group, name)| {
            let (offset, length, string) = place(*group);
            let name = name.clone().map_or_else(Jq::default, Jq::text);
            Jq::object([("offset", offset), ("length", length), ("string", string), ("name", name)])
        });
        let captures = captures.collect();
        Jq::object([
            ("offset", offset),
            ("length", length),
            ("string", string),
            ("captures", captures),
        ])
    };
    Ok(found.iter().map(|found| object(found, &mut characters)).collect())
}

/// Returns whether there is a match.
pub(super) fn test(value: Jq, pattern: Jq, flags: Jq) -> ValR<Jq> {
    let search = search(&value, &pattern, &flags)?;
    search.regex.is_match(&*search.text).map(Jq::from).map_err(|problem| Search::failed(&problem))
}

/// `sub` and `gsub`: the first outputs for all matches make the first result, the second ones the
/// second.
pub(super) fn substitute<'a>(mut cv: Cv<'a, Data>) -> ValXs<'a, Jq> {
    let flags = cv.0.pop_var();
    let (filter, ctx) = cv.0.pop_fun();
    let pattern = cv.0.pop_var();
    let done = || -> Result<Vec<Jq>, Exn<'a, Jq>> {
        let search = search(&cv.1, &pattern, &flags)?;
        let (names, found) = (search.names(), search.found()?);
        let (mut results, mut previous): (Vec<Jq>, usize) = (Vec::new(), 0);
        for found in &found {
            let gap = &search.text[previous..found.all.0];
            let inserts = filter.run((ctx.clone(), search.capture(found, &names)));
            for (at, insert) in inserts.enumerate() {
                let insert = insert?;
                let Some(text) = insert.bytes() else {
                    let shown = text::shown(&insert.0);
                    return Err(error(format_args!("{shown} cannot be added to a string")).into());
                };
                if results.len() <= at {
                    results.resize_with(at + 1, Jq::default);
                }
                let mut bytes = match std::mem::take(&mut results[at].0) {
                    Val::TStr(text) => Vec::from(*text),
                    _ => Vec::new(),
                };
                bytes.extend_from_slice(gap.as_bytes());
                bytes.extend_from_slice(text);
                results[at] = Jq(Val::utf8_str(bytes));
            }
            previous = found.all.1;
        }
        if results.is_empty() {
            return Ok(vec![cv.1.clone()]);
        }
        let rest = Jq::text(&search.text[previous..]);
        results.into_iter().map(|result| Ok((result + rest.clone())?)).collect()
    };
    match done() {
        Ok(mut results) if results.len() == 1 => bome(Ok(results.pop().unwrap_or_default())),
        Ok(results) => Box::new(results.into_iter().map(Ok)),
        Err(problem) => box_once(Err(problem)),
    }
}
