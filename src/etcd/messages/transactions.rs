//! Transactions.

use bytes::Bytes;

use super::{
    DeleteRangeRequest, DeleteRangeResponse, Header, PutRequest, PutResponse, RangeRequest,
    RangeResponse,
};

/// Whether all its comparisons hold decides which operations a transaction carries out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRequest {
    /// The guards.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// The operations if all guards hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// The operations otherwise.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// The outcome of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Whether all guards held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// The answers to the operations, in their order.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// A guard: `target` of each key from `key` up to `range_end` is in relation `result` to a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// The relation.
    #[prost(enumeration = "Relation", tag = "1")]
    pub result: i32,
    /// The property that is compared.
    #[prost(enumeration = "Target", tag = "2")]
    pub target: i32,
    /// The key, or the first one.
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// The value to compare with; its kind is that of `target`.
    #[prost(oneof = "Operand", tags = "4, 5, 6, 7, 8")]
    pub operand: Option<Operand>,
    /// The key after the last one; empty for a single key.
    #[prost(bytes = "bytes", tag = "64")]
    pub range_end: Bytes,
}

/// A relation of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Relation {
    /// =
    Equal = 0,
    /// >
    Greater = 1,
    /// <
    Less = 2,
    /// ≠
    NotEqual = 3,
}

/// A property of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Target {
    /// The number of puts.
    Version = 0,
    /// The revision that created the key.
    Create = 1,
    /// The revision that last put the key.
    Mod = 2,
    /// The value.
    Value = 3,
    /// The lease.
    Lease = 4,
}

/// The value that a property is compared with.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Operand {
    /// A number of puts.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// A revision.
    #[prost(int64, tag = "5")]
    Create(i64),
    /// A revision.
    #[prost(int64, tag = "6")]
    Mod(i64),
    /// A value.
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// A lease.
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestOp {
    /// The operation.
    #[prost(oneof = "Operation", tags = "1, 2, 3")]
    pub request: Option<Operation>,
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Operation {
    /// Read.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// Put.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// Delete.
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
}

/// The answer to an operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseOp {
    /// The answer.
    #[prost(oneof = "OperationResult", tags = "1, 2, 3")]
    pub response: Option<OperationResult>,
}

/// The answer to an operation of a transaction.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OperationResult {
    /// Read.
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// Put.
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// Deleted.
    #[prost(message, tag = "3")]
    Delete(DeleteRangeResponse),
}
