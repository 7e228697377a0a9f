//! The state file that the side directories belong to. They belong to exactly one; a name other
//! than the usual one is recorded.

use std::ffi::OsStr;

use super::FileStore;
use super::backup_dir::BackupDir;
use super::state_file::StateFile;
use crate::document::Reading;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::Dir;
use crate::store::copies::{BackupCopy, Copies};
use crate::store::layout::{BACKUPS, OWNER, STATE_FILE};

/// The recorded owner of a backup directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The name of this state file, or no record although it has an unusual name.
    Whole,
    /// No record.
    Absent,
    /// A record that is not a file name.
    Damaged,
}

/// The name in a record; `None` where the record is damaged.
fn named(record: &[u8]) -> Option<&[u8]> {
    let name = record.strip_suffix(b"\n")?;
    let is_name = !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| b"/\0".contains(byte));
    is_name.then_some(name)
}

/// The state file that the side directories belong to.
#[derive(Clone, Copy, Debug)]
pub struct Ownership<'s> {
    pub(in crate::store) store: &'s FileStore,
}

impl<'s> Ownership<'s> {
    /// Of `store`.
    pub fn of(store: &'s FileStore) -> Self {
        Self { store }
    }

    /// Refuses (4) a state file that the backup directory does not belong to.
    pub(super) fn check_dir(&self, backup_dir: &BackupDir) -> Result<Record> {
        let content = match backup_dir.dir().filter(|_| backup_dir.has_owner) {
            Some(dir) => self.store.disk.read(dir, OWNER, 4096)?,
            None => None,
        };
        let (owner, record) = match &content {
            Some(content) => match named(&content.bytes) {
                Some(name) => (name, Record::Whole),
                None if self.is_usual() || self.has_lineage_of(backup_dir) => {
                    return Ok(Record::Damaged);
                }
                None if backup_dir.has_sealed_history() => return Err(self.unknown_owner()),
                None => return Ok(Record::Damaged),
            },
            None if backup_dir.has_sealed_history() => (STATE_FILE.as_bytes(), Record::Absent),
            None => return Ok(Record::Absent),
        };
        if owner == self.store.settings.file_name.as_encoded_bytes() {
            return Ok(record);
        }
        let owner = String::from_utf8_lossy(owner).into_owned();
        let directory = self.store.settings.directory.display();
        let message = format!(
            "{directory} keeps the state file {owner}; a second one, {}, would share its backups \
             and locks",
            self.store.settings.file_name.display()
        );
        Err(self
            .own_directory(Error::new(Kind::OtherStateFile, message))
            .detail("state_file", owner))
    }

    pub(super) fn is_usual(&self) -> bool {
        self.store.settings.file_name == OsStr::new(STATE_FILE)
    }

    /// Returns whether the live file is a revision of a document that the backup directory or the
    /// journal knows.
    fn has_lineage_of(&self, backup_dir: &BackupDir) -> bool {
        let (disk, path) = (&self.store.disk, self.store.settings.path());
        let live = StateFile::read(disk, &Dir::working(), path.as_os_str());
        let Ok(Some(live)) = live else { return false };
        let Reading::Sealed(document) = &live.reading else { return false };
        let lineage = &document.seal.lineage;
        let is_kept = |copies: &[BackupCopy]| {
            copies.iter().any(|copy| copy.seal().is_some_and(|seal| seal.lineage == *lineage))
        };
        backup_dir.copies().is_ok_and(is_kept)
            || backup_dir.trace().is_some_and(|trace| trace.lineage.as_ref() == Some(lineage))
    }

    fn unknown_owner(&self) -> Error {
        let record = self.store.settings.directory.join(BACKUPS).join(OWNER);
        let message = format!(
            "{} is damaged, and nothing shows that its backups are those of {}",
            record.display(),
            self.store.settings.file_name.display()
        );
        let (name, record) =
            (quote_path(self.store.settings.file_name.as_ref()), quote_path(&record));
        let error = Error::new(Kind::OtherStateFile, message).hint_shell(
            format!("printf '%s\\n' {name} >{record}"),
            "if the backups are this one's",
        );
        self.own_directory(error)
    }

    fn own_directory(&self, error: Error) -> Error {
        let own = quote_path(&self.store.settings.directory.join("another"));
        let name = quote_path(self.store.settings.file_name.as_ref());
        error.hint_shell(
            format!("mkdir {own} && pipeline-state --state-file {own}/{name} state init"),
            "give it a directory of its own",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_record_that_is_no_name_is_damaged() {
        assert_eq!(named(b"state.json\n"), Some(&b"state.json"[..]));
        for damaged in [&b""[..], b"\n", b"state.json", b"..\n", b"../x\n", b"\0\0\0\n"] {
            assert_eq!(named(damaged), None, "{damaged:?}");
        }
    }
}
