//! What `lock run` is to do.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::process::owner::{self, LockEnv};
use super::process::{abridged, ancestry};
use super::record::Mode;
use super::request::{Deadline, Deadlocks, Request, RequestSpec, Requester};
use crate::error::{Error, Kind, Result};
use crate::name::Name;

/// A command to run, and the locks to run it under.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The locks.
    pub names: Vec<Name>,
    /// The mode in which they are held.
    pub mode: Mode,
    /// The end of the wait for them.
    pub deadline: Deadline,
    /// The handling of deadlocks.
    pub deadlocks: Deadlocks,
    /// The command: a program and its arguments.
    pub command: Vec<OsString>,
    /// The output format for the child's error if there is no such program.
    pub format: &'static str,
    /// In a store on other machines: what becomes of the command when its locks are lost.
    pub on_lost: OnLost,
    /// There, too: what renews their lease.
    pub keeper: KeeperPlace,
}

/// What becomes of an owner when its lease is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// It is a script, which finds out by itself, or a command that may go on.
    #[default]
    Keep,
    /// It is ended.
    End,
}

/// Where a lease is renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeeperPlace {
    /// In a process of its own.
    #[default]
    Background,
    /// In the process of `lock run`, which must live as long as its command.
    Foreground,
}

impl RunSpec {
    /// The request of the process `child`, which becomes the command.
    pub(super) fn request_for(&self, child: u32, env: &LockEnv) -> Result<Request> {
        let process = owner::self_and_ancestors(None, env)?.process;
        let Some(command) = Identity::of(child)? else {
            return Err(Error::new(Kind::CommandFailed, "the command was killed before it began"));
        };
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        let requester = Requester {
            ancestry: ancestry(command.pid)?,
            owner: command,
            explicit: false,
            process,
            env_tokens: env.tokens.clone(),
        };
        let hold = RequestSpec::hold(self.mode);
        let request = Request::new(self.names.clone(), hold, requester, self.deadline);
        let (command, deadlocks) = (abridged(&words.join(" ")), self.deadlocks);
        Ok(Request { command, deadlocks, ..request })
    }
}
