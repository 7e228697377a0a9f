//! What a program may use: a stack, a gigabyte of memory, and some time.
//!
//! A program that can go on for long runs on a thread of its own, [`watched`] from outside. When it
//! has used too much, what it does next stops it: a call, a step of a loop, a part of a path. One
//! that is lost in a single long operation is left behind: the watcher answers in its place, and
//! the process ends without it, as if it had been interrupted.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jaq_json::Val;
use rustix::time::{ClockId, clock_gettime};

use super::text;
use super::value::{Error, MAX_NESTED, error};

/// Compiling and running a program recurses; the limits of the text are made for a stack of this size.
pub const STACK: usize = 512 << 20;
/// What a call must find free: the operations of one level, and taking apart a value that is nested deep.
const RESERVE: usize = 192 << 20;
/// What a program may add to the memory of the process, in bytes.
pub const MEMORY: u64 = 1 << 30;
/// How much time a program has by the clock, where none is given.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of it may be processor time, where none is given.
pub const PROCESSOR_TIME: Duration = Duration::from_secs(10);

/// How often the watcher looks.
const TICK: Duration = Duration::from_millis(10);
/// How long a program may take to notice that it is stopped, and what it may use meanwhile.
const GRACE: Duration = Duration::from_secs(2);
const GRACE_MEMORY: u64 = 256 << 20;
/// After how many new arrays and objects one is looked at for its depth.
const SAMPLE: u32 = 2048;

/// What a program used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Excess {
    /// More memory than it may add, which is [`MEMORY`].
    Memory = 1,
    /// More time than it was given.
    Time = 2,
    /// Recursion without an end, or near enough.
    Depth = 3,
}

impl Excess {
    fn of(code: u8) -> Option<Self> {
        [Self::Memory, Self::Time, Self::Depth].into_iter().find(|excess| *excess as u8 == code)
    }

    /// What a step of a program that is stopped ends it with.
    pub(super) fn of_halt(code: i32) -> Option<Self> {
        u8::try_from(code).ok().and_then(Self::of)
    }
}

/// How much time a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// By the clock.
    pub wall: Duration,
    /// On the processors.
    pub processor: Duration,
}

impl Default for Time {
    fn default() -> Self {
        Self { wall: TIMEOUT, processor: PROCESSOR_TIME }
    }
}

impl From<Duration> for Time {
    /// As much of it on the processors as there is by the clock.
    fn from(wall: Duration) -> Self {
        Self { wall, processor: wall }
    }
}

/// A program that runs.
struct Running {
    since: Instant,
    /// Processor time and memory of the process when the watcher first looked.
    at_first: Option<(Duration, u64)>,
    time: Time,
    stopped: Option<(Excess, Instant, u64)>,
}

/// What a thread that runs programs and its watcher share.
#[derive(Default)]
struct Watch {
    running: Mutex<Option<Running>>,
    changed: Condvar,
    /// Why the program that runs is to stop, as a number of [`Excess`]; 0 while it is not.
    stop: AtomicU8,
}

impl Watch {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn excess(&self) -> Option<Excess> {
        Excess::of(self.stop.load(Ordering::Relaxed))
    }
}

thread_local! {
    static WATCH: RefCell<Arc<Watch>> = RefCell::default();
    /// The address that calls must stay above; 0 where the stack is not known.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
    static UNTIL_SAMPLE: Cell<u32> = const { Cell::new(SAMPLE) };
    static RANDOM: Cell<u32> = const { Cell::new(2_463_534_242) };
}

fn watch() -> Arc<Watch> {
    WATCH.with_borrow(Arc::clone)
}

/// A program runs while this lives.
pub(super) struct Run(Arc<Watch>);

impl Run {
    /// Begins a run on this thread, which watches it if there is a watcher.
    pub(super) fn begin(time: Time) -> Self {
        let watch = watch();
        watch.stop.store(0, Ordering::Relaxed);
        *watch.running() = Some(Running { since: Instant::now(), at_first: None, time, stopped: None });
        watch.changed.notify_all();
        Self(watch)
    }

    /// Why its results do not count, if they do not.
    pub(super) fn excess(&self) -> Option<Excess> {
        self.0.excess()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        *self.0.running() = None;
        self.0.stop.store(0, Ordering::Relaxed);
    }
}

/// Refuses to go on once the program is stopped.
pub(super) fn go_on() -> Result<(), Error> {
    match WATCH.with_borrow(|watch| watch.excess()) {
        None => Ok(()),
        Some(_) => Err(error("the filter is stopped")),
    }
}

/// Why a call may not begin, if it may not.
pub(super) fn stopped() -> Option<Excess> {
    let here = 0_u8;
    if std::ptr::from_ref(&here).addr() < FLOOR.get() {
        return Some(Excess::Depth);
    }
    WATCH.with_borrow(|watch| watch.excess())
}

/// Looks, now and then, how deep new values are nested: to drop one takes a stack.
pub(super) fn nested(value: &Val) {
    let left = UNTIL_SAMPLE.get();
    if left > 1 {
        UNTIL_SAMPLE.set(left - 1);
        return;
    }
    // Not in step with the program, which may make one deep value and many others in turn.
    let mut random = RANDOM.get();
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    RANDOM.set(random);
    UNTIL_SAMPLE.set(SAMPLE / 2 + random % SAMPLE);
    if text::is_nested(value, 2 * MAX_NESTED) {
        WATCH.with_borrow(|watch| watch.stop.store(Excess::Depth as u8, Ordering::Relaxed));
    }
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// The memory that this process has, in bytes; 0 where the system does not say.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() << 10
}

/// Does `work`, which runs programs, on a stack of [`STACK`], and stops a program that uses too much. One that cannot be
/// stopped is left to `leave`, which ends the process. Where there is no room for the stack it works in what room there is.
pub fn watched<T: Send>(work: impl Fn() -> T + Sync, leave: impl Fn(Excess) -> Infallible) -> T {
    watched_within(MEMORY, work, leave)
}

/// As [`watched`], where a program may add so many bytes to the memory of the process.
pub(super) fn watched_within<T: Send>(
    most: u64,
    work: impl Fn() -> T + Sync,
    leave: impl Fn(Excess) -> Infallible,
) -> T {
    struct Done<'d>(&'d Watch, &'d AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            let _running = self.0.running(); // so that the watcher does not miss it
            self.1.store(true, Ordering::Relaxed);
            self.0.changed.notify_all();
        }
    }
    let (watch, is_done) = (Arc::<Watch>::default(), AtomicBool::new(false));
    let start = || {
        let here = 0_u8;
        FLOOR.set(std::ptr::from_ref(&here).addr().saturating_sub(STACK - RESERVE));
        WATCH.set(Arc::clone(&watch));
        let _done = Done(&watch, &is_done);
        work()
    };
    std::thread::scope(|scope| {
        let Ok(thread) = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, start) else {
            return work();
        };
        let mut now = watch.running();
        while !is_done.load(Ordering::Relaxed) {
            now = match *now {
                None => watch.changed.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(_) => watch.changed.wait_timeout(now, TICK).unwrap_or_else(PoisonError::into_inner).0,
            };
            // Held until the process ends, if it must: the program can neither finish nor write any more.
            if let Some(excess) = now.as_mut().and_then(|running| looked_at(&watch, running, most)) {
                match leave(excess) {}
            }
        }
        drop(now);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Stops a program that has used too much; why, if it did not stop in time.
fn looked_at(watch: &Watch, running: &mut Running, most: u64) -> Option<Excess> {
    let (processor, memory) = (processor_time(), memory());
    let (processor_at_first, memory_at_first) = *running.at_first.get_or_insert((processor, memory));
    if let Some((excess, since, then)) = running.stopped {
        let is_lost = since.elapsed() > GRACE || memory > then + GRACE_MEMORY;
        return is_lost.then_some(excess);
    }
    let is_late = running.since.elapsed() > running.time.wall
        || processor.saturating_sub(processor_at_first) > running.time.processor;
    let excess = match watch.excess() {
        Some(excess) => excess,
        None if memory > memory_at_first + most => Excess::Memory,
        None if is_late => Excess::Time,
        None => return None,
    };
    running.stopped = Some((excess, Instant::now(), memory));
    watch.stop.store(excess as u8, Ordering::Relaxed);
    None
}
