//! Assignment and deletion by paths, as jq defines them; jaq updates in place, which differs where
//! parents are missing and where several elements are deleted.
//!
//! Invariant: all paths are computed in the value before the first change.

use std::mem;

use jaq_core::box_iter::box_once;
use jaq_core::compile::TermId;
use jaq_core::{Bind, Ctx, Exn, ValT as _, ValX, native};
use jaq_json::{Rc, Val};

use super::jq::{Data, Error, Jq, MAX_NESTED, error};
use super::natives::Fun;
use super::text::no_index;
use super::{number, text};

/// The longest array that an assignment pads with null.
const MAX_PADDED: usize = 1_000_000;

/// The names of the natives that `l = r` and `l |= r` call; [`super::syntax`] inserts the calls.
pub(super) const ASSIGN: &str = "=";
pub(super) const MODIFY: &str = "|=";

type Path = Vec<Val>;

/// The natives; a definition with one of these names would hide them.
pub(super) fn natives() -> [Fun; 4] {
    [
        native::run((ASSIGN, [Bind::Fun(()), Bind::Var(())].into(), |mut cv| {
            let new = cv.0.pop_var();
            box_once(assign(cv.0.pop_fun(), cv.1.0, &new.0).map(Jq))
        })),
        native::run((MODIFY, [Bind::Fun(()), Bind::Fun(())].into(), |mut cv| {
            let update = cv.0.pop_fun();
            box_once(modify(cv.0.pop_fun(), cv.1.0, &update).map(Jq))
        })),
        native::run(("setpath", native::v(2), |mut cv| {
            let (new, path) = (cv.0.pop_var(), cv.0.pop_var());
            let mut root = cv.1.0;
            let done = to_path(path.0).and_then(|path| set(&mut root, &path, new.0));
            native::bome(done.map(|()| Jq(root)))
        })),
        native::run(("delpaths", native::v(1), |mut cv| {
            let paths = elements(cv.0.pop_var().0, "Paths");
            let paths = paths.and_then(|paths| paths.into_iter().map(to_path).collect());
            native::bome(paths.and_then(|paths| delete_all(cv.1.0, paths)).map(Jq))
        })),
    ]
}

/// A filter with its variables, as the interpreter passes one to a native filter.
type Closure<'a> = (TermId, Ctx<'a, Data>);

fn assign<'a>(paths: Closure<'a>, mut root: Val, new: &Val) -> ValX<'a, Val, Jq> {
    for path in find(paths, &root)? {
        set(&mut root, &path, new.clone())?;
    }
    Ok(root)
}

/// Replaces each value by the first output of `update`; where it has none, the value is deleted.
fn modify<'a>(paths: Closure<'a>, mut root: Val, update: &Closure<'a>) -> ValX<'a, Val, Jq> {
    let mut paths = find(paths, &root)?.into_iter();
    let mut doomed = Vec::new();
    while let Some(path) = paths.next() {
        let place = if paths.len() == 0 { existing(&mut root, &path) } else { None };
        let old = match place {
            // The place is not read again, and a value that only the update holds can be changed in
            // place: a thousand times `.log += […]` must not copy the list a thousand times.
            Some(place) => mem::take(place),
            None => get(&root, &path)?,
        };
        match update.0.run((update.1.clone(), Jq(old))).next().transpose()? {
            Some(new) => set(&mut root, &path, new.0)?,
            None => doomed.push(path),
        }
    }
    Ok(delete_all(root, doomed)?)
}

fn find<'a>(paths: Closure<'a>, root: &Val) -> Result<Vec<Path>, Exn<'a, Jq>> {
    let (filter, ctx) = paths;
    let found = filter.paths((ctx, (Jq(root.clone()), Default::default())));
    let paths = found.map(|found| {
        let mut path: Path = found?.1.iter().map(|key| key.0.clone()).collect();
        path.reverse();
        Ok(short(path)?)
    });
    paths.collect()
}

/// Refuses a longer path: it leads nowhere in a document, and following it would overflow the
/// stack.
fn short(path: Path) -> Result<Path, Error> {
    if path.len() > MAX_NESTED {
        return Err(error("Path too deep"));
    }
    Ok(path)
}

fn to_path(path: Val) -> Result<Path, Error> {
    short(elements(path, "Path")?)
}

fn elements(list: Val, what: &str) -> Result<Vec<Val>, Error> {
    match list {
        Val::Arr(list) => Ok(Rc::unwrap_or_clone(list)),
        _ => Err(error(format_args!("{what} must be specified as an array"))),
    }
}

/// The place of a path, if it exists.
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
    path.iter()
        .try_fold(Jq(root.clone()), |value, key| value.index(&Jq(key.clone())))
        .map(|value| value.0)
}

/// Sets the value at a path, creating missing parents.
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
        (Val::Arr(list), Val::Num(index)) => {
            if number::to_float(index).is_nan() {
                return Err(error("Cannot set array element at NaN index"));
            }
            let at = position(key, list.len())
                .ok_or_else(|| error("Out of bounds negative array index"))?;
            let list = Rc::make_mut(list);
            if at >= list.len() {
                if at > list.len() && at >= MAX_PADDED {
                    return Err(error("Array index too large"));
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
                return Err(error("A slice of an array can only be assigned another array"));
            };
            Rc::make_mut(list).splice(start..end, part.iter().cloned());
            Ok(())
        }
        (Val::Arr(_), Val::Arr(_)) => Err(error("Cannot update field at array index of array")),
        (Val::TStr(_), Val::Obj(_)) => Err(error("Cannot update string slices")),
        (target, _) => Err(no_index(target, key)),
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
            keys.push(key); // and everything below it
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

/// Deletes the sorted `keys` all at once, so that no deletion shifts the meaning of another.
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
        target => {
            let (of, key) = (text::kind(target), text::kind(keys[0]));
            Err(match &*target {
                Val::Obj(_) | Val::Arr(_) => {
                    error(format_args!("Cannot delete {key} element of {of}"))
                }
                _ => error(format_args!(
                    "Cannot delete field at {} of {of}",
                    match keys[0] {
                        Val::TStr(_) => "object index",
                        _ => "array index",
                    }
                )),
            })
        }
    }
}

/// The index in an array that a number means; `None` if that is before its begin.
fn position(key: &Val, len: usize) -> Option<usize> {
    match key {
        Val::Num(number) => number::position(number, len),
        _ => None,
    }
}

/// The range of an array that `{"start": …, "end": …}` means.
fn bounds(key: &Val, len: usize) -> Result<(usize, usize), Error> {
    let part = number::ends_of(key, len)?;
    Ok((part.start, part.end))
}
