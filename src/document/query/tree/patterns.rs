//! The bindings of `as`, `reduce` and `foreach`, including alternative patterns of which one must
//! match.

use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::ops::Cmp;
use jaq_core::path::{Opt, Part};

use super::terms::{bind, commas, infix, null, pipe, steps};
use super::{OPERAND, Rewriter, Tree, check_key};
use crate::document::query::natives::LAST;
use crate::document::query::outputs::Outputs;
use crate::document::query::tokens::ALTERNATIVES;

/// The names of the value that alternative patterns are tried on, and of their body.
const MATCHED: &str = "$?";
const BODY: &str = "?//";

impl<'s> Rewriter<'s> {
    /// Rewrites `terms as p ?// q | body`. The body becomes a function of all variables, so that it
    /// is compiled once.
    pub(super) fn bind(
        &self,
        terms: Tree<'s>,
        pattern: Pattern<&'s str>,
        body: Tree<'s>,
    ) -> Result<Tree<'s>, String> {
        let Some(patterns) = alternatives(&pattern) else {
            return Ok(infix(terms, BinaryOp::Pipe(Some(self.pattern(pattern)?)), body));
        };
        let mut names: Vec<&'s str> = Vec::new();
        for pattern in &patterns {
            variables(pattern, &mut names);
        }
        let mut tries = Vec::new();
        for pattern in patterns {
            let mut known = Vec::new();
            variables(&pattern, &mut known);
            let args = names
                .iter()
                .map(|name| if known.contains(name) { Term::Var(*name) } else { null() });
            let run = Term::Call(BODY, args.collect());
            let pattern = BinaryOp::Pipe(Some(self.pattern(pattern)?));
            tries.push(infix(Term::Var(MATCHED), pattern, run));
        }
        let mut tried = tries.pop().unwrap_or_default();
        while let Some(first) = tries.pop() {
            // A handler's input is the caught error, not the input of the next alternative.
            tried = Term::TryCatch(Box::new(first), Some(Box::new(tried)));
        }
        let tried = rebind_input(tried);
        let def = Def { name: BODY, args: names, body };
        Ok(bind(terms, MATCHED, Term::Def(vec![def], Box::new(tried))))
    }

    /// `reduce` continues with the last output of its body, and with null where there is none;
    /// `foreach` continues with the last, and outputs all of them.
    pub(super) fn fold(
        &self,
        name: &'s str,
        terms: Tree<'s>,
        pattern: Pattern<&'s str>,
        args: Vec<Tree<'s>>,
    ) -> Result<Tree<'s>, String> {
        if let Some(patterns) = alternatives(&pattern) {
            return self.fold_alternatives(name, terms, patterns, args);
        }
        let (terms, pattern) = (self.boxed(terms)?, self.pattern(pattern)?);
        let mut args = self.terms(args)?;
        if let (2.., false) =
            (args.len(), args.get(1).is_none_or(|body| self.outputs(body) == Outputs::One))
        {
            let body = std::mem::take(&mut args[1]);
            if name == "reduce" {
                args[1] = Term::Call(LAST, vec![body]);
            } else {
                // `[state, outputs]`: `[.[0] | body] as $= | [($= | if . == [] then state else
                // last), $=]`
                let element =
                    |of: Tree<'s>, at: Tree<'s>| steps(of, vec![(Part::Index(at), Opt::Essential)]);
                let (zero, one) = (Term::Num("0"), Term::Num("1"));
                let state = element(Term::Id, zero.clone());
                let all = Term::Arr(Some(Box::new(pipe(state.clone(), body))));
                let is_empty = infix(Term::Var(OPERAND), BinaryOp::Cmp(Cmp::Eq), Term::Arr(None));
                let last = element(Term::Var(OPERAND), Term::Neg(Box::new(one.clone())));
                let next = Term::IfThenElse(vec![(is_empty, state)], Some(Box::new(last)));
                let pair = infix(next, BinaryOp::Comma, Term::Var(OPERAND));
                args[1] = bind(all, OPERAND, Term::Arr(Some(Box::new(pair))));
                args[0] = Term::Arr(Some(Box::new(std::mem::take(&mut args[0]))));
                let each =
                    steps(element(Term::Id, one), vec![(Part::Range(None, None), Opt::Essential)]);
                let extract = args.get_mut(2).map(std::mem::take);
                args.truncate(2);
                args.push(match extract {
                    Some(extract) => pipe(each, extract),
                    None => each,
                });
            }
        }
        Ok(Term::Fold(name, terms, pattern, args))
    }

    /// In a loop, the alternatives are tried for each value, and their bindings form an array.
    fn fold_alternatives(
        &self,
        name: &'s str,
        terms: Tree<'s>,
        patterns: Vec<Pattern<&'s str>>,
        args: Vec<Tree<'s>>,
    ) -> Result<Tree<'s>, String> {
        let mut names = Vec::new();
        for pattern in &patterns {
            variables(pattern, &mut names);
        }
        let list = commas(names.iter().map(|name| Term::Var(*name)).collect());
        let list = Term::Arr(Some(Box::new(list)));
        let whole =
            Pattern::Arr(std::iter::once(Pattern::Var(ALTERNATIVES)).chain(patterns).collect());
        let terms = self.bind(self.term(terms)?, whole, list)?;
        let pattern = Pattern::Arr(names.into_iter().map(Pattern::Var).collect());
        let args = self.terms(args)?;
        let body_is_one = args.get(1).is_none_or(|body| self.outputs(body) == Outputs::One);
        let mut args = args;
        if !body_is_one && name == "reduce" {
            args[1] = Term::Call(LAST, vec![std::mem::take(&mut args[1])]);
        }
        Ok(Term::Fold(name, Box::new(terms), pattern, args))
    }

    fn pattern(&self, pattern: Pattern<&'s str>) -> Result<Pattern<&'s str>, String> {
        Ok(match pattern {
            Pattern::Var(name) => Pattern::Var(name),
            Pattern::Arr(list) => Pattern::Arr(
                list.into_iter()
                    .map(|pattern| self.pattern(pattern))
                    .collect::<Result<_, String>>()?,
            ),
            Pattern::Obj(pairs) => {
                let pairs = pairs.into_iter().map(|(key, value)| {
                    check_key(&key)?;
                    Ok((self.term(key)?, self.pattern(value)?))
                });
                Pattern::Obj(pairs.collect::<Result<_, String>>()?)
            }
        })
    }
}

/// Rebinds the input: that of a handler is the caught error, but the alternatives need their own.
fn rebind_input(tried: Tree<'_>) -> Tree<'_> {
    const INPUT: &str = "$.";
    fn inside(term: Tree<'_>) -> Tree<'_> {
        match term {
            Term::TryCatch(first, Some(rest)) => {
                Term::TryCatch(first, Some(Box::new(pipe(Term::Var(INPUT), inside(*rest)))))
            }
            term => term,
        }
    }
    bind(Term::Id, INPUT, inside(tried))
}

/// The patterns of `… ?// …`, if the pattern has alternatives.
fn alternatives<'s>(pattern: &Pattern<&'s str>) -> Option<Vec<Pattern<&'s str>>> {
    match pattern {
        Pattern::Arr(list) if matches!(list.first(), Some(Pattern::Var(ALTERNATIVES))) => {
            Some(list.iter().skip(1).cloned().collect())
        }
        _ => None,
    }
}

fn variables<'s>(pattern: &Pattern<&'s str>, names: &mut Vec<&'s str>) {
    match pattern {
        Pattern::Var(name) if !names.contains(name) => names.push(name),
        Pattern::Var(_) => {}
        Pattern::Arr(list) => list.iter().for_each(|pattern| variables(pattern, names)),
        Pattern::Obj(pairs) => pairs.iter().for_each(|(_, pattern)| variables(pattern, names)),
    }
}
