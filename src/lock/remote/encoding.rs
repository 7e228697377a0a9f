//! The values of keys: grants and waiters as JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tokens::Tokens;
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::KeyValue;
use crate::lock::identity::Identity;
use crate::lock::record::{Grant, Place, Token, Waiter};

/// A grant as its key has it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The key.
    pub key: Bytes,
    /// The lease that it ends with.
    pub lease: i64,
    /// The revision that created it.
    pub created: i64,
    /// The revision that last put it.
    pub put_at: i64,
    /// The random id of the change that put it.
    pub change: String,
    /// The grant. Its token follows from the revision that created the key.
    pub grant: Grant,
}

/// A waiter as its key has it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The key.
    pub key: Bytes,
    /// The lease that it ends with.
    pub lease: i64,
    /// The revision that created it.
    pub created: i64,
    /// The revision that last put it.
    pub put_at: i64,
    /// The waiter. Its ticket is the revision that created the key.
    pub waiter: Waiter,
    /// The process, the owner, and their ancestors: other hosts cannot look them up.
    pub line: Vec<Identity>,
}

#[derive(Serialize, Deserialize)]
struct StoredGrant {
    grant: Value,
    change: String,
}

#[derive(Serialize, Deserialize)]
struct StoredWaiter {
    waiter: Waiter,
    line: Vec<Identity>,
}

/// The value of a grant's key. The token is the key's, and not in it.
pub fn grant_value(grant: &Grant, change: &str) -> Result<Bytes> {
    let mut grant = serde_json::to_value(grant).map_err(unwritable)?;
    if let Some(fields) = grant.as_object_mut() {
        fields.shift_remove("token");
    }
    value(&StoredGrant { grant, change: change.to_owned() })
}

/// The value of a waiter's key.
pub fn waiter_value(waiter: &Waiter, line: &[Identity]) -> Result<Bytes> {
    value(&StoredWaiter { waiter: waiter.clone(), line: line.to_vec() })
}

fn value(stored: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(stored).map(Bytes::from).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("a lock cannot be put on record: {error}"))
}

impl Held {
    /// Reads a key. A value of something else stands for a grant of an unknown owner: the lock may
    /// well be held.
    pub fn of(kv: &KeyValue, tokens: Tokens) -> Option<Self> {
        let token = tokens.at(kv.create_revision)?;
        let (grant, change) = stored_grant(&kv.value, token).unwrap_or_else(|| {
            let key = String::from_utf8_lossy(&kv.key);
            let command = format!("the key {key} has a value that this program cannot read");
            let unknown = Grant::of_unknown_owner(token, String::new(), String::new());
            (Grant { quarantined: None, command, ..unknown }, String::new())
        });
        let (created, put_at) = (kv.create_revision, kv.mod_revision);
        Some(Self { key: kv.key.clone(), lease: kv.lease, created, put_at, change, grant })
    }
}

fn stored_grant(value: &[u8], token: Token) -> Option<(Grant, String)> {
    let StoredGrant { mut grant, change } = serde_json::from_slice(value).ok()?;
    grant.as_object_mut()?.insert("token".to_owned(), token.get().into());
    Some((serde_json::from_value(grant).ok()?, change))
}

impl Waiting {
    /// Reads a key; `None` if it has the value of something else, or no waiter's lease ends it.
    pub fn of(kv: &KeyValue) -> Option<Self> {
        if kv.lease == 0 {
            return None;
        }
        let StoredWaiter { waiter, line } = serde_json::from_slice(&kv.value).ok()?;
        let ticket = u64::try_from(kv.create_revision).ok()?;
        let size = u32::try_from(kv.value.len()).unwrap_or(u32::MAX);
        Some(Self {
            key: kv.key.clone(),
            lease: kv.lease,
            created: kv.create_revision,
            put_at: kv.mod_revision,
            waiter: Waiter { place: Place::File { ticket, size }, ..waiter },
            line,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::queue::tests;
    use crate::lock::record::Mode;

    #[test]
    fn a_grant_and_a_waiter_are_read_as_they_were_put() {
        let metadata = Some(serde_json::json!({"n": 1.5, "$serde_json::private::Number": "x"}));
        let grant = Grant { metadata, ttl: Some(30.0), ..tests::grant(1, Mode::Shared, 7) };
        let value = grant_value(&grant, "c").unwrap();
        assert!(!String::from_utf8_lossy(&value).contains("token"));
        let kv = KeyValue { value, create_revision: 9, lease: 3, ..KeyValue::default() };
        let held = Held::of(&kv, Tokens::default()).unwrap();
        assert_eq!((held.lease, held.change.as_str()), (3, "c"));
        assert_eq!(held.grant, Grant { token: Token::new(9).unwrap(), ..grant });

        let waiter = tests::waiter(Mode::Exclusive, 7);
        let line = vec![waiter.process.clone(), waiter.owner.clone()];
        let value = waiter_value(&waiter, &line).unwrap();
        let kv = KeyValue { value, create_revision: 9, lease: 3, ..KeyValue::default() };
        let waiting = Waiting::of(&kv).unwrap();
        assert_eq!((waiting.line, waiting.waiter.ticket()), (line, Some(9)));
        assert!(Waiting::of(&KeyValue { lease: 0, ..kv }).is_none(), "nothing would end it");
    }

    #[test]
    fn an_unreadable_grant_is_held_and_an_unreadable_waiter_is_none() {
        let kv =
            KeyValue { value: "?".into(), create_revision: 9, lease: 3, ..KeyValue::default() };
        let grant = Held::of(&kv, Tokens::default()).unwrap().grant;
        assert_eq!((grant.owner, grant.mode), (None, Mode::Exclusive));
        assert!(Waiting::of(&kv).is_none());
    }
}
