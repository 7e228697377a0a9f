//! Three members, of which some die or stop.

use std::cell::Cell;
use std::time::Duration;

use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::fate::Fate;
use pipeline_state::etcd::messages::TxnRequest;
use pipeline_state::etcd::txn::{Keys, absent, put, put_at};
use rustix::process::Signal;

use crate::commands::Host;
use crate::server::{PATIENT, Server, client, free_ports};

struct Cluster {
    members: Vec<Option<Server>>,
    ports: [u16; 3],
}

impl Cluster {
    fn start() -> Self {
        let ports: [u16; 6] = free_ports();
        let [a, b, c, peers @ ..] = ports;
        let names = ["a", "b", "c"];
        let all =
            names.iter().zip(peers).map(|(name, peer)| format!("{name}=http://127.0.0.1:{peer}"));
        let all = all.collect::<Vec<_>>().join(",");
        let ports = [a, b, c];
        let members = names.iter().zip(ports).zip(peers).map(|((name, port), peer)| {
            // Much else may run on this machine: an election is to be the test's doing.
            let slow = ["--heartbeat-interval", "200", "--election-timeout", "2000"];
            Some(Server::member(name, "http", [port, peer], &all, &slow))
        });
        Self { members: members.collect(), ports }
    }

    /// A client that tries the members in this order.
    fn client(&self, order: [usize; 3], patience: Patience) -> Client {
        let hosts = order.map(|i| format!("127.0.0.1:{}", self.ports[i])).join(",");
        client(&format!("etcd://{hosts}/p"), Credentials::default(), patience)
    }

    /// The members, the leader first.
    fn leader_first(&self) -> [usize; 3] {
        let mut order = [0, 1, 2];
        order.sort_by_key(|i| {
            let status = self.client([*i, *i, *i], PATIENT).status().unwrap();
            u8::from(status.header.unwrap().member_id != status.leader)
        });
        order
    }
}

/// Adds one to a counter, exactly once, and returns what it counts.
fn count(store: &Client) -> u64 {
    let key = "/counter";
    loop {
        let found = store.range(&Keys::one(key).read()).unwrap().kvs;
        let (number, guard) = match &found[..] {
            [] => (0, absent(key)),
            [kv, ..] => {
                (String::from_utf8_lossy(&kv.value).parse().unwrap(), put_at(key, kv.mod_revision))
            }
        };
        let next: u64 = number + 1;
        let request = TxnRequest {
            compare: vec![guard],
            success: vec![put(key, next.to_string())],
            failure: vec![Keys::one(key).read().into()],
        };
        let answer = store.commit(&request).unwrap();
        let succeeded = answer.succeeded;
        let is_there = || {
            answer.ranges().next().is_some_and(|range| {
                // One writer: what is there is its own.
                range.kvs.iter().any(|kv| kv.value == next.to_string())
            })
        };
        if succeeded || is_there() {
            return next;
        }
    }
}

#[test]
fn members_die_and_stop_and_every_commit_happens_once() {
    let mut cluster = Cluster::start();
    let order = cluster.leader_first();
    let [leader, second, third] = order;
    let store = cluster.client(order, PATIENT);
    let counted = Cell::new(0);
    let some = || {
        for _ in 0..20 {
            counted.set(counted.get() + 1);
            assert_eq!(count(&store), counted.get());
        }
    };
    some();

    // The member that answers is stopped: its port is open, and nothing comes.
    cluster.members[leader].as_ref().unwrap().stop();
    some();
    cluster.members[leader].as_ref().unwrap().signal(Signal::CONT);
    some();

    // Another one is killed, whether it leads or not.
    cluster.members[second] = None;
    some();

    // A new client finds the members that are left, though it tries the dead one first.
    let late = cluster.client([second, leader, third], PATIENT);
    assert_eq!(
        late.range(&Keys::one("/counter").read()).unwrap().kvs[0].value,
        counted.get().to_string()
    );

    // Without a quorum nothing is carried out, and what was sent may be once there is one again.
    cluster.members[leader].as_ref().unwrap().stop();
    let patience = Patience { reach: Duration::from_secs(3), settle: Duration::from_secs(3) };
    let cut_off = cluster.client([third, leader, second], patience);
    let write = TxnRequest { success: vec![put("/lost", "")], ..Default::default() };
    let failure = cut_off.commit(&write).unwrap_err();
    assert_ne!(failure.fate, Fate::NotSent, "{failure}");
    let read = cut_off.range(&Keys::one("/counter").read()).unwrap_err();
    assert_eq!(read.kind().code() as u8, 8, "{read}");
    cluster.members[leader].as_ref().unwrap().signal(Signal::CONT);
    some();
}

#[test]
fn without_a_quorum_a_stale_answer_is_given_only_where_it_is_accepted() {
    let mut cluster = Cluster::start();
    let host = Host::new();
    let hosts = cluster.ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let url = format!("etcd://{hosts}{}", host.place.prefix);
    let run = |words: &[&str], stale: &str| {
        let mut command = host.command(words);
        command.env("PIPELINE_STORE", &url).env("PIPELINE_STALE_READS", stale);
        command.output().unwrap()
    };
    assert!(run(&["state", "init"], "refuse").status.success());
    for member in &mut cluster.members[1..] {
        *member = None;
    }
    let get = &["state", "get", ".metadata.revision"];
    assert_eq!(run(get, "refuse").status.code(), Some(8));
    let answer = run(get, "accept");
    assert_eq!((answer.status.code(), &answer.stdout[..]), (Some(0), &b"1\n"[..]), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stderr).contains("it may be old"), "{answer:?}");
    for report in [&["state", "status"][..], &["state", "history"], &["recover", "list"]] {
        assert_eq!(run(report, "refuse").status.code(), Some(8), "{report:?}");
        let answer = run(report, "accept");
        assert_eq!(answer.status.code(), Some(0), "{report:?}: {answer:?}");
        assert!(String::from_utf8_lossy(&answer.stderr).contains("it may be old"), "{answer:?}");
    }
    assert_eq!(run(&["state", "set", "n:=1"], "accept").status.code(), Some(8));
    // The members are asked all at once, and degraded mode is no way out.
    let doctor = run(&["--json", "recover", "doctor"], "refuse");
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(found["findings"].as_array().unwrap().len(), 3, "{found}");
    let handled = run(&["recover", "handle", "8"], "refuse");
    let handled = String::from_utf8_lossy(&handled.stdout);
    assert!(handled.contains("PIPELINE_STALE_READS=accept"), "{handled}");
    assert!(!handled.contains("degrade"), "{handled}");
    assert_eq!(run(get, "perhaps").status.code(), Some(64));
}
