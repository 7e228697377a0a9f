//! The error of a command that cannot work with a state, and its remedies.

use std::path::Path;

use serde_json::json;

use super::{ForeignEdit, Health};
use crate::document::migrate::{Migrated, TooNew};
use crate::document::schema;
use crate::error::{Error, Kind, quote_path};
use crate::store::copies::{Copies, newest_valid};

impl Health {
    /// The error of a command that cannot work with this state; `None` where it can. `shown` is the
    /// state file's path. `restoring` is the command that restores a checkpoint, if one can be
    /// restored.
    pub fn refusal(
        &self,
        shown: &str,
        copies: &impl Copies,
        restoring: Option<&str>,
    ) -> Option<Error> {
        let error = match self {
            Self::Healthy(_) | Self::Legacy(_) => return None,
            Self::NotInitialized => {
                Error::new(Kind::NotInitialized, format!("there is no state at {shown}"))
                    .hint_command("state init", "make one")
                    .and_archives(copies)
            }
            Self::Missing => {
                let error =
                    Error::new(Kind::Missing, format!("{shown} is gone, but its history is here"));
                let error = match newest_valid_name(copies) {
                    Some(name) => {
                        error.hint_command("state recover", format!("bring it back from {name}"))
                    }
                    None if restoring.is_some() => error.try_restoring(restoring),
                    None => error.hint_command("state recover", "bring back what is left of it"),
                };
                error.hint_command("state init --fresh", "or start again; the history is archived")
            }
            Self::Damaged(why) => {
                let error = Error::new(Kind::Corrupt, format!("{shown} is damaged: {why}"));
                if restoring.is_some() && newest_valid_name(copies).is_none() {
                    error.try_restoring(restoring).hint_command(
                        "state init --fresh",
                        "or start again; the damaged file is archived",
                    )
                } else if copies.has_history() {
                    error
                        .hint_command(
                            "state recover",
                            "bring back the newest valid copy; the damaged file is kept",
                        )
                        .hint_command(
                            "state init --fresh",
                            "or start again; everything is archived",
                        )
                } else {
                    error
                        .repair_by_hand(shown, "no copy can be restored; repair it by hand")
                        .hint_command(
                            "state init --fresh",
                            "or start again; the damaged file is archived",
                        )
                }
            }
            Self::TooNew(version) => newer_schema(shown, &TooNew { version: version.clone() }),
            Self::NotAState if is_address(shown) => {
                let message = format!(
                    "{shown} is not a state document: it has no .phase; another program may own it"
                );
                Error::new(Kind::NotAState, message)
                    .hint_text("leave it to its owner, and name another prefix")
                    .hint_command("state init --fresh", "or make a state in its place")
            }
            Self::NotAState => {
                let directory = Path::new(shown).parent().unwrap_or(Path::new(""));
                let (own, name) =
                    (directory.join("pipeline"), Path::new(shown).file_name().unwrap_or_default());
                let (own, file) = (quote_path(&own), quote_path(&own.join(name)));
                let message = format!(
                    "{shown} is not a state document: it has no .phase; another tool may own it"
                );
                Error::new(Kind::NotAState, message)
                    .hint_shell(
                        format!("mkdir {own} && pipeline-state --state-file {file} state init"),
                        "leave it to its owner, and keep the state in another directory",
                    )
                    .hint_command(
                        "state init --fresh",
                        "or make a state in its place; the file is archived",
                    )
            }
            Self::Invalid(findings) => {
                let first = findings.first().map_or_else(String::new, ToString::to_string);
                let more = findings.len().saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
                let error = Error::new(
                    Kind::Schema,
                    format!("{shown} breaks the schema's rules: {first}{more}"),
                );
                let error = match newest_valid_name(copies) {
                    Some(name) => error.hint_command("state recover", format!("bring back {name}")),
                    None => error,
                };
                let error = match restoring {
                    Some(_) => {
                        error.hint_command("recover handle 4", "restore the newest checkpoint")
                    }
                    None => error,
                };
                let why = "repair it by hand; if it had a digest, `state adopt` then accepts it";
                error.repair_by_hand(shown, why).detail("findings", json!(findings))
            }
            Self::Foreign(edit) => edit.refusal(shown, restoring),
        };
        Some(error.detail("path", shown))
    }
}

impl ForeignEdit {
    pub(super) fn refusal(&self, shown: &str, restoring: Option<&str>) -> Error {
        let mut message = format!("{shown} was changed by something else: {}", self.summary());
        let unfit = if self.is_document() { self.acceptable() } else { Ok(Migrated::default()) };
        let unfit = unfit.err().and_then(|health| health.findings().into_iter().next());
        if let Some(finding) = &unfit {
            message = format!("{message}; and it breaks the rules: {finding}");
        }
        let error = Error::new(Kind::ForeignEdit, message)
            .detail("reason", self.reason.as_str())
            .detail("changes", json!(self.changes()));
        let (error, or) = match unfit {
            _ if !self.is_document() || (unfit.is_some() && self.reference.is_none()) => {
                let why = "repair it, then `state adopt` accepts it";
                (error.repair_by_hand(shown, why), if is_address(shown) { "" } else { "or " })
            }
            None => (error.hint_command("state adopt", "accept it as the next revision"), "or "),
            Some(_) => (error, ""),
        };
        match &self.reference {
            Some(reference) => error
                .hint_command(
                    "state recover",
                    format!("{or}discard it and bring revision {} back", reference.seal.revision),
                )
                .detail("revision", reference.seal.revision.get()),
            None => {
                let error = error.try_restoring(restoring);
                let error = error
                    .hint_command("state init --fresh", "or begin again; everything is archived");
                match self.revision() {
                    0 => error,
                    last => error.detail("revision", last),
                }
            }
        }
    }
}

/// The copy that healing would restore, if one is left.
fn newest_valid_name(copies: &impl Copies) -> Option<&str> {
    newest_valid(copies.copies().ok()?).ok().flatten().map(|copy| copy.name.as_str())
}

/// Returns whether a state's place is an address and not a path.
fn is_address(shown: &str) -> bool {
    shown.contains("://")
}

impl Error {
    /// Suggests an editor, for a state in a file.
    fn repair_by_hand(self, shown: &str, why: &str) -> Self {
        if is_address(shown) {
            return self;
        }
        self.hint_shell(format!("${{EDITOR:-vi}} {}", quote_path(Path::new(shown))), why)
    }

    /// Suggests restoring a checkpoint where no copy of the document is left.
    pub(in crate::store) fn try_restoring(self, restoring: Option<&str>) -> Self {
        match restoring {
            Some(restoring) => {
                self.hint_command(restoring, "bring back the newest checkpoint that is sound")
            }
            None => self,
        }
    }

    /// Suggests the archived histories where nothing else is left.
    pub(in crate::store) fn and_archives(self, copies: &impl Copies) -> Self {
        match copies.archive_listing() {
            Some(listing) => self.hint_shell(
                listing,
                "an archived history; `state write --force FILE` brings a copy back",
            ),
            None => self,
        }
    }
}

/// The error about a file that a newer program wrote.
pub fn newer_schema(what: &str, too_new: &TooNew) -> Error {
    let (version, known) = (&too_new.version, schema::current().version);
    Error::new(
        Kind::NewerSchema,
        format!("{what} has schema {version}, and this program knows {known}"),
    )
    .hint_command("--version", "a newer one is needed; nothing was changed")
    .detail("schema_version", version.as_str())
}
