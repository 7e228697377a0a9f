//! Grants that this host has noted and the cluster no longer has.

use std::fmt;

use super::RemoteLocks;
use super::ground::Ground;
use super::keeper_process::Host;
use super::notes::{Lost, Noted, Notes};
use crate::error::{Error, Kind, Result};
use crate::etcd::client::Client;
use crate::lock::describe::join;
use crate::lock::identity::Identity;
use crate::lock::record::{Grant, Token};
use crate::lock::request::Requester;
use crate::lock::run::RunSpec;
use crate::name::Name;

/// The error of an operation on a grant that is noted here and gone: that it was lost. It is
/// said once.
pub(super) fn lost_grant(
    locks: &RemoteLocks,
    names: &[Name],
    token: Option<Token>,
    requester: &Requester,
    ground: &Ground,
) -> Option<Error> {
    let host = locks.host.as_ref()?;
    let is_it = |noted: &Noted| {
        names.contains(&noted.lock)
            && token.is_none_or(|token| token == noted.token)
            && ground.held(&noted.lock, noted.token).is_none()
    };
    host.first_lost(requester, is_it, |lease| lives(&locks.client, lease), Kind::NotOwner)
}

/// Refuses an operation on the grant of an ancestor where the requester, or an ancestor nearer to
/// it, has lost a grant of its own.
pub(super) fn check_nearer(
    locks: &RemoteLocks,
    name: &Name,
    grant: &Grant,
    requester: &Requester,
    ground: &Ground,
) -> Result<()> {
    let is_nearer = |one: &&Identity| !grant.owner.as_ref().is_some_and(|owner| one.is(owner));
    let nearer = requester.ancestry.iter().take_while(is_nearer).cloned().collect();
    let nearer = Requester { ancestry: nearer, ..requester.clone() };
    let lost = lost_grant(locks, std::slice::from_ref(name), None, &nearer, ground);
    lost.map_or(Ok(()), Err)
}

/// Forgets the grants that were given back.
pub(super) fn forget(locks: &RemoteLocks, requester: &Requester, released: &[(Name, Token)]) {
    let Some(host) = &locks.host else { return };
    let notes = host.notes();
    for (owner, noted) in host.noted(requester) {
        if released.contains(&(noted.lock.clone(), noted.token))
            && let Ok(Some(notes)) = notes.of(&owner)
        {
            let _ = notes.remove(&noted);
        }
    }
}

/// When and why the lease of a command was lost.
pub(super) fn lost_of(locks: &RemoteLocks, command: &Identity) -> Option<Lost> {
    let host = locks.host.as_ref()?;
    let all = host.notes();
    let notes = all.of(command).ok()??;
    let grants = notes.grants(&host.store()).ok()?;
    grants.iter().find_map(|noted| notes.lost(noted.lease).ok()?)
}

impl Host {
    /// The error for the first noted grant that is gone, by `is_gone`; `lives` says whether a
    /// lease does. Its note is removed.
    pub(crate) fn first_lost(
        &self,
        requester: &Requester,
        is_gone: impl Fn(&Noted) -> bool,
        lives: impl Fn(i64) -> bool,
        kind: Kind,
    ) -> Option<Error> {
        let all = self.notes();
        let (owner, noted) = self.noted(requester).into_iter().find(|(_, noted)| is_gone(noted))?;
        let notes = all.of(&owner).ok()??;
        let loss = self.loss(&notes, &noted, lives);
        let _ = notes.remove(&noted);
        let Noted { lock, token, .. } = &noted;
        let message = format!("the grant {lock}:{token} {loss}; nothing was changed");
        let again = format!("acquire it again: others may have held {lock} since");
        Some(
            Error::new(kind, message)
                .hint_command(format!("lock acquire {lock}"), again)
                .detail("lock", lock.as_str())
                .detail("token", token.get())
                .detail("lost", loss.time()),
        )
    }

    /// What became of a noted grant that is gone; `None` if it is not noted here.
    pub(crate) fn loss_of(
        &self,
        lock: &Name,
        token: Token,
        requester: &Requester,
        lives: impl Fn(i64) -> bool,
    ) -> Option<Loss> {
        let is_it = |noted: &Noted| noted.lock == *lock && noted.token == token;
        let (owner, noted) = self.noted(requester).into_iter().find(|(_, noted)| is_it(noted))?;
        Some(self.loss(&self.notes().of(&owner).ok()??, &noted, lives))
    }

    fn loss(&self, notes: &Notes<'_>, noted: &Noted, lives: impl Fn(i64) -> bool) -> Loss {
        let is_seen = matches!(notes.lost(noted.lease), Ok(Some(_)));
        match notes.loss(noted.lease) {
            _ if !is_seen && lives(noted.lease) => Loss::Taken,
            Ok(Some(lost)) => Loss::Ended(lost),
            _ => Loss::Unseen,
        }
    }
}

/// What became of a grant that its owner has not given back.
#[derive(Debug)]
pub enum Loss {
    /// Its lease ended, then and for this reason.
    Ended(Lost),
    /// Its lease lives.
    Taken,
    /// Nothing on this host shows it.
    Unseen,
}

impl Loss {
    /// When it was lost, if that is known.
    pub fn time(&self) -> Option<&str> {
        match self {
            Self::Ended(Lost { time, .. }) => Some(time),
            Self::Taken | Self::Unseen => None,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Lost { time, why }) => write!(f, "was lost at {time}: {why}"),
            Self::Taken => f.write_str("was taken away, or given back by its token"),
            Self::Unseen => f.write_str("was lost: its lease ended while nothing renewed it"),
        }
    }
}

/// Returns whether a lease certainly lives.
pub(super) fn lives(client: &Client, lease: i64) -> bool {
    matches!(client.time_to_live(lease), Ok(Some(_)))
}

impl RunSpec {
    /// Its locks, for messages.
    pub(super) fn shown(&self) -> String {
        join(&self.names)
    }
}
