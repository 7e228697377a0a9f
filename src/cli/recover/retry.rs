//! `recover retry` and `recover guard`: a command's attempts. Its standard streams are its own;
//! messages go to standard error.

use std::ffi::OsString;

use serde_json::json;

use super::super::args::recover::{Guard, Pauses, Retry};
use super::super::output::Output;
use super::Run;
use crate::audit::Level;
use crate::child::Forwarder;
use crate::error::{Error, ExitCode, Kind};
use crate::journal::event::RetryStep;
use crate::name::Name;
use crate::recovery::guard::{GuardStep, guard as run_guarded};
use crate::recovery::retry::{Ended, Policy, Schedule};
use crate::store::Store;
use crate::store::checkpoint::Snapshot;

fn policy(attempts: u32, pauses: &Pauses) -> Policy {
    let schedule = Schedule { base: pauses.base_delay, max: pauses.max_delay };
    Policy {
        attempts,
        schedule,
        timeout: pauses.timeout,
        retry_on: pauses.retry_on.clone(),
        environment: Vec::new(),
    }
}

/// The command's exit code; reports here that it could not be run.
fn code(ended: &Ended, output: &Output<'_>) -> u8 {
    if let Some(error) = &ended.error {
        output.error(error);
    }
    ended.code
}

pub(super) fn retry(arguments: &Retry, store: &Store, output: &Output<'_>) -> Run {
    let signals = Forwarder::new();
    let policy = policy(arguments.retries, &arguments.pauses);
    let program = program_of(&arguments.command);
    let files = store.as_files();
    if let Some(files) = files {
        files.logs().record_retry(&program, RetryStep::Began, None);
    }
    let ended = policy.run(&arguments.command, &signals, &|what| output.progress_line(what));
    let step = match ended.code {
        _ if ended.timed_out => RetryStep::TimedOut,
        0 => RetryStep::Succeeded,
        _ => RetryStep::Failed,
    };
    store.logs().record_retries(&program, ended.attempts.saturating_sub(1), ended.code);
    if let Some(files) = files {
        files.logs().record_retry(&program, step, Some((ended.attempts, ended.code)));
        if let Some(error) = &ended.error {
            files.logs().note_error(Level::Error, "retry", &error.message, ended.code);
        } else if ended.code != 0 {
            files.logs().note_command("retry", &format!("{program} {}", ended.outcome()));
        }
    }
    if ended.timed_out {
        let attempts = if ended.attempts == 1 { "attempt" } else { "attempts" };
        let message = format!(
            "the time of all attempts was up after {} {attempts}; the last one ended with {}",
            ended.attempts, ended.code
        );
        let error = Error::new(Kind::WaitTimeout, message)
            .hint_command(
                "recover retry --help",
                "--timeout T is how long all attempts may take together",
            )
            .detail("code", ended.code);
        return Err(error.into());
    }
    Ok(code(&ended, output))
}

fn program_of(command: &[OsString]) -> String {
    command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) fn guard(arguments: &Guard, store: &Store, output: &Output<'_>) -> Run {
    if let Some(word) = &arguments.forget {
        let id = store.guards().forget(word)?;
        output.confirm(&format!("Guard forgotten: {id}"), &json!({"id": id}));
        return Ok(ExitCode::Success as u8);
    }
    let operation = Name::parse_operation(arguments.operation.as_deref().unwrap_or_default())?;
    let command: Vec<_> = arguments.command.iter().map(|word| word.to_string_lossy()).collect();
    let snapshot =
        Snapshot { operation, phase: None, metadata: json!({"command": command.join(" ")}) };
    let report = |step: GuardStep<'_>| match step {
        GuardStep::Created(id) => output.progress_line(&format!("Checkpoint created: {id}")),
        GuardStep::Failed(what) => output.progress_line(what),
        GuardStep::Restored { id, left } => {
            output.progress_line(&format!("Checkpoint restored: {id}"));
            for what in left {
                output.warning(&format!("{what}; it was moved aside with what was there before"));
            }
        }
        GuardStep::PutBack { id, revision: Some(revision), left } => {
            output.progress_line(&format!(
                "others committed since {id}; what the command changed was put back as revision \
                 {revision}"
            ));
            for what in left {
                output.warning(&format!("{what}; no checkpoint holds it"));
            }
        }
        GuardStep::PutBack { id, revision: None, .. } => {
            output.progress_line(&format!(
                "others committed since {id}, and the command changed nothing that is left"
            ));
        }
        GuardStep::StaysOnRecord { id, why } => output.warning(&format!(
            "the guard stays on record: {}; next: recover guard --forget {id}",
            why.message
        )),
    };
    let policy = policy(arguments.retries, &arguments.pauses);
    let guarded = run_guarded(store, &snapshot, &policy, &arguments.command, &report)?;
    let (program, ended) = (program_of(&arguments.command), &guarded.ended);
    store.logs().record_retries(&program, ended.attempts.saturating_sub(1), ended.code);
    store.guards().record(snapshot.operation.as_str(), guarded.ended.code);
    let code = code(&guarded.ended, output);
    let Some(error) = guarded.unrestored else { return Ok(code) };
    // this comes last
    for warning in store.take_warnings() {
        output.warning(&warning);
    }
    output.error(&error);
    Ok(arguments.unrestored_code)
}
