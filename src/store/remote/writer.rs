//! This command as a writer: the grants of its script, and what became of them.

use super::RemoteStore;
use crate::error::Result;
use crate::lock::Fence;
use crate::lock::remote::{Committer, Held, Host, Loss, Obstacle};

/// A command that commits to a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'s> {
    store: &'s RemoteStore,
}

impl<'s> Writer<'s> {
    /// To `store`.
    pub(super) fn of(store: &'s RemoteStore) -> Self {
        Self { store }
    }

    /// The command and its ancestors.
    pub(super) fn committer(&self) -> Result<&'s Committer> {
        let known = &self.store.committer;
        if let Some(known) = known.get() {
            return Ok(known);
        }
        let committer = Committer::new(&self.store.settings.lock_env)?;
        Ok(known.get_or_init(|| committer))
    }

    /// A holder of the lock `state` that it waits for.
    pub(super) fn obstacle(&self, holders: &[Held]) -> Result<Option<Obstacle>> {
        match holders.is_empty() {
            true => Ok(None),
            false => self.committer()?.obstacle(holders),
        }
    }

    /// The grant of `state` under which it commits.
    pub(super) fn own_grant<'h>(&self, holders: &'h [Held]) -> Result<Option<&'h Held>> {
        match holders.is_empty() {
            true => Ok(None),
            false => self.committer()?.own(holders),
        }
    }

    /// Refuses a commit of a script that held the lock `state` and has lost it.
    pub(super) fn check_lost(&self, holders: &[Held]) -> Result<()> {
        match self.noted_grants() {
            Some(grants) => self.committer()?.check_lost(grants, holders, &self.store.client),
            None => Ok(()),
        }
    }

    /// What became of the grant of a fence, as far as its script has noted it on this host.
    pub(super) fn loss_of(&self, fence: &Fence) -> Option<Loss> {
        self.committer().ok()?.loss_of(self.noted_grants()?, fence, &self.store.client)
    }

    /// Starts the keepers again that were killed, of leases of the script that runs this command.
    pub(super) fn revive_keepers(&self) {
        if let (Some(grants), Ok(committer)) = (self.noted_grants(), self.committer()) {
            committer.revive(grants);
        }
    }

    /// What owners have noted on this host, if they have noted anything.
    fn noted_grants(&self) -> Option<&'s Host> {
        self.store.grants.as_ref().filter(|grants| !grants.notes().is_empty())
    }
}
