//! What happens to a cluster and its clients.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::members::{MEMBERS, Members, await_all, leader};
use super::network::{Net, Network};
use crate::dice::Dice;

/// A disturbance, which is mended after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nemesis {
    LeaderKilled,
    FollowerKilled,
    FollowersKilled,
    AllKilled,
    LeaderStopped,
    /// Many stops of 50 ms, as of a slow disk.
    LeaderSlow,
    /// The leader is cut off from the other members, and not from clients.
    LeaderCutOff,
    /// No member reaches another one.
    AllCutOff,
    /// Clients reach one follower only.
    MajorityCutOffFromClients,
    /// A host of clients reaches no member, for longer than leases last.
    HostCutOff,
}

pub const NEMESES: [Nemesis; 10] = [
    Nemesis::LeaderKilled,
    Nemesis::HostCutOff,
    Nemesis::LeaderCutOff,
    Nemesis::LeaderStopped,
    Nemesis::AllKilled,
    Nemesis::FollowerKilled,
    Nemesis::MajorityCutOffFromClients,
    Nemesis::FollowersKilled,
    Nemesis::AllCutOff,
    Nemesis::LeaderSlow,
];

/// How often each of them was there.
pub type Visits = BTreeMap<Nemesis, usize>;

/// Lets one come after the other until the time is over, and mends all. The calling thread is on a
/// machine of the front network.
pub fn disturb(
    network: &Network,
    members: &mut Members,
    hosts: &[usize],
    dice: &mut Dice,
    until: Instant,
) -> Visits {
    let mut visits = Visits::new();
    let first = dice.below(NEMESES.len());
    for nemesis in NEMESES.iter().cycle().skip(first) {
        if Instant::now() >= until {
            break;
        }
        let host = hosts[dice.below(hosts.len())];
        nemesis.visit(network, members, host, dice);
        *visits.entry(*nemesis).or_default() += 1;
        await_all();
        sleep(millis(500 + dice.below(1500)));
    }
    visits
}

fn millis(number: usize) -> Duration {
    Duration::from_millis(number as u64)
}

impl Nemesis {
    fn visit(self, network: &Network, members: &mut Members, host: usize, dice: &mut Dice) {
        let leader = leader();
        let followers: Vec<usize> = MEMBERS.into_iter().filter(|it| *it != leader).collect();
        let a_while = millis(1500 + dice.below(1500));
        let mut killed = |numbers: &[usize]| {
            numbers.iter().for_each(|number| members.kill(*number));
            sleep(a_while);
            numbers.iter().for_each(|number| members.revive(*number));
        };
        let cut = |net: Net, numbers: &[usize], time: Duration| {
            numbers.iter().for_each(|number| network.cut(net, *number));
            sleep(time);
            numbers.iter().for_each(|number| network.join(net, *number));
        };
        match self {
            Self::LeaderKilled => killed(&[leader]),
            Self::FollowerKilled => killed(&followers[..1]),
            Self::FollowersKilled => killed(&followers),
            Self::AllKilled => killed(&MEMBERS),
            Self::LeaderStopped => {
                members.process(leader).stop();
                sleep(a_while);
                members.process(leader).signal(Signal::CONT);
            }
            Self::LeaderSlow => {
                for _ in 0..20 {
                    members.process(leader).stop();
                    sleep(millis(50));
                    members.process(leader).signal(Signal::CONT);
                    sleep(millis(20 + dice.below(50)));
                }
            }
            Self::LeaderCutOff => cut(Net::Peers, &[leader], a_while * 2),
            Self::AllCutOff => cut(Net::Peers, &MEMBERS, a_while),
            Self::MajorityCutOffFromClients => {
                cut(Net::Front, &[leader, followers[0]], a_while);
            }
            Self::HostCutOff => cut(Net::Front, &[host], Duration::from_secs(4)),
        }
    }
}
