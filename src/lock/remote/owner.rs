//! The lease of an owner: its grants end with it. An owner has one for each time to live.

use std::time::Duration;

use super::{RemoteLocks, new_lease};
use crate::digest::Digest;
use crate::document::seal::to_bytes;
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{KeyValue, RequestOp, TxnRequest};
use crate::etcd::txn::{Keys, put_at, put_with_lease};
use crate::lock::LEASE_TTL;
use crate::lock::identity::{Identity, Namespace};

/// The lease of an owner.
#[derive(Clone, Debug)]
pub(super) struct OwnerLease {
    /// Its id.
    pub id: i64,
    /// How long it lasts after each renewal.
    pub ttl: Duration,
    /// The name of the owner and the time to live.
    pub name: String,
    /// The key that ends with the lease and names it to other commands of the owner.
    pub key: String,
    /// The revision that created the key.
    pub created: i64,
}

/// The id of an owner: the same for all its commands, and no other owner's.
pub(super) fn id_of(owner: &Identity) -> String {
    let Identity { pid, start, namespace } = owner;
    let Namespace { boot, pid_namespace, machine, .. } = &**namespace;
    let text = format!("{pid} {start} {pid_namespace} {boot} {machine}");
    Digest::of(text.as_bytes()).as_str().chars().take(32).collect()
}

/// The name of a lease of an owner.
pub(super) fn name_of(owner: &Identity, ttl: Duration) -> String {
    format!("{}-{}", id_of(owner), ttl.as_millis())
}

/// The time to live of the grants of a request.
pub(super) fn ttl_of(locks: &RemoteLocks, wanted: Option<Duration>) -> Result<Duration> {
    let ttl = wanted.or(locks.env.lease_ttl).unwrap_or(super::TTL);
    if ttl < SHORTEST {
        return Err(too_short(ttl, wanted.is_some()));
    }
    Ok(Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
}

/// The owner's lease, in which `found` is its key, if there is one. A new one is granted where
/// there is none, or the key was put by something else and ends with no lease.
pub(super) fn lease_of(
    locks: &RemoteLocks,
    owner: &Identity,
    command: &str,
    ttl: Duration,
    found: Option<&KeyValue>,
) -> Result<OwnerLease> {
    let name = name_of(owner, ttl);
    let key = locks.keys.owner(&name);
    let of = |kv: &KeyValue, key: String| OwnerLease {
        id: kv.lease,
        ttl,
        name,
        key,
        created: kv.create_revision,
    };
    if let Some(kv) = found.filter(|kv| kv.lease != 0) {
        return Ok(of(kv, key));
    }
    let id = new_lease()?;
    // One that was granted and not acknowledged ends by itself: nothing renews it.
    locks.client.grant(id, ttl).map_err(|failure| failure.of_read())?;
    let value = serde_json::json!({
        "owner": owner, "command": command, "ttl": ttl.as_secs_f64(),
    });
    let read = RequestOp::from(Keys::one(key.clone()).read());
    let claim = TxnRequest {
        compare: vec![put_at(key.clone(), found.map_or(0, |kv| kv.mod_revision))],
        success: vec![
            put_with_lease(key.clone(), to_bytes(&value).unwrap_or_default(), id),
            read.clone(),
        ],
        failure: vec![read],
    };
    let answer = locks.client.commit(&claim).map_err(|failure| failure.of_read())?;
    let kv = answer.ranges().flat_map(|range| range.kvs).next().unwrap_or_default();
    if kv.lease != id {
        let _ = locks.client.revoke(id); // another command of this owner was faster
    }
    Ok(of(&kv, key))
}

/// The shortest time to live: etcd grants none that is shorter.
const SHORTEST: Duration = Duration::from_secs(2);

fn too_short(ttl: Duration, is_option: bool) -> Error {
    let (ttl, least) = (ttl.as_secs_f64(), SHORTEST.as_secs());
    let message = format!("a lease of {ttl} s is too short: {least} s is the least on a cluster");
    let error = Error::new(Kind::Usage, message);
    match is_option {
        true => error.hint_command("lock acquire --help", "see what --ttl means on a cluster"),
        false => error.hint_shell(format!("unset {LEASE_TTL}"), "take the default, 30 s"),
    }
}
