//! Why a request failed, and the error that this is to a user.

use std::fmt;

use super::address::Security;
use super::fate::Fate;
use crate::error::{Error, Kind};

/// What to look at where a user may not do something.
const LOGIN: &str = "check ETCDCTL_USER and ETCDCTL_PASSWORD, or ETCDCTL_CERT, and that its role \
                     has readwrite on the prefix";
/// What to look at where TLS fails.
const TLS_FILES: &str = "check ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY; nothing was changed";

/// The scheme that members speak which close such a connection.
fn other_scheme(security: Security) -> &'static str {
    match security {
        Security::Plain => "if its members want TLS, the address begins with etcds://",
        Security::Tls => "if its members speak no TLS, the address begins with etcd://",
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    /// Whether it took effect.
    pub fate: Fate,
    /// The reason.
    pub cause: Cause,
}

/// The reason why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No member could be reached: each endpoint, with what happened there.
    Unreachable(Vec<(String, Obstacle)>),
    /// The connection broke.
    Lost(String),
    /// There was no answer in time.
    TimedOut,
    /// The cluster has no leader, or is about to have another.
    NoLeader(String),
    /// A member cannot answer now.
    Unavailable(String),
    /// User, password, token or role do not allow it.
    Forbidden(String),
    /// The login has expired.
    LoginExpired,
    /// The cluster has no users, so there is no login.
    NoLogin,
    /// The database has reached its quota.
    NoSpace,
    /// The request is over a limit of the cluster.
    TooLarge(String),
    /// Too many requests at once.
    TooManyRequests,
    /// The data of the cluster are damaged.
    CorruptCluster(String),
    /// A lease does not exist, or exists already.
    Lease(LeaseTrouble),
    /// An answer that is not one of etcd 3.4 or later.
    Protocol(String),
}

/// What is wrong with the lease that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseTrouble {
    /// There is none.
    Missing,
    /// There is one already.
    Exists,
}

/// What keeps an endpoint from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Its name, its port or the member did not answer.
    Network(String),
    /// It could not prove its identity, or did not accept this client's certificate.
    Tls(String),
    /// It took a connection of this kind, and closed it without an answer.
    Closed(Security, String),
}

impl Failure {
    /// A failure of a request that was not sent.
    pub fn not_sent(cause: Cause) -> Self {
        Self { fate: Fate::NotSent, cause }
    }

    /// A failure of a request that may have been carried out.
    pub fn unknown(cause: Cause) -> Self {
        Self { fate: Fate::Unknown, cause }
    }

    /// The failure that an answer with a gRPC status is.
    pub fn of_status(status: u32, message: &str) -> Self {
        let (fate, cause) = of_status(status, message);
        Self { fate, cause }
    }

    /// The failure of a read: nothing was changed, whatever became of it.
    #[must_use]
    pub fn of_read(self) -> Self {
        Self { fate: self.fate.min(Fate::Refused), ..self }
    }

    /// Returns whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match &self.cause {
            Cause::Unreachable(obstacles) => {
                !obstacles.iter().all(|(_, obstacle)| matches!(obstacle, Obstacle::Tls(_)))
            }
            Cause::Lost(_)
            | Cause::TimedOut
            | Cause::NoLeader(_)
            | Cause::Unavailable(_)
            | Cause::TooManyRequests => true,
            _ => false,
        }
    }

    /// The kind of a connection that a member took and closed.
    fn closed(&self) -> Option<Security> {
        let Cause::Unreachable(obstacles) = &self.cause else { return None };
        obstacles.iter().find_map(|(_, obstacle)| match obstacle {
            Obstacle::Closed(security, _) => Some(*security),
            _ => None,
        })
    }

    /// The kind of error that it is to a user.
    pub fn kind(&self) -> Kind {
        match &self.cause {
            // Whatever the last attempt met: the change may be there.
            _ if self.fate == Fate::Unknown => Kind::DurabilityUnknown,
            Cause::Unreachable(obstacles)
                if obstacles.iter().any(|(_, obstacle)| matches!(obstacle, Obstacle::Tls(_))) =>
            {
                Kind::Tls
            }
            Cause::Unreachable(_)
            | Cause::Lost(_)
            | Cause::TimedOut
            | Cause::NoLeader(_)
            | Cause::Unavailable(_)
            | Cause::Protocol(_) => Kind::Unreachable,
            Cause::Forbidden(_) | Cause::LoginExpired | Cause::NoLogin => Kind::PermissionDenied,
            Cause::NoSpace => Kind::DiskFull,
            Cause::TooLarge(_) => Kind::TooLarge,
            Cause::TooManyRequests => Kind::ResourceExhausted,
            Cause::CorruptCluster(_) => Kind::Corrupt,
            Cause::Lease(_) => Kind::Io,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(obstacles) => {
                f.write_str("no endpoint of the store can be used: ")?;
                for (i, (endpoint, obstacle)) in obstacles.iter().enumerate() {
                    let separator = if i == 0 { "" } else { "; " };
                    write!(f, "{separator}{endpoint}: {obstacle}")?;
                }
                Ok(())
            }
            Self::Lost(why) => write!(f, "the connection to the store broke: {why}"),
            Self::TimedOut => f.write_str("the store did not answer in time"),
            Self::NoLeader(why) => write!(f, "the store has no leader now: {why}"),
            Self::Unavailable(why) => write!(f, "the store cannot answer now: {why}"),
            Self::Forbidden(why) => write!(f, "the store does not allow it: {why}"),
            Self::LoginExpired => f.write_str("the login to the store has expired"),
            Self::NoLogin => f.write_str("the store has no users"),
            Self::NoSpace => f.write_str("the database of the store has reached its quota"),
            Self::TooLarge(why) => write!(f, "over a limit of the store: {why}"),
            Self::TooManyRequests => f.write_str("the store has too many requests at once"),
            Self::CorruptCluster(why) => {
                write!(f, "the cluster says that its data are damaged: {why}")
            }
            Self::Lease(LeaseTrouble::Missing) => f.write_str("the lease does not exist"),
            Self::Lease(LeaseTrouble::Exists) => f.write_str("the lease exists already"),
            Self::Protocol(what) => write!(f, "not an answer of etcd 3.4 or later: {what}"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(why) | Self::Closed(_, why) => f.write_str(why),
            Self::Tls(why) => write!(f, "TLS: {why}"),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut error = Self::new(failure.kind(), failure.to_string());
        if let Some(security) = failure.closed() {
            error = error.hint_text(other_scheme(security));
        }
        let error = match &failure.cause {
            _ if failure.fate == Fate::Unknown => {
                error.hint_command("state history", "see whether the change is there")
            }
            Cause::NoSpace => error.hint_etcdctl(
                "alarm list",
                "compact and defragment, or raise the quota; then `etcdctl alarm disarm`",
            ),
            Cause::Forbidden(_) | Cause::LoginExpired => error.hint_text(LOGIN),
            Cause::CorruptCluster(_) => {
                error.hint_etcdctl("alarm list", "see which member it is; nothing was changed")
            }
            Cause::TooLarge(_) => {
                error.hint_command("state update 'del(.large)'", "make it smaller")
            }
            _ if failure.kind() == Kind::Tls => error.hint_text(TLS_FILES),
            _ => error.hint_etcdctl(
                "endpoint health",
                "see which members answer; nothing was changed, so this can be repeated",
            ),
        };
        error.caused_by(failure)
    }
}

/// Reads a gRPC status. etcd answers with fixed sentences (`api/v3rpc/rpctypes/error.go`).
fn of_status(status: u32, message: &str) -> (Fate, Cause) {
    use Fate::{Refused, Unknown};
    let text = || message.strip_prefix("etcdserver: ").unwrap_or(message).to_owned();
    let says = |what: &str| message.contains(what);
    match status {
        // Before it is proposed: the member knows no leader.
        _ if says("no leader") => (Refused, Cause::NoLeader(text())),
        _ if says("leader changed") || says("leader failure") => (Unknown, Cause::NoLeader(text())),
        _ if says("space exceeded") => (Refused, Cause::NoSpace),
        _ if says("too many requests") => (Refused, Cause::TooManyRequests),
        _ if says("request is too large") || says("too many operations") => {
            (Refused, Cause::TooLarge(text()))
        }
        _ if says("corrupt") => (Refused, Cause::CorruptCluster(text())),
        _ if says("requested lease not found") => (Refused, Cause::Lease(LeaseTrouble::Missing)),
        _ if says("lease already exists") => (Refused, Cause::Lease(LeaseTrouble::Exists)),
        _ if says("invalid auth token") || says("revision of auth store is old") => {
            (Refused, Cause::LoginExpired)
        }
        _ if says("authentication failed") || says("user name is empty") => {
            (Refused, Cause::Forbidden(text()))
        }
        _ if says("authentication is not enabled") => (Refused, Cause::NoLogin),
        _ if says("permission denied") => (Refused, Cause::Forbidden(text())),
        7 | 16 => (Refused, Cause::Forbidden(text())), // PERMISSION_DENIED, UNAUTHENTICATED
        4 => (Unknown, Cause::TimedOut),               // DEADLINE_EXCEEDED
        14 => (Unknown, Cause::Unavailable(text())),   // UNAVAILABLE
        // RESOURCE_EXHAUSTED by gRPC itself: a message over its limit.
        8 if says("larger than max") => (Refused, Cause::TooLarge(text())),
        15 => (Refused, Cause::CorruptCluster(text())), // DATA_LOSS
        // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, OUT_OF_RANGE,
        // UNIMPLEMENTED: about the request itself.
        3 | 5 | 6 | 9 | 11 | 12 => (Refused, Cause::Protocol(text())),
        _ => (Unknown, Cause::Unavailable(text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_etcd_gives_before_it_applies_proves_that_nothing_happened() {
        let fate = |status, message| Failure::of_status(status, message).fate;
        assert_eq!(fate(14, "etcdserver: no leader"), Fate::Refused);
        assert_eq!(fate(8, "etcdserver: mvcc: database space exceeded"), Fate::Refused);
        for (status, message) in [
            (14, "etcdserver: leader changed"),
            (14, "etcdserver: request timed out"),
            (14, "etcdserver: request timed out, possibly due to previous leader failure"),
            (14, "etcdserver: server stopped"),
            (14, "transport is closing"),
            (2, "raft proposal dropped"),
            (1, "context canceled"),
            (4, "context deadline exceeded"),
            (13, ""),
            (99, ""),
        ] {
            assert_eq!(fate(status, message), Fate::Unknown, "{message}");
        }
    }

    #[test]
    fn causes_have_the_documented_codes() {
        let code = |status, message| Failure::of_status(status, message).kind().code() as u8;
        assert_eq!(code(14, "etcdserver: no leader"), 8);
        assert_eq!(code(14, "etcdserver: request timed out"), 1);
        assert_eq!(code(8, "etcdserver: mvcc: database space exceeded"), 7);
        assert_eq!(code(7, "etcdserver: permission denied"), 6);
        assert_eq!(code(3, "etcdserver: authentication failed, invalid user ID or password"), 6);
        assert_eq!(code(3, "etcdserver: user name is empty"), 6);
        assert_eq!(code(16, "etcdserver: invalid auth token"), 6);
        assert_eq!(code(3, "etcdserver: request is too large"), 4);
        assert_eq!(code(3, "etcdserver: too many operations in txn request"), 4);
        assert_eq!(code(8, "etcdserver: too many requests"), 10);
        assert_eq!(code(15, "etcdserver: corrupt cluster"), 3);
        assert_eq!(code(12, "unknown service etcdserverpb.KV"), 8);
    }

    #[test]
    fn what_was_sent_before_may_be_there_whatever_the_last_attempt_met() {
        let failure = Failure::unknown(Cause::Unreachable(Vec::new()));
        assert_eq!(failure.kind(), Kind::DurabilityUnknown);
    }
}
