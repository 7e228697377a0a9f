//! Power cuts: recovery from every tree that one may leave of a command, at every moment, and from
//! every tree that a second one may leave of that recovery. See [`power_cut`] for the assumptions
//! about the file system, [`mutants`] for the faults that are caught.

pub mod explore;
pub mod image;
mod mutants;
mod power_cut;
mod recorder;
mod reservations;

use std::fs;
use std::rc::Rc;

use crate::observed::{Fault, Observed};
use pipeline_state::error::{Kind, Result};
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::guard::record::{Record, file_name};
use pipeline_state::store::guard::{Settlement, Standing};
use pipeline_state::store::options::{Mode, WriteOptions};
use pipeline_state::store::{FileStore, Wanted};
use rustix::io::Errno;
use serde_json::{Value, json};

use self::explore::{Facts, Job, Step, Trees, write_z};
use self::recorder::Directories;
use crate::effort::sampled;
use crate::faults::signal;
use crate::kill::damaged;
use crate::sandbox::Sandbox;
use crate::snapshots::with_small_checkpoint;

fn set(store: &FileStore, field: &str, value: Value) -> Result<()> {
    let change = store.change(&WriteOptions::of("set"), &mut |base| {
        let mut document = base.draft();
        document[field] = value.clone();
        Ok(document.into())
    });
    change.map(|_| ())
}

fn init(store: &FileStore) -> Result<()> {
    store.init(InitMode::Continue, &WriteOptions::of("init")).map(|_| ())
}

fn read(store: &FileStore) -> Result<()> {
    store.read().map(|_| ())
}

fn adopt(store: &FileStore) -> Result<()> {
    store.adopt(&WriteOptions::of("adopt")).map(|_| ())
}

fn recover(store: &FileStore, wanted: &Wanted) -> Result<()> {
    store.recover(wanted, &WriteOptions::of("recover")).map(|_| ())
}

fn newest(store: &FileStore) -> Result<()> {
    recover(store, &Wanted::Newest)
}

fn checkpoint(store: &FileStore) -> Result<()> {
    let snapshot = Snapshot {
        operation: Name::parse("operation", "second")?,
        phase: None,
        metadata: Value::Null,
    };
    store.checkpoints().create(&snapshot).map(|_| ())
}

fn restore(store: &FileStore) -> Result<()> {
    store
        .restores()
        .restore(
            &Which::Latest(Some(Name::parse("operation", "good")?)),
            &WriteOptions::of("restore"),
        )
        .map(|_| ())
}

/// Files besides the state that must survive: pinned backups, evidence, checkpoints.
fn kept(root: &Sandbox, store: &FileStore) -> Facts {
    let backups = store
        .report()
        .backups()
        .unwrap()
        .into_iter()
        .filter(|backup| backup.pinned && backup.valid);
    let mut facts: Facts = backups.map(|backup| format!("the backup {}", backup.kept)).collect();
    for name in root.shelf("corrupt-") {
        let bytes = fs::read(root.file(".state-backups").join(name)).unwrap();
        facts.insert(format!("evidence: {}", String::from_utf8_lossy(&bytes)));
    }
    for id in store.checkpoints().ids().unwrap() {
        let operation = id.rsplit('-').next().unwrap();
        facts.insert(format!("the checkpoint {operation}"));
    }
    facts
}

fn job(name: &'static str, start: Sandbox, steps: &[Step]) -> Job {
    let mut job = Job::new(name, start, steps.to_vec());
    job.facts = kept;
    job
}

fn edited() -> Sandbox {
    let root = Sandbox::with_history();
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    root
}

/// More backups than the limit, and a signal.
fn full() -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("state signal GO");
    root.ok("state backup first");
    for n in 4..8 {
        root.ok(&format!("state set n:={n}"));
    }
    root
}

fn three_changes() -> Job {
    let steps: [Step; 3] =
        [|s| set(s, "n", json!(10)), |s| set(s, "n", json!(11)), |s| set(s, "n", json!(12))];
    job("three changes", full(), &steps)
}

#[test]
fn no_power_cut_loses_an_acknowledged_change() {
    three_changes().holds();
}

#[test]
fn no_power_cut_leaves_half_a_beginning() {
    job("init, then a change", Sandbox::empty(), &[init, write_z]).holds();
}

/// A new lineage; its archive holds the previous backups.
fn with_new_lineage() -> Job {
    let fresh: Step = |store| store.init(InitMode::Fresh, &WriteOptions::of("init")).map(|_| ());
    let mut job = job("init --fresh, then a change", full(), &[fresh, write_z]);
    job.facts = |root, _| {
        let on_shelf = root.shelf("state-").into_iter();
        let archives = root.shelf("archive-").into_iter();
        let archived =
            archives.flat_map(|archive| root.names(&format!(".state-backups/{archive}")));
        let names = on_shelf.chain(archived).filter(|name| name.contains("manual-first"));
        names.map(|_| "the pinned backup".to_owned()).collect()
    };
    job
}

#[test]
fn no_power_cut_loses_an_old_lineage_to_a_fresh_one() {
    with_new_lineage().holds();
}

#[test]
fn no_power_cut_stops_a_healing() {
    job("heal, then a change", damaged(), &[read, write_z]).holds();
}

#[test]
fn no_power_cut_undoes_a_recovery_or_loses_the_replaced_file() {
    let rollback: Step = |store| recover(store, &Wanted::Matching("r2-".into()));
    job("recover r2-, then a change", Sandbox::with_history(), &[rollback, write_z]).holds();
    let gone = Sandbox::with_history();
    fs::remove_file(gone.state()).unwrap();
    let mut missing = job("recover what is gone", gone, &[newest, write_z]);
    missing.refused = (Kind::Missing, newest);
    missing.holds();
}

#[test]
fn no_power_cut_makes_an_adoption_or_a_discarded_edit_a_mix() {
    let mut accepted = job("adopt, then a change", edited(), &[adopt, write_z]);
    accepted.refused = (Kind::ForeignEdit, adopt);
    accepted.holds();
    let mut discarded = job("recover from an edit, then a change", edited(), &[newest, write_z]);
    discarded.refused = (Kind::ForeignEdit, newest);
    discarded.holds();
}

#[test]
fn no_power_cut_loses_the_document_that_was_migrated() {
    let legacy = concat!(
        r#"{"phase":3,"completedTasks":[],"signals":{"A":null},"lastActivation":1,"#,
        r#""created":"then"}"#
    );
    job("migrate, then a change", Sandbox::holding(legacy), &[init, write_z]).holds();
}

#[test]
fn no_power_cut_parts_a_signal_from_its_file() {
    let steps: [Step; 3] = [|s| signal(s, "A", true), |s| signal(s, "GO", false), write_z];
    let mut job = Job::new("signal, signal --clear, a change", full(), steps.to_vec());
    job.facts = |root, _| {
        let is_there = |name: &str| root.file(".signals").join(name).exists();
        let facts = [("A is there", is_there("A.json")), ("GO is gone", !is_there("GO.json"))];
        facts.into_iter().filter(|(_, is_so)| *is_so).map(|(fact, _)| fact.to_owned()).collect()
    };
    job.holds();
}

#[test]
fn no_power_cut_loses_a_backup_or_a_checkpoint_that_was_acknowledged() {
    let backup: Step = |store| store.backup(Some(&Name::parse("backup", "mine")?)).map(|_| ());
    job("backup, checkpoint, a change", full(), &[backup, checkpoint, write_z]).holds();
}

#[test]
fn no_power_cut_leaves_a_part_of_a_checkpoint_that_was_removed() {
    let root = with_small_checkpoint();
    root.ok("recover checkpoint newer");
    let cleanup: Step =
        |store| store.checkpoints().clean(std::time::Duration::ZERO, 1, Mode::Commit).map(|_| ());
    let mut job = Job::new("recover cleanup, then a change", root, vec![cleanup, write_z]);
    (job.limit, job.shapes) = (sampled(10, 60), 1);
    job.holds();
}

fn restoring() -> Job {
    let mut job = job("restore, then a change", with_small_checkpoint(), &[restore, write_z]);
    (job.trees, job.limit, job.shapes) = (Trees::Matter, sampled(4, 60), sampled(2, 6));
    job
}

#[test]
fn no_power_cut_makes_a_restore_a_mix() {
    restoring().holds();
}

/// Trees that cannot be renamed: their contents are replaced file by file.
fn restoring_into() -> Job {
    Job { directories: Directories::Merged, ..restoring() }
}

#[test]
fn no_power_cut_makes_a_restore_file_by_file_a_mix() {
    restoring_into().holds();
}

/// A root after the restore of `config/`, without that of `.signals/`.
fn half_restored() -> Sandbox {
    let root = with_small_checkpoint();
    let mut exchanges = 0;
    let disk = Disk::new(Rc::new(Observed::new(move |call| {
        exchanges += usize::from(call.name == "exchange");
        if call.name == "exchange" && exchanges > 1 { Fault::Fails(Errno::IO) } else { Fault::None }
    })));
    restore(&crate::faults::store(&root, disk)).unwrap_err();
    root
}

/// Until the abort's own intent is in place, the next command finishes the restore.
fn aborting() -> Job {
    let abort: Step = |store| store.restores().abort().map(|_| ());
    let mut job = job("abort, then a change", half_restored(), &[abort, write_z]);
    (job.trees, job.limit, job.shapes) = (Trees::Matter, sampled(4, 60), sampled(1, 6));
    job
}

#[test]
fn no_power_cut_makes_an_abort_a_mix() {
    aborting().holds();
}

fn begin_guard(store: &FileStore) -> Result<()> {
    let snapshot = Snapshot {
        operation: Name::parse("operation", "guarded")?,
        phase: None,
        metadata: Value::Null,
    };
    store.guards().begin(&snapshot).map(|_| ())
}

fn settle_guard(store: &FileStore) -> Result<()> {
    let id = store.guards().list()?.pop().map(|guard| guard.id).unwrap_or_default();
    let path = store.settings().root.join(".state-backups").join(file_name(&id));
    let record = Record::read(&id, &fs::read(path).unwrap_or_default()).expect("a record");
    let settled = store.guards().settle_failed(&record, &WriteOptions::of("restore"))?;
    assert!(matches!(settled, Settlement::Restored { .. }), "{settled:?}");
    Ok(())
}

/// Readable records that have their checkpoint.
fn guarded(_: &Sandbox, store: &FileStore) -> Facts {
    let ids = store.checkpoints().ids().unwrap();
    let records = store.guards().list().unwrap().into_iter();
    let sound =
        records.filter(|guard| guard.standing != Standing::Damaged && ids.contains(&guard.id));
    sound.map(|_| "a guard on record".to_owned()).collect()
}

fn beginning_a_guard() -> Job {
    let mut job = Job::new("a guard begins, then a change", full(), vec![begin_guard, write_z]);
    job.facts = guarded;
    (job.limit, job.shapes) = (sampled(10, 60), sampled(1, 6));
    job
}

#[test]
fn no_power_cut_loses_the_record_of_a_guard_or_makes_it_half_a_record() {
    beginning_a_guard().holds();
}

#[test]
fn no_power_cut_leaves_a_guards_rollback_half_done() {
    let steps: Vec<Step> = vec![begin_guard, |s| set(s, "n", json!(99)), settle_guard, write_z];
    let mut job = Job::new("a guard fails, then a change", with_small_checkpoint(), steps);
    (job.trees, job.limit, job.shapes) = (Trees::Matter, sampled(4, 60), sampled(1, 6));
    job.holds();
}
