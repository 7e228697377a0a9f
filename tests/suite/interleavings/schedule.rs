//! Actors in threads of their own; a schedule decides which one makes the next file-system call.
//!
//! Schedules: all with a limited number of preemptions, where a runnable actor has to let another
//! one go first ("Iterative Context Bounding", Musuvathi & Qadeer, PLDI 2007: most errors need one
//! or two). If an actor ends or waits for a lock, all others are tried without counting.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::observed::{Call, Fault, Observed};
use pipeline_state::fs::Disk;
use rustix::io::Errno;

use crate::sandbox::Ran;

/// An actor's work with its own disk, in a root shared by all.
pub type Job<T> = fn(&Path, Disk) -> T;

/// Result of a run.
pub struct Run<T> {
    pub told: Vec<T>,
    /// Actor and call, in order.
    pub steps: Vec<(usize, String)>,
}

/// Chooses the next actor.
pub trait Chooser {
    /// Chooses one of `count`; the first is the running actor if it can continue.
    fn choose(&mut self, count: usize, preempts: Preempts) -> usize;
}

/// Set if any choice other than the first is a preemption.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Preempts {
    Yes,
    No,
}

enum Actor {
    Ready,
    /// Another actor has this lock.
    Blocked(PathBuf),
    Ended,
}

enum Report<T> {
    At(String),
    Blocked(PathBuf),
    Ended(Option<T>),
}

/// True in a process that runs only the calling test; in any other it runs that process, and
/// expects success. Children of other tests inherit the descriptors of this process, and with them
/// the locks, until exec (fork(2)): beside them it would be chance which thread can continue.
pub fn is_alone() -> bool {
    const ALONE: &str = "INTERLEAVINGS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let thread = std::thread::current();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", thread.name().unwrap(), "--nocapture"]).env(ALONE, "1");
    let ran = Ran::of(command.output().unwrap());
    let has_passed = ran.code == 0 && ran.stdout.contains("1 passed");
    assert!(has_passed, "{}\n{}", ran.stdout, ran.stderr);
    println!("{}", ran.stdout);
    false
}

/// Runs all jobs in the order of the chooser.
pub fn run<T: Send + 'static>(root: &Path, jobs: &[Job<T>], chooser: &mut dyn Chooser) -> Run<T> {
    std::thread::scope(|scope| {
        let (report, reports) = channel();
        let mut go = Vec::new();
        for (number, job) in jobs.iter().enumerate() {
            let (sender, receiver) = sync_channel(1);
            go.push(sender);
            let report = report.clone();
            scope.spawn(move || {
                let _ = receiver.recv();
                let sender = report.clone();
                let disk = Disk::new(Rc::new(Observed::new(stopping(number, sender, receiver))));
                let told = catch_unwind(AssertUnwindSafe(|| job(root, disk))).ok();
                let _ = report.send((number, Report::Ended(told)));
            });
        }
        conduct(&go, &reports, chooser)
    })
}

/// Stops before each call that is visible to others or sees others.
fn stopping<T: 'static>(
    number: usize,
    report: Sender<(usize, Report<T>)>,
    go: Receiver<()>,
) -> impl FnMut(&Call) -> Fault {
    let mut opened = PathBuf::new();
    move |call| {
        if matches!(call.name, "open_append" | "open_overwrite" | "create") {
            opened = call.path.clone();
        }
        if is_private(call) {
            return Fault::None;
        }
        let stopped = match call.name {
            "blocked" => Report::Blocked(opened.clone()),
            _ => Report::At(format!("{} {}", call.name, call.path.display())),
        };
        let goes_on = report.send((number, stopped)).is_ok() && go.recv().is_ok();
        if goes_on { Fault::TryLock } else { Fault::Fails(Errno::IO) }
    }
}

/// True for calls without effect on other actors: calls on a descriptor alone (an open file never
/// changes, since none is written in place), and calls on files that only a lock's holder reads.
/// Durability and the logs do not matter here.
fn is_private(call: &Call) -> bool {
    let of_descriptor = matches!(
        call.name,
        "fstat"
            | "read"
            | "write"
            | "sync"
            | "sync_dir"
            | "set_mode"
            | "set_mtime"
            | "acl"
            | "set_acl"
            | "remove_acl"
    );
    let of_directory = matches!(call.name, "open_root" | "open_dir" | "pin");
    let ends_with = |names: &[&str]| names.iter().any(|name| call.path.ends_with(name));
    let is_in = |name: &str| call.path.components().any(|part| part.as_os_str() == name);
    let of_holder = is_in(".checkpoints") && !ends_with(&["intent.json", ".in-progress"])
        || is_in(".locks") && !ends_with(&["state.lock", "state.json"])
        || ends_with(&["audit.log", ".error-recovery.log"])
        || call.path.extension().is_some_and(|extension| extension == "tmp");
    of_descriptor || of_directory || of_holder
}

fn conduct<T>(
    go: &[SyncSender<()>],
    reports: &Receiver<(usize, Report<T>)>,
    chooser: &mut dyn Chooser,
) -> Run<T> {
    let mut actors: Vec<Actor> = go.iter().map(|_| Actor::Ready).collect();
    let mut told: Vec<Option<T>> = go.iter().map(|_| None).collect();
    let (mut steps, mut current) = (Vec::new(), None);
    loop {
        let look =
            || (0..actors.len()).filter(|number| is_able(&actors[*number])).collect::<Vec<usize>>();
        let mut able = look();
        if able.is_empty() {
            let have_ended = actors.iter().all(|actor| matches!(actor, Actor::Ended));
            assert!(have_ended, "no actor can continue: {steps:?}");
            let told = told.into_iter().map(|told| told.unwrap()).collect();
            return Run { told, steps };
        }
        let goes_on = current.and_then(|current| able.iter().position(|number| *number == current));
        if let Some(place) = goes_on {
            able[..=place].rotate_right(1);
        }
        let preempts = if goes_on.is_some() { Preempts::Yes } else { Preempts::No };
        let next = able[if able.len() == 1 { 0 } else { chooser.choose(able.len(), preempts) }];
        current = Some(next);
        go[next].send(()).unwrap();
        let (number, report) = reports.recv().unwrap();
        assert_eq!(number, next, "one at a time");
        actors[next] = match report {
            Report::At(call) => {
                steps.push((next, call));
                Actor::Ready
            }
            Report::Blocked(path) => Actor::Blocked(path),
            Report::Ended(result) => {
                assert!(result.is_some(), "it did not go as it should: {steps:?}");
                told[next] = result;
                Actor::Ended
            }
        };
    }
}

fn is_able(actor: &Actor) -> bool {
    match actor {
        Actor::Ready => true,
        Actor::Blocked(path) => File::open(path).is_ok_and(|file| file.try_lock().is_ok()),
        Actor::Ended => false,
    }
}

/// All schedules with a limited number of preemptions, one after the other.
pub struct Exhaustive {
    bound: usize,
    left: usize,
    /// Choices of the current run: the chosen number, and the number of options.
    path: Vec<(usize, usize)>,
    depth: usize,
}

impl Exhaustive {
    pub fn new(bound: usize) -> Self {
        Self { bound, left: bound, path: Vec::new(), depth: 0 }
    }

    /// Advances to the next schedule; false if there is none.
    pub fn advance(&mut self) -> bool {
        (self.left, self.depth) = (self.bound, 0);
        while let Some((chosen, count)) = self.path.pop() {
            if chosen + 1 < count {
                self.path.push((chosen + 1, count));
                return true;
            }
        }
        false
    }
}

impl Chooser for Exhaustive {
    fn choose(&mut self, count: usize, preempts: Preempts) -> usize {
        if preempts == Preempts::Yes && self.left == 0 {
            return 0;
        }
        if self.path.len() == self.depth {
            self.path.push((0, count));
        }
        let (chosen, seen) = self.path[self.depth];
        assert_eq!(seen, count, "the same choices lead to the same place");
        self.depth += 1;
        self.left -= usize::from(preempts == Preempts::Yes && chosen != 0);
        chosen
    }
}

/// Schedules with a few random preemptions.
pub struct Diced {
    seed: u64,
    /// The choices at which to preempt.
    at: Vec<usize>,
    place: usize,
}

impl Diced {
    /// This many preemptions among this many choices.
    pub fn new(seed: u64, preemptions: usize, choices: usize) -> Self {
        let mut dice = Self { seed, at: Vec::new(), place: 0 };
        dice.at = (0..preemptions).map(|_| dice.below(choices)).collect();
        dice
    }

    /// SplitMix64.
    fn below(&mut self, limit: usize) -> usize {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit.max(1) as u64).unwrap()
    }
}

impl Chooser for Diced {
    fn choose(&mut self, count: usize, preempts: Preempts) -> usize {
        self.place += 1;
        match preempts {
            Preempts::No => self.below(count),
            Preempts::Yes if self.at.contains(&(self.place - 1)) => 1 + self.below(count - 1),
            Preempts::Yes => 0,
        }
    }
}
