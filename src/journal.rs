//! The journal: the events of one root, one a line, in `.state-backups/journal.jsonl`.
//!
//! It lies in the root, so a copy of the root has a copy of it and continues on its own. A line
//! begins and ends with a line feed, so that a torn line spoils no other. Lines are appended after
//! the event, with one write. A process that appends holds the state lock or the gate of the locks;
//! one that rotates holds both. Only `state init` creates the file; where it is missing, nothing is
//! written. A journal that cannot be written is a warning and stops nothing.

pub mod changes;
pub mod event;
mod line;
mod origin;

use std::fs::File;

use rustix::io::Errno;

pub use self::changes::Changes;
pub use self::event::totals::{self, Totals};
pub use self::event::{Commit, Event, GuardEvent, GuardStep, Origin, Owner, Skipped};
use crate::fs::stage::{Durability, temporary};
use crate::fs::{Access, Dir, Disk, FileKind, FsError, FsResult, Stat};

/// The directory that it lies in.
pub const DIRECTORY: &str = ".state-backups";
/// The file, in [`DIRECTORY`].
pub const JOURNAL: &str = "journal.jsonl";
/// The file before the last rotation.
pub const OLD_JOURNAL: &str = "journal.1.jsonl";
/// A journal of this size, in bytes, is rotated.
pub const ROTATED_AT: u64 = 8 << 20;
/// A journal of this size, in bytes, takes no more lines: rotation failed again and again.
const SIZE_LIMIT: u64 = 3 * ROTATED_AT;
/// A larger file, in bytes, is not read: this program makes none.
const READ_LIMIT: u64 = 4 * ROTATED_AT;

/// The journal in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Journal<'a> {
    disk: &'a Disk,
    dir: &'a Dir,
}

/// How full a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// It takes more lines.
    Low,
    /// It is to be rotated.
    Full,
}

/// The events that were read, oldest first, and the lines that were skipped.
#[derive(Debug, Default)]
pub struct Events {
    /// The events.
    pub list: Vec<Event>,
    /// The number of torn or damaged lines.
    pub damaged: usize,
    /// The reason why a file was not read.
    pub problem: Option<Problem>,
}

/// The reason why a file of the journal was not read.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not this user's journal, and will not become it.
    #[error("{0}")]
    Foreign(String),
    /// A call failed, perhaps only once.
    #[error("{0}")]
    Unreadable(FsError),
}

impl From<FsError> for Problem {
    fn from(error: FsError) -> Self {
        match error.is(Errno::LOOP) || error.is(Errno::ACCESS) {
            true => Self::Foreign(error.to_string()),
            false => Self::Unreadable(error),
        }
    }
}

impl Events {
    /// The commits among them.
    pub fn commits(&self) -> impl Iterator<Item = &Commit> {
        self.list.iter().filter_map(|event| match event {
            Event::Commit(commit) => Some(commit),
            _ => None,
        })
    }

    /// The totals of all commits, including those without a remaining line.
    pub fn totals(&self) -> Totals {
        Totals::of(&self.list)
    }

    /// Returns whether a commit was counted before the first remaining line.
    pub fn is_counted(&self, lineage: &str, revision: u64) -> bool {
        let totals = self.list.iter().find_map(|event| match event {
            Event::Totals(totals) => Some(totals),
            _ => None,
        });
        totals.is_some_and(|totals| totals.covers(lineage, revision))
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            match Event::parse(line) {
                _ if line.is_empty() => {}
                Ok(event) => self.list.push(event),
                // The last line may still be being written.
                Err(Skipped::Damaged) if lines.peek().is_some() => self.damaged += 1,
                Err(_) => {}
            }
        }
    }
}

impl<'a> Journal<'a> {
    /// The journal in `dir`, which is `.state-backups/`.
    pub fn new(disk: &'a Disk, dir: &'a Dir) -> Self {
        Self { disk, dir }
    }

    /// Creates the journal where it is missing.
    pub fn make(&self) -> FsResult<()> {
        if self.disk.stat(self.dir, JOURNAL)?.is_none() {
            self.disk.create(self.dir, JOURNAL)?;
        }
        Ok(())
    }

    /// Appends an event; the error is a sentence. The caller holds the state lock or the gate.
    pub fn append(&self, event: &Event) -> Result<Fill, String> {
        let found = self.open().map_err(|error| error.to_string())?;
        let (file, stat) = found.ok_or("it is gone")?;
        self.append_to(&file, &stat, std::slice::from_ref(event))
    }

    /// Appends events with one write, if there is a journal. The caller holds the state lock or
    /// the gate.
    pub fn append_if_there(&self, events: impl FnOnce() -> Vec<Event>) -> Result<Fill, String> {
        match self.open().map_err(|error| error.to_string())? {
            Some((file, stat)) => self.append_to(&file, &stat, &events()),
            None => Ok(Fill::Low),
        }
    }

    fn append_to(&self, file: &File, stat: &Stat, events: &[Event]) -> Result<Fill, String> {
        let path = self.dir.path_of(JOURNAL);
        if let Some(why) = stat.untrusted_reason() {
            return Err(format!("{} {why}", path.display()));
        }
        if stat.size >= SIZE_LIMIT {
            return Err(format!("{} is full and was not rotated", path.display()));
        }
        let lines: Option<Vec<String>> = events.iter().map(Event::to_line).collect();
        let lines = lines.ok_or("the line is too long")?.concat();
        self.disk.write(file, &path, lines.as_bytes()).map_err(|error| error.to_string())?;
        Ok(if stat.size >= ROTATED_AT { Fill::Full } else { Fill::Low })
    }

    fn open(&self) -> FsResult<Option<(File, Stat)>> {
        let file = match self.disk.open(self.dir, JOURNAL, Access::Append)? {
            Some(file) => file,
            // A rotation died between its two renames.
            None if self.disk.stat(self.dir, OLD_JOURNAL)?.is_some() => {
                self.disk.create(self.dir, JOURNAL)?
            }
            None => return Ok(None),
        };
        let stat = self.disk.fstat(&file, &self.dir.path_of(JOURNAL))?;
        Ok(Some((file, stat)))
    }

    /// Begins a new file with the totals, if the journal is full; the previous file is kept, and
    /// the one before it is removed. The caller holds the state lock, whose inode this is, and the
    /// gate: no line is appended meanwhile, or its counters could be lost.
    pub fn rotate(&self, lock_inode: u64) -> FsResult<()> {
        let size = self.disk.stat(self.dir, JOURNAL)?.map_or(0, |stat| stat.size);
        if size < ROTATED_AT {
            return Ok(());
        }
        let name = temporary(lock_inode, "journal");
        let events = self.read();
        let totals = events.totals();
        if let Some(Problem::Unreadable(error)) = events.problem {
            return Err(error); // the totals are too low
        }
        let line = (!totals.is_empty()).then(|| Event::Totals(totals).to_line()).flatten();
        let text = line.unwrap_or_default();
        let staged = self.disk.stage(self.dir, &name, text.as_bytes(), Durability::None)?;
        let journal = self.dir.entry(JOURNAL);
        self.disk.rename(journal, self.dir.entry(OLD_JOURNAL))?;
        self.disk.rename(self.dir.entry(&name), journal)?;
        staged.keep();
        Ok(())
    }

    /// Reads all events. Takes no lock: a file that is rotated meanwhile is read once.
    pub fn read(&self) -> Events {
        let mut events = Events::default();
        let mut open = |name: &str| {
            let opened = self.disk.open(self.dir, name, Access::Read);
            let found = opened.and_then(|file| {
                file.map(|file| Ok((self.disk.fstat(&file, &self.dir.path_of(name))?, file)))
                    .transpose()
            });
            match found {
                Ok(Some((stat, file)))
                    if stat.kind == FileKind::Regular && stat.size <= READ_LIMIT =>
                {
                    Some((stat, file))
                }
                Ok(None) => None,
                Ok(Some(_)) => {
                    let shown = self.dir.path_of(name);
                    events.problem = Some(Problem::Foreign(format!(
                        "{} is not a journal that this program wrote",
                        shown.display()
                    )));
                    None
                }
                Err(error) => {
                    events.problem = Some(error.into());
                    None
                }
            }
        };
        let current = open(JOURNAL);
        let old = open(OLD_JOURNAL)
            .filter(|(old, _)| current.as_ref().is_none_or(|(stat, _)| !stat.same_file(old)));
        for (name, file) in [(OLD_JOURNAL, old), (JOURNAL, current)] {
            let Some((_, file)) = file else { continue };
            match self.read_whole(&file, name) {
                Ok(bytes) => events.read(&bytes),
                Err(error) => events.problem = Some(error.into()),
            }
        }
        events
    }

    fn read_whole(&self, file: &File, name: &str) -> FsResult<Vec<u8>> {
        let path = self.dir.path_of(name);
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while (bytes.len() as u64) <= READ_LIMIT {
            let count = self.disk.read_some(file, &path, &mut piece)?;
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn event(number: usize) -> Event {
        Event::Guard(GuardEvent {
            origin: Origin { time: "2026-01-02T03:04:05.678Z".into(), ..Origin::default() },
            id: number.to_string(),
            step: GuardStep::Began,
            code: None,
            attempts: None,
            guards: vec![],
        })
    }

    fn numbers(events: &Events) -> Vec<usize> {
        let number = |event: &Event| match event {
            Event::Guard(guard) => guard.id.parse().ok(),
            _ => None,
        };
        events.list.iter().filter_map(number).collect()
    }

    fn in_directory<T>(test: impl FnOnce(&Path, Journal<'_>) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let opened = disk.open_root(dir.path()).unwrap();
        test(dir.path(), Journal::new(&disk, &opened))
    }

    #[test]
    fn nothing_but_init_makes_a_journal() {
        in_directory(|path, journal| {
            assert!(journal.append(&event(1)).is_err());
            assert!(!path.join(JOURNAL).exists());
            journal.make().unwrap();
            journal.append(&event(1)).unwrap();
            journal.make().unwrap();
            assert_eq!(numbers(&journal.read()), [1]);
            assert_eq!(path.join(JOURNAL).metadata().unwrap().mode() & 0o777, 0o600);
        });
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        in_directory(|path, journal| {
            journal.make().unwrap();
            let whole = event(2).to_line().unwrap();
            for length in 0..whole.len() {
                std::fs::write(path.join(JOURNAL), &whole[..length]).unwrap();
                let before = journal.read();
                assert_eq!(before.damaged, 0, "a line that is being written is not damaged");
                journal.append(&event(3)).unwrap();
                let events = journal.read();
                assert_eq!(*numbers(&events).last().unwrap(), 3, "cut at {length}");
                assert_eq!(
                    events.damaged,
                    usize::from((2..whole.len() - 1).contains(&length)),
                    "cut at {length}"
                );
            }
        });
    }

    #[test]
    fn a_journal_that_others_may_write_is_not_used() {
        in_directory(|path, journal| {
            std::fs::write(path.join("victim"), "").unwrap();
            let at = path.join(JOURNAL);
            symlink("victim", &at).unwrap();
            assert!(journal.append(&event(1)).is_err());
            std::fs::remove_file(&at).unwrap();
            std::fs::hard_link(path.join("victim"), &at).unwrap();
            assert!(journal.append(&event(1)).is_err(), "it has two names");
            assert_eq!(std::fs::read_to_string(path.join("victim")).unwrap(), "");
            std::fs::remove_file(&at).unwrap();
            std::fs::create_dir(&at).unwrap();
            assert!(journal.append(&event(1)).is_err());
        });
    }

    #[test]
    fn a_full_journal_is_rotated_and_one_old_file_is_kept() {
        in_directory(|path, journal| {
            journal.make().unwrap();
            for number in 1..=3 {
                journal.append(&event(number)).unwrap();
                journal.rotate(7).unwrap();
                let mut file =
                    std::fs::File::options().append(true).open(path.join(JOURNAL)).unwrap();
                file.write_all(&vec![b'\n'; usize::try_from(ROTATED_AT).unwrap()]).unwrap();
            }
            assert_eq!(numbers(&journal.read()), [3]);
            assert_eq!(journal.append(&event(4)), Ok(Fill::Full), "a line never rotates");
            assert_eq!(numbers(&journal.read()), [3, 4]);
            journal.rotate(7).unwrap();
            assert!(path.join(JOURNAL).metadata().unwrap().len() < 1 << 12);
            assert_eq!(journal.read().totals().guards[&GuardStep::Began], 4);
            // A rotation that died between its two renames.
            journal.append(&event(5)).unwrap();
            std::fs::rename(path.join(JOURNAL), path.join(OLD_JOURNAL)).unwrap();
            journal.append(&event(6)).unwrap();
            assert_eq!(numbers(&journal.read()), [5, 6]);
            assert_eq!(journal.read().totals().guards[&GuardStep::Began], 6);
        });
    }

    #[test]
    fn only_damaged_lines_are_counted() {
        in_directory(|path, journal| {
            journal.make().unwrap();
            journal.append(&event(1)).unwrap();
            let mut text = std::fs::read_to_string(path.join(JOURNAL)).unwrap();
            text = format!("{text}{}\nnonsense\n", text.replace("began", "ended"));
            std::fs::write(path.join(JOURNAL), text).unwrap();
            journal.append(&event(2)).unwrap();
            let events = journal.read();
            assert_eq!((numbers(&events), events.damaged), (vec![1, 2], 2));
        });
    }
}
