//! The store: the document on the disk.
//!
//! [`Store::read`] takes no lock. Everything that writes goes through one function, [`Store::change`], which holds the
//! state lock from its read to its rename: survey what is there, judge it, heal or refuse, let the caller make the
//! next document, publish it ([`commit`]). Recovery, adoption and the rest are changes with a different base.

pub mod backups;
pub mod change;
mod commit;
pub mod fresh;
pub mod heal;
pub mod judge;
pub mod layout;
pub mod live;
pub mod lock;
mod next;
pub mod report;
pub mod shelf;
mod signal;

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::Value;

use self::change::Purpose;
use self::judge::{Health, Look, judge};
use self::layout::{BACKUPS, LOCKS, SIDE_DIRECTORIES};
use self::live::{Found, unsafe_path};
use self::lock::StateLock;
use self::shelf::Shelf;
pub use self::signal::SignalFile;
use crate::audit::{Audit, Entry, ErrorLog, Level};
use crate::document::seal::to_bytes;
use crate::document::{Reading, rules};
use crate::error::{Error, ExitCode, Kind, Result, quote_path};
use crate::fs::{Dir, Disk, FileKind};

/// Whether damage is healed by the command that meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoRecover {
    /// It is.
    Yes,
    /// Only `state recover` heals.
    No,
}

/// What becomes of a document that something else changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignEdits {
    /// Commands refuse to work with it.
    Refuse,
    /// It is served with a warning and sealed by the next write, if it abides by the rules.
    Accept,
}

/// Which state, and how it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the state file.
    pub directory: PathBuf,
    /// The state file's name in it.
    pub file_name: OsString,
    /// How long a writer waits for the lock.
    pub lock_timeout: Duration,
    /// Automatic backups to keep.
    pub max_backups: usize,
    /// Days after which an automatic backup goes.
    pub backup_days: u64,
    /// Whether damage is healed at once.
    pub auto_recover: AutoRecover,
    /// What becomes of foreign edits.
    pub foreign_edits: ForeignEdits,
}

/// The state of one root.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    settings: Settings,
    audit: Audit,
    errors: ErrorLog,
    warnings: RefCell<Vec<String>>,
}

/// A document as a reader gets it.
#[derive(Debug)]
pub struct Served {
    /// The document, in today's form.
    pub value: Value,
    /// What `state read` prints: the file's own bytes where they are in today's form.
    pub bytes: Vec<u8>,
}

/// What a writer holds: the lock and the directories, opened once.
#[derive(Debug)]
struct Held {
    root: Dir,
    lock: StateLock,
}

/// What a writer found under the lock.
#[derive(Debug)]
struct Ground {
    shelf: Shelf,
    live: Option<Found>,
    health: Health,
}

impl Ground {
    /// The revision that a user would call the current one; 0 where there is none.
    fn revision(&self) -> u64 {
        match &self.health {
            Health::Healthy(document) => document.seal.revision.get(),
            Health::Foreign(edit) => edit.reference.as_ref().map_or(0, |reference| reference.seal.revision.get()),
            _ => 0,
        }
    }
}

/// A file that changed less than this ago may be in the middle of being written by an editor.
const QUIET: Duration = Duration::from_secs(1);
/// How long a reader waits for the lock before it serves the copy that healing would restore.
const READER_PATIENCE: Duration = Duration::from_secs(1);

impl Store {
    /// The store that `settings` describe, on `disk`.
    #[must_use]
    pub fn new(disk: Disk, settings: Settings, audit: Audit) -> Self {
        let errors = ErrorLog::new(disk.clone(), &settings.directory);
        Self { disk, settings, audit, errors, warnings: RefCell::new(Vec::new()) }
    }

    /// The state file's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.settings.directory.join(&self.settings.file_name)
    }

    /// How this store is kept.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The seam this store works through.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What deserves the user's attention although the command goes on; emptied by the call.
    pub fn take_warnings(&self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut *self.warnings.borrow_mut());
        warnings.extend(self.audit.warning().map(str::to_owned));
        warnings
    }

    fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The live file, read without opening its directory first.
    fn live(&self) -> Result<Option<Found>> {
        Found::read(&self.disk, &Dir::working(), self.path().as_os_str())
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// The document. Damage is healed on the way; where that is impossible, the copy that healing would restore is
    /// served with a warning and nothing is changed.
    pub fn read(&self) -> Result<Served> {
        let live = self.live()?;
        self.warn_of_loose_mode(&live);
        let live = match self.plainly_healthy(live)? {
            Ok(served) => return Ok(served),
            Err(live) => live,
        };
        let shelf = self.shelf_to_read()?;
        let health = judge(&live, &shelf, Look::Quick)?;
        match health {
            Health::Damaged(_) if self.settings.auto_recover == AutoRecover::Yes && shelf.has_history() => {
                self.read_healing(&shelf, &health)
            }
            health => self.serve(health, live, &shelf),
        }
    }

    /// The usual case, for which nothing but the live file is looked at; otherwise the file comes back.
    fn plainly_healthy(&self, live: Option<Found>) -> Result<std::result::Result<Served, Option<Found>>> {
        // Any other name than the usual one may be the second in its directory.
        if self.settings.file_name != OsStr::new(layout::STATE_FILE) {
            self.shelf_to_read()?;
        }
        Ok(match live {
            Some(Found { reading: Reading::Sealed(document), bytes, .. })
                if rules::check(&document.value).is_empty() =>
            {
                Ok(Served { value: document.value, bytes })
            }
            live => Err(live),
        })
    }

    fn serve(&self, health: Health, live: Option<Found>, shelf: &Shelf) -> Result<Served> {
        match health {
            Health::Healthy(document) => {
                let bytes = match live {
                    Some(found) => found.bytes,
                    None => Vec::new(),
                };
                Ok(Served { value: document.value, bytes })
            }
            Health::Legacy(migrated) => serve_unsealed(migrated.value),
            Health::Foreign(edit) if self.settings.foreign_edits == ForeignEdits::Accept => {
                let migrated = edit.acceptable().map_err(|health| self.refusal(&health, shelf))?;
                self.warn(format!(
                    "{} was changed by something else ({}); it is served as it is",
                    self.shown(),
                    edit.reason
                ));
                Ok(Served { bytes: to_bytes(&migrated.value).unwrap_or_default(), value: migrated.value })
            }
            health => Err(self.refusal(&health, shelf)),
        }
    }

    fn refusal(&self, health: &Health, shelf: &Shelf) -> Error {
        let fallback = || Error::new(Kind::Internal, format!("{} cannot be used: {}", self.shown(), health.name()));
        health.refusal(&self.shown(), shelf).unwrap_or_else(fallback)
    }

    /// Opens the shelf without changing anything, and checks that it belongs to this state file.
    fn shelf_to_read(&self) -> Result<Shelf> {
        self.shelf_of(&self.open_root()?)
    }

    fn shelf_of(&self, root: &Dir) -> Result<Shelf> {
        let shelf = Shelf::open(&self.disk, root).map_err(|error| side_directory_error(root, BACKUPS, error))?;
        self.check_owner(&shelf)?;
        Ok(shelf)
    }

    fn open_root(&self) -> Result<Dir> {
        self.disk.open_root(&self.settings.directory).map_err(|error| {
            let shown = self.settings.directory.display().to_string();
            let word = quote_path(&self.settings.directory);
            let failure = |what| Error::new(Kind::DependencyMissing, format!("the state's directory {shown} {what}"));
            let failure = if error.is(Errno::NOENT) {
                let why = "make it, or name another with --root or --state-file";
                failure("does not exist").try_shell(format!("mkdir -p {word}"), why)
            } else if error.is(Errno::NOTDIR) {
                failure("is not a directory").try_shell(format!("ls -ld {word}"), "see what it is")
            } else {
                return error.into();
            };
            failure.detail("path", shown)
        })
    }

    /// Side directories belong to one state file. A name other than the usual one is recorded there.
    fn check_owner(&self, shelf: &Shelf) -> Result<()> {
        let record = match shelf.dir().filter(|_| shelf.has_owner) {
            Some(dir) => self.disk.read(dir, layout::OWNER, 4096)?,
            None => None,
        };
        let owner = match &record {
            Some(record) => record.bytes.strip_suffix(b"\n").unwrap_or(&record.bytes),
            None if shelf.has_sealed_history() => layout::STATE_FILE.as_bytes(),
            None => return Ok(()),
        };
        if owner == self.settings.file_name.as_encoded_bytes() {
            return Ok(());
        }
        let owner = String::from_utf8_lossy(owner).into_owned();
        let own = quote_path(&self.settings.directory.join("another"));
        let name = quote_path(self.settings.file_name.as_ref());
        let directory = self.settings.directory.display();
        let message = format!(
            "{directory} keeps the state file {owner}; a second one, {}, would share its backups and locks",
            self.settings.file_name.display()
        );
        Err(Error::new(Kind::OtherStateFile, message)
            .try_shell(
                format!("mkdir {own} && pipeline-state --state-file {own}/{name} state init"),
                "give it a directory of its own",
            )
            .detail("owner", owner))
    }

    /// Says what the next writer would stumble over.
    fn warn_of_side_directories(&self, root: &Dir) -> Result<()> {
        let user = rustix::process::geteuid().as_raw();
        for name in SIDE_DIRECTORIES {
            let path = root.path_of(name);
            match self.disk.stat(root, name)? {
                Some(stat) if stat.kind != FileKind::Directory => {
                    self.warn(format!(
                        "{} is not a directory of its own; writers refuse to work with it",
                        path.display()
                    ));
                }
                Some(stat) if stat.uid != user => {
                    self.warn(format!(
                        "{} belongs to user {}; writers refuse to work with it",
                        path.display(),
                        stat.uid
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn warn_of_loose_mode(&self, live: &Option<Found>) {
        if let Some(found) = live.as_ref().filter(|found| found.stat.mode & 0o077 != 0) {
            let mode = found.stat.mode;
            self.warn(format!("{} has mode {mode:04o}, looser than 0600; the next write tightens it", self.shown()));
        }
    }

    // ---- writers ----

    /// Refuses what no writer may touch, before anything is made: a root that was never initialized, a state file
    /// that is no plain file or belongs to somebody else.
    fn precheck(&self, purpose: Purpose) -> Result<Dir> {
        let root = self.open_root()?;
        if purpose == Purpose::Initialize {
            self.shelf_of(&root)?;
        }
        match self.disk.stat(&root, &self.settings.file_name)? {
            Some(stat) => {
                if stat.kind != FileKind::Regular {
                    Found::read(&self.disk, &root, &self.settings.file_name)?; // says what it is
                    return Err(unsafe_path(&self.path(), "is not a regular file"));
                }
                let user = rustix::process::geteuid().as_raw();
                if stat.uid != user {
                    let why = format!("belongs to user {}, not to you ({user})", stat.uid);
                    return Err(unsafe_path(&self.path(), &why));
                }
            }
            None if purpose != Purpose::Initialize => {
                let shelf = self.shelf_of(&root)?;
                if !shelf.has_history() {
                    return Err(self.refusal(&Health::NotInitialized, &shelf));
                }
            }
            None => {}
        }
        Ok(root)
    }

    /// Takes the lock, making the directories where they are missing.
    fn hold(&self, root: Dir, purpose: Purpose, deadline: Instant) -> Result<Held> {
        if purpose == Purpose::Initialize {
            for name in SIDE_DIRECTORIES {
                self.side_directory(&root, name)?;
            }
        }
        loop {
            let locks = self.side_directory(&root, LOCKS)?;
            if let Some(lock) = StateLock::acquire(&self.disk, &root, &locks, deadline)? {
                return Ok(Held { root, lock });
            }
            change::give_up_after(deadline)?;
        }
    }

    /// Opens a side directory of ours, making it where it is missing.
    fn side_directory(&self, root: &Dir, name: &str) -> Result<Dir> {
        let open = || self.disk.open_dir(root, name);
        let dir = match open() {
            Err(error) if error.is(Errno::NOENT) => {
                self.disk.make_dir(root, name)?;
                open()
            }
            result => result,
        };
        let dir = dir.map_err(|error| side_directory_error(root, name, error))?;
        let owner = self.disk.stat(root, name)?.map(|stat| stat.uid);
        let user = rustix::process::geteuid().as_raw();
        match owner {
            Some(owner) if owner != user => {
                Err(unsafe_path(dir.path(), &format!("belongs to user {owner}, not to you ({user})")))
            }
            _ => Ok(dir),
        }
    }

    /// Looks at everything under the lock, after clearing away what dead writers left.
    fn survey(&self, held: &Held) -> Result<Ground> {
        let dir = self.side_directory(&held.root, BACKUPS)?;
        let mut shelf = Shelf::list(&self.disk, dir)?;
        self.check_owner(&shelf)?;
        self.record_owner(held, &shelf)?;
        let live = Found::read(&self.disk, &held.root, &self.settings.file_name)?;
        let cleared = self.clear_leftovers(held, &shelf, &live)?;
        if cleared {
            shelf = Shelf::list(&self.disk, self.side_directory(&held.root, BACKUPS)?)?;
        }
        let health = judge(&live, &shelf, Look::Thorough)?;
        Ok(Ground { shelf, live, health })
    }

    /// Removes temporary files of dead writers, and backups that are still the live inode because their commit died
    /// between its link and its rename. True if the shelf changed.
    fn clear_leftovers(&self, held: &Held, shelf: &Shelf, live: &Option<Found>) -> Result<bool> {
        let Some(dir) = shelf.dir() else {
            return Ok(false);
        };
        for name in &shelf.temporaries {
            self.disk.unlink(dir, name)?;
        }
        if held.lock.origin() == crate::fs::Origin::Made {
            for name in self.disk.list(&held.root)? {
                if name.to_str().is_some_and(layout::is_temporary) {
                    self.disk.unlink(&held.root, name)?;
                }
            }
        }
        let mut cleared = false;
        if let Some(found) = live.as_ref().filter(|found| found.stat.nlink > 1) {
            for name in shelf.links_to(&found.stat)? {
                self.disk.unlink(dir, name)?;
                cleared = true;
            }
        }
        Ok(cleared)
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.settings.lock_timeout).unwrap_or(now + Duration::from_secs(86400 * 365))
    }

    fn entry(&self, level: Level, action: &str, text: &str) -> Entry {
        Entry::new(level, &format!("state-manager/{action}"), text)
    }

    /// Notes a writer's failure in the logs, if the root is one of ours. What is wrong with its input is no matter for the
    /// error log.
    pub fn record_refusal(&self, action: &str, error: &Error) {
        let initialized = self.disk.open_root(&self.settings.directory).is_ok_and(|root| {
            self.disk.stat(&root, BACKUPS).is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == FileKind::Directory))
        });
        if initialized {
            let code = error.code();
            let of_input = match code {
                ExitCode::General => !matches!(error.kind, Kind::Io | Kind::DurabilityUnknown | Kind::Internal),
                code => code == ExitCode::ValidationFailed,
            };
            let level = if of_input { Level::Warn } else { Level::Error };
            let entry = self.entry(level, action, "refused").with("code", code as u8);
            let entry = entry.with("kind", error.kind.name()).with("pid", std::process::id());
            self.audit.record(&entry.with("path", self.shown()));
            if !of_input {
                self.errors.record(Level::Error, action, &error.message, code);
            }
        }
    }
}

/// A document without a seal, for readers: revision 0 lets a writer notice that somebody sealed it meanwhile.
fn serve_unsealed(mut value: Value) -> Result<Served> {
    let fields = value.as_object_mut();
    let metadata = fields.map(|fields| fields.entry("metadata").or_insert_with(|| serde_json::json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("revision".into(), 0.into());
    }
    let bytes = to_bytes(&value).ok_or_else(|| Error::new(Kind::Internal, "the document cannot be written as JSON"))?;
    Ok(Served { value, bytes })
}

/// A side directory that is a link, or no directory at all, is refused.
fn side_directory_error(root: &Dir, name: &str, error: crate::fs::FsError) -> Error {
    if error.is(Errno::LOOP) || error.is(Errno::NOTDIR) {
        unsafe_path(&root.path_of(name), "is not a directory of its own (a symbolic link or a file stands there)")
    } else {
        error.into()
    }
}
