//! The `lock` commands: each parses its arguments, makes one call and shows the result.

mod acquire;
mod show;

use std::rc::Rc;
use std::time::Instant;

use serde_json::json;

use self::acquire::acquire;
use self::show::{list, status};
use super::args::lock::{self as args, Layout, Lock};
use super::open;
use super::output::Output;
use crate::audit::Audit;
use crate::child::code_of;
use crate::config::{Config, FoundRoot, Marks, Origin, foreign_root};
use crate::error::{Error, ExitCode, Kind, Result};
use crate::fs::Disk;
use crate::lock::{
    BreakTarget, BrokenWait, Deadline, Deadlocks, KeeperPlace, Lifeline, Locks, MAX_LOCKS, Mode,
    Namespace, OnLost, RunSpec, owner,
};
use crate::name::{Name, nearest};
use crate::owner_view::OwnerView;
use crate::plural::count;
use crate::store::FileStore;
use crate::store::layout::STATE_FILE;
use crate::store::writable::is_writable;
use crate::time::{from_epoch_seconds, rfc3339, rfc3339_millis};
use crate::{side, user};

type Run = anyhow::Result<u8>;

/// Runs one `lock` command; its exit code.
pub fn run(command: &Lock, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    refuse_nowhere(command, config)?;
    if config.store.is_none() && config.settings.file_name != STATE_FILE {
        // locks belong to one state file
        let audit = Audit::new(disk.clone(), config.audit_log.clone(), &config.settings.root);
        FileStore::new(disk.clone(), config.settings.clone(), audit).check_ownership()?;
    }
    let audit = Rc::new(Audit::new(disk.clone(), config.audit_log.clone(), &config.settings.root));
    let locks = open::locks(config, disk, audit.clone())?;
    locks.on_wait(output.wait_notice());
    let result =
        dispatch(command, &locks, config, output).map_err(|error| meant(command, &locks, error));
    if let (Some(action), Err(error)) = (action_of(command), &result)
        && let Some(error) = error.downcast_ref::<Error>()
    {
        locks.audit_refusal(action, error);
    }
    for warning in locks.take_warnings().iter().map(String::as_str).chain(audit.warning()) {
        output.warning(warning);
    }
    result
}

/// Refuses a lock in a directory that no other script uses: it would exclude none.
fn refuse_nowhere(command: &Lock, config: &Config) -> Result<()> {
    let (again, wanted) = match command {
        Lock::Acquire(args::Acquire { names, .. }) => (format!("lock acquire {names}"), names),
        Lock::Release(args::Release { names, .. }) => (format!("lock release {names}"), names),
        Lock::Check(args::Check { name, .. }) => (format!("lock check {name}"), name),
        Lock::Run(args::Run { names, .. }) => (format!("lock run {names} -- COMMAND"), names),
        Lock::List { .. } | Lock::Clean | Lock::Break(_) | Lock::Renew(_) | Lock::Status(_) => {
            return Ok(());
        }
    };
    if config.origin != Origin::Nowhere || config.store.is_some() {
        return Ok(());
    }
    names(wanted)?;
    let here = &config.settings.root;
    let foreign = foreign_root(&Disk::real(), here, Marks::StateOrLocks);
    if let Some(found) = foreign.as_ref().filter(|found| found.root == *here) {
        return Err(side::foreign_owner(&found.mark, found.owner));
    }
    let shown = here.display().to_string();
    let mut message = format!("neither a state nor locks are found in {shown} or above it");
    let mut error = Error::new(Kind::NotInitialized, "").detail("path", shown.as_str());
    if let Some(FoundRoot { mark, owner, .. }) = foreign {
        message = format!(
            "{message} that are yours: {} belongs to {}",
            mark.display(),
            user::describe(owner)
        );
        error = error.detail("uid", owner).detail("user", user::name(owner));
        error.hints.push(user::work_as(owner));
    }
    error.message = message;
    Err(match is_writable(here) {
        true => error.hint_command("state init", "make a state here").hint_command(
            format!("--root . {again}"),
            "or use locks without a state in this directory",
        ),
        false => error.hint_command(
            format!("--root DIR {again}"),
            format!("name the root; nothing can be made in {shown}"),
        ),
    })
}

/// Returns whether a command takes locks, or takes them away. `release` gives back.
pub fn is_writer(command: &Lock) -> bool {
    match command {
        Lock::Acquire(_) | Lock::Run(_) | Lock::Renew(_) | Lock::Break(_) | Lock::Clean => true,
        Lock::Release(_) | Lock::Check(_) | Lock::List { .. } | Lock::Status(_) => false,
    }
}

/// The name under which a refusal goes into the audit log.
fn action_of(command: &Lock) -> Option<&'static str> {
    match command {
        Lock::Acquire(_) => Some("acquire"),
        Lock::Release(_) => Some("release"),
        Lock::Break(_) => Some("break"),
        Lock::Renew(_) => Some("renew"),
        Lock::Run(_) => Some("run"),
        Lock::Check(_) | Lock::List { .. } | Lock::Clean | Lock::Status(_) => None,
    }
}

/// An error about a lock without holders, with the name that was probably meant.
fn meant(command: &Lock, locks: &Locks, error: anyhow::Error) -> anyhow::Error {
    let (name, again) = match command {
        Lock::Release(args::Release { names, .. }) => (names, "lock release"),
        Lock::Renew(args::Renew { name, .. }) => (name, "lock renew"),
        Lock::Break(args::Break { name: Some(name), .. }) => (name, "lock check"),
        _ => return error,
    };
    let is_not_found =
        error.downcast_ref::<Error>().is_some_and(|error| error.kind == Kind::NotFound);
    let entries = if is_not_found { locks.list().unwrap_or_default() } else { Vec::new() };
    let held =
        entries.iter().filter(|entry| entry.token.is_some()).map(|entry| entry.lock.as_str());
    match (nearest(name, held), error.downcast::<Error>()) {
        (Some(meant), Ok(error)) => error.did_you_mean(format!("{again} {meant}")).into(),
        (_, error) => error.map_or_else(|error| error, Into::into),
    }
}

/// Refuses exit code 0 for a lock timeout: the caller could not detect it.
fn success_for_failure() -> Error {
    Error::new(Kind::Usage, "the exit code for a lock that timed out cannot be 0 here").hint_shell(
        "unset PIPELINE_LOCK_EXIT",
        "take the default, or choose another with --lock-exit",
    )
}

fn dispatch(command: &Lock, locks: &Locks, config: &Config, output: &Output<'_>) -> Run {
    let done = |()| ExitCode::Success as u8;
    let soon = Deadline::after(config.settings.lock_timeout).at;
    if matches!(command, Lock::Acquire(_) | Lock::Run(_))
        && config.store.is_none()
        && let Some(warning) = side::warning_for_root(&Disk::real(), &config.settings.directory)
    {
        output.warning(&warning); // before anything is created
    }
    match command {
        Lock::Acquire(_) | Lock::Run(_) if config.lock_exit == 0 => {
            Err(success_for_failure().into())
        }
        Lock::Acquire(arguments) => acquire(arguments, locks, config, output).map(done),
        Lock::Release(arguments) => release(arguments, locks, soon, output).map(done),
        Lock::Check(args::Check { name, exit_zero }) => {
            let standing = locks.check(&Name::parse("lock", name)?)?;
            if output.is_json() {
                let shown = standing.to_string();
                output
                    .json(&json!({"lock": name, "held": standing.is_held(), "standing": shown}))?;
            } else {
                output.line(&standing.to_string())?;
            }
            let no = !standing.is_held() && !exit_zero;
            Ok(if no { ExitCode::General as u8 } else { ExitCode::Success as u8 })
        }
        Lock::List { layout } => {
            let as_json = layout.map_or(output.is_json(), |layout| layout == Layout::Json);
            list(&locks.list()?, as_json, output).map(done)
        }
        Lock::Clean => {
            let cleaned = locks.clean(soon)?;
            output.confirm(
                &format!("Cleaned {}", count(cleaned, "stale lock")),
                &json!({"cleaned": cleaned}),
            );
            Ok(ExitCode::Success as u8)
        }
        Lock::Break(args::Break { waiter: Some(id), .. }) => {
            let lifeline = Lifeline::of_waiter(id).ok_or_else(|| no_id(id))?;
            let BrokenWait { names, owner } = locks.break_waiter(&lifeline, soon)?;
            let names: Vec<&str> = names.iter().map(Name::as_str).collect();
            let facts = json!({"waiter": id, "locks": names, "owner": owner});
            let text =
                format!("Wait broken: {} (waiter {id}, owner {})", names.join(","), shown(&owner));
            output.confirm(&text, &facts);
            Ok(ExitCode::Success as u8)
        }
        Lock::Break(args::Break { name, token, .. }) => {
            let name = name.as_deref().unwrap_or_default();
            let target = token.map_or(BreakTarget::All, BreakTarget::Token);
            for grant in locks.break_lock(&Name::parse("lock", name)?, target, soon)? {
                let owner = grant.owner_view();
                let shown = owner.as_ref().map_or_else(|| "unknown".to_owned(), shown);
                let text = format!("Lock broken: {name} (token {}, owner {shown})", grant.token);
                output.confirm_with(&text, || {
                    json!({"lock": name, "token": grant.token.get(), "owner": grant.owner_view()})
                });
            }
            Ok(ExitCode::Success as u8)
        }
        Lock::Renew(args::Renew { name, ttl, token, owner_pid }) => {
            let requester = owner::self_and_ancestors(*owner_pid, locks.env())?;
            let until = locks.renew(&Name::parse("lock", name)?, *ttl, *token, &requester, soon)?;
            let until = from_epoch_seconds(until);
            let time = until.map_or_else(|| "for ever".to_owned(), rfc3339);
            output.confirm(
                &format!("Lock renewed: {name} (until {time})"),
                &json!({"lock": name, "until": until.map(rfc3339_millis)}),
            );
            Ok(ExitCode::Success as u8)
        }
        Lock::Status(watched) => status(locks, *watched, config, output).map(done),
        Lock::Run(arguments) => run_command(arguments, locks, config, output),
    }
}

/// An owner's process id, and its host if that is another one.
fn shown(owner: &OwnerView) -> String {
    let is_here = Namespace::here().is_ok_and(|here| here.host == owner.host);
    match is_here || owner.host.is_empty() {
        true => owner.pid.to_string(),
        false => format!("{} on {}", owner.pid, owner.host),
    }
}

fn no_id(id: &str) -> Error {
    let message =
        format!("{id:?} is not the ID of a waiter: that has 16 digits and letters from a to f");
    Error::new(Kind::Usage, message).hint_command("lock list", "list the waiters with their IDs")
}

fn names(text: &str) -> Result<Vec<Name>> {
    let names: Vec<Name> =
        text.split(',').map(|name| Name::parse("lock", name)).collect::<Result<_>>()?;
    for (place, name) in names.iter().enumerate() {
        if names.iter().take(place).any(|earlier| earlier == name) {
            return Err(Error::new(Kind::Usage, format!("{name} is named twice")));
        }
    }
    if names.len() > MAX_LOCKS {
        let message =
            format!("{} locks are named, and {MAX_LOCKS} at once is the limit", names.len());
        return Err(Error::new(Kind::TooLarge, message));
    }
    Ok(names)
}

fn deadlocks(risk: bool) -> Deadlocks {
    if risk { Deadlocks::Risked } else { Deadlocks::Refused }
}

fn release(
    arguments: &args::Release,
    locks: &Locks,
    deadline: Instant,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    let names = names(&arguments.names)?;
    if names.len() > 1 && arguments.token.is_some() {
        let error = Error::new(Kind::Usage, "a token is of one lock, and several are named");
        return Err(error.hint_command("lock release --help", "").into());
    }
    let requester = owner::self_and_ancestors(arguments.owner_pid, locks.env())?;
    for released in locks.release(&names, arguments.token, &requester, deadline)? {
        let (name, left) = (&released.name, released.left);
        let more = if left == 0 { String::new() } else { format!(" (held {left} more)") };
        let facts =
            json!({"lock": name.as_str(), "token": released.grant.token.get(), "left": left});
        output.confirm(&format!("Lock released: {name}{more}"), &facts);
    }
    Ok(())
}

fn run_command(arguments: &args::Run, locks: &Locks, config: &Config, output: &Output<'_>) -> Run {
    let spec = RunSpec {
        names: names(&arguments.names)?,
        mode: if arguments.shared { Mode::Shared } else { Mode::Exclusive },
        deadline: Deadline::after(arguments.timeout.unwrap_or(config.settings.lock_timeout)),
        deadlocks: deadlocks(arguments.no_deadlock_check),
        command: arguments.command.clone(),
        format: config.style.as_arg(),
        on_lost: match arguments.on_lost {
            args::OnLost::End => OnLost::End,
            args::OnLost::Keep => OnLost::Keep,
        },
        keeper: match arguments.foreground {
            true => KeeperPlace::Foreground,
            false => KeeperPlace::Background,
        },
    };
    match locks.run(&spec) {
        Ok(status) => Ok(code_of(status)),
        Err(error) => {
            match arguments.conflict_code.filter(|_| error.code() == ExitCode::LockTimeout) {
                Some(code) => {
                    output.error(&error);
                    Ok(code)
                }
                None => Err(error.into()),
            }
        }
    }
}
