//! `state backup`: a copy that is made on purpose.

use super::change::{Changes, undamaged};
use super::edits::accepts_edits;
use super::ground::Ground;
use super::prune::surplus;
use super::queue::retry;
use crate::audit::Level;
use crate::error::Result;
use crate::etcd::messages::TxnRequest;
use crate::etcd::txn::{Keys, delete, put, put_at};
use crate::name::Name;
use crate::store::diagnosis::Health;
use crate::store::layout::{BackupName, manual_reason};
use crate::store::logged;
use crate::store::options::WriteOptions;

impl Changes<'_> {
    /// Makes a pinned copy of the current document, and returns its name.
    pub fn backup(&self, name: Option<&Name>) -> Result<String> {
        retry(self.store, || {
            let ground = Box::new(Ground::observe(self.store, &[])?);
            let ground = undamaged(ground, &WriteOptions::of("backup"))?;
            let revision = match &ground.health {
                Health::Healthy(document) => Some(document.seal.revision),
                Health::Legacy(_) => None,
                Health::Foreign(_) if accepts_edits(self.store) => {
                    self.store.lineages().seal_as_it_is(&WriteOptions::of("backup"))?;
                    return Ok(None);
                }
                _ => return Err(ground.refusal()),
            };
            let Some(text) = ground.text() else { return Err(ground.refusal()) };
            let now = self.store.now();
            let made = BackupName::new(now, revision, &manual_reason(name));
            let key = |name: &str| self.store.keys.backup(name);
            let surplus = surplus(&ground, &made, now);
            let mut success = vec![put(key(made.as_str()), text.clone())];
            success.extend(surplus.iter().map(|name| delete(&Keys::one(key(name)))));
            let compare = vec![put_at(self.store.keys.state(), ground.state_put_at())];
            let request = TxnRequest { compare, success, failure: Vec::new() };
            let is_made = self.store.client.commit(&request)?.succeeded;
            if is_made {
                let entry = logged::entry(Level::Info, "backup", "made");
                let entry = entry.with("file", made.as_str());
                self.store.log(entry.with("pid", std::process::id()));
            }
            Ok(is_made.then(|| made.as_str().to_owned()))
        })
    }
}
