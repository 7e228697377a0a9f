//! The diagnosis of the live file, in the contract's order: not initialized, missing, damaged,
//! healthy, foreign edit, legacy. Diagnosing reads and changes nothing; `validate` and `status`
//! report the result, and every other command acts on it.

mod refusal;

pub use self::refusal::newer_schema;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::copies::{BackupCopy, Copies, CopyState, lineage_of, newest_valid};
use super::trace::Trace;
use crate::document::contents::{are_same_without_seal, without_seal};
use crate::document::diff::{Difference, diff};
use crate::document::migrate::{self, Migrated, TooNew, Unfit};
use crate::document::rules::Finding;
use crate::document::schema::{self, OldForm};
use crate::document::seal::{Document, Revision, Seal};
use crate::document::{Reading, seal};
use crate::error::Result;

/// The condition of the live file, given the copies and logs beside it.
#[derive(Debug)]
pub enum Health {
    /// There is no state here and never was.
    NotInitialized,
    /// The file is missing, but its history is here.
    Missing,
    /// The file is not a document that this program can keep; the reason.
    Damaged(String),
    /// A newer program wrote it.
    TooNew(String),
    /// A document without a phase and without history: another tool's file.
    NotAState,
    /// Its seal or form is sound, but it breaks the schema's rules.
    Invalid(Vec<Finding>),
    /// It is the last acknowledged revision; its value is in the current form.
    Healthy(Document),
    /// Another program changed it.
    Foreign(ForeignEdit),
    /// It predates this program; in the current form.
    Legacy(Migrated),
}

/// A diagnosis without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// There is no state here and never was.
    NotInitialized,
    /// The file is missing, but its history is here.
    Missing,
    /// The file is not a document that this program can keep.
    Damaged,
    /// A newer program wrote it.
    TooNew,
    /// It is another tool's file.
    NotAState,
    /// It breaks the schema's rules.
    Invalid,
    /// It is the last acknowledged revision.
    Healthy,
    /// Another program changed it.
    Foreign,
    /// It predates this program.
    Legacy,
}

impl HealthKind {
    /// The diagnosis in a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotInitialized => "not initialized",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::TooNew => "newer schema",
            Self::NotAState => "not a state",
            Self::Invalid => "invalid",
            Self::Healthy => "healthy",
            Self::Foreign => "foreign edit",
            Self::Legacy => "legacy",
        }
    }
}

impl std::fmt::Display for HealthKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for HealthKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A live file that this program did not write, or did not write last.
#[derive(Clone, Debug)]
pub struct ForeignEdit {
    /// The reason why it is not accepted as this program's work.
    pub reason: String,
    /// The parsed document; null where the file is not one.
    pub value: Value,
    /// The last acknowledged revision, if a copy is left.
    pub reference: Option<Document>,
    /// The remaining records of that revision, where no copy is left.
    pub trace: Option<Trace>,
}

impl ForeignEdit {
    /// Returns whether it is a document at all.
    pub fn is_document(&self) -> bool {
        !self.value.is_null()
    }

    /// The last acknowledged revision; 0 where none is on record.
    pub fn revision(&self) -> u64 {
        let copy = self.reference.as_ref().map(|document| document.seal.revision);
        let known = copy.or_else(|| self.trace.as_ref()?.revision());
        known.map_or(0, Revision::get)
    }

    /// The differences from the last acknowledged revision, without the fields of the seal.
    pub fn changes(&self) -> Vec<Difference> {
        let Some(reference) = self.reference.as_ref().filter(|_| self.is_document()) else {
            return Vec::new();
        };
        diff(&without_seal(reference.as_sealed()), &without_seal(&self.value))
    }
}

/// The comparison of the mirror with the live file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mirror {
    /// It holds the same bytes in an inode of its own.
    Same,
    /// It holds something else.
    Differs,
    /// There is none.
    Absent,
}

/// Diagnoses the live document. `mirror` compares it with its mirror: the same bytes prove that it
/// is the last acknowledged revision, without a look at the copies.
pub fn diagnose(
    live: Option<&Reading>,
    copies: &impl Copies,
    mirror: impl FnOnce() -> Result<Mirror>,
) -> Result<Health> {
    let Some(reading) = live else {
        return Ok(if copies.has_history() { Health::Missing } else { Health::NotInitialized });
    };
    match reading {
        Reading::Damaged(why) => Ok(Health::Damaged(why.clone())),
        Reading::Sealed(document) => {
            if mirror()? != Mirror::Same {
                let copies = copies.copies()?;
                if let Some(too_new) = newer_copy(copies, Some(&document.seal)) {
                    return Ok(Health::TooNew(too_new.version.clone()));
                }
                if let Some(reason) = not_the_latest(document, copies) {
                    let reference =
                        newest_valid(copies).ok().flatten().and_then(|copy| copy.sealed().cloned());
                    let value = Value::clone(&document.value);
                    return Ok(Health::Foreign(ForeignEdit {
                        reason,
                        value,
                        reference,
                        trace: None,
                    }));
                }
            }
            Ok(migrate::usable_sealed(document.clone())
                .map_or_else(Health::of_unfit, Health::Healthy))
        }
        Reading::Conflicted(line) => {
            let reason = format!("it has git's conflict markers, from line {line} on");
            diagnose_edit(&reason, &Value::Null, copies)
        }
        Reading::Broken(value) => diagnose_edit("its digest is wrong", value, copies),
        Reading::Unsealed(value) => match diagnose_edit("it carries no digest", value, copies)? {
            Health::Foreign(ForeignEdit { reference: None, trace: None, .. }) => {
                // Other tools use the same file name.
                if value.get("phase").is_none() && !copies.has_history() {
                    return Ok(Health::NotAState);
                }
                Ok(migrate::usable(value).map_or_else(Health::of_unfit, Health::Legacy))
            }
            edited => Ok(edited),
        },
    }
}

/// Diagnoses a document without a valid seal.
fn diagnose_edit(reason: &str, value: &Value, copies: &impl Copies) -> Result<Health> {
    match newer_copy(copies.copies()?, None) {
        Some(too_new) => Ok(Health::TooNew(too_new.version.clone())),
        None => Ok(Health::Foreign(foreign(reason, value, copies)?)),
    }
}

fn foreign(reason: &str, value: &Value, history: &impl Copies) -> Result<ForeignEdit> {
    let copies = history.copies()?;
    let best = copies
        .iter()
        .any(|copy| copy.sealed().is_some())
        .then(|| newest_valid(copies).ok().flatten());
    let reference = best.flatten().and_then(|copy| copy.sealed().cloned());
    let trace = if reference.is_none() { history.trace() } else { None };
    Ok(ForeignEdit { reason: reason.to_owned(), value: value.clone(), reference, trace })
}

/// The schema of a copy that a newer program wrote after this revision; no older document may
/// replace it.
fn newer_copy<'a>(copies: &'a [BackupCopy], live: Option<&Seal>) -> Option<&'a TooNew> {
    copies.iter().find_map(|copy| match &copy.state {
        CopyState::TooNew(too_new, seal)
            if live.is_none_or(|live| seal.revision > live.revision) =>
        {
            Some(too_new)
        }
        _ => None,
    })
}

/// The reason why a sealed document is not the last acknowledged revision; `None` if it is.
fn not_the_latest(document: &Document, copies: &[BackupCopy]) -> Option<String> {
    let lineage = lineage_of(copies)?;
    let seal = &document.seal;
    if seal.lineage != lineage {
        return Some(format!(
            "it belongs to lineage {}, and this root keeps {lineage}",
            seal.lineage
        ));
    }
    let of_lineage =
        copies.iter().filter_map(BackupCopy::sealed).filter(|copy| copy.seal.lineage == lineage);
    let latest = of_lineage.max_by_key(|copy| copy.seal.revision);
    // A copy with the same contents undoes nothing: `git checkout` and the like put such a copy
    // there.
    let is_undone = |latest: &&Document| {
        latest.seal.revision > seal.revision
            && !are_same_without_seal(latest.as_sealed(), &document.value)
    };
    latest.filter(is_undone).map(|latest| {
        format!(
            "it is revision {}, and revision {} was acknowledged",
            seal.revision, latest.seal.revision
        )
    })
}

impl Health {
    /// The diagnosis of a document that cannot be used.
    fn of_unfit(unfit: Unfit) -> Self {
        match unfit {
            Unfit::TooNew(too_new) => Self::TooNew(too_new.version),
            Unfit::Invalid(findings) => Self::Invalid(findings),
        }
    }

    /// The document in the current form, where commands can work with it.
    pub fn document(&self) -> Option<&Value> {
        match self {
            Self::Healthy(document) => Some(&document.value),
            Self::Legacy(migrated) => Some(&migrated.value),
            _ => None,
        }
    }

    /// The form that the next write migrates the document from.
    pub fn migrates_from(&self) -> Option<&OldForm> {
        match self {
            Self::Healthy(document) => document.older.as_ref().map(|older| &older.from),
            Self::Legacy(migrated) => migrated.from.as_ref(),
            _ => None,
        }
    }

    /// The diagnosis without its particulars, as `status` shows it.
    pub fn kind(&self) -> HealthKind {
        match self {
            Self::NotInitialized => HealthKind::NotInitialized,
            Self::Missing => HealthKind::Missing,
            Self::Damaged(_) => HealthKind::Damaged,
            Self::TooNew(_) => HealthKind::TooNew,
            Self::NotAState => HealthKind::NotAState,
            Self::Invalid(_) => HealthKind::Invalid,
            Self::Healthy(_) => HealthKind::Healthy,
            Self::Foreign(_) => HealthKind::Foreign,
            Self::Legacy(_) => HealthKind::Legacy,
        }
    }

    /// The broken rules as `validate` lists them; empty for a usable state.
    pub fn findings(&self) -> Vec<Finding> {
        let whole = |problem: String| vec![Finding::of_document(problem)];
        match self {
            Self::Healthy(_) | Self::Legacy(_) => Vec::new(),
            Self::NotInitialized => whole("there is no state here".to_owned()),
            Self::Missing => whole("the state file is gone, but its history is here".to_owned()),
            Self::Damaged(why) => whole(format!("damaged: {why}")),
            Self::TooNew(version) => {
                whole(format!("schema {version} is newer than {}", schema::current().version))
            }
            Self::NotAState => vec![Finding {
                path: ".phase".to_owned(),
                problem: "is missing: it is not a state document".to_owned(),
            }],
            Self::Invalid(findings) => findings.clone(),
            Self::Foreign(edit) => {
                let mut findings = whole(format!("foreign edit: {}", edit.reason));
                findings.extend(
                    edit.changes()
                        .into_iter()
                        .map(|change| Finding { problem: change.values(), path: change.path }),
                );
                findings
            }
        }
    }
}

impl ForeignEdit {
    const SHOWN: usize = 5;

    /// The reason why it is a foreign edit, and its differences from the last acknowledged
    /// revision.
    pub fn summary(&self) -> String {
        if !self.is_document() {
            return self.reason.clone();
        }
        let changes = self.changes();
        let what = match &self.reference {
            Some(_) if changes.is_empty() => {
                "the contents are those of the last acknowledged revision".to_owned()
            }
            Some(reference) => {
                let lines: Vec<String> =
                    changes.iter().take(Self::SHOWN).map(ToString::to_string).collect();
                let more = changes.len().saturating_sub(Self::SHOWN);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                format!("against revision {}: {}{more}", reference.seal.revision, lines.join(", "))
            }
            None => match self.revision() {
                0 => "no copy is left to compare it with".to_owned(),
                last => format!("no valid copy of revision {last} is left to compare it with"),
            },
        };
        format!("{}; {what}", self.reason)
    }

    /// The edit as a document in the current form, if it satisfies the rules there.
    pub fn acceptable(&self) -> std::result::Result<Migrated, Box<Health>> {
        if !self.is_document() {
            return Err(Box::new(Health::Foreign(self.clone())));
        }
        migrate::usable(&self.value).map_err(|unfit| Box::new(Health::of_unfit(unfit)))
    }
}

/// The document as far as it is readable: in the current form where commands can work with it, else
/// unchanged.
pub fn known<'a>(health: &'a Health, live: Option<&'a Reading>) -> Option<&'a Value> {
    let as_it_stands = || match live? {
        Reading::Sealed(document) => Some(&*document.value),
        Reading::Broken(value) | Reading::Unsealed(value) => Some(value),
        Reading::Damaged(_) | Reading::Conflicted(_) => None,
    };
    health.document().or_else(as_it_stands)
}

/// The lineage and revision that an unverified document claims.
pub fn claimed_lineage(value: &Value) -> Option<seal::Lineage> {
    seal::Lineage::from_value(value.pointer("/metadata/lineage")?)
}
