//! An event in a few words, for a line of a report.

use std::fmt;

use super::{
    CheckpointEvent, CheckpointStep, Commit, Event, Failure, GuardEvent, GuardStep, LockEvent,
    LockStep, Party, RestoreEvent, RestoreStep, RetryEvent, RetryStep,
};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(Commit { revision, command, reason, .. }) => {
                let reason = reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                write!(f, "revision {revision} by {command}{reason}")
            }
            Self::Lock(event) => lock(f, event),
            Self::Checkpoint(CheckpointEvent { id, step, .. }) => match step {
                CheckpointStep::Made => write!(f, "{id} made"),
                CheckpointStep::Removed => write!(f, "{id} removed"),
            },
            Self::Restore(RestoreEvent { id, step, .. }) => match step {
                RestoreStep::Restored => write!(f, "{id} restored"),
                RestoreStep::Undone => write!(f, "restore of {id} undone"),
            },
            Self::Guard(GuardEvent { id, step, code, .. }) => match (step, code) {
                (GuardStep::Began, _) => write!(f, "guard {id} began"),
                (GuardStep::Ended, Some(code)) => write!(f, "guard {id} ended with {code}"),
                (GuardStep::Ended, None) => write!(f, "guard {id} ended"),
                (GuardStep::Restored, _) => write!(f, "guard {id} put everything back"),
                (GuardStep::Unrestored, _) => write!(f, "guard {id} did not put everything back"),
                (GuardStep::Forgotten, _) => write!(f, "guard {id} forgotten"),
            },
            Self::Retry(RetryEvent { program, step, attempts, .. }) => {
                let attempts = attempts.unwrap_or_default();
                match step {
                    RetryStep::Began => write!(f, "retries of {program} began"),
                    RetryStep::Succeeded => write!(f, "{program} succeeded in attempt {attempts}"),
                    RetryStep::Failed => write!(f, "{program} failed, attempts: {attempts}"),
                    RetryStep::TimedOut => write!(f, "{program} ran out of time"),
                }
            }
            Self::Failure(Failure { command, code, message, .. }) => {
                write!(f, "{command} ended with {code}: {message}")
            }
            Self::Totals(totals) => write!(f, "{} commits before", totals.count()),
        }
    }
}

fn lock(f: &mut fmt::Formatter<'_>, event: &LockEvent) -> fmt::Result {
    let LockEvent { lock, step, waited, blockers, subject, .. } = event;
    let party = |party: &Party| match party.pid {
        Some(pid) => format!("{pid} ({})", party.program),
        None => "an unknown owner".to_owned(),
    };
    let whose = subject.as_ref().map_or_else(|| "its owner".to_owned(), party);
    match step {
        LockStep::Granted => write!(f, "{lock} granted")?,
        LockStep::Released => write!(f, "{lock} released")?,
        LockStep::TimedOut => write!(f, "{lock} not granted in time")?,
        LockStep::Broken => write!(f, "{lock} taken away from {whose}")?,
        LockStep::WaitBroken => write!(f, "wait of {whose} for {lock} ended by an operator")?,
        LockStep::OwnerDied => write!(f, "{lock} free since {whose} is dead")?,
    }
    match blockers.first() {
        Some(first) => write!(f, " after {waited:.1} s for {}", party(&first.party)),
        None => Ok(()),
    }
}
