//! Reading the document.

use super::RemoteStore;
use super::ground::Ground;
use super::heal::heal;
use super::meta::Meta;
use super::queue::retry;
use super::source::{Source, accepts_old_answers};
use crate::document::{Reading, inspect_text, rules};
use crate::error::{Error, Kind, Result};
use crate::etcd::txn::Keys;
use crate::store::diagnosis::Health;
use crate::store::{AutoRecover, Served};

/// Reads the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'s> {
    store: &'s RemoteStore,
}

impl<'s> Reader<'s> {
    /// Of `store`.
    pub(super) fn of(store: &'s RemoteStore) -> Self {
        Self { store }
    }

    /// Reads the document. Damage is healed first, where that is allowed.
    pub fn read(&self) -> Result<Served> {
        self.store.intents().settle_to_read();
        match self.read_current() {
            Err(error) if error.kind == Kind::Unreachable => self.read_stale(error),
            read => read,
        }
    }

    /// What a member has, where that is accepted; else the error.
    fn read_stale(&self, error: Error) -> Result<Served> {
        if !accepts_old_answers(self.store, &error) {
            return Err(error);
        }
        match self.read_from(Source::Member) {
            Ok(Some(served)) => Ok(served),
            _ => Err(error),
        }
    }

    /// The document, where one request shows that it can be served.
    fn read_from(&self, source: Source) -> Result<Option<Served>> {
        let keys = [self.store.keys.meta(), self.store.keys.state()];
        let answer = source.snapshot(self.store, keys.map(|key| Keys::one(key).read()))?;
        let mut found = answer.ranges().map(|mut range| range.kvs.pop());
        let (meta, state) = (found.next().flatten(), found.next().flatten());
        let (Some(meta), Some(text)) = (meta, state.map(|kv| kv.value)) else { return Ok(None) };
        let Reading::Sealed(document) = inspect_text(text.clone()) else { return Ok(None) };
        let is_served = Meta::is_of(&meta, &document.seal.lineage)
            && rules::check(document.value.skeleton()).is_empty();
        Ok(is_served.then(|| Served { value: document.value, bytes: text }))
    }

    fn read_current(&self) -> Result<Served> {
        if let Some(served) = self.read_from(Source::Cluster)? {
            return Ok(served);
        }
        retry(self.store, || self.read_with_care())
    }

    /// Reads what a writer would read, and heals it; `None` if another command was faster.
    fn read_with_care(&self) -> Result<Option<Served>> {
        let ground = Ground::observe(self.store, &[])?;
        if let Health::Damaged(_) = ground.health
            && self.store.settings.auto_recover == AutoRecover::Yes
        {
            // What was committed is served: a second read could fail, after something was changed.
            let healed = heal(&ground)?;
            return Ok(healed.map(|sealed| Served {
                bytes: sealed.text.whole(),
                value: sealed.document.value,
            }));
        }
        let served = Served::of(&ground.health, ground.text(), self.store.settings.foreign_edits)?;
        if let (Some(_), Health::Foreign(edit)) = (&served, &ground.health) {
            self.store.warn(format!(
                "{} was changed by something else and is served as it is: {}",
                self.store.shown,
                edit.summary()
            ));
        }
        served.map(Some).ok_or_else(|| ground.refusal())
    }
}
