//! FileLocks on a disk with calls that fail one after the other: a failure changes nothing, and
//! several locks change together.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use crate::observed::{Call, Fault, Observed};
use pipeline_state::audit::Audit;
use pipeline_state::document::seal::with_digest;
use pipeline_state::error::Result;
use pipeline_state::fs::Disk;
use pipeline_state::lock::{
    Acquired, Deadline, FileLocks, LockEnv, Mode, Request, RequestSpec, Standing, owner,
};
use pipeline_state::name::Name;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::sandbox::Sandbox;

pub fn locks_on(sandbox: &Sandbox, disk: Disk) -> FileLocks {
    let audit = Rc::new(Audit::new(disk.clone(), sandbox.file("audit.log"), sandbox.path()));
    FileLocks::new(disk, sandbox.path(), LockEnv::default(), audit)
}

fn names(names: &str) -> Vec<Name> {
    names.split(',').map(|name| Name::parse("lock", name).unwrap()).collect()
}

/// This process is the requester, and does not wait.
pub fn acquire(locks: &FileLocks, wanted: &str, mode: Mode) -> Result<Vec<Acquired>> {
    let requester = owner::resolve(Some(std::process::id()), &[], &LockEnv::default())?.requester;
    let deadline = Deadline::after(std::time::Duration::ZERO);
    let request = Request::new(names(wanted), RequestSpec::hold(mode), requester, deadline);
    locks.acquire(&request)
}

pub fn release(locks: &FileLocks, wanted: &str) -> Result<()> {
    let requester = owner::self_and_ancestors(None, &LockEnv::default())?;
    locks.release(&names(wanted), None, &requester, Instant::now()).map(|_| ())
}

/// The status of each of these locks, after a pass of the gate completed interrupted changes.
fn standings(sandbox: &Sandbox, wanted: &str) -> Vec<String> {
    let locks = locks_on(sandbox, Disk::real());
    locks.clean(Instant::now()).unwrap();
    names(wanted)
        .iter()
        .map(|name| match locks.check(name).unwrap() {
            Standing::Locked(mode, pids) if pids == [std::process::id().to_string()] => {
                mode.to_string()
            }
            other => other.to_string(),
        })
        .collect()
}

/// A disk that fails its `nth` call; the second value is set once it did.
fn failing(nth: usize, errno: Errno) -> (Disk, Rc<Cell<bool>>) {
    let (count, failed) = (Cell::new(0), Rc::new(Cell::new(false)));
    let seen = failed.clone();
    let disk = Disk::new(Rc::new(Observed::new(move |_: &Call| {
        count.set(count.get() + 1);
        if count.get() == nth {
            seen.set(true);
            return Fault::Fails(errno);
        }
        Fault::None
    })));
    (disk, failed)
}

/// Makes each call of an operation fail in turn, each time in a root that `prepare` set up.
fn at_every_call(
    prepare: impl Fn(&Sandbox),
    operate: impl Fn(&FileLocks) -> Result<()>,
    check: impl Fn(&Sandbox, Result<()>, &str),
) {
    for errno in [Errno::IO, Errno::NOSPC, Errno::MFILE] {
        for nth in 1.. {
            let sandbox = Sandbox::empty();
            prepare(&sandbox);
            let (disk, failed) = failing(nth, errno);
            let locks = locks_on(&sandbox, disk);
            let result = operate(&locks);
            drop(locks);
            check(&sandbox, result, &format!("call {nth} fails with {errno}"));
            if !failed.get() {
                assert!(nth > 10, "the operation makes calls");
                break;
            }
        }
    }
}

#[test]
fn an_acquire_that_fails_at_any_call_leaves_nothing_held() {
    at_every_call(
        |sandbox| {
            acquire(&locks_on(sandbox, Disk::real()), "other", Mode::Exclusive).unwrap();
        },
        |locks| acquire(locks, "a,b,state", Mode::Exclusive).map(|_| ()),
        |sandbox, result, place| {
            let expected = if result.is_ok() { "exclusive" } else { "unlocked" };
            assert_eq!(standings(sandbox, "a,b,state"), [expected; 3], "{place}: {result:?}");
            assert_eq!(standings(sandbox, "other"), ["exclusive"], "{place}");
        },
    );
}

#[test]
fn a_release_that_fails_at_any_call_leaves_all_held_or_none() {
    at_every_call(
        |sandbox| {
            acquire(&locks_on(sandbox, Disk::real()), "a,b", Mode::Exclusive).unwrap();
        },
        |locks| release(locks, "a,b"),
        |sandbox, result, place| {
            let expected = if result.is_ok() { "unlocked" } else { "exclusive" };
            assert_eq!(standings(sandbox, "a,b"), [expected; 2], "{place}: {result:?}");
        },
    );
}

#[test]
fn an_upgrade_that_fails_at_any_call_leaves_the_shared_lock() {
    at_every_call(
        |sandbox| {
            acquire(&locks_on(sandbox, Disk::real()), "a,b", Mode::Shared).unwrap();
        },
        |locks| acquire(locks, "a,b", Mode::Exclusive).map(|_| ()),
        |sandbox, result, place| {
            let expected = if result.is_ok() { "exclusive" } else { "shared" };
            assert_eq!(standings(sandbox, "a,b"), [expected; 2], "{place}: {result:?}");
        },
    );
}

#[test]
fn tokens_grow_whatever_fails() {
    let sandbox = Sandbox::empty();
    let mut last = 0;
    for nth in 1..120 {
        let (disk, _) = failing(nth, Errno::IO);
        let granted = acquire(&locks_on(&sandbox, disk), "a,b", Mode::Exclusive);
        let locks = locks_on(&sandbox, Disk::real());
        if granted.is_err() {
            let _ = release(&locks, "a,b");
        }
        for Acquired { grant, .. } in granted.iter().flatten() {
            assert!(grant.token.get() > last, "call {nth}: {} after {last}", grant.token);
            last = grant.token.get();
        }
        if granted.is_ok() {
            release(&locks, "a,b").unwrap();
        }
        // an occasional reboot: the counter in memory is gone
        if nth % 10 == 0 {
            let _ = std::fs::remove_file(sandbox.file(".locks/.tokens"));
        }
    }
    assert!(last > 1024, "blocks were reserved on the way");
}

#[test]
fn on_a_full_disk_a_lock_can_still_be_given_back() {
    let sandbox = Sandbox::empty();
    for wanted in ["a", "a,b,c"] {
        acquire(&locks_on(&sandbox, Disk::real()), "a,b,c,other", Mode::Shared).unwrap();
        let spare = sandbox.file(".locks/.spare-2");
        assert!(std::fs::metadata(&spare).unwrap().len() >= 16 << 10, "space was set aside");
        // full until a second spare file is removed
        let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| match call.name {
            "create" if spare.exists() => Fault::Fails(Errno::NOSPC),
            _ => Fault::None,
        })));
        release(&locks_on(&sandbox, disk), wanted).unwrap();
        let left = if wanted == "a" { "b,c,other" } else { "other" };
        release(&locks_on(&sandbox, Disk::real()), left).unwrap();
        assert_eq!(standings(&sandbox, "a,b,c,other"), ["unlocked"; 4]);
    }
}

#[test]
fn a_change_of_several_locks_is_atomic_after_a_death() {
    let sandbox = Sandbox::empty();
    let done = acquire(&locks_on(&sandbox, Disk::real()), "a,b", Mode::Exclusive).unwrap();
    // between the first rename and the second: the journal and one of two records exist
    let record = |name: &str| -> Value {
        let bytes = std::fs::read(sandbox.file(format!(".locks/{name}.json"))).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let journal = |records: Value| {
        let bytes = with_digest(json!({ "records": records })).unwrap();
        std::fs::write(sandbox.file(".locks/.pending"), bytes).unwrap();
    };
    journal(json!({"a": record("a"), "b": record("b")}));
    std::fs::remove_file(sandbox.file(".locks/b.json")).unwrap();
    let locks = locks_on(&sandbox, Disk::real());
    let me = std::process::id().to_string();
    for name in names("a,b") {
        assert_eq!(
            locks.check(&name).unwrap(),
            Standing::Locked(Mode::Exclusive, vec![me.clone()]),
            "{name}"
        );
    }
    assert_eq!(locks.list().unwrap().len(), 2);
    assert!(locks.check_fences(&[format!("b:{}", done[1].grant.token).parse().unwrap()]).is_ok());
    assert!(sandbox.file(".locks/.pending").exists(), "looking changes nothing");
    // and the reverse: released, and one record still exists
    journal(json!({"a": null, "b": null}));
    assert_eq!(locks.check(&names("a")[0]).unwrap(), Standing::Unlocked);
    assert!(locks.list().unwrap().is_empty());
    assert_eq!(standings(&sandbox, "a,b"), ["unlocked"; 2]);
}

#[test]
fn a_change_that_can_be_neither_completed_nor_taken_back_is_made() {
    let sandbox = Sandbox::empty();
    acquire(&locks_on(&sandbox, Disk::real()), "a,b", Mode::Shared).unwrap();
    for number in 1..=3 {
        std::fs::remove_file(sandbox.file(format!(".locks/.spare-{number}"))).unwrap();
    }
    // once the journal exists, nothing can be created any more
    let pending = sandbox.file(".locks/.pending");
    let disk = Disk::new(Rc::new(Observed::new(move |call: &Call| match call.name {
        "create" if pending.exists() => Fault::Fails(Errno::NOSPC),
        _ => Fault::None,
    })));
    acquire(&locks_on(&sandbox, disk), "a,b", Mode::Exclusive).unwrap();
    for name in names("a,b") {
        let seen = locks_on(&sandbox, Disk::real()).check(&name).unwrap();
        assert_eq!(seen.to_string(), format!("locked:exclusive:{}", std::process::id()), "{name}");
    }
    assert_eq!(
        standings(&sandbox, "a,b"),
        ["exclusive"; 2],
        "and it is completed when there is room"
    );
}
