//! Grants that this host has noted and the cluster no longer has.

use serde_json::json;

use super::RemoteLocks;
use super::ground::Ground;
use super::keeper_process::Host;
use super::notes::{Lost, Noted};
use crate::error::{Error, Kind};
use crate::lock::describe::join;
use crate::lock::identity::Identity;
use crate::lock::record::Token;
use crate::lock::request::Requester;
use crate::lock::run::RunSpec;
use crate::name::Name;

impl RemoteLocks {
    /// The error of an operation on a grant that is noted here and gone: that it was lost. It is
    /// said once.
    pub(super) fn lost_grant(
        &self,
        names: &[Name],
        token: Option<Token>,
        requester: &Requester,
        ground: &Ground,
    ) -> Option<Error> {
        let host = self.host.as_ref()?;
        let is_it = |noted: &Noted| {
            names.contains(&noted.lock)
                && token.is_none_or(|token| token == noted.token)
                && ground.held(&noted.lock, noted.token).is_none()
        };
        let lives = |lease| matches!(self.client.time_to_live(lease), Ok(Some(_)));
        host.first_lost(requester, is_it, lives, Kind::NotOwner)
    }

    /// Forgets the grants that were given back.
    pub(super) fn forget(&self, requester: &Requester, released: &[(Name, Token)]) {
        let Some(host) = &self.host else { return };
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
    pub(super) fn lost_of(&self, command: &Identity) -> Option<Lost> {
        let host = self.host.as_ref()?;
        let all = host.notes();
        let notes = all.of(command).ok()??;
        let grants = notes.grants(&host.store()).ok()?;
        grants.iter().find_map(|noted| notes.lost(noted.lease).ok()?)
    }
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
        let lost = notes.lost(noted.lease).ok().flatten();
        let _ = notes.remove(&noted);
        let Noted { lock, token, .. } = &noted;
        let how = match &lost {
            Some(Lost { time, why }) => format!("was lost at {time}: {why}"),
            None if lives(noted.lease) => "was taken away, or given back by its token".to_owned(),
            None => "was lost: its lease ended while nothing renewed it".to_owned(),
        };
        let message = format!("the grant {lock}:{token} {how}; nothing was changed");
        let again = format!("acquire it again: others may have held {lock} since");
        Some(
            Error::new(kind, message)
                .hint_command(format!("lock acquire {lock}"), again)
                .detail("lock", lock.as_str())
                .detail("token", token.get())
                .detail("lost", json!(lost.map(|lost| lost.time))),
        )
    }
}

impl RunSpec {
    /// Its locks, for messages.
    pub(super) fn shown(&self) -> String {
        join(&self.names)
    }
}
