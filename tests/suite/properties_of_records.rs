//! Properties of every generated record, name and duration: it reads back, or is refused.

use std::time::{Duration, SystemTime};

use pipeline_state::document::seal::{Digest, Lineage, Revision};
use pipeline_state::fs::identity::DirId;
use pipeline_state::lock::files::encoding::{decode, encode};
use pipeline_state::lock::{
    Grant, Identity, Lifeline, Mode, Namespace, Place, Purpose, Record, Token, Waiter,
};
use pipeline_state::name::Name;
use pipeline_state::store::checkpoint::manifest;
use pipeline_state::store::restore::intent::{Action, Intent, Manner, Origin, StagedState, Swap};
use pipeline_state::time::{compact, parse_compact, parse_duration};
use pipeline_state::tree::{Entry, Listing, What};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::properties::value;

// ---- records ----

fn identity() -> impl Strategy<Value = Identity> {
    (
        any::<u32>(),
        any::<u64>(),
        "[0-9a-f-]{0,36}",
        any::<u64>(),
        any::<u64>(),
        "[0-9a-f]{0,32}",
        "\\PC{0,8}",
    )
        .prop_map(|(pid, start, boot, pid_namespace, time_namespace, machine, host)| {
            Identity {
                pid,
                start,
                namespace: Namespace { boot, pid_namespace, time_namespace, machine, host }.into(),
            }
        })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)]
}

fn token() -> impl Strategy<Value = Token> {
    (1..=u64::MAX).prop_map(|number| Token::new(number).unwrap())
}

fn grant() -> impl Strategy<Value = Grant> {
    let seconds = || option::of(0.0..1e12_f64);
    let who = (token(), mode(), option::of(identity()), "\\PC{0,20}", any::<u32>());
    let lifeline = option::of("[.]live-[a-z0-9-]{1,9}");
    (
        who,
        option::of(value()),
        seconds(),
        seconds(),
        lifeline,
        option::of("[.]torn-[a-z0-9][a-z0-9-]{0,8}"),
    )
        .prop_map(
            |(
                (token, mode, owner, command, count),
                metadata,
                ttl,
                expires,
                live_file,
                quarantined,
            )| {
                let since = "2023-11-01T10:30:00Z".to_owned();
                let live_file = live_file.map(|name| Lifeline::parse(&name).unwrap());
                Grant {
                    token,
                    mode,
                    owner,
                    command,
                    since,
                    count,
                    metadata,
                    ttl,
                    expires,
                    live_file,
                    quarantined,
                }
            },
        )
}

fn waiter() -> impl Strategy<Value = Waiter> {
    let purpose = prop_oneof![Just(Purpose::Hold), Just(Purpose::Commit)];
    let who = (mode(), identity(), identity(), "\\PC{0,20}", 0.0..1e12_f64);
    let marks = (option::of("[0-9a-f]{16}"), 1..65_u32, any::<bool>(), any::<bool>());
    (who, option::of(token()), purpose, option::of(value()), marks).prop_map(
        |(
            (mode, owner, process, command, until),
            own,
            purpose,
            metadata,
            (id, locks, passed_over, broken),
        )| {
            let since = "2023-11-01T10:30:00Z".to_owned();
            let lifeline = id.map(|id| Lifeline::of_waiter(&id).unwrap());
            Waiter {
                mode,
                owner,
                process,
                command,
                since,
                until,
                own,
                purpose,
                metadata,
                lifeline,
                locks,
                passed_over,
                broken,
                place: Place::Record,
            }
        },
    )
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<u64>().prop_map(|number| Digest::of(&number.to_le_bytes()))
}

fn swap() -> impl Strategy<Value = Option<Swap>> {
    let manner = prop_oneof![Just(Manner::Move), Just(Manner::CopyInto)];
    let swap = (option::of(digest()), option::of(digest()), manner);
    option::of(swap.prop_map(|(new, old, manner)| Swap { new, old, manner }))
}

fn origin() -> impl Strategy<Value = Origin> {
    let identity = || {
        let created = option::of((any::<i64>(), any::<u32>()));
        let facts = (any::<u64>(), any::<u64>(), created);
        facts.prop_map(|(device, inode, created)| DirId { device, inode, created })
    };
    (identity(), identity(), "/\\PC{0,9}").prop_map(|(root, config_root, config_path)| Origin {
        root,
        config_root,
        config_path,
    })
}

fn intent() -> impl Strategy<Value = Intent> {
    let staged =
        (1..=Revision::MAX, any::<[u8; 16]>(), digest()).prop_map(|(revision, lineage, digest)| {
            StagedState {
                revision: Revision::new(revision).unwrap(),
                lineage: Lineage::from_bytes(lineage),
                digest,
            }
        });
    let action = prop_oneof![Just(Action::Restore), Just(Action::Undo)];
    let id = || "checkpoint-[A-Za-z0-9_-]{1,9}";
    (action, any::<u64>(), id(), id(), origin(), swap(), swap(), option::of(staged)).prop_map(
        |(action, number, checkpoint, pre_restore, origin, config, signals, state)| Intent {
            action,
            number,
            checkpoint,
            pre_restore,
            origin: Some(origin),
            config,
            signals,
            state,
            operation: None,
        },
    )
}

fn listing() -> impl Strategy<Value = Listing> {
    let what = prop_oneof![
        (any::<u64>(), digest()).prop_map(|(bytes, sha256)| What::File { bytes, sha256 }),
        Just(What::Directory),
        "\\PC{0,9}".prop_map(|target| What::Link { target }),
    ];
    let entry =
        (what, 0..=0o777_u32, -1_000_000_000_000..1_000_000_000_000_i64, 0..1_000_000_000_i64);
    vec(entry, 0..6).prop_map(|entries| {
        let entries =
            entries.into_iter().enumerate().map(|(number, (what, mode, seconds, nanos))| Entry {
                path: format!("config/é \n{number}"),
                what,
                mode,
                mtime: (seconds, nanos),
                acls: Default::default(),
            });
        Listing::new(entries.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_lock_record_reads_back(holders in vec(grant(), 0..3), waiters in vec(waiter(), 0..3)) {
        let mut record = Record::default();
        (record.holders, record.waiters) = (holders, waiters);
        let read = decode(&encode(&record)).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
    }

    #[test]
    fn a_restores_intent_reads_back(intent in intent()) {
        prop_assert_eq!(Intent::read(&intent.write().unwrap()).unwrap(), intent);
    }

    #[test]
    fn a_manifest_reads_back(listing in listing()) {
        let text = manifest::write(&listing, manifest::LIMIT).unwrap();
        prop_assert_eq!(manifest::read(&text).unwrap(), listing);
    }
}

// ---- names and times ----

/// The rule in the contract's wording.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let mut chars = text.chars();
    let begins = chars.next().is_some_and(plain);
    begins
        && chars.clone().count() <= 127
        && chars.all(|c| plain(c) || ['.', '_', '-'].contains(&c))
        && !text.contains("..")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn names_follow_the_contract_and_any_text_reduces_to_one(
        text in prop_oneof!["\\PC{0,9}", "[a-z0-9._-]{0,9}", "[a-b./-]{0,140}"]
    ) {
        prop_assert_eq!(Name::parse("lock", &text).is_ok(), is_name(&text), "{:?}", text);
        let reduced = Name::reduce(&text, "none");
        prop_assert!(is_name(reduced.as_str()), "{:?} became {:?}", text, reduced);
        if let Ok(name) = Name::parse("lock", reduced.as_str()) {
            prop_assert_eq!(Name::reduce(reduced.as_str(), "none"), name, "what is reduced stays");
        }
    }

    #[test]
    fn a_duration_is_its_number_times_its_unit(
        whole in 0..100_000_u64,
        thousandths in 0..1000_u64,
        unit in 0..5_usize,
    ) {
        let units = [("", 1000), ("s", 1000), ("ms", 1), ("m", 60_000), ("h", 3_600_000)];
        let (unit, millis) = units[unit];
        let micros = u128::from((whole * 1000 + thousandths) * millis);
        let text = format!("{whole}.{thousandths:03}{unit}");
        for text in [format!("0{text}"), text] {
            let found = parse_duration(&text).unwrap().as_micros();
            prop_assert!(found.abs_diff(micros) <= 1, "{text} is {found} µs");
        }
    }

    #[test]
    fn invalid_durations_are_refused(text in prop_oneof!["\\PC{0,6}", "[-+.0-9a-z ]{0,6}"]) {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let plain = number.parse::<f64>().is_ok_and(|number| number >= 0.0);
        if parse_duration(&text).is_ok() {
            prop_assert!(plain && !text.starts_with(['-', '+', ' ']), "{:?}", text);
        }
    }

    #[test]
    fn a_time_in_a_name_reads_back(seconds in 0..253_402_300_800_u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        prop_assert_eq!(parse_compact(&compact(time)), Some(time));
    }
}
