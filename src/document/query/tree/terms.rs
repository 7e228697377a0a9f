//! Terms of a program: constructors, and a traversal.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Opt, Part, Path};

use super::Tree;
use crate::document::query::natives::STEP;

pub(super) fn infix<'s>(left: Tree<'s>, op: BinaryOp<&'s str>, right: Tree<'s>) -> Tree<'s> {
    Term::BinOp(Box::new(left), op, Box::new(right))
}

pub(super) fn pipe<'s>(left: Tree<'s>, right: Tree<'s>) -> Tree<'s> {
    infix(left, BinaryOp::Pipe(None), right)
}

pub(super) fn bind<'s>(value: Tree<'s>, name: &'s str, body: Tree<'s>) -> Tree<'s> {
    infix(value, BinaryOp::Pipe(Some(Pattern::Var(name))), body)
}

pub(super) fn call(name: &str) -> Tree<'_> {
    Term::Call(name, Vec::new())
}

pub(super) fn text(text: &str) -> Tree<'_> {
    Term::Str(None, vec![StrPart::Str(text)])
}

pub(super) fn steps<'s>(term: Tree<'s>, path: Vec<(Part<Tree<'s>>, Opt)>) -> Tree<'s> {
    Term::Path(Box::new(term), Path(path))
}

/// `[][0]`, since a program may define its own `null`.
pub(super) fn null<'s>() -> Tree<'s> {
    steps(Term::Arr(None), vec![(Part::Index(Term::Num("0")), Opt::Essential)])
}

/// A balanced tree of a list of values; all but the first are steps.
pub(super) fn commas(mut terms: Vec<Tree<'_>>) -> Tree<'_> {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        terms.reverse();
        while let Some(first) = terms.pop() {
            pairs.push(match terms.pop() {
                Some(second) => infix(first, BinaryOp::Comma, pipe(call(STEP), second)),
                None => first,
            });
        }
        terms = pairs;
    }
    terms.pop().unwrap_or_default()
}

/// Splits a list in halves: jaq adds the parts of strings and objects one by one, each nested
/// deeper.
pub(super) fn halves<'s, T>(mut parts: Vec<T>, make: &impl Fn(Vec<T>) -> Tree<'s>) -> Tree<'s> {
    if parts.len() <= 8 {
        return make(parts);
    }
    let right = parts.split_off(parts.len() / 2);
    infix(halves(parts, make), BinaryOp::Math(Math::Add), halves(right, make))
}

/// Returns whether a term calls a function of this name.
pub(super) fn calls(term: &Tree<'_>, name: &str, arity: usize) -> bool {
    let mut found = false;
    each(term, &mut |term| {
        found |= matches!(term, Term::Call(called, args) if *called == name && args.len() == arity);
    });
    found
}

/// Visits a term and all terms in it.
pub(super) fn each<'s>(term: &Tree<'s>, visit: &mut impl FnMut(&Tree<'s>)) {
    let mut open = vec![term];
    while let Some(term) = open.pop() {
        visit(term);
        match term {
            Term::Str(_, parts) => open.extend(parts.iter().filter_map(|part| match part {
                StrPart::Term(term) => Some(term),
                _ => None,
            })),
            Term::Arr(list) => open.extend(list.as_deref()),
            Term::Obj(pairs) => {
                for (key, value) in pairs {
                    open.push(key);
                    open.extend(value);
                }
            }
            Term::Neg(term) | Term::Label(_, term) => open.push(term),
            Term::BinOp(left, op, right) => {
                if let BinaryOp::Pipe(Some(pattern)) = op {
                    keys(pattern, &mut open);
                }
                open.extend([&**left, &**right]);
            }
            Term::Fold(_, terms, pattern, args) => {
                keys(pattern, &mut open);
                open.push(terms);
                open.extend(args);
            }
            Term::TryCatch(term, catch) => {
                open.push(term);
                open.extend(catch.as_deref());
            }
            Term::IfThenElse(branches, otherwise) => {
                for (test, then) in branches {
                    open.extend([test, then]);
                }
                open.extend(otherwise.as_deref());
            }
            Term::Def(defs, term) => {
                open.extend(defs.iter().map(|def| &def.body));
                open.push(term);
            }
            Term::Call(_, args) => open.extend(args),
            Term::Path(term, path) => {
                open.push(term);
                for (part, _) in &path.0 {
                    match part {
                        Part::Index(index) => open.push(index),
                        Part::Range(start, end) => open.extend([start, end].into_iter().flatten()),
                    }
                }
            }
            Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) => {}
        }
    }
}

fn keys<'t, 's>(pattern: &'t Pattern<&'s str>, open: &mut Vec<&'t Tree<'s>>) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(list) => list.iter().for_each(|pattern| keys(pattern, open)),
        Pattern::Obj(pairs) => {
            for (key, pattern) in pairs {
                open.push(key);
                keys(pattern, open);
            }
        }
    }
}
