//! Holders and waiters on other hosts, as commands name them.

use std::thread::scope;
use std::time::Duration;

use pipeline_state::lock::Mode::Exclusive;
use pipeline_state::lock::RequestSpec;

use crate::holders::{Script, names};
use crate::keepers::{Host, LONG};

#[test]
fn every_message_names_the_host_of_a_holder_and_of_a_waiter() {
    let host = Host::new(LONG);
    host.ok("$B -q state init");
    let (one, other) = (Script::new(), Script::new());
    let shown = |script: &Script| script.requester.owner.namespace.host.clone();
    let (place, locks) = (&host.place, host.place.locks());
    one.lock(&locks, "deploy", Exclusive).unwrap();
    let said = |script: &str| {
        let output = host.sh(script);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let holder = format!("10 () in another machine, {}", shown(&one));
    for command in ["lock status", "status", "lock release deploy", "lock renew deploy"] {
        let said = said(&format!("$B {command}"));
        assert!(said.contains(&holder), "{command}: {said}");
    }
    let blocked = said("$B lock acquire deploy 0; :");
    assert!(blocked.contains(&format!("in another machine, {},", shown(&one))), "{blocked}");
    assert!(said("$B --json lock status").contains(&format!(r#""host":"{}""#, shown(&one))));
    scope(|scope| {
        let waiter = scope.spawn(|| other.lock(&place.locks(), "deploy", Exclusive));
        let id = place.await_queue("deploy", 1)[0].lease;
        let blocked = said("$B lock acquire deploy 0; :");
        let both = [&one, &other].map(|one| format!("in another machine, {},", shown(one)));
        assert!(both.iter().all(|place| blocked.contains(place)), "{blocked}");
        let broken = said(&format!("$B lock break --waiter {id:016x}"));
        assert!(broken.contains(&format!("owner 10 on {})", shown(&other))), "{broken}");
        waiter.join().unwrap().unwrap_err();
    });
    let broken = said("$B lock break deploy --force");
    assert!(broken.contains(&format!("owner 10 on {})", shown(&one))), "{broken}");
    one.lock(&locks, "state", Exclusive).unwrap();
    let blocked = said("$B set n=1 --lock-timeout 200ms");
    assert!(blocked.contains(&holder), "{blocked}");
}

#[test]
fn a_deadlock_names_the_hosts_in_it() {
    let host = Host::new(LONG);
    let (one, other) = (Script::new(), Script::new());
    let (place, locks) = (&host.place, host.place.locks());
    one.lock(&locks, "a", Exclusive).unwrap();
    other.lock(&locks, "b", Exclusive).unwrap();
    scope(|scope| {
        let waiter = scope.spawn(|| {
            let request = one.request("b", RequestSpec::hold(Exclusive), Duration::from_secs(60));
            place.locks().acquire(&request).map(drop)
        });
        place.await_queue("b", 1);
        let refused = other.lock(&locks, "a", Exclusive).unwrap_err().message;
        for script in [&one, &other] {
            let host = &script.requester.owner.namespace.host;
            assert!(refused.contains(&format!("in another machine, {host}")), "{refused}");
        }
        locks.release(&names("b"), None, &other.requester).unwrap();
        waiter.join().unwrap().unwrap();
    });
}
