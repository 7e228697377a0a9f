//! The functions that a program may call: those defined in jq's own language, and those in Rust.

use std::collections::BTreeSet;

use jaq_core::load::parse::Def;

use super::natives::{Fun, RENAMED};
use super::{assign, math, natives as in_rust, syntax};

/// Definitions on top of jaq's.
const PRELUDE: &str = include_str!("prelude.jq");
/// jaq's natives that the prelude redefines.
const HIDDEN: [(&str, usize); 7] = [
    ("halt", 1),
    ("limit", 2),
    ("skip", 2),
    ("sort_by", 1),
    ("group_by", 1),
    ("fromdateiso8601", 0),
    ("todateiso8601", 0),
];
/// jaq's definitions on top of natives that are not compiled in.
const UNSUPPORTED: [&str; 3] = ["@htmld", "scan_", "split_"];
/// The definitions in jq's own language: jaq's and the prelude's.
pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let ours: Vec<_> = parts().flat_map(syntax::definitions).collect();
    let known: BTreeSet<(&str, usize)> =
        ours.iter().map(|def| (def.name, def.args.len())).collect();
    let natives: BTreeSet<(&str, usize)> =
        our_natives().map(|native| (native.0, native.1.len())).collect();
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let defs = defs.filter(move |def| {
        let name = (def.name, def.args.len());
        !known.contains(&name) && !natives.contains(&name) && !UNSUPPORTED.contains(&def.name)
    });
    ours.into_iter().chain(defs) // jaq's may use the prelude's, which use none of jaq's
}

fn our_natives() -> impl Iterator<Item = Fun> {
    in_rust::all().into_iter().chain(math::all()).chain(assign::natives())
}

/// The functions defined in Rust; this program's take precedence over jaq's of the same name.
pub(super) fn natives() -> impl Iterator<Item = Fun> {
    let jaqs = jaq_std::base_funs().chain(jaq_core::funs()).filter_map(|mut native: Fun| {
        if let Some((_, name)) = RENAMED.iter().find(|(name, _)| *name == native.0) {
            native.0 = name;
        }
        (!HIDDEN.contains(&(native.0, native.1.len()))).then_some(native)
    });
    our_natives().chain(jaqs)
}

/// The prelude's definitions that a program names, and those that they name. Parsing and compiling
/// all of them takes longer than most programs; one that compiles with these means the same with
/// all.
pub(super) fn named_in(source: &str) -> Vec<Def<&'static str>> {
    let parts: Vec<&'static str> = parts().collect();
    let mut wanted: BTreeSet<&str> = words(source).collect();
    let mut taken = vec![false; parts.len()];
    loop {
        let before = wanted.len();
        for (part, taken) in parts.iter().zip(&mut taken) {
            if !*taken && names(part).any(|name| wanted.contains(name)) {
                *taken = true;
                wanted.extend(words(part));
            }
        }
        if wanted.len() == before {
            break;
        }
    }
    let parts = parts.into_iter().zip(taken).filter_map(|(part, taken)| taken.then_some(part));
    parts.flat_map(syntax::definitions).collect()
}

/// The prelude in parts, each of which begins with a definition on a line of its own.
pub(super) fn parts() -> impl Iterator<Item = &'static str> {
    let mut rest = PRELUDE;
    std::iter::from_fn(move || {
        let end = rest.find("\ndef ").map_or(rest.len(), |at| at + 1);
        let (part, others) = rest.split_at(end);
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The names that a part defines.
fn names(part: &str) -> impl Iterator<Item = &str> {
    part.split("def ").skip(1).filter_map(|rest| words(rest).next())
}
