//! Leases.

use bytes::Bytes;

use super::Header;

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
