//! Recovery: a copy takes the place of a document that is damaged, missing or unwanted.

use super::RemoteStore;
use super::commit::{Landed, Plan, publish};
use super::conditions::check_conditions;
use super::ground::Ground;
use super::preserve::{Kept, evidence};
use super::queue::{Attempt, Place, in_turn};
use super::signals::files_of;
use crate::document::contents::without_seal;
use crate::document::diff::{Difference, diff};
use crate::document::seal::{Revision, Sealed};
use crate::error::{Error, Kind, Result};
use crate::store::candidate::{Candidate, Wanted, written_by_a_newer_program};
use crate::store::copies::{BackupCopy, Copies, newest_valid};
use crate::store::diagnosis::Health;
use crate::store::heal::Recovered;
use crate::store::layout::{BackupName, pinned};
use crate::store::options::WriteOptions;
use crate::store::signal::Signals;

/// The action under which healing is logged.
const HEAL: &str = "heal";

/// Brings back a valid copy.
#[derive(Clone, Copy, Debug)]
pub struct Healing<'s> {
    store: &'s RemoteStore,
}

impl<'s> Healing<'s> {
    /// Of `store`.
    pub fn of(store: &'s RemoteStore) -> Self {
        Self { store }
    }

    /// `state recover`.
    pub fn recover(&self, wanted: &Wanted, options: &WriteOptions) -> Result<Recovered> {
        in_turn(self.store, options, |ground, place| {
            let recovered = attempt_recovery(&ground, wanted, options, place)?;
            Ok(recovered.map_or(Attempt::Overtaken(None), Attempt::Ended))
        })
    }

    /// The copy that a recovery would restore, and the differences it would make; `None` if there
    /// is nothing to recover.
    pub fn plan(&self, wanted: &Wanted) -> Result<Option<(String, Vec<Difference>)>> {
        let ground = Ground::observe(self.store, &[])?;
        let copy = match (&ground.health, wanted) {
            (Health::Healthy(_) | Health::Legacy(_), Wanted::Newest) => return Ok(None),
            (Health::NotInitialized | Health::TooNew(_), _) => return Err(ground.refusal()),
            (_, Wanted::Newest) => newest_copy(&ground)?,
            _ => wanted.choose(ground.copies()?, ground.lineage.as_ref())?,
        };
        let current = ground.known().unwrap_or_default();
        let changes = diff(&without_seal(&current), &without_seal(copy.document.value()));
        Ok(Some((copy.name, changes)))
    }
}

/// One attempt of a recovery; `None` if another writer was faster.
fn attempt_recovery(
    ground: &Ground<'_>,
    wanted: &Wanted,
    options: &WriteOptions,
    place: Option<&Place>,
) -> Result<Option<Recovered>> {
    let is_valid = matches!(ground.health, Health::Healthy(_) | Health::Legacy(_));
    if let Health::TooNew(_) | Health::NotInitialized = ground.health {
        return Err(ground.refusal());
    }
    check_conditions(ground, options)?;
    let copy = match wanted {
        Wanted::Newest if is_valid => {
            let mut backups = ground.backups.iter().rev();
            let pre_migration = backups.find(|backup| backup.reason == pinned::PRE_MIGRATION);
            let pre_migration = pre_migration.map(|name| name.as_str().to_owned());
            return Ok(Some(Recovered::NothingToDo { pre_migration }));
        }
        Wanted::Newest => newest_copy(ground)?,
        wanted => wanted.choose(ground.copies()?, ground.lineage.as_ref())?,
    };
    let kept = match &ground.health {
        Health::Healthy(document) => backed_up(ground, Some(document.seal.revision)),
        Health::Legacy(_) => backed_up(ground, None),
        _ => evidence(ground),
    };
    let sealed = bring_back(ground, &copy, kept, options, place)?;
    let revision = sealed.map(|sealed| sealed.document.seal.revision);
    if let (Some(_), false) = (revision, is_valid)
        && let Some(lost) = lost_after(ground, copy.document.revision())
    {
        ground.store.warn(lost);
    }
    Ok(revision.map(|revision| Recovered::From { file: copy.name, revision }))
}

/// Replaces a damaged document by the newest valid copy, and returns what is there now; `None`
/// if another writer was faster.
pub(super) fn heal(ground: &Ground<'_>) -> Result<Option<Sealed>> {
    let copy = newest_copy(ground)?;
    let options = WriteOptions::of(HEAL);
    let evidence = evidence(ground);
    let kept = match evidence {
        Kept::Nothing => String::new(),
        _ => format!("; what was damaged is kept below {}", ground.store.keys.evidence_prefix()),
    };
    let Some(sealed) = bring_back(ground, &copy, evidence, &options, None)? else {
        return Ok(None);
    };
    let revision = sealed.document.seal.revision;
    let why = match &ground.health {
        Health::Damaged(why) => why.as_str(),
        _ => "damaged",
    };
    let lost = lost_after(ground, copy.document.revision());
    let lost = lost.map_or_else(String::new, |lost| format!("; {lost}"));
    ground.store.warn(format!(
        "{} was damaged ({why}); {} was restored as revision {revision}{kept}{lost}",
        ground.store.shown, copy.name,
    ));
    Ok(Some(sealed))
}

/// The warning that acknowledged revisions after `kept` are lost, if there are any.
pub(super) fn lost_after(ground: &Ground<'_>, kept: Option<Revision>) -> Option<String> {
    let last = ground.newest.as_ref().map(|newest| newest.revision)?;
    let is_lost = Some(last) > kept;
    is_lost.then(|| format!("REVISION {last} IS LOST: no valid copy of it is left"))
}

/// The newest copy that can be restored.
fn newest_copy(ground: &Ground<'_>) -> Result<Candidate> {
    let newest = newest_valid(ground.copies()?).map_err(written_by_a_newer_program)?;
    // One from before `init --fresh` is brought back by its name only.
    let is_own = |copy: &&BackupCopy| {
        let lineage = copy.sealed().map(|document| &document.seal.lineage);
        lineage.is_none() || ground.lineage.is_none() || lineage == ground.lineage.as_ref()
    };
    newest.filter(is_own).and_then(Candidate::of).ok_or_else(|| {
        let message = format!("no valid copy of {} is left", ground.store.shown);
        Error::new(Kind::NothingToRestore, message)
            .hint_command("state backups", "see what there is")
    })
}

fn backed_up(ground: &Ground<'_>, revision: Option<Revision>) -> Kept {
    let name = BackupName::new(ground.store.now(), revision, pinned::PRE_RECOVER);
    ground.text().map_or(Kept::Nothing, |text| Kept::Backup(name, text.clone()))
}

fn bring_back(
    ground: &Ground<'_>,
    copy: &Candidate,
    kept: Kept,
    options: &WriteOptions,
    place: Option<&Place>,
) -> Result<Option<Sealed>> {
    let value = copy.document.value();
    let sealed = ground.seal(value.clone(), value.pointer("/metadata/created"))?;
    let signals = files_of(ground.store, &Signals::Follow, sealed.document.value.skeleton())?;
    let repeats = copy.document.revision();
    let plan = Plan { kept, repeats, ..Plan::of(&sealed, signals, options, place) };
    Ok(match publish(ground, plan)? {
        Landed::Done => Some(sealed),
        Landed::Overtaken(_) => None,
    })
}
