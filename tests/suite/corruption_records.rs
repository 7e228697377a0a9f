//! Bit flips in other records: a checkpoint, a lock record, the record of a restore. A record with
//! a flipped bit is never accepted.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::observed::{Fault, Observed};
use pipeline_state::audit::Audit;
use pipeline_state::error::Kind;
use pipeline_state::fs::Disk;
use pipeline_state::lock::{Deadline, Mode, Request, RequestSpec, owner};
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::{FileStore, Settings};
use serde_json::json;

use crate::faults::store;
use crate::lock_faults::{acquire, locks_on, release};
use crate::sandbox::Sandbox;
use crate::script::forged;
use crate::snapshots::{Whole, restored, twin, with_small_checkpoint};
use crate::strace::in_parallel;

/// Number of roots in parallel, each with its share of the bits.
const LANES: usize = 4;

/// The bytes with each of these bits flipped.
fn flipped(
    bytes: &[u8],
    bits: impl Iterator<Item = usize>,
) -> impl Iterator<Item = (usize, Vec<u8>)> {
    bits.take_while(|bit| *bit < bytes.len() * 8).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (bit, bytes)
    })
}

fn set(store: &FileStore) -> pipeline_state::error::Result<()> {
    let outcome = store.change(&WriteOptions::of("set"), &mut |base| {
        let mut value = base.draft();
        value["z"] = json!(1);
        Ok(value.into())
    });
    outcome.map(drop)
}

/// Sums up the counts of all lanes, and prints the sum.
fn in_lanes(what: &str, work: impl Fn(usize) -> usize + Sync) {
    let (began, count) = (Instant::now(), AtomicUsize::new(0));
    let lanes: Vec<usize> = (0..LANES).collect();
    in_parallel(&lanes, |lane| {
        count.fetch_add(work(*lane), Ordering::Relaxed);
    });
    println!("{what}: {} cases, {:.1} s", count.into_inner(), began.elapsed().as_secs_f64());
}

// ---- checkpoints ----

/// Flips bits of one file of the checkpoint: verify and restore refuse it, and that changes
/// nothing.
fn refuses_checkpoint(
    root: &Sandbox,
    id: &str,
    file: &Path,
    bits: impl Iterator<Item = usize>,
) -> usize {
    let path = root.file(".checkpoints").join(id).join(file);
    let (bytes, before) = (fs::read(&path).unwrap(), root.snapshot());
    let store = store(root, Disk::real());
    let mut count = 0;
    for (bit, damaged) in flipped(&bytes, bits) {
        fs::write(&path, &damaged).unwrap();
        let error = store.checkpoints().verify(id).expect_err(&format!("bit {bit} of {file:?}"));
        assert_eq!(
            (error.kind, error.code() as u8),
            (Kind::Corrupt, 3),
            "bit {bit} of {file:?}: {error}"
        );
        let error = store
            .restores()
            .restore(&Which::Id(id.to_owned()), &WriteOptions::of("restore"))
            .unwrap_err();
        assert_eq!(
            (error.kind, error.code() as u8),
            (Kind::Corrupt, 3),
            "bit {bit} of {file:?}: {error}"
        );
        count += 1;
    }
    fs::write(&path, &bytes).unwrap();
    assert!(root.snapshot() == before, "a refusal changed something: {file:?}");
    store.checkpoints().verify(id).unwrap();
    count
}

#[test]
fn no_bit_of_a_checkpoint_can_flip_and_be_restored() {
    let start = with_small_checkpoint();
    let id = start.names(".checkpoints").into_iter().find(|id| id.ends_with("-good")).unwrap();
    in_lanes("every bit of a checkpoint's manifest", |lane| {
        refuses_checkpoint(&twin(&start), &id, "manifest.json".as_ref(), (lane..).step_by(LANES))
    });
    // of the other files every fifth bit: each bit of a byte has its turn
    in_lanes("every fifth bit of a checkpoint's other files", |lane| {
        let root = twin(&start);
        let files = ["state.json", "metadata.json", "config/rules.json", "signals/EARLY.json"];
        files
            .map(|file| {
                refuses_checkpoint(&root, &id, file.as_ref(), (lane * 5..).step_by(LANES * 5))
            })
            .iter()
            .sum()
    });
}

// ---- locks ----

/// Requests a lock without waiting, as a process unrelated to the holder.
fn asks(name: &str) -> Request {
    let requester = owner::resolve(None, &[], &Default::default()).unwrap().requester;
    let names = vec![Name::parse("lock", name).unwrap()];
    let deadline = Deadline::after(Duration::ZERO);
    Request::new(names, RequestSpec::hold(Mode::Shared), requester, deadline)
}

fn impatient(root: &Sandbox) -> FileStore {
    let settings =
        Settings { lock_timeout: Duration::ZERO, ..store(root, Disk::real()).settings().clone() };
    FileStore::new(
        Disk::real(),
        settings,
        Audit::new(Disk::real(), root.file("audit.log"), root.path()),
    )
    .reporting_absence()
}

/// A flipped record may name another process, even a dead one: the lock is not free for that.
#[test]
fn no_bit_flip_in_a_record_frees_a_held_lock() {
    let holding = Sandbox::initialized();
    let holders = ["n", "state"].map(|name| holding.holder(name));
    let waiter = holding.waiter("n");
    let records = ["n", "state"].map(|name| (name, fs::read(holding.record_of(name)).unwrap()));
    in_lanes("every bit of two lock records", |lane| {
        let root = Sandbox::empty();
        root.ok("state init");
        let (store, before) = (impatient(&root), fs::read(root.state()).unwrap());
        let mut count = 0;
        for ((name, record), holder) in records.iter().zip(&holders) {
            let lock = Name::parse("lock", name).unwrap();
            let check = || store.locks().check(&lock).unwrap().to_string();
            root.put_record(name, record);
            assert_eq!(check(), format!("locked:exclusive:{}", holder.pid()));
            for (bit, damaged) in flipped(record, (lane..).step_by(LANES)) {
                count += 1;
                root.put_record(name, &damaged);
                assert!(check().starts_with("unknown:"), "bit {bit} of {name}: {}", check());
                // a check is fast and runs at every bit; a request, which preserves the record, at
                // every seventh
                if bit % 7 != 0 {
                    continue;
                }
                let error = match *name {
                    "state" => set(&store).expect_err(&format!("bit {bit} of {name}")),
                    _ => store
                        .locks()
                        .acquire(&asks(name))
                        .expect_err(&format!("bit {bit} of {name}")),
                };
                assert_eq!(error.code() as u8, 2, "bit {bit} of {name}: {error}");
                assert!(check().starts_with("unknown:"), "bit {bit} of {name}: {}", check());
                // on a very slow machine the time is over before the gate is passed, and the record
                // stays
                let kept = put_aside(&root);
                let is_kept =
                    kept == [damaged.clone()] || fs::read(root.record_of(name)).unwrap() == damaged;
                assert!(is_kept, "bit {bit} of {name}: the evidence is gone: {} files", kept.len());
            }
        }
        assert!(fs::read(root.state()).unwrap() == before, "another process wrote past the holder");
        count
    });
    drop(waiter);
}

/// Reads the preserved records and removes them.
fn put_aside(root: &Sandbox) -> Vec<Vec<u8>> {
    let kept = root.names(".locks").into_iter().filter(|name| name.starts_with(".torn-"));
    let kept = kept.map(|name| root.file(".locks").join(name));
    kept.map(|path| (fs::read(&path).unwrap(), fs::remove_file(&path).unwrap()).0).collect()
}

/// A repeated token would accept a writer after its lock was taken away (`--fence`). The
/// reservation is damaged together with a reboot, since it is read only then.
#[test]
fn whatever_bit_flips_no_token_comes_again() {
    in_lanes("every bit of the counter of tokens and of their reservation", |lane| {
        let root = Sandbox::empty();
        let locks = || locks_on(&root, Disk::real());
        let (counter, reserved) = (root.file(".locks/.tokens"), root.file(".locks/.reserved"));
        let (mut last, mut count) = (0, 0);
        let mut grows = |what: &str| {
            for again in ["first", "second"] {
                let token = acquire(&locks(), "n", Mode::Exclusive).unwrap()[0].grant.token.get();
                release(&locks(), "n").unwrap();
                assert!(token > last, "{what}: {token} after {last}, the {again}");
                last = token;
            }
        };
        grows("none");
        for file in [&counter, &reserved] {
            for bit in (lane..fs::read(file).unwrap().len() * 8).step_by(LANES) {
                let mut bytes = fs::read(file).unwrap();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(file, bytes).unwrap();
                if *file == reserved {
                    fs::write(
                        &counter,
                        forged(&counter, |counter| counter["boot"] = json!("earlier")),
                    )
                    .unwrap();
                }
                grows(&format!("bit {bit} of {}", file.display()));
                count += 1;
            }
        }
        assert!(last < 2048 * count as u64, "nor are they used up: {last} after {count} flips");
        count
    });
}

// ---- restores ----

/// A root with an intent to restore `good` and nothing exchanged yet.
fn with_decided_restore() -> Sandbox {
    let root = with_small_checkpoint();
    let disk = Disk::new(Rc::new(Observed::new(|call| match call.name {
        "exchange" => Fault::Fails(rustix::io::Errno::IO),
        _ => Fault::None,
    })));
    let which = Which::Latest(Some(Name::parse("operation", "good").unwrap()));
    let error =
        store(&root, disk).restores().restore(&which, &WriteOptions::of("restore")).unwrap_err();
    assert!(error.message.contains("is decided, and the next command finishes it"), "{error}");
    root
}

fn intent_of(root: &Sandbox) -> PathBuf {
    root.file(".checkpoints/.in-progress/intent.json")
}

#[test]
fn no_bit_of_a_restores_intent_can_flip_and_be_carried_out() {
    let start = with_decided_restore();
    let new = restored(&start);
    in_lanes("every bit of a restore's intent", |lane| {
        let root = twin(&start);
        let (path, before) = (intent_of(&root), root.snapshot());
        let intent = fs::read(&path).unwrap();
        let store = store(&root, Disk::real());
        let mut count = 0;
        for (bit, damaged) in flipped(&intent, (lane..).step_by(LANES)) {
            fs::write(&path, &damaged).unwrap();
            let read = store.read().map(|_| ()).expect_err(&format!("bit {bit}"));
            let written = set(&store).expect_err(&format!("bit {bit}"));
            for error in [read, written] {
                assert_eq!(
                    (error.kind, error.code() as u8),
                    (Kind::Corrupt, 3),
                    "bit {bit}: {error}"
                );
            }
            count += 1;
        }
        let damaged = [&intent[..100], b"X", &intent[101..]].concat();
        fs::write(&path, &intent).unwrap();
        let other: Vec<_> =
            root.snapshot().into_iter().filter(|file| !before.contains(file)).collect();
        assert!(other.is_empty(), "a refusal changed something: {other:?}");
        // a new restore replaces a damaged intent; a readable one is carried out
        if lane % 2 == 0 {
            fs::write(&path, damaged).unwrap();
            store
                .restores()
                .restore(
                    &Which::Latest(Some(Name::parse("operation", "good").unwrap())),
                    &WriteOptions::of("restore"),
                )
                .unwrap();
        }
        let read = store.read().unwrap();
        assert!(
            Whole::with(&root, &read.bytes) == new,
            "the restore that was decided is carried out"
        );
        count
    });
}
