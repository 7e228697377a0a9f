//! The marks of commits: in the lanes of what they changed.

use super::marks::{End, Fact, LaneKind, Marks, What};
use crate::document::path::{DocPath, PathStep};
use crate::journal::Commit;
use crate::journal::changes::Change;

/// The commits, as they are added.
#[derive(Default)]
pub(super) struct Commits {
    /// The present phase.
    phase: Option<usize>,
}

impl Commits {
    pub(super) fn add(&mut self, commit: &Commit, marks: &mut Marks) {
        let facts = facts(commit);
        let list = commit.changes.as_ref().map_or(&[][..], |changes| &changes.list);
        let mut is_shown = false;
        if let Some(name) = list.iter().find_map(new_phase) {
            if let Some(before) = self.phase.take() {
                marks.end(before, End::Done);
            }
            let lane = marks.lane(LaneKind::Phase, "");
            self.phase = Some(marks.begin(lane, What::Phase, name, facts.clone()));
            is_shown = true;
        }
        let tasks: Vec<String> = list.iter().filter_map(task).collect();
        let signals: Vec<String> = list.iter().filter_map(signal).collect();
        for (kind, what, names) in
            [(LaneKind::Tasks, What::Task, tasks), (LaneKind::Signals, What::Signal, signals)]
        {
            if !names.is_empty() {
                let lane = marks.lane(kind, "");
                marks.add(lane, what, &names.join(", "), facts.clone());
                is_shown = true;
            }
        }
        if !is_shown {
            let lane = marks.lane(LaneKind::Commits, "");
            marks.add(lane, What::Commit, commit.default_reason(), facts);
        }
    }
}

fn facts(commit: &Commit) -> Vec<Fact> {
    let mut facts = vec![
        Fact::new("Revision", &commit.revision.get().to_string()),
        Fact::new("Command", &commit.command),
    ];
    facts.extend(commit.reason.as_deref().map(|reason| Fact::new("Reason", reason)));
    match &commit.changes {
        None => facts.push(Fact::new("Changed", "unknown: the document before was not readable")),
        Some(changes) => {
            facts.extend(changes.list.iter().map(|change| Fact::new("Changed", &words(change))));
            if changes.more > 0 {
                facts.push(Fact::new("Changed", &format!("{} more", changes.more)));
            }
        }
    }
    facts.extend(commit.guards.iter().map(|id| Fact::new("Guard", id)));
    facts.push(Fact::new("Size", &format!("{} bytes", commit.bytes)));
    facts.push(Fact::new("Lineage", commit.lineage.as_str()));
    facts
}

fn words(change: &Change) -> String {
    match change {
        Change::Path(path) => path.clone(),
        Change::Phase { old, new } => {
            let text = |phase: &Option<String>| phase.clone().unwrap_or_else(|| "none".to_owned());
            format!(".phase: {} → {}", text(old), text(new))
        }
        Change::Task { name, is_added: true } => format!(".completedTasks: + {name}"),
        Change::Task { name, is_added: false } => format!(".completedTasks: − {name}"),
    }
}

fn new_phase(change: &Change) -> Option<&str> {
    match change {
        Change::Phase { new, .. } => Some(new.as_deref().unwrap_or("none")),
        _ => None,
    }
}

fn task(change: &Change) -> Option<String> {
    match change {
        Change::Task { name, is_added: true } => Some(name.clone()),
        Change::Task { name, is_added: false } => Some(format!("− {name}")),
        _ => None,
    }
}

/// The signal that a path names.
fn signal(change: &Change) -> Option<String> {
    let Change::Path(path) = change else { return None };
    match &DocPath::parse_filter(path)?.0[..] {
        [PathStep::Key(field), PathStep::Key(name), ..] if field == "signals" => Some(name.clone()),
        _ => None,
    }
}
