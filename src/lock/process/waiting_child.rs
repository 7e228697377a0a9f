//! The process of `lock run` that will become the command: it waits for the message that the locks
//! are granted.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

use super::launch::LAUNCH;
use super::no_proc;
use crate::child::Forwarder;
use crate::error::{Error, Kind, Result};
use crate::lock::edit::Acquired;
use crate::lock::run::RunSpec;
use crate::os::files::{own_program, path_for_child};

/// A child that waits for the message to become the command. Without it, because this process died
/// or gave up, the child ends.
pub struct WaitingChild {
    child: Child,
    message: PipeWriter,
    /// The child reopens this end; it must exist until then.
    _other_end: PipeReader,
    /// Kept until the command has ended, since a command may close all descriptors that it
    /// inherited.
    _live_file: Option<File>,
}

impl WaitingChild {
    /// Starts the child, which inherits the live file.
    pub fn start(spec: &RunSpec, live_file: Option<File>) -> Result<Self> {
        let (reader, writer) = std::io::pipe().map_err(|error| not_started(&error))?;
        let program = own_program().map_err(|error| not_started(&error))?;
        let child = Command::new(program)
            .arg0("pipeline-state")
            .arg(LAUNCH)
            .arg(path_for_child(&reader).map_err(no_proc)?)
            .arg(spec.format)
            .arg("--")
            .args(&spec.command)
            .spawn()
            .map_err(|error| not_started(&error))?;
        Ok(Self { child, message: writer, _other_end: reader, _live_file: live_file })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the child: there are no locks for it.
    pub fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets the child become the command, passes signals on, and waits until it has ended.
    pub fn supervise(mut self, acquired: &[Acquired]) -> Result<ExitStatus> {
        let signals = Forwarder::new();
        signals.begin(self.child.id());
        let tokens =
            acquired.iter().map(|Acquired { name, grant, .. }| format!("{name}:{}", grant.token));
        let message = tokens.collect::<Vec<_>>().join(",") + "\n";
        // A child that was killed before it could read this is waited for all the same.
        let _ = self.message.write_all(message.as_bytes());
        let ended = self.child.wait();
        drop(signals);
        ended.map_err(|error| {
            Error::new(Kind::of_io(&error), format!("cannot wait for the command: {error}"))
        })
    }
}

/// The error of a command that cannot be started.
pub fn not_started(error: &std::io::Error) -> Error {
    Error::new(Kind::of_io(error), format!("the command cannot be started: {error}"))
        .hint_shell("ulimit -a", "see which limit was reached")
}
