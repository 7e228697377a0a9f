//! Files of several owners: one finding, and one command that returns them to the right owner.

use std::collections::BTreeSet;

use super::{Examination, Finding, Subject};
use crate::audit::ErrorLog;
use crate::error::{ExitCode, Kind, Result, quote_path};
use crate::fs::FileKind;
use crate::store::layout::SIDE_DIRECTORIES;
use crate::user;

/// An entry of the root and its owner.
struct Owned {
    /// Its path below the root.
    place: String,
    uid: u32,
}

impl Examination<'_> {
    /// Reports files and directories that do not belong to the owner of this state.
    pub(super) fn owners(&mut self) -> Result<()> {
        let owned = owned(self)?;
        let Some(rightful) = rightful_owner(self, &owned)? else { return Ok(()) };
        let strays: Vec<&Owned> = owned.iter().filter(|owned| owned.uid != rightful).collect();
        let own = user::current();
        if strays.is_empty() {
            if rightful != own {
                // Only root is served a state of another user.
                let may =
                    if own == 0 { "may read it and not write it" } else { "cannot work with it" };
                let (owner, own) = (user::describe(rightful), user::describe(own));
                let message = format!("the state belongs to {owner}; {own} {may}");
                let mut finding =
                    Finding::new(Subject::Owners, ExitCode::PermissionDenied, message);
                finding.remedies.push(user::work_as(rightful));
                self.add(finding);
            }
            return Ok(());
        }
        let others: BTreeSet<u32> = strays.iter().map(|stray| stray.uid).collect();
        let others: Vec<String> = others.into_iter().map(user::describe).collect();
        let first = strays.first().map_or("", |stray| stray.place.as_str());
        let more = match strays.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "{first}{more} belong to {}; the state belongs to {}",
            others.join(", "),
            user::describe(rightful)
        );
        let finding = Finding::new(Subject::Owners, ExitCode::PermissionDenied, message);
        let command = chown(self, &strays, rightful);
        self.add(finding.hint_shell(command, "gives all of it to the owner of the state"));
        Ok(())
    }

    /// Reports what keeps the next writer from writing, unless another finding covers it.
    pub(super) fn writability(&mut self) -> Result<()> {
        let Some(error) = self.store.obstacles().write()? else { return Ok(()) };
        // An owner, mode or link that keeps writers out has a finding of its own, with its remedy.
        let explains = |finding: &Finding| {
            [Subject::Owners, Subject::Modes, Subject::Files].contains(&finding.subject)
        };
        let is_unsafe = [Kind::UnsafePath, Kind::ForeignOwner].contains(&error.kind);
        if is_unsafe && self.found.findings.iter().any(explains) {
            return Ok(());
        }
        if !self.found.findings.iter().any(|finding| finding.is_of(&error)) {
            self.add(Finding::of(Subject::Writing, error));
        }
        Ok(())
    }
}

/// The state file, the error log, and the side directories with their contents, without links
/// and entries that cannot be examined.
fn owned(examination: &Examination<'_>) -> Result<Vec<Owned>> {
    let disk = examination.store.disk();
    let mut owned = Vec::new();
    let file = examination.store.settings().file_name.to_string_lossy().into_owned();
    for place in [file.as_str(), ErrorLog::NAME].into_iter().chain(SIDE_DIRECTORIES) {
        let Some(stat) = examination.stat(place)? else { continue };
        if stat.kind != FileKind::Symlink {
            owned.push(Owned { place: place.to_owned(), uid: stat.uid });
        }
        if stat.kind != FileKind::Directory {
            continue;
        }
        let Ok(Some((dir, names))) = examination.side(place) else { continue };
        for name in names {
            let Ok(Some(stat)) = disk.stat(&dir, &name) else { continue };
            if stat.kind != FileKind::Symlink {
                owned.push(Owned { place: format!("{place}/{name}"), uid: stat.uid });
            }
        }
    }
    Ok(owned)
}

/// The user that everything should belong to: the first owner other than root among the root
/// directory, the state file and its history, since files that root left in a user's directory
/// are the user's. Root only where all of them are root's. `None` without a state.
fn rightful_owner(examination: &Examination<'_>, owned: &[Owned]) -> Result<Option<u32>> {
    let mut asked = Vec::new();
    asked.extend(examination.stat(".")?.map(|stat| stat.uid));
    asked.extend(owned.iter().map(|owned| owned.uid));
    let user = asked.iter().copied().find(|uid| *uid != 0);
    Ok(if owned.is_empty() { None } else { user.or(Some(0)) })
}

/// One command that changes the owner of the listed files: whole side directories where they
/// hold any.
fn chown(examination: &Examination<'_>, strays: &[&Owned], owner: u32) -> String {
    let tops: BTreeSet<&str> =
        strays.iter().map(|stray| stray.place.split('/').next().unwrap_or_default()).collect();
    let paths: Vec<String> =
        tops.into_iter().map(|top| quote_path(&examination.root.path_of(top))).collect();
    let sudo = if user::current() == 0 { "" } else { "sudo " };
    format!("{sudo}chown -hR {} {}", user::as_operand(owner), paths.join(" "))
}
