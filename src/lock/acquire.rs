//! Taking locks: several at once or none, waiting for them in the queue.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::deadlock::Waits;
use super::gate::{Draft, Gate, Seen};
use super::hierarchy;
use super::liveness::{Judge, Liveness, Patience, epoch};
use super::process::Identity;
use super::queue::{Again, Answer, Ask, Asker, Blocker, answer, blockers, enqueue, prune};
use super::record::{Grant, Mode, Purpose, Record, Token, Waiter};
use super::wait::{Alarm, Watchfulness};
use super::{LOCKS, Locks, STATE};
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::time::rfc3339;

/// After this long somebody who waits is told for whom.
pub(super) const SILENCE: Duration = Duration::from_millis(400);
/// How long a place in the queue that is given up may keep its owner busy.
const LEAVING: Duration = Duration::from_secs(1);
/// More locks than this are not taken at once.
pub const MOST_AT_ONCE: usize = 64;

/// Until when to wait, and how long that is.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// What was asked for.
    pub patience: Duration,
}

impl Deadline {
    /// A deadline that is so far away.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(patience).unwrap_or(now + Duration::from_secs(86400 * 365)), patience }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }
}

/// Whether the one who would close a circle of waiters is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlocks {
    /// It is.
    Refused,
    /// It waits, come what may.
    Risked,
}

/// A request for locks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which ones; all are granted or none.
    pub names: Vec<Name>,
    /// How.
    pub ask: Ask,
    /// Who asks.
    pub asker: Asker,
    /// The command line of the owner.
    pub command: String,
    /// For how long to wait.
    pub deadline: Deadline,
    /// What becomes of a deadlock.
    pub deadlocks: Deadlocks,
    /// What the owner notes.
    pub metadata: Option<Value>,
    /// For how long to hold it where nobody can tell whether the owner lives.
    pub ttl: Option<Duration>,
    /// The file that the owner holds locked while it lives.
    pub live_file: Option<String>,
}

/// A lock that was granted.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// Its name.
    pub name: Name,
    /// The grant.
    pub grant: Grant,
}

/// Somebody who is in the way, for messages.
#[derive(Clone, Debug)]
pub struct InTheWay {
    /// In the way of which lock.
    pub lock: Name,
    /// Its process id, if it is known.
    pub pid: Option<u32>,
    /// In words: `held by 123 (bash deploy.sh) since …`.
    pub words: String,
}

/// A place in the queues of some locks; left when dropped.
#[must_use]
#[derive(Debug)]
pub struct Place<'a> {
    locks: &'a Locks,
    names: Vec<Name>,
    process: Identity,
    taken: bool,
}

impl<'a> Place<'a> {
    /// No place yet.
    pub(super) fn none(locks: &'a Locks, request: &Request) -> Self {
        Self { locks, names: request.names.clone(), process: request.asker.process.clone(), taken: false }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            let leave = || -> Result<()> {
                let gate = self.locks.gate(Instant::now() + LEAVING)?;
                let mut drafts = gate.load_all(&self.names)?;
                for draft in &mut drafts {
                    draft.record.waiters.retain(|waiter| !waiter.process.is(&self.process));
                }
                gate.store(&drafts)
            };
            let _ = leave(); // then this process's death says it
        }
    }
}

impl Gate<'_> {
    pub(super) fn load_all(&self, names: &[Name]) -> Result<Vec<Draft>> {
        names.iter().map(|name| self.load(name)).collect()
    }
}

impl Locks {
    /// Takes all of the requested locks, waiting until the deadline.
    pub fn acquire(&self, request: &Request) -> Result<Vec<Acquired>> {
        let mut place = Place::none(self, request);
        let acquired = loop {
            let (gate, mut drafts) = self.when_free(request, &mut place)?;
            let Some(tokens) = gate.take_tokens(drafts.len())? else {
                drop(gate);
                self.reserve(request.deadline.at)?;
                continue;
            };
            let acquired = drafts.iter_mut().zip(tokens).map(|(draft, token)| self.grant(draft, request, token));
            let acquired: Vec<Acquired> = acquired.collect();
            gate.store(&drafts)?;
            place.taken = false;
            break acquired;
        };
        if request.names.iter().any(|name| name.as_str() == STATE)
            && let Err(error) = self.drain_commits(request.deadline.at)
        {
            self.give_back(&acquired);
            return Err(error);
        }
        for Acquired { name, grant } in &acquired {
            self.audit_grant("acquire", "granted", name, grant);
        }
        Ok(acquired)
    }

    /// Takes back what was granted a moment ago.
    pub fn give_back(&self, acquired: &[Acquired]) {
        let names: Vec<Name> = acquired.iter().map(|acquired| acquired.name.clone()).collect();
        let undo = || -> Result<()> {
            let gate = self.gate(Instant::now() + LEAVING)?;
            let mut drafts = gate.load_all(&names)?;
            for (draft, Acquired { grant, .. }) in drafts.iter_mut().zip(acquired) {
                draft.record.holders.retain(|held| held.token != grant.token);
            }
            gate.store(&drafts)
        };
        if let Err(error) = undo() {
            self.warn(format!("what was granted could not be given back: {error}; see `lock list`"));
        }
    }

    /// Writes the grant into a record in which nobody is in the way.
    fn grant(&self, draft: &mut Draft, request: &Request, token: Token) -> Acquired {
        let name = draft.name.clone();
        let record = &mut draft.record;
        record.waiters.retain(|waiter| !waiter.process.is(&request.asker.process));
        let now = self.disk.now();
        let ttl = request.ttl.map(|ttl| ttl.as_secs_f64());
        let mut new = Grant {
            token,
            mode: request.ask.mode,
            owner: Some(request.asker.owner.clone()),
            command: request.command.clone(),
            since: rfc3339(now),
            count: 1,
            metadata: request.metadata.clone(),
            ttl,
            expires: ttl.map(|ttl| epoch(now) + ttl),
            live_file: request.live_file.clone(),
            quarantined: None,
        };
        let answered = match answer(&name, record, &request.asker, request.ask, &|_| false) {
            Answer::Count(own) => Some((own.token, Again::Counted)),
            Answer::Change(own) => Some((own.token, Again::Refused)),
            _ => None,
        };
        let own = answered.and_then(|(token, _)| record.holders.iter_mut().find(|grant| grant.token == token));
        let grant = match (own, answered) {
            (Some(own), Some((_, Again::Counted))) => {
                own.count = own.count.saturating_add(1);
                own.clone()
            }
            (Some(own), Some((_, Again::Refused))) => {
                new.count = own.count;
                new.metadata = new.metadata.or_else(|| own.metadata.clone());
                new.ttl = new.ttl.or(own.ttl);
                new.expires = new.expires.or(own.expires);
                *own = new.clone();
                new
            }
            _ => {
                record.holders.push(new.clone());
                new
            }
        };
        Acquired { name, grant }
    }

    /// Waits in the queues until nobody is in the way, and comes back behind the gate with the records as they are there,
    /// the dead taken off them. What is there need not be stored.
    pub(super) fn when_free<'a>(&'a self, request: &Request, place: &mut Place<'a>) -> Result<(Gate<'a>, Vec<Draft>)> {
        let started = Instant::now();
        let mut told = false;
        loop {
            let gate = self.gate(request.deadline.at)?;
            let mut drafts = gate.load_all(&request.names)?;
            let judge = gate.judge()?;
            for draft in &mut drafts {
                prune(&mut draft.record, &judge);
            }
            if request.ask.purpose == Purpose::Hold && judge.process(&request.asker.owner) == Liveness::Dead {
                return Err(owner_ended(&request.asker.owner));
            }
            let passed_over = |waiter: &Waiter| judge.waiter(waiter) == Patience::PassedOver;
            self.refuse_what_is_held(request, &drafts, &passed_over)?;
            if !drafts.iter().any(|draft| is_blocked(draft, request, &passed_over)) {
                return Ok((gate, drafts));
            }
            if request.deadline.is_over() {
                return Err(timed_out(request, &in_the_way(&drafts, request, &passed_over), started.elapsed()));
            }
            let in_queue = drafts.iter().all(|draft| draft.record.place_of(&request.asker.process).is_some());
            if !in_queue {
                for draft in &mut drafts {
                    draft.record.waiters.retain(|waiter| !waiter.process.is(&request.asker.process));
                    let waiter = self.waiter(request, draft);
                    enqueue(&mut draft.record, waiter);
                }
            }
            if !in_queue || told {
                self.refuse_deadlock(request, &gate, &drafts, &judge)?;
            }
            if !in_queue {
                gate.store(&drafts)?;
                place.taken = true;
            }
            drop(gate);
            if !in_queue {
                self.reserve_ahead(request.deadline.at); // while there is time
            }
            let tell_at = if told { request.deadline.at } else { (started + SILENCE).min(request.deadline.at) };
            if let Some(in_the_way) = self.sleep(request, tell_at)?
                && !told
                && !request.deadline.is_over()
            {
                told = true;
                self.tell(&sentence(&in_the_way));
            }
        }
    }

    fn waiter(&self, request: &Request, draft: &Draft) -> Waiter {
        let now = self.disk.now();
        let left = request.deadline.at.saturating_duration_since(Instant::now());
        Waiter {
            mode: request.ask.mode,
            owner: request.asker.owner.clone(),
            process: request.asker.process.clone(),
            command: request.command.clone(),
            since: rfc3339(now),
            until: epoch(now) + left.as_secs_f64(),
            own: request.asker.own_grant(&draft.name, &draft.record).map(|grant| grant.token),
            purpose: request.ask.purpose,
        }
    }

    /// Refuses what the owner or an ancestor holds already, and what is asked for out of order.
    fn refuse_what_is_held(
        &self,
        request: &Request,
        drafts: &[Draft],
        passed_over: &dyn Fn(&Waiter) -> bool,
    ) -> Result<()> {
        if request.ask.purpose == Purpose::Commit {
            return Ok(());
        }
        let mut new = Vec::new();
        for Draft { name, record, .. } in drafts {
            match answer(name, record, &request.asker, request.ask, passed_over) {
                Answer::AlreadyHeld(own) => return Err(already_held(name, own, request)),
                Answer::Free => new.push(name.clone()),
                Answer::Blocked if request.asker.own_grant(name, record).is_none() => new.push(name.clone()),
                _ => {}
            }
        }
        hierarchy::check(&new, &request.asker, |name| match self.dir()? {
            Some(dir) => match self.peek(&dir, name)? {
                Seen::Record(record) => Ok(record),
                Seen::Torn(_) => Ok(Record::default()),
            },
            None => Ok(Record::default()),
        })
    }

    fn refuse_deadlock(&self, request: &Request, gate: &Gate<'_>, drafts: &[Draft], judge: &Judge<'_>) -> Result<()> {
        if request.deadlocks == Deadlocks::Risked {
            return Ok(());
        }
        let mut records: Vec<(Name, Record)> = Vec::new();
        for name in self.names(gate.dir())? {
            if !request.names.contains(&name)
                && let Seen::Record(mut record) = self.peek(gate.dir(), &name)?
                && !record.waiters.is_empty()
            {
                prune(&mut record, judge);
                records.push((name, record));
            }
        }
        records.extend(drafts.iter().map(|draft| (draft.name.clone(), draft.record.clone())));
        let passed_over = |waiter: &Waiter| judge.waiter(waiter) == Patience::PassedOver;
        match Waits::new(&records, &passed_over).circle_of(&request.asker.process) {
            Some(deadlock) => Err(deadlock),
            None => Ok(()),
        }
    }

    /// Sleeps until nobody seems to be in the way any more, or until a moment; then who is.
    fn sleep(&self, request: &Request, until: Instant) -> Result<Option<Vec<InTheWay>>> {
        let mut alarm = Alarm::set();
        loop {
            let Some(dir) = self.dir()? else { return Ok(None) };
            let files = request.names.iter().map(|name| self.directory.join(LOCKS).join(format!("{name}.json")));
            let mut watchfulness = alarm.watch(files);
            let judge = Judge::new(&self.disk, &dir)?;
            if judge.process(&request.asker.owner) == Liveness::Dead {
                return Ok(None);
            }
            let mut records = Vec::new();
            for name in &request.names {
                let Seen::Record(mut record) = self.peek(&dir, name)? else { return Ok(None) };
                prune(&mut record, &judge);
                if record.place_of(&request.asker.process).is_none() {
                    return Ok(None);
                }
                records.push((name, record));
            }
            let passed_over = |waiter: &Waiter| judge.waiter(waiter) == Patience::PassedOver;
            let in_the_way: Vec<(&Name, Blocker<'_>)> = records
                .iter()
                .flat_map(|(name, record)| {
                    let blockers = blockers(name, record, &request.asker, request.ask, &passed_over);
                    blockers.into_iter().map(move |blocker| (*name, blocker))
                })
                .collect();
            if in_the_way.is_empty() {
                return Ok(None);
            }
            if Instant::now() >= until {
                let told = in_the_way.iter().map(|(name, blocker)| InTheWay::new(name, blocker));
                return Ok(Some(told.collect()));
            }
            let mut processes = vec![&request.asker.owner];
            let mut wake = until;
            for (_, blocker) in &in_the_way {
                match blocker {
                    Blocker::Holder(grant) => match grant.owner.as_ref().filter(|_| !is_unknown(&judge, grant)) {
                        Some(owner) => processes.push(owner),
                        None => {
                            watchfulness = Watchfulness::Intervals;
                            wake = wake.min(expiry(grant, epoch(self.disk.now())).unwrap_or(wake));
                        }
                    },
                    Blocker::Waiter(_) => watchfulness = watchfulness.max(Watchfulness::Heartbeat),
                }
            }
            // The nearest earlier waiter tells of all others: it is in turn behind them.
            if let Some((_, Blocker::Waiter(waiter))) = in_the_way.last() {
                processes.extend([&waiter.process, &waiter.owner]);
            }
            alarm.sleep(&processes, watchfulness, wake);
        }
    }
}

fn is_unknown(judge: &Judge<'_>, grant: &Grant) -> bool {
    grant.owner.as_ref().is_none_or(|owner| judge.process(owner) == Liveness::Unknown)
}

fn expiry(grant: &Grant, now: f64) -> Option<Instant> {
    let left = Duration::try_from_secs_f64((grant.expires? - now).max(0.0)).ok()?;
    Instant::now().checked_add(left)
}

fn is_blocked(draft: &Draft, request: &Request, passed_over: &dyn Fn(&Waiter) -> bool) -> bool {
    matches!(answer(&draft.name, &draft.record, &request.asker, request.ask, passed_over), Answer::Blocked)
}

fn in_the_way(drafts: &[Draft], request: &Request, passed_over: &dyn Fn(&Waiter) -> bool) -> Vec<InTheWay> {
    let of = |draft: &Draft| -> Vec<InTheWay> {
        let blockers = blockers(&draft.name, &draft.record, &request.asker, request.ask, passed_over);
        blockers.iter().map(|blocker| InTheWay::new(&draft.name, blocker)).collect()
    };
    drafts.iter().flat_map(of).collect()
}

impl InTheWay {
    fn new(lock: &Name, blocker: &Blocker<'_>) -> Self {
        let (pid, words) = match blocker {
            Blocker::Holder(grant) => {
                let shared = if grant.mode == Mode::Shared { ", shared" } else { "" };
                (
                    grant.owner.as_ref().map(|owner| owner.pid),
                    format!("held by {} since {}{shared}", holder(grant), grant.since),
                )
            }
            Blocker::Waiter(waiter) => {
                let words = format!("wanted earlier by {} ({})", waiter.owner.pid, waiter.command);
                (Some(waiter.owner.pid), words)
            }
        };
        Self { lock: lock.clone(), pid, words }
    }
}

/// A holder in words.
pub(super) fn holder(grant: &Grant) -> String {
    match (&grant.owner, &grant.quarantined) {
        (Some(owner), _) => format!("{} ({})", owner.pid, grant.command),
        (None, Some(kept)) => format!("nobody knows whom (its record was damaged and is {LOCKS}/{kept})"),
        (None, None) => "nobody knows whom".to_owned(),
    }
}

/// Those in the way in one sentence.
#[must_use]
pub fn sentence(in_the_way: &[InTheWay]) -> String {
    let mut shown: Vec<String> =
        in_the_way.iter().take(3).map(|one| format!("{} is {}", one.lock, one.words)).collect();
    if in_the_way.len() > 3 {
        shown.push(format!("and {} more", in_the_way.len() - 3));
    }
    shown.join("; ")
}

fn timed_out(request: &Request, in_the_way: &[InTheWay], waited: Duration) -> Error {
    let names = request.names.iter().map(Name::as_str).collect::<Vec<_>>().join(",");
    let why = sentence(in_the_way);
    let message = match request.ask.purpose {
        Purpose::Hold => {
            format!("{names} could not be had within {:.1} s: {why}", request.deadline.patience.as_secs_f64())
        }
        Purpose::Commit => format!("the state is locked: {why}; waited {:.1} s", waited.as_secs_f64()),
    };
    let blockers = in_the_way.iter().map(|one| json!({"lock": one.lock.as_str(), "pid": one.pid, "how": one.words}));
    let error = Error::new(Kind::LockTimeout, message)
        .detail("locks", request.names.iter().map(Name::as_str).collect::<Vec<_>>())
        .detail("blockedBy", blockers.collect::<Vec<_>>())
        .detail("waited", waited.as_secs_f64());
    match in_the_way.iter().find(|one| one.pid.is_none()) {
        Some(unknown) => {
            let why = "once you are sure that nobody holds it";
            error.try_command(format!("lock break {} --force", unknown.lock), why)
        }
        None => error.try_command("lock list", "see who holds what and who waits; wait longer with --lock-timeout 60"),
    }
}

fn already_held(name: &Name, own: &Grant, request: &Request) -> Error {
    let is_owners = own.owner.as_ref().is_some_and(|owner| owner.is(&request.asker.owner));
    let by = if is_owners { "this owner".to_owned() } else { format!("an ancestor, {}", holder(own)) };
    let token = own.token;
    Error::new(
        Kind::AlreadyHeld,
        format!("{name} is held already by {by}: {}, token {token}, since {}", own.mode, own.since),
    )
    .try_command(format!("lock release {name} --token {token}"), "give it back; or take it once more with --reentrant")
    .detail("lock", name.as_str())
    .detail("token", token.get())
    .detail("mode", own.mode.name())
    .detail("owner", own.owner.as_ref().map(|owner| owner.pid))
}

fn owner_ended(owner: &Identity) -> Error {
    let message = format!("process {}, which was to own the lock, has ended", owner.pid);
    Error::new(Kind::NotOwner, message).try_command("lock acquire NAME --owner-pid $$", "name a process that lives on")
}
