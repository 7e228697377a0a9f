//! The `lock` commands: each parses its arguments, makes one call and shows the result.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::args::Watched;
use super::args::lock::{self as args, Layout, Lock};
use super::input::inline_json;
use super::moment::Moment;
use super::output::{Output, PipeClosed};
use super::reports::shared_file_system;
use super::status_view::{self, StatusView};
use super::style::Paint;
use super::table::{Cell, Column, Table, dash};
use crate::audit::Audit;
use crate::child::code_of;
use crate::config::{Config, FoundRoot, Marks, Origin, foreign_root};
use crate::document::rules::type_of;
use crate::error::{Error, ExitCode, Kind, Result, one_line};
use crate::fs::Disk;
use crate::fs::watch::places::WatchedDir;
use crate::lock::owner::Resolved;
use crate::lock::{
    Acquired, AlreadyHeld, BreakTarget, BrokenWait, Deadline, Deadlocks, EntryStatus, Grant, LOCKS,
    Lifeline, LockEntry, Locks, MAX_LOCKS, Mode, Reentrancy, Request, RequestSpec, RunSpec,
    command_of, owner, shorten,
};
use crate::name::{Name, nearest};
use crate::plural::count;
use crate::store::Store;
use crate::store::layout::STATE_FILE;
use crate::store::writable::is_writable;
use crate::time::{from_epoch_seconds, parse_duration, rfc3339, rfc3339_millis};
use crate::{side, user};

type Run = anyhow::Result<u8>;

/// Runs one `lock` command; its exit code.
pub fn run(command: &Lock, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    refuse_nowhere(command, config)?;
    if config.settings.file_name != STATE_FILE {
        // locks belong to one state file
        let audit = Audit::new(disk.clone(), config.audit_log.clone(), &config.settings.root);
        Store::new(disk.clone(), config.settings.clone(), audit).check_ownership()?;
    }
    let audit = Rc::new(Audit::new(disk.clone(), config.audit_log.clone(), &config.settings.root));
    let locks = Locks::new(
        disk,
        &config.settings.directory,
        config.settings.lock_env.clone(),
        audit.clone(),
    );
    output.report_waits(&locks);
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
    if config.origin != Origin::Nowhere {
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
                output.json(&json!({"lock": name, "held": standing.is_held(), "standing": standing.to_string()}))?;
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
            let pid = owner.pid;
            let facts = json!({"waiter": id, "locks": names, "owner": owner});
            let text = format!("Wait broken: {} (waiter {id}, owner {pid})", names.join(","));
            output.confirm(&text, &facts);
            Ok(ExitCode::Success as u8)
        }
        Lock::Break(args::Break { name, token, .. }) => {
            let name = name.as_deref().unwrap_or_default();
            let target = token.map_or(BreakTarget::All, BreakTarget::Token);
            for grant in locks.break_lock(&Name::parse("lock", name)?, target, soon)? {
                let owner = grant.owner.as_ref().map(|owner| owner.pid);
                let shown = owner.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
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

// ---- taking and giving back ----

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
                            "{other:?} is neither a duration, nor a mode (exclusive, shared), nor {{…}} metadata"
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

fn no_id(id: &str) -> Error {
    let message =
        format!("{id:?} is not the ID of a waiter: that has 16 digits and letters from a to f");
    Error::new(Kind::Usage, message).hint_command("lock list", "list the waiters with their IDs")
}

fn usage(message: &str) -> Error {
    Error::new(Kind::Usage, message).hint_command("lock acquire --help", "")
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

fn acquire(
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

// ---- looking ----

fn list(entries: &[LockEntry], as_json: bool, output: &Output<'_>) -> anyhow::Result<()> {
    if as_json {
        return output.json(&json!(entries));
    }
    if entries.is_empty() {
        return output.line("no locks");
    }
    let now = SystemTime::now();
    let mut table = Table::new(&[
        Column::new("LOCK"),
        Column::new("TYPE").whole().light(1),
        Column::new("PID"),
        Column::new("COMMAND").light(1),
        Column::new("TOKEN").whole().light(1),
        Column::new("WAITER").whole().light(1),
        Column::new("SINCE").whole().light(1),
        Column::new("WAITING FOR"),
        Column::new("STATUS").whole(),
        Column::new("METADATA").spare(),
    ]);
    for entry in entries {
        let waiting_for: Vec<String> = entry.waiting_for.iter().map(u32::to_string).collect();
        let place =
            entry.namespace.as_ref().map_or_else(String::new, |place| format!(" in {place}"));
        let text = |text: Option<String>| Cell::from(dash(text));
        let began = Moment::from(entry.since.as_str());
        let since = format!("{}{}", began.to_second(), began.ago(now));
        table.row([
            text(Some(entry.lock.clone())),
            entry.mode.name().into(),
            text(entry.pid().map(|pid| format!("{pid}{place}"))),
            text(Some(shorten(&entry.command)).filter(|command| !command.is_empty())),
            dash(entry.token).into(),
            text(entry.waiter.clone()),
            if entry.since.is_empty() { "-".into() } else { Cell::or(since, began.age(now)) },
            text(Some(waiting_for.join(",")).filter(|pids| !pids.is_empty())),
            Cell::painted(entry.status.name(), colour(entry.status)),
            text(entry.metadata.as_ref().map(Value::to_string)),
        ]);
    }
    output.table(table)
}

/// The status of a lock, in colour where it needs attention.
fn colour(status: EntryStatus) -> Option<Paint> {
    match status {
        EntryStatus::Held => None,
        EntryStatus::Waiting => Some(Paint::Yellow),
        _ => Some(Paint::Red),
    }
}

fn status(
    locks: &Locks,
    watched: Watched,
    config: &Config,
    output: &Output<'_>,
) -> anyhow::Result<()> {
    let root = config.settings.directory.clone();
    let places = || {
        let locks = WatchedDir { dir: root.join(LOCKS), names: Vec::new() };
        vec![WatchedDir { dir: root.clone(), names: vec![LOCKS.into()] }, locks]
    };
    status_view::show(output, watched.watch.then(places), &mut || look(locks, output))
}

fn look(locks: &Locks, output: &Output<'_>) -> anyhow::Result<StatusView> {
    let summary = locks.summary()?;
    let count = |count: usize, colour, hint: &str| match count {
        0 => "0".to_owned(),
        _ if hint.is_empty() => output.paint(&count.to_string(), colour),
        _ => format!("{}   ({hint})", output.paint(&count.to_string(), colour)),
    };
    let mut text = status_view::lines(&[
        ("Held", summary.held.to_string()),
        ("Waiting", count(summary.waiting, Paint::Yellow, "")),
        ("Stale", count(summary.stale, Paint::Red, "the next request or `lock clean` drops them")),
        ("Unknown", count(summary.unknown, Paint::Red, "see `lock list`; `lock break` frees them")),
        ("In", one_line(&format!("{} ({})", summary.directory, summary.file_system))),
    ]);
    let holders = status_view::holders(output, &summary, SystemTime::now());
    if !holders.is_empty() {
        text.push_str(&format!("\n{holders}"));
    }
    let mut warnings = locks.take_warnings();
    warnings.extend(summary.shared_file_system.then(|| shared_file_system(&summary)));
    Ok(StatusView {
        text,
        facts: json!(summary),
        warnings,
        processes: status_view::processes(&summary),
        ..StatusView::default()
    })
}
