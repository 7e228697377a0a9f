//! The source of a program: limits that prevent a stack overflow, and its tree.
//!
//! Invariant: the names in the tree are slices of the source, from which an error computes its
//! position.

use jaq_core::load::lex::{StrPart, Tok, Token};
use jaq_core::load::parse::{Def, Term};
use jaq_core::load::{Lexer, Parser};

use super::tokens;
use super::tree::Rewriter;

/// The longest program, in bytes.
const MAX_SOURCE: usize = 64 << 10;
/// The deepest nesting of brackets and strings.
const MAX_BRACKETS: usize = 200;
/// The deepest nesting of terms, where each operator of a chain nests one deeper.
const MAX_TERMS: usize = 4000;
/// In the parser, this many operators of a chain use as much stack as one before its operand.
const PREFIX: usize = 8;

/// The eight MiB of a main thread hold several times as many, in a debug build, too.
const PLAIN_BRACKETS: usize = 25;
const PLAIN_TERMS: usize = 100;
/// The number of concatenations in a plain program: each may double its operands.
const PLAIN_COPIES: usize = 5;
/// Functions of a plain program: their time is proportional to their input.
const PLAIN_WORDS: [&str; 30] = [
    "and",
    "or",
    "not",
    "if",
    "then",
    "elif",
    "else",
    "end",
    "empty",
    "null",
    "true",
    "false",
    "length",
    "keys",
    "has",
    "type",
    "now",
    "todate",
    "tostring",
    "tonumber",
    "ascii_downcase",
    "ascii_upcase",
    "select",
    "first",
    "last",
    "startswith",
    "endswith",
    "ltrimstr",
    "rtrimstr",
    "error",
];

/// Returns whether a source may need many resources: it nests deep, loops, or makes large values
/// from small ones.
pub(super) fn is_heavy(source: &str) -> bool {
    // The lexer recurses, too, so the brackets are counted before it runs.
    if brackets(source) > PLAIN_BRACKETS {
        return true;
    }
    let mut copies = 0;
    Lexer::new(source)
        .lex()
        .is_ok_and(|tokens| depth(&tokens) > PLAIN_TERMS || !is_plain(&tokens, &mut copies))
}

/// Returns whether these tokens only take parts of the document and do little else.
fn is_plain(tokens: &[Token<&str>], copies: &mut usize) -> bool {
    let mut before: Option<&Token<&str>> = None;
    tokens.iter().all(|token| {
        let before = before.replace(token);
        match &token.1 {
            Tok::Word => PLAIN_WORDS.contains(&token.0),
            // `.[]` iterates over everything.
            Tok::Block(inner) if inner.len() == 1 && token.0.starts_with('[') => {
                before.is_none_or(|before| {
                    matches!(before.1, Tok::Sym) && !before.0.starts_with(['.', '?'])
                })
            }
            Tok::Block(inner) => is_plain(inner, copies),
            Tok::Str(parts) => parts.iter().all(|part| match part {
                StrPart::Term(token) => is_plain(std::slice::from_ref(token), copies),
                _ => true,
            }),
            Tok::Sym if matches!(token.0, "+" | ",") => {
                *copies += 1;
                *copies <= PLAIN_COPIES
            }
            Tok::Sym => !matches!(token.0, "*" | "*=" | ".."),
            Tok::Var | Tok::Num => true,
            Tok::Fmt => false,
        }
    })
}

/// Refuses a source that could overflow the stack in jaq, which recurses over it.
pub(super) fn check(source: &str) -> Result<(), String> {
    if source.len() > MAX_SOURCE {
        return Err(format!("the filter is longer than {} KiB", MAX_SOURCE >> 10));
    }
    if brackets(source) > MAX_BRACKETS {
        return Err(format!("the filter nests brackets more than {MAX_BRACKETS} deep"));
    }
    match Lexer::new(source).lex() {
        Ok(tokens) if depth(&tokens) > MAX_TERMS => {
            Err(format!("the filter nests or chains more than {MAX_TERMS} operators"))
        }
        _ => Ok(()), // the parser's error is better
    }
}

/// The reason why a source is not a program.
pub(super) enum Problem<'s> {
    /// The expected token, and the source from the token found instead.
    Syntax(&'s str, &'s str),
    /// A sentence.
    Meaning(String),
}

/// The tree of a checked source.
pub(super) fn parse(source: &str) -> Result<Term<&str>, Problem<'_>> {
    let end = source.get(source.len()..).unwrap_or_default();
    let lexed = Lexer::new(source).lex().map_err(|errors| {
        let first = errors.into_iter().next();
        first.map_or(Problem::Syntax("a filter", end), |(expected, found)| {
            Problem::Syntax(expected.as_str(), found)
        })
    })?;
    if lexed.first().is_some_and(|first| ["import", "include", "module"].contains(&first.0)) {
        return Err(Problem::Syntax("a filter without modules", source));
    }
    let changed = tokens::program(source, lexed);
    let tree = Parser::new(&changed).parse(|parser| parser.term()).map_err(|errors| {
        let first = errors.into_iter().next();
        first.map_or(Problem::Syntax("a filter", end), |(expected, found)| {
            Problem::Syntax(expected.as_str(), found.map_or(end, |token| token.0))
        })
    })?;
    Rewriter::new(source).program(tree).map_err(Problem::Meaning)
}

/// Parses definitions of this program, with jq's meaning.
pub(super) fn definitions(source: &'static str) -> Vec<Def<&'static str>> {
    let lexed = Lexer::new(source).lex().unwrap_or_default();
    let changed = tokens::program(source, lexed);
    let defs = Parser::new(&changed).parse(|parser| parser.defs()).unwrap_or_default();
    let rewriter = Rewriter::new(source);
    defs.into_iter().filter_map(|def| rewriter.def(def).ok()).collect()
}

fn brackets(source: &str) -> usize {
    let (mut open, mut deepest) = (Vec::new(), 0);
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match (open.last(), c) {
            (Some('"'), '\\') => open.extend(chars.next().filter(|c| *c == '(')),
            (Some('"'), '"') | (None | Some('(' | '[' | '{'), ')' | ']' | '}') => drop(open.pop()),
            (Some('"'), _) => {}
            (_, '"' | '(' | '[' | '{') => open.push(c),
            (_, '#') => drop(chars.find(|c| *c == '\n')),
            _ => {}
        }
        deepest = deepest.max(open.len());
    }
    deepest
}

/// An upper bound of the nesting depth of these tokens' terms.
fn depth(tokens: &[Token<&str>]) -> usize {
    let (mut pipes, mut chain, mut longest, mut inner) = (0, 0, 0, 0);
    let mut operand = false;
    for Token(text, token) in tokens {
        match (token, *text) {
            (Tok::Block(tokens), _) => {
                chain += 1;
                inner = inner.max(depth(tokens));
            }
            (Tok::Str(parts), _) => {
                for part in parts {
                    if let StrPart::Term(token) = part {
                        inner = inner.max(depth(std::slice::from_ref(token)));
                    }
                }
            }
            // These bind tighter than all operators that are counted as a chain.
            (Tok::Sym, "," | ";" | ":") => chain = 0,
            (_, "|" | "as") => pipes += 1,
            (Tok::Word, "def" | "label" | "if") => pipes += PREFIX,
            (Tok::Word, "try" | "reduce" | "foreach") => chain += PREFIX,
            (Tok::Sym, "-") if !operand => chain += PREFIX,
            (Tok::Sym, _) | (Tok::Word, "and" | "or") => chain += 1,
            _ => {}
        }
        operand = !matches!(token, Tok::Sym) || text.starts_with(['.', '?']);
        longest = longest.max(chain);
    }
    pipes + longest + inner
}
