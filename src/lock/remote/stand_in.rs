//! A thread of `lock run` that keeps the lease of its command: from the start, or once the keeper
//! has ended before its work was done. A keeper that is stopped is ended.

use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use super::order::Order;
use super::taken::{Taken, end_of, not_started};
use crate::error::Result;

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
