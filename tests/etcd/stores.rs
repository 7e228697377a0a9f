//! Stores for tests, each with keys of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pipeline_state::audit::Audit;
use pipeline_state::error::{Error, Result};
use pipeline_state::etcd::address::Address;
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::endpoints::Endpoints;
use pipeline_state::etcd::messages::{KeyValue, RequestOp, TxnRequest};
use pipeline_state::etcd::txn::{Keys, delete, put};
use pipeline_state::fs::Disk;
use pipeline_state::journal::Origin;
use pipeline_state::lock::LockEnv;
use pipeline_state::name::Name;
use pipeline_state::store::change::{Outcome, Proposal};
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::host::Host;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::{RemoteStore, StaleReads, Surroundings};
use pipeline_state::store::signal::Signals;
use pipeline_state::store::{AutoRecover, ForeignEdits, Settings, SignalFile};
use pipeline_state::time::rfc3339_millis;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::faults::{FaultyWire, Plan};
use crate::server::{PATIENT, shared};

/// The keys of a store on the shared server, and a root on this host.
#[derive(Clone, Debug)]
pub struct Place {
    pub url: String,
    pub prefix: String,
    pub root: Arc<TempDir>,
}

impl Place {
    pub fn new() -> Self {
        Self::at(shared().url())
    }

    /// The keys at this address.
    pub fn at(url: String) -> Self {
        let prefix = Address::parse(&url).unwrap().prefix;
        Self { url, prefix, root: root() }
    }

    /// The same keys on another host.
    pub fn elsewhere(&self) -> Self {
        Self { root: root(), ..self.clone() }
    }

    /// Writes a file of `config/`.
    pub fn configure(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root.path().join("config").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A file of `config/`.
    pub fn configured(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join("config").join(name)).ok()
    }

    /// A place with a state.
    pub fn initialized() -> Self {
        let place = Self::new();
        place.store().init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
        place
    }

    pub fn store(&self) -> RemoteStore {
        self.store_with(settings())
    }

    pub fn store_with(&self, settings: Settings) -> RemoteStore {
        let wire = Endpoints::new(&Address::parse(&self.url).unwrap(), Credentials::default());
        self.store_of(Client::new(Box::new(wire.unwrap()), None, PATIENT), settings)
    }

    /// A store on which calls fail as planned.
    pub fn faulty(&self, plan: &Plan, patience: Patience) -> RemoteStore {
        let wire = FaultyWire::to(shared(), plan);
        self.store_of(Client::new(Box::new(wire), None, patience), settings())
    }

    /// A store on this client.
    pub fn store_of(&self, client: Client, settings: Settings) -> RemoteStore {
        let root = self.root.path();
        let audit = || Audit::new(Disk::real(), root.join("audit.log"), root);
        let surroundings = Surroundings {
            now: Box::new(SystemTime::now),
            origin: Box::new(|now| Origin { time: rfc3339_millis(now), ..Origin::default() }),
            stale_reads: StaleReads::Refuse,
            audit: audit(),
        };
        let settings = Settings { root: self.root.path().to_owned(), ..settings };
        let host = Host::new(Disk::real(), &settings, audit());
        RemoteStore::new(client, &self.prefix, &self.url, settings, surroundings).with_host(host)
    }

    /// Puts or deletes keys past the store.
    pub fn edit(&self, operations: Vec<RequestOp>) -> i64 {
        let request = TxnRequest { success: operations, ..Default::default() };
        shared().client().commit(&request).unwrap().revision()
    }

    pub fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> i64 {
        self.edit(vec![put(self.key(key), value.into())])
    }

    pub fn delete(&self, key: &str) {
        self.edit(vec![delete(&Keys::one(self.key(key)))]);
    }

    pub fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.prefix)
    }

    pub fn below(&self, key: &str) -> Vec<KeyValue> {
        shared().client().range(&Keys::below(&self.key(key)).read()).unwrap().kvs
    }

    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        let found = shared().client().range(&Keys::one(self.key(key)).read()).unwrap().kvs;
        found.first().map(|kv| kv.value.to_vec())
    }
}

fn root() -> Arc<TempDir> {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    Arc::new(tempfile::Builder::new().prefix("root-").tempdir_in(base).unwrap())
}

pub fn settings() -> Settings {
    Settings {
        directory: "/nowhere".into(),
        file_name: "state".into(),
        root: "/nowhere".into(),
        lock_timeout: Duration::from_secs(60),
        max_backups: 5,
        backup_days: 7,
        max_checkpoints: 20,
        checkpoint_days: 7,
        auto_recover: AutoRecover::Yes,
        foreign_edits: ForeignEdits::Refuse,
        lock_env: LockEnv::default(),
    }
}

/// Sets a field of the document.
pub fn set(store: &RemoteStore, field: &str, value: impl Into<Value>) -> Result<Outcome> {
    set_with(store, &WriteOptions::of("set"), field, value)
}

pub fn set_with(
    store: &RemoteStore,
    options: &WriteOptions,
    field: &str,
    value: impl Into<Value>,
) -> Result<Outcome> {
    let value = value.into();
    store.change(options, &mut |base| {
        let mut draft = base.draft();
        draft[field] = value.clone();
        Ok(draft.into())
    })
}

/// Gives a signal.
pub fn signal(store: &RemoteStore, name: &str) -> Result<()> {
    let name = Name::parse("signal", name)?;
    let given = store.change(&WriteOptions::of("signal"), &mut |base| {
        let mut draft = base.draft();
        let file = SignalFile::give(&mut draft, &name, &json!({}), SystemTime::now())?;
        let signals = Signals::These(vec![file]);
        Ok(Proposal { draft: draft.into(), signals, repeats: None })
    });
    given.map(drop)
}

/// Adds one to a field, and returns the revision that has it.
pub fn add_one(store: &RemoteStore, field: &str) -> Result<u64> {
    let outcome = store.change(&WriteOptions::of("update"), &mut |base| {
        let mut draft = base.draft();
        draft[field] = (draft[field].as_u64().unwrap_or(0) + 1).into();
        Ok(draft.into())
    })?;
    match outcome {
        Outcome::Committed { revision, .. } => Ok(revision.get()),
        other => panic!("{other:?}"),
    }
}

pub fn document(store: &RemoteStore) -> Value {
    store.read().unwrap().value.into_value()
}

pub fn revision(document: &Value) -> u64 {
    document["metadata"]["revision"].as_u64().unwrap()
}

pub fn code(error: &Error) -> u8 {
    assert!(!error.hints.is_empty(), "{error}");
    error.code() as u8
}
