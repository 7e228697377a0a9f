//! The tree of a program, regrouped and rewritten so that jaq computes what jq does. Each function
//! is for one difference and can be dropped without it.

mod patterns;
mod precedence;
mod terms;

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Term};
use jaq_core::ops::Math;
use jaq_core::path::{Part, Path};

use self::terms::{bind, call, calls, each, halves, infix, pipe, steps, text};
use super::natives::{STEP, TEXT};
use super::outputs::{Outputs, outputs};
use super::tokens::PARENTHESES;

/// The name of an operand that is evaluated before the other; no user can write it.
const OPERAND: &str = "$=";
type Tree<'s> = Term<&'s str>;

/// The names that a program defines, and its source.
pub(super) struct Rewriter<'s> {
    source: &'s str,
    /// The functions that the program defines: nothing is known of their outputs.
    defined: BTreeSet<&'s str>,
}

impl<'s> Rewriter<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, defined: BTreeSet::new() }
    }

    /// Rewrites the tree to jq's meaning.
    pub(super) fn program(mut self, term: Tree<'s>) -> Result<Tree<'s>, String> {
        self.find_defined(&term);
        self.term(term)
    }

    pub(super) fn def(&self, def: Def<&'s str>) -> Result<Def<&'s str>, String> {
        let is_recursive = calls(&def.body, def.name, def.args.len());
        let body = self.term(def.body)?;
        let mut args = def.args;
        // A parameter `$a` is a filter `a`, too: `def f($a): a` is `def f(a): a as $a | a`.
        let is_filter =
            |arg: &&str| arg.strip_prefix('$').is_some_and(|name| calls(&body, name, 0));
        let body = if args.iter().any(is_filter) {
            let plain = |arg: &'s str| arg.trim_start_matches('$');
            let values = args.iter().copied().filter(|arg| arg.starts_with('$')).rev();
            let body = values.fold(body, |body, arg| bind(call(plain(arg)), arg, body));
            args = args.into_iter().map(plain).collect();
            body
        } else {
            body
        };
        let body = if is_recursive { pipe(call(STEP), body) } else { body };
        Ok(Def { name: def.name, args, body })
    }

    fn find_defined(&mut self, term: &Tree<'s>) {
        let mut names = BTreeSet::new();
        each(term, &mut |term| {
            if let Term::Def(defs, _) = term {
                for def in defs {
                    names.insert(def.name);
                    names.extend(def.args.iter().map(|arg| arg.trim_start_matches('$')));
                }
            }
        });
        self.defined.extend(names);
    }

    fn outputs(&self, term: &Tree<'s>) -> Outputs {
        outputs(term, &|name| self.defined.contains(name))
    }

    fn boxed(&self, term: Tree<'s>) -> Result<Box<Tree<'s>>, String> {
        self.term(term).map(Box::new)
    }

    fn terms(&self, terms: Vec<Tree<'s>>) -> Result<Vec<Tree<'s>>, String> {
        terms.into_iter().map(|term| self.term(term)).collect()
    }

    fn term(&self, term: Tree<'s>) -> Result<Tree<'s>, String> {
        Ok(match term {
            Term::BinOp(..) => return self.operations(term),
            Term::Call(PARENTHESES, mut args) if args.len() == 1 => {
                return self.term(args.pop().unwrap_or_default());
            }
            Term::Str(format, parts) => {
                let parts = parts.into_iter().map(|part| match part {
                    StrPart::Term(term) => self.term(term).map(StrPart::Term),
                    other => Ok(other),
                });
                self.string(
                    format.or(Some(TEXT)),
                    parts.collect::<Result<_, String>>()?,
                    format.is_none(),
                )
            }
            Term::Arr(list) => Term::Arr(list.map(|list| self.boxed(*list)).transpose()?),
            Term::Obj(pairs) => {
                let pairs = pairs.into_iter().map(|(key, value)| self.pair(key, value));
                halves(pairs.collect::<Result<_, String>>()?, &Term::Obj)
            }
            Term::Neg(term) => Term::Neg(self.boxed(*term)?),
            Term::Label(name, term) => Term::Label(name, self.boxed(*term)?),
            Term::Fold(name, terms, pattern, args) => self.fold(name, *terms, pattern, args)?,
            Term::TryCatch(term, catch) => Term::TryCatch(
                self.boxed(*term)?,
                catch.map(|catch| self.boxed(*catch)).transpose()?,
            ),
            Term::IfThenElse(branches, otherwise) => {
                let branches = branches
                    .into_iter()
                    .map(|(test, then)| Ok((self.term(test)?, self.term(then)?)));
                let branches = branches.collect::<Result<_, String>>()?;
                Term::IfThenElse(branches, otherwise.map(|term| self.boxed(*term)).transpose()?)
            }
            Term::Def(defs, term) => {
                let defs =
                    defs.into_iter().map(|def| self.def(def)).collect::<Result<_, String>>()?;
                Term::Def(defs, self.boxed(*term)?)
            }
            Term::Call(name, args) => self.call(name, self.terms(args)?),
            Term::Path(term, path) => self.path(*term, path)?,
            Term::Var(name) if name == "$__loc__" => self.location(name),
            term @ (Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_)) => {
                term
            }
        })
    }

    /// In `f[g]` jq evaluates all of `f` once for each output of `g`.
    fn path(&self, term: Tree<'s>, path: Path<Tree<'s>>) -> Result<Tree<'s>, String> {
        let mut term = self.term(term)?;
        let mut plain = Vec::new();
        for (part, opt) in path.0 {
            let part = match part {
                Part::Index(index) => Part::Index(self.term(index)?),
                Part::Range(start, end) => {
                    let bound = |bound: Option<_>| bound.map(|bound| self.term(bound)).transpose();
                    Part::Range(bound(start)?, bound(end)?)
                }
            };
            let of_many = match &part {
                Part::Index(index) => !self.outputs(index).is_one(),
                _ => false,
            };
            match part {
                Part::Index(index)
                    if of_many && (!self.outputs(&term).is_one() || !plain.is_empty()) =>
                {
                    let inner = if plain.is_empty() {
                        term
                    } else {
                        steps(term, std::mem::take(&mut plain))
                    };
                    let step = (Part::Index(Term::Var(OPERAND)), opt);
                    term = bind(index, OPERAND, steps(inner, vec![step]));
                }
                part => plain.push((part, opt)),
            }
        }
        Ok(if plain.is_empty() { term } else { steps(term, plain) })
    }

    fn pair(
        &self,
        key: Tree<'s>,
        value: Option<Tree<'s>>,
    ) -> Result<(Tree<'s>, Option<Tree<'s>>), String> {
        check_key(&key)?;
        match (key, value) {
            (Term::Var(name), None) if name == "$__loc__" => {
                Ok((text("__loc__"), Some(self.location(name))))
            }
            (Term::Var(name), Some(value)) => Ok((Term::Var(name), Some(self.term(value)?))),
            (key, value) => Ok((self.term(key)?, value.map(|value| self.term(value)).transpose()?)),
        }
    }

    /// Concatenates the parts in jq's order: the last one is evaluated first.
    fn string(
        &self,
        format: Option<&'s str>,
        parts: Vec<StrPart<&'s str, Tree<'s>>>,
        plain: bool,
    ) -> Tree<'s> {
        let is_term = |part: &&StrPart<&str, Tree<'s>>| matches!(part, StrPart::Term(_));
        let many = |part: &&StrPart<&str, Tree<'s>>| match part {
            StrPart::Term(term) => !self.outputs(term).is_one(),
            _ => false,
        };
        let format = if plain && !parts.iter().any(|part| is_term(&part)) { None } else { format };
        if parts.iter().filter(many).count() < 2 {
            return halves(parts, &|parts| Term::Str(format, parts));
        }
        let mut strings: Vec<Tree<'s>> =
            parts.into_iter().map(|part| Term::Str(format, vec![part])).collect();
        while strings.len() > 1 {
            let mut pairs = Vec::with_capacity(strings.len().div_ceil(2));
            strings.reverse();
            while let Some(first) = strings.pop() {
                pairs.push(match strings.pop() {
                    Some(second) => self.ordered(first, BinaryOp::Math(Math::Add), second),
                    None => first,
                });
            }
            strings = pairs;
        }
        strings.pop().unwrap_or_default()
    }

    /// For functions implemented in C, jq iterates over the outputs of the last argument first,
    /// then of those before it.
    fn call(&self, name: &'s str, args: Vec<Tree<'s>>) -> Tree<'s> {
        const IN_C: [&str; 14] = [
            "setpath",
            "pow",
            "atan2",
            "fmod",
            "fmin",
            "fmax",
            "fdim",
            "ldexp",
            "scalb",
            "scalbln",
            "nextafter",
            "nexttoward",
            "copysign",
            "drem",
        ];
        if args.len() != 2 || !IN_C.contains(&name) || self.defined.contains(name) {
            return Term::Call(name, args);
        }
        if args.iter().any(|arg| self.outputs(arg).is_one()) {
            return Term::Call(name, args);
        }
        let mut args = args;
        let last = args.pop().unwrap_or_default();
        args.push(Term::Var(OPERAND));
        bind(last, OPERAND, Term::Call(name, args))
    }

    /// `$__loc__`: the line of its occurrence.
    fn location(&self, name: &'s str) -> Tree<'s> {
        const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        let at = name.as_ptr().addr().checked_sub(self.source.as_ptr().addr());
        let before = at.and_then(|at| self.source.get(..at)).unwrap_or_default();
        let line = (before.matches('\n').count() + 1).to_string();
        let digits = line.bytes().map(|digit| Term::Num(DIGITS[usize::from(digit - b'0')]));
        let ten = || Term::Num("10");
        let line = digits.reduce(|number, digit| {
            infix(infix(number, BinaryOp::Math(Math::Mul), ten()), BinaryOp::Math(Math::Add), digit)
        });
        Term::Obj(vec![(text("file"), Some(text("<top-level>"))), (text("line"), line)])
    }
}

/// Refuses a key that cannot be a string before the program runs.
fn check_key(key: &Tree<'_>) -> Result<(), String> {
    match key {
        Term::Num(_) | Term::Arr(_) | Term::Obj(_) | Term::Call("true" | "false" | "null", _) => {
            Err("object keys must be strings: the program does not compile".to_owned())
        }
        _ => Ok(()),
    }
}
