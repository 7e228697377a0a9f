//! What answers a read: the cluster, or for reports of a cluster that does not answer, a member.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{RemoteStore, StaleReads};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{RangeRequest, TxnResponse};
use crate::etcd::txn::{Keys, snapshot};
use crate::store::copies::{BackupCopy, CopyState};

/// How long a command that found the cluster silent asks a member at once.
const CUT_OFF: Duration = Duration::from_secs(5);

/// What answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Most members: the answer is current.
    Cluster,
    /// One member has this, however old it is.
    Member,
}

impl Source {
    /// Reads several ranges at one revision.
    pub(super) fn snapshot(
        self,
        store: &RemoteStore,
        ranges: impl IntoIterator<Item = RangeRequest>,
    ) -> Result<TxnResponse> {
        if self == Self::Cluster {
            return Ok(store.client.snapshot(&snapshot(ranges))?);
        }
        let answer = store.client.snapshot_of_member(ranges)?;
        let header = answer.header.unwrap_or_default();
        store.warn(format!(
            "the cluster does not answer: this is what member {:x} has at its revision {}, and it \
             may be old",
            header.member_id, header.revision
        ));
        Ok(answer)
    }

    /// Reads a key.
    pub(super) fn value(self, store: &RemoteStore, key: String) -> Result<Option<Bytes>> {
        let answer = self.snapshot(store, [Keys::one(key).read()])?;
        Ok(answer.ranges().next().unwrap_or_default().kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Reads one backup. One that could not be read is an error and not an invalid copy.
    pub(super) fn copy(self, store: &RemoteStore, name: &str) -> Result<BackupCopy> {
        Ok(copy_of(name, self.value(store, store.keys.backup(name))?))
    }
}

/// A backup with this text. One that is not there is invalid.
pub(super) fn copy_of(name: &str, text: Option<Bytes>) -> BackupCopy {
    let gone = || CopyState::Invalid("it is gone".to_owned());
    BackupCopy { name: name.to_owned(), state: text.map_or_else(gone, CopyState::of) }
}

/// Reads for a report.
pub(super) fn reporting<T>(store: &RemoteStore, read: impl Fn(Source) -> Result<T>) -> Result<T> {
    if store.cut_off.get().is_some_and(|until| Instant::now() < until) {
        return read(Source::Member);
    }
    match read(Source::Cluster) {
        Err(error) if accepts_old_answers(store, &error) => {
            let Ok(old) = read(Source::Member) else { return Err(error) };
            store.cut_off.set(Some(Instant::now() + CUT_OFF));
            Ok(old)
        }
        read => read,
    }
}

/// Returns whether a reader takes what a member has after this error.
pub(super) fn accepts_old_answers(store: &RemoteStore, error: &Error) -> bool {
    error.kind == Kind::Unreachable && store.surroundings.stale_reads == StaleReads::Accept
}
