//! P5, order: first come, first served; a wait that would never end is refused; every path wakes
//! its waiter.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sandbox::until;
use crate::sandbox::{BINARY, Sandbox, installed};
use crate::shell::{Shell, lock, on_record, until_waiting, waiting};

// ---- the queue ----

#[test]
fn fifty_waiters_are_served_in_the_order_in_which_they_came() {
    let sandbox = Sandbox::with_locks();
    let mut holder = Shell::holding(&sandbox, "turn");
    let mut waiters: Vec<Shell> = Vec::new();
    for number in 0..50 {
        let mut script = Shell::start(&sandbox);
        // half of the owners release the lock, half of them die with it
        let leave = if number % 2 == 0 { lock("release turn") } else { "kill -9 $$".to_owned() };
        let line =
            format!("{} && printf '%s\\n' {number} >>order && {leave}", lock("acquire turn 120"));
        script.begin(&line);
        until_waiting(&sandbox, script.pid());
        waiters.push(script);
    }
    assert_eq!(waiting(&sandbox), waiters.iter().map(Shell::pid).collect::<Vec<_>>());
    for dead in [0, 7, 8, 9, 33, 49] {
        waiters[dead].kill(); // while it waits: the next one is not delayed
    }

    holder.lock("release turn").expect(0);

    for (number, script) in waiters.iter_mut().enumerate() {
        let ran = script.end();
        assert_eq!(
            ran.code,
            if number % 2 == 0 && ran.code != 137 { 0 } else { 137 },
            "{number}: {ran:?}"
        );
    }
    let order = fs::read_to_string(sandbox.file("order")).unwrap();
    let order: Vec<usize> = order.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(
        order,
        (0..50).filter(|number| ![0, 7, 8, 9, 33, 49].contains(number)).collect::<Vec<_>>()
    );
    sandbox.run("lock acquire turn 0 --owner-pid 1").expect(0);
}

#[test]
fn a_writer_gets_its_turn_among_readers_that_never_leave_a_gap() {
    let sandbox = Sandbox::with_locks();
    let mut current = Shell::holding(&sandbox, "file shared");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut rounds = 0;
            while !is_done.load(Ordering::Relaxed) {
                let mut next = Shell::start(&sandbox);
                next.begin(&lock("acquire file shared 60"));
                // if readers could overtake a waiting writer, this one would hold the lock by now,
                // and so on
                until("the reader is not on record", || {
                    on_record(&sandbox).iter().any(|(.., pid)| *pid == next.pid())
                });
                current.lock("release file").expect(0);
                next.end().expect(0);
                current = next;
                rounds += 1;
            }
            rounds
        });
        let mut writer = Shell::start(&sandbox);
        let written: Vec<i32> = (0..10)
            .map(|_| {
                let code = writer.lock("acquire file exclusive 10").code;
                if code == 0 {
                    writer.lock("release file").expect(0);
                }
                code
            })
            .collect();
        is_done.store(true, Ordering::Relaxed);
        assert!(reading.join().unwrap() > 0);
        assert_eq!(written, [0; 10]);
    });
}

#[test]
fn a_reader_that_comes_after_a_waiting_writer_goes_after_it() {
    let sandbox = Sandbox::with_locks();
    let mut readers =
        [Shell::holding(&sandbox, "file shared"), Shell::start(&sandbox), Shell::start(&sandbox)];
    let mut writer = Shell::start(&sandbox);
    writer.queue(&sandbox, "acquire file exclusive 60");
    readers[1].queue(&sandbox, "acquire file shared 60");
    readers[2].queue(&sandbox, "acquire file shared 60");
    readers[0].lock("release file").expect(0);
    writer.end().expect(0);
    assert_eq!(waiting(&sandbox), [readers[1].pid(), readers[2].pid()]);
    writer.lock("release file").expect(0);
    for reader in &mut readers[1..] {
        reader.end().expect(0);
    }
    let mut held = on_record(&sandbox);
    held.sort();
    let mut wanted = readers[1..]
        .iter()
        .map(|reader| ("file".into(), "held".into(), reader.pid()))
        .collect::<Vec<_>>();
    wanted.sort();
    assert_eq!(held, wanted);
}

// ---- deadlocks ----

#[test]
fn the_second_of_two_upgrades_is_refused_as_a_deadlock() {
    let sandbox = Sandbox::with_locks();
    let mut first = Shell::holding(&sandbox, "file shared");
    let mut second = Shell::holding(&sandbox, "file shared");
    first.queue(&sandbox, "acquire file exclusive 60");
    is_refused_at_once(&mut second, "file", &["file"], &[&first]);
    assert_eq!(
        waiting(&sandbox),
        [first.pid()],
        "the refusal left nothing in the queue and took nothing out of it"
    );
    second.lock("release file").expect(0);
    first.end().expect(0);
    assert_eq!(sandbox.ok("lock check file"), format!("locked:exclusive:{}", first.pid()));
    first.lock("release file").expect(0);
}

#[test]
fn the_request_that_closes_a_cycle_of_two_is_refused() {
    let sandbox = Sandbox::with_locks();
    let mut one = Shell::holding(&sandbox, "a");
    let mut other = Shell::holding(&sandbox, "b");
    one.queue(&sandbox, "acquire b 60");
    is_refused_at_once(&mut other, "a", &["a", "b"], &[&one]);
    other.lock("release b").expect(0);
    one.end().expect(0);
}

#[test]
fn the_request_that_closes_a_cycle_of_three_is_refused() {
    let sandbox = Sandbox::with_locks();
    let mut scripts = ["a", "b", "c"].map(|name| Shell::holding(&sandbox, name));
    scripts[0].queue(&sandbox, "acquire b 60");
    scripts[1].queue(&sandbox, "acquire c 60");
    let [one, two, three] = &mut scripts;
    is_refused_at_once(three, "a", &["a", "b", "c"], &[one, two]);
    three.lock("release c").expect(0);
    two.end().expect(0);
    two.lock("release b,c").expect(0);
    one.end().expect(0);
}

#[test]
fn a_cycle_through_an_earlier_waiter_is_found() {
    let sandbox = Sandbox::with_locks();
    let mut one = Shell::holding(&sandbox, "a");
    let mut other = Shell::holding(&sandbox, "b");
    let mut third = Shell::start(&sandbox);
    // shared would be compatible with the holder of b, but an exclusive waiter that also needs a is
    // first
    other.lock("acquire b shared 0").expect(0);
    third.queue(&sandbox, "acquire b,a 60");
    is_refused_at_once(&mut one, "b shared", &["a", "b"], &[&third]);
    one.lock("release a").expect(0);
    other.lock("release b").expect(0);
    third.end().expect(0);
}

#[test]
fn a_cycle_that_a_grant_closes_in_a_long_wait_is_found() {
    let sandbox = Sandbox::with_locks();
    let mut one = Shell::holding(&sandbox, "a");
    let mut other = Shell::holding(&sandbox, "b");
    let mut both = Shell::start(&sandbox);
    both.begin(&format!("{} 2>first & {} 2>second", lock("acquire a 60"), lock("acquire b 60")));
    until("both wait", || waiting(&sandbox) == [both.pid(), both.pid()]);
    one.begin(&format!("{} 2>third", lock("acquire b 60")));
    let said = |file: &str| fs::read_to_string(sandbox.file(file)).unwrap_or_default();
    until("both waits are long", || ["first", "third"].iter().all(|file| !said(file).is_empty()));

    other.lock("release b").expect(0);

    until("one is refused", || {
        ["first", "third"].iter().any(|file| said(file).contains("would never end"))
    });
}

#[test]
fn without_the_check_a_cycle_waits_until_its_timeout() {
    let sandbox = Sandbox::with_locks();
    let mut one = Shell::holding(&sandbox, "a");
    let mut other = Shell::holding(&sandbox, "b");
    one.queue(&sandbox, "acquire b 60");
    let ran = other.lock("acquire a 50ms --no-deadlock-check --json");
    assert_eq!(ran.code, 2);
    ran.expect_json_error("timeout");
}

/// Its request is refused with 2, deadlock, long before its timeout, and the message names the
/// locks and all processes in the cycle.
#[track_caller]
fn is_refused_at_once(script: &mut Shell, words: &str, locks: &[&str], others: &[&Shell]) {
    let began = Instant::now();
    let ran = script.lock(&format!("acquire {words} 300 --json"));
    assert!(began.elapsed() < Duration::from_secs(60), "it waited");
    assert_eq!(ran.code, 2, "{ran:?}");
    let error = ran.expect_json_error("deadlock");
    assert_eq!((error["code"].as_i64(), error["name"].as_str()), (Some(2), Some("LOCK_TIMEOUT")));
    let message = error["message"].as_str().unwrap();
    for pid in others.iter().map(|other| other.pid()).chain([script.pid()]) {
        assert!(message.contains(&format!("{pid} (sh)")), "{pid} is not in {message:?}");
    }
    for lock in locks {
        let waits = format!("waits for {lock},");
        assert!(message.contains(&waits), "{waits:?} is not in {message:?}");
    }
}

// ---- waking up ----

#[test]
fn a_waiter_wakes_when_the_owner_releases_or_dies() {
    let sandbox = Sandbox::with_locks();
    for killed in [false, true] {
        hands_over(&sandbox, killed, &lock("acquire door 300"));
    }
}

/// Without watches and pidfds, as on a system with its limits used up, no event arrives, so the
/// waiter polls.
#[test]
fn a_waiter_polls_where_no_event_can_wake_it() {
    if !installed("strace") {
        return;
    }
    for killed in [false, true] {
        let sandbox = Sandbox::with_locks();
        let strace = "strace -f -qq -o trace -e trace=socketpair,pidfd_open \
                      -e inject=socketpair:error=EMFILE -e inject=pidfd_open:error=ENOSYS";
        // the parent of the command is strace, which ends with it
        hands_over(
            &sandbox,
            killed,
            &format!("{strace} {BINARY} lock acquire door 300 --owner-pid $$"),
        );
        let trace = fs::read_to_string(sandbox.file("trace")).unwrap();
        for call in ["socketpair", "pidfd_open"] {
            let refused = trace
                .lines()
                .filter(|line| line.contains(call) && line.contains("INJECTED"))
                .count();
            assert!(refused > 0, "{call} was never refused: {trace}");
        }
    }
}

#[test]
fn a_waiter_wakes_where_only_one_of_its_senses_is_missing() {
    if !installed("strace") {
        return;
    }
    for (call, error) in [("socketpair", "EMFILE"), ("pidfd_open", "EMFILE")] {
        for killed in [false, true] {
            let sandbox = Sandbox::with_locks();
            let strace =
                format!("strace -f -qq -o trace -e trace={call} -e inject={call}:error={error}");
            hands_over(
                &sandbox,
                killed,
                &format!("{strace} {BINARY} lock acquire door 300 --owner-pid $$"),
            );
            assert!(
                fs::read_to_string(sandbox.file("trace")).unwrap().contains("INJECTED"),
                "{call}"
            );
        }
    }
}

/// One shell holds the lock, another waits for it with this command; after a release or a kill the
/// waiter has it long before its timeout.
#[track_caller]
fn hands_over(sandbox: &Sandbox, killed: bool, acquire: &str) {
    let mut holder = Shell::holding(sandbox, "door");
    let mut waiter = Shell::start(sandbox);
    waiter.begin(acquire);
    // it prints this after a last check; once it sleeps, only an event wakes it
    waiter.until_it_says("waiting for door: held by");
    waiter.until_asleep(sandbox);
    let began = Instant::now();
    if killed {
        holder.kill();
    } else {
        holder.lock("release door").expect(0);
    }
    waiter.end().expect(0);
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "killed: {killed}, it took {:?}",
        began.elapsed()
    );
    assert_eq!(sandbox.ok("lock check door"), format!("locked:exclusive:{}", waiter.pid()));
    waiter.lock("release door").expect(0);
}
