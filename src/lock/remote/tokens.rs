//! Tokens: the revisions that created grants, counted on from what was given out elsewhere.
//!
//! A state that comes from a root brings the number of its tokens. The key `tokens` holds what is
//! added to revisions since, so that tokens of a lock grow wherever the state goes. It only ever
//! grows, and in transactions that put `meta` too: no lock is granted meanwhile.

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::etcd::messages::KeyValue;
use crate::lock::record::Token;

/// What is added to the revision that created a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    added: u64,
}

impl Tokens {
    /// What a key says; nothing is added where there is none.
    pub fn of(found: Option<&KeyValue>) -> Result<Self> {
        let Some(kv) = found else { return Ok(Self::default()) };
        let added = std::str::from_utf8(&kv.value).ok().and_then(|text| text.trim().parse().ok());
        let added = added.ok_or_else(|| {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            Error::new(Kind::Corrupt, format!("the key {key} does not hold a number"))
                .hint_etcdctl(
                    format!("put {key} NUMBER"),
                    "one by which tokens are higher than all that were given out",
                )
                .detail("key", key)
        })?;
        Ok(Self { added })
    }

    /// The token of a grant whose key this revision created.
    pub fn at(self, revision: i64) -> Option<Token> {
        Token::new(u64::try_from(revision).ok()?.saturating_add(self.added))
    }

    /// A number above the tokens of all grants until this revision.
    pub fn end(self, revision: i64) -> u64 {
        u64::try_from(revision).unwrap_or(0).saturating_add(self.added).saturating_add(1)
    }

    /// The same, for grants after this revision with tokens from `end` on.
    pub fn from(self, end: u64, revision: i64) -> Self {
        let added = end.saturating_sub(u64::try_from(revision).unwrap_or(0));
        Self { added: self.added.max(added) }
    }

    /// The value of its key.
    pub fn value(self) -> Bytes {
        self.added.to_string().into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(value: &str) -> KeyValue {
        KeyValue { key: "/p/tokens".into(), value: value.to_owned().into(), ..KeyValue::default() }
    }

    #[test]
    fn tokens_go_on_above_those_given_out_elsewhere() {
        let here = Tokens::default();
        assert_eq!(here.at(9), Token::new(9));
        for (end, revision) in [(1025, 40), (7, 40), (41, 40)] {
            let moved = here.from(end, revision);
            assert_eq!(
                Tokens::of(Some(&key(&moved.value().escape_ascii().to_string()))).unwrap(),
                moved
            );
            assert!(moved.at(revision + 1).unwrap().get() >= end.max(41), "{end} {revision}");
            assert!(moved.end(revision) > moved.at(revision).unwrap().get());
            assert_eq!(moved.from(0, revision), moved, "they never go back");
        }
    }

    #[test]
    fn a_key_without_a_number_is_an_error() {
        for wrong in ["", "-1", "1.5", "x", "99999999999999999999999"] {
            assert_eq!(Tokens::of(Some(&key(wrong))).unwrap_err().kind, Kind::Corrupt, "{wrong}");
        }
    }
}
