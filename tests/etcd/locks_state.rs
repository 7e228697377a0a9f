//! The lock `state` and the commits of its holder and of others; fences.

use std::thread::scope;

use rustix::process::{Signal, kill_process};

use crate::keepers::{Host, LONG, SHORT};
use crate::server::shared;

fn initialized(ttl: &'static str) -> Host {
    let host = Host::new(ttl);
    host.ok("$B -q state init");
    host
}

#[test]
fn the_holder_of_state_commits_and_others_wait_for_it() {
    let host = initialized(LONG);
    let script = host.script(
        "$B -q lock acquire state; echo ready; read x; $B -q state set a=1; $B -q state set a=2
         $B -q lock release state",
    );
    let error = host.sh("$B state set b=1 --lock-timeout 200ms");
    let said = String::from_utf8_lossy(&error.stderr);
    assert!(error.status.code() == Some(2) && said.contains("the state is locked by"), "{said}");
    scope(|scope| {
        let other = scope.spawn(|| host.ok("$B state set b=1"));
        let queued = host.place.await_queue("state", 1);
        let list = host.ok("$B lock list json | jq -r '.[1] | .status, .command'");
        assert!(
            list.starts_with("waiting\n") && list.contains("state set b=1 (a commit)"),
            "{list}"
        );
        assert_eq!(script.go_on(), "");
        assert!(other.join().unwrap().contains("revision 4"), "{queued:?}");
    });
    assert_eq!(host.ok("$B state get .a; $B state get .b"), "2\n1\n");
}

#[test]
fn a_commit_under_a_lock_that_was_lost_is_fenced() {
    for lost in ["cluster", "operator"] {
        let host = initialized(SHORT);
        let script = host.script(
            "$B -q lock acquire state; echo ready; read x; $B --json state set a=1; echo $?
             $B state set a=2",
        );
        match lost {
            "cluster" => {
                shared().client().revoke(host.place.below("hold/state/")[0].lease).unwrap();
                host.await_file("lost-");
            }
            _ => drop(host.ok("$B -q lock break state --force")),
        }
        let said = script.go_on();
        assert!(
            said.contains(r#""kind":"fenced""#) && said.contains("\n1\n")
                || said.starts_with("1\n"),
            "{said}"
        );
        assert!(
            said.contains(match lost {
                "cluster" => "was lost at 20",
                _ => "was taken away",
            }),
            "{said}"
        );
        assert!(said.contains("State updated: revision 2"), "it is said once: {said}");
    }
}

#[test]
fn a_fence_holds_as_long_as_its_grant_and_no_longer() {
    let host = initialized(LONG);
    let script = host.script(
        "t=$($B lock acquire deploy --print-token); echo ready; read x
         $B state set a=1 --fence deploy:$t; $B -q lock release deploy
         $B -q lock acquire deploy; $B state set a=2 --fence deploy:$t; echo $?
         $B state set a=1 --fence deploy:$t; echo $?; $B state set a=3 --dry-run --fence \
             deploy:$t; echo $?",
    );
    let said = script.go_on();
    // Also where nothing would change, and where nothing is to be changed.
    assert!(said.contains("State updated: revision 2\n1\n1\n1\n"), "{said}");
    assert!(said.contains("is no longer on record, so nothing was written"), "{said}");
}

#[test]
fn a_fence_of_a_grant_that_was_lost_says_when() {
    let host = initialized(SHORT);
    let script = host.script(
        "t=$($B lock acquire deploy --print-token); echo ready; read x
         $B --json state set a=1 --fence deploy:$t",
    );
    shared().client().revoke(host.place.below("hold/deploy/")[0].lease).unwrap();
    host.await_file("lost-");
    let said = script.go_on();
    assert!(said.contains("was lost at 20") && said.contains(r#""lost":"20"#), "{said}");
}

#[test]
fn a_loss_that_no_keeper_saw_is_said_with_one_time() {
    let host = initialized(SHORT);
    let script = host.script(
        "t=$($B lock acquire deploy --print-token); echo ready; read x
         $B --json state set a=1 --fence deploy:$t; sleep 1; $B --json lock release deploy",
    );
    kill_process(host.keeper(), Signal::KILL).unwrap();
    host.await_free();
    let said = script.go_on();
    let times: Vec<&str> =
        said.split(r#""lost":"#).skip(1).filter_map(|rest| rest.get(..26)).collect();
    assert!(times.len() == 2 && times[0] == times[1] && times[0].starts_with("\"20"), "{said}");
}

#[test]
fn a_commit_that_would_wait_for_itself_is_refused() {
    let host = initialized(LONG);
    // The holder of `state` waits for `deploy`, whose holder commits.
    let mut holder =
        host.script("$B -q lock acquire state; echo ready; read x; $B -q lock acquire deploy");
    let mut other = host.script(
        "$B -q lock acquire deploy; echo ready; read x; $B --json state set a=1; echo $?; read y",
    );
    holder.send();
    host.place.await_queue("deploy", 1);
    other.send();
    let said = other.go_on();
    assert!(said.contains("2\n") && said.contains(r#""kind":"deadlock""#), "{said}");
    assert_eq!(holder.go_on(), "");
}

#[test]
fn a_script_that_lost_its_grant_gives_back_none_of_an_ancestor() {
    let host = Host::new(SHORT);
    let script = host.script(
        "sh -c '$B -q lock acquire a; echo ready; read x
                $B -q lock acquire a 9 --owner-pid $PPID; $B --json lock renew a
                $B -q lock check a && echo held; $B -q lock release a && echo released'; :",
    );
    shared().client().revoke(host.place.below("hold/a/")[0].lease).unwrap();
    host.await_file("lost-");
    let said = script.go_on();
    assert!(said.contains("held") && said.contains("was lost at 20"), "{said}");
    assert!(said.contains(r#""kind":"not_owner""#), "{said}");
    assert!(said.contains("released"), "it is said once: {said}");
}
