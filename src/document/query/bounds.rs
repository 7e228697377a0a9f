//! The resource limits of a program: stack, memory and time.
//!
//! A program that can run for long has a thread of its own, [`watched`] from outside. When it
//! exceeds a limit, its next step stops it: a call, a step of a loop, a part of a path. A program
//! in a single long operation is abandoned: the watcher answers in its place, and the process ends
//! without it, as if it had been interrupted.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jaq_json::Val;
use rustix::time::{ClockId, clock_gettime};

use super::jq::{Error, MAX_NESTED, error};
use super::text;

/// Compiling and running a program recurses; the limits of the text assume a stack of this size.
pub const STACK: usize = 512 << 20;
/// The stack that a call must find free: for the operations of one level, and for dropping a deeply
/// nested value.
const RESERVE: usize = 192 << 20;
/// The memory that a program may add to the process, in bytes.
pub const MEMORY: u64 = 1 << 30;
/// The default limit of elapsed time.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The default limit of processor time.
pub const PROCESSOR_TIME: Duration = Duration::from_secs(10);

/// The interval of the watcher's checks.
const TICK: Duration = Duration::from_millis(10);
/// The time and the memory that a program may use until it notices that it is stopped.
const GRACE: Duration = Duration::from_secs(2);
const GRACE_MEMORY: u64 = 256 << 20;
/// One in this many new arrays and objects is checked for its depth.
const SAMPLE: u32 = 2048;

/// The limit that a program exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Excess {
    /// The memory it may add, [`MEMORY`].
    Memory = 1,
    /// The time it was given.
    Time = 2,
    /// The recursion depth.
    Depth = 3,
}

impl Excess {
    fn of(code: u8) -> Option<Self> {
        [Self::Memory, Self::Time, Self::Depth].into_iter().find(|excess| *excess as u8 == code)
    }

    /// The exit code by which a step of a stopped program ends it.
    pub(super) fn of_halt(code: i32) -> Option<Self> {
        u8::try_from(code).ok().and_then(Self::of)
    }
}

/// The time limits of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Elapsed time.
    pub wall: Duration,
    /// Processor time.
    pub processor: Duration,
}

impl Default for Time {
    fn default() -> Self {
        Self { wall: TIMEOUT, processor: PROCESSOR_TIME }
    }
}

impl From<Duration> for Time {
    /// The same limit for both.
    fn from(wall: Duration) -> Self {
        Self { wall, processor: wall }
    }
}

/// A running program.
struct Running {
    since: Instant,
    /// Processor time and memory of the process at the watcher's first check.
    at_first: Option<(Duration, u64)>,
    time: Time,
    stopped: Option<(Excess, Instant, u64)>,
}

/// The state shared by a thread that runs programs and its watcher.
#[derive(Default)]
struct Watch {
    running: Mutex<Option<Running>>,
    changed: Condvar,
    /// The reason to stop the running program, as a number of [`Excess`]; 0 for none.
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

/// A program runs while this exists.
pub(super) struct Run(Arc<Watch>);

impl Run {
    /// Begins a run on this thread, which is watched if there is a watcher.
    pub(super) fn begin(time: Time) -> Self {
        let watch = watch();
        watch.stop.store(0, Ordering::Relaxed);
        *watch.running() =
            Some(Running { since: Instant::now(), at_first: None, time, stopped: None });
        watch.changed.notify_all();
        Self(watch)
    }

    /// The reason why its results do not count, if there is one.
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

/// Refuses to continue once the program is stopped.
pub(super) fn go_on() -> Result<(), Error> {
    match WATCH.with_borrow(|watch| watch.excess()) {
        None => Ok(()),
        Some(_) => Err(error("the filter is stopped")),
    }
}

/// The reason why a call may not begin, if there is one.
pub(super) fn stopped() -> Option<Excess> {
    let here = 0_u8;
    if std::ptr::from_ref(&here).addr() < FLOOR.get() {
        return Some(Excess::Depth);
    }
    WATCH.with_borrow(|watch| watch.excess())
}

/// Samples the nesting of new values: dropping a deep one needs stack.
pub(super) fn nested(value: &Val) {
    let left = UNTIL_SAMPLE.get();
    if left > 1 {
        UNTIL_SAMPLE.set(left - 1);
        return;
    }
    // Sampled at random: a program may make one deep value and many others in a regular order.
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
    Duration::new(
        now.tv_sec.try_into().unwrap_or_default(),
        now.tv_nsec.try_into().unwrap_or_default(),
    )
}

/// Runs `work`, which runs programs, on a stack of [`STACK`], and stops a program that exceeds a
/// limit. For one that cannot be stopped it calls `leave`, which ends the process. Where there is
/// no room for the stack, it uses the stack that there is.
pub fn watched<T: Send>(work: impl Fn() -> T + Sync, leave: impl Fn(Excess) -> Infallible) -> T {
    watched_within(MEMORY, work, leave)
}

/// As [`watched`], with this limit of the memory that a program may add, in bytes.
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
        let Ok(thread) = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, start)
        else {
            return work();
        };
        let mut now = watch.running();
        while !is_done.load(Ordering::Relaxed) {
            now = match *now {
                None => watch.changed.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(_) => {
                    watch.changed.wait_timeout(now, TICK).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            // Held until the process ends: the program can neither finish nor write any more.
            if let Some(excess) = now.as_mut().and_then(|running| looked_at(&watch, running, most))
            {
                match leave(excess) {}
            }
        }
        drop(now);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Stops a program that exceeded a limit; returns the limit if the program did not stop in time.
fn looked_at(watch: &Watch, running: &mut Running, most: u64) -> Option<Excess> {
    let (processor, memory) = (processor_time(), crate::os::memory());
    let (processor_at_first, memory_at_first) =
        *running.at_first.get_or_insert((processor, memory));
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
