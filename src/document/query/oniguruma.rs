//! Translates regular expressions from jq's syntax, Oniguruma's `Perl_NT`, to that of
//! `fancy-regex`.
//!
//! Syntax without a counterpart is left unchanged, and refused when it is compiled.

use std::iter::Peekable;
use std::str::Chars;

/// Letters that are literal here after a backslash, and special or invalid in `fancy-regex`.
const LITERAL: &str = "hHvVijlmquEFIJLTU";
/// Letters that are literal unless this character follows.
const LITERAL_BUT: [(char, char); 7] =
    [('g', '<'), ('k', '<'), ('p', '{'), ('P', '{'), ('o', '{'), ('C', '-'), ('M', '-')];
/// Letters that are special after a backslash in a class.
const IN_CLASS: &str = "dDsSwWbnrtfaexpP";

/// Translates an expression. With `before_newline`, `$` also matches before a newline at the end.
pub(super) fn translated(pattern: &str, before_newline: bool, extended: bool) -> String {
    let groups = pattern.matches('(').count();
    let mut to = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut chars, groups, &mut to),
            '[' => class(&mut chars, &mut to),
            '$' if before_newline => to.push_str("(?=\\n?\\z)"),
            '{' if chars.peek() == Some(&',') => to.push_str("\\{"),
            '(' if chars.clone().take(2).eq("?#".chars()) => {
                chars.by_ref().find(|c| *c == ')');
            }
            '#' if extended => {
                chars.by_ref().find(|c| *c == '\n');
            }
            c => to.push(c),
        }
    }
    to
}

fn literal(c: char, to: &mut String) {
    if !c.is_alphanumeric() && c.is_ascii() && c != '_' {
        to.push('\\');
    }
    to.push(c);
}

fn escape(chars: &mut Peekable<Chars<'_>>, groups: usize, to: &mut String) {
    let Some(c) = chars.next() else {
        to.push('\\');
        return;
    };
    let next = chars.peek().copied();
    match c {
        'Q' => {
            while let Some(c) = chars.next() {
                if c == '\\' && chars.next_if_eq(&'E').is_some() {
                    break;
                }
                literal(c, to);
            }
        }
        '0'..='7' => {
            let digits: String = std::iter::once(c).chain(chars.clone().take(2)).collect();
            let octal = digits.find(|c| !('0'..='7').contains(&c)).unwrap_or(digits.len());
            let is_octal =
                c == '0' || octal == 3 && digits.parse().is_ok_and(|n: usize| n > groups);
            match u32::from_str_radix(&digits[..octal], 8) {
                Ok(code) if is_octal => {
                    to.push_str(&format!("\\x{{{code:x}}}"));
                    chars.by_ref().take(octal - 1).for_each(drop);
                }
                _ => to.extend(['\\', c]),
            }
        }
        c if LITERAL.contains(c)
            || LITERAL_BUT.iter().any(|(l, but)| *l == c && next != Some(*but)) =>
        {
            to.push(c)
        }
        c => to.extend(['\\', c]),
    }
}

/// Translates a class after its `[`: Perl has no classes in classes and no set operations.
fn class(chars: &mut Peekable<Chars<'_>>, to: &mut String) {
    to.push('[');
    if chars.next_if_eq(&'^').is_some() {
        to.push('^');
    }
    if chars.next_if_eq(&']').is_some() {
        to.push_str("\\]");
    }
    let mut before = '[';
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                to.push(c);
                return;
            }
            '[' => match named(chars) {
                Some(class) => to.push_str(&class),
                None => to.push_str("\\["),
            },
            '&' | '~' => to.extend(['\\', c]),
            '-' if before == '-' => to.push_str("\\-"),
            '\\' => {
                let Some(escaped) = chars.next() else { break };
                let names = matches!(escaped, 'p' | 'P') && chars.peek() != Some(&'{');
                if names || escaped.is_ascii_alphabetic() && !IN_CLASS.contains(escaped) {
                    to.push(escaped);
                } else {
                    to.extend(['\\', escaped]);
                }
            }
            c => to.push(c),
        }
        before = c;
    }
}

/// `[:alpha:]` and others, which include all letters of Unicode; the rest is ASCII in both.
fn named(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let rest: String = chars.clone().take(12).collect();
    let (name, _) = rest.strip_prefix(':')?.split_once(":]")?;
    let (not, plain) = name.strip_prefix('^').map_or(("", name), |name| ("^", name));
    let members = match plain {
        "alpha" => "\\p{Alphabetic}",
        "alnum" => "\\p{Alphabetic}\\p{Nd}",
        "lower" => "\\p{Lowercase}",
        "upper" => "\\p{Uppercase}",
        "word" => "\\w",
        "space" => "\\s",
        "digit" => "\\d",
        "cntrl" => "\\p{Cc}",
        // The excluded characters: these classes are negated.
        "graph" => "\\s\\p{Cc}\\p{Cn}\\p{Cs}",
        "print" => "\\p{Cc}\\p{Cn}\\p{Cs}",
        "blank" | "punct" | "xdigit" | "ascii" => "",
        _ => return None,
    };
    let class = match (plain, not) {
        (_, _) if members.is_empty() => format!("[:{name}:]"),
        ("graph" | "print", "") => format!("[^{members}]"),
        ("graph" | "print", _) => format!("[{members}]"),
        _ => format!("[{not}{members}]"),
    };
    chars.by_ref().take(name.chars().count() + 3).for_each(drop);
    Some(class)
}
