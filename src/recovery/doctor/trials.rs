//! What the machine and its file systems really do: tried, not believed.
//!
//! The calls that commits, locks and restores rest on are made in a scratch directory of the root,
//! and of each side directory on another device ([`files`]); a process of our own ends
//! ([`processes`]); and the targets of a restore are probed as a restore does it. A failing answer
//! is a finding with its consequence ([`consequences`]). All answers are the form of a bug report.

mod consequences;
mod files;
mod processes;
mod scratch;

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Finding;
use crate::error::{Error, Result};
use crate::fs::{Dir, FsError, Stat};
use crate::lock::{LOCKS, STATE};
use crate::os::files::file_system;
use crate::store::layout::{BACKUPS, SIDE_DIRECTORIES};
use crate::store::{FileStore, Probe};
use crate::{side, user};

/// The time that all trials may take together; those that begin later are left out.
const BUDGET: Duration = Duration::from_millis(400);
/// File systems that a reboot empties.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
/// The root, as a place of a trial.
const ROOT: &str = ".";

/// A call, or a few, that this program relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// A new file.
    Create,
    /// Permission bits that stay as they were set.
    Modes,
    /// A file's contents, read back.
    Write,
    /// fsync(2) of a file.
    Sync,
    /// A second name of a file.
    Link,
    /// A rename over an existing file.
    Rename,
    /// The exchange of two names.
    Exchange,
    /// fsync(2) of a directory.
    SyncDirectory,
    /// An flock that a second descriptor sees, and that ends with the first.
    Flock,
    /// A change in a directory wakes the process that waits for it.
    Events,
    /// How a restore would replace its targets.
    RestorePlan,
    /// The start time of a process, which distinguishes it from a later one of the same number.
    StartTime,
    /// The end of a process wakes the process that waits for it.
    ChildEnd,
}

/// Why a trial has no good answer.
#[derive(Debug)]
enum Trouble {
    /// It failed, and a command would fail like that.
    Fails(Error),
    /// The call succeeded and did something else.
    Lies(String),
    /// It was not tried.
    NotTried(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fails(error)
    }
}

impl From<FsError> for Trouble {
    fn from(error: FsError) -> Self {
        Self::Fails(error.into())
    }
}

type Tried = std::result::Result<(), Trouble>;

/// A trial and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// What was tried.
    pub test: Trial,
    /// In which directory: `.` is the root; `None` where none matters.
    pub place: Option<&'static str>,
    /// Whether it is as it must be; `None` where it was not tried.
    pub works: Option<bool>,
    /// Why not.
    pub why: Option<String>,
    /// How long it took.
    pub ms: f64,
}

/// A directory of a root and the file system that it is on.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// `.` for the root.
    pub place: &'static str,
    /// As statfs(2) has it.
    pub file_system: &'static str,
    /// Device number.
    pub device: u64,
    /// Whether another kernel may have it mounted.
    pub is_shared: bool,
}

/// The results of all trials.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// In the order in which they were made.
    pub answers: Vec<Answer>,
    /// The root and its side directories.
    pub places: Vec<Place>,
    /// Whether `a` and `A` are one name in the root; `None` where it was not tried.
    pub names_fold: Option<bool>,
}

/// The machine, for a bug report.
#[derive(Clone, Debug, Serialize)]
pub struct Machine<'t> {
    /// This program's version.
    pub version: &'static str,
    /// The operating system.
    pub os: &'static str,
    /// The processor's architecture.
    pub arch: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The root and its side directories.
    pub places: &'t [Place],
    /// Whether `a` and `A` are one name in the root; `None` where it was not tried.
    pub names_fold: Option<bool>,
}

impl Trials {
    /// The machine on which they were made.
    pub fn machine(&self) -> Machine<'_> {
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            places: &self.places,
            names_fold: self.names_fold,
        }
    }

    /// What works, and is worth knowing: a file system that a reboot empties, and side directories
    /// on other devices.
    pub fn warnings(&self) -> Vec<String> {
        let Some((root, sides)) = self.places.split_first() else { return Vec::new() };
        let mut warnings = Vec::new();
        if IN_MEMORY.contains(&root.file_system) {
            let what = root.file_system;
            warnings.push(format!("the root is on {what}: a reboot takes all of it"));
        }
        for side in sides.iter().filter(|side| side.device != root.device) {
            let effect = match side.place {
                LOCKS => "scripts that do not have it mounted hold other locks",
                BACKUPS => {
                    "each commit copies what it replaces, and without it there is no history"
                }
                _ => "without it what it holds is missing",
            };
            let Place { place, file_system, .. } = side;
            warnings.push(format!("{place} is on another device ({file_system}): {effect}"));
        }
        warnings
    }
}

/// The trials of one root while they are made.
struct Run<'a> {
    store: &'a FileStore,
    root: &'a Dir,
    until: Instant,
    trials: Trials,
    findings: Vec<Finding>,
}

/// Makes all trials, and returns the findings of those that fail.
pub(super) fn run(store: &FileStore) -> (Trials, Vec<Finding>) {
    let Ok(root) = side::open_root(store.disk(), &store.settings().directory) else {
        return (Trials::default(), Vec::new()); // reported by the checks
    };
    let until = Instant::now() + BUDGET;
    let (trials, findings) = (Trials::default(), Vec::new());
    let mut run = Run { store, root: &root, until, trials, findings };
    run.find_places();
    match run.obstacle() {
        Some(why) => run.answer(Trial::Create, Some(ROOT), |_| Err(Trouble::NotTried(why))),
        None => {
            for place in run.places_to_try() {
                run.try_files(place);
            }
            run.answer(Trial::RestorePlan, None, Run::try_restore_plan);
        }
    }
    run.try_processes();
    (run.trials, run.findings)
}

impl Run<'_> {
    fn answer(
        &mut self,
        test: Trial,
        place: Option<&'static str>,
        attempt: impl FnOnce(&mut Self) -> Tried,
    ) {
        let began = Instant::now();
        let tried = match began < self.until {
            true => attempt(self),
            false => Err(Trouble::NotTried("no time was left".to_owned())),
        };
        let ms = (began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let (works, why) = match tried {
            Ok(()) => (Some(true), None),
            Err(Trouble::NotTried(why)) => (None, Some(why)),
            Err(Trouble::Lies(why)) => {
                self.findings.push(consequences::of_lie(self.root, test, place, &why));
                (Some(false), Some(why))
            }
            Err(Trouble::Fails(error)) => {
                let why = consequences::reason(&error, place);
                self.findings.push(consequences::of_failure(self.root, test, place, error));
                (Some(false), Some(why))
            }
        };
        self.trials.answers.push(Answer { test, place, works, why, ms });
    }

    /// The root and its side directories, with their file systems.
    fn find_places(&mut self) {
        for place in [ROOT].into_iter().chain(SIDE_DIRECTORIES) {
            let Ok(Some((dir, stat))) = self.open(place) else { continue };
            let found = file_system(dir.at());
            self.trials.places.push(Place {
                place,
                file_system: found.name(),
                device: stat.dev,
                is_shared: !found.is_local(),
            });
        }
    }

    fn open(&self, place: &str) -> Result<Option<(Dir, Stat)>> {
        let disk = self.store.disk();
        let dir = match place {
            ROOT => Some(side::open_root(disk, self.root.path())?),
            side => side::open_to_read(disk, self.root, side)?,
        };
        let Some(dir) = dir else { return Ok(None) };
        Ok(disk.stat(&dir, ".")?.map(|stat| (dir, stat)))
    }

    /// The root, and each side directory on another device.
    fn places_to_try(&self) -> Vec<&'static str> {
        let places = &self.trials.places;
        let of_root = places.first().map(|place| place.device);
        let is_tried = |place: &&Place| place.place == ROOT || Some(place.device) != of_root;
        places.iter().filter(is_tried).map(|place| place.place).collect()
    }

    /// What keeps this user from making a scratch directory, as the checks report it. Root makes
    /// none in another user's directory.
    fn obstacle(&self) -> Option<String> {
        match self.store.obstacles().write() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(error.message),
        }
        let owner = self.store.disk().stat(self.root, ".").ok().flatten()?.uid;
        (user::current() == 0 && owner != 0)
            .then(|| format!("the root belongs to {}", user::describe(owner)))
    }

    /// Probes the targets of a restore under the state lock, if that is free and no unfinished work
    /// is there.
    fn try_restore_plan(&mut self) -> Tried {
        let not_tried = |why: &str| Err(Trouble::NotTried(why.to_owned()));
        match self.store.locks().list() {
            Ok(entries) if entries.iter().all(|entry| entry.lock != STATE) => {}
            _ => return not_tried("the state is locked"),
        }
        match Probe::of(self.store).plan_now()? {
            Some(_) => Ok(()),
            None => not_tried("there is no state, or a command is at work on it"),
        }
    }
}
