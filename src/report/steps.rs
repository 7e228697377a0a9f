//! The marks of guards and retries, whose begins and ends are paired, and of checkpoints, restores
//! and failures.

use std::collections::HashMap;

use super::marks::{End, Fact, LaneKind, Marks, What};
use crate::journal::GuardEvent;
use crate::journal::GuardStep;
use crate::journal::event::{
    CheckpointEvent, CheckpointStep, Failure, RestoreEvent, RestoreStep, RetryEvent, RetryStep,
};

/// The guards and retries, as they are added.
#[derive(Default)]
pub(super) struct Steps {
    /// The last span of each guard.
    guards: HashMap<String, usize>,
    /// The retries that have not ended, by their process.
    retries: HashMap<u32, usize>,
}

impl Steps {
    pub(super) fn add_guard(&mut self, guard: &GuardEvent, marks: &mut Marks) {
        let lane = marks.lane(LaneKind::Guards, "");
        let id = || vec![Fact::new("Guard", &guard.id)];
        let known = self.guards.get(&guard.id).copied();
        let end = match guard.step {
            GuardStep::Began => {
                let mut facts = id();
                facts.extend(guard.guards.iter().map(|outer| Fact::new("Inside guard", outer)));
                let span = marks.begin(lane, What::Guard, operation(&guard.id), facts);
                self.guards.insert(guard.id.clone(), span);
                return;
            }
            GuardStep::Ended if guard.code == Some(0) => End::Done,
            GuardStep::Ended => End::Failed,
            GuardStep::Restored => End::Restored,
            GuardStep::Unrestored => End::Unrestored,
            GuardStep::Forgotten => End::Done,
        };
        let span = known.unwrap_or_else(|| {
            let mut facts = id();
            facts.push(Fact::new("Began", "before the first line of the journal"));
            let span = marks.begin(lane, What::Guard, operation(&guard.id), facts);
            self.guards.insert(guard.id.clone(), span);
            span
        });
        let mut facts = Vec::new();
        facts.extend(guard.code.map(|code| Fact::new("Exit code", &code.to_string())));
        facts.extend(guard.attempts.map(|count| Fact::new("Attempts", &count.to_string())));
        let word = match guard.step {
            GuardStep::Began | GuardStep::Ended => None,
            GuardStep::Restored => Some("put back"),
            GuardStep::Unrestored => Some("not everything was put back"),
            GuardStep::Forgotten => Some("forgotten"),
        };
        if let Some(word) = word {
            facts.push(Fact::new("Outcome", word));
            let mut own = id();
            own.push(Fact::new("Outcome", word));
            let point = marks.add(lane, What::GuardStep, word, own);
            marks.set_end(point, end);
        }
        for fact in facts {
            marks.add_fact(span, fact);
        }
        // What follows the end changes the outcome, and not the time.
        if marks.is_ended(span) {
            marks.set_end(span, end);
        } else {
            marks.end(span, end);
        }
    }

    pub(super) fn add_retry(&mut self, retry: &RetryEvent, marks: &mut Marks) {
        let lane = marks.lane(LaneKind::Retries, "");
        let pid = retry.origin.pid;
        let begin = |marks: &mut Marks| {
            let facts = vec![Fact::new("Program", &retry.program)];
            marks.begin(lane, What::Retry, &retry.program, facts)
        };
        if retry.step == RetryStep::Began {
            let span = begin(marks);
            self.retries.insert(pid, span);
            return;
        }
        let span = self.retries.remove(&pid).unwrap_or_else(|| begin(marks));
        if let Some(count) = retry.attempts {
            marks.add_fact(span, Fact::new("Attempts", &count.to_string()));
        }
        if let Some(code) = retry.code {
            marks.add_fact(span, Fact::new("Exit code", &code.to_string()));
        }
        marks.end(
            span,
            match retry.step {
                RetryStep::Began | RetryStep::Succeeded => End::Done,
                RetryStep::Failed => End::Failed,
                RetryStep::TimedOut => End::TimedOut,
            },
        );
    }

    /// Says of what has not ended that its end is not known.
    pub(super) fn finish(self, marks: &mut Marks) {
        for span in self.guards.into_values().chain(self.retries.into_values()) {
            if !marks.is_ended(span) {
                marks.add_fact(span, Fact::new("Ended", "not on record: it runs, or was killed"));
            }
        }
    }
}

/// The operation in an id such as `guard-20260102-030405-1-deploy`.
fn operation(id: &str) -> &str {
    let rest = id.trim_start_matches(|c: char| c != '-').trim_start_matches('-');
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    if name.is_empty() { id } else { name }
}

pub(super) fn add_checkpoint(event: &CheckpointEvent, marks: &mut Marks) {
    let lane = marks.lane(LaneKind::Checkpoints, "");
    let what = match event.step {
        CheckpointStep::Made => What::Checkpoint,
        CheckpointStep::Removed => What::Removed,
    };
    marks.add(lane, what, operation(&event.id), vec![Fact::new("Checkpoint", &event.id)]);
}

pub(super) fn add_restore(event: &RestoreEvent, marks: &mut Marks) {
    let lane = marks.lane(LaneKind::Checkpoints, "");
    let mut facts = vec![Fact::new("Checkpoint", &event.id)];
    facts.push(match event.step {
        RestoreStep::Restored => Fact::new("Outcome", "restored"),
        RestoreStep::Undone => Fact::new("Outcome", "the restore was undone"),
    });
    facts.extend(event.revision.map(|number| Fact::new("Revision", &number.to_string())));
    let point = marks.add(lane, What::Restore, operation(&event.id), facts);
    if event.step == RestoreStep::Undone {
        marks.set_end(point, End::Failed);
    }
}

pub(super) fn add_failure(event: &Failure, marks: &mut Marks) {
    let lane = marks.lane(LaneKind::Errors, "");
    let facts = vec![
        Fact::new("Command", &event.command),
        Fact::new("Message", &event.message),
        Fact::new("Kind", &event.kind),
        Fact::new("Exit code", &event.code.to_string()),
    ];
    let point = marks.add(lane, What::Failure, &event.kind, facts);
    marks.set_end(point, End::Failed);
}
