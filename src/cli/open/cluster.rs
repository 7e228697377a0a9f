//! Opens the store on a cluster.

use std::os::unix::process::parent_id;
use std::rc::Rc;
use std::time::Duration;

use crate::audit::Audit;
use crate::config::store_url::StoreUrl;
use crate::config::{Config, Environment as _, ProcessEnvironment};
use crate::error::{Error, Kind, Result};
use crate::etcd::address::{Address, Endpoint, Security};
use crate::etcd::client::{Client, Patience};
use crate::etcd::credentials::{Credentials, SKIP_VERIFY, Verification};
use crate::etcd::endpoints::Endpoints;
use crate::etcd::txn::Keys;
use crate::fs::Disk;
use crate::lock::remote::{Host as OwnersHost, RemoteLocks};
use crate::lock::{self, origin};
use crate::recovery::strategy::Member;
use crate::store::host::Host;
use crate::store::remote::{RemoteStore, StaleReads, Surroundings, mark_of_state};

/// How long a command tries to reach a cluster.
const REACH: Duration = Duration::from_secs(5);
/// How long a command asks what became of a request that may have been carried out.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a member has to answer that is asked for its condition.
const PROBE: Duration = Duration::from_secs(3);

/// The store at `url`. Nothing is sent yet.
pub(in crate::cli) fn open(url: &StoreUrl, config: &Config, disk: Disk) -> Result<RemoteStore> {
    let audit = super::audit(config, &disk);
    let host = Host::new(disk.clone(), &config.settings, super::audit(config, &disk));
    let address = Address::parse(url.as_str())?;
    let client = client(&address, patience(config))?;
    let owner = config.settings.lock_env.owner.unwrap_or_else(parent_id);
    let surroundings = Surroundings {
        now: Box::new(move || disk.now()),
        origin: Box::new(move |now| origin(now, owner)),
        stale_reads: stale_reads()?,
        audit,
    };
    let settings = config.settings.clone();
    let store = RemoteStore::new(client, &address.prefix, &url.to_string(), settings, surroundings);
    Ok(store.with_host(host).with_grants(owners_host(url, config)))
}

/// The variable that lets readers take what a single member has.
const STALE_READS: &str = "PIPELINE_STALE_READS";

fn stale_reads() -> Result<StaleReads> {
    let value = ProcessEnvironment.get(STALE_READS);
    match value.as_ref().map(|value| value.to_string_lossy()).as_deref() {
        None | Some("" | "refuse") => Ok(StaleReads::Refuse),
        Some("accept") => Ok(StaleReads::Accept),
        Some(other) => {
            let message = format!("{STALE_READS} is {other:?}, and accept or refuse is expected");
            Err(Error::new(Kind::Usage, message)
                .hint_shell(format!("unset {STALE_READS}"), "take the default, or correct it"))
        }
    }
}

/// The locks of the store at `url`. Nothing is sent yet.
pub(super) fn locks(
    url: &StoreUrl,
    config: &Config,
    disk: Disk,
    audit: Rc<Audit>,
) -> Result<RemoteLocks> {
    let address = Address::parse(url.as_str())?;
    let client = client(&address, patience(config))?;
    let env = config.settings.lock_env.clone();
    let now = Box::new(move || disk.now());
    let host = Some(owners_host(url, config));
    let shown = url.to_string();
    let mark = mark_of_state(&address.prefix, &shown);
    let surroundings = lock::remote::Surroundings { now, audit, host, mark };
    Ok(RemoteLocks::new(client, &address.prefix, &shown, env, surroundings))
}

/// This host, as owners of locks see it.
fn owners_host(url: &StoreUrl, config: &Config) -> OwnersHost {
    OwnersHost {
        url: url.as_str().to_owned(),
        runtime: config.settings.lock_env.runtime.clone(),
        audit_log: config.audit_log.clone(),
        root: config.settings.root.clone(),
    }
}

/// Asks each member by itself, all at once, for what only a cluster with a leader answers.
pub(super) fn try_members(url: &StoreUrl) -> Result<Vec<Member>> {
    let address = Address::parse(url.as_str())?;
    let patience = Patience { reach: PROBE, settle: PROBE };
    let ask = |endpoint: &Endpoint| {
        let one = Address { endpoints: vec![endpoint.clone()], ..address.clone() };
        let meta = Keys::one(format!("{}/meta", address.prefix)).read();
        let answer = client(&one, patience)?.range(&meta);
        let obstacle = answer.err().map(Error::from);
        Ok(Member { endpoint: endpoint.to_string(), obstacle })
    };
    let failed = || Error::new(Kind::Internal, "a thread that asked a member panicked");
    std::thread::scope(|scope| {
        let asked = address.endpoints.iter().map(|endpoint| scope.spawn(move || ask(endpoint)));
        let asked: Vec<_> = asked.collect(); // all have begun
        asked.into_iter().map(|thread| thread.join().map_err(|_| failed())?).collect()
    })
}

/// The warning that others can read or answer in between, if they can: members are spoken to in the
/// clear over a network, or their certificates are not checked.
pub(super) fn exposure(url: &StoreUrl) -> Option<String> {
    let address = Address::parse(url.as_str()).ok()?;
    let is_unchecked = || credentials().is_ok_and(|it| it.verification == Verification::Skipped);
    if address.security == Security::Tls && is_unchecked() {
        return Some(format!("{SKIP_VERIFY} is set: any server is taken for a member"));
    }
    let exposed: Vec<String> = address.exposed().map(Endpoint::to_string).collect();
    (!exposed.is_empty()).then(|| {
        format!(
            "{} can be read and changed on the way: etcds:// is for networks",
            exposed.join(", ")
        )
    })
}

/// How long commands ask.
fn patience(config: &Config) -> Patience {
    Patience { reach: REACH.min(config.settings.lock_timeout), settle: SETTLE }
}

fn client(address: &Address, patience: Patience) -> Result<Client> {
    let credentials = credentials()?;
    let user = credentials.user.clone();
    let wire = Endpoints::new(address, credentials)?;
    Ok(Client::new(Box::new(wire), user, patience))
}

fn credentials() -> Result<Credentials> {
    Credentials::of(|name| ProcessEnvironment.get(name))
}
