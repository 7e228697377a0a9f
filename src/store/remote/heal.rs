//! Recovery: a copy takes the place of a document that is damaged, missing or unwanted.

use serde_json::{Map, Value};

use super::RemoteStore;
use super::commit::{Kept, Landed, Plan};
use super::ground::{Ground, name_in};
use super::queue::{Attempt, Place};
use crate::document::contents::without_seal;
use crate::document::diff::{Difference, diff};
use crate::document::inspect_text;
use crate::document::seal::{Revision, Sealed, to_bytes};
use crate::error::{Error, Kind, Result};
use crate::etcd::txn::Keys;
use crate::name::Name;
use crate::store::candidate::{Candidate, Wanted, written_by_a_newer_program};
use crate::store::copies::{BackupCopy, Copies, newest_valid};
use crate::store::diagnosis::{Health, known};
use crate::store::heal::Recovered;
use crate::store::layout::{BackupName, pinned};
use crate::store::options::WriteOptions;
use crate::store::signal::{SignalFile, Signals, blank};

/// The action under which healing is logged.
const HEAL: &str = "heal";

impl RemoteStore {
    /// `state recover`.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        self.in_turn(options, |ground, place| {
            let recovered = ground.recover(wanted, options, place)?;
            Ok(recovered.map_or(Attempt::Overtaken(None), Attempt::Ended))
        })
    }

    /// The copy that a recovery would restore, and the differences it would make; `None` if there
    /// is nothing to recover.
    pub fn plan_recovery(&self, wanted: &Wanted) -> Result<Option<(String, Vec<Difference>)>> {
        let ground = self.observe(&[])?;
        let copy = match (&ground.health, wanted) {
            (Health::Healthy(_) | Health::Legacy(_), Wanted::Newest) => return Ok(None),
            (Health::NotInitialized | Health::TooNew(_), _) => return Err(ground.refusal()),
            (_, Wanted::Newest) => ground.newest_copy()?,
            _ => wanted.choose(ground.copies()?, ground.lineage.as_ref())?,
        };
        let reading = ground.text().map(|text| inspect_text(text.clone()));
        let current = known(&ground.health, reading.as_ref()).cloned().unwrap_or_default();
        let changes = diff(&without_seal(&current), &without_seal(copy.document.value()));
        Ok(Some((copy.name, changes)))
    }
}

impl Ground<'_> {
    /// One attempt of a recovery; `None` if another writer was faster.
    fn recover(
        &self,
        wanted: &Wanted,
        options: &WriteOptions,
        place: Option<&Place>,
    ) -> Result<Option<Recovered>> {
        let is_valid = matches!(self.health, Health::Healthy(_) | Health::Legacy(_));
        if let Health::TooNew(_) | Health::NotInitialized = self.health {
            return Err(self.refusal());
        }
        self.check_conditions(options)?;
        let copy = match wanted {
            Wanted::Newest if is_valid => {
                let mut backups = self.backups.iter().rev();
                let pre_migration = backups.find(|backup| backup.reason == pinned::PRE_MIGRATION);
                let pre_migration = pre_migration.map(|name| name.as_str().to_owned());
                return Ok(Some(Recovered::NothingToDo { pre_migration }));
            }
            Wanted::Newest => self.newest_copy()?,
            wanted => wanted.choose(self.copies()?, self.lineage.as_ref())?,
        };
        let kept = match &self.health {
            Health::Healthy(document) => self.backed_up(Some(document.seal.revision)),
            Health::Legacy(_) => self.backed_up(None),
            _ => self.evidence(),
        };
        let sealed = self.bring_back(&copy, kept, options, place)?;
        let revision = sealed.map(|sealed| sealed.document.seal.revision);
        if let (Some(_), false) = (revision, is_valid)
            && let Some(lost) = self.lost_after(copy.document.revision())
        {
            self.store.warn(lost);
        }
        Ok(revision.map(|revision| Recovered::From { file: copy.name, revision }))
    }

    /// The current revision as users see it; 0 where there is none. For a foreign edit the last one
    /// that was acknowledged, kept or not.
    pub(super) fn revision(&self) -> u64 {
        match (self.sealed(), &self.health, &self.newest) {
            (Some(document), ..) => document.seal.revision.get(),
            (_, Health::Foreign(_), Some(newest)) => newest.revision.get(),
            (_, Health::Foreign(edit), None) => edit.revision(),
            _ => 0,
        }
    }

    /// Replaces a damaged document by the newest valid copy, and returns what is there now; `None`
    /// if another writer was faster.
    pub(super) fn heal(&self) -> Result<Option<Sealed>> {
        let copy = self.newest_copy()?;
        let options = WriteOptions::of(HEAL);
        let evidence = self.evidence();
        let kept = match evidence {
            Kept::Nothing => String::new(),
            _ => format!("; what was damaged is kept below {}", self.store.keys.evidence_prefix()),
        };
        let Some(sealed) = self.bring_back(&copy, evidence, &options, None)? else {
            return Ok(None);
        };
        let revision = sealed.document.seal.revision;
        let why = match &self.health {
            Health::Damaged(why) => why.as_str(),
            _ => "damaged",
        };
        let lost = self.lost_after(copy.document.revision());
        let lost = lost.map_or_else(String::new, |lost| format!("; {lost}"));
        self.store.warn(format!(
            "{} was damaged ({why}); {} was restored as revision {revision}{kept}{lost}",
            self.store.shown, copy.name,
        ));
        Ok(Some(sealed))
    }

    /// The warning that acknowledged revisions after `kept` are lost, if there are any.
    pub(super) fn lost_after(&self, kept: Option<Revision>) -> Option<String> {
        let last = self.newest.as_ref().map(|newest| newest.revision)?;
        let is_lost = Some(last) > kept;
        is_lost.then(|| format!("REVISION {last} IS LOST: no valid copy of it is left"))
    }

    /// The newest copy that can be restored.
    fn newest_copy(&self) -> Result<Candidate> {
        let newest = newest_valid(self.copies()?).map_err(written_by_a_newer_program)?;
        // One from before `init --fresh` is brought back by its name only.
        let is_own = |copy: &&BackupCopy| {
            let lineage = copy.sealed().map(|document| &document.seal.lineage);
            lineage.is_none() || self.lineage.is_none() || lineage == self.lineage.as_ref()
        };
        newest.filter(is_own).and_then(Candidate::of).ok_or_else(|| {
            let message = format!("no valid copy of {} is left", self.store.shown);
            Error::new(Kind::NothingToRestore, message)
                .hint_command("state backups", "see what there is")
        })
    }

    fn backed_up(&self, revision: Option<Revision>) -> Kept {
        let name = BackupName::new(self.store.now(), revision, pinned::PRE_RECOVER);
        self.text().map_or(Kept::Nothing, |text| Kept::Backup(name, text.clone()))
    }

    fn bring_back(
        &self,
        copy: &Candidate,
        kept: Kept,
        options: &WriteOptions,
        place: Option<&Place>,
    ) -> Result<Option<Sealed>> {
        let value = copy.document.value();
        let sealed = self.seal(value.clone(), value.pointer("/metadata/created"))?;
        let signals = self.files_of(&Signals::Follow, sealed.document.value.skeleton())?;
        let repeats = copy.document.revision();
        let plan = Plan { kept, repeats, ..Plan::of(&sealed, signals, options, place) };
        Ok(match self.publish(plan)? {
            Landed::Done => Some(sealed),
            Landed::Overtaken(_) => None,
        })
    }

    /// The signal files that a commit of `state` puts and deletes.
    pub(super) fn files_of(&self, signals: &Signals, state: &Value) -> Result<Vec<SignalFile>> {
        match signals {
            Signals::These(files) => Ok(files.clone()),
            Signals::Follow => self.following(state),
        }
    }

    fn following(&self, state: &Value) -> Result<Vec<SignalFile>> {
        let none = Map::new();
        let wanted = state.get("signals").and_then(Value::as_object).unwrap_or(&none);
        let prefix = self.store.keys.signal_prefix();
        let range = self.store.client.range(&Keys::below(&prefix).read());
        let found: Vec<(Name, Option<Value>)> = range?
            .kvs
            .iter()
            .filter_map(|kv| {
                let name = name_in(&kv.key, &prefix)?;
                let file = crate::document::json::parse(&kv.value).ok();
                let time = file.and_then(|file| file.get("timestamp").cloned());
                Some((Name::parse("signal", name).ok()?, time))
            })
            .collect();
        let gone = found.iter().filter(|(name, _)| !wanted.contains_key(name.as_str()));
        let mut files: Vec<_> =
            gone.map(|(name, _)| SignalFile { name: name.clone(), content: None }).collect();
        for (name, time) in wanted.iter().filter(|(_, time)| time.is_number()) {
            let Ok(name) = Name::parse("signal", name) else { continue };
            let is_there =
                found.iter().any(|(known, at)| *known == name && at.as_ref() == Some(time));
            if !is_there {
                files.push(SignalFile { content: to_bytes(&blank(&name, time)), name });
            }
        }
        files.truncate(FOLLOWING);
        Ok(files)
    }
}

/// The most files that follow in one commit: a transaction has 128 operations.
const FOLLOWING: usize = 64;
