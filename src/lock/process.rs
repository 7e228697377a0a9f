//! Processes as owners and waiters: their identities, ancestors and command lines.

pub mod launch;
pub mod owner;
pub mod waiting_child;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};

use super::identity::{Ancestry, BootMatch, Identity, Namespace};
use super::liveness::{Lookup, RunState};
use crate::error::{Error, Kind, Result};
use crate::fs::Stat;
use crate::os::files::OpenFile;
use crate::os::hints;
use crate::os::process::{self, StartClock, State};
pub use crate::os::process::{Process, exists, has_ended, is_hidden};
use crate::owner_view::OwnerView;

impl Process {
    /// Looks up the process with this id; `NotFound` if there is none, or none that is visible.
    pub fn of(pid: u32) -> io::Result<Self> {
        process::of(pid)
    }

    /// Returns whether this is a forked copy of `parent` that did not exec: a subshell.
    pub fn is_forked_copy_of(&self, parent: &Self) -> bool {
        self.image.is_forked_copy_of(parent.image)
    }

    /// Its identity, permanent and valid for other processes of this machine.
    pub fn identity(&self) -> Result<Identity> {
        Ok(Identity { pid: self.pid, start: self.start, namespace: Arc::clone(Namespace::here()?) })
    }
}

/// A process's command line on one line, at most 200 characters; its name for a kernel thread or a
/// zombie.
pub fn command_of(pid: u32) -> String {
    let Ok(line) = process::arguments(pid) else {
        return process_name(pid);
    };
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let line = abridged(words.join(" ").trim());
    if line.is_empty() { process_name(pid) } else { line }
}

/// A command line as it is kept in a record.
pub fn abridged(line: &str) -> String {
    crate::error::one_line(line).chars().take(200).collect()
}

/// A process's short name, as the kernel has it.
pub fn process_name(pid: u32) -> String {
    process::name(pid).unwrap_or_default()
}

/// An owner as JSON shows it: by `/proc` if it runs here, else by its command line on record.
pub fn owner_view(owner: &Identity, command: &str) -> OwnerView {
    let runs_here = Namespace::here().is_ok_and(|here| {
        owner.namespace.pid_namespace == here.pid_namespace
            && here.compare_boot(&owner.namespace.boot) != BootMatch::Different
    }) && Process::of(owner.pid).is_ok_and(|process| process.start == owner.start);
    let file = command.split(' ').next().unwrap_or_default();
    let program = file.rsplit('/').next().map(str::to_owned);
    let view = OwnerView {
        pid: owner.pid,
        host: owner.namespace.host.clone(),
        program: program.filter(|program| !program.is_empty()),
        start: Some(owner.start),
        ..OwnerView::default()
    };
    match runs_here {
        false => view,
        true => OwnerView { program: Some(process_name(owner.pid)), ..view }
            .of_user(process::uid(owner.pid)),
    }
}

/// A process that runs here, as an owner.
pub fn view_of_running(pid: u32) -> Option<OwnerView> {
    let identity = Process::of(pid).ok()?.identity().ok()?;
    Some(owner_view(&identity, &process_name(pid)))
}

/// Returns whether a process has this file open, as far as this user may see.
pub fn has_open(pid: u32, file: &Stat) -> bool {
    process::has_open(pid, OpenFile { device: file.dev, inode: file.ino, modified: file.mtime })
}

impl Namespace {
    /// The name of this machine.
    pub fn host_name() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// The scope of this process; an error (exit code 5) if the system does not show it.
    pub fn here() -> Result<&'static Arc<Self>> {
        static HERE: OnceLock<Arc<Namespace>> = OnceLock::new();
        if let Some(here) = HERE.get() {
            return Ok(here);
        }
        let place = crate::os::place().map_err(no_proc)?;
        let here = Self {
            boot: plain(&place.boot),
            pid_namespace: place.pid_namespace,
            time_namespace: place.time_namespace,
            // 32 digits: machine-id(5). Any other content must fit into the files that hold it.
            machine: plain(&place.machine).chars().take(64).collect(),
            host: Self::host_name(),
        };
        Ok(HERE.get_or_init(|| Arc::new(here)))
    }
}

/// An id as it stands in names of files.
fn plain(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

/// The error where the system shows no processes.
pub fn no_proc(error: io::Error) -> Error {
    Error::new(
        Kind::DependencyMissing,
        format!("the owner of a lock cannot be found without {}: {error}", hints::PROCESSES),
    )
    .hint_shell(hints::LOOK_AT_PROCESSES, "is it there?")
}

/// Looks a process up.
pub fn lookup(pid: u32) -> Lookup {
    let process = match Process::of(pid) {
        Ok(process) => process,
        Err(_) if !exists(pid) => return Lookup::Missing,
        Err(_) => match Process::of(pid) {
            Ok(process) => process,
            Err(_) => return Lookup::Hidden,
        },
    };
    let state = match process.state {
        State::Zombie if has_ended(pid) => RunState::Ended,
        State::Stopped => RunState::Stopped,
        State::Zombie | State::Running => RunState::Running,
    };
    Lookup::Visible { start: process.start, state }
}

impl Identity {
    /// The identity of a visible process; `None` if there is none, or only a zombie.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        match Process::of(pid) {
            Ok(process) if process.state == State::Zombie => Ok(None),
            Ok(process) => process.identity().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound && process::is_shown() => {
                Ok(None)
            }
            Err(error) => Err(no_proc(error)),
        }
    }
}

/// A cache of process lookups: waiters have many ancestors in common.
#[derive(Debug)]
pub struct ProcessTree {
    known: HashMap<u32, Option<Process>>,
    clock: StartClock,
}

impl Default for ProcessTree {
    fn default() -> Self {
        Self { known: HashMap::new(), clock: process::START_CLOCK }
    }
}

impl ProcessTree {
    /// A process, if it is visible.
    pub fn process(&mut self, pid: u32) -> Option<&Process> {
        self.known.entry(pid).or_insert_with(|| Process::of(pid).ok()).as_ref()
    }

    /// The identity of a visible process; `None` if there is none, or only a zombie.
    pub fn identity(&mut self, pid: u32) -> Result<Option<Identity>> {
        match self.process(pid) {
            Some(process) if process.state != State::Zombie => process.identity().map(Some),
            _ => Identity::of(pid), // finds the reason
        }
    }

    /// A process and its ancestors, nearest first, as far as they are visible. A reused pid is not
    /// an ancestor: a parent is never younger than its child, by a clock that never steps back.
    pub fn ancestry(&mut self, pid: u32) -> Result<Vec<Identity>> {
        let clock = self.clock;
        let mut line: Vec<Identity> = Vec::new();
        let mut next = pid;
        while next != 0
            && line.len() < 1000
            && let Some(process) = self.process(next)
            && (clock == StartClock::Wall
                || line.last().is_none_or(|child| child.start >= process.start))
        {
            next = process.parent;
            line.push(process.identity()?);
        }
        Ok(line)
    }
}

impl Ancestry for ProcessTree {
    fn ancestry_of(&mut self, process: &Identity) -> Vec<Identity> {
        let line = self.ancestry(process.pid).unwrap_or_default();
        // In another namespace, or if the pid was reused, this is the ancestry of another process.
        if line.first().is_some_and(|seen| seen.is(process)) { line } else { Vec::new() }
    }
}

/// A process and its ancestors: see `ProcessTree::ancestry`.
pub fn ancestry(pid: u32) -> Result<Vec<Identity>> {
    ProcessTree::default().ancestry(pid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself_and_its_parents() {
        let me = Process::of(std::process::id()).unwrap();
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(me.is_forked_copy_of(&me));
        let line = ancestry(me.pid).unwrap();
        assert!(line[0].is(&me.identity().unwrap()));
        assert_eq!(line[1].pid, me.parent);
        assert!(!line[0].is(&line[1]));
    }

    /// A child that began before its parent, by a clock that was set back in between.
    #[test]
    fn a_clock_that_was_set_back_cuts_no_descendant_off() {
        let me = Process::of(std::process::id()).unwrap();
        let parent = Process { pid: 20, parent: 0, start: 9, ..me.clone() };
        let child = Process { pid: 30, parent: 20, start: 4, ..me };
        let line = |clock| {
            let known = [&parent, &child].map(|process| (process.pid, Some(process.clone())));
            let line = ProcessTree { known: known.into(), clock }.ancestry(30).unwrap();
            line.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        assert_eq!(line(StartClock::Wall), [30, 20]);
        assert_eq!(line(StartClock::Monotonic), [30], "there the parent's pid was used again");
    }

    #[test]
    fn a_zombie_and_a_missing_process_have_no_identity() {
        let mut child = std::process::Command::new("true")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The child's end of the pipe closes when it ends.
        std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut Vec::new()).unwrap();
        while Process::of(child.id()).unwrap().state != State::Zombie {
            std::thread::yield_now();
        }
        assert!(Identity::of(child.id()).unwrap().is_none());
        child.wait().unwrap();
        assert!(Identity::of(child.id()).unwrap().is_none());
    }

    #[test]
    fn a_command_line_stays_one_short_line() {
        let mut child = std::process::Command::new("sleep").args(["1000"]).spawn().unwrap();
        while command_of(child.id()) != "sleep 1000" {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(abridged(&"x\n".repeat(300)).chars().count(), 200);
    }

    #[test]
    fn an_id_of_any_machine_fits_into_the_name_of_a_file() {
        assert_eq!(plain("0d1e2f3a-0000"), "0d1e2f3a-0000");
        assert_eq!(plain("build_host.7/x"), "build-host-7-x");
    }
}
