//! The messages of etcd's API v3 that this program uses, by hand: building needs no protoc. etcd
//! promises that numbers and meanings of fields stay (`api/etcdserverpb/rpc.proto`).

use bytes::Bytes;

/// What each answer says of the member that gave it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Header {
    /// The cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The member.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// The revision of the store when the request was carried out.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    /// The term of the member's leader.
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

/// A key as it stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The store's revision when the key was created; 0 stands for a key that does not exist.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The store's revision when the key was last put.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// The number of puts since the key was created.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease that the key ends with; 0 for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Reads a key, or all keys from `key` up to `range_end`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The key after the last one; empty for a single key.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// The most keys to return; 0 for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// 0 in key order as it comes, 1 ascending, 2 descending.
    #[prost(int32, tag = "5")]
    pub sort_order: i32,
    /// Whether any member may answer with what it has, however old.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    /// Whether values are left out.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    /// Keys that were created later are left out; 0 for none.
    #[prost(int64, tag = "13")]
    pub max_create_revision: i64,
}

/// The keys of a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// The keys.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether there are more than were asked for.
    #[prost(bool, tag = "3")]
    pub more: bool,
    /// The number of keys in the range.
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// Puts a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its new value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// The lease that the key is to end with; 0 for none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// Whether the key keeps its value; then it must exist.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
}

/// A key was put.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
}

/// Deletes a key, or all keys from `key` up to `range_end`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeRequest {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The key after the last one; empty for a single key.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// Keys were deleted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// How many.
    #[prost(int64, tag = "2")]
    pub deleted: i64,
}

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

/// Grants a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseGrantRequest {
    /// How long it lasts after its last renewal, in seconds.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    /// Its number; 0 lets etcd choose.
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// A lease was granted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseGrantResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Its number.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// How long it lasts, in seconds: the election timeout at least.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Ends a lease, and deletes its keys.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseRevokeRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A lease was ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseRevokeResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
}

/// Renews a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseKeepAliveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// A lease was renewed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseKeepAliveResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Its number.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// How long it lasts from now, in seconds; 0 if it does not exist.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Asks how long a lease lasts.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LeaseTimeToLiveRequest {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Whether to list its keys.
    #[prost(bool, tag = "2")]
    pub keys: bool,
}

/// How long a lease lasts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseTimeToLiveResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Its number.
    #[prost(int64, tag = "2")]
    pub id: i64,
    /// The seconds left; -1 if it does not exist.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// Its keys.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub keys: Vec<Bytes>,
}

/// A message to a stream of watches.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {
    /// Opens a watch.
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
}

/// Opens a watch of a key, or of all keys from `key` up to `range_end`, from now on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchCreateRequest {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The key after the last one; empty for a single key.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// A message of a stream of watches.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Whether it says that the watch is open.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// Whether the watch has ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// The reason for the end.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// The changes.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// A change of a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Put or deleted.
    #[prost(enumeration = "EventKind", tag = "1")]
    pub kind: i32,
    /// The key; one that was deleted has only its name and the revision.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum EventKind {
    /// The key was put.
    Put = 0,
    /// The key was deleted, or its lease ended.
    Delete = 1,
}

/// Logs in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuthenticateRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
}

/// Logged in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuthenticateResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// The token that further requests carry.
    #[prost(string, tag = "2")]
    pub token: String,
}

/// The condition of a member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The size of its database in bytes.
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    /// The leader it knows; 0 for none.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// A request without fields: the condition of a member; or the alarms of all members, of any kind.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Everything {}

/// The alarms that are on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlarmResponse {
    /// The member's answer.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// The alarms.
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<AlarmMember>,
}

/// An alarm of a member.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AlarmMember {
    /// The member.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// Its alarm.
    #[prost(enumeration = "Alarm", tag = "2")]
    pub alarm: i32,
}

/// A kind of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Alarm {
    /// None.
    None = 0,
    /// The database reached its quota.
    NoSpace = 1,
    /// A member's data differ from the others'.
    Corrupt = 2,
}
