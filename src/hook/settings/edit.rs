//! The edits of an editor's settings: adding this program's hooks, and removing them.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::command::called_event;
use super::json::{JsonText, Member};
use super::{call, group};
use crate::document::text::without_mark;
use crate::error::{Error, Kind, Result};
use crate::hook::announce::EventKind;

/// The change of one event's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was missing.
    Added,
    /// Its command was another one.
    Updated,
    /// It is there as wanted, or is not there.
    Unchanged,
    /// It was there.
    Removed,
}

impl Change {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        }
    }
}

/// Settings after an edit.
#[derive(Debug)]
pub struct Edited {
    /// Their text.
    pub text: String,
    /// The change of each event's hook.
    pub changes: Vec<(EventKind, Change)>,
}

impl Edited {
    /// Returns whether the text differs.
    pub fn is_changed(&self) -> bool {
        self.changes.iter().any(|(_, change)| *change != Change::Unchanged)
    }
}

/// Adds the hooks that call `program`, a command line, to the text of settings. A hook of this
/// program that is there already is replaced where its command differs, and keeps its place, its
/// matcher and its timeout.
pub fn install(text: &str, program: &str) -> Result<Edited> {
    let mut text = checked(text)?;
    let changes = EventKind::ALL.map(|event| (event, ensure(&mut text, program, event)));
    Ok(Edited { text: text.as_str().to_owned(), changes: changes.into() })
}

/// Removes the hooks of this program from the text of settings, and what is empty then.
pub fn uninstall(text: &str) -> Result<Edited> {
    let mut text = checked(text)?;
    let changes = EventKind::ALL.map(|event| {
        let mut change = Change::Unchanged;
        while let Some(place) = places(&text, event).first() {
            change = Change::Removed;
            take_out(&mut text, event, place);
        }
        (event, change)
    });
    Ok(Edited { text: text.as_str().to_owned(), changes: changes.into() })
}

/// A hook of this program in the settings.
struct Place {
    /// The number of its group, and its number in there.
    group: usize,
    entry: usize,
    /// Its command, as written.
    command: Range<usize>,
}

/// The hooks of this program for an event.
fn places(text: &JsonText, event: EventKind) -> Vec<Place> {
    let groups = event_of(text, event).map_or_else(Vec::new, |groups| text.members(&groups));
    let mut places = Vec::new();
    for (group, Member { value, .. }) in groups.iter().enumerate() {
        let entries =
            text.value_of(value, "hooks").map_or_else(Vec::new, |hooks| text.members(&hooks));
        for (entry, Member { value, .. }) in entries.iter().enumerate() {
            let Some(command) = text.value_of(value, "command") else { continue };
            if text.parse(&command).as_str().and_then(called_event) == Some(event) {
                places.push(Place { group, entry, command });
            }
        }
    }
    places
}

fn event_of(text: &JsonText, event: EventKind) -> Option<Range<usize>> {
    text.value_of(&text.value_of(&text.root(), "hooks")?, event.event())
}

fn ensure(text: &mut JsonText, program: &str, event: EventKind) -> Change {
    let wanted = Value::from(call(program, event));
    let mut change = Change::Unchanged;
    while let [_, .., last] = places(text, event).as_slice() {
        change = Change::Updated;
        take_out(text, event, last);
    }
    if let Some(Place { command, .. }) = places(text, event).first() {
        if text.parse(command) != wanted {
            text.replace(command.clone(), &wanted);
            change = Change::Updated;
        }
        return change;
    }
    let group = group(program, event);
    let root = text.root();
    match (text.value_of(&root, "hooks"), event_of(text, event)) {
        (_, Some(groups)) => text.push(&groups, 2, "", &group),
        (Some(hooks), None) => text.push(&hooks, 1, event.event(), &json!([group])),
        (None, None) => {
            let events = Map::from_iter([(event.event().to_owned(), json!([group]))]);
            text.push(&root, 0, "hooks", &Value::Object(events));
        }
    }
    Change::Added
}

/// Removes a hook; with it a group, an event and `hooks` itself where nothing else is in them.
fn take_out(text: &mut JsonText, event: EventKind, place: &Place) {
    let root = text.root();
    let Some(hooks) = text.value_of(&root, "hooks") else { return };
    let Some(groups) = text.value_of(&hooks, event.event()) else { return };
    let all_groups = text.members(&groups);
    let Some(group) = all_groups.get(place.group) else { return };
    let Some(entries) = text.value_of(&group.value, "hooks") else { return };
    let number = |container: &Range<usize>, key: &str| {
        text.members(container).iter().position(|member| member.key == key).unwrap_or_default()
    };
    let (container, number) = if text.members(&entries).len() > 1 {
        (entries, place.entry)
    } else if all_groups.len() > 1 {
        (groups, place.group)
    } else if text.members(&hooks).len() > 1 {
        let number = number(&hooks, event.event());
        (hooks, number)
    } else {
        let number = number(&root, "hooks");
        (root, number)
    };
    text.remove(&container, number);
}

/// Refuses (4) a text that is no settings file: nothing in it is changed then.
fn checked(text: &str) -> Result<JsonText> {
    let invalid = |why: String| Error::new(Kind::InvalidJson, why);
    let body = std::str::from_utf8(without_mark(text.as_bytes())).unwrap_or(text);
    if body.trim().is_empty() {
        return Ok(JsonText::new(text));
    }
    let value: Value = serde_json::from_str(body).map_err(|error| {
        let comment =
            if body.contains("//") || body.contains("/*") { "; it may hold comments" } else { "" };
        invalid(format!("is not valid JSON: {error}{comment}"))
    })?;
    if !value.is_object() {
        return Err(invalid("is not a JSON object".to_owned()));
    }
    let json = JsonText::new(text);
    let is_twice = |container: &Range<usize>, key: &str| {
        json.members(container).iter().filter(|member| member.key == key).count() > 1
    };
    let Some(hooks) = json.value_of(&json.root(), "hooks") else { return Ok(json) };
    if is_twice(&json.root(), "hooks") {
        return Err(invalid("has the key `hooks` twice".to_owned()));
    }
    if !json.parse(&hooks).is_object() {
        return Err(invalid("has a `hooks` that is not an object".to_owned()));
    }
    for event in EventKind::ALL {
        let name = event.event();
        if is_twice(&hooks, name) {
            return Err(invalid(format!("has the key `hooks.{name}` twice")));
        }
        if json.value_of(&hooks, name).is_some_and(|value| !json.parse(&value).is_array()) {
            return Err(invalid(format!("has a `hooks.{name}` that is not an array")));
        }
    }
    Ok(json)
}
