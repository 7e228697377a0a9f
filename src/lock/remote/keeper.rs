//! The keeper: a small process that renews the lease of an owner while the owner lives.
//!
//! It ends the lease as soon as the owner has ended, however that was, so that waiters on all hosts
//! are woken at once. If its host is cut off from the cluster, the lease ends by itself; the keeper
//! counts that on a clock which goes on while the machine sleeps, from the moment at which it sent
//! the last request that was answered, so it never believes in a lease that the cluster has ended.
//! A keeper that was killed is started again by the next command of its owner; that of a command of
//! `lock run` is replaced at once by the process that started the command.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::keys::LockKeys;
use super::notes::{Kept, Lost, NotesDir};
use super::order::Order;
use crate::audit::{Audit, AuditEntry, Level};
use crate::error::Result;
use crate::etcd::address::Address;
use crate::etcd::client::{Client, Patience};
use crate::etcd::credentials::Credentials;
use crate::etcd::endpoints::Endpoints;
use crate::etcd::failure::Failure;
use crate::etcd::messages::TxnRequest;
use crate::etcd::txn::{Keys, created_at, created_before, delete, snapshot};
use crate::lock::process::Process;
use crate::lock::run::OnLost;
use crate::os::process::{Ends, Handle};
use crate::os::uptime;
use crate::time::rfc3339_millis;

/// How long a request of a keeper is repeated before the keeper looks at its owner again.
const PATIENCE: Patience =
    Patience { reach: Duration::from_secs(1), settle: Duration::from_secs(1) };
/// The pause after a renewal that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a lease without grants is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How long an owner may take to end after its keeper was asked to.
const OWNERS_END: Duration = Duration::from_secs(1);
/// How long a command may take to end after its locks were lost.
const GRACE: Duration = Duration::from_secs(10);

/// Why a keeper ends.
#[derive(Debug)]
enum End {
    /// The owner has ended.
    OwnerEnded,
    /// The lease is lost: why.
    Lost(String),
    /// The lease had carried nothing for long, and is ended.
    Idle,
    /// It was asked to end, and the owner lives.
    Asked,
}

/// A keeper at work.
pub(super) struct Keeper<'a> {
    order: Order,
    client: Client,
    keys: LockKeys,
    audit: &'a Audit,
    notes: NotesDir,
    /// The order on this host; none where nothing can be noted.
    kept: Option<Kept>,
    /// Readable when this process is asked to end.
    stop: UnixStream,
    /// Until when the lease certainly lasts, by [`uptime`].
    valid: Duration,
    /// Since when the lease has carried no grant.
    idle: Option<Instant>,
    /// The last failure that was logged.
    logged: String,
}

/// What a keeper woke for.
enum Woken {
    Time,
    OwnerEnded,
    Asked,
}

impl<'a> Keeper<'a> {
    /// A keeper with this order, until `stop` can be read.
    pub fn new(
        order: Order,
        notes: NotesDir,
        kept: Option<Kept>,
        audit: &'a Audit,
        stop: UnixStream,
    ) -> Result<Self> {
        let address = Address::parse(&order.url)?;
        let credentials =
            Credentials::of(|name| std::env::var_os(name).filter(|text| !text.is_empty()))?;
        let user = credentials.user.clone();
        let wire = Endpoints::new(&address, credentials)?;
        let client = Client::new(Box::new(wire), user, PATIENCE);
        let keys = LockKeys::new(&address.prefix);
        // An earlier keeper may have ended long ago.
        let renewed = kept.as_ref().and_then(Kept::renewed);
        let age = renewed.and_then(|at| SystemTime::now().duration_since(at).ok());
        let left = Duration::from_millis(order.ttl).saturating_sub(age.unwrap_or_default());
        let (valid, logged) = (uptime() + left, String::new());
        Ok(Self { order, client, keys, audit, notes, kept, stop, valid, idle: None, logged })
    }

    /// Keeps the lease until the owner ends, or it is lost.
    pub fn run(mut self) {
        let mut ends = Ends::default();
        let is_there = ends.add(self.order.owner.pid)
            && Process::of(self.order.owner.pid)
                .is_ok_and(|process| process.start == self.order.owner.start);
        let end = if is_there { self.keep(&ends) } else { End::OwnerEnded };
        match end {
            End::OwnerEnded => {
                self.revoke();
                let _ = self.notes.sweep();
            }
            End::Idle => self.forget(),
            End::Lost(why) => self.lost(&why),
            End::Asked => {
                let text = "a keeper was ended; its lease ends unless its owner runs a command";
                self.log(Level::Warn, text);
            }
        }
    }

    fn keep(&mut self, ends: &Ends) -> End {
        let every = Duration::from_millis(self.order.ttl / 3);
        loop {
            let sent = uptime();
            let wake = match self.renew(sent) {
                Ok(None) => Instant::now() + every,
                Ok(Some(end)) => return end,
                Err(failure) => {
                    self.log_failure(&failure);
                    if uptime() >= self.valid {
                        return End::Lost(format!("this host was cut off: {failure}"));
                    }
                    Instant::now() + PAUSE
                }
            };
            match self.sleep(ends, wake) {
                Woken::Time => {}
                Woken::OwnerEnded => return End::OwnerEnded,
                Woken::Asked => {
                    let owner = Handle::of(self.order.owner.pid);
                    return match owner.ends_before(Instant::now() + OWNERS_END) {
                        true => End::OwnerEnded,
                        false => End::Asked,
                    };
                }
            }
        }
    }

    /// Renews the lease; returns why the keeper ends, if it does. The lease's keys are looked at as
    /// well: some versions of etcd renew leases that have ended.
    fn renew(&mut self, sent: Duration) -> std::result::Result<Option<End>, Failure> {
        let lease = self.order.lease;
        let ended = || Ok(Some(End::Lost("its lease had ended on the cluster".to_owned())));
        let Some(left) = self.client.renew(lease)? else { return ended() };
        self.valid = sent + left;
        if let Some(kept) = &self.kept {
            kept.set_renewed(SystemTime::now() - uptime().saturating_sub(sent));
        }
        self.logged.clear();
        let Some((_, keys)) = self.client.time_to_live(lease)? else { return ended() };
        let own = self.keys.owner(&self.order.name);
        if !keys.iter().any(|key| *key == own) {
            return ended();
        }
        match keys.len() {
            1 => self.end_idle(&own),
            _ => {
                self.idle = None;
                Ok(None)
            }
        }
    }

    /// Ends a lease that has carried no grant for long.
    fn end_idle(&mut self, own: &str) -> std::result::Result<Option<End>, Failure> {
        if self.idle.get_or_insert_with(Instant::now).elapsed() < IDLE {
            return Ok(None);
        }
        let at = self.client.snapshot(&snapshot([Keys::one(own.to_owned()).list()]))?.revision();
        let is_empty =
            self.client.time_to_live(self.order.lease)?.is_some_and(|(_, keys)| keys.len() == 1);
        // A grant that is being made needs that key; and none was made since it was seen alone.
        let request = TxnRequest {
            compare: vec![
                created_at(own.to_owned(), self.order.created),
                created_before(&self.keys.all_grants(), at + 1),
            ],
            success: vec![delete(&Keys::one(own.to_owned()))],
            failure: Vec::new(),
        };
        if is_empty && self.client.commit(&request)?.succeeded {
            let _ = self.client.revoke(self.order.lease);
            return Ok(Some(End::Idle));
        }
        Ok(None)
    }

    /// Sleeps until a moment, the owner's end, or a request to end.
    fn sleep(&mut self, ends: &Ends, until: Instant) -> Woken {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let stop = self.stop.as_fd();
            let mut sources: Vec<PollFd<'_>> = ends
                .descriptors()
                .chain([stop])
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let timeout = Timespec::try_from(left).ok();
            let _ = poll(&mut sources, timeout.as_ref());
            let ready = |source: &PollFd<'_>| !source.revents().is_empty();
            let is_asked = sources.pop().is_some_and(|source| ready(&source));
            if sources.iter().any(ready) {
                return Woken::OwnerEnded;
            }
            if is_asked {
                drop(sources);
                let _ = self.stop.read(&mut [0; 64]);
                return Woken::Asked;
            }
            if Instant::now() >= until {
                return Woken::Time;
            }
        }
    }

    /// Ends the lease, as long as there is one.
    fn revoke(&self) {
        while uptime() < self.valid {
            match self.client.revoke(self.order.lease) {
                Err(failure) if failure.is_transient() => std::thread::sleep(PAUSE),
                _ => return,
            }
        }
    }

    /// The lease is lost: its owner's next command says so, and a command of `lock run` is ended.
    fn lost(&self, why: &str) {
        // An earlier keeper may have ended long ago.
        let renewed = self.kept.as_ref().and_then(Kept::renewed);
        let end = renewed.map(|at| at + Duration::from_millis(self.order.ttl));
        let now = SystemTime::now();
        let time = rfc3339_millis(end.map_or(now, |end| end.min(now)));
        let lost = Lost { time, why: why.to_owned() };
        if let Ok(Some(notes)) = self.notes.of(&self.order.owner) {
            let _ = notes.set_lost(self.order.lease, &lost);
        }
        self.log(Level::Error, &format!("locks were lost: {why}"));
        if self.order.on_lost == OnLost::End {
            let owner = Handle::of(self.order.owner.pid);
            let is_it = Process::of(self.order.owner.pid)
                .is_ok_and(|process| process.start == self.order.owner.start);
            if is_it {
                owner.send(Signal::TERM);
                if !owner.ends_before(Instant::now() + GRACE) {
                    owner.send(Signal::KILL);
                }
            }
        }
        self.forget();
    }

    /// No keeper is missing where this one was.
    fn forget(&self) {
        if let Ok(Some(notes)) = self.notes.of(&self.order.owner) {
            let _ = notes.end_order(self.order.lease);
        }
    }

    fn log(&self, level: Level, text: &str) {
        let entry = AuditEntry::new(level, "lock-manager/keeper", text)
            .with("store", &self.order.url)
            .with("lease", format!("{:016x}", self.order.lease))
            .with("owner", self.order.owner.pid)
            .with("pid", std::process::id());
        self.audit.record(&entry.with("root", self.order.root.display()));
    }

    /// Logs at once why a lease cannot be renewed: later it is lost.
    fn log_failure(&mut self, failure: &Failure) {
        let why = failure.to_string();
        if self.logged != why {
            self.log(Level::Warn, &format!("a lease cannot be renewed: {why}"));
            self.logged = why;
        }
    }
}
