//! Recovery strategies by exit code, run on request: those of the seed. What needs no decision
//! every command does by itself: it takes over a dead owner's lock, heals damage, and removes old
//! backups from a full disk.

use std::time::Duration;

use crate::audit::Level;
use crate::error::{Error, ExitCode, Hint, Kind, Result};
use crate::lock::Deadline;
use crate::name::Name;
use crate::plural::count;
use crate::store::checkpoint::catalog::Which;
use crate::store::diagnosis::HealthKind;
use crate::store::heal::Recovered;
use crate::store::options::WriteOptions;
use crate::store::{FileStore, Space, Store, Wanted};

/// The pauses while waiting for resources.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// The result of a strategy.
#[derive(Clone, Debug)]
pub struct Handled {
    /// The name of the exit code, if it is one of this program's.
    pub name: &'static str,
    /// The actions, in sentences.
    pub done: Vec<String>,
    /// The commands to type next.
    pub next: Vec<Hint>,
    /// Whether the failed command should be retried.
    pub next_step: NextStep,
}

/// Whether the failed command should be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// The obstacle is gone, or may be.
    Retry,
    /// An operator has to decide.
    AskOperator,
}

/// A member of the cluster that keeps a state.
#[derive(Debug)]
pub struct Member {
    /// Its address.
    pub endpoint: String,
    /// What keeps it from answering, if it does not.
    pub obstacle: Option<Error>,
}

/// Runs the strategy of `code`, with which `operation` ended with this `message`, and records it in
/// the error log. `try_members` asks each member of the cluster, where one keeps the state.
pub fn handle(
    store: &Store,
    code: u8,
    operation: Option<&Name>,
    message: Option<&str>,
    try_members: &dyn Fn() -> Result<Vec<Member>>,
) -> Result<Handled> {
    let known = ExitCode::of(code);
    let component = operation.map_or("handle", Name::as_str);
    let said = message.unwrap_or("no message was given");
    let level = if known == Some(ExitCode::Success) { Level::Info } else { Level::Error };
    if let Some(files) = store.as_files() {
        files.logs().note_error(level, component, said, code);
    }
    let name = known.map_or("UNKNOWN", ExitCode::name);
    let mut handled =
        Handled { name, done: Vec::new(), next: Vec::new(), next_step: NextStep::Retry };
    match known {
        Some(ExitCode::Success) => handled.did("nothing: it succeeded"),
        Some(ExitCode::LockTimeout) => match store.as_files() {
            Some(files) => clean_locks(files, &mut handled)?,
            None => {
                handled.did("nothing: the locks of an owner that ended go with its lease");
                handled.next("lock list", "see the holders and the waiters");
            }
        },
        Some(ExitCode::StateCorruption) => recover(store, &mut handled)?,
        Some(ExitCode::ValidationFailed) => restore_if_invalid(store, operation, &mut handled)?,
        Some(ExitCode::DiskFull) => match store.as_files() {
            Some(files) => make_room(files, &mut handled)?,
            None => explain_quota(&mut handled),
        },
        Some(ExitCode::Timeout) => {
            handled.did("nothing: what timed out can only be tried again");
            handled.next("recover retry -n 3 -- COMMAND", "try it again, waiting longer each time");
        }
        Some(ExitCode::Conflict) => {
            handled.did("nothing: another commit came first, and this one was refused");
            handled.next("state read", "read the state again, redo the change and write that");
            handled.next(
                "recover retry -n 5 --retry-on 75 -- COMMAND",
                "repeat a command that reads by itself",
            );
        }
        Some(ExitCode::NetworkError) => {
            let members = try_members()?;
            report_members(&members, &mut handled);
            handled.next("recover retry -n 5 -- COMMAND", "try it again, waiting longer each time");
            match members.iter().all(|member| member.obstacle.is_none()) {
                true => {
                    let why = "or work without it meanwhile";
                    handled.next("recover degrade network-unavailable", why);
                }
                // Degraded mode would be kept there, too.
                false => advise_on_members(&mut handled),
            }
        }
        Some(ExitCode::ResourceExhausted) => await_resources(&mut handled),
        Some(ExitCode::PermissionDenied) => {
            handled.ask_operator("nothing: only a user with the permission can do it");
            handled.next("recover doctor", "see which files have the wrong mode or owner");
        }
        Some(ExitCode::DependencyMissing | ExitCode::CommandNotFound | ExitCode::NotExecutable) => {
            handled.ask_operator("nothing: a required program or file is missing");
            handled.next(
                "recover doctor",
                "see what is missing of the state; the command's own message says the rest",
            );
        }
        Some(ExitCode::Usage) => {
            handled.ask_operator("nothing: the command line is invalid");
            handled.next("--help", "see the commands and options");
        }
        Some(ExitCode::General) | None => {
            handled.ask_operator("nothing: this code says too little to act on");
            handled.next("recover status", "see the last errors");
            handled.next("recover doctor", "check everything");
        }
    }
    store.logs().record_handling(
        code,
        if handled.next_step == NextStep::Retry { "try-again" } else { "needs-a-person" },
    );
    Ok(handled)
}

impl Handled {
    fn did(&mut self, what: impl Into<String>) {
        self.done.push(what.into());
    }

    fn next(&mut self, arguments: &str, why: &str) {
        self.next.push(Hint::Command(arguments.to_owned(), why.to_owned()));
    }

    fn ask_operator(&mut self, what: impl Into<String>) {
        self.did(what);
        self.next_step = NextStep::AskOperator;
    }

    /// Reports a refusal: its message is the result, and its hints are the next steps.
    fn refused(&mut self, error: Error) {
        self.ask_operator(format!("nothing: {}", error.message));
        self.next.extend(error.hints);
    }
}

fn clean_locks(store: &FileStore, handled: &mut Handled) -> Result<()> {
    let deadline = Deadline::after(store.settings().lock_timeout).at;
    let cleaned = store.locks().clean(deadline)?;
    let held = store.locks().summary()?;
    handled.did(format!(
        "{} removed; {} held by living owners, {} by owners of unknown liveness",
        count(cleaned, "stale lock"),
        held.held,
        held.unknown
    ));
    if held.held + held.unknown > 0 {
        handled.next("lock list", "see the holders and the waiters");
    }
    Ok(())
}

fn recover(store: &Store, handled: &mut Handled) -> Result<()> {
    let (status, error) = store.report().status()?;
    match (status.document.health, error) {
        (_, None) => handled.did(format!("nothing: the state is {}", status.document.health)),
        // Whether an edit is wanted is the user's decision.
        (HealthKind::Foreign, Some(error)) => handled.refused(error),
        (health, Some(_)) => match store.recover(&Wanted::Newest, &WriteOptions::of("recover")) {
            Ok(Recovered::From { file, revision }) => {
                handled.did(format!(
                    "the state was {health}; it was restored from {file} as revision {revision}"
                ));
                handled.next("state read", "see what it is now");
            }
            Ok(Recovered::NothingToDo { .. }) => handled.did("nothing: the state is valid by now"),
            Err(error) if is_without_copy(&error) => restore(store, None, health, error, handled),
            Err(error) => handled.refused(error),
        },
    }
    Ok(())
}

/// Returns whether only checkpoints are left to restore the state from.
fn is_without_copy(error: &Error) -> bool {
    error.kind == Kind::NothingToRestore
}

fn restore_if_invalid(
    store: &Store,
    operation: Option<&Name>,
    handled: &mut Handled,
) -> Result<()> {
    let (status, error) = store.report().status()?;
    match (status.document.health, error) {
        (health, None) => {
            handled.ask_operator(format!(
                "nothing: the state itself is {health}, so it was the input that broke the rules"
            ));
            handled.next("state validate -", "check a document before it is written");
        }
        (HealthKind::Invalid, Some(error)) => {
            restore(store, operation, HealthKind::Invalid, error, handled);
        }
        // A state with a valid copy is healed from that.
        (health @ (HealthKind::Damaged | HealthKind::Missing), Some(error))
            if !has_valid_copy(store)? =>
        {
            restore(store, operation, health, error, handled);
        }
        (_, Some(error)) => handled.refused(error),
    }
    Ok(())
}

/// Restores the newest checkpoint, of the operation if there is one. Where there is none, the
/// refusal stands.
fn restore(
    store: &Store,
    operation: Option<&Name>,
    health: HealthKind,
    refusal: Error,
    handled: &mut Handled,
) {
    let order = WriteOptions::of_restore();
    let restored = match store.restores().restore(&Which::Latest(operation.cloned()), &order) {
        // There is none of this operation.
        Err(other) if other.kind == Kind::NotFound => {
            store.restores().restore(&Which::Latest(None), &order)
        }
        restored => restored,
    };
    match restored {
        Ok(restored) => handled.did(format!(
            "the state was {health}; the checkpoint {} was restored, and what was there is {}",
            restored.id, restored.pre_restore
        )),
        Err(other) if other.kind == Kind::NotFound => handled.refused(refusal),
        Err(other) => handled.refused(other),
    }
}

fn has_valid_copy(store: &Store) -> Result<bool> {
    match store.as_files() {
        Some(files) => Ok(files.report().has_valid_copy()),
        None => Ok(store.report().backups()?.iter().any(|backup| backup.valid)),
    }
}

/// Says which members of a cluster answer. One that does is enough.
fn report_members(members: &[Member], handled: &mut Handled) {
    let answers = members.iter().filter(|member| member.obstacle.is_none()).count();
    for Member { endpoint, obstacle } in members {
        handled.did(match obstacle {
            None => format!("{endpoint} answers"),
            Some(why) => format!("{endpoint} does not: {}", why.message),
        });
    }
    match (members.len(), answers) {
        (0, _) => handled.did("nothing: this program cannot repair the network"),
        (_, 0) => handled.ask_operator("nothing: this program cannot repair the network"),
        _ => {}
    }
}

/// What helps while members of the cluster that keeps the state do not answer.
fn advise_on_members(handled: &mut Handled) {
    let stale = "let readers take what one member has meanwhile";
    handled.next.extend([
        Hint::Etcdctl("endpoint health".to_owned(), "see which members are ill".to_owned()),
        Hint::Shell("export PIPELINE_STALE_READS=accept".to_owned(), stale.to_owned()),
    ]);
}

fn explain_quota(handled: &mut Handled) {
    handled.ask_operator("nothing: the database of the store has reached its quota");
    handled.next("recover cleanup 1", "remove checkpoints older than a day, but for the newest");
    handled.next.push(Hint::Etcdctl(
        "alarm list".to_owned(),
        "compact and defragment, or raise the quota; then `etcdctl alarm disarm`".to_owned(),
    ));
}

fn make_room(store: &FileStore, handled: &mut Handled) -> Result<()> {
    match Space::of(store).free_space_now() {
        Ok(removed) => {
            handled.did(format!(
                "temporary files were cleared away, and {removed} old backups removed"
            ));
            if let Err(error) = Space::of(store).test_space() {
                handled.ask_operator(format!("there is still no room: {}", error.message));
            }
        }
        Err(error) => handled.refused(error),
    }
    handled.next("recover cleanup 1", "remove checkpoints older than a day, but for the newest");
    let directory = crate::error::quote_path(&store.settings().directory);
    handled.next.push(Hint::Shell(
        format!("df -h {directory}; df -i {directory}"),
        "see what is left".to_owned(),
    ));
    Ok(())
}

/// Waits until descriptors and threads are available again.
fn await_resources(handled: &mut Handled) {
    let is_enough = || {
        let files: Vec<_> = (0..32).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
        let thread = std::thread::Builder::new().spawn(|| {});
        files.len() == 32 && thread.is_ok_and(|thread| thread.join().is_ok())
    };
    let mut waited = Duration::ZERO;
    for pause in PAUSES {
        std::thread::sleep(pause);
        waited += pause;
        if is_enough() {
            handled.did(format!(
                "waited {} s: descriptors and threads can be had",
                waited.as_secs_f64()
            ));
            handled.next("recover retry -n 3 -- COMMAND", "try it again, waiting longer each time");
            return;
        }
    }
    handled.ask_operator(format!(
        "waited {} s, and there are still too few descriptors or threads",
        waited.as_secs_f64()
    ));
    handled
        .next
        .push(Hint::Shell("ulimit -a".to_owned(), "see which limit was reached".to_owned()));
}
