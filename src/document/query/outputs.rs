//! The number of outputs of a term, as far as its tree shows.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::path::{Opt, Part};

use super::assign::{ASSIGN, MODIFY};
use super::natives::LAST;
use super::tokens::PARENTHESES;

/// The number of outputs for one input, unless there is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outputs {
    One,
    OneAtMost,
    Many,
}

impl Outputs {
    /// Returns whether there is at most one.
    pub(super) fn is_one(self) -> bool {
        self != Self::Many
    }
}

/// Functions with one output, if each of their arguments has one.
const ONE: [&str; 61] = [
    "length",
    "keys",
    "keys_unsorted",
    "values_unsorted",
    "tostring",
    "tojson",
    "fromjson",
    "tonumber",
    "type",
    "not",
    "add",
    "sort",
    "unique",
    "reverse",
    "min",
    "max",
    "floor",
    "ceil",
    "round",
    "sqrt",
    "abs",
    "has",
    "contains",
    "inside",
    "split",
    "join",
    "ltrimstr",
    "rtrimstr",
    "trimstr",
    "startswith",
    "endswith",
    "trim",
    "ltrim",
    "rtrim",
    "ascii_downcase",
    "ascii_upcase",
    "to_entries",
    "from_entries",
    "todate",
    "fromdate",
    "now",
    "explode",
    "implode",
    "test",
    "setpath",
    "getpath",
    "delpaths",
    "flatten",
    "transpose",
    "null",
    "true",
    "false",
    "env",
    "utf8bytelength",
    "first",
    "last",
    "index",
    "rindex",
    "indices",
    "any",
    "all",
];
/// Functions with one output, whatever their arguments are.
const ONE_OF_ANY: [&str; 14] = [
    "map",
    "map_values",
    "with_entries",
    "sort_by",
    "group_by",
    "unique_by",
    "min_by",
    "max_by",
    "del",
    "to_entries",
    "isempty",
    "walk",
    "pick",
    LAST,
];

pub(super) fn outputs(term: &Term<&str>, is_defined: &dyn Fn(&str) -> bool) -> Outputs {
    let of = |term: &Term<&str>| outputs(term, is_defined);
    let all =
        |terms: &mut dyn Iterator<Item = &Term<&str>>| terms.map(of).max().unwrap_or(Outputs::One);
    match term {
        Term::Id | Term::Num(_) | Term::Var(_) | Term::Arr(_) => Outputs::One,
        Term::Str(_, parts) => all(&mut parts.iter().filter_map(|part| match part {
            StrPart::Term(term) => Some(term),
            _ => None,
        })),
        Term::Obj(pairs) => {
            all(&mut pairs.iter().flat_map(|(key, value)| std::iter::once(key).chain(value)))
        }
        Term::Neg(term) => of(term),
        Term::BinOp(left, op, right) => match op {
            BinaryOp::Comma => Outputs::Many,
            BinaryOp::Update => Outputs::One,
            BinaryOp::Assign | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => of(right),
            BinaryOp::Alt if of(left) == Outputs::OneAtMost => of(right),
            _ => of(left).max(of(right)),
        },
        Term::IfThenElse(branches, otherwise) => {
            let branches = branches.iter().flat_map(|(test, then)| [test, then]);
            all(&mut branches.chain(otherwise.as_deref()))
        }
        Term::TryCatch(term, None) => of(term).max(Outputs::OneAtMost),
        Term::TryCatch(term, Some(catch)) => of(term).max(of(catch)),
        Term::Fold("reduce", _, _, args) => args.first().map_or(Outputs::Many, of),
        Term::Path(term, path) => path.0.iter().fold(of(term), |so_far, (part, opt)| {
            let part = match part {
                Part::Range(None, None) => Outputs::Many,
                Part::Index(index) => of(index),
                Part::Range(start, end) => all(&mut [start, end].into_iter().flatten()),
            };
            let opt = if matches!(opt, Opt::Optional) { Outputs::OneAtMost } else { Outputs::One };
            so_far.max(part).max(opt)
        }),
        Term::Call(MODIFY, _) => Outputs::One,
        Term::Call(ASSIGN, args) => args.last().map_or(Outputs::Many, of),
        Term::Call(PARENTHESES, args) => all(&mut args.iter()),
        Term::Call(name, _) if is_defined(name) => Outputs::Many,
        Term::Call(name, _) if ONE_OF_ANY.contains(name) => Outputs::One,
        Term::Call(name, args)
            if ONE.contains(name) && !(args.len() == 1 && ["first", "last"].contains(name)) =>
        {
            all(&mut args.iter())
        }
        Term::Call("first" | "last", _) => Outputs::OneAtMost,
        Term::Call("select", args) => all(&mut args.iter()).max(Outputs::OneAtMost),
        Term::Call("empty" | "error", args) => all(&mut args.iter()).max(Outputs::OneAtMost),
        _ => Outputs::Many,
    }
}
