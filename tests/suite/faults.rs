//! The library with each of its file-system calls failing, in one process.
//!
//! Every operation runs with its 1st, 2nd, 3rd … call failing, each time in a fresh copy of the
//! same root, until one run ends without the fault; with every error, failing once and failing ever
//! after. Then a store on the real disk examines the result. The audit log uses the real disk
//! throughout: its failures stop nothing.

mod injection;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use self::injection::Series;
pub use self::injection::{InjectedFault, Lasting, Manner};
use crate::observed::{Call, Fault, Observed};
use crate::races::settings_in;
use pipeline_state::audit::Audit;
use pipeline_state::document::contents::without_seal;
use pipeline_state::document::{Reading, inspect};
use pipeline_state::error::{Error, Kind, Result};
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::Wanted;
use pipeline_state::store::change::{Outcome, Proposal};
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::heal::Recovered;
use pipeline_state::store::layout::STATE_FILE;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::signal::Signals;
use pipeline_state::store::{FileStore, Settings, SignalFile};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::kill::{assert_settled, content, copy_of, damaged, precious};
use crate::sandbox::Sandbox;
use crate::strace::in_parallel;

pub fn store(root: &Sandbox, disk: Disk) -> FileStore {
    let (lock_timeout, max_backups) = (Duration::from_secs(5), 6);
    let settings = Settings { lock_timeout, max_backups, ..settings_in(root.path()) };
    FileStore::new(disk, settings, Audit::new(Disk::real(), root.file("audit.log"), root.path()))
        .reporting_absence()
}

fn committed(outcome: Result<Outcome>) -> Result<()> {
    outcome.map(|outcome| assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}"))
}

/// A change of one field.
pub fn set(store: &FileStore, field: &str, make: impl Fn(&Value) -> Value) -> Result<()> {
    committed(store.change(&WriteOptions::of("set"), &mut |base| {
        let mut value = base.draft();
        value[field] = make(&base.value);
        Ok(value.into())
    }))
}

struct Job {
    name: &'static str,
    start: Sandbox,
    run: fn(&FileStore) -> Result<()>,
    /// The effect of the operation.
    proof: (&'static str, Value),
    revisions: (u64, u64),
    precious: &'static [&'static str],
    /// The remedy for a refused initial state.
    remedy: Option<fn(&FileStore) -> Result<()>>,
    /// Set if a failure leaves the live file unchanged; a failing read may have healed it already.
    untouched: Untouched,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Untouched {
    ByFailure,
    Perhaps,
}

impl Job {
    fn new(
        name: &'static str,
        start: Sandbox,
        proof: (&'static str, Value),
        run: fn(&FileStore) -> Result<()>,
    ) -> Self {
        Self {
            name,
            start,
            run,
            proof,
            revisions: (4, 5),
            precious: &[STATE_FILE],
            remedy: None,
            untouched: Untouched::ByFailure,
        }
    }

    fn failing_at_every_call(self) {
        let began = Instant::now();
        let root = copy_of(&self.start);
        let real = store(&root, Disk::real());
        let old = real.read().ok().map(|served| content(&served.bytes));
        assert_eq!(old.is_none(), self.remedy.is_some());
        let root = copy_of(&self.start);
        let real = store(&root, Disk::real());
        (self.run)(&real).unwrap();
        let new = content(&real.read().unwrap().bytes);
        assert_eq!(new.0.pointer(self.proof.0), Some(&self.proof.1));
        assert_eq!((old.as_ref().map_or(self.revisions.0, |old| old.1), new.1), self.revisions);

        let precious = precious(&self.start, self.precious);
        let runs = AtomicUsize::new(0);
        in_parallel(&Series::all(), |series| {
            let (mut nth, mut failed) = (0, 0);
            loop {
                nth += 1;
                let case = || self.meets(series.at(nth), nth, old.as_ref(), &new, &precious);
                match std::panic::catch_unwind(AssertUnwindSafe(case)) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => failed += 1,
                }
            }
            runs.fetch_add(nth - 1, Ordering::Relaxed);
            assert_eq!(failed, 0, "{failed} of {} failures are taken badly; see above", nth - 1);
        });
        println!(
            "{}: {} failures, {:.1} s",
            self.name,
            runs.into_inner(),
            began.elapsed().as_secs_f64()
        );
    }

    /// Runs the operation with its `nth` call failing, and checks the result; false if there is no
    /// such call.
    fn meets(
        &self,
        fault: InjectedFault,
        nth: usize,
        old: Option<&(Value, u64)>,
        new: &(Value, u64),
        precious: &[Vec<u8>],
    ) -> bool {
        let root = copy_of(&self.start);
        let (disk, hit) = fault.disk(nth);
        let broken = store(&root, disk);
        let result = (self.run)(&broken);
        let Some(call) = hit.borrow_mut().take() else {
            result.unwrap();
            return false;
        };
        let InjectedFault { errno, lasting, manner, .. } = fault;
        let what = format!(
            "{} of {:?} {:?}",
            call.name,
            call.path.file_name().unwrap_or_default(),
            call.from
        );
        let told = result.as_ref().map_err(|error| (error.kind, &error.message));
        let place =
            format!("{}: {what} {manner:?} {lasting:?}, #{nth}, {errno}\n{told:?}", self.name);
        Self::assert_right_code(fault, &root, &call, &result, &place);

        let live = fs::read(root.state()).ok();
        let confirmed = !matches!(&result, Err(error) if error.kind == Kind::DurabilityUnknown);
        if result.is_err() && confirmed && self.untouched == Untouched::ByFailure {
            let untouched = live == fs::read(self.start.state()).ok();
            assert!(untouched, "it failed, and the live file is another: {place}");
        }
        if result.is_ok()
            && self.untouched == Untouched::ByFailure
            && fs::read(root.mirror()).ok() != live
        {
            let warnings = broken.take_warnings().join("\n");
            assert!(
                warnings.contains("mirror"),
                "no warning about the mirror: {place}\n{warnings}"
            );
        }
        drop(broken);

        let real = store(&root, Disk::real());
        let (mut read, mut remedied) = (real.read(), false);
        if let (Err(_), Some(remedy)) = (&read, self.remedy) {
            remedy(&real).unwrap_or_else(|error| panic!("no remedy: {error}: {place}"));
            (read, remedied) = (real.read(), true);
        }
        let found =
            content(&read.unwrap_or_else(|error| panic!("a bad read: {error}: {place}")).bytes);
        let is_new = found == *new && !remedied;
        assert!(found == *new || Some(&found) == old, "neither old nor new: {place}\n{found:?}");
        // a disk that fails permanently at the rename cannot show if it took place
        let blind = fault.lasting == Lasting::EverAfter
            && call.name == "rename"
            && call.path == root.state();
        let unknown = !confirmed && blind && fault.manner == Manner::Fails;
        assert!(is_new || (result.is_err() && confirmed) || unknown, "a change is lost: {place}");

        if fs::metadata(root.state()).unwrap().nlink() > 1 {
            real.change(&WriteOptions::of("update"), &mut |base| Ok(base.draft().into())).unwrap();
            assert_eq!(
                fs::metadata(root.state()).unwrap().nlink(),
                1,
                "a failed commit's link is left: {place}"
            );
        }
        set(&real, "z", |_| json!(1))
            .unwrap_or_else(|error| panic!("the next writer fails: {error}: {place}"));
        let (mut expected, revision) = found;
        expected["z"] = json!(1);
        assert_eq!(content(&fs::read(root.state()).unwrap()), (expected, revision + 1), "{place}");
        // a full disk costs all automatic backups except two
        let full = fault.code == 7;
        assert_settled(
            &root,
            &precious[if full { precious.len().saturating_sub(3) } else { 0 }..],
            &place,
        );
        true
    }

    /// An error has the exit code of the disk's error; only a change in place may be of unknown
    /// durability.
    fn assert_right_code(
        fault: InjectedFault,
        root: &Sandbox,
        call: &Call,
        result: &Result<()>,
        place: &str,
    ) {
        let synced = matches!(call.name, "sync" | "sync_dir");
        // a call that took effect in spite of EINTR may fail when it is repeated
        let repeated = fault.errno == Errno::INTR
            && fault.lasting == Lasting::Once
            && fault.manner == Manner::Fails;
        let harmless = fault.manner == Manner::Shortened || (repeated && !synced);
        match result {
            Ok(()) => assert!(
                !(call.name == "sync_dir" && call.path == root.path()),
                "nothing was confirmed: {place}"
            ),
            Err(error) if error.kind == Kind::DurabilityUnknown => assert!(!harmless, "{place}"),
            Err(error) => {
                assert!(error.code() as u8 == fault.code && !harmless, "a wrong code: {place}")
            }
        }
    }
}

fn increment(store: &FileStore) -> Result<()> {
    set(store, "n", |document| json!(document["n"].as_u64().unwrap() + 1))
}

fn begin(store: &FileStore) -> Result<()> {
    store.init(InitMode::Continue, &WriteOptions::of("init")).map(|_| ())
}

fn adopt(store: &FileStore) -> Result<()> {
    committed(store.adopt(&WriteOptions::of("adopt")))
}

fn recover(store: &FileStore, wanted: &Wanted) -> Result<()> {
    let recovered = store.recover(wanted, &WriteOptions::of("recover"));
    recovered.map(|recovered| assert!(matches!(recovered, Recovered::From { .. }), "{recovered:?}"))
}

#[test]
fn a_change_whose_calls_fail_is_old_or_new_and_ok_means_new() {
    Job::new("change", Sandbox::with_history(), ("/n", json!(4)), increment)
        .failing_at_every_call();
}

#[test]
fn a_change_that_prunes_backups_while_calls_fail_is_old_or_new() {
    let start = Sandbox::initialized();
    for n in 1..=8 {
        let set = start
            .command()
            .env("STATE_MAX_BACKUPS", "20")
            .args(["state", "set", &format!("n:={n}")])
            .status();
        assert!(set.unwrap().success());
    }
    let mut job = Job::new("change and retire", start, ("/n", json!(9)), increment);
    job.revisions = (9, 10);
    job.failing_at_every_call();
}

/// Gives or clears a signal.
pub fn signal(store: &FileStore, name: &str, gives: bool) -> Result<()> {
    let name = Name::parse("signal", name)?;
    committed(store.change(&WriteOptions::of("signal"), &mut |base| {
        let mut value = base.draft();
        if gives {
            let file = SignalFile::give(&mut value, &name, &Value::Null, SystemTime::now())?;
            return Ok(Proposal { signals: Signals::These(vec![file]), ..value.into() });
        }
        value["signals"].as_object_mut().unwrap().remove(name.as_str());
        value["lastSignal"] = Value::Null;
        let file = SignalFile { name: name.clone(), content: None };
        Ok(Proposal { signals: Signals::These(vec![file]), ..value.into() })
    }))
}

#[test]
fn a_failed_signal_is_given_with_its_file_or_not_at_all() {
    let give = |store: &FileStore| signal(store, "GO", true);
    Job::new("signal", Sandbox::with_history(), ("/lastSignal", json!("GO")), give)
        .failing_at_every_call();
}

#[test]
fn a_failed_clear_removes_a_signal_with_its_file_or_not_at_all() {
    let start = Sandbox::with_history();
    start.ok("state signal GO");
    let clear = |store: &FileStore| signal(store, "GO", false);
    let mut job = Job::new("signal --clear", start, ("/lastSignal", Value::Null), clear);
    job.revisions = (5, 6);
    job.failing_at_every_call();
}

#[test]
fn an_init_whose_calls_fail_leaves_nothing_or_the_first_document() {
    let mut job = Job::new("init", Sandbox::empty(), ("/phase", json!("pre-init")), begin);
    (job.revisions, job.precious) = ((0, 1), &[]);
    job.remedy = Some(begin);
    job.failing_at_every_call();
}

#[test]
fn a_fresh_beginning_whose_calls_fail_loses_no_revision_of_the_old_one() {
    let start = Sandbox::with_history();
    start.ok("state phase late");
    let mut job = Job::new("init --fresh", start, ("/phase", json!("pre-init")), |store| {
        store.init(InitMode::Fresh, &WriteOptions::of("init")).map(|_| ())
    });
    job.revisions = (5, 6);
    job.failing_at_every_call();
}

#[test]
fn a_recovery_whose_calls_fail_is_finished_by_the_next_reader() {
    let mut job =
        Job::new("recover", damaged(), ("/n", json!(3)), |store| recover(store, &Wanted::Newest));
    job.revisions = (5, 5);
    job.failing_at_every_call();
}

#[test]
fn a_rollback_whose_calls_fail_brings_back_all_of_a_backup_or_nothing() {
    let rollback = |store: &FileStore| recover(store, &Wanted::Matching("r2-".into()));
    Job::new("recover r2-", Sandbox::with_history(), ("/n", json!(1)), rollback)
        .failing_at_every_call();
}

#[test]
fn a_failing_healing_reader_serves_the_healed_document_or_fails() {
    let mut job = Job::new("read", damaged(), ("/n", json!(3)), |store| {
        store.read().map(|served| assert_eq!(served.value["n"].as_u64(), Some(3)))
    });
    (job.revisions, job.untouched) = ((5, 5), Untouched::Perhaps);
    job.failing_at_every_call();
}

#[test]
fn an_adoption_whose_calls_fail_leaves_the_edit_or_seals_it() {
    let start = Sandbox::with_history();
    start.overwrite(fs::read_to_string(start.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let mut job = Job::new("adopt", start, ("/n", json!(33)), adopt);
    job.precious = &[".state-backups/mirror.json"];
    job.remedy = Some(adopt);
    job.failing_at_every_call();
}

/// An adopted edit was no revision before, so its digest identifies the result.
#[test]
fn a_failed_migration_leaves_the_legacy_or_the_migrated_document() {
    const LEGACY: &str = concat!(
        r#"{"phase":3,"completedTasks":[],"signals":{"A":null},"lastActivation":1,"#,
        r#""created":"then","n":1}"#
    );
    let (start, runs) = (Sandbox::holding(LEGACY), AtomicUsize::new(0));
    let migrate = |store: &FileStore| {
        committed(
            store
                .change(&WriteOptions::of("migrate"), &mut |base| Ok((*base.value).clone().into())),
        )
    };
    let users = |bytes: &[u8]| {
        let mut document = without_seal(&serde_json::from_slice(bytes).unwrap());
        document.as_object_mut().unwrap().shift_remove("z");
        document
    };
    let expected = {
        let root = copy_of(&start);
        let real = store(&root, Disk::real());
        migrate(&real).unwrap();
        users(&real.read().unwrap().bytes)
    };
    assert_eq!(
        (&expected["phase"], &expected["metadata"]["migratedFrom"]),
        (&json!("3"), &json!("legacy"))
    );
    in_parallel(&Series::all(), |series| {
        for nth in 1.. {
            let fault = series.at(nth);
            let root = copy_of(&start);
            let (disk, hit) = fault.disk(nth);
            let result = migrate(&store(&root, disk));
            let Some(call) = hit.borrow_mut().take() else {
                result.unwrap();
                break;
            };
            runs.fetch_add(1, Ordering::Relaxed);
            let told = result.as_ref().map_err(|error| (error.kind, &error.message));
            let place = format!("{fault:?} at call {nth}, {call:?}\n{told:?}");
            Job::assert_right_code(fault, &root, &call, &result, &place);
            let is_sealed = matches!(inspect(&fs::read(root.state()).unwrap()), Reading::Sealed(_));
            let unconfirmed =
                matches!(&result, Err(error) if error.kind == Kind::DurabilityUnknown);
            assert!(
                is_sealed == result.is_ok() || unconfirmed,
                "the result differs from the report: {place}"
            );
            assert!(
                is_sealed || fs::read(root.state()).unwrap() == LEGACY.as_bytes(),
                "neither old nor new: {place}"
            );
            let real = store(&root, Disk::real());
            let read = real.read().unwrap_or_else(|error| panic!("a bad read: {error}: {place}"));
            assert_eq!(users(&read.bytes), expected, "{place}");
            set(&real, "z", |_| json!(1))
                .unwrap_or_else(|error| panic!("the next writer fails: {error}: {place}"));
            assert_eq!(users(&fs::read(root.state()).unwrap()), expected, "{place}");
            assert_settled(&root, &[LEGACY.as_bytes().to_vec()], &place);
        }
    });
    println!("migrate: {} failures", runs.into_inner());
}

#[test]
fn a_backup_whose_calls_fail_is_whole_or_absent_and_ok_means_whole() {
    let mut job = Job::new("backup", Sandbox::with_history(), ("/n", json!(3)), |store| {
        let made = store.backup(None)?;
        assert_eq!(fs::read(made).unwrap(), fs::read(store.settings().path()).unwrap());
        Ok(())
    });
    job.revisions = (4, 4);
    job.failing_at_every_call();
}

/// The rename takes place and reports a full disk, and the read of the live file that would show it
/// fails as well. The change must not be repeated, and must not count as one that did not happen.
#[test]
fn a_rename_of_unknown_outcome_is_never_repeated() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::INTR] {
        let root = Sandbox::with_history();
        let (live, mut renamed) = (root.state(), false);
        let mut blind = 0;
        let disk = Disk::new(Rc::new(Observed::new(move |call| {
            if call.name == "rename" && call.path == live && !renamed {
                (renamed, blind) = (true, 1);
                return Fault::FailsAfter(errno);
            }
            if call.name == "open" && call.path == live && blind > 0 {
                blind -= 1;
                return Fault::Fails(Errno::MFILE);
            }
            Fault::None
        })));
        let result = increment(&store(&root, disk));
        assert_eq!(root.document()["n"], json!(4), "{errno:?} {result:?}");
        let told = matches!(&result, Ok(()) | Err(Error { kind: Kind::DurabilityUnknown, .. }));
        assert!(told, "{errno:?}: the new document is in place, and this was said: {result:?}");
    }
}
