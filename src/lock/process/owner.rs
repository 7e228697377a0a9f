//! The owner that a command acts for, and the grants that count as its own.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{getpid, getppid};

use super::{ProcessTree, is_hidden, process_name};
use crate::error::{Error, Kind, Result};
use crate::lock::identity::Identity;
use crate::lock::record::Token;
use crate::lock::request::Requester;
use crate::name::{Name, join};
use crate::os::hints;

/// The variable of the time to live of grants in a store on other machines.
pub const LEASE_TTL: &str = "PIPELINE_LEASE_TTL";

/// The owner and tokens that the environment names.
#[derive(Clone, Debug, Default)]
pub struct LockEnv {
    /// `PIPELINE_OWNER_PID`: the owner of the locks.
    pub owner: Option<u32>,
    /// `PIPELINE_LOCK_TOKEN`: the grants of the `lock run`s this command runs under.
    pub tokens: Vec<(Name, Token)>,
    /// `PIPELINE_GUARD_TOKEN`: the guards this command runs under, each with its token.
    pub guards: Vec<(String, String)>,
    /// `PIPELINE_LEASE_TTL`: the time to live of grants in a store on other machines.
    pub lease_ttl: Option<Duration>,
    /// `XDG_RUNTIME_DIR`: where keepers and commands of one owner find each other.
    pub runtime: Option<PathBuf>,
}

impl LockEnv {
    /// Reads `ID:TOKEN[,ID:TOKEN]`.
    pub fn parse_guards(text: &str) -> Vec<(String, String)> {
        let one =
            |pair: &str| pair.rsplit_once(':').map(|(id, token)| (id.to_owned(), token.to_owned()));
        text.split(',').filter_map(one).collect()
    }

    /// Reads `NAME:T[,NAME:T]`; malformed entries are ignored.
    pub fn parse_tokens(text: &str) -> Vec<(Name, Token)> {
        let one = |pair: &str| {
            let (name, token) = pair.rsplit_once(':')?;
            Some((Name::parse("lock", name).ok()?, token.parse().ok()?))
        };
        text.split(',').filter_map(one).collect()
    }
}

/// The requester for a named or assumed owner.
#[derive(Debug)]
pub struct Resolved {
    /// The requester.
    pub requester: Requester,
    /// Why the assumed owner may be the wrong one.
    pub warning: Option<String>,
}

/// The owner of the locks `names` that a command acquires: `given` (`--owner-pid`), else the
/// environment's, else the parent process.
pub fn resolve(given: Option<u32>, names: &[Name], env: &LockEnv) -> Result<Resolved> {
    let explicit = given.or(env.owner);
    let mut tree = ProcessTree::default();
    let pid = explicit
        .unwrap_or_else(|| getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()));
    let warning = if explicit.is_none() { warning_of(pid, &mut tree) } else { None };
    let identity = match (pid, explicit) {
        (0, _) | (1, None) => None,
        (pid, _) => tree.identity(pid)?,
    };
    let owner = identity.ok_or_else(|| no_owner(pid, explicit, names))?;
    let requester = Requester {
        ancestry: tree.ancestry(owner.pid)?,
        owner,
        explicit: explicit.is_some(),
        process: own_identity(&mut tree)?,
        env_tokens: env.tokens.clone(),
    };
    Ok(Resolved { requester, warning })
}

/// The requester for locks that a command acquires implicitly or gives back: the command itself,
/// its ancestors, and the owner that was named.
pub fn self_and_ancestors(given: Option<u32>, env: &LockEnv) -> Result<Requester> {
    let mut tree = ProcessTree::default();
    let process = own_identity(&mut tree)?;
    let mut ancestry = tree.ancestry(process.pid)?;
    let named = given.or(env.owner).filter(|pid| *pid != 0);
    if let Some(named) = named {
        ancestry.extend(tree.ancestry(named)?);
    }
    Ok(Requester {
        owner: process.clone(),
        ancestry,
        explicit: named.is_some(),
        process,
        env_tokens: env.tokens.clone(),
    })
}

fn own_identity(tree: &mut ProcessTree) -> Result<Identity> {
    let pid = getpid().as_raw_nonzero().get().unsigned_abs();
    tree.identity(pid)?.ok_or_else(|| {
        Error::new(
            Kind::DependencyMissing,
            format!("{} does not show this process", hints::PROCESSES),
        )
    })
}

/// A parent that is a forked copy of its own parent, or `timeout`, ends before the script goes on.
fn warning_of(parent: u32, tree: &mut ProcessTree) -> Option<String> {
    let process = tree.process(parent)?.clone();
    let mut is_copy =
        || tree.process(process.parent).is_some_and(|above| process.is_forked_copy_of(above));
    // Homebrew's coreutils have a `g` before their names.
    (matches!(process_name(parent).as_str(), "timeout" | "gtimeout") || is_copy())
        .then(|| format!("owner {parent} ends with this subshell; pass --owner-pid $$"))
}

fn no_owner(pid: u32, explicit: Option<u32>, names: &[Name]) -> Error {
    let hidden = format!(
        "it exists, and {} hides when it began, so it cannot own a lock of this user",
        hints::PROCESSES
    );
    let [command, why] = hints::LOOK_AT_HIDING;
    let names = join(names);
    let run = format!("lock run {names} -- COMMAND");
    let message = match (pid, explicit) {
        (0, Some(_)) => "0 is not a process that could own a lock".to_owned(),
        (pid, Some(_)) if is_hidden(pid) => {
            return Error::new(Kind::Usage, format!("process {pid} cannot be seen: {hidden}"))
                .detail("pid", pid)
                .hint_command(run, "the command that runs owns it")
                .hint_shell(command, why);
        }
        (pid, Some(_)) => format!("process {pid} is not running, so it cannot own a lock"),
        (0, None) => {
            "the parent of this command is outside its pid namespace, so it cannot own a lock"
                .to_owned()
        }
        (pid, None) => format!(
            "the parent of this command is process {pid}, which does not stand for a script"
        ),
    };
    Error::new(Kind::Usage, message)
        .detail("pid", pid)
        .hint_command(
            format!("lock acquire {names} --owner-pid $$"),
            "name the process that is to own it",
        )
        .hint_command(run, "or hold it while a command runs")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn malformed_tokens_are_ignored() {
        let shown: Vec<_> = LockEnv::parse_tokens("a:1,b-c:22,,x,d:0,../e:3,f:-1")
            .iter()
            .map(|(name, token)| format!("{name}:{token}"))
            .collect();
        assert_eq!(shown, ["a:1", "b-c:22"]);
    }

    #[test]
    fn a_missing_process_cannot_own_a_lock() {
        for pid in [0, i32::MAX as u32] {
            assert_eq!(resolve(Some(pid), &[], &LockEnv::default()).unwrap_err().code() as u8, 64);
        }
        assert!(
            resolve(Some(1), &[], &LockEnv::default()).is_ok(),
            "in a container the script may be the first process"
        );
    }
}
