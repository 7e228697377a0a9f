//! The liveness of owners and waiters. Only this module decides.
//!
//! - alive: it exists and started when the record says; or it is hidden (`EPERM`, `hidepid`);
//! - dead: no such process, or one that started at another time, or a zombie; or another boot of
//!   this machine, and the root lies on a file system that no other kernel shares. A grant made
//!   since this boot is of no other one, whatever its id: some containers have an id of their own;
//! - unknown: another machine; another pid namespace of this boot, or another boot and a shared
//!   file system.
//!
//! Where a pid proves nothing, an flocked file does: the one that a command of `lock run` passes on
//! to its descendants, and the one that a waiter holds. That works on a local file system: only
//! processes of this kernel can have it locked. Age is never a reason.

use std::time::SystemTime;

use super::identity::{BootMatch, Identity, Namespace};
use super::lifeline::Lifeline;
use super::record::{Grant, Place, Waiter};
use crate::time::parse_rfc3339;

/// The liveness of a process, as far as this process can find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It lives.
    Alive,
    /// It does not, and never will again.
    Dead,
    /// This process cannot find out.
    Unknown,
}

/// A waiter's effect on later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaiterState {
    /// It is in its place, and blocks them.
    Waiting,
    /// It is stopped; later waiters may go first, but it keeps its place.
    Skipped,
    /// It, or the owner it waits for, is dead.
    Dead,
}

/// A process of this boot and pid namespace, as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It exists.
    Visible {
        /// Its start time.
        start: u64,
        /// Its run state.
        state: RunState,
    },
    /// It exists, and the system hides it: never a reason to take it for dead.
    Hidden,
    /// It does not exist.
    Missing,
}

/// The run state of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It runs or sleeps.
    Running,
    /// A signal or a tracer stopped it.
    Stopped,
    /// It has ended.
    Ended,
}

/// The state of a lifeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifelineState {
    /// A process has it locked.
    Locked,
    /// No process has.
    Free,
    /// There is no such file.
    Missing,
    /// An flock proves nothing here, or another kind of file has its name.
    Unknown,
}

/// The facts that this host shows of processes and of the root.
pub trait Host {
    /// The namespace of this process.
    fn namespace(&self) -> &Namespace;
    /// Returns whether no other kernel can have the root's file system mounted.
    fn is_local(&self) -> bool;
    /// Looks up a process of this pid namespace.
    fn lookup(&self, pid: u32) -> Lookup;
    /// Probes a lifeline.
    fn lifeline(&self, file: &Lifeline) -> LifelineState;
    /// What a waiter's lifeline says of it.
    fn details(&self, file: &Lifeline) -> Option<Waiter>;
    /// The time.
    fn now(&self) -> SystemTime;
    /// When this kernel started; `None` where it does not show that.
    fn booted(&self) -> Option<SystemTime>;
}

/// The liveness of other processes. A trait, so that tests can decide without processes.
pub trait LivenessOracle {
    /// The liveness of a process.
    fn process(&self, process: &Identity) -> Liveness;
    /// The liveness of a grant's owner.
    fn grant(&self, grant: &Grant) -> Liveness;
    /// The effect of a waiter on later ones, as far as its process shows.
    fn waiter(&self, waiter: &Waiter) -> WaiterState;

    /// The liveness of a waiter's process.
    fn waiting_process(&self, waiter: &Waiter) -> Liveness {
        self.process(&waiter.process)
    }

    /// Returns whether a grant's owner is dead.
    fn is_dead(&self, grant: &Grant) -> bool {
        self.grant(grant) == Liveness::Dead
    }

    /// Returns whether a waiter, or the owner it waits for, is proven dead.
    fn is_dead_waiter(&self, waiter: &Waiter) -> bool {
        self.waiter(waiter) == WaiterState::Dead
    }

    /// The boot or namespace of a process that cannot be judged from here, in words.
    fn describe_namespace(&self, process: &Identity) -> String {
        process.namespace.host.clone()
    }

    /// The waiter with all that its file says.
    fn detailed(&self, waiter: &Waiter) -> Waiter {
        waiter.clone()
    }
}

impl<H: Host> LivenessOracle for H {
    fn process(&self, identity: &Identity) -> Liveness {
        let (there, here) = (&identity.namespace, self.namespace());
        let boots = here.compare_boot(&there.boot);
        if boots == BootMatch::Different {
            let same_machine = !here.machine.is_empty() && there.machine == here.machine;
            return if same_machine && self.is_local() {
                Liveness::Dead
            } else {
                Liveness::Unknown
            };
        }
        if there.pid_namespace != here.pid_namespace {
            return Liveness::Unknown;
        }
        let found = self.lookup(identity.pid);
        if there.time_namespace != here.time_namespace && matches!(found, Lookup::Visible { .. }) {
            return Liveness::Unknown; // its start time cannot be compared with this process's
        }
        match found {
            Lookup::Hidden => Liveness::Alive,
            Lookup::Visible { start, state } if start == identity.start => match state {
                RunState::Ended => Liveness::Dead,
                RunState::Running | RunState::Stopped => Liveness::Alive,
            },
            // Perhaps it is of another machine, whose processes this one does not show.
            Lookup::Visible { .. } | Lookup::Missing if boots == BootMatch::Unknown => {
                Liveness::Unknown
            }
            Lookup::Visible { .. } | Lookup::Missing => Liveness::Dead,
        }
    }

    /// If the owner's pid proves nothing, the file that its command inherited does; failing that,
    /// its time to live decides, since a grant may expire unless its owner is known to be alive.
    fn grant(&self, grant: &Grant) -> Liveness {
        let known = grant.owner.as_ref().map_or(Liveness::Unknown, |owner| self.process(owner));
        if known != Liveness::Unknown && !is_of_this_boot(self, grant) {
            return known;
        }
        // A living command, or a child of it, holds its file locked. If the file is gone, the
        // command may still live.
        if let Some(file) = &grant.live_file {
            match lifeline_of(self, file) {
                LifelineState::Locked => return Liveness::Alive,
                LifelineState::Free => return Liveness::Dead,
                LifelineState::Missing | LifelineState::Unknown => {}
            }
        }
        match grant.expires {
            Some(expires) if expires <= unix_seconds(self.now()) => Liveness::Dead,
            _ => Liveness::Unknown,
        }
    }

    fn waiter(&self, waiter: &Waiter) -> WaiterState {
        if self.is_dead_waiter(waiter) {
            return WaiterState::Dead;
        }
        // A living waiter removes itself when its time is up, whatever the clock of this process
        // says. One that cannot be judged never shows another sign.
        if waiter.until <= unix_seconds(self.now())
            && self.waiting_process(waiter) == Liveness::Unknown
        {
            return WaiterState::Dead;
        }
        let is_stopped = self.process(&waiter.process) == Liveness::Alive
            && matches!(
                self.lookup(waiter.process.pid),
                Lookup::Visible { state: RunState::Stopped, .. }
            );
        if is_stopped { WaiterState::Skipped } else { WaiterState::Waiting }
    }

    /// A waiter's lifeline is removed by the change that removes the waiter from the record, so a
    /// waiter without its file is dead. One in a queue that has no lifeline at all, as on a full
    /// disk, loses its place to those that cannot judge it: nothing would show them its end.
    fn waiting_process(&self, waiter: &Waiter) -> Liveness {
        match process_or_lifeline(self, &waiter.process, waiter.lifeline.as_ref()) {
            Liveness::Unknown if waiter.lifeline.is_none() && waiter.ticket().is_some() => {
                Liveness::Dead
            }
            known => known,
        }
    }

    fn is_dead_waiter(&self, waiter: &Waiter) -> bool {
        self.waiting_process(waiter) == Liveness::Dead
            || self.process(&waiter.owner) == Liveness::Dead
    }

    fn describe_namespace(&self, process: &Identity) -> String {
        process.namespace.describe_from(self.namespace())
    }

    fn detailed(&self, waiter: &Waiter) -> Waiter {
        let is_it = |details: &Waiter| details.process.is(&waiter.process);
        let details = match (&waiter.lifeline, waiter.place) {
            (Some(file), Place::File { .. }) => self.details(file).filter(is_it),
            _ => None,
        };
        let Some(Waiter { owner, process, command, since, metadata, .. }) = details else {
            return waiter.clone();
        };
        Waiter { owner, process, command, since, metadata, ..waiter.clone() }
    }
}

/// The liveness of a process that keeps a lifeline until nothing names it any more: if its pid
/// proves nothing, the lifeline does.
pub fn process_or_lifeline<H: Host>(
    host: &H,
    process: &Identity,
    lifeline: Option<&Lifeline>,
) -> Liveness {
    let known = host.process(process);
    let is_proof = known != Liveness::Unknown && !is_of_another_boot(host, process);
    match lifeline {
        Some(file) if !is_proof => match lifeline_of(host, file) {
            LifelineState::Locked => Liveness::Alive,
            LifelineState::Free | LifelineState::Missing => Liveness::Dead,
            LifelineState::Unknown => known,
        },
        _ => known,
    }
}

/// The state of a lifeline. On a file system that another kernel may have mounted, an flock proves
/// nothing.
fn lifeline_of<H: Host>(host: &H, file: &Lifeline) -> LifelineState {
    if host.is_local() { host.lifeline(file) } else { LifelineState::Unknown }
}

/// Returns whether the id of a process's boot is not that of this process.
fn is_of_another_boot<H: Host>(host: &H, process: &Identity) -> bool {
    host.namespace().compare_boot(&process.namespace.boot) == BootMatch::Different
}

/// Returns whether a grant was made since this kernel started, though its owner's boot has another
/// id: systemd-nspawn(1) and LXC give containers an id of their own.
fn is_of_this_boot<H: Host>(host: &H, grant: &Grant) -> bool {
    grant.owner.as_ref().is_some_and(|owner| is_of_another_boot(host, owner))
        && host.booted().zip(parse_rfc3339(&grant.since)).is_some_and(|(boot, made)| made >= boot)
}

/// Seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lock::queue::tests::{grant, waiter};
    use crate::lock::record::Mode;

    /// A host with one process: pid 7, started at 3.
    struct OneProcess(Namespace, RunState);

    impl Host for OneProcess {
        fn namespace(&self) -> &Namespace {
            &self.0
        }

        fn is_local(&self) -> bool {
            true
        }

        fn lookup(&self, pid: u32) -> Lookup {
            match pid {
                7 => Lookup::Visible { start: 3, state: self.1 },
                1 => Lookup::Hidden,
                _ => Lookup::Missing,
            }
        }

        fn lifeline(&self, _: &Lifeline) -> LifelineState {
            LifelineState::Unknown
        }

        fn details(&self, _: &Lifeline) -> Option<Waiter> {
            None
        }

        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn booted(&self) -> Option<SystemTime> {
            parse_rfc3339("2026-11-30T12:00:00Z")
        }
    }

    fn judged(change: impl Fn(&mut Identity)) -> Liveness {
        let here =
            Namespace { boot: "b".to_owned(), machine: "m".to_owned(), ..Namespace::default() };
        let mut process = Identity { pid: 7, start: 3, namespace: here.clone().into() };
        change(&mut process);
        OneProcess(here, RunState::Running).process(&process)
    }

    #[test]
    fn a_pid_alone_proves_nothing() {
        assert_eq!(judged(|_| {}), Liveness::Alive);
        assert_eq!(judged(|it| it.start += 1), Liveness::Dead, "the pid is used again");
        assert_eq!(judged(|it| it.pid = 8), Liveness::Dead, "no such process");
        assert_eq!(judged(|it| it.pid = 1), Liveness::Alive, "it is hidden");
        assert_eq!(
            judged(|it| Arc::make_mut(&mut it.namespace).pid_namespace += 1),
            Liveness::Unknown
        );
        assert_eq!(
            judged(|it| Arc::make_mut(&mut it.namespace).time_namespace += 1),
            Liveness::Unknown,
            "start times cannot be compared"
        );
        let other_boot =
            |it: &mut Identity| Arc::make_mut(&mut it.namespace).boot = "another".to_owned();
        assert_eq!(judged(other_boot), Liveness::Dead, "an earlier boot, on a local disk");
        let hidden_boot = |it: &mut Identity| Arc::make_mut(&mut it.namespace).boot = String::new();
        assert_eq!(judged(hidden_boot), Liveness::Alive, "its start time is proof enough");
        for change in [|it: &mut Identity| it.start += 1, |it: &mut Identity| it.pid = 8] {
            let hidden = |it: &mut Identity| {
                hidden_boot(it);
                change(it);
            };
            assert_eq!(judged(hidden), Liveness::Unknown, "the boot could not be read there");
        }
        let other_machine = |it: &mut Identity| {
            other_boot(it);
            Arc::make_mut(&mut it.namespace).machine = "another".to_owned();
        };
        assert_eq!(judged(other_machine), Liveness::Unknown);
    }

    #[test]
    fn a_grant_made_since_this_boot_is_of_no_earlier_one() {
        let here =
            Namespace { boot: "b".to_owned(), machine: "m".to_owned(), ..Namespace::default() };
        let host = OneProcess(here.clone(), RunState::Running);
        let namespace = Namespace { boot: "of a container".to_owned(), ..here };
        let judged = |since: &str| {
            let owner = Some(Identity { pid: 7, start: 3, namespace: namespace.clone().into() });
            let since = since.to_owned();
            host.grant(&Grant { owner, since, ..grant(1, Mode::Exclusive, 7) })
        };
        assert_eq!(judged("2026-11-30T11:59:59Z"), Liveness::Dead);
        assert_eq!(judged("2026-11-30T12:00:01Z"), Liveness::Unknown);
    }

    #[test]
    fn the_deadline_of_a_waiter_that_lives_proves_nothing() {
        let here = Namespace { boot: "b".to_owned(), ..Namespace::default() };
        let host = OneProcess(here.clone(), RunState::Running);
        let judged = |pid, namespace: Namespace| {
            let process = Identity { pid, start: 3, namespace: namespace.into() };
            let owner = Identity { pid: 7, ..process.clone() };
            host.waiter(&Waiter { process, owner, until: 0.0, ..waiter(Mode::Exclusive, 7) })
        };
        assert_eq!(judged(7, here.clone()), WaiterState::Waiting, "a clock that was set forward");
        let elsewhere = Namespace { pid_namespace: 1, ..here };
        assert_eq!(judged(7, elsewhere), WaiterState::Dead, "nothing else shows its end");
    }
}
