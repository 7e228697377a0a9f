//! The journal on a disk that fails, and after processes that died: it shows nothing that did not
//! happen, no line spoils another, and its failures stop no command.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pipeline_state::fs::Disk;
use pipeline_state::journal::event::LockStep;
use pipeline_state::journal::{
    DIRECTORY, Event, Events, JOURNAL, Journal, OLD_JOURNAL, ROTATED_AT,
};
use pipeline_state::lock::Mode;
use rustix::io::Errno;
use serde_json::json;

use crate::faults::{set, store};
use crate::kill::copy_of;
use crate::lock_faults::{acquire, locks_on, release};
use crate::observed::{Call, Fault, Observed};
use crate::sandbox::Sandbox;

/// The document of a change in these tests.
const NEW: u64 = 77;

pub fn read(root: &Sandbox) -> Events {
    let disk = Disk::real();
    let dir = disk.open_root(&root.file(DIRECTORY)).unwrap();
    Journal::new(&disk, &dir).read()
}

/// The locks with a line of this step.
fn locks_with(root: &Sandbox, step: LockStep) -> Vec<String> {
    let lock = |event: Event| match event {
        Event::Lock(event) if event.step == step => Some(event.lock),
        _ => None,
    };
    read(root).list.into_iter().filter_map(lock).collect()
}

fn has_line_of(root: &Sandbox, revision: u64) -> bool {
    read(root).commits().any(|commit| commit.revision.get() == revision)
}

/// The number of commits and of grants of `a`, of all lines that there ever were.
fn totals(root: &Sandbox) -> (u64, u64) {
    let totals = read(root).totals();
    (totals.count(), totals.locks.get("a").map_or(0, |lock| lock.granted))
}

fn commit(disk: &Disk, root: &Sandbox) -> Vec<String> {
    let store = store(root, disk.clone());
    let _ = set(&store, "n", |_| json!(NEW));
    store.take_warnings()
}

fn grant(disk: &Disk, root: &Sandbox, names: &str) -> Vec<String> {
    let locks = locks_on(root, disk.clone());
    let _ = acquire(&locks, names, Mode::Exclusive);
    locks.take_warnings()
}

fn give_back(disk: &Disk, root: &Sandbox, names: &str) -> Vec<String> {
    let locks = locks_on(root, disk.clone());
    let _ = release(&locks, names);
    locks.take_warnings()
}

/// Fills a journal that is far from full with one damaged line: the next line rotates it.
pub fn fill(root: &Sandbox) {
    let path = root.file(DIRECTORY).join(JOURNAL);
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.set_len(ROTATED_AT).unwrap();
    file.write_all(b"\n").unwrap();
}

fn holding(names: &str) -> Sandbox {
    let root = Sandbox::initialized();
    grant(&Disk::real(), &root, names);
    root
}

fn is_held(root: &Sandbox, name: &str) -> bool {
    let locks = locks_on(root, Disk::real());
    locks.clean(std::time::Instant::now()).unwrap(); // completes an interrupted change
    let name = pipeline_state::name::Name::parse("lock", name).unwrap();
    locks.check(&name).unwrap().to_string() != "unlocked"
}

// ---- deaths ----

/// What a process did before it died.
#[derive(Debug, Default)]
struct Death {
    changes: Cell<usize>,
    /// The file that it opened last.
    opened: RefCell<PathBuf>,
    /// The call at which it died.
    place: RefCell<Option<Call>>,
    /// Whether it had appended a line.
    has_appended: Cell<bool>,
}

impl Death {
    fn is_dead(&self) -> bool {
        self.place.borrow().is_some()
    }

    fn fault(&self, call: &Call, nth: usize) -> Fault {
        if call.name.starts_with("open") || call.name == "create" {
            self.opened.borrow_mut().clone_from(&call.path);
        }
        if !call.changes() {
            return Fault::None;
        }
        self.changes.set(self.changes.get() + 1);
        if self.changes.get() == nth {
            *self.place.borrow_mut() = Some(call.clone());
        }
        let is_append = call.name == "write" && self.opened.borrow().ends_with(JOURNAL);
        match self.is_dead() {
            true if self.changes.get() == nth => Fault::Torn(Errno::IO),
            true => Fault::Fails(Errno::IO),
            false => {
                self.has_appended.set(self.has_appended.get() || is_append);
                Fault::None
            }
        }
    }
}

/// Runs an operation by a process that dies at its first, second … change: that call and all later
/// ones change nothing, except that a write leaves half of its bytes. Then `check` examines the
/// root, until one process lives.
fn at_every_death(
    start: &Sandbox,
    operate: impl Fn(&Disk, &Sandbox),
    mut check: impl FnMut(&Sandbox, &Death),
) {
    for nth in 1.. {
        let root = copy_of(start);
        let death = Rc::new(Death::default());
        let seen = Rc::clone(&death);
        operate(&Disk::new(Rc::new(Observed::new(move |call| seen.fault(call, nth)))), &root);
        check(&root, &death);
        if !death.is_dead() {
            assert!(nth > 3, "the operation makes calls");
            return;
        }
    }
}

/// How often the three answers to "has it happened, and has it a line" were seen.
#[derive(Default)]
struct Seen {
    nothing: usize,
    without_line: usize,
    with_line: usize,
}

impl Seen {
    #[track_caller]
    fn judge(&mut self, happened: bool, has_line: bool, death: &Death) {
        match (happened, has_line) {
            (false, false) => self.nothing += 1,
            (false, true) => panic!("a line of what did not happen: {death:?}"),
            (true, false) => self.without_line += 1,
            (true, true) => self.with_line += 1,
        }
        let is_excused = !happened || (death.is_dead() && !death.has_appended.get());
        assert!(has_line || is_excused, "it died after it appended, or lives: {death:?}");
    }

    #[track_caller]
    fn is_complete(&self) {
        assert!(self.nothing > 0 && self.without_line > 0 && self.with_line > 0);
    }
}

/// A torn line may be damaged, and only once another line follows it.
#[track_caller]
fn assert_next_is_readable(root: &Sandbox, death: &Death) {
    let commits = read(root).commits().count();
    root.ok("state set after:=1");
    let events = read(root);
    assert!(events.commits().count() > commits, "{death:?}");
    assert!(events.damaged <= usize::from(death.is_dead()), "{}: {death:?}", events.damaged);
}

#[test]
fn no_line_shows_a_grant_that_did_not_happen() {
    let mut seen = Seen::default();
    at_every_death(
        &Sandbox::initialized(),
        |disk, root| drop(grant(disk, root, "a,b")),
        |root, death| {
            let lines = locks_with(root, LockStep::Granted);
            assert!(lines.iter().all(|lock| is_held(root, lock)), "{lines:?} {death:?}");
            seen.judge(is_held(root, "b"), lines.contains(&"b".to_owned()), death);
            assert_next_is_readable(root, death);
        },
    );
    seen.is_complete();
}

#[test]
fn no_line_shows_a_release_that_did_not_happen() {
    let mut seen = Seen::default();
    at_every_death(
        &holding("a,b"),
        |disk, root| drop(give_back(disk, root, "a,b")),
        |root, death| {
            let lines = locks_with(root, LockStep::Released);
            assert!(!lines.iter().any(|lock| is_held(root, lock)), "{lines:?} {death:?}");
            seen.judge(!is_held(root, "b"), lines.contains(&"b".to_owned()), death);
            assert_next_is_readable(root, death);
        },
    );
    seen.is_complete();
}

#[test]
fn no_line_shows_a_commit_that_did_not_happen() {
    let mut seen = Seen::default();
    at_every_death(
        &Sandbox::initialized(),
        |disk, root| drop(commit(disk, root)),
        |root, death| {
            let happened = root.document()["n"] == NEW;
            seen.judge(happened, has_line_of(root, 2), death);
            assert_next_is_readable(root, death);
        },
    );
    seen.is_complete();
}

#[test]
fn a_rotation_that_dies_loses_no_count() {
    let start = holding("a");
    fill(&start);
    let operations: [fn(&Disk, &Sandbox); 2] =
        [|disk, root| drop(commit(disk, root)), |disk, root| drop(give_back(disk, root, "a"))];
    for operate in operations {
        let mut rotated = 0;
        at_every_death(&start, operate, |root, death| {
            let (commits, grants) = totals(root);
            let has_line = has_line_of(root, 2) || commits == 2;
            assert!(!has_line || root.document()["n"] == NEW, "{death:?}");
            assert_eq!((commits, grants), (1 + u64::from(has_line), 1), "{death:?}");
            rotated += usize::from(root.file(DIRECTORY).join(OLD_JOURNAL).exists());
            root.ok("state set after:=1");
            fill(root);
            root.ok("state set after:=2");
            assert_eq!(totals(root), (commits + 2, 1), "rotated twice: {death:?}");
        });
        assert!(rotated > 1, "one dies between the renames");
    }
}

// ---- disks ----

/// A disk with this fault in some calls; `file` is that of a call, or the last one that was opened.
fn broken(is_it: impl Fn(&Call, &Path) -> bool + 'static, fault: Fault) -> Disk {
    let opened = RefCell::new(PathBuf::new());
    Disk::new(Rc::new(Observed::new(move |call| {
        let mut opened = opened.borrow_mut();
        if call.name.starts_with("open") || call.name == "create" {
            opened.clone_from(&call.path);
        }
        let file = if call.path.as_os_str().is_empty() { &*opened } else { &call.path };
        if is_it(call, file) { fault } else { Fault::None }
    })))
}

/// Whether this is the journal, the one before it, or the one that will replace it.
fn is_of_journal(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("journal"))
}

/// Commits, takes a lock and gives it back; returns the warnings of each.
fn all_three(disk: &Disk, root: &Sandbox) -> [Vec<String>; 3] {
    let warnings = [commit(disk, root), grant(disk, root, "a"), give_back(disk, root, "a")];
    assert_eq!(root.document()["n"], NEW);
    assert!(!is_held(root, "a"));
    warnings
}

#[test]
fn a_journal_that_cannot_be_written_is_one_warning() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::DQUOT, Errno::ACCESS] {
        for name in ["open_append", "fstat", "write", "torn write"] {
            let root = Sandbox::initialized();
            let fault = if name == "write" { Fault::Fails(errno) } else { Fault::Torn(errno) };
            let disk = broken(
                move |call, file| name.ends_with(call.name) && file.ends_with(JOURNAL),
                fault,
            );
            for warnings in all_three(&disk, &root) {
                assert_eq!(warnings.len(), 1, "{name} {errno}: {warnings:?}");
                assert!(warnings[0].contains("the journal has no line of this"), "{warnings:?}");
            }
            assert_eq!(totals(&root), (1, 0));
            root.ok("state set after:=1");
            let events = read(&root);
            assert_eq!(events.commits().last().unwrap().revision.get(), 3, "{name} {errno}");
            assert!(events.damaged <= 3, "{name} {errno}: {}", events.damaged);
        }
    }
}

#[test]
fn a_write_in_pieces_is_a_whole_line() {
    let root = Sandbox::initialized();
    let disk = broken(|call, _| call.name == "write", Fault::ShortWrite);
    assert_eq!(all_three(&disk, &root), [const { Vec::<String>::new() }; 3]);
    assert_eq!((totals(&root), read(&root).damaged), ((2, 1), 0));
}

#[test]
fn a_rotation_that_fails_is_one_warning_and_loses_no_count() {
    let start = holding("a");
    give_back(&Disk::real(), &start, "a");
    fill(&start);
    type Calls = fn(&Call, &Path) -> bool;
    let places: [(&str, Calls); 5] = [
        ("all writes", |call, file| {
            ["write", "create"].contains(&call.name) && is_of_journal(file)
        }),
        ("the new file", |call, file| {
            call.name == "create" && file.to_string_lossy().ends_with("-journal.tmp")
        }),
        ("the old name", |call, file| call.name == "rename" && file.ends_with(OLD_JOURNAL)),
        ("the new name", |call, file| call.name == "rename" && file.ends_with(JOURNAL)),
        ("reading", |call, file| call.name == "read" && is_of_journal(file)),
    ];
    for (place, is_it) in places {
        for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS] {
            let root = copy_of(&start);
            let [commit, grant, release] = all_three(&broken(is_it, Fault::Fails(errno)), &root);
            for warnings in [&commit, &grant, &release] {
                assert!(warnings.len() <= 1, "{place} {errno}: {warnings:?}");
            }
            assert_eq!(commit.len(), 1, "{place} {errno}");
            let lost = u64::from(place == "all writes");
            assert_eq!(totals(&root), (2 - lost, 2 - lost), "{place} {errno}");
            root.ok("state set after:=1");
            assert_eq!(totals(&root), (3 - lost, 2 - lost), "{place} {errno}");
        }
    }
}
