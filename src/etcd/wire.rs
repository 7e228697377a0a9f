//! The seam: one exchange with the cluster, and one stream of messages from it.
//!
//! The network is [`Endpoints`](super::endpoints::Endpoints). Tests put another wire in its place,
//! and let the k-th call fail.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bytes::Bytes;

use super::failure::Failure;

/// A method of etcd's services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Range,
    /// A transaction.
    Txn,
    /// Reads what any member has, even one without a leader.
    TxnOfMember,
    /// Grants a lease.
    LeaseGrant,
    /// Ends a lease.
    LeaseRevoke,
    /// Renews a lease: a stream on which one message asks and one answers.
    LeaseKeepAlive,
    /// Asks how long a lease lasts.
    LeaseTimeToLive,
    /// Watches keys: a stream.
    Watch,
    /// Logs in.
    Authenticate,
    /// The condition of a member.
    Status,
    /// Alarms.
    Alarm,
}

impl Method {
    /// The path of its HTTP request.
    pub fn path(self) -> &'static str {
        match self {
            Self::Range => "/etcdserverpb.KV/Range",
            Self::Txn | Self::TxnOfMember => "/etcdserverpb.KV/Txn",
            Self::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Self::LeaseRevoke => "/etcdserverpb.Lease/LeaseRevoke",
            Self::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Self::LeaseTimeToLive => "/etcdserverpb.Lease/LeaseTimeToLive",
            Self::Watch => "/etcdserverpb.Watch/Watch",
            Self::Authenticate => "/etcdserverpb.Auth/Authenticate",
            Self::Status => "/etcdserverpb.Maintenance/Status",
            Self::Alarm => "/etcdserverpb.Maintenance/Alarm",
        }
    }
}

/// A request.
#[derive(Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The encoded message.
    pub message: Bytes,
    /// More messages of a stream, which are sent at once.
    pub more: Vec<Bytes>,
    /// The token of the login, where there was one.
    pub token: Option<String>,
    /// When to give up.
    pub deadline: Instant,
}

impl fmt::Debug for Call {
    /// Without the message, which may be a password or a document, and without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method).finish_non_exhaustive()
    }
}

/// The connection to a cluster.
pub trait Wire: fmt::Debug {
    /// Sends a request and returns the encoded answer: one attempt.
    fn unary(&self, call: &Call) -> Result<Bytes, Failure>;

    /// Sends the messages of a stream, which stays open.
    fn stream(&self, call: &Call) -> Result<Box<dyn Stream>, Failure>;
}

/// The answers of a stream.
pub trait Stream: fmt::Debug {
    /// The next encoded message; `None` if there was none until `deadline`, or until one of the
    /// descriptors `wake` can be read.
    fn next(
        &mut self,
        deadline: Instant,
        wake: &[BorrowedFd<'_>],
    ) -> Result<Option<Bytes>, Failure>;
}
