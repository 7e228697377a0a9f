//! The source of a program: limits that keep it off the end of the stack, and jq's assignments.
//!
//! Invariant: the names in the tree are slices of the source, by which an error finds its position.

use jaq_core::load::lex::{StrPart, Tok, Token};
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::load::{Lexer, Parser};
use jaq_core::ops::Math;
use jaq_core::path::{Opt, Part, Path};

use super::assign::{ASSIGN, MODIFY};

/// The longest program, in bytes.
const MAX_SOURCE: usize = 64 << 10;
/// The deepest nesting of brackets and strings.
const MAX_BRACKETS: usize = 200;
/// The deepest nesting of terms, where each operator of a chain nests one deeper.
const MAX_TERMS: usize = 4000;
/// How many operators of a chain use up as much stack as one before its operand does, in the parser.
const PREFIX: usize = 8;
/// The name of an operand that is evaluated before the paths; no user can write it.
const OPERAND: &str = "$=";

/// What the eight MiB of a main thread hold several times over, in a debug build, too.
const PLAIN_BRACKETS: usize = 25;
const PLAIN_TERMS: usize = 100;

/// Whether a source nests so deep that its program should run on a stack of [`super::STACK`].
pub(super) fn is_deep(source: &str) -> bool {
    // The lexer recurses, too, so the brackets are counted before it is asked.
    brackets(source) > PLAIN_BRACKETS || Lexer::new(source).lex().is_ok_and(|tokens| depth(&tokens) > PLAIN_TERMS)
}

/// Refuses a source that jaq, which recurses over it, might not survive.
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
        Ok(tokens) => precedence(&tokens),
        Err(_) => Ok(()), // the parser says it better
    }
}

/// The tree of a checked source, if it is a filter.
pub(super) fn parse(source: &str) -> Option<Term<&str>> {
    let tokens = Lexer::new(source).lex().ok()?;
    Parser::new(&tokens).parse(|parser| parser.term()).ok().map(rewrite)
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

/// An upper bound of how deep the terms of these tokens are nested.
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
            // These bind tighter than all that is counted as a chain.
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

/// Refuses what jq and jaq read differently. `1 + 2 as $x | f` is `1 + (2 as $x | f)` to jq and `(1 + 2) as $x | f` to
/// jaq, whose tree does not tell which was written; and `.a = .b = 3` is an error to jq alone.
fn precedence(tokens: &[Token<&str>]) -> Result<(), String> {
    const ASSIGNMENTS: [&str; 8] = ["=", "|=", "+=", "-=", "*=", "/=", "%=", "//="];
    const OPERATORS: [&str; 13] = [",", "+", "-", "*", "/", "%", "//", "==", "!=", "<", ">", "<=", ">="];
    let (mut operator, mut assigned, mut operand) = (None, false, false);
    for Token(text, token) in tokens {
        match (token, *text) {
            (Tok::Block(tokens), _) => precedence(tokens)?,
            (Tok::Str(parts), _) => {
                for part in parts {
                    if let StrPart::Term(token) = part {
                        precedence(std::slice::from_ref(token))?;
                    }
                }
            }
            (Tok::Sym, "|" | ";" | ":")
            | (Tok::Word, "reduce" | "foreach" | "if" | "then" | "elif" | "else" | "try" | "catch" | "def") => {
                (operator, assigned) = (None, false);
            }
            (Tok::Word, "as") => {
                if let Some(operator) = operator {
                    return Err(format!(
                        "`as` comes behind `{operator}`: put parentheses around what is bound, or around all of `… as $x | …`"
                    ));
                }
            }
            (Tok::Sym, "-") if !operand => {}
            (Tok::Sym, text) if ASSIGNMENTS.contains(&text) => {
                if assigned {
                    return Err("two assignments in a row: put parentheses around the second".to_owned());
                }
                (operator, assigned) = (Some(text), true);
            }
            (Tok::Sym, text) if OPERATORS.contains(&text) => {
                operator = Some(text);
                assigned &= text != ",";
            }
            (Tok::Word, text @ ("and" | "or")) => operator = Some(text),
            _ => {}
        }
        operand = !matches!(token, Tok::Sym) || text.starts_with(['.', '?']);
    }
    Ok(())
}

pub(super) fn rewrite_def(def: Def<&str>) -> Def<&str> {
    Def { body: rewrite(def.body), ..def }
}

/// Makes assignments calls of natives, slices indexes by an object, and long lists balanced trees.
fn rewrite(term: Term<&str>) -> Term<&str> {
    match term {
        Term::Str(format, parts) => {
            let part = |part| match part {
                StrPart::Term(term) => StrPart::Term(rewrite(term)),
                other => other,
            };
            balanced(parts.into_iter().map(part).collect(), &|parts| Term::Str(format, parts))
        }
        Term::Arr(list) => Term::Arr(list.map(boxed)),
        Term::Obj(pairs) => {
            let pair = |(key, value): (_, Option<_>)| (rewrite(key), value.map(rewrite));
            balanced(pairs.into_iter().map(pair).collect(), &Term::Obj)
        }
        Term::Neg(term) => Term::Neg(boxed(term)),
        Term::BinOp(left, op, right) => operation(*left, op, *right),
        Term::Label(name, term) => Term::Label(name, boxed(term)),
        Term::Fold(name, terms, pattern, args) => {
            Term::Fold(name, boxed(terms), patterns(pattern), args.into_iter().map(rewrite).collect())
        }
        Term::TryCatch(term, catch) => Term::TryCatch(boxed(term), catch.map(boxed)),
        Term::IfThenElse(branches, otherwise) => {
            let branches = branches.into_iter().map(|(test, then)| (rewrite(test), rewrite(then)));
            Term::IfThenElse(branches.collect(), otherwise.map(boxed))
        }
        Term::Def(defs, term) => Term::Def(defs.into_iter().map(rewrite_def).collect(), boxed(term)),
        Term::Call(name, args) => Term::Call(name, args.into_iter().map(rewrite).collect()),
        Term::Path(term, path) => {
            let parts = path.0.into_iter().map(|(part, opt)| (rewrite_part(part), opt));
            Term::Path(boxed(term), Path(parts.collect()))
        }
        term @ (Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_)) => term,
    }
}

#[allow(clippy::boxed_local)] // what the callers have is a box
fn boxed(term: Box<Term<&str>>) -> Box<Term<&str>> {
    Box::new(rewrite(*term))
}

fn operation<'s>(left: Term<&'s str>, op: BinaryOp<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    let operand = |op| infix(Term::Id, op, Term::Var(OPERAND));
    let op = match op {
        BinaryOp::Comma => return commas(left, right),
        BinaryOp::Assign => return Term::Call(ASSIGN, vec![rewrite(left), rewrite(right)]),
        BinaryOp::Update => return Term::Call(MODIFY, vec![rewrite(left), rewrite(right)]),
        BinaryOp::UpdateMath(math) => operand(BinaryOp::Math(math)),
        BinaryOp::UpdateAlt => operand(BinaryOp::Alt),
        BinaryOp::Pipe(pattern) => {
            return infix(rewrite(left), BinaryOp::Pipe(pattern.map(patterns)), rewrite(right));
        }
        other => return infix(rewrite(left), other, rewrite(right)),
    };
    let modify = Term::Call(MODIFY, vec![rewrite(left), op]);
    infix(rewrite(right), BinaryOp::Pipe(Some(Pattern::Var(OPERAND))), modify)
}

fn infix<'s>(left: Term<&'s str>, op: BinaryOp<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    Term::BinOp(Box::new(left), op, Box::new(right))
}

fn commas<'s>(left: Term<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    let (mut rest, mut terms) = (left, vec![rewrite(right)]);
    while let Term::BinOp(left, BinaryOp::Comma, right) = rest {
        terms.push(rewrite(*right));
        rest = *left;
    }
    terms.push(rewrite(rest));
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        terms.reverse();
        while let Some(first) = terms.pop() {
            pairs.push(match terms.pop() {
                Some(second) => infix(second, BinaryOp::Comma, first),
                None => first,
            });
        }
        terms = pairs;
    }
    terms.pop().unwrap_or_default()
}

/// jaq adds the parts of strings and objects one by one, each one nested deeper.
fn balanced<'s, T>(mut parts: Vec<T>, make: &impl Fn(Vec<T>) -> Term<&'s str>) -> Term<&'s str> {
    if parts.len() <= 8 {
        return make(parts);
    }
    let right = parts.split_off(parts.len() / 2);
    infix(balanced(parts, make), BinaryOp::Math(Math::Add), balanced(right, make))
}

fn patterns(pattern: Pattern<&str>) -> Pattern<&str> {
    match pattern {
        Pattern::Var(name) => Pattern::Var(name),
        Pattern::Arr(list) => Pattern::Arr(list.into_iter().map(patterns).collect()),
        Pattern::Obj(pairs) => {
            Pattern::Obj(pairs.into_iter().map(|(key, value)| (rewrite(key), patterns(value))).collect())
        }
    }
}

fn rewrite_part(part: Part<Term<&str>>) -> Part<Term<&str>> {
    let text = |text| Term::Str(None, vec![StrPart::Str(text)]);
    match part {
        Part::Index(index) => Part::Index(rewrite(index)),
        Part::Range(None, None) => Part::Range(None, None),
        Part::Range(start, end) => {
            // `{}.start`, for a user may define a `null` of their own.
            let null =
                || Term::Path(Term::Obj(vec![]).into(), Path(vec![(Part::Index(text("start")), Opt::Essential)]));
            let bound = |bound: Option<_>| Some(bound.map_or_else(null, rewrite));
            Part::Index(Term::Obj(vec![(text("start"), bound(start)), (text("end"), bound(end))]))
        }
    }
}
