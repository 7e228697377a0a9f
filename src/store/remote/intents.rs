//! A restore that is not finished on this host: found, and finished or given up.

use super::RemoteStore;
use super::claim::{Decision, decide, forget};
use crate::error::{Error, Kind, Result};
use crate::store::host::{Host, HostLock};
use crate::store::restore::Interrupted;

/// The record of a restore on this host.
#[derive(Clone, Copy, Debug)]
pub struct Intents<'s> {
    pub(in crate::store) store: &'s RemoteStore,
}

impl<'s> Intents<'s> {
    /// The restore that is not finished. Changes nothing.
    pub fn interrupted(&self) -> Result<Option<Interrupted>> {
        let Some(host) = &self.store.host else { return Ok(None) };
        match host.pending() {
            Ok(pending) => Ok(pending.map(|pending| Interrupted::Ours(pending.checkpoint))),
            Err(error) if error.kind == Kind::ForeignIntent => {
                Ok(Some(Interrupted::Foreign(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Finishes it or gives it up. One lookup where there is none.
    pub(super) fn settle_pending(&self) -> Result<()> {
        match &self.store.host {
            Some(host) if host.is_pending()? => self.settle(host.lock()?).map(drop),
            _ => Ok(()),
        }
    }

    /// The same for a reader, which is served what there is where that is not possible.
    pub(super) fn settle_to_read(&self) {
        let settle = |host: &'s Host| match host.is_pending()? {
            true => self.settle(host.lock_to_read()?).map(drop),
            false => Ok(()),
        };
        match self.store.host.as_ref().map_or(Ok(()), settle) {
            // The restore is at work.
            Err(error) if error.kind == Kind::LockTimeout => {}
            Err(error) => self.store.warn(error.message),
            Ok(()) => {}
        }
    }

    /// Settles under the lock, and returns a lock with nothing to settle.
    pub(super) fn settle(&self, lock: HostLock<'s>) -> Result<HostLock<'s>> {
        let Some(pending) = lock.pending() else { return Ok(lock) };
        let id = &pending.checkpoint;
        let done = match decide(self.store, &pending.operation)? {
            Decision::Committed => {
                lock.finish()?;
                "finished"
            }
            Decision::GivenUp => {
                lock.give_up()?;
                forget(self.store, &pending.operation);
                "given up: it was not committed"
            }
        };
        self.store.warn(format!("an interrupted restore of {id} was {done}"));
        host_of(self.store)?.lock()
    }
}

/// What is on this host.
pub(super) fn host_of(store: &RemoteStore) -> Result<&Host> {
    store.host.as_ref().ok_or_else(|| Error::new(Kind::Internal, "a store without a host"))
}
