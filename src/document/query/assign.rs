//! Assignment and deletion by paths, as jq defines them; jaq updates in place, which differs where
//! parents are missing and where several elements are deleted.
//!
//! Invariant: all paths are found in the value as it was before the first change.

use std::mem;

use jaq_core::box_iter::box_once;
use jaq_core::compile::TermId;
use jaq_core::data::JustLut;
use jaq_core::{Bind, Ctx, Exn, ValT as _, ValX, native};
use jaq_json::{Error, Rc, Val};
use jaq_std::ValT as _;

use super::MAX_DEPTH;

/// The longest array that an assignment pads with null.
const MAX_PADDED: usize = 1_000_000;

/// `l = r` and `l |= r` are calls of these, for [`super::syntax`] makes them so.
pub(super) const ASSIGN: &str = "=";
pub(super) const MODIFY: &str = "|=";

type Data = JustLut<Val>;
type Path = Vec<Val>;

/// The natives; a definition with one of these names would hide them.
pub(super) fn natives() -> [native::Fun<Data>; 4] {
    [
        native::run((ASSIGN, [Bind::Fun(()), Bind::Var(())].into(), |mut cv| {
            let new = cv.0.pop_var();
            box_once(assign(cv.0.pop_fun(), cv.1, &new))
        })),
        native::run((MODIFY, [Bind::Fun(()), Bind::Fun(())].into(), |mut cv| {
            let update = cv.0.pop_fun();
            box_once(modify(cv.0.pop_fun(), cv.1, &update))
        })),
        native::run(("setpath", native::v(2), |mut cv| {
            let (new, path) = (cv.0.pop_var(), cv.0.pop_var());
            let mut root = cv.1;
            let done = to_path(path).and_then(|path| set(&mut root, &path, new));
            native::bome(done.map(|()| root))
        })),
        native::run(("delpaths", native::v(1), |mut cv| {
            let paths = elements(cv.0.pop_var(), "paths");
            let paths = paths.and_then(|paths| paths.into_iter().map(to_path).collect());
            native::bome(paths.and_then(|paths| delete_all(cv.1, paths)))
        })),
    ]
}

fn assign<'a>(paths: (TermId, Ctx<'a, Data>), mut root: Val, new: &Val) -> ValX<'a, Val> {
    for path in find(paths, &root)? {
        set(&mut root, &path, new.clone())?;
    }
    Ok(root)
}

/// The first output of `update` is the new value; where it has none, the old one is deleted.
fn modify<'a>(paths: (TermId, Ctx<'a, Data>), mut root: Val, update: &(TermId, Ctx<'a, Data>)) -> ValX<'a, Val> {
    let mut paths = find(paths, &root)?.into_iter();
    let mut doomed = Vec::new();
    while let Some(path) = paths.next() {
        let place = if paths.len() == 0 { existing(&mut root, &path) } else { None };
        let old = match place {
            // Nobody looks here again, and what only the update holds can be changed in place:
            // a thousand times `.log += […]` must not copy the list a thousand times.
            Some(place) => mem::take(place),
            None => get(&root, &path)?,
        };
        match update.0.run((update.1.clone(), old)).next().transpose()? {
            Some(new) => set(&mut root, &path, new)?,
            None => doomed.push(path),
        }
    }
    Ok(delete_all(root, doomed)?)
}

fn find<'a>((filter, ctx): (TermId, Ctx<'a, Data>), root: &Val) -> Result<Vec<Path>, Exn<'a, Val>> {
    let found = filter.paths((ctx, (root.clone(), Default::default())));
    let paths = found.map(|found| {
        let mut path: Path = found?.1.iter().cloned().collect();
        path.reverse();
        Ok(short(path)?)
    });
    paths.collect()
}

/// A longer path leads nowhere in a document, and following it would use up the stack.
fn short(path: Path) -> Result<Path, Error> {
    if path.len() > MAX_DEPTH {
        return Err(Error::str(format_args!("a path has more than {MAX_DEPTH} parts")));
    }
    Ok(path)
}

fn to_path(path: Val) -> Result<Path, Error> {
    short(elements(path, "a path")?)
}

fn elements(list: Val, what: &str) -> Result<Vec<Val>, Error> {
    match list {
        Val::Arr(list) => Ok(Rc::unwrap_or_clone(list)),
        _ => Err(Error::str(format_args!("{what} must be specified as an array"))),
    }
}

/// The place of a path, if it is there already.
fn existing<'v>(mut target: &'v mut Val, path: &[Val]) -> Option<&'v mut Val> {
    for key in path {
        target = match target {
            Val::Obj(map) => Rc::make_mut(map).get_mut(key)?,
            Val::Arr(list) => {
                let at = position(key, list.len())?;
                Rc::make_mut(list).get_mut(at)?
            }
            _ => return None,
        };
    }
    Some(target)
}

fn get(root: &Val, path: &[Val]) -> Result<Val, Error> {
    path.iter().try_fold(root.clone(), Val::index)
}

/// Puts a value at a path, making what is missing on the way there.
fn set(target: &mut Val, path: &[Val], new: Val) -> Result<(), Error> {
    let Some((key, rest)) = path.split_first() else {
        *target = new;
        return Ok(());
    };
    match (&*target, key) {
        (Val::Null, Val::TStr(_)) => *target = Val::obj(Default::default()),
        (Val::Null, Val::Num(_) | Val::Obj(_)) => *target = Val::Arr(Rc::default()),
        _ => {}
    }
    match (target, key) {
        (Val::Obj(map), Val::TStr(_)) => {
            let map = Rc::make_mut(map);
            match map.get_mut(key) {
                Some(place) => set(place, rest, new),
                None => set(map.entry(key.clone()).or_insert(Val::Null), rest, new),
            }
        }
        (Val::Arr(list), Val::Num(_)) => {
            let at = position(key, list.len());
            let at = at.ok_or_else(|| Error::str(format_args!("index {key} out of bounds")))?;
            let list = Rc::make_mut(list);
            if at >= list.len() {
                if at > list.len() && at >= MAX_PADDED {
                    return Err(Error::str("array index too large"));
                }
                list.resize(at + 1, Val::Null);
            }
            set(&mut list[at], rest, new)
        }
        (Val::Arr(list), Val::Obj(_)) => {
            let (start, end) = bounds(key, list.len())?;
            let mut part: Val = list[start..end].iter().cloned().collect();
            set(&mut part, rest, new)?;
            let Val::Arr(part) = part else {
                return Err(Error::str("a slice of an array can only be assigned another array"));
            };
            Rc::make_mut(list).splice(start..end, part.iter().cloned());
            Ok(())
        }
        (target, _) => Err(Error::index(target.clone(), key.clone())),
    }
}

fn delete_all(mut root: Val, mut paths: Vec<Path>) -> Result<Val, Error> {
    paths.sort();
    match paths.first() {
        None => Ok(root),
        Some(first) if first.is_empty() => Ok(Val::Null),
        Some(_) => {
            delete(&mut root, &paths, 0)?;
            Ok(root)
        }
    }
}

/// Deletes from a value at depth `at` of the sorted `paths`, all of which are longer than that.
fn delete(target: &mut Val, paths: &[Path], at: usize) -> Result<(), Error> {
    let mut keys = Vec::new();
    for group in paths.chunk_by(|a, b| a[at] == b[at]) {
        let key = &group[0][at];
        if group[0].len() == at + 1 {
            keys.push(key); // and with it all that is below it
        } else if let Some(place) = existing(target, std::slice::from_ref(key)) {
            delete(place, group, at + 1)?;
        } else {
            let mut part = get(target, std::slice::from_ref(key))?;
            if !matches!(part, Val::Null) {
                delete(&mut part, group, at + 1)?;
                set(target, std::slice::from_ref(key), part)?;
            }
        }
    }
    delete_keys(target, &keys)
}

/// Deletes the sorted `keys` all at once, so that no deletion moves what another one means.
fn delete_keys(target: &mut Val, keys: &[&Val]) -> Result<(), Error> {
    match target {
        _ if keys.is_empty() => Ok(()),
        Val::Null => Ok(()),
        Val::Obj(map) if keys.iter().all(|key| matches!(key, Val::TStr(_))) => {
            Rc::make_mut(map).retain(|key, _| keys.binary_search(&key).is_err());
            Ok(())
        }
        Val::Arr(list) if keys.iter().all(|key| matches!(key, Val::Num(_) | Val::Obj(_))) => {
            let mut kept = vec![true; list.len()];
            for key in keys {
                match key {
                    Val::Obj(_) => {
                        let (start, end) = bounds(key, list.len())?;
                        kept[start..end].fill(false);
                    }
                    _ => {
                        let place = position(key, list.len()).and_then(|at| kept.get_mut(at));
                        place.into_iter().for_each(|kept| *kept = false);
                    }
                }
            }
            let mut kept = kept.into_iter();
            Rc::make_mut(list).retain(|_| kept.next() == Some(true));
            Ok(())
        }
        target => Err(Error::index(target.clone(), keys[0].clone())),
    }
}

/// Where a number points in an array; `None` if that is before its begin.
fn position(key: &Val, len: usize) -> Option<usize> {
    let at = key.as_isize()?;
    if at < 0 { len.checked_add_signed(at) } else { usize::try_from(at).ok() }
}

/// The part of an array that `{"start": …, "end": …}` means.
fn bounds(key: &Val, len: usize) -> Result<(usize, usize), Error> {
    let bound = |name: &str, otherwise: usize| match key.clone().index(&Val::from(name.to_owned()))? {
        Val::Null => Ok(otherwise),
        bound => match bound.as_isize() {
            Some(at) if at < 0 => Ok(len.saturating_add_signed(at)),
            Some(at) => Ok(usize::try_from(at).unwrap_or(len).min(len)),
            None => Err(Error::str("the bounds of a slice must be integers")),
        },
    };
    let start = bound("start", 0)?;
    Ok((start, bound("end", len)?.max(start)))
}
