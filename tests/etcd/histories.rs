//! R1–R5 as a history: writers, readers and owners of locks on three hosts work on a cluster of
//! three members, under nemeses and with kills; then two checkers judge what they heard.
//! [`crate::history_checker`] looks for an order that explains all answers, and [`record`] compares
//! them with every value that the keys ever had.
//!
//! `PIPELINE_HISTORY_SECONDS=600` asks for more than the default, and `HISTORY_SEED` for the dice
//! of an earlier run (timing still depends on the machine).

mod arena;
mod members;
mod nemeses;
mod network;
mod owners;
mod record;
mod writers;

use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_state::etcd::messages::{KeyValue, TxnRequest};
use pipeline_state::etcd::txn::{Keys, put};
use pipeline_state::store::change::Proposal;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::WriteOptions;
use serde_json::json;

use self::arena::{Arena, Client, Notes};
use self::members::{Members, await_all, client_of_all};
use self::nemeses::{NEMESES, Visits};
use self::network::{Net, Network};
use self::record::Record;
use crate::dice::Dice;
use crate::history_checker::{Event, Moment, Op, Outcome, Setting, check};
use crate::permitted::is_permitted;
use crate::server::PATIENT;
use crate::stores::{Place, settings};

/// Enough for each nemesis.
const SECONDS: u64 = 50;
/// The numbers of the machines of clients, and of the one that the test itself uses.
const HOSTS: [usize; 3] = [11, 12, 13];
const TEST: usize = 20;
/// Of what is on record, as if a client had read it.
const AUDITOR: usize = 99;
const PREFIX: &str = "/history";

fn number_from(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

/// A state with the fields that clients use: two revisions.
fn prepare(place: &Place) {
    let store = place.store_of(client_of_all(PATIENT), settings());
    store.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
    let fields = |base: &pipeline_state::store::change::Base| {
        let mut draft = base.draft();
        (draft["register"], draft["count"], draft["recent"]) = (json!(0), json!(0), json!([]));
        Ok(Proposal::from(draft))
    };
    store.change(&WriteOptions::of("set"), &mut { fields }).unwrap();
}

/// Puts a key, so that the record has an end.
fn end_of_record() -> KeyValue {
    let (client, key) = (client_of_all(PATIENT), format!("{PREFIX}/end"));
    let request = TxnRequest { success: vec![put(key.clone(), "")], ..Default::default() };
    client.commit(&request).unwrap();
    client.range(&Keys::one(key).read()).unwrap().kvs.remove(0)
}

#[test]
fn a_history_under_nemeses_is_linearizable_and_its_locks_exclude() {
    if !is_permitted("unshare", &["-n", "ip", "link", "add", "name", "b", "type", "bridge"]) {
        return;
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = number_from("HISTORY_SEED", clock.into()) as usize;
    println!("HISTORY_SEED={seed}");
    let time = Duration::from_secs(number_from("PIPELINE_HISTORY_SECONDS", SECONDS));
    // In a thread of its own: it moves to a machine that ends with the test.
    let run = std::thread::spawn(move || history(seed, time));
    if let Err(panic) = run.join() {
        println!("HISTORY_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

fn history(seed: usize, time: Duration) {
    let network = Network::new();
    let test = network.machine(TEST, &[Net::Front]);
    let mut members = Members::start(&network);
    test.enter();
    await_all();
    let arena = Arena::new(members::url(PREFIX));
    let place = Place::at(arena.url.clone());
    prepare(&place);
    let hosts = HOSTS.map(|number| network.machine(number, &[Net::Front]));
    let (mut notes, visits, over) = std::thread::scope(|scope| {
        let mut clients: Vec<ScopedJoinHandle<'_, Notes>> = Vec::new();
        for (host, id) in hosts.iter().zip((0..).step_by(4)) {
            let (arena, place) = (&arena, &place);
            clients.push(scope.spawn(move || {
                writers::write_with_the_library(Client::on(host, arena, id, seed), place)
            }));
            clients.push(scope.spawn(move || {
                writers::write_with_commands(Client::on(host, arena, id + 1, seed))
            }));
            clients.push(
                scope.spawn(move || owners::own_locks(Client::on(host, arena, id + 2, seed))),
            );
            clients.push(scope.spawn(move || {
                writers::read_with_the_library(Client::on(host, arena, id + 3, seed), place)
            }));
        }
        let until = Instant::now() + time;
        let mut dice = Dice::new(seed);
        let visits = nemeses::disturb(&network, &mut members, &HOSTS, &mut dice, until);
        let over = arena.now();
        arena.is_over.store(true, Ordering::Relaxed);
        let mut notes = Notes::default();
        clients.into_iter().for_each(|client| notes.join(client.join().unwrap()));
        (notes, visits, over)
    });
    let mut last = Client::on(&test, &arena, TEST, seed);
    last.read();
    notes.join(last.notes);
    let record = Record::read(&arena.url, &end_of_record());
    judge(&record, notes, &visits, (over, seed));
}

fn judge(record: &Record, mut notes: Notes, visits: &Visits, (over, seed): (Moment, usize)) {
    let (mut wrong, figures) = record.check(&notes);
    let mut acknowledged: Vec<_> = notes
        .events
        .iter()
        .filter(|event| matches!(event.outcome, Outcome::Committed(_)))
        .map(|event| event.ended)
        .collect();
    acknowledged.push(0);
    acknowledged.push(over);
    acknowledged.sort_unstable();
    let pauses = acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = Duration::from_nanos(pauses.max().unwrap_or_default());
    let heard = notes.events.len();
    notes.events.extend(record.as_reads(AUDITOR));
    let (violations, _) = check(&notes.events, Setting { revision: Record::BEFORE, damages: 0 });
    wrong.extend(violations.iter().map(|(rule, what)| format!("{rule:?}: {what}")));
    let count = |is: &dyn Fn(&Event) -> bool| {
        notes.events[..heard].iter().filter(|event| is(event)).count()
    };
    println!(
        "{} operations acknowledged: {} reads, {} writes acknowledged, {} conflicts, \
         {} fenced off, {} refused, {} unknown ({} said so, {} carried out); \
         {} locks granted, {} on record, {} released, {} lost or left; \
         longest time without a commit {:.1} s",
        count(&|event| is_acknowledged(&event.outcome)),
        count(&|event| event.op == Op::Read),
        figures.acknowledged,
        count(&|event| event.outcome == Outcome::Conflict),
        count(&|event| event.outcome == Outcome::Fenced),
        count(&|event| event.outcome == Outcome::Refused),
        figures.unknown,
        notes.unknown.len(),
        figures.unknown_and_done,
        count(&|event| matches!(event.outcome, Outcome::Granted(_))),
        figures.grants,
        count(&|event| event.outcome == Outcome::Released),
        count(&|event| event.outcome == Outcome::Lost),
        longest.as_secs_f64(),
    );
    println!("{:?}\n{visits:?}", notes.other);
    wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
    assert!(wrong.is_empty(), "{} things are wrong, see above; HISTORY_SEED={seed}", wrong.len());
    let is_disturbed = figures.unknown > 0 && count(&|event| event.outcome == Outcome::Lost) > 0;
    assert!(is_disturbed || visits.len() < NEMESES.len(), "without disturbance this shows nothing");
}

/// Whether an operation has done what it should.
fn is_acknowledged(outcome: &Outcome) -> bool {
    use Outcome::{Committed, Granted, Released, Saw};
    matches!(outcome, Saw(..) | Committed(_) | Granted(_) | Released)
}
