//! A thread of `lock run` that keeps the lease of its command: from the start, or once the keeper
//! has ended before its work was done. A keeper that is stopped is ended.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::keeper::Order;
use super::keeper_process::{Taken, not_started};
use super::notes::NotesDir;
use crate::error::Result;
use crate::fs::Disk;
use crate::lock::liveness::{Lookup, RunState};
use crate::lock::process::lookup;
use crate::os::process::Handle;
use crate::os::uptime;

/// The thread.
#[derive(Debug)]
pub(super) struct StandIn {
    thread: JoinHandle<()>,
    is_keeper: Arc<AtomicBool>,
}

impl StandIn {
    /// Keeps the lease from now on, unless another keeper does.
    pub fn at_once(order: Order) -> Result<Self> {
        let (taken, is_taken) = sync_channel(0);
        let stand_in = Self::start(move |is_keeper, stop| {
            let own = Taken::of(&order);
            is_keeper.store(true, Ordering::Release);
            let _ = taken.send(());
            own.carry_out(order, stop);
        })?;
        // Only now may the command begin: its own commands start a keeper where there is none.
        let _ = is_taken.recv();
        Ok(stand_in)
    }

    /// Keeps the lease once `keeper` has ended, if its work is not done.
    pub fn after(keeper: Option<Child>, order: Order) -> Result<Self> {
        Self::start(move |is_keeper, stop| {
            let ended = keeper.map(|keeper| end_of(keeper, &order));
            let is_done = ended.is_some_and(|ended| ended.is_ok_and(|status| status.success()));
            // Another command of the owner may have started it again.
            let own = match Taken::after_others(&order) {
                Taken::Unnoted if is_done => Taken::No,
                own => own,
            };
            is_keeper.store(true, Ordering::Release);
            own.carry_out(order, stop);
        })
    }

    fn start(keep: impl FnOnce(&AtomicBool, UnixStream) + Send + 'static) -> Result<Self> {
        let is_keeper = Arc::<AtomicBool>::default();
        let is_thread = Arc::clone(&is_keeper);
        let (inside, outside) = UnixStream::pair().map_err(not_started)?;
        let keep = move || {
            let _outside = outside; // never asked to end
            keep(&is_thread, inside);
        };
        let thread = std::thread::Builder::new().spawn(keep).map_err(not_started)?;
        Ok(Self { thread, is_keeper })
    }

    /// Waits until the lease is ended, if that is for this process to do: its command has ended.
    pub fn end(self) {
        if self.is_keeper.load(Ordering::Acquire) {
            let _ = self.thread.join();
        }
    }
}

/// How often a keeper is looked at while its lease lasts.
const LOOKS: u32 = 8;

/// Waits for the end of a keeper. One that does not work is ended: it is stopped and has not
/// renewed its lease for half of its time; or all of its time has passed, and it has not noted
/// that the lease is lost. A keeper that is only cut off from the cluster goes on.
fn end_of(mut keeper: Child, order: &Order) -> io::Result<ExitStatus> {
    let all = NotesDir::new(Disk::real(), order.runtime.clone());
    let renewed = || {
        let notes = all.of(&order.owner).ok()??;
        let is_lost = notes.lost(order.lease).ok()?.is_some();
        notes.renewal(order.lease).ok()?.filter(|_| !is_lost)
    };
    let ttl = Duration::from_millis(order.ttl);
    let handle = Handle::of(keeper.id());
    let (mut last, mut since) = (None, uptime());
    while !handle.ends_before(Instant::now() + ttl / LOOKS) {
        // The keeper ends by itself.
        let Some(renewal) = renewed() else { break };
        if last != Some(renewal.at) {
            (last, since) = (Some(renewal.at), uptime());
            continue;
        }
        let is_stopped =
            matches!(lookup(keeper.id()), Lookup::Visible { state: RunState::Stopped, .. });
        let patience = if is_stopped { ttl / 2 } else { ttl + ttl / LOOKS };
        if uptime().saturating_sub(since) >= patience {
            keeper.kill()?;
            break;
        }
    }
    keeper.wait()
}
