//! The read-modify-write: what a writer does under the lock before and after the commit.

use serde_json::{Value, json};

use super::commit::{Plan, Published, Room};
use super::ground::Ground;
use super::judge::{Foreign, Health};
use super::layout::{SIGNALS, automatic_reason, pinned};
use super::next::check_growth;
use super::order::{Mode, Order, give_up_after};
use super::retain::Displaced;
use super::{AutoRecover, ForeignEdits, Signals, Store};
use crate::document::body::Body;
use crate::document::diff::{self, diff};
use crate::document::draft::Draft;
use crate::document::parts::Parts;
use crate::document::seal::{Revision, Seal, full_size, size_when_sealed, without_seal};
use crate::document::{json as text, rules};
use crate::error::{Error, Kind, Result};

/// The revision and digest that a document says it has, sealed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    revision: Option<Value>,
    digest: Option<Value>,
}

impl Claim {
    /// Reads the claim of `document`.
    pub fn of(document: &Value) -> Self {
        let field =
            |name: &str| document.get("metadata").and_then(|metadata| metadata.get(name)).cloned();
        Self { revision: field("revision"), digest: field("digest") }
    }

    /// Returns whether the document names the revision it was made from.
    pub fn is_made(&self) -> bool {
        self.revision.is_some()
    }

    /// The difference from the current document's claim, in words.
    pub fn differs_from(&self, current: &Self) -> String {
        let number = |claim: &Self| {
            claim.revision.as_ref().map_or_else(|| "none".to_owned(), Value::to_string)
        };
        let digest = |claim: &Self| {
            let text =
                claim.digest.as_ref().and_then(Value::as_str).and_then(|digest| digest.get(..8));
            text.map_or_else(|| "no digest".to_owned(), |digest| format!("digest {digest}…"))
        };
        if self.revision != current.revision {
            let (theirs, ours) = (number(self), number(current));
            return format!(
                "somebody committed since this document was read: it is from revision {theirs}, and the state is at {ours}"
            );
        }
        format!(
            "this document says it is from revision {}, but with {}, and the current one has {}: it is not the one that was read",
            number(self),
            digest(self),
            digest(current)
        )
    }
}

/// The document that a change starts from.
#[derive(Debug)]
pub struct Base {
    /// The document, in today's form.
    pub value: Body,
    /// Its seal; none if it was never sealed or the seal is broken.
    pub seal: Option<Seal>,
    /// The revision and digest that a reader was shown.
    pub claim: Claim,
    migrated_from: Option<String>,
    /// The foreign edit, if the document is one.
    edit: Option<Foreign>,
}

impl Base {
    /// A copy of the document, to be changed.
    pub fn draft(&self) -> Value {
        Value::clone(&self.value)
    }

    /// The size of the sealed document in bytes, counted by [`full_size`]; 0 for one that is not
    /// sealed.
    fn full_size(&self, ground: &Ground) -> usize {
        match (&self.seal, &ground.live) {
            (Some(seal), Some(found)) => {
                full_size(&Parts::from(found.bytes.clone()), seal.revision)
            }
            _ => 0,
        }
    }

    /// The current revision; for a foreign edit the one before it; 0 for a document that was never
    /// sealed.
    pub fn revision(&self) -> u64 {
        match (&self.seal, &self.edit) {
            (Some(seal), _) => seal.revision.get(),
            (None, edit) => edit.as_ref().map_or(0, Foreign::revision),
        }
    }
}

/// The next document and the signal files that accompany it.
#[derive(Debug)]
pub struct Proposal {
    /// The document.
    pub draft: Draft,
    /// Signal files to write or remove after the commit.
    pub signals: Signals,
}

impl From<Value> for Proposal {
    fn from(value: Value) -> Self {
        Self { draft: value.into(), signals: Signals::STAY }
    }
}

impl From<Draft> for Proposal {
    fn from(draft: Draft) -> Self {
        Self { draft, signals: Signals::STAY }
    }
}

/// Makes the next document from the current one. It is called again if another writer commits
/// first.
pub type Change<'a> = dyn FnMut(&Base) -> Result<Proposal> + 'a;

/// The result of a change.
#[derive(Debug)]
pub enum Outcome {
    /// The new document is on the disk.
    Committed {
        /// The new revision.
        revision: Revision,
        /// The schema from which the commit migrated the document.
        migrated_from: Option<String>,
    },
    /// The change had no effect, so nothing was written.
    Unchanged {
        /// The current revision.
        revision: Revision,
    },
    /// The differences that the change would make (dry run).
    Planned(Vec<diff::Change>),
}

impl Store {
    /// Changes the document: one atomic read-modify-write under the state lock.
    pub fn change(&self, order: &Order, make: &mut Change<'_>) -> Result<Outcome> {
        if order.mode == Mode::DryRun {
            return self.plan(order, make);
        }
        let deadline = self.deadline();
        loop {
            let (held, mut ground) = self.writers_ground(deadline)?;
            let mut base = self.base(&ground)?;
            self.warn_of_objects(&base);
            self.keep_mirror(&held, &ground);
            let mut proposal = self.make_checked(order, &base, make)?;
            // A guard undoes what its command changed. The edit is not the command's work, so it
            // gets a revision of its own.
            if let Some(edit) = &base.edit
                && !self.guards_of_commit(&held, &ground.shelf).is_empty()
            {
                check_document(&proposal.draft)?; // refused before the edit is sealed
                let adoption = Order { fences: order.fences.clone(), ..Order::of("adopt") };
                if self.adopt_edit((&held, &ground), edit, &adoption)?.is_none() {
                    give_up_after(deadline)?;
                    continue;
                }
                ground = self.survey(&held)?;
                base = self.base(&ground)?;
                proposal = make(&base)?;
            }
            if proposal.signals.are_needed() {
                self.side_directory(&held.root, SIGNALS)?; // refused before the commit
            }
            // A foreign edit may be an older revision.
            let signals = match proposal.signals {
                given if given.are_needed() || base.edit.is_none() => given,
                _ => Signals::Follow,
            };
            let mut draft = proposal.draft;
            draft.say_schema();
            let is_same = !ground.is_rewritten() && draft.is_same_as(&base.value);
            if let Some(seal) = base.seal.as_ref().filter(|_| is_same) {
                let state = base.value.outline();
                self.place_signals(&held, &self.files_of((&held, &ground.shelf), &signals, state));
                return Ok(Outcome::Unchanged { revision: seal.revision });
            }
            check_document(&draft)?;
            let lineage = self.lineage_to_continue(&ground)?;
            let sealed = self.seal(
                draft,
                &ground,
                &lineage,
                base.value.outline().pointer("/metadata/created"),
            )?;
            let size = full_size(&sealed.text, sealed.document.seal.revision);
            check_growth(size, base.full_size(&ground), order.author)?;
            let displaced = self.displaced(order, &base, &ground);
            let plan = Plan {
                sealed: &sealed,
                source: None,
                displaced,
                signals: &signals,
                fences: &order.fences,
                room: Room::MayBeMade,
            };
            if let Published::Done { .. } = self.publish(&held, &ground, &plan)? {
                self.record_commit((&held, &ground), order, &sealed, &[]);
                let revision = sealed.document.seal.revision;
                return Ok(Outcome::Committed { revision, migrated_from: base.migrated_from });
            }
            give_up_after(deadline)?;
        }
    }

    /// Computes what a change would do, without a lock and without changing anything.
    fn plan(&self, order: &Order, make: &mut Change<'_>) -> Result<Outcome> {
        let (mut live, mut shelf) = (self.live()?, self.shelf_to_read()?);
        let mut health = self.judge(&live, &shelf, super::Look::Thorough)?;
        if matches!(health, Health::Missing) && self.returns()? {
            (live, shelf) = (self.live()?, self.shelf_to_read()?);
            health = self.judge(&live, &shelf, super::Look::Thorough)?;
        }
        let health = match health {
            Health::Damaged(_)
                if self.settings.auto_recover == AutoRecover::Yes && self.has_copies(&shelf) =>
            {
                let (document, _) = self.best_copy(&shelf, &health)?;
                self.warn(format!(
                    "{} is damaged; this is against the copy it would be healed from",
                    self.shown()
                ));
                match document {
                    super::heal::Restorable::Sealed(document) => Health::Healthy(document),
                    super::heal::Restorable::Legacy(value) => {
                        Health::Legacy(crate::document::migrate::Migrated { value, from: None })
                    }
                }
            }
            health => health,
        };
        let ground = Ground { shelf, live, health };
        let base = self.base(&ground)?;
        let mut draft = self.make_checked(order, &base, make)?.draft;
        draft.say_schema();
        check_document(&draft)?;
        let changes = diff(&without_seal(&base.value), &without_seal(&draft.to_value()));
        if !changes.is_empty() {
            let created = base.value.outline().pointer("/metadata/created").and_then(Value::as_str);
            let size = size_when_sealed(draft, created).unwrap_or_default();
            check_growth(size, base.full_size(&ground), order.author)?;
        }
        Ok(Outcome::Planned(changes))
    }

    fn make_checked(&self, order: &Order, base: &Base, make: &mut Change<'_>) -> Result<Proposal> {
        self.check_conditions(order, base.revision())?;
        make(base)
    }

    /// The document to start from, or the error that there is none.
    fn base(&self, ground: &Ground) -> Result<Base> {
        match &ground.health {
            Health::Healthy(document) => Ok(Base {
                value: document.value.clone(),
                seal: Some(document.seal.clone()),
                claim: Claim::of(document.value.outline()),
                migrated_from: document.older.as_ref().map(|older| older.from.clone()),
                edit: None,
            }),
            Health::Legacy(migrated) => Ok(Base {
                value: migrated.value.clone().into(),
                seal: None,
                claim: Claim { revision: Some(0.into()), digest: None },
                migrated_from: migrated.from.clone(),
                edit: None,
            }),
            Health::Foreign(edit) if self.settings.foreign_edits == ForeignEdits::Accept => {
                let migrated =
                    edit.acceptable().map_err(|_| self.refusal(&ground.health, &ground.shelf))?;
                self.warn(format!(
                    "{} was changed by something else; the next commit seals it: {}",
                    self.shown(),
                    edit.summary()
                ));
                Ok(Base {
                    claim: Claim::of(&migrated.value),
                    value: migrated.value.into(),
                    seal: None,
                    migrated_from: migrated.from,
                    edit: Some(edit.clone()),
                })
            }
            health => Err(self.refusal(health, &ground.shelf)),
        }
    }

    /// Warns of objects where old documents should have a signal's time.
    fn warn_of_objects(&self, base: &Base) {
        if base.seal.is_some() && base.migrated_from.is_none() {
            return;
        }
        let signals = base.value.outline().get("signals").and_then(Value::as_object);
        let objects: Vec<&str> = signals
            .into_iter()
            .flatten()
            .filter(|(_, value)| value.is_object())
            .map(|(name, _)| &**name)
            .collect();
        if !objects.is_empty() {
            self.warn(format!(
                "signals hold objects instead of times, and keep them: {}",
                objects.join(", ")
            ));
        }
    }

    fn displaced(&self, order: &Order, base: &Base, ground: &Ground) -> Displaced {
        let now = self.disk.now();
        if let Some(edit) = &base.edit {
            return Displaced::by_edit(now, edit);
        }
        if ground.live.as_ref().is_none() {
            return Displaced::Nothing;
        }
        let reason = match (&base.seal, &base.migrated_from) {
            (Some(_), None) => {
                automatic_reason(order.reason.as_deref().unwrap_or(order.action), order.action)
            }
            _ => pinned::PRE_MIGRATION.to_owned(),
        };
        Displaced::backup(now, base.seal.as_ref().map(|seal| seal.revision), &reason)
    }
}

/// Refuses a document that breaks the rules.
fn check_document(draft: &Draft) -> Result<()> {
    let findings = rules::check(draft.outline());
    let Some(first) = findings.first() else {
        return if draft.is_nested_too_deep() {
            let message = format!(
                "the new document is nested deeper than {} levels; nothing was written",
                text::MAX_DEPTH
            );
            Err(Error::new(Kind::Schema, message).try_command(
                "state validate FILE",
                "see what is wrong with a document before it is written",
            ))
        } else {
            Ok(())
        };
    };
    let more = findings.len() - 1;
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    let message =
        format!("the new document breaks the schema's rules: {first}{more}; nothing was written");
    Err(Error::new(Kind::Schema, message)
        .try_command(
            "state read",
            "see what the document is now; these rules are on its top fields",
        )
        .detail("findings", json!(findings)))
}
