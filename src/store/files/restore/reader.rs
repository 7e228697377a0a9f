//! Readers of a root whose restore was interrupted.

use std::time::Instant;

use super::intents::Intents;
use super::origin::foreign;
use super::roll_forward::is_it;
use crate::document::Reading;
use crate::error::{Kind, Result};
use crate::store::files::begin::Transactions;
use crate::store::files::new_lineage::intent::foreign_start;
use crate::store::files::root::Root;
use crate::store::files::staging::Staging;
use crate::store::options::LockPurpose;
use crate::store::served::{Served, written};

impl Intents<'_> {
    /// For readers: finishes an interrupted restore; where that is impossible, for whatever reason,
    /// returns the document as it is going to be.
    pub(in crate::store::files) fn finish_for_reader(&self) -> Result<Option<Served>> {
        let root = Root::of(self.store).open()?;
        let refusal = match self.store.intents().read(&root) {
            Ok(Some((_, intent))) => foreign(self.store, &root, &intent)?,
            Ok(None) => foreign_start(self.store, &root)?,
            Err(_) => None,
        };
        if let Some(refusal) = refusal {
            self.store.warn(format!("{refusal}; the live state is served"));
            return Ok(None);
        }
        let deadline = Instant::now() + Staging::of(self.store).readers_patience();
        let error =
            match Transactions::of(self.store).lock_state(LockPurpose::Write, deadline).map(drop) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind == Kind::NewerSchema => return Err(error),
                Err(error) => error,
            };
        let Some((dir, intent)) = self.store.intents().read(&root)? else { return Ok(None) };
        let Some(wanted) = &intent.state else { return Ok(None) };
        if let Some(Reading::Sealed(live)) = Root::of(self.store).live()?.map(|found| found.reading)
            && is_it(&live, wanted)
        {
            return Ok(None);
        }
        let Some(sealed) = self.store.intents().staged_state(&dir, intent.number, wanted)? else {
            return Err(error);
        };
        self.store.warn(format!(
            "a restore of {} was interrupted, and finishing it was not possible: {error}; \
             the state as it is going to be is served",
            intent.checkpoint
        ));
        let bytes = match &sealed.document.older {
            None => sealed.text.whole(),
            Some(_) => written(&sealed.document.value)?,
        };
        Ok(Some(Served { value: sealed.document.value, bytes }))
    }
}
