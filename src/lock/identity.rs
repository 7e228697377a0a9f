//! The identity of a process: enough to recognize it from any process, on any machine, at any time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The identity of a process among all machines and for all time: its id alone is reused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id in its own pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// The scope in which its id is valid.
    #[serde(rename = "place")]
    pub namespace: Arc<Namespace>,
}

impl Identity {
    /// Returns whether both are the same process.
    pub fn is(&self, other: &Self) -> bool {
        (self.pid, self.start, self.namespace.pid_namespace)
            == (other.pid, other.start, other.namespace.pid_namespace)
            && self.namespace.compare_boot(&other.namespace.boot) != BootMatch::Different
    }
}

/// The ancestors of processes. A trait, so that tests can search for cycles without processes.
pub trait Ancestry {
    /// A process and its ancestors; empty if they are unknown.
    fn ancestry_of(&mut self, process: &Identity) -> Vec<Identity>;
}

/// Returns whether both are the same processes, in the same order: an ancestry changes when a
/// process in it dies.
pub fn same_ancestry(one: &[Identity], other: &[Identity]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is(other))
}

/// The scope in which process ids are valid: one boot of one machine, and a pid namespace in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// The kernel's random id of this boot: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// The pid namespace's inode: pid_namespaces(7).
    pub pid_namespace: u64,
    /// The time namespace's inode, since start times differ between them: time_namespaces(7). 0 on
    /// older kernels.
    #[serde(default)]
    pub time_namespace: u64,
    /// `/etc/machine-id`, empty where there is none: machine-id(5).
    #[serde(default)]
    pub machine: String,
    /// The host's name, for people.
    #[serde(default)]
    pub host: String,
}

/// How two ids of boots compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMatch {
    /// It is one boot.
    Same,
    /// There are two.
    Different,
    /// One of the ids could not be read: it is empty. A sandbox may hide it.
    Unknown,
}

impl Namespace {
    /// Compares this boot's id with another.
    pub fn compare_boot(&self, other: &str) -> BootMatch {
        match self.boot == other {
            _ if self.boot.is_empty() || other.is_empty() => BootMatch::Unknown,
            true => BootMatch::Same,
            false => BootMatch::Different,
        }
    }

    /// This scope in words, as seen from another.
    pub fn describe_from(&self, other: &Self) -> String {
        let boots = self.compare_boot(&other.boot);
        if boots == BootMatch::Unknown {
            return format!("a boot of {} that cannot be compared", self.host);
        }
        if boots == BootMatch::Different {
            let what = if self.machine == other.machine { "boot of" } else { "machine," };
            return format!("another {what} {}", self.host);
        }
        let kind = if self.pid_namespace == other.pid_namespace { "time" } else { "pid" };
        format!("another {kind} namespace")
    }
}
