//! The queue of writers.
//!
//! A writer that lost some races, or finds a queue, puts a key of its own and waits until no older
//! one is left: each watches only the key ahead of it, so that one commit wakes one writer. The
//! commit deletes the key. A key ends with a lease that its writer renews: one that is killed
//! leaves the queue within [`LEASE`]; on its own host the writer after it removes it at once.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::RemoteStore;
use super::ground::Ground;
use super::keys::places;
use super::lease::random_lease;
use super::writer::Writer;
use crate::error::{Error, Kind, Result};
use crate::etcd::failure::{Cause, Failure, LeaseTrouble};
use crate::etcd::messages::{KeyValue, RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, absent, put_with_lease};
use crate::lock::STATE;
use crate::lock::remote::{Ahead, Obstacle};
use crate::os::process::Ends;
use crate::store::next_revision::random;
use crate::store::options::{WriteOptions, check_deadline};

/// The races that a writer loses before it queues.
const RACES: u32 = 3;
/// How long a place outlives its writer's last renewal.
const LEASE: Duration = Duration::from_secs(4);
/// How often a place is renewed. Its writer also looks again, whatever the watch reported.
const RENEWAL: Duration = Duration::from_secs(1);
/// The pause of a writer that lost a race, at most; a random part of it.
const PAUSE: Duration = Duration::from_millis(20);

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Place {
    pub key: String,
    /// Whether a commit deleted the key.
    pub is_left: Cell<bool>,
    lease: i64,
    renewed: Instant,
}

/// Where a place is in the queue.
enum Standing<'w> {
    First,
    Behind(&'w KeyValue),
    /// Its lease has ended, and its key with it.
    Lost,
}

impl Place {
    fn standing<'w>(&self, writers: &'w [KeyValue]) -> Standing<'w> {
        let Some(own) = writers.iter().find(|kv| kv.key == self.key) else {
            return Standing::Lost;
        };
        let older = writers.iter().filter(|kv| kv.create_revision < own.create_revision);
        older.max_by_key(|kv| kv.create_revision).map_or(Standing::First, Standing::Behind)
    }
}

/// What became of an attempt of a writer.
pub(super) enum Attempt<'s, T> {
    /// It has a result.
    Ended(T),
    /// Another writer was faster. This is what it left, if that is known.
    Overtaken(Option<Box<Ground<'s>>>),
}

impl<'s, T> Attempt<'s, T> {
    /// The same with another result.
    pub(super) fn map<U>(self, result: impl FnOnce(T) -> U) -> Attempt<'s, U> {
        match self {
            Self::Ended(done) => Attempt::Ended(result(done)),
            Self::Overtaken(ground) => Attempt::Overtaken(ground),
        }
    }
}

/// Runs `attempt` when its writer's turn has come, until it has a result.
pub(super) fn in_turn<'s, T>(
    store: &'s RemoteStore,
    options: &WriteOptions,
    attempt: impl FnMut(Box<Ground<'s>>, Option<&Place>) -> Result<Attempt<'s, T>>,
) -> Result<T> {
    store.intents().settle_pending()?;
    take_turn(store, options, attempt)
}

/// As [`in_turn`], for a command that has settled what is on this host.
pub(super) fn take_turn<'s, T>(
    store: &'s RemoteStore,
    options: &WriteOptions,
    attempt: impl FnMut(Box<Ground<'s>>, Option<&Place>) -> Result<Attempt<'s, T>>,
) -> Result<T> {
    let deadline = Instant::now() + store.settings.lock_timeout;
    let mut turn = Turn { store, deadline, lost: 0, place: None };
    let result = turn.run(options, attempt);
    turn.end(result.as_ref().err());
    Writer::of(store).revive_keepers(); // not before: what was lost is said
    result
}

/// Runs `attempt` until it has a result. One without a result was overtaken by another writer.
pub(super) fn retry<T>(
    store: &RemoteStore,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + store.settings.lock_timeout;
    loop {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        check_deadline(deadline)?;
        let [random] = random()?;
        std::thread::sleep(PAUSE * u32::from(random) / u32::from(u8::MAX));
    }
}

/// A writer on its way to a commit.
struct Turn<'s> {
    store: &'s RemoteStore,
    deadline: Instant,
    /// The races that it lost.
    lost: u32,
    place: Option<Place>,
}

impl<'s> Turn<'s> {
    fn run<T>(
        &mut self,
        options: &WriteOptions,
        mut attempt: impl FnMut(Box<Ground<'s>>, Option<&Place>) -> Result<Attempt<'s, T>>,
    ) -> Result<T> {
        let mut next = None;
        loop {
            let ground = match next.take() {
                Some(ground) => ground,
                None => Box::new(Ground::observe(self.store, &options.fences)?),
            };
            if !self.has_come(&ground)? {
                continue;
            }
            match attempt(ground, self.place.as_ref())? {
                Attempt::Ended(done) => return Ok(done),
                Attempt::Overtaken(ground) => next = ground,
            }
            self.lost += 1;
            check_deadline(self.deadline)?;
        }
    }

    /// Returns whether the writer may try to commit on `ground`. If not, it has queued or waited,
    /// and the ground is old.
    fn has_come(&mut self, ground: &Ground<'_>) -> Result<bool> {
        let (writer, holders) = (Writer::of(self.store), &ground.state_holders);
        writer.check_lost(holders)?;
        let obstacle = writer.obstacle(holders)?;
        if obstacle.is_none() && writer.own_grant(holders)?.is_some() {
            return Ok(true); // the holder of `state` commits past the queue
        }
        let is_contended = obstacle.is_some() || !ground.writers.is_empty();
        let joined;
        let (place, writers) = match &self.place {
            Some(place) => (place, &ground.writers),
            None if self.lost < RACES && !is_contended => return Ok(true),
            None => {
                let Some((place, writers)) = self.join()? else { return Ok(false) };
                joined = writers;
                let place = &*self.place.insert(place);
                if obstacle.is_some() {
                    let Self { store, .. } = self;
                    writer.committer()?.leave_cycle(&store.client, &store.keys.locks)?;
                }
                (place, &joined)
            }
        };
        match (place.standing(writers), obstacle) {
            (Standing::First, None) => return Ok(true),
            (Standing::First, Some(Obstacle { key, holder })) => {
                self.await_change(key, &format!("the state is locked by {holder}"))?;
            }
            (Standing::Behind(ahead), _) => {
                self.await_change(ahead.key.clone(), QUEUED)?;
            }
            (Standing::Lost, _) => self.place = None,
        }
        Ok(false)
    }

    /// Takes the last place, and lists the queue; `None` if the lease ended before that.
    fn join(&self) -> Result<Option<(Place, Vec<KeyValue>)>> {
        if Instant::now() >= self.deadline {
            return Err(timed_out(QUEUED));
        }
        let lease = random_lease()?;
        let renewed = Instant::now();
        let client = &self.store.client;
        client.grant(lease, LEASE).map_err(Failure::of_read)?;
        let key = self.store.keys.locks.waiter(STATE, lease);
        let left = self.deadline.saturating_duration_since(renewed);
        let value = Writer::of(self.store).committer()?.place(lease, self.store.now(), left)?;
        let list = RequestOp::from(self.store.keys.locks.waiters(STATE).list());
        // A place that was taken and not acknowledged fails the guard when it is sent again.
        let request = TxnRequest {
            compare: vec![absent(key.clone())],
            success: vec![put_with_lease(key.clone(), value, lease), list.clone()],
            failure: vec![list],
        };
        match client.commit(&request) {
            Ok(answer) => {
                let writers = places(answer.ranges().next().unwrap_or_default().kvs);
                let place = Place { key, is_left: Cell::new(false), lease, renewed };
                Ok(Some((place, writers)))
            }
            Err(failure) if failure.cause == Cause::Lease(LeaseTrouble::Missing) => Ok(None),
            // A place in the queue changes no document.
            Err(failure) => Err(failure.of_read().into()),
        }
    }

    /// Waits while the key `ahead` is there, and its process lives; for a while only: then the
    /// writer looks again, whatever the watch reported.
    fn await_change(&mut self, ahead: Bytes, what: &str) -> Result<()> {
        let client = &self.store.client;
        let key = Keys::one(ahead);
        let mut watch = client.watch(&key)?;
        let found = client.range(&key.read())?.kvs;
        let (Some(ahead), Some(place)) = (found.first(), &mut self.place) else { return Ok(()) };
        if Instant::now() >= self.deadline {
            return Err(timed_out(what));
        }
        let mut ends = Ends::default();
        match Ahead::of(ahead)? {
            Ahead::Dead => return Ok(client.revoke(ahead.lease).map_err(Failure::of_read)?),
            Ahead::Here(pid) if !ends.add(pid) => return Ok(()),
            Ahead::Here(_) | Ahead::Elsewhere => {}
        }
        if place.renewed.elapsed() >= RENEWAL {
            let now = Instant::now();
            if client.renew(place.lease)?.is_none() {
                return Ok(());
            }
            place.renewed = now;
        }
        let ends: Vec<_> = ends.descriptors().collect();
        let _ = watch.next_or(self.deadline.min(place.renewed + RENEWAL), &ends);
        Ok(())
    }

    /// Leaves the queue, if no commit did. Where the cluster is lost, the lease may have to do
    /// that.
    fn end(self, error: Option<&Error>) {
        let is_lost = error.is_some_and(|error| {
            matches!(error.kind, Kind::Unreachable | Kind::Tls | Kind::DurabilityUnknown)
        });
        let Some(place) = self.place.filter(|place| !place.is_left.get()) else { return };
        let client = &self.store.client;
        match is_lost {
            true => client.abandon(place.lease),
            // If that fails, the lease ends by itself.
            false => drop(client.revoke(place.lease)),
        }
    }
}

/// What a writer waits for, in messages.
const QUEUED: &str = "other writers are queued ahead";

fn timed_out(what: &str) -> Error {
    Error::new(Kind::LockTimeout, format!("{what}; nothing was written"))
        .hint_command("lock list", "see which locks are held now")
}
