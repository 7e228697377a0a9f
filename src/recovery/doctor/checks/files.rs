//! Checks of files: their place, owner and mode, and files where none should be.

use super::{Examination, LoosePermissions, Subject};
use crate::audit::ErrorLog;
use crate::error::{ExitCode, Result, quote_path};
use crate::fs::probe::Probe;
use crate::fs::stage::is_temporary;
use crate::fs::{FileKind, Stat};
use crate::lock::{COUNTER, LOCK_FILES, LOCKS, Lifeline};
use crate::recovery::doctor::Finding;
use crate::store::layout::{
    BACKUPS, BackupName, MIRROR, SIDE_DIRECTORIES, SIGNALS, STAGED_PREFIX, is_staged_signal,
};
use crate::{side, user};

impl Examination<'_> {
    /// Returns whether a file of this program can be created at its place: no entry there that
    /// writers do not replace.
    pub(super) fn is_place_free(&self, side: &str, name: &str) -> Result<bool> {
        let is_free = |stat: Stat| match side {
            LOCKS => stat.kind == FileKind::Regular && (stat.nlink == 1 || name == COUNTER),
            _ => stat.kind != FileKind::Directory,
        };
        Ok(self.stat(format!("{side}/{name}"))?.is_none_or(is_free))
    }

    /// Reports entries at places reserved for this program's files: commands are refused because of
    /// them, or do without the file.
    pub(super) fn places(&mut self) -> Result<()> {
        let mut places: Vec<(&str, String)> = Vec::new();
        for side in [LOCKS, BACKUPS, SIGNALS] {
            let Some((_, names)) = self.side(side)? else { continue };
            let is_place = |name: &str| match side {
                LOCKS => LOCK_FILES.contains(&name),
                BACKUPS => name == MIRROR,
                _ => name.ends_with(".json"),
            };
            places.extend(names.into_iter().filter(|name| is_place(name)).map(|name| (side, name)));
        }
        for (side, name) in places {
            if !self.is_place_free(side, &name)? {
                let place = format!("{side}/{name}");
                let word = self.shown(&place);
                let message = match self.stat(&place)? {
                    Some(Stat { kind: FileKind::Regular, .. }) => {
                        format!("{place} has a second name (a hard link), which may be anywhere")
                    }
                    _ => format!("{place} is not a regular file, and nothing else is of use there"),
                };
                let finding = Finding::new(Subject::Files, ExitCode::PermissionDenied, message);
                self.add(finding.hint_shell(format!("mv {word} {word}.old"), "move it away"));
            }
        }
        Ok(())
    }

    /// Reports files of this program that other users may read or write.
    pub(super) fn modes(&mut self) -> Result<()> {
        if let Some(why) = side::open_to_others(self.store.disk(), &self.root)? {
            let word = quote_path(self.root.path());
            let finding =
                Finding::new(Subject::Modes, ExitCode::General, format!("the root {word} {why}"));
            self.add(finding.hint_shell(format!("chmod go-w {word}"), "or set its sticky bit"));
        }
        let file = self.store.settings().file_name.to_string_lossy().into_owned();
        for name in [file.as_str(), ErrorLog::NAME] {
            if let Some(stat) = self.stat(name)? {
                self.mode(name, &stat, 0o600);
            }
        }
        for name in SIDE_DIRECTORIES {
            let Some(stat) = self.stat(name)? else { continue };
            self.mode(name, &stat, 0o700);
            if stat.kind != FileKind::Directory || ![BACKUPS, SIGNALS].contains(&name) {
                continue;
            }
            let Some((dir, names)) = self.side(name)? else { continue };
            for inner in names.into_iter().filter(|inner| !is_temporary(inner)) {
                let stat = self.store.disk().stat(&dir, &inner)?;
                if let Some(stat) = stat.filter(|stat| stat.kind == FileKind::Regular) {
                    self.mode(&format!("{name}/{inner}"), &stat, 0o600);
                }
            }
        }
        Ok(())
    }

    fn mode(&mut self, path: &str, stat: &Stat, mode: u32) {
        let word = self.shown(path);
        let is_directory = mode == 0o700;
        if (stat.kind == FileKind::Directory) != is_directory || stat.kind == FileKind::Symlink {
            // Other files are reported by the check that opens them.
            if path == ErrorLog::NAME {
                let finding = Finding::new(
                    Subject::Logs,
                    ExitCode::PermissionDenied,
                    format!("{path} is not a regular file"),
                );
                self.add(finding.hint_shell(
                    format!("mv {word} {word}.old"),
                    "move it away; no errors are logged",
                ));
            }
        } else if stat.uid != user::current() {
            // One finding about owners covers all files.
        } else if is_directory && stat.mode & 0o022 != 0 {
            let message =
                format!("{path} may be written by others (mode {:04o}); it is not used", stat.mode);
            let finding = Finding::new(Subject::Modes, ExitCode::PermissionDenied, message);
            self.add(finding.hint_shell(
                format!("chmod 700 {word}"),
                "once you know that no other user put files there",
            ));
        } else if stat.mode & 0o077 != 0 {
            let message = format!("{path} has mode {:04o}, looser than {mode:04o}", stat.mode);
            self.add(Finding::new(Subject::Modes, ExitCode::General, message).automatic());
            self.found.loose.push(LoosePermissions { path: path.to_owned(), mode });
        }
    }

    /// Reports files that killed commands left.
    pub(super) fn leftovers(&mut self) -> Result<()> {
        if self.is_busy()? {
            return Ok(());
        }
        let mut left: Vec<String> = Vec::new();
        for name in self.store.disk().list(&self.root)?.iter().filter_map(|name| name.to_str()) {
            let is_staged = name.starts_with(STAGED_PREFIX);
            if is_temporary(name) || (is_staged && self.store.intents().interrupted()?.is_none()) {
                left.push(name.to_owned());
            }
        }
        let mut left_locks = Vec::new();
        let named = self.store.locks().lifelines()?;
        for side in [BACKUPS, LOCKS] {
            // Reported by its own check.
            let Ok(Some((dir, names))) = self.side(side) else { continue };
            for name in names {
                let place = format!("{side}/{name}");
                if side == LOCKS && Lifeline::parse(&name).is_some() {
                    // A file that a record names is removed with it; a locked file belongs to a
                    // living process, in whatever namespace.
                    let is_named = named.iter().any(|used| used.as_str() == name);
                    if !is_named && self.store.disk().probe(&dir, &name)? == Probe::Free {
                        left_locks.push(place);
                    }
                } else if is_temporary(&name) {
                    if side == LOCKS { left_locks.push(place) } else { left.push(place) }
                }
            }
        }
        let dead_link = self.stat(&self.store.settings().file_name)?.filter(|stat| stat.nlink > 1);
        if let (Some(live), Ok(Some((dir, names)))) = (dead_link, self.side(BACKUPS)) {
            for name in names.into_iter().filter(|name| BackupName::parse(name).is_some()) {
                if self.store.disk().stat(&dir, &name)?.is_some_and(|stat| stat.same_file(&live)) {
                    left.push(format!("{BACKUPS}/{name}"));
                }
            }
        }
        for (subject, names) in [(Subject::Leftovers, left), (Subject::Locks, left_locks)] {
            for name in names {
                let is_signal = name.rsplit('/').next().is_some_and(is_staged_signal);
                let message = match is_signal {
                    true => format!(
                        "{name} is of a signal whose writer was killed or could not put its file \
                         in place"
                    ),
                    false => format!("{name} was left by a command that was killed"),
                };
                self.add(Finding::new(subject, ExitCode::General, message).automatic());
            }
        }
        Ok(())
    }
}
