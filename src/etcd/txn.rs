//! Guards and operations of transactions, in the words of the protocol.

use bytes::Bytes;

use super::messages::{
    Compare, DeleteRangeRequest, Operand, Operation, OperationResult, PutRequest, RangeRequest,
    RangeResponse, Relation, RequestOp, Target, TxnRequest, TxnResponse,
};

/// The order in which a range begins with its last key.
const DESCENDING: i32 = 2;

/// A key, or all keys with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    start: Bytes,
    /// Empty for a single key.
    end: Bytes,
}

impl Keys {
    /// One key.
    pub fn one(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: Bytes::new() }
    }

    /// All keys that begin with `prefix`, which is not empty and does not end with a byte 0xff.
    pub fn below(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start: prefix.to_owned().into(), end: end.into() }
    }

    /// The keys from `start` on, up to and without `end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into() }
    }

    /// The first key, and the end of the range.
    pub fn bounds(&self) -> (Bytes, Bytes) {
        (self.start.clone(), self.end.clone())
    }

    /// Reads them.
    pub fn read(&self) -> RangeRequest {
        let (key, range_end) = self.bounds();
        RangeRequest { key, range_end, ..RangeRequest::default() }
    }

    /// Reads the last one.
    pub fn read_last(&self) -> RangeRequest {
        RangeRequest { limit: 1, sort_order: DESCENDING, ..self.read() }
    }

    /// Reads their names.
    pub fn list(&self) -> RangeRequest {
        RangeRequest { keys_only: true, ..self.read() }
    }
}

/// Guards and operations that go into a transaction with others.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Its guards.
    pub compare: Vec<Compare>,
    /// Its operations.
    pub success: Vec<RequestOp>,
}

/// A guard: each of `keys` was created before `revision`. It holds where there are none.
pub fn created_before(keys: &Keys, revision: i64) -> Compare {
    let (key, range_end) = keys.bounds();
    Compare { range_end, ..compare(key, Relation::Less, Operand::Create(revision)) }
}

/// A guard: `key` was created at `revision`, and not deleted since; 0 if it does not exist.
pub fn created_at(key: impl Into<Bytes>, revision: i64) -> Compare {
    compare(key.into(), Relation::Equal, Operand::Create(revision))
}

/// A guard: `key` was last put at `revision`; 0 if it does not exist.
pub fn put_at(key: impl Into<Bytes>, revision: i64) -> Compare {
    compare(key.into(), Relation::Equal, Operand::Mod(revision))
}

/// A guard: `key` is there and ends with this lease.
pub fn leased(key: impl Into<Bytes>, lease: i64) -> Compare {
    compare(key.into(), Relation::Equal, Operand::Lease(lease))
}

/// A guard: there is no `key`.
pub fn absent(key: impl Into<Bytes>) -> Compare {
    compare(key.into(), Relation::Equal, Operand::Version(0))
}

fn compare(key: Bytes, relation: Relation, operand: Operand) -> Compare {
    let target = match operand {
        Operand::Version(_) => Target::Version,
        Operand::Create(_) => Target::Create,
        Operand::Mod(_) => Target::Mod,
        Operand::Value(_) => Target::Value,
        Operand::Lease(_) => Target::Lease,
    };
    Compare {
        result: relation.into(),
        target: target.into(),
        key,
        operand: Some(operand),
        range_end: Bytes::new(),
    }
}

/// Puts `key`.
pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> RequestOp {
    put_with_lease(key, value, 0)
}

/// Puts `key`, which ends with `lease`.
pub fn put_with_lease(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: i64) -> RequestOp {
    let (key, value) = (key.into(), value.into());
    operation(Operation::Put(PutRequest { key, value, lease, ..PutRequest::default() }))
}

/// Detaches `key` from its lease. It keeps its value; where there is none, the transaction fails.
pub fn detach(key: impl Into<Bytes>) -> RequestOp {
    let key = key.into();
    operation(Operation::Put(PutRequest { key, ignore_value: true, ..PutRequest::default() }))
}

/// Deletes keys.
pub fn delete(keys: &Keys) -> RequestOp {
    let (key, range_end) = keys.bounds();
    operation(Operation::Delete(DeleteRangeRequest { key, range_end }))
}

impl From<RangeRequest> for RequestOp {
    fn from(request: RangeRequest) -> Self {
        operation(Operation::Range(request))
    }
}

fn operation(operation: Operation) -> RequestOp {
    RequestOp { request: Some(operation) }
}

/// A transaction that only reads: all its ranges at one revision.
pub fn snapshot(ranges: impl IntoIterator<Item = RangeRequest>) -> TxnRequest {
    let success = ranges.into_iter().map(RequestOp::from).collect();
    TxnRequest { success, ..TxnRequest::default() }
}

impl TxnResponse {
    /// The revision of the store after it.
    pub fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }

    /// The answers to its ranges, in their order.
    pub fn ranges(self) -> impl Iterator<Item = RangeResponse> {
        self.responses.into_iter().filter_map(|answer| match answer.response {
            Some(OperationResult::Range(range)) => Some(range),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_range_up_to_the_next_prefix() {
        assert_eq!(Keys::below("/a/").bounds(), ("/a/".into(), "/a0".into()));
    }
}
