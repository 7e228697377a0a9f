//! Starts keepers, and is one.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::RemoteLocks;
use super::keeper::{Keeper, Order};
use super::notes::{Noted, NotesDir};
use super::owner::OwnerLease;
use crate::audit::{Audit, AuditEntry, Level};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::etcd::credentials;
use crate::fs::Disk;
use crate::lock::edit::Acquired;
use crate::lock::identity::Identity;
use crate::lock::request::Requester;
use crate::lock::run::OnLost;
use crate::os::files::own_program;

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
    /// By a process of its own.
    InBackground(OnLost),
    /// By a thread of this process, which lives as long as the owner.
    InForeground(OnLost),
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
    ) -> Result<Option<JoinHandle<()>>> {
        let Some(host) = &self.host else { return Ok(None) };
        let all = host.notes();
        let notes = all.make(owner);
        let (Keeping::InBackground(on_lost) | Keeping::InForeground(on_lost)) = keeping;
        let order = host.order(lease, owner, on_lost);
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
        if let Keeping::InForeground(_) = keeping {
            return keep_in_foreground(order, all).map(Some);
        }
        let is_kept = notes.is_ok_and(|notes| notes.is_kept(lease.id).unwrap_or(false));
        if !is_kept {
            start(&order)?;
        }
        Ok(None)
    }

    /// Starts the keepers again that were killed while the requester's owner, or an ancestor, lives.
    pub(super) fn revive(&self, requester: &Requester) {
        let Some(host) = &self.host else { return };
        let all = host.notes();
        for owner in &requester.ancestry {
            let notes = all.of(owner).ok().flatten();
            for order in notes.and_then(|notes| notes.orphans().ok()).unwrap_or_default() {
                // If it cannot be started, the lease ends, and that is said then.
                let _ = start(&order);
            }
        }
    }
}

/// Starts a keeper. Nothing of this process stays open in it: a script may wait for that.
fn start(order: &Order) -> Result<()> {
    let text = serde_json::to_string(order)
        .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    let program = own_program().map_err(not_started)?;
    let mut command = Command::new(program);
    command.arg0("pipeline-state").args([KEEP, &text]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in credentials::FILES {
        if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
            command.env(name, std::path::absolute(&path).unwrap_or(path.into()));
        }
    }
    command.spawn().map(drop).map_err(not_started)
}

fn keep_in_foreground(order: Order, notes: NotesDir) -> Result<JoinHandle<()>> {
    let (runtime, audit_log, root) =
        (order.runtime.clone(), order.audit_log.clone(), order.root.clone());
    drop(notes);
    let (inside, outside) = UnixStream::pair().map_err(not_started)?;
    let keep = move || {
        let _outside = outside; // never asked to end
        let disk = Disk::real();
        let (notes, audit) =
            (NotesDir::new(disk.clone(), runtime), Audit::new(disk, audit_log, &root));
        if let Ok(keeper) = Keeper::new(order, notes, audit, inside) {
            keeper.run();
        }
    };
    std::thread::Builder::new().spawn(keep).map_err(not_started)
}

fn not_started(error: std::io::Error) -> Error {
    let kind = Kind::of_io(&error);
    Error::new(kind, format!("the keeper of the lock's lease cannot be started: {error}"))
        .hint_shell("ulimit -a", "see which limit was reached")
}

/// The process of a keeper.
pub fn main(order: &str) -> Result<()> {
    crate::os::process::detach();
    let order: Order =
        serde_json::from_str(order).map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
    let disk = Disk::real();
    let notes = NotesDir::new(disk.clone(), order.runtime.clone());
    let audit = Audit::new(disk, order.audit_log.clone(), &order.root);
    let (inside, outside) = UnixStream::pair().map_err(not_started)?;
    inside.set_nonblocking(true).map_err(not_started)?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let pipe = outside.try_clone().map_err(not_started)?;
        signal_hook::low_level::pipe::register(signal, pipe).map_err(not_started)?;
    }
    // Without notes there may be two keepers, which harm nothing.
    let own = notes.of(&order.owner).ok().flatten();
    let kept = own.map(|notes| notes.keep(order.lease));
    if let Some(Ok(None)) = &kept {
        return Ok(()); // another keeper has the order
    }
    let (log, disk) = (order.audit_log.clone(), Disk::real());
    let root = order.root.clone();
    match Keeper::new(order, notes.clone(), audit, inside) {
        Ok(keeper) => keeper.run(),
        Err(error) => {
            // The lease ends by itself.
            let entry = AuditEntry::new(Level::Error, "lock-manager/keeper", &error.message);
            Audit::new(disk, log, &root).record(&entry.with("root", root.display()));
        }
    }
    Ok(())
}
