//! A cluster of three machines: members are killed, and start again with their data.

use std::time::{Duration, Instant};

use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::messages::TxnRequest;
use pipeline_state::etcd::txn::put;
use tempfile::TempDir;

use super::network::{Machine, Net, Network};
use crate::server::{Process, client, scratch};

/// The numbers of the members' machines.
pub const MEMBERS: [usize; 3] = [1, 2, 3];

/// A member, dead or alive.
#[derive(Debug)]
struct Member {
    machine: Machine,
    data: TempDir,
    process: Option<Process>,
}

/// The members.
#[derive(Debug)]
pub struct Members(Vec<Member>);

/// The addresses of all members, for a store below `prefix`.
pub fn url(prefix: &str) -> String {
    url_of(&MEMBERS, prefix)
}

fn url_of(numbers: &[usize], prefix: &str) -> String {
    let hosts = numbers.iter().map(|number| format!("{}:2379", Net::Front.address(*number)));
    format!("etcd://{}{prefix}", hosts.collect::<Vec<_>>().join(","))
}

impl Members {
    pub fn start(network: &Network) -> Self {
        let member = |number| Member {
            machine: network.machine(number, &[Net::Peers, Net::Front]),
            data: scratch(),
            process: None,
        };
        let mut members = Self(MEMBERS.map(member).into());
        MEMBERS.iter().for_each(|number| members.revive(*number));
        members
    }

    fn member(&mut self, number: usize) -> &mut Member {
        self.0.iter_mut().find(|member| member.machine.number == number).unwrap()
    }

    pub fn process(&self, number: usize) -> &Process {
        let member = self.0.iter().find(|member| member.machine.number == number);
        member.unwrap().process.as_ref().unwrap()
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.member(number).process = None;
    }

    /// Starts a member with what it had when it was killed.
    pub fn revive(&mut self, number: usize) {
        let peer = |number| format!("http://{}:2380", Net::Peers.address(number));
        let front = format!("http://{}:2379", Net::Front.address(number));
        let all = MEMBERS.map(|number| format!("m{number}={}", peer(number))).join(",");
        let member = self.member(number);
        let mut etcd = member.machine.command("etcd");
        etcd.args(["--name", &format!("m{number}"), "--data-dir"])
            .arg(member.data.path().join("data"))
            .args(["--listen-client-urls", &front, "--advertise-client-urls", &front])
            .args(["--listen-peer-urls", &peer(number)])
            .args(["--initial-advertise-peer-urls", &peer(number)])
            .args(["--initial-cluster", &all, "--logger", "zap"]);
        member.process = Some(Process::start(&scratch().keep(), &etcd));
    }
}

/// Soon enough to ask another member.
const SOON: Patience =
    Patience { reach: Duration::from_millis(500), settle: Duration::from_millis(500) };

/// The member that leads. The calling thread is on a machine of the front network.
pub fn leader() -> usize {
    let leads = |number: usize| {
        let asked = client(&url_of(&[number], "/"), Credentials::default(), SOON).status();
        asked.is_ok_and(|status| status.header.unwrap().member_id == status.leader)
    };
    loop {
        if let Some(number) = MEMBERS.into_iter().find(|number| leads(*number)) {
            return number;
        }
    }
}

/// Waits until each member carries out a transaction; how long that took.
pub fn await_all() -> Duration {
    let start = Instant::now();
    let write = TxnRequest { success: vec![put("/well", "")], ..Default::default() };
    for number in MEMBERS {
        while client(&url_of(&[number], "/"), Credentials::default(), SOON).commit(&write).is_err()
        {
            assert!(start.elapsed() < Duration::from_secs(120), "member {number} does not recover");
        }
    }
    start.elapsed()
}

/// A client of all members.
pub fn client_of_all(patience: Patience) -> Client {
    client(&url("/"), Credentials::default(), patience)
}
