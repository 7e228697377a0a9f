//! P1, P2, P4 against bit flips: whatever the damage to the live file and its copies, no wrong
//! document is served, the highest remaining revision comes back, and the damaged file is kept.
//!
//! Every case runs the library in its own root, in memory if possible. The expected result is
//! computed here from the damage, not from the program's findings.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pipeline_state::error::Kind;
use pipeline_state::fs::Disk;
use pipeline_state::store::FileStore;
use pipeline_state::store::Wanted;
use pipeline_state::store::change::Outcome;
use pipeline_state::store::heal::Recovered;
use pipeline_state::store::options::WriteOptions;
use serde_json::{Value, json};

use crate::effort::is_exhaustive;
use crate::faults::store;
use crate::kill::content;
use crate::sandbox::{Sandbox, make_old};
use crate::strace::in_parallel;

/// The files of a root, for any number of copies.
struct Plan(Vec<(PathBuf, Vec<u8>)>);

const JOURNAL: &str = ".state-backups/journal.jsonl";

impl Plan {
    /// The state, its copies and the journal; of the backups only the newest. The audit log names
    /// another path, so its lines do not count for a copy.
    fn of(root: &Sandbox, backups: usize) -> Self {
        let mut names = root.shelf("state-");
        names.sort_by_key(|name| std::cmp::Reverse(revision_in(name)));
        names.truncate(backups);
        let names = ["mirror.json".to_owned()].into_iter().chain(names);
        let shelf = names.map(|name| PathBuf::from(".state-backups").join(name));
        let all = [".workflow-state.json", JOURNAL].into_iter().map(PathBuf::from).chain(shelf);
        Self(all.map(|name| (name.clone(), fs::read(root.file(name)).unwrap())).collect())
    }

    fn live(&self) -> &[u8] {
        &self.0[0].1
    }

    /// A root with these files, each changed by `change`; `None` omits the file.
    fn laid_out(&self, change: impl Fn(&PathBuf, &[u8]) -> Option<Vec<u8>>) -> Sandbox {
        let root = Sandbox::empty();
        fs::DirBuilder::new().mode(0o700).create(root.file(".state-backups")).unwrap();
        for (name, bytes) in &self.0 {
            if let Some(bytes) = change(name, bytes) {
                fs::write(root.file(name), bytes).unwrap();
                make_old(&root.file(name));
            }
        }
        root
    }

    /// A root with this live file.
    fn with_live(&self, live: &[u8]) -> Sandbox {
        self.laid_out(|name, bytes| {
            Some(if name.parent() == Some("".as_ref()) && name.ends_with(".workflow-state.json") {
                live.to_vec()
            } else {
                bytes.to_vec()
            })
        })
    }
}

fn revision_in(name: &str) -> u64 {
    let rest = name.split("-r").nth(1).unwrap();
    rest.split('-').next().unwrap().parse().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// The read healed it.
    Healed,
    /// The read refused it as a foreign edit, and `recover` discarded it.
    Refused,
}

/// Reads a damaged live file beside undamaged copies: it heals or is refused, and the acknowledged
/// revision comes back.
fn meets(plan: &Plan, damaged: &[u8]) -> Met {
    let (document, revision) = content(plan.live());
    let root = plan.with_live(damaged);
    let store = store(&root, Disk::real());
    let met = match store.read() {
        Ok(served) => {
            assert_eq!(
                served.bytes,
                fs::read(root.state()).unwrap(),
                "what is served is not what is there"
            );
            Met::Healed
        }
        Err(error) => {
            assert_eq!((error.kind, error.code() as u8), (Kind::ForeignEdit, 3), "{error}");
            assert_eq!(fs::read(root.state()).unwrap(), damaged, "a refusal changed the file");
            assert_eq!(root.shelf("corrupt-").len(), 0, "a refusal changed something");
            let recovered = store.recover(&Wanted::Newest, &WriteOptions::of("recover")).unwrap();
            assert!(matches!(recovered, Recovered::From { .. }), "{recovered:?}");
            Met::Refused
        }
    };
    // text that is not JSON cannot be an edit
    assert!(
        met == Met::Healed || serde_json::from_slice::<Value>(damaged).is_ok(),
        "it is no JSON, and not healed"
    );
    let live = fs::read(root.state()).unwrap();
    // a number that an edit claims is not used for another document
    let claimed = serde_json::from_slice(damaged)
        .ok()
        .and_then(|edit: Value| edit["metadata"]["revision"].as_u64());
    let claimed = claimed.filter(|_| met == Met::Refused).unwrap_or(0);
    assert_eq!(content(&live), (document, claimed.max(revision) + 1));
    assert_eq!(fs::read(root.mirror()).unwrap(), live);
    assert_eq!(evidence(&root), [damaged]);
    met
}

fn evidence(root: &Sandbox) -> Vec<Vec<u8>> {
    root.shelf("corrupt-")
        .iter()
        .map(|name| fs::read(root.file(".state-backups").join(name)).unwrap())
        .collect()
}

/// Tries each of these on the live file; returns how many were healed, and how many refused.
fn all_of(what: &str, plan: &Plan, cases: &[(String, Vec<u8>)]) -> (usize, usize) {
    let began = Instant::now();
    let healed = AtomicUsize::new(0);
    in_parallel(cases, |(place, damaged)| {
        let met = std::panic::catch_unwind(|| meets(plan, damaged));
        let met =
            met.unwrap_or_else(|_| panic!("{place} of {} bytes; see above", plan.live().len()));
        healed.fetch_add(usize::from(met == Met::Healed), Ordering::Relaxed);
    });
    let healed = healed.into_inner();
    let refused = cases.len() - healed;
    let seconds = began.elapsed().as_secs_f64();
    println!("{what}: {} cases, {healed} healed, {refused} refused, {seconds:.1} s", cases.len());
    (healed, refused)
}

fn rich_state() -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("state signal GO");
    root.run_args(&[
        "state",
        "set",
        r#"notes:={"big":1e400,"é":[0.10,-0,null,true],"deep":{"a":{"b":"\n\"x\""}}}"#,
    ])
    .expect(0);
    root
}

#[test]
fn no_bit_of_the_live_file_can_flip_and_be_served() {
    let plan = Plan::of(&rich_state(), 1);
    let flip = |bit: usize| {
        let mut bytes = plan.live().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {bit}"), bytes)
    };
    let cases: Vec<_> = (0..plan.live().len() * 8).map(flip).collect();
    let (healed, refused) = all_of("every bit of the live file", &plan, &cases);
    assert!(healed > refused && refused > 0, "some flips leave JSON, most do not");
}

#[test]
fn a_live_file_cut_short_anywhere_is_not_served() {
    let plan = Plan::of(&rich_state(), 1);
    let cut = |length: usize| (format!("the first {length}"), plan.live()[..length].to_vec());
    let cases: Vec<_> = (0..plan.live().len()).map(cut).collect();
    let (_, refused) = all_of("every length of the live file", &plan, &cases);
    assert_eq!(refused, 1, "only without its last newline it is JSON still");
}

#[test]
fn a_block_of_the_live_file_that_was_lost_is_not_served() {
    let root = Sandbox::initialized();
    // numbers of equal length, so that a block of one revision fits into the other
    let long = |n: u64| {
        (0..900)
            .map(|k| (1000 + (k * 7919 + n * 31) % 9000).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    for n in 1..=2 {
        root.run_args(&["state", "set", &format!("n:={n}"), &format!("long:=[{}]", long(n))])
            .expect(0);
    }
    let plan = Plan::of(&root, 1);
    let older = plan.0.last().unwrap().1.clone();
    assert_eq!(plan.live().len(), older.len());
    let mut cases = Vec::new();
    for start in (0..plan.live().len()).step_by(512) {
        let end = (start + 512).min(plan.live().len());
        let replacements: [(&str, Vec<u8>); 3] = [
            ("zeros", vec![0; end - start]),
            ("ones", vec![0xff; end - start]),
            ("old", older[start..end].to_vec()),
        ];
        for (what, block) in replacements {
            let bytes = [&plan.live()[..start], &block, &plan.live()[end..]].concat();
            if bytes != plan.live() {
                cases.push((format!("{what} from {start} on"), bytes));
            }
        }
    }
    let (healed, refused) = all_of("every block of a live file of several", &plan, &cases);
    assert!(healed > 30 && refused > 10, "lost blocks are no JSON, old ones are");
}

// ---- several files at once ----

/// Damage to a file; an `Edited` live file is still a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Gone,
    Emptied,
    Zeroed,
    Halved,
    Edited,
}

const MANNERS: [Manner; 5] =
    [Manner::Gone, Manner::Emptied, Manner::Zeroed, Manner::Halved, Manner::Edited];

impl Manner {
    fn of(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Gone => None,
            Self::Emptied => Some(Vec::new()),
            Self::Zeroed => Some(vec![0; bytes.len()]),
            Self::Halved => Some(bytes[..bytes.len() / 2].to_vec()),
            Self::Edited => {
                let at = bytes.windows(8).position(|window| window == b"pre-init").unwrap();
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1;
                Some(bytes)
            }
        }
    }
}

/// Damage to each file: the live one, the mirror, and the backups, newest first.
type Damages = [Option<Manner>; 7];
/// The acknowledged revision; each document has its revision number as `.n`.
const LAST: u64 = 6;

/// The highest revision with an undamaged copy.
fn highest_left(damages: &Damages) -> Option<u64> {
    let revisions = [LAST, 5, 4, 3, 2, 1];
    revisions
        .into_iter()
        .zip(&damages[1..])
        .find(|(_, damage)| damage.is_none())
        .map(|(revision, _)| revision)
}

/// Expects the restored revision under the next number, and a warning about a lost one.
fn assert_restored(root: &Sandbox, store: &FileStore, left: u64) {
    let live = fs::read(root.state()).unwrap();
    let (document, revision) = content(&live);
    assert_eq!((document["n"].as_u64(), revision), (Some(left), LAST + 1));
    assert_eq!(fs::read(root.mirror()).unwrap(), live);
    let warnings = store.take_warnings().join("\n");
    assert_eq!(warnings.contains("REVISION 6 OF"), left < LAST, "{warnings}");
}

fn survives(plan: &Plan, damages: &Damages) {
    let place = |name: &PathBuf| {
        plan.0.iter().filter(|file| !file.0.ends_with(JOURNAL)).position(|file| file.0 == *name)
    };
    let root = plan.laid_out(|name, bytes| match place(name).and_then(|place| damages[place]) {
        Some(manner) => manner.of(bytes),
        None => Some(bytes.to_vec()),
    });
    let store = store(&root, Disk::real());
    let (before, left) = (fs::read(root.state()).ok(), highest_left(damages));
    let read = store.read();
    match (damages[0], left) {
        (None, _) => {
            assert_eq!(read.unwrap().bytes, plan.live());
            let set = store.change(&WriteOptions::of("set"), &mut |base| {
                let mut value = base.draft();
                value["z"] = json!(1);
                Ok(value.into())
            });
            let Ok(Outcome::Committed { revision, .. }) = set else { panic!("{set:?}") };
            assert_eq!(revision.get(), LAST + 1);
            assert_eq!(fs::read(root.mirror()).unwrap(), fs::read(root.state()).unwrap());
            return;
        }
        (Some(Manner::Gone | Manner::Edited), _) => {
            let error = read.unwrap_err();
            let has_history = damages[1..].iter().any(|damage| *damage != Some(Manner::Gone));
            let (kind, code) = match damages[0] {
                Some(Manner::Edited) => (Kind::ForeignEdit, 3),
                _ if has_history => (Kind::Missing, 3),
                _ => (Kind::NotInitialized, 1),
            };
            assert_eq!((error.kind, error.code() as u8), (kind, code), "{error}");
            assert_eq!(fs::read(root.state()).ok(), before);
            let recovered = store.recover(&Wanted::Newest, &WriteOptions::of("recover"));
            match left {
                Some(left) => {
                    recovered.unwrap();
                    assert_restored(&root, &store, left);
                }
                None => assert_eq!(recovered.unwrap_err().code() as u8, code),
            }
        }
        (Some(_), Some(left)) => {
            assert_eq!(content(&read.unwrap().bytes).0["n"].as_u64(), Some(left));
            assert_restored(&root, &store, left);
        }
        (Some(_), None) => assert_eq!(read.unwrap_err().code() as u8, 3),
    }
    if left.is_some() {
        assert_eq!(evidence(&root), before.into_iter().collect::<Vec<_>>());
    } else {
        assert_eq!(
            (fs::read(root.state()).ok(), evidence(&root).len()),
            (before, 0),
            "a refusal changed something"
        );
    }
}

#[test]
fn the_highest_valid_revision_survives_any_damage() {
    let began = Instant::now();
    let root = Sandbox::holding(
        r#"{"phase":"pre-init","completedTasks":[],"signals":{},"lastActivation":"","n":1}"#,
    );
    root.ok("state init"); // seals it as revision 1, and creates the journal
    for n in 2..=LAST {
        root.ok(&format!("state set n:={n} m:={n}"));
    }
    let plan = Plan::of(&root, 5);
    assert_eq!((plan.0.len(), content(plan.live()).1), (8, LAST));
    let mut cases: Vec<Damages> = Vec::new();
    for subset in 0..1_usize << 7 {
        for (turn, uniform) in MANNERS.into_iter().enumerate() {
            let is_damaged = |file: usize| subset >> file & 1 == 1;
            let mixed = |file: usize| MANNERS[(file * 2 + turn) % MANNERS.len()];
            if is_exhaustive() || subset % MANNERS.len() == turn {
                cases.push(std::array::from_fn(|file| is_damaged(file).then_some(uniform)));
            }
            cases.push(std::array::from_fn(|file| is_damaged(file).then(|| mixed(file))));
        }
    }
    in_parallel(&cases, |damages| {
        let survived = std::panic::catch_unwind(|| survives(&plan, damages));
        survived.unwrap_or_else(|_| panic!("{damages:?}; see above"));
    });
    println!(
        "every subset of seven files: {} cases, {:.1} s",
        cases.len(),
        began.elapsed().as_secs_f64()
    );
}
