//! `validate`, and what `init` and `migrate` ask before they change anything.

use serde_json::Value;

use super::RemoteStore;
use crate::document::inspect_text;
use crate::document::schema::OldForm;
use crate::error::Result;
use crate::store::diagnosis::{Health, known};
use crate::store::report::{Validation, note_of};

impl RemoteStore {
    /// Checks the document as every command would.
    pub fn validate(&self) -> Result<Validation> {
        let ground = self.observe_to_report()?;
        let error = ground.problem();
        let note = note_of(&ground.health);
        Ok(Validation::of_live(&ground.health, &self.shown, error, note))
    }

    /// The document that is there, valid or not, for reports; nothing is healed.
    pub fn read_as_it_is(&self) -> Result<Option<Value>> {
        let ground = self.observe_to_report()?;
        let reading = ground.text().map(|text| inspect_text(text.clone()));
        Ok(known(&ground.health, reading.as_ref()).cloned())
    }

    /// The form that the document would be migrated from; `None` if it has the current form.
    pub fn pending_migration(&self) -> Result<Option<OldForm>> {
        Ok(self.observe(&[])?.health.migrates_from().cloned())
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        let ground = self.observe(&[]).ok()?;
        let document = match &ground.health {
            Health::Healthy(document) => Value::clone(document.value.skeleton()),
            Health::Legacy(migrated) => migrated.value.clone(),
            _ => return None,
        };
        Some(crate::store::fresh::in_words(&document))
    }
}
