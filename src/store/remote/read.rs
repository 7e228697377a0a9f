//! Reading the document.

use super::{RemoteStore, StaleReads};
use crate::document::{Reading, inspect_text, rules};
use crate::error::{Error, Kind, Result};
use crate::etcd::txn::Keys;
use crate::store::diagnosis::Health;
use crate::store::{AutoRecover, Served};

impl RemoteStore {
    /// Reads the document. Damage is healed first, where that is allowed.
    pub fn read(&self) -> Result<Served> {
        self.settle_host_to_read();
        match self.read_current() {
            Err(error) if error.kind == Kind::Unreachable => self.read_stale(error),
            read => read,
        }
    }

    /// What a member has, where that is accepted; else the error.
    fn read_stale(&self, error: Error) -> Result<Served> {
        if self.surroundings.stale_reads == StaleReads::Refuse {
            return Err(error);
        }
        let Ok(answer) = self.client.range_of_member(&Keys::one(self.keys.state())) else {
            return Err(error);
        };
        let header = answer.header.unwrap_or_default();
        let Some(kv) = answer.kvs.into_iter().next() else { return Err(error) };
        let Reading::Sealed(document) = inspect_text(kv.value.clone()) else { return Err(error) };
        self.warn(format!(
            "this is what member {:x} has at its revision {}, and it may be old: {}",
            header.member_id, header.revision, error.message
        ));
        Ok(Served { value: document.value, bytes: kv.value })
    }

    fn read_current(&self) -> Result<Served> {
        // One request, and the digest, show that most documents can be served.
        if let Some(text) = self.value_of(self.keys.state())?
            && let Reading::Sealed(document) = inspect_text(text.clone())
            && rules::check(document.value.skeleton()).is_empty()
        {
            return Ok(Served { value: document.value, bytes: text });
        }
        self.retry(|| self.read_with_care())
    }

    /// Reads what a writer would read, and heals it; `None` if another command was faster.
    fn read_with_care(&self) -> Result<Option<Served>> {
        let ground = self.observe(&[])?;
        if let Health::Damaged(_) = ground.health
            && self.settings.auto_recover == AutoRecover::Yes
        {
            // What was committed is served: a second read could fail, after something was changed.
            let healed = ground.heal()?;
            return Ok(healed.map(|sealed| Served {
                bytes: sealed.text.whole(),
                value: sealed.document.value,
            }));
        }
        let served = Served::of(&ground.health, ground.text(), self.settings.foreign_edits)?;
        if let (Some(_), Health::Foreign(edit)) = (&served, &ground.health) {
            self.warn(format!(
                "{} was changed by something else and is served as it is: {}",
                self.shown,
                edit.summary()
            ));
        }
        served.map(Some).ok_or_else(|| ground.refusal())
    }

    /// The content of a signal's file; `None` if there is none.
    pub fn signal_file(&self, name: &crate::name::Name) -> Result<Option<bytes::Bytes>> {
        self.value_of(self.keys.signal(name.as_str()))
    }
}
