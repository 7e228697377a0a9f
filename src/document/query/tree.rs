//! The tree of a program, regrouped and rewritten so that jaq computes what jq does. Each function
//! is for one difference and can be dropped without it.

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::ops::{Cmp, Math};
use jaq_core::path::{Opt, Part, Path};

use super::assign::{ASSIGN, MODIFY};
use super::natives::{LAST, STEP, TEXT, TRUE};
use super::outputs::{Outputs, outputs};
use super::tokens::{ALTERNATIVES, PARENTHESES};

/// The name of an operand that is evaluated before the other; no user can write it.
const OPERAND: &str = "$=";
/// The names of what alternatives of patterns are tried on, and of their body.
const MATCHED: &str = "$?";
const BODY: &str = "?//";

type Tree<'s> = Term<&'s str>;

/// What a program refers to by names of its own, and where it begins.
pub(super) struct Rewriter<'s> {
    source: &'s str,
    /// The functions that the program defines: of these nothing is known.
    defined: BTreeSet<&'s str>,
}

impl<'s> Rewriter<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, defined: BTreeSet::new() }
    }

    /// The tree as jq means it.
    pub(super) fn program(mut self, term: Tree<'s>) -> Result<Tree<'s>, String> {
        self.find_defined(&term);
        self.term(term)
    }

    pub(super) fn def(&self, def: Def<&'s str>) -> Result<Def<&'s str>, String> {
        let is_recursive = calls(&def.body, def.name, def.args.len());
        let body = self.term(def.body)?;
        let body = if is_recursive { pipe(call(STEP), body) } else { body };
        Ok(Def { body, ..def })
    }

    fn find_defined(&mut self, term: &Tree<'s>) {
        let mut names = BTreeSet::new();
        each(term, &mut |term| {
            if let Term::Def(defs, _) = term {
                for def in defs {
                    names.insert(def.name);
                    names.extend(def.args.iter().copied());
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
                self.string(format.or(Some(TEXT)), parts.collect::<Result<_, String>>()?, format.is_none())
            }
            Term::Arr(list) => Term::Arr(list.map(|list| self.boxed(*list)).transpose()?),
            Term::Obj(pairs) => {
                let pairs = pairs.into_iter().map(|(key, value)| self.pair(key, value));
                halves(pairs.collect::<Result<_, String>>()?, &Term::Obj)
            }
            Term::Neg(term) => Term::Neg(self.boxed(*term)?),
            Term::Label(name, term) => Term::Label(name, self.boxed(*term)?),
            Term::Fold(name, terms, pattern, args) => self.fold(name, *terms, pattern, args)?,
            Term::TryCatch(term, catch) => {
                Term::TryCatch(self.boxed(*term)?, catch.map(|catch| self.boxed(*catch)).transpose()?)
            }
            Term::IfThenElse(branches, otherwise) => {
                let branches = branches.into_iter().map(|(test, then)| Ok((self.term(test)?, self.term(then)?)));
                let branches = branches.collect::<Result<_, String>>()?;
                Term::IfThenElse(branches, otherwise.map(|term| self.boxed(*term)).transpose()?)
            }
            Term::Def(defs, term) => {
                let defs = defs.into_iter().map(|def| self.def(def)).collect::<Result<_, String>>()?;
                Term::Def(defs, self.boxed(*term)?)
            }
            Term::Call(name, args) => self.call(name, self.terms(args)?),
            Term::Path(term, path) => self.path(*term, path)?,
            Term::Var(name) if name == "$__loc__" => self.location(name),
            term @ (Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_)) => term,
        })
    }

    /// jq's precedences: jaq's tree, whose parentheses are calls, is flattened and climbed anew.
    fn operations(&self, term: Tree<'s>) -> Result<Tree<'s>, String> {
        let (mut operands, mut operators, mut open) = (Vec::new(), Vec::new(), vec![Ok(term)]);
        while let Some(next) = open.pop() {
            match next {
                Ok(Term::BinOp(left, operator, right)) => {
                    open.extend([Ok(*right), Err(operator), Ok(*left)]);
                }
                Ok(operand) => operands.push(self.term(operand)?),
                Err(operator) => operators.push(operator),
            }
        }
        operands.reverse();
        operators.reverse();
        let first = operands.pop().unwrap_or_default();
        self.climb(first, &mut operands, &mut operators, 0)
    }

    /// Takes the operators of at least this precedence, left after left and right after right.
    fn climb(
        &self,
        mut left: Tree<'s>,
        operands: &mut Vec<Tree<'s>>,
        operators: &mut Vec<BinaryOp<&'s str>>,
        least: u8,
    ) -> Result<Tree<'s>, String> {
        while let Some(operator) = operators.pop_if(|operator| precedence(operator) >= least) {
            let level = precedence(&operator);
            let is_right = matches!(operator, BinaryOp::Pipe(_) | BinaryOp::Alt);
            let next = match operator {
                BinaryOp::Pipe(_) => 0, // and everything after it
                _ if is_right => level,
                _ => level + 1,
            };
            // A list of a thousand values must not be climbed a thousand levels deep.
            let first = operands.pop().unwrap_or_default();
            let right = self.climb(first, operands, operators, next)?;
            left = if let BinaryOp::Comma = operator {
                let mut list = vec![left, right];
                while operators.pop_if(|operator| matches!(operator, BinaryOp::Comma)).is_some() {
                    let first = operands.pop().unwrap_or_default();
                    list.push(self.climb(first, operands, operators, next)?);
                }
                commas(list)
            } else {
                self.operation(left, operator, right)?
            };
            if matches!(level, ASSIGNMENT | COMPARISON) && operators.last().is_some_and(|op| precedence(op) == level) {
                let what = if level == ASSIGNMENT { "assignments" } else { "comparisons" };
                return Err(format!("two {what} in a row: put parentheses around one of them"));
            }
        }
        Ok(left)
    }

    fn operation(&self, left: Tree<'s>, op: BinaryOp<&'s str>, right: Tree<'s>) -> Result<Tree<'s>, String> {
        let operand = |op| infix(Term::Id, op, Term::Var(OPERAND));
        let op = match op {
            BinaryOp::Assign => return Ok(Term::Call(ASSIGN, vec![left, right])),
            BinaryOp::Update => return Ok(Term::Call(MODIFY, vec![left, right])),
            BinaryOp::UpdateMath(math) => operand(BinaryOp::Math(math)),
            BinaryOp::UpdateAlt => operand(BinaryOp::Alt),
            BinaryOp::Math(_) | BinaryOp::Cmp(_) => return Ok(self.ordered(left, op, right)),
            BinaryOp::Alt => return Ok(infix(self.that_are_true(left), op, right)),
            BinaryOp::Pipe(Some(pattern)) => return self.bind(left, pattern, right),
            other => return Ok(infix(left, other, right)),
        };
        Ok(bind(right, OPERAND, Term::Call(MODIFY, vec![left, op])))
    }

    /// jq takes the outputs of the right side one by one, and for each of them all of the left side.
    fn ordered(&self, left: Tree<'s>, op: BinaryOp<&'s str>, right: Tree<'s>) -> Tree<'s> {
        if self.outputs(&left).is_one() || self.outputs(&right).is_one() {
            return infix(left, op, right);
        }
        bind(right, OPERAND, infix(left, op, Term::Var(OPERAND)))
    }

    /// jaq, which takes the true outputs of the left side of `//`, takes the paths of all of them.
    fn that_are_true(&self, left: Tree<'s>) -> Tree<'s> {
        if self.outputs(&left).is_one() {
            return left;
        }
        pipe(left, call(TRUE))
    }

    /// In `f[g]` jq takes the outputs of `g` one by one, and for each of them all of `f`.
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
                Part::Index(index) if of_many && (!self.outputs(&term).is_one() || !plain.is_empty()) => {
                    let inner = if plain.is_empty() { term } else { steps(term, std::mem::take(&mut plain)) };
                    let step = (Part::Index(Term::Var(OPERAND)), opt);
                    term = bind(index, OPERAND, steps(inner, vec![step]));
                }
                part => plain.push((part, opt)),
            }
        }
        Ok(if plain.is_empty() { term } else { steps(term, plain) })
    }

    fn pair(&self, key: Tree<'s>, value: Option<Tree<'s>>) -> Result<(Tree<'s>, Option<Tree<'s>>), String> {
        check_key(&key)?;
        match (key, value) {
            (Term::Var(name), None) if name == "$__loc__" => Ok((text("__loc__"), Some(self.location(name)))),
            (Term::Var(name), Some(value)) => Ok((Term::Var(name), Some(self.term(value)?))),
            (key, value) => Ok((self.term(key)?, value.map(|value| self.term(value)).transpose()?)),
        }
    }

    /// The parts are added as jq adds them: the last one is evaluated first.
    fn string(&self, format: Option<&'s str>, parts: Vec<StrPart<&'s str, Tree<'s>>>, plain: bool) -> Tree<'s> {
        let is_term = |part: &&StrPart<&str, Tree<'s>>| matches!(part, StrPart::Term(_));
        let many = |part: &&StrPart<&str, Tree<'s>>| match part {
            StrPart::Term(term) => !self.outputs(term).is_one(),
            _ => false,
        };
        let format = if plain && !parts.iter().any(|part| is_term(&part)) { None } else { format };
        if parts.iter().filter(many).count() < 2 {
            return halves(parts, &|parts| Term::Str(format, parts));
        }
        let mut strings: Vec<Tree<'s>> = parts.into_iter().map(|part| Term::Str(format, vec![part])).collect();
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

    /// Functions that are C in jq take the outputs of their last argument one by one, then those before it.
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

    /// `reduce` goes on with the last output of its body, and with null where there is none; `foreach` goes on with the last,
    /// and gives all of them.
    fn fold(
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
        if let (2.., false) = (args.len(), args.get(1).is_none_or(|body| self.outputs(body) == Outputs::One)) {
            let body = std::mem::take(&mut args[1]);
            if name == "reduce" {
                args[1] = Term::Call(LAST, vec![body]);
            } else {
                // `[state, outputs]`: `[.[0] | body] as $= | [($= | if . == [] then state else last), $=]`
                let element = |of: Tree<'s>, at: Tree<'s>| steps(of, vec![(Part::Index(at), Opt::Essential)]);
                let (zero, one) = (Term::Num("0"), Term::Num("1"));
                let state = element(Term::Id, zero.clone());
                let all = Term::Arr(Some(Box::new(pipe(state.clone(), body))));
                let is_empty = infix(Term::Var(OPERAND), BinaryOp::Cmp(Cmp::Eq), Term::Arr(None));
                let last = element(Term::Var(OPERAND), Term::Neg(Box::new(one.clone())));
                let next = Term::IfThenElse(vec![(is_empty, state)], Some(Box::new(last)));
                let pair = infix(next, BinaryOp::Comma, Term::Var(OPERAND));
                args[1] = bind(all, OPERAND, Term::Arr(Some(Box::new(pair))));
                args[0] = Term::Arr(Some(Box::new(std::mem::take(&mut args[0]))));
                let each = steps(element(Term::Id, one), vec![(Part::Range(None, None), Opt::Essential)]);
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

    /// `terms as p ?// q | body`, where the body is a function of all variables, so that it is there once.
    fn bind(&self, terms: Tree<'s>, pattern: Pattern<&'s str>, body: Tree<'s>) -> Result<Tree<'s>, String> {
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
            let args = names.iter().map(|name| if known.contains(name) { Term::Var(*name) } else { null() });
            let run = Term::Call(BODY, args.collect());
            let pattern = BinaryOp::Pipe(Some(self.pattern(pattern)?));
            tries.push(infix(Term::Var(MATCHED), pattern, run));
        }
        let mut tried = tries.pop().unwrap_or_default();
        while let Some(first) = tries.pop() {
            // What is caught is not the input of the next one.
            tried = Term::TryCatch(Box::new(first), Some(Box::new(tried)));
        }
        let tried = rebind_input(tried);
        let def = Def { name: BODY, args: names, body };
        Ok(bind(terms, MATCHED, Term::Def(vec![def], Box::new(tried))))
    }

    /// In a loop, the alternatives are tried for each value, and what they bind is an array.
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
        let whole = Pattern::Arr(std::iter::once(Pattern::Var(ALTERNATIVES)).chain(patterns).collect());
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
            Pattern::Arr(list) => {
                Pattern::Arr(list.into_iter().map(|pattern| self.pattern(pattern)).collect::<Result<_, String>>()?)
            }
            Pattern::Obj(pairs) => {
                let pairs = pairs.into_iter().map(|(key, value)| {
                    check_key(&key)?;
                    Ok((self.term(key)?, self.pattern(value)?))
                });
                Pattern::Obj(pairs.collect::<Result<_, String>>()?)
            }
        })
    }

    /// `$__loc__`: the line it is on.
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

/// A key that is plainly no string is refused before anything runs.
fn check_key(key: &Tree<'_>) -> Result<(), String> {
    match key {
        Term::Num(_) | Term::Arr(_) | Term::Obj(_) | Term::Call("true" | "false" | "null", _) => {
            Err("object keys must be strings: the program does not compile".to_owned())
        }
        _ => Ok(()),
    }
}

const ASSIGNMENT: u8 = 4;
const COMPARISON: u8 = 7;

/// How tight an operator binds in jq.
fn precedence(operator: &BinaryOp<&str>) -> u8 {
    match operator {
        BinaryOp::Pipe(None) => 0,
        BinaryOp::Comma => 1,
        BinaryOp::Pipe(Some(_)) => 2,
        BinaryOp::Alt => 3,
        BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => ASSIGNMENT,
        BinaryOp::Or => 5,
        BinaryOp::And => 6,
        BinaryOp::Cmp(_) => COMPARISON,
        BinaryOp::Math(Math::Add | Math::Sub) => 8,
        BinaryOp::Math(_) => 9,
    }
}

fn infix<'s>(left: Tree<'s>, op: BinaryOp<&'s str>, right: Tree<'s>) -> Tree<'s> {
    Term::BinOp(Box::new(left), op, Box::new(right))
}

fn pipe<'s>(left: Tree<'s>, right: Tree<'s>) -> Tree<'s> {
    infix(left, BinaryOp::Pipe(None), right)
}

fn bind<'s>(value: Tree<'s>, name: &'s str, body: Tree<'s>) -> Tree<'s> {
    infix(value, BinaryOp::Pipe(Some(Pattern::Var(name))), body)
}

fn call(name: &str) -> Tree<'_> {
    Term::Call(name, Vec::new())
}

fn text(text: &str) -> Tree<'_> {
    Term::Str(None, vec![StrPart::Str(text)])
}

fn steps<'s>(term: Tree<'s>, path: Vec<(Part<Tree<'s>>, Opt)>) -> Tree<'s> {
    Term::Path(Box::new(term), Path(path))
}

/// `[][0]`, for a user may define a `null` of their own.
fn null<'s>() -> Tree<'s> {
    steps(Term::Arr(None), vec![(Part::Index(Term::Num("0")), Opt::Essential)])
}

/// The input of a handler is what it caught; the alternatives want theirs.
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

/// A balanced tree of a list of values, each but the first of which is a step.
fn commas(mut terms: Vec<Tree<'_>>) -> Tree<'_> {
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

/// jaq adds the parts of strings and objects one by one, each one nested deeper.
fn halves<'s, T>(mut parts: Vec<T>, make: &impl Fn(Vec<T>) -> Tree<'s>) -> Tree<'s> {
    if parts.len() <= 8 {
        return make(parts);
    }
    let right = parts.split_off(parts.len() / 2);
    infix(halves(parts, make), BinaryOp::Math(Math::Add), halves(right, make))
}

/// The patterns of `… ?// …`, if these are some.
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

/// Whether a term calls a function of this name.
fn calls(term: &Tree<'_>, name: &str, arity: usize) -> bool {
    let mut found = false;
    each(term, &mut |term| {
        found |= matches!(term, Term::Call(called, args) if *called == name && args.len() == arity);
    });
    found
}

/// Visits a term and all that are in it.
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
