//! Starts keepers, and is one.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::RemoteLocks;
use super::notes::{Noted, NotesDir};
use super::order::Order;
use super::owner::OwnerLease;
use super::stand_in::StandIn;
use super::taken::{Taken, not_started};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::etcd::credentials;
use crate::fs::Disk;
use crate::lock::edit::Acquired;
use crate::lock::identity::Identity;
use crate::lock::request::Requester;
use crate::lock::run::OnLost;
use crate::os::files::own_program;
use crate::os::process::spawn_holding_signals;

/// The first argument of a keeper; after it comes its order.
pub const KEEP: &str = "__keep";
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

    /// Starts killed keepers again while the requester's owner, or an ancestor, lives.
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

/// Has the lease of new grants kept, and notes them. Nothing is kept where this is no host of
/// owners.
pub(super) fn keep(
    locks: &RemoteLocks,
    lease: &OwnerLease,
    acquired: &[Acquired],
    owner: &Identity,
    keeping: Keeping,
) -> Result<Option<StandIn>> {
    let Some(host) = &locks.host else { return Ok(None) };
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
        Err(error) => locks.warn(format!(
            "a lock that is lost will not be said to be lost, since nothing can be noted: \
             {error}"
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

/// Starts killed keepers again while the requester's owner, or an ancestor, lives.
pub(super) fn revive(locks: &RemoteLocks, requester: &Requester) {
    locks.host.iter().for_each(|host| host.revive(requester));
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
