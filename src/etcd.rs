//! A client of an etcd cluster: API v3 by gRPC, from etcd 3.4 on.
//!
//! From the bottom up: [`grpc`] is one exchange on one connection, [`endpoints`] makes a connection
//! to the first member that answers, [`wire`] is the seam at which tests let requests fail, and
//! [`client`] repeats a request until its [`Fate`](fate::Fate) is known.
//!
//! # What callers may rely on
//!
//! 1. A request that failed says whether it may have taken effect. "Not sent" and "refused" are
//!    proofs; where there is no proof the fate is unknown.
//! 2. Only reads, and requests that have no second effect when repeated, are sent again.
//! 3. A member that has lost its leader refuses: every request asks for that (`hasleader`).
//! 4. Nothing is awaited longer than the deadline that the caller gave.

pub mod address;
pub mod client;
mod connection;
pub mod credentials;
pub mod endpoints;
pub mod failure;
pub mod fate;
mod grpc;
pub mod messages;
pub mod txn;
pub mod watch;
pub mod wire;
