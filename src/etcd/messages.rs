//! The messages of etcd's API v3 that this program uses, by hand: building needs no protoc. etcd
//! promises that numbers and meanings of fields stay (`api/etcdserverpb/rpc.proto`).

mod leases;
mod transactions;

use bytes::Bytes;

pub use self::leases::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
pub use self::transactions::{
    Compare, Operand, Operation, OperationResult, Relation, RequestOp, ResponseOp, Target,
    TxnRequest, TxnResponse,
};

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
