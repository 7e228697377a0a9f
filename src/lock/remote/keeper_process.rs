//! Starts keepers, and is one.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::RemoteLocks;
use super::keeper::{Keeper, Order};
use super::notes::{Kept, Noted, Notes, NotesDir};
use super::owner::OwnerLease;
use super::stand_in::StandIn;
use crate::audit::{Audit, AuditEntry, Level};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::etcd::credentials;
use crate::fs::Disk;
use crate::lock::edit::Acquired;
use crate::lock::identity::Identity;
use crate::lock::liveness::{Lookup, RunState};
use crate::lock::process::lookup;
use crate::lock::request::Requester;
use crate::lock::run::OnLost;
use crate::os::files::own_program;
use crate::os::process::{Handle, spawn_holding_signals};
use crate::os::uptime;

/// The first argument of a keeper; after it comes its order.
pub const KEEP: &str = "__keep";
/// How long a look at the flock of an order may take, which takes it.
const A_LOOK: Duration = Duration::from_secs(1);
/// How often a keeper is looked at while its lease lasts.
const LOOKS: u32 = 8;

/// What a keeper learns of this host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The store's address, with all that is in it.
    pub url: String,
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<PathBuf>,
    /// The audit log.
    pub audit_log: PathBuf,
    /// The root.
    pub root: PathBuf,
}

impl Host {
    /// The notes of this user on this host.
    pub fn notes(&self) -> NotesDir {
        NotesDir::new(Disk::real(), self.runtime.clone())
    }

    /// The store, in the names of notes.
    pub fn store(&self) -> String {
        Digest::of(self.url.as_bytes()).as_str().chars().take(8).collect()
    }

    /// The grants that are noted for the requester's owner or an ancestor.
    pub(super) fn noted(&self, requester: &Requester) -> Vec<(Identity, Noted)> {
        let (all, store) = (self.notes(), self.store());
        let mut noted = Vec::new();
        for owner in &requester.ancestry {
            let notes = all.of(owner).ok().flatten();
            let grants = notes.and_then(|notes| notes.grants(&store).ok()).unwrap_or_default();
            noted.extend(grants.into_iter().map(|grant| (owner.clone(), grant)));
        }
        noted
    }

    /// Starts the keepers again that were killed while the requester's owner, or an ancestor, lives.
    pub(crate) fn revive(&self, requester: &Requester) {
        let all = self.notes();
        for owner in &requester.ancestry {
            let notes = all.of(owner).ok().flatten();
            for order in notes.and_then(|notes| notes.orphans().ok()).unwrap_or_default() {
                // If it cannot be started, the lease ends, and that is said then.
                let _ = start(&order);
            }
        }
    }

    fn order(&self, lease: &OwnerLease, owner: &Identity, on_lost: OnLost) -> Order {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Order {
            url: self.url.clone(),
            lease: lease.id,
            ttl: u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX),
            name: lease.name.clone(),
            created: lease.created,
            owner: owner.clone(),
            on_lost,
            runtime: self.runtime.as_ref().map(absolute),
            audit_log: absolute(&self.audit_log),
            root: absolute(&self.root),
        }
    }
}

/// How the lease of an owner is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// By a process of its own, which outlives this one.
    Apart,
    /// By a process of its own. This one lives as long as the owner, and takes its place if it ends
    /// before.
    Watched(OnLost),
    /// By this process, which lives as long as the owner.
    Here(OnLost),
}

impl Keeping {
    fn on_lost(self) -> OnLost {
        match self {
            Self::Apart => OnLost::Keep,
            Self::Watched(on_lost) | Self::Here(on_lost) => on_lost,
        }
    }
}

impl RemoteLocks {
    /// Has the lease of new grants kept, and notes them. Nothing is kept where this is no host of
    /// owners.
    pub(super) fn keep(
        &self,
        lease: &OwnerLease,
        acquired: &[Acquired],
        owner: &Identity,
        keeping: Keeping,
    ) -> Result<Option<StandIn>> {
        let Some(host) = &self.host else { return Ok(None) };
        let all = host.notes();
        let notes = all.make(owner);
        let order = host.order(lease, owner, keeping.on_lost());
        match &notes {
            Ok(notes) => {
                notes.set_order(&order)?;
                for Acquired { name, grant, .. } in acquired {
                    notes.add(&host.store(), lease.id, name, grant.token)?;
                }
            }
            Err(error) => self.warn(format!(
                "a lock that is lost will not be said to be lost, since nothing can be noted: {error}"
            )),
        }
        Ok(match keeping {
            Keeping::Apart => {
                start(&order)?;
                None
            }
            Keeping::Watched(_) => Some(StandIn::after(start(&order)?, order)?),
            Keeping::Here(_) => Some(StandIn::at_once(order)?),
        })
    }

    /// Starts the keepers again that were killed while the requester's owner, or an ancestor, lives.
    pub(super) fn revive(&self, requester: &Requester) {
        self.host.iter().for_each(|host| host.revive(requester));
    }
}

/// Starts a keeper, unless there is one. It has the order from its first moment on. Nothing else of
/// this process stays open in it: a script may wait for that.
fn start(order: &Order) -> Result<Option<Child>> {
    let kept = match Taken::of(order) {
        Taken::Own(kept) => Stdio::from(kept.into_file()),
        Taken::Unnoted => Stdio::null(),
        Taken::No => return Ok(None),
    };
    let text = serde_json::to_string(order)
        .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    let program = own_program().map_err(not_started)?;
    let mut command = Command::new(program);
    command.arg0("pipeline-state").args([KEEP, &text]).current_dir("/");
    command.stdin(kept).stdout(Stdio::null()).stderr(Stdio::null());
    for name in credentials::FILES {
        if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
            command.env(name, std::path::absolute(&path).unwrap_or(path.into()));
        }
    }
    spawn_holding_signals(command).map(Some).map_err(not_started)
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
    fn inherited() -> Self {
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

pub(super) fn not_started(error: std::io::Error) -> Error {
    let kind = Kind::of_io(&error);
    Error::new(kind, format!("the keeper of the lock's lease cannot be started: {error}"))
        .hint_shell("ulimit -a", "see which limit was reached")
}

/// The process of a keeper.
pub fn main(order: &str) -> Result<()> {
    crate::os::process::detach();
    let order: Order =
        serde_json::from_str(order).map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
    let (inside, outside) = UnixStream::pair().map_err(not_started)?;
    inside.set_nonblocking(true).map_err(not_started)?;
    signal_hook::low_level::pipe::register(SIGTERM, outside).map_err(not_started)?;
    for signal in [SIGINT, SIGHUP] {
        // These are meant for a terminal's programs.
        signal_hook::flag::register(signal, Arc::default()).map_err(not_started)?;
    }
    crate::os::process::receive_signals();
    Taken::inherited().carry_out(order, inside);
    Ok(())
}
