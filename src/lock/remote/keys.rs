//! The keys of locks, below the prefix of a store.

use crate::etcd::txn::Keys;
use crate::name::Name;

/// The keys of locks below one prefix.
#[derive(Clone, Debug)]
pub struct LockKeys {
    prefix: String,
}

/// What a key of a lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A grant of this lock.
    Grant(Name),
    /// A place in the queue of this lock.
    Waiter(Name),
}

impl LockKeys {
    /// The keys below `prefix`, which has no slash at its end.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The grant of a lock that has this id. It ends with the lease of its owner.
    pub fn grant(&self, lock: &str, id: &str) -> String {
        format!("{}/hold/{lock}/{id}", self.prefix)
    }

    /// The grants of a lock.
    pub fn grants(&self, lock: &str) -> Keys {
        Keys::below(&self.grant(lock, ""))
    }

    /// The grants of all locks.
    pub fn all_grants(&self) -> Keys {
        Keys::below(&format!("{}/hold/", self.prefix))
    }

    /// The place in the queue of a lock that ends with this lease, which is the waiter's own.
    pub fn waiter(&self, lock: &str, lease: i64) -> String {
        format!("{}/wait/{lock}/{lease:016x}", self.prefix)
    }

    /// The queue of a lock.
    pub fn waiters(&self, lock: &str) -> Keys {
        Keys::below(&format!("{}/wait/{lock}/", self.prefix))
    }

    /// The queues of all locks.
    pub fn all_waiters(&self) -> Keys {
        Keys::below(&format!("{}/wait/", self.prefix))
    }

    /// The lease of an owner: the key that ends with it.
    pub fn owner(&self, id: &str) -> String {
        format!("{}/owner/{id}", self.prefix)
    }

    /// What is added to the tokens of grants.
    pub fn tokens(&self) -> String {
        format!("{}/tokens", self.prefix)
    }

    /// What a key is; `None` if it is none of a lock.
    pub fn parse(&self, key: &[u8]) -> Option<Entry> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        let mut parts = key.strip_prefix('/')?.splitn(3, '/');
        let (kind, lock) = (parts.next()?, Name::parse("lock", parts.next()?).ok()?);
        // What has more parts is of another store.
        parts.next().filter(|id| !id.contains('/'))?;
        match kind {
            "hold" => Some(Entry::Grant(lock)),
            "wait" => Some(Entry::Waiter(lock)),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is() {
        let keys = LockKeys::new("/p/q");
        let deploy = Name::parse("lock", "deploy").unwrap();
        let parse = |key: String| keys.parse(key.as_bytes());
        assert_eq!(parse(keys.grant("deploy", "1f")), Some(Entry::Grant(deploy.clone())));
        assert_eq!(parse(keys.waiter("deploy", 31)), Some(Entry::Waiter(deploy)));
        assert_eq!(keys.waiter("deploy", 31), "/p/q/wait/deploy/000000000000001f");
        for other in [
            "/p/q/hold/deploy",
            "/p/q/hold/deploy/1/meta",
            "/p/q/hold/../x",
            "/p/q/state",
            "/p/hold/deploy/1",
        ] {
            assert_eq!(parse(other.to_owned()), None, "{other}");
        }
    }
}
