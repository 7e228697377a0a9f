//! Machines in network namespaces of their own, on two networks with cables that can be pulled.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Between the members of a cluster.
    Peers,
    /// Between members and clients.
    Front,
}

impl Net {
    fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Front => "front",
        }
    }

    /// The address of the machine with this number, from 1.
    pub fn address(self, number: usize) -> String {
        match self {
            Self::Peers => format!("10.1.0.{number}"),
            Self::Front => format!("10.2.0.{number}"),
        }
    }
}

/// A network namespace, which ends with this value and its processes.
#[derive(Debug)]
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", "ip link set lo up && echo && exec cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "\n", "no namespace");
        Self(child)
    }

    /// A command in it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0.id().to_string(), "-n", program]);
        command
    }

    fn ip(&self, words: &str) {
        let status = self.command("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    pub number: usize,
    namespace: Namespace,
}

impl Machine {
    /// A command on it.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Moves the calling thread and what it starts from now on to this machine.
    pub fn enter(&self) {
        let link = File::open(format!("/proc/{}/ns/net", self.namespace.0.id())).unwrap();
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

/// Both networks. What is sent into a pulled cable is lost without an answer.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
}

impl Network {
    pub fn new() -> Self {
        let switch = Namespace::new();
        for net in [Net::Peers, Net::Front] {
            switch.ip(&format!("link add name {} type bridge", net.name()));
            switch.ip(&format!("link set {} up", net.name()));
        }
        Self { switch }
    }

    /// A machine with a cable to each of these networks.
    pub fn machine(&self, number: usize, nets: &[Net]) -> Machine {
        let namespace = Namespace::new();
        for net in nets {
            let (cable, name, pid) = (cable(*net, number), net.name(), namespace.0.id());
            self.switch
                .ip(&format!("link add name {cable} type veth peer name {name} netns {pid}"));
            self.switch.ip(&format!("link set {cable} master {name} up"));
            namespace.ip(&format!("addr add {}/24 dev {name}", net.address(number)));
            namespace.ip(&format!("link set {name} up"));
        }
        Machine { number, namespace }
    }

    /// Pulls a cable.
    pub fn cut(&self, net: Net, number: usize) {
        self.switch.ip(&format!("link set {} down", cable(net, number)));
    }

    /// Plugs it in again.
    pub fn join(&self, net: Net, number: usize) {
        self.switch.ip(&format!("link set {} up", cable(net, number)));
    }
}

fn cable(net: Net, number: usize) -> String {
    format!("{}{number}", net.name())
}
