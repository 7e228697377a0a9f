//! FileLocks after a power cut: every holder is dead, so no lock stays held; and no grant's token
//! is repeated.

use pipeline_state::error::Result;
use pipeline_state::fs::Disk;
use pipeline_state::lock::{FileLocks, Mode};

use super::image::Image;
use super::power_cut::{Cut, moments};
use super::recorder::{Event, Recorder, Recording};
use crate::lock_faults::{acquire, locks_on, release};
use crate::sandbox::Sandbox;
use crate::strace::in_parallel;

const NAMES: &str = "a,b,c,state";
const LIMIT: usize = 60;

type Step = fn(&FileLocks) -> Result<u64>;

fn take(locks: &FileLocks, names: &str) -> Result<u64> {
    let acquired = acquire(locks, names, Mode::Exclusive)?;
    Ok(acquired.iter().map(|one| one.grant.token.get()).max().unwrap_or(0))
}

fn give(locks: &FileLocks, names: &str) -> Result<u64> {
    release(locks, names).map(|()| 0)
}

/// The steps' calls, and the highest token of each.
fn record() -> (Recording, Vec<u64>) {
    let root = Sandbox::empty();
    let recorder = Recorder::of(root.path());
    let steps: [Step; 6] = [
        |locks| take(locks, "a"),
        |locks| take(locks, "b,c"),
        |locks| give(locks, "a,b"),
        |locks| take(locks, "a,state"),
        |locks| give(locks, "c"),
        |locks| take(locks, "b,c"),
    ];
    let mut tokens = Vec::new();
    for step in steps {
        tokens.push(step(&locks_on(&root, recorder.disk())).unwrap());
        recorder.acknowledge();
    }
    (recorder.recording(), tokens)
}

/// The problems with the locks at the next boot.
fn wrong(image: &Image, told: u64) -> Option<String> {
    let root = Sandbox::empty();
    image.clone().left_to_the_next_boot().write(root.path());
    let locks = locks_on(&root, Disk::real());
    for name in NAMES.split(',') {
        match take(&locks, name) {
            Err(error) => return Some(format!("{name} is left held: {error}")),
            Ok(token) if token <= told => {
                return Some(format!("{name} got {token}, and {told} was told before"));
            }
            Ok(_) => {}
        }
    }
    None
}

fn violations(recording: &Recording, tokens: &[u64]) -> (usize, Vec<String>) {
    let found = std::sync::Mutex::new((0, Vec::new()));
    in_parallel(&moments(recording), |at| {
        let done = recording
            .events
            .iter()
            .take(*at)
            .filter(|event| matches!(event, Event::Acknowledged))
            .count();
        let told = tokens[..done].iter().copied().max().unwrap_or(0);
        for (_, image) in Cut::new(recording, *at).images(LIMIT, *at as u64).images {
            let wrong = wrong(&image, told);
            let mut found = found.lock().unwrap();
            found.0 += 1;
            found.1.extend(wrong.map(|wrong| format!("at event {at}: {wrong}")));
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn no_power_cut_leaves_a_lock_held_or_lets_a_token_come_twice() {
    let (recording, tokens) = record();
    let (count, wrong) = violations(&recording, &tokens);
    println!("locks: {count} trees, {} violations", wrong.len());
    assert_eq!(wrong.iter().take(3).collect::<Vec<_>>(), [] as [&String; 0]);
}

#[test]
fn a_block_of_tokens_that_is_not_synced_is_caught() {
    let (mut recording, tokens) = record();
    let is_sync = |event: &Event| matches!(event, Event::Synced(_));
    let kept: Vec<bool> = recording.events.iter().map(|event| !is_sync(event)).collect();
    let mut numbers = 0..;
    recording.events.retain(|_| kept[numbers.next().unwrap()]);
    assert!(!violations(&recording, &tokens).1.is_empty(), "the fault was not caught");
}
