//! Puts back the changes of one party and keeps those of others.
//!
//! A document is compared by units: values below keys of objects, elements of `completedTasks`,
//! other arrays whole. A unit that both parties changed, or one below the other, is a conflict, and
//! then nothing is put back. `metadata`, `lastSignal` and `lastActivation` never conflict; they
//! keep the value that the others gave them.
//!
//! An object with fields that appears or disappears is not a unit: its fields are. The presence of
//! the object itself is recorded separately, so that an object which was empty in `base`, or which
//! the others removed, is put back as such.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::{DocPath, PathStep};

const TASKS: &str = "completedTasks";
const METADATA: &str = "metadata";
/// Fields that every party changes with each step.
const SHARED: [&str; 2] = ["lastSignal", "lastActivation"];

/// The place of a unit: keys from the root; for a task its JSON text after `completedTasks`.
type Unit = Vec<String>;

/// The changes of a party.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Touched {
    /// The units, each with its value after the party's last change; `None` where it was removed.
    /// No unit is below another.
    units: BTreeMap<Unit, Option<Value>>,
    /// The objects around units that the party created (`true`) or removed (`false`), whatever they
    /// held.
    hulls: BTreeMap<Unit, bool>,
}

impl Touched {
    /// Adds the changes from one revision to the next.
    pub fn add(&mut self, before: &Value, after: &Value) {
        self.compare(&mut Vec::new(), Some(before), Some(after));
    }

    /// Returns whether the party changed nothing.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    fn compare(&mut self, at: &mut Unit, before: Option<&Value>, after: Option<&Value>) {
        if before == after {
            return;
        }
        let is_whole = is_shared_value(at) || self.units.contains_key(&*at);
        match (before.map(fields), after.map(fields)) {
            (before, after) if !is_whole && has_fields(before, after) => {
                if before.is_some() != after.is_some() {
                    self.hulls.insert(at.clone(), after.is_some());
                }
                let (before, after) = (before.flatten(), after.flatten());
                let keys = before.into_iter().chain(after).flat_map(Map::keys);
                for key in keys.collect::<BTreeSet<_>>() {
                    at.push(key.clone());
                    self.compare(
                        at,
                        before.and_then(|map| map.get(key)),
                        after.and_then(|map| map.get(key)),
                    );
                    at.pop();
                }
            }
            _ => match (&at[..], before, after) {
                ([field], Some(Value::Array(before)), Some(Value::Array(after)))
                    if field == TASKS && !is_whole && !is_reordered(before, after) =>
                {
                    self.compare_tasks(before, after);
                }
                _ => self.insert(at, after.cloned()),
            },
        }
    }

    /// Adds a unit, replacing those below it.
    fn insert(&mut self, unit: &Unit, value: Option<Value>) {
        self.units.retain(|other, _| !other.starts_with(unit));
        self.hulls.retain(|hull, _| !hull.starts_with(unit));
        self.units.insert(unit.clone(), value);
    }

    fn compare_tasks(&mut self, before: &[Value], after: &[Value]) {
        for task in before.iter().chain(after) {
            if count(before, task) != count(after, task) {
                let value = Some(task).filter(|task| after.contains(task)).cloned();
                self.units.insert(vec![TASKS.to_owned(), task.to_string()], value);
            }
        }
    }

    /// The units of the party, without those that never conflict.
    fn contended(&self) -> impl Iterator<Item = &Unit> {
        self.units.keys().filter(|unit| !is_shared(unit))
    }

    /// Returns whether the party removed an object around this place.
    fn removed_around(&self, at: &[String]) -> bool {
        self.hulls
            .iter()
            .any(|(hull, is_there)| !is_there && hull.len() < at.len() && at.starts_with(hull))
    }
}

/// The changes of both parties that conflict: paths for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The paths.
    pub paths: Vec<String>,
}

/// The live document with the guard's changes reverted to `base`, and the others' changes kept.
pub fn put_back(
    base: &Value,
    guards: &Touched,
    others: &Touched,
    live: &Value,
) -> Result<Value, Conflict> {
    let meets = |unit: &&Unit| others.contended().any(|other| overlap(unit, other));
    let is_shut_out =
        |at: &&Unit| !is_shared(at) && get(base, at).is_some() && others.removed_around(at);
    let mut paths: BTreeSet<&Unit> = guards.contended().filter(meets).collect();
    paths.extend(guards.units.keys().filter(is_shut_out));
    let hulls = guards.hulls.keys().filter(is_shut_out);
    paths.extend(
        hulls.filter(|hull| !paths.iter().any(|unit| unit.starts_with(hull))).collect::<Vec<_>>(),
    );
    if !paths.is_empty() {
        return Err(Conflict { paths: paths.into_iter().map(|unit| shown(unit)).collect() });
    }
    let mut value = live.clone();
    let tasks_are_guards =
        !others.units.keys().any(|unit| unit.first().is_some_and(|field| field == TASKS));
    for unit in guards.units.keys() {
        match &unit[..] {
            unit if is_shared(unit) => put_shared_back(&mut value, base, others, unit),
            [field, ..] if field == TASKS && tasks_are_guards => {
                set(&mut value, std::slice::from_ref(field), base.get(TASKS).cloned());
            }
            [field, task] if field == TASKS => put_task_back(&mut value, base, task),
            unit => set(&mut value, unit, get(base, unit).cloned()),
        }
    }
    put_hulls_back(&mut value, base, guards, others);
    Ok(value)
}

/// Sets a field that never conflicts to the others' value, else the one in `base`.
fn put_shared_back(value: &mut Value, base: &Value, others: &Touched, unit: &[String]) {
    let around = (1..=unit.len()).filter_map(|length| unit.get(..length));
    let whole = around.filter_map(|at| Some((at, others.units.get(at)?))).next();
    if let Some((at, theirs)) = whole {
        return set(value, at, theirs.clone());
    }
    set(value, unit, get(base, unit).cloned());
    for (below, theirs) in others.units.iter().filter(|(other, _)| other.starts_with(unit)) {
        set(value, below, theirs.clone());
    }
}

/// Creates the objects that the guard removed and removes those it created, if they are empty and
/// the others did not do the same.
fn put_hulls_back(value: &mut Value, base: &Value, guards: &Touched, others: &Touched) {
    let wanted =
        |hull: &Unit| others.hulls.get(hull).copied().unwrap_or_else(|| get(base, hull).is_some());
    for hull in guards.hulls.keys().filter(|hull| wanted(hull)) {
        if get(value, hull).is_none() {
            set(value, hull, Some(Map::new().into()));
        }
    }
    for hull in guards.hulls.keys().rev().filter(|hull| !wanted(hull)) {
        if matches!(get(value, hull), Some(Value::Object(map)) if map.is_empty()) {
            set(value, hull, None);
        }
    }
}

fn put_task_back(value: &mut Value, base: &Value, text: &str) {
    let Some(Value::Array(tasks)) = value.get_mut(TASKS) else { return };
    let before = base.get(TASKS).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let Some(task) =
        tasks.iter().chain(before).find(|task| Value::to_string(task) == text).cloned()
    else {
        return;
    };
    let wanted = count(before, &task);
    while count(tasks, &task) > wanted {
        let Some(last) = tasks.iter().rposition(|other| *other == task) else { break };
        tasks.remove(last);
    }
    let missing = wanted.saturating_sub(count(tasks, &task));
    tasks.extend(std::iter::repeat_n(task, missing));
}

fn fields(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

/// Returns whether both sides are objects or absent, and one of them has fields to compare.
#[allow(clippy::option_option)]
fn has_fields(
    before: Option<Option<&Map<String, Value>>>,
    after: Option<Option<&Map<String, Value>>>,
) -> bool {
    match (before, after) {
        (Some(Some(_)), Some(Some(_))) => true,
        (Some(Some(one)), None) | (None, Some(Some(one))) => !one.is_empty(),
        _ => false,
    }
}

fn is_reordered(before: &[Value], after: &[Value]) -> bool {
    before.len() == after.len()
        && before.iter().all(|task| count(before, task) == count(after, task))
}

fn count(tasks: &[Value], task: &Value) -> usize {
    tasks.iter().filter(|other| *other == task).count()
}

fn is_shared(unit: &[String]) -> bool {
    unit.first().is_some_and(|field| SHARED.contains(&field.as_str()) || field == METADATA)
}

/// Returns whether this is a shared field, or a field of `metadata`: such a value is one unit.
fn is_shared_value(at: &[String]) -> bool {
    match at {
        [field] => SHARED.contains(&field.as_str()),
        [field, _] => field == METADATA,
        _ => false,
    }
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

fn shown(unit: &[String]) -> String {
    match unit {
        [field, task] if field == TASKS => format!(".{TASKS}: {task}"),
        unit => DocPath(unit.iter().cloned().map(PathStep::Key).collect()).to_string(),
    }
}

fn get<'v>(value: &'v Value, unit: &[String]) -> Option<&'v Value> {
    unit.iter().try_fold(value, |value, key| value.as_object()?.get(key))
}

/// Sets or removes a value. Missing objects around it are created.
fn set(value: &mut Value, unit: &[String], wanted: Option<Value>) {
    let Some((key, parents)) = unit.split_last() else { return };
    let mut parent = value;
    for key in parents {
        let Value::Object(map) = parent else { return };
        if wanted.is_none() && !map.contains_key(key) {
            return;
        }
        parent = map.entry(key.clone()).or_insert_with(|| Map::new().into());
    }
    let Value::Object(map) = parent else { return };
    match wanted {
        Some(wanted) => drop(map.insert(key.clone(), wanted)),
        None => drop(map.shift_remove(key)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Party {
        Guard,
        Others,
    }

    /// The changes of each party and the live document, after these steps.
    fn after(base: &Value, steps: &[(Party, Value)]) -> (Touched, Touched, Value) {
        let (mut guards, mut others, mut live) =
            (Touched::default(), Touched::default(), base.clone());
        for (party, next) in steps {
            let touched = if *party == Party::Guard { &mut guards } else { &mut others };
            touched.add(&live, next);
            live = next.clone();
        }
        (guards, others, live)
    }

    fn merged(base: &Value, steps: &[(Party, Value)]) -> Result<Value, Conflict> {
        let (guards, others, live) = after(base, steps);
        put_back(base, &guards, &others, &live)
    }

    fn base() -> Value {
        json!({
            "phase": "a", "completedTasks": ["x"], "signals": {"S": 1}, "lastActivation": "t0",
            "metadata": {"owner": "me"}, "n": 1, "list": [1], "deep": {"a": {"b": 1}},
        })
    }

    fn with(value: &Value, changes: &[(&str, Value)]) -> Value {
        let mut value = value.clone();
        for (pointer, new) in changes {
            *value.pointer_mut(pointer).unwrap() = new.clone();
        }
        value
    }

    #[test]
    fn each_kind_of_field_is_merged_by_its_own_units() {
        let one =
            with(&base(), &[("/phase", "b".into()), ("/completedTasks", json!(["x", "guard"]))]);
        let one =
            with(&one, &[("/signals", json!({"S": 1, "G": 2})), ("/lastActivation", "t1".into())]);
        let two =
            with(&one, &[("/n", 2.into()), ("/completedTasks", json!(["x", "guard", "other"]))]);
        let two = with(
            &two,
            &[("/signals", json!({"S": 1, "G": 2, "O": 3})), ("/lastActivation", "t2".into())],
        );
        let expected =
            with(&base(), &[("/n", 2.into()), ("/completedTasks", json!(["x", "other"]))]);
        let expected = with(
            &expected,
            &[("/signals", json!({"S": 1, "O": 3})), ("/lastActivation", "t2".into())],
        );
        assert_eq!(merged(&base(), &[(Party::Guard, one), (Party::Others, two)]), Ok(expected));
    }

    #[test]
    fn a_unit_that_both_changed_is_a_conflict() {
        let paths = |one: Value, two: Value| {
            let conflict =
                merged(&base(), &[(Party::Guard, one), (Party::Others, two)]).unwrap_err();
            conflict.paths
        };
        let one = with(&base(), &[("/phase", "b".into()), ("/n", 5.into())]);
        assert_eq!(paths(one.clone(), with(&one, &[("/phase", "c".into())])), [".phase"]);
        let one = with(&base(), &[("/list", json!([1, 2]))]);
        assert_eq!(paths(one.clone(), with(&one, &[("/list", json!([0, 1, 2]))])), [".list"]);
        let one = with(&base(), &[("/deep/a/b", 2.into())]);
        assert_eq!(paths(one.clone(), with(&one, &[("/deep", Value::Null)])), [".deep.a.b"]);
        let one = with(&base(), &[("/completedTasks", json!([]))]);
        let two = with(&one, &[("/completedTasks", json!(["x"]))]);
        assert_eq!(paths(one, two), [".completedTasks: \"x\""]);
    }

    #[test]
    fn shared_fields_keep_the_others_value() {
        let one = with(
            &base(),
            &[("/lastActivation", "others".into()), ("/metadata/owner", "others".into())],
        );
        let two =
            with(&one, &[("/lastActivation", "guard".into()), ("/metadata/owner", "guard".into())]);
        let two = with(&two, &[("/n", 9.into())]);
        assert_eq!(merged(&base(), &[(Party::Others, one.clone()), (Party::Guard, two)]), Ok(one));
    }

    #[test]
    fn only_the_guards_empty_objects_are_put_back() {
        let base = json!({"a": {"c": {}}, "n": 1});
        let steps = [
            (Party::Guard, json!({"a": {"c": {"x": 1}}, "n": 1})),
            (Party::Guard, json!({"a": {}, "n": 1})),
            (Party::Others, json!({"a": {}, "n": 2})),
        ];
        assert_eq!(merged(&base, &steps), Ok(json!({"a": {"c": {}}, "n": 2})));

        let base = json!({"a": {"b": 1, "c": {"x": 1}}});
        let passing = [
            (Party::Guard, json!({"a": {"b": 1, "c": {"x": 1}, "y": 1}})),
            (Party::Guard, base.clone()),
            (Party::Others, json!({})),
        ];
        assert_eq!(merged(&base, &passing), Ok(json!({})));
        let removed = [(Party::Guard, json!({"a": {"b": 1}})), (Party::Others, json!({}))];
        assert_eq!(merged(&base, &removed).unwrap_err().paths, [".a.c.x"]);
    }

    #[test]
    fn a_field_changed_twice_has_its_last_value() {
        let base = json!({"a": [1]});
        let steps =
            [(Party::Others, json!({"a": {"b": 1}})), (Party::Others, json!({"a": {"b": 2}}))];
        let (_, others, _) = after(&base, &steps);
        assert_eq!(others.units, BTreeMap::from([(vec!["a".to_owned()], Some(json!({"b": 2})))]));
    }

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            (0..3).prop_map(Value::from),
            Just(json!({})),
            Just(json!([1])),
            Just(json!([2])),
            Just(Value::Null)
        ]
    }

    fn document() -> impl Strategy<Value = Value> {
        let field = leaf().prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        let tasks = prop::collection::vec("[xyz]", 0..3);
        let signals = prop::collection::btree_map("[ST]", 0..3_u8, 0..3);
        (field.clone(), field, tasks, signals, 0..3_u8).prop_map(|(a, b, tasks, signals, at)| {
            json!({"a": a, "b": b, "completedTasks": tasks, "signals": signals,
                "lastActivation": at, "metadata": {"k": at}})
        })
    }

    fn steps() -> impl Strategy<Value = Vec<(Party, Value)>> {
        prop::collection::vec(
            (prop_oneof![Just(Party::Guard), Just(Party::Others)], document()),
            0..5,
        )
    }

    fn without_shared(value: &Value) -> Value {
        let mut value = value.clone();
        for field in ["lastActivation", "metadata"] {
            value.as_object_mut().unwrap().shift_remove(field);
        }
        value
    }

    proptest! {
        #[test]
        fn alone_the_guard_is_undone_exactly(
            base in document(),
            nexts in prop::collection::vec(document(), 0..4),
        ) {
            let steps: Vec<_> = nexts.into_iter().map(|next| (Party::Guard, next)).collect();
            prop_assert_eq!(merged(&base, &steps), Ok(base));
        }

        #[test]
        fn without_the_guard_nothing_changes(
            base in document(),
            nexts in prop::collection::vec(document(), 0..4),
        ) {
            let steps: Vec<_> = nexts.into_iter().map(|next| (Party::Others, next)).collect();
            let live = steps.last().map_or(base.clone(), |(_, live)| live.clone());
            prop_assert_eq!(merged(&base, &steps), Ok(live));
        }

        #[test]
        fn only_the_guards_changes_are_reverted(base in document(), steps in steps()) {
            let (guards, others, live) = after(&base, &steps);
            let Ok(value) = put_back(&base, &guards, &others, &live) else { return Ok(()) };
            for (unit, last) in others.units.iter().filter(|(unit, _)| unit[0] != TASKS) {
                prop_assert_eq!(get(&value, unit), last.as_ref(), "{:?}", unit);
            }
            for (hull, is_there) in &others.hulls {
                prop_assert_eq!(get(&value, hull).is_some(), *is_there, "{:?}", hull);
            }
            for unit in guards.contended().filter(|unit| unit[0] != TASKS) {
                prop_assert_eq!(get(&value, unit), get(&base, unit), "{:?}", unit);
            }
            let tasks = |value: &Value| value[TASKS].as_array().unwrap().clone();
            for task in tasks(&base).iter().chain(&tasks(&live)).chain(&tasks(&value)) {
                let unit = vec![TASKS.to_owned(), task.to_string()];
                let is_of_others = others.units.contains_key(&unit)
                    || others.units.contains_key(&unit[..1]);
                let source = tasks(if is_of_others { &live } else { &base });
                prop_assert_eq!(count(&tasks(&value), task), count(&source, task), "{}", task);
            }
        }

        #[test]
        fn what_neither_changed_is_as_it_was(base in document(), one in document()) {
            // The guard changes one field, the others another.
            let first = with(&base, &[("/a", one["a"].clone())]);
            let second = with(&first, &[("/b", one["b"].clone())]);
            let expected = with(&base, &[("/b", one["b"].clone())]);
            let result = merged(&base, &[(Party::Guard, first), (Party::Others, second)]).unwrap();
            prop_assert_eq!(without_shared(&result), without_shared(&expected));
        }
    }
}
