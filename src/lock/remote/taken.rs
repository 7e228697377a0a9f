//! An order of a keeper, taken by a process.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::keeper::Keeper;
use super::notes::{Kept, Notes, NotesDir};
use super::order::Order;
use crate::audit::{Audit, AuditEntry, Level};
use crate::error::{Error, Kind, Result};
use crate::fs::Disk;
use crate::lock::liveness::{Lookup, RunState};
use crate::lock::process::lookup;
use crate::os::process::Handle;
use crate::os::uptime;

/// How long a look at the flock of an order may take, which takes it.
const A_LOOK: Duration = Duration::from_secs(1);
/// How often a keeper is looked at while its lease lasts.
const LOOKS: u32 = 8;

/// An order as a process has taken it.
pub(super) enum Taken {
    /// No other keeper carries it out.
    Own(Kept),
    /// Nothing can be noted on this host. There may be two keepers, which harm nothing.
    Unnoted,
    /// It was carried out, or another keeper has it.
    No,
}

impl Taken {
    /// Takes an order that no keeper has.
    pub fn of(order: &Order) -> Self {
        Self::by(order, |own| match own.is_kept(order.lease)? {
            true => Ok(None),
            false => own.keep(order.lease, A_LOOK),
        })
    }

    /// Takes an order when no keeper has it any more.
    pub fn after_others(order: &Order) -> Self {
        Self::by(order, |own| own.keep(order.lease, Duration::MAX))
    }

    fn by(order: &Order, take: impl FnOnce(Notes<'_>) -> Result<Option<Kept>>) -> Self {
        let notes = NotesDir::new(Disk::real(), order.runtime.clone());
        match notes.of(&order.owner).ok().flatten().map(take) {
            Some(Ok(Some(kept))) => Self::Own(kept),
            Some(Ok(None)) => Self::No,
            Some(Err(error)) if error.kind == Kind::NotFound => Self::No,
            Some(Err(_)) | None => Self::Unnoted,
        }
    }

    /// The order that this process was started with.
    pub fn inherited() -> Self {
        match Kept::inherited(Disk::real()) {
            Some(kept) => Self::Own(kept),
            None => Self::Unnoted,
        }
    }

    /// Carries the order out, until `stop` can be read.
    pub fn carry_out(self, order: Order, stop: UnixStream) {
        let kept = match self {
            Self::Own(kept) => Some(kept),
            Self::Unnoted => None,
            Self::No => return,
        };
        let (disk, root) = (Disk::real(), order.root.clone());
        let audit = Audit::new(disk.clone(), order.audit_log.clone(), &root);
        let notes = NotesDir::new(disk, order.runtime.clone());
        match Keeper::new(order, notes, kept, &audit, stop) {
            Ok(keeper) => keeper.run(),
            Err(error) => {
                // The lease ends by itself.
                let entry = AuditEntry::new(Level::Error, "lock-manager/keeper", &error.message);
                audit.record(&entry.with("root", root.display()));
            }
        }
    }
}

/// Waits for the end of a keeper. One that does not work is ended: it is stopped and has not
/// renewed its lease for half of its time; or all of its time has passed, and it has not noted
/// that the lease is lost. A keeper that is only cut off from the cluster goes on.
pub(super) fn end_of(mut keeper: Child, order: &Order) -> io::Result<ExitStatus> {
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

/// The error of a process or thread that could not be started.
pub(super) fn not_started(error: std::io::Error) -> Error {
    let kind = Kind::of_io(&error);
    Error::new(kind, format!("the keeper of the lock's lease cannot be started: {error}"))
        .hint_shell("ulimit -a", "see which limit was reached")
}
