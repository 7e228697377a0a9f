//! Requests, repeated until their fate is known.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use super::credentials::User;
use super::failure::{Cause, Failure, LeaseTrouble};
use super::fate::{Fate, Repetition};
use super::messages::{
    AlarmMember, AlarmResponse, AuthenticateRequest, AuthenticateResponse, Everything,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    RangeRequest, RangeResponse, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest,
    WatchRequest,
};
use super::txn::{Keys, snapshot};
use super::watch::Watch;
use super::wire::{Call, Method, Wire};

/// How long one attempt on a member may take: then another member is asked.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a command that has failed may take to clean up.
const PARTING: Duration = Duration::from_millis(500);
/// How long a cluster that did not answer is asked only once by each further request: a command of
/// several requests then ends as soon as one of a single request.
const SILENCE: Duration = Duration::from_secs(5);
/// How long such a request may take.
const ONCE: Duration = Duration::from_millis(500);
/// The pause after the first attempt that failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// How long a request may be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While nothing of it was carried out for certain.
    pub reach: Duration,
    /// While it may have been carried out.
    pub settle: Duration,
}

/// Called with what a request waits for.
pub type OnWait = Box<dyn Fn(&str)>;

/// A client of a cluster.
pub struct Client {
    wire: Box<dyn Wire>,
    user: Option<User>,
    token: RefCell<Option<String>>,
    patience: Patience,
    on_wait: RefCell<Option<OnWait>>,
    /// When the cluster was found not to answer, if it has not since.
    silent_since: Cell<Option<Instant>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that speaks through `wire`, as `user`.
    pub fn new(wire: Box<dyn Wire>, user: Option<User>, patience: Patience) -> Self {
        Self {
            wire,
            user,
            token: RefCell::new(None),
            patience,
            on_wait: RefCell::new(None),
            silent_since: Cell::new(None),
        }
    }

    /// Calls this once for each request that waits to learn whether it was carried out.
    pub fn on_wait(&self, notify: OnWait) {
        self.on_wait.replace(Some(notify));
    }

    /// Reads keys.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        self.ask(Method::Range, request, Repetition::Read)
    }

    /// Reads several ranges as a member that can be reached has them, however old that is.
    pub fn snapshot_of_member(
        &self,
        ranges: impl IntoIterator<Item = RangeRequest>,
    ) -> Result<TxnResponse, Failure> {
        let ranges = ranges.into_iter().map(|range| RangeRequest { serializable: true, ..range });
        self.ask(Method::TxnOfMember, &snapshot(ranges), Repetition::Read)
    }

    /// Reads several ranges at one revision.
    pub fn snapshot(&self, request: &TxnRequest) -> Result<TxnResponse, Failure> {
        self.ask(Method::Txn, request, Repetition::Read)
    }

    /// Carries out a transaction. Its guards must not hold a second time, or its operations must
    /// have no second effect: it is sent again until an answer says what became of it. One that was
    /// carried out unanswered fails its guards when it is sent again.
    pub fn commit(&self, request: &TxnRequest) -> Result<TxnResponse, Failure> {
        self.ask(Method::Txn, request, Repetition::Guarded)
    }

    /// Grants the lease `id`, a random number above 0, for `ttl` after each renewal. Returns how
    /// long that is in fact.
    pub fn grant(&self, id: i64, ttl: Duration) -> Result<Duration, Failure> {
        let request = LeaseGrantRequest { ttl: whole_seconds(ttl), id };
        let granted: Result<LeaseGrantResponse, _> =
            self.ask(Method::LeaseGrant, &request, Repetition::Guarded);
        match granted {
            Ok(granted) => Ok(seconds(granted.ttl).unwrap_or(ttl)),
            // An earlier attempt: nothing else chose this number.
            Err(failure) if failure.cause == Cause::Lease(LeaseTrouble::Exists) => Ok(ttl),
            Err(failure) => Err(failure),
        }
    }

    /// Ends a lease, and deletes its keys. One that does not exist has ended.
    pub fn revoke(&self, id: i64) -> Result<(), Failure> {
        let request = LeaseRevokeRequest { id };
        let revoked: Result<LeaseRevokeResponse, _> =
            self.ask(Method::LeaseRevoke, &request, Repetition::Guarded);
        match revoked {
            Err(failure) if failure.cause != Cause::Lease(LeaseTrouble::Missing) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Ends a lease that nothing needs, in one attempt: if that fails, it ends by itself.
    pub fn abandon(&self, id: i64) {
        let message = Bytes::from(LeaseRevokeRequest { id }.encode_to_vec());
        let call = self.call(Method::LeaseRevoke, message, Instant::now() + PARTING);
        let _ = call.and_then(|call| self.wire.unary(&call));
    }

    /// Renews a lease, and returns how long it lasts from now; `None` if it has ended.
    pub fn renew(&self, id: i64) -> Result<Option<Duration>, Failure> {
        let request = LeaseKeepAliveRequest { id };
        let renewed: LeaseKeepAliveResponse =
            self.ask(Method::LeaseKeepAlive, &request, Repetition::Read)?;
        Ok(seconds(renewed.ttl))
    }

    /// How long a lease lasts, and its keys; `None` if it has ended.
    pub fn time_to_live(&self, id: i64) -> Result<Option<(Duration, Vec<Bytes>)>, Failure> {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let answer: LeaseTimeToLiveResponse =
            self.ask(Method::LeaseTimeToLive, &request, Repetition::Read)?;
        // In its last second it has 0 left; one that has ended, less.
        let left = u64::try_from(answer.ttl).ok().map(Duration::from_secs);
        Ok(left.map(|left| (left, answer.keys)))
    }

    /// The condition of the member that answers.
    pub fn status(&self) -> Result<StatusResponse, Failure> {
        self.ask(Method::Status, &Everything {}, Repetition::Read)
    }

    /// The alarms that are on.
    pub fn alarms(&self) -> Result<Vec<AlarmMember>, Failure> {
        let answer: AlarmResponse = self.ask(Method::Alarm, &Everything {}, Repetition::Read)?;
        Ok(answer.alarms)
    }

    /// Watches keys. When it returns the watch is open: a read that begins now sees everything that
    /// the watch does not report.
    pub fn watch(&self, keys: &Keys) -> Result<Watch, Failure> {
        self.watch_all(std::slice::from_ref(keys))
    }

    /// Watches several ranges of keys, at least one, on one stream.
    pub fn watch_all(&self, all: &[Keys]) -> Result<Watch, Failure> {
        let create = |keys: &Keys| {
            let (key, range_end) = keys.bounds();
            let request = WatchRequest { create: Some(WatchCreateRequest { key, range_end }) };
            Bytes::from(request.encode_to_vec())
        };
        self.repeat(Repetition::Read, |deadline| {
            let mut messages = all.iter().map(create);
            let first = messages.next().unwrap_or_default();
            let call = self.call(Method::Watch, first, deadline)?;
            let call = Call { more: messages.collect(), ..call };
            Watch::open(self.wire.stream(&call)?, all.len(), deadline)
        })
    }

    fn ask<Q: Message, A: Message + Default>(
        &self,
        method: Method,
        request: &Q,
        repetition: Repetition,
    ) -> Result<A, Failure> {
        let message = Bytes::from(request.encode_to_vec());
        self.repeat(repetition, |deadline| {
            decoded(self.wire.unary(&self.call(method, message.clone(), deadline)?)?)
        })
    }

    /// Makes attempts until one succeeds, or fails for good. The failure has the fate of all
    /// attempts together.
    fn repeat<T>(
        &self,
        repetition: Repetition,
        attempt: impl Fn(Instant) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let is_silent = self.silent_since.get().is_some_and(|since| since.elapsed() < SILENCE);
        let limit = |fate| match fate {
            Fate::Unknown => self.patience.settle,
            Fate::NotSent | Fate::Refused if is_silent => ONCE.min(self.patience.reach),
            Fate::NotSent | Fate::Refused => self.patience.reach,
        };
        let mut fate = Fate::NotSent;
        let mut pause = FIRST_PAUSE;
        let mut may_log_in = self.user.is_some();
        let mut is_said = false;
        loop {
            let failure = match attempt((start + limit(fate)).min(Instant::now() + ATTEMPT)) {
                Ok(done) => {
                    self.silent_since.set(None);
                    return Ok(done);
                }
                Err(failure) if repetition == Repetition::Read => failure.of_read(),
                Err(failure) => failure,
            };
            fate = fate.and(failure.fate);
            let failure = Failure { fate, ..failure };
            if failure.cause == Cause::LoginExpired && may_log_in {
                may_log_in = false;
                self.token.replace(None);
                continue;
            }
            if !failure.is_transient() {
                return Err(failure);
            }
            let next = Instant::now() + pause;
            if next >= start + limit(fate) || is_silent && fate != Fate::Unknown {
                if !is_silent {
                    self.silent_since.set(Some(Instant::now()));
                }
                return Err(failure);
            }
            if fate == Fate::Unknown && !std::mem::replace(&mut is_said, true) {
                self.say_wait(&failure);
            }
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn say_wait(&self, failure: &Failure) {
        if let Some(notify) = &*self.on_wait.borrow() {
            let most = self.patience.settle.as_secs();
            notify(&format!("an answer, for {most} s at most: it may be done, and {failure}"));
        }
    }

    /// A request with the token of the login, which it makes first where that is needed.
    fn call(&self, method: Method, message: Bytes, deadline: Instant) -> Result<Call, Failure> {
        if let Some(user) = self.user.as_ref().filter(|_| self.token.borrow().is_none()) {
            // A login that failed leaves the request itself unsent.
            let unsent = |failure: Failure| Failure::not_sent(failure.cause);
            self.token.replace(self.log_in(user, deadline).map_err(unsent)?);
        }
        let token = self.token.borrow().clone();
        Ok(Call { method, message, more: Vec::new(), token, deadline })
    }

    /// Logs in; no token if the cluster asks for none.
    fn log_in(&self, user: &User, deadline: Instant) -> Result<Option<String>, Failure> {
        let User { name, password } = user.clone();
        let message = AuthenticateRequest { name, password }.encode_to_vec().into();
        let method = Method::Authenticate;
        let call = Call { method, message, more: Vec::new(), token: None, deadline };
        match self.wire.unary(&call).and_then(decoded::<AuthenticateResponse>) {
            Ok(answer) => Ok(Some(answer.token)),
            Err(failure) if failure.cause == Cause::NoLogin => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn decoded<A: Message + Default>(answer: Bytes) -> Result<A, Failure> {
    A::decode(answer).map_err(|error| Failure::unknown(Cause::Protocol(error.to_string())))
}

/// A duration as etcd has it; `None` if there is none left.
fn seconds(number: i64) -> Option<Duration> {
    u64::try_from(number).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}
