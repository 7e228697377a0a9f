//! Waits for changes of a store's keys, for commands that show the current state.

use std::time::Instant;

use super::RemoteStore;
use crate::etcd::txn::Keys;
use crate::etcd::watch::Watch;

/// A watch on keys. Call [`KeyWatch::renew`], check, then [`KeyWatch::wait`]: no change in between
/// is missed.
#[derive(Debug)]
pub struct KeyWatch<'s> {
    store: &'s RemoteStore,
    keys: Keys,
    open: Option<Watch>,
}

impl<'s> KeyWatch<'s> {
    /// A watch on the document.
    pub fn of_document(store: &'s RemoteStore) -> Self {
        Self { store, keys: Keys::one(store.keys.state()), open: None }
    }

    /// A watch on all keys of the store.
    pub fn of_all(store: &'s RemoteStore) -> Self {
        Self { store, keys: store.keys.all(), open: None }
    }

    /// Opens the watch, unless it is open.
    pub fn renew(&mut self) {
        if self.open.is_none() {
            self.open = self.store.client.watch(&self.keys).ok();
        }
    }

    /// Returns at `deadline`, or at once when something may have changed: then true.
    pub fn wait(&mut self, deadline: Instant) -> bool {
        let Some(watch) = &mut self.open else {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            return true;
        };
        let events = watch.next(deadline);
        if events.is_err() {
            self.open = None; // changes may have been missed
        }
        events.map_or(true, |events| !events.is_empty())
    }
}
