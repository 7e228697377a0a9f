//! Beginning a transaction: the state lock is taken, and work that an earlier command left
//! unfinished is finished or removed.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::FileStore;
use super::restore::Settled;
use super::root::Root;
use super::staging::Staging;
use super::state_lock::{StateLock, StateLocks};
use super::transaction::Transaction;
use crate::error::{Kind, Result};
use crate::lock::LOCKS;
use crate::side;
use crate::store::layout::{BACKUPS, SIDE_DIRECTORIES};
use crate::store::options::{LockPurpose, check_deadline};

/// The longest time for which locks on other resources are held without the state lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Begins transactions.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Transactions<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Transactions<'s> {
    /// Of `store`.
    pub(in crate::store) fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Takes the state lock and observes the files under it.
    pub(super) fn begin(&self, purpose: LockPurpose, deadline: Instant) -> Result<Transaction<'s>> {
        self.lock_state(purpose, deadline)?.begin()
    }

    /// Runs `attempt` until it has a result. An attempt without one was overtaken by another
    /// writer, and begins again; `None` only until the lock timeout passes.
    pub(super) fn retry<T>(
        &self,
        mut attempt: impl FnMut(Instant) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = StateLocks::of(self.store).deadline();
        loop {
            if let Some(done) = attempt(deadline)? {
                return Ok(done);
            }
            check_deadline(deadline)?;
        }
    }

    /// Takes the lock, creates missing directories, and settles what an earlier command left
    /// unfinished.
    pub(super) fn lock_state(
        &self,
        purpose: LockPurpose,
        deadline: Instant,
    ) -> Result<Rc<StateLock<'s>>> {
        let locks = StateLocks::of(self.store);
        let mut root = locks.precheck(purpose)?;
        let started = Instant::now();
        if purpose == LockPurpose::Initialize && self.store.disk.stat(&root, BACKUPS)?.is_none() {
            locks.check_modes(&root)?;
        }
        if matches!(purpose, LockPurpose::Initialize | LockPurpose::Restore | LockPurpose::Host) {
            for name in SIDE_DIRECTORIES {
                let dir = Root::of(self.store).side_directory(&root, name)?;
                if purpose == LockPurpose::Initialize {
                    Root::of(self.store).tighten(&root, name, &dir)?;
                }
            }
        }
        loop {
            let dir = side::open_unless(&self.store.disk, &root, LOCKS, || {
                locks.refuse_other_tools_file(&root)
            })?;
            if let Some(turn) = self.store.locks.commit_turn(&root, &dir, deadline)? {
                let lock = Rc::new(StateLock::new(self.store, root, turn, started.elapsed()));
                if matches!(purpose, LockPurpose::Abort | LockPurpose::Host) {
                    return Ok(lock);
                }
                if !Staging::of(self.store).exists(&lock.root)? {
                    return Ok(lock);
                }
                match self.store.intents().settle(&lock) {
                    Ok(Settled::Yes) => return Ok(lock),
                    Ok(Settled::Busy) => {}
                    // A new restore replaces one that can be neither finished nor undone.
                    Err(error)
                        if purpose == LockPurpose::Restore && error.kind == Kind::Corrupt =>
                    {
                        return Ok(lock);
                    }
                    Err(error) => return Err(error),
                }
                drop(lock); // the holder of the flock must not wait for another lock
                root = locks.precheck(purpose)?;
                drop(locks.lock_trees(deadline)?);
            }
            check_deadline(deadline)?;
        }
    }

    /// Takes the state lock and the locks of `config/` and `.signals/`, without waiting long for
    /// one while it holds another.
    ///
    /// Where many commands want all of them, each keeps the locks that it was granted in queue
    /// order while it tries to get the state lock. If it released them first, the holder of the
    /// state lock would find others in the queue, and hardly any command would get all three.
    pub(super) fn lock_all(
        &self,
        purpose: LockPurpose,
        deadline: Instant,
    ) -> Result<Rc<StateLock<'s>>> {
        let locks = StateLocks::of(self.store);
        loop {
            let lock = self.lock_state(purpose, deadline)?;
            if let Some(trees) = locks.try_lock_trees()? {
                return Ok(lock.with(trees));
            }
            drop(lock);
            let trees = locks.lock_trees(deadline)?;
            match self.lock_state(purpose, deadline.min(Instant::now() + PATIENCE)) {
                Ok(lock) => return Ok(lock.with(trees)),
                // The holder of the state lock may be waiting for a lock held here.
                Err(error) if matches!(error.kind, Kind::LockTimeout | Kind::Deadlock) => {
                    drop(trees)
                }
                Err(error) => return Err(error),
            }
        }
    }
}
