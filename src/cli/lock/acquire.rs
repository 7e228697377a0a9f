//! `lock acquire`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{deadlocks, names};
use crate::cli::args::lock::{self as args};
use crate::cli::input::inline_json;
use crate::cli::output::{Output, PipeClosed};
use crate::config::Config;
use crate::document::rules::type_of;
use crate::error::{Error, Kind, Result};
use crate::lock::owner::Resolved;
use crate::lock::{
    Acquired, AlreadyHeld, Deadline, Grant, Locks, Mode, Reentrancy, Request, RequestSpec,
    command_of, owner,
};
use crate::time::parse_duration;

/// The positional arguments of `acquire`, distinguished by their shape, and its options.
struct Terms {
    timeout: Option<Duration>,
    mode: Mode,
    metadata: Option<Value>,
}

impl Terms {
    fn of(arguments: &args::Acquire) -> Result<Self> {
        let (mut timeout, mut mode, mut metadata) = (None, None, None);
        for word in &arguments.shapes {
            let repeated = match word.as_str() {
                "exclusive" => mode.replace(Mode::Exclusive).is_some(),
                "shared" => mode.replace(Mode::Shared).is_some(),
                json if json.starts_with('{') => metadata.replace(json.to_owned()).is_some(),
                other => match parse_duration(other) {
                    Ok(duration) => timeout.replace(duration).is_some(),
                    Err(_) => {
                        let message = format!(
                            "{other:?} is neither a duration, nor a mode (exclusive, shared), \
                             nor {{…}} metadata"
                        );
                        return Err(usage(&message));
                    }
                },
            };
            if repeated {
                return Err(usage(&format!("duplicate argument {word:?}")));
            }
        }
        let twice = [
            ("a timeout", timeout.is_some() && arguments.timeout.is_some()),
            ("a mode", mode.is_some() && arguments.shared),
            ("metadata", metadata.is_some() && arguments.metadata.is_some()),
        ];
        if let Some((what, _)) = twice.iter().find(|(_, twice)| *twice) {
            return Err(usage(&format!("{what} is given both as an option and without")));
        }
        let metadata = metadata.as_deref().or(arguments.metadata.as_deref());
        let metadata = metadata.map(|json| inline_json("the metadata", json)).transpose()?;
        if let Some(other) = metadata.as_ref().filter(|metadata| !metadata.is_object()) {
            let what = type_of(other);
            return Err(Error::new(
                Kind::InvalidJson,
                format!("the metadata is {what}, and it must be an object: {{…}}"),
            ));
        }
        let option = if arguments.shared { Mode::Shared } else { Mode::Exclusive };
        Ok(Self { timeout: timeout.or(arguments.timeout), mode: mode.unwrap_or(option), metadata })
    }
}

fn usage(message: &str) -> Error {
    Error::new(Kind::Usage, message).hint_command("lock acquire --help", "")
}

pub(super) fn acquire(
    arguments: &args::Acquire,
    locks: &Locks,
    config: &Config,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    let names = names(&arguments.names)?;
    let terms = Terms::of(arguments)?;
    let Resolved { requester, warning } = owner::resolve(arguments.owner_pid, &names, locks.env())?;
    if requester.owner.is(&requester.process) {
        return Err(own_owner(requester.owner.pid, &arguments.names).into());
    }
    if let Some(warning) = warning {
        output.warning(&warning);
    }
    let spec = RequestSpec {
        reentrancy: match (arguments.reentrant, arguments.borrow) {
            (true, _) => Reentrancy::Counted,
            (_, true) => Reentrancy::OwnCounted,
            _ => Reentrancy::Refused,
        },
        ..RequestSpec::hold(terms.mode)
    };
    let command = command_of(requester.owner.pid);
    let deadline = Deadline::after(terms.timeout.unwrap_or(config.settings.lock_timeout));
    let request = Request {
        command,
        deadlocks: deadlocks(arguments.no_deadlock_check),
        metadata: terms.metadata,
        ttl: arguments.ttl,
        ..Request::new(names, spec, requester, deadline)
    };
    let acquired = match locks.acquire(&request) {
        Err(error) if error.kind == Kind::AlreadyHeld && arguments.print_token => {
            // so a retry after a kill can use or release the grant
            if let Some(AlreadyHeld { grant, .. }) = error.cause() {
                output.line(&grant.token.to_string())?;
            }
            return Err(error.into());
        }
        Err(error) => match error.cause() {
            Some(AlreadyHeld { grant, .. }) if arguments.borrow && suffices(grant, &request) => {
                confirm_borrowed(&arguments.names, grant, output);
                return Ok(());
            }
            _ => return Err(error.into()),
        },
        Ok(acquired) => acquired,
    };
    if arguments.print_token {
        let tokens: String = acquired.iter().map(|one| format!("{}\n", one.grant.token)).collect();
        // One write, so that the reader gets all tokens or none. After a failed write the tokens
        // are unknown; a closed pipe was the reader's decision.
        return match output.bytes(tokens.as_bytes()) {
            Err(error) if !error.is::<PipeClosed>() => {
                locks.give_back(&acquired);
                Err(error)
            }
            _ => Ok(()),
        };
    }
    for Acquired { name, grant, .. } in &acquired {
        let owner = grant.owner.as_ref().map_or(0, |owner| owner.pid);
        let text = format!("Lock acquired: {name} (token {}, owner {owner})", grant.token);
        output.confirm_with(&text, || {
            json!({
                "lock": name.as_str(), "token": grant.token.get(), "owner": grant.owner_view(),
                "mode": grant.mode.name(), "count": grant.count,
            })
        });
    }
    Ok(())
}

fn confirm_borrowed(names: &str, grant: &Grant, output: &Output<'_>) {
    let Grant { token, mode, owner, count, .. } = grant;
    let shown = owner.as_ref().map_or_else(|| "unknown".to_owned(), |owner| owner.pid.to_string());
    let text = format!("Lock borrowed: {names} (token {token}, owner {shown})");
    output.confirm_with(&text, || {
        json!({
            "lock": names, "token": token.get(), "owner": grant.owner_view(), "mode": mode.name(),
            "count": count, "borrowed": true,
        })
    });
}

/// Returns whether a grant of the one requested lock has a sufficient mode.
fn suffices(grant: &Grant, request: &Request) -> bool {
    [Mode::Exclusive, request.spec.mode].contains(&grant.mode) && request.names.len() == 1
}

/// Covers a shell that becomes its last command:
/// `bash -c 'pipeline-state lock acquire x --owner-pid $$'`.
fn own_owner(pid: u32, names: &str) -> Error {
    let message =
        format!("process {pid} is this command itself, which ends at once, and the lock with it");
    Error::new(Kind::Usage, message)
        .hint_command(format!("lock run {names} -- COMMAND"), "hold it while a command runs")
        .hint_command(
            format!("lock acquire {names} --owner-pid $$; true"),
            "or add a command after it, so that the shell stays",
        )
        .detail("pid", pid)
}
