//! What a root shows of what a command does to it.

use std::fs::{self};
use std::time::Instant;

use pipeline_state::fs::Disk;
use pipeline_state::fs::stage::is_temporary;
use serde_json::Value;

use crate::faults::store;
use crate::kill::content;
use crate::lock_faults::locks_on;
use crate::sandbox::Sandbox;

/// The parts of a root that a command may change.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// None if it is refused.
    pub document: Option<Value>,
    pub revision: u64,
    pub config: Vec<(String, Vec<u8>)>,
    pub signals: Vec<String>,
    pub checkpoints: Vec<String>,
    pub locks: Vec<(String, &'static str, Option<u32>, Option<u32>)>,
}

impl View {
    pub fn of(root: &Sandbox) -> Self {
        let read = store(root, Disk::real()).read();
        let (document, revision) = read.map_or((None, 0), |served| {
            let (document, revision) = content(&served.bytes);
            (Some(timeless(document)), revision)
        });
        // the next `hook init-rules` clears leftovers of a killed one
        let config = root.names("config").into_iter().filter(|name| !is_temporary(name));
        let config = config.map(|name| {
            (name.clone(), fs::read(root.file("config").join(name)).unwrap_or_default())
        });
        let checkpoints =
            root.names(".checkpoints").into_iter().filter(|name| !name.starts_with('.'));
        // distinguishes those of one second
        let is_number = |c: char| c.is_ascii_digit() || c == '-';
        let operation = |name: String| {
            name.splitn(4, '-').last().unwrap().trim_start_matches(is_number).to_owned()
        };
        let checkpoints =
            checkpoints.map(operation).filter(|operation| !operation.ends_with("pre-restore"));
        let locks = locks_on(root, Disk::real());
        if root.file(".locks").exists() {
            locks.clean(Instant::now()).unwrap(); // completes interrupted changes
        }
        let entries = locks.list().unwrap().into_iter();
        let mut checkpoints: Vec<String> = checkpoints.collect();
        checkpoints.sort(); // those of one second have no order
        Self {
            document,
            revision,
            config: config.collect(),
            signals: root.names(".signals"),
            checkpoints,
            locks: entries
                .map(|entry| (entry.pid(), entry))
                .map(|(pid, entry)| (entry.lock, entry.mode.name(), pid, entry.count))
                .collect(),
        }
    }

    /// True if each part is as in one of these two.
    pub fn is_between(&self, before: &Self, after: &Self) -> bool {
        (self.document == before.document || self.document == after.document)
            && (before.revision..=after.revision).contains(&self.revision)
            && (self.config == before.config
                || self.config == after.config
                || self.config.iter().any(is_changed))
            && (self.signals == before.signals || self.signals == after.signals)
            && (self.checkpoints == before.checkpoints || self.checkpoints == after.checkpoints)
            && (self.locks == before.locks || self.locks == after.locks || self.locks.is_empty())
    }

    pub fn is(&self, other: &Self) -> bool {
        Self { revision: 0, ..self.clone() } == Self { revision: 0, ..other.clone() }
    }
}

/// The change that the guarded command made to the configuration.
fn is_changed((_, bytes): &(String, Vec<u8>)) -> bool {
    bytes == b"changed\n"
}

fn timeless(mut document: Value) -> Value {
    if let Some(mode) = document.get_mut("degradedMode").and_then(Value::as_object_mut) {
        mode.remove("timestamp");
    }
    document
}
