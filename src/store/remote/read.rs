//! Reading the document.

use super::RemoteStore;
use crate::document::{Reading, inspect_text, rules};
use crate::error::Result;
use crate::store::diagnosis::Health;
use crate::store::{AutoRecover, Served};

impl RemoteStore {
    /// Reads the document. Damage is healed first, where that is allowed.
    pub fn read(&self) -> Result<Served> {
        self.settle_host_to_read();
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
