//! The settings that have an editor call the hooks, and the editor's files that hold them.
//!
//! Three files may: the project's, which a team shares; the project's own of this user; and the
//! user's. A file is edited as text: only what is added, replaced or removed differs, and
//! everything else keeps its order and its form.

mod command;
mod edit;
mod file;
mod json;

use serde_json::{Value, json};

pub use self::command::called_event;
pub use self::edit::{Change, Edited, install, uninstall};
pub use self::file::{EditorScope, SettingsFile};
use super::announce::EventKind;

/// The editor's timeout for a hook, in seconds: twice a hook's own limit.
const TIMEOUT: u32 = 10;

/// The command line by which an editor calls a hook. `program` is a command line of this program.
pub fn call(program: &str, event: EventKind) -> String {
    format!("{program} hook {}", event.command())
}

/// The entry of an event in the settings.
fn group(program: &str, event: EventKind) -> Value {
    let hooks = json!([{"type": "command", "command": call(program, event), "timeout": TIMEOUT}]);
    match event {
        EventKind::Tool => json!({"matcher": "*", "hooks": hooks}),
        EventKind::Prompt | EventKind::Session => json!({ "hooks": hooks }),
    }
}

/// The settings that make an editor call `program`, a command line, at the relevant events.
pub fn settings(program: &str) -> Value {
    let events =
        EventKind::ALL.map(|event| (event.event().to_owned(), json!([group(program, event)])));
    json!({"hooks": Value::Object(events.into_iter().collect())})
}
