//! Owners of locks for tests: on other hosts, so that nothing but their leases shows their lives.

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use pipeline_state::audit::Audit;
use pipeline_state::error::Result;
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::messages::KeyValue;
use pipeline_state::etcd::txn::Keys;
use pipeline_state::fs::Disk;
use pipeline_state::lock::remote::{RemoteLocks, Surroundings};
use pipeline_state::lock::{
    Acquired, Deadline, Identity, LockEnv, Mode, Namespace, Reentrancy, Request, RequestSpec,
    Requester, Token,
};
use pipeline_state::name::Name;
use pipeline_state::store::remote::mark_of_state;

use crate::faults::{FaultyWire, Plan};
use crate::server::{PATIENT, shared};
use crate::stores::Place;

/// A script on a host of its own.
#[derive(Clone, Debug)]
pub struct Script {
    pub requester: Requester,
}

impl Script {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace {
            boot: format!("boot-{number}"),
            host: format!("host-{number}"),
            ..Namespace::default()
        };
        let identity = |pid| Identity { pid, start: 1, namespace: namespace.clone().into() };
        let (owner, process) = (identity(10), identity(11));
        let requester = Requester {
            ancestry: vec![owner.clone()],
            owner,
            explicit: false,
            process,
            env_tokens: Vec::new(),
        };
        Self { requester }
    }

    /// A script that this one runs.
    pub fn child(&self) -> Self {
        let Identity { pid, start, namespace } = self.requester.owner.clone();
        let identity = |more| Identity { pid: pid + more, start, namespace: namespace.clone() };
        let owner = identity(10);
        let mut ancestry = vec![owner.clone()];
        ancestry.extend(self.requester.ancestry.clone());
        let requester =
            Requester { ancestry, owner, process: identity(11), ..self.requester.clone() };
        Self { requester }
    }

    pub fn request(&self, locks: &str, spec: RequestSpec, timeout: Duration) -> Request {
        let names = names(locks);
        Request::new(names, spec, self.requester.clone(), Deadline::after(timeout))
    }

    pub fn try_lock(&self, locks: &RemoteLocks, names: &str, mode: Mode) -> Result<Vec<Acquired>> {
        locks.acquire(&self.request(names, RequestSpec::hold(mode), Duration::ZERO))
    }

    pub fn lock(&self, locks: &RemoteLocks, names: &str, mode: Mode) -> Result<Vec<Acquired>> {
        locks.acquire(&self.request(names, RequestSpec::hold(mode), Duration::from_secs(60)))
    }

    pub fn again(&self, locks: &RemoteLocks, names: &str) -> Result<Vec<Acquired>> {
        let spec =
            RequestSpec { reentrancy: Reentrancy::Counted, ..RequestSpec::hold(Mode::Exclusive) };
        locks.acquire(&self.request(names, spec, Duration::ZERO))
    }

    pub fn release(&self, locks: &RemoteLocks, one: &str) -> Result<u32> {
        let released = locks.release(&names(one), None, &self.requester)?;
        Ok(released[0].left)
    }
}

pub fn names(text: &str) -> Vec<Name> {
    text.split(',').map(|name| Name::parse("lock", name).unwrap()).collect()
}

pub fn name(text: &str) -> Name {
    Name::parse("lock", text).unwrap()
}

pub fn token(acquired: &[Acquired]) -> Token {
    acquired[0].grant.token
}

impl Place {
    pub fn locks(&self) -> RemoteLocks {
        self.locks_of(crate::server::client(&self.url, Default::default(), PATIENT))
    }

    /// Locks on which calls fail as planned.
    pub fn faulty_locks(&self, plan: &Plan, patience: Patience) -> RemoteLocks {
        self.locks_of(Client::new(Box::new(FaultyWire::to(shared(), plan)), None, patience))
    }

    fn locks_of(&self, client: Client) -> RemoteLocks {
        let audit = Audit::new(Disk::real(), "/dev/null".into(), Path::new("/nowhere"));
        let surroundings = Surroundings {
            now: Box::new(SystemTime::now),
            audit: Rc::new(audit),
            host: None,
            mark: mark_of_state(&self.prefix, &self.url),
        };
        // Nothing renews these leases.
        let env = LockEnv { lease_ttl: Some(Duration::from_secs(600)), ..LockEnv::default() };
        RemoteLocks::new(client, &self.prefix, &self.url, env, surroundings)
    }

    /// Waits until so many requests are queued for a lock, and returns their keys in order.
    pub fn await_queue(&self, lock: &str, length: usize) -> Vec<KeyValue> {
        self.await_keys(&format!("wait/{lock}/"), |kvs| kvs.len() == length)
    }

    /// Waits until the keys below `prefix` are as they should be, and returns them in order.
    pub fn await_keys(&self, prefix: &str, are_so: impl Fn(&[KeyValue]) -> bool) -> Vec<KeyValue> {
        let client = shared().client();
        let mut watch = client.watch(&Keys::below(&self.key(prefix))).unwrap();
        loop {
            let mut kvs = self.below(prefix);
            kvs.sort_by_key(|kv| kv.create_revision);
            if are_so(&kvs) {
                return kvs;
            }
            let events = watch.next(Instant::now() + Duration::from_secs(60)).unwrap();
            assert!(!events.is_empty(), "the keys stay as they are: {kvs:?}");
        }
    }
}
