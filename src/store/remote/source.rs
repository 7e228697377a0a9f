//! What answers a read: the cluster, or for reports of a cluster that does not answer, a member.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ground::{Ground, copy_of};
use super::{RemoteStore, StaleReads};
use crate::error::{Error, Kind, Result};
use crate::etcd::messages::{RangeRequest, TxnResponse};
use crate::etcd::txn::{Keys, snapshot};
use crate::store::copies::BackupCopy;

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

impl RemoteStore {
    /// Reads several ranges at one revision.
    pub(super) fn snapshot_of(
        &self,
        source: Source,
        ranges: impl IntoIterator<Item = RangeRequest>,
    ) -> Result<TxnResponse> {
        if source == Source::Cluster {
            return Ok(self.client.snapshot(&snapshot(ranges))?);
        }
        let answer = self.client.snapshot_of_member(ranges)?;
        let header = answer.header.unwrap_or_default();
        self.warn_once(format!(
            "the cluster does not answer: this is what member {:x} has at its revision {}, and it \
             may be old",
            header.member_id, header.revision
        ));
        Ok(answer)
    }

    /// Reads a key.
    pub(super) fn value_in(&self, source: Source, key: String) -> Result<Option<Bytes>> {
        let answer = self.snapshot_of(source, [Keys::one(key).read()])?;
        Ok(answer.ranges().next().unwrap_or_default().kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Reads a key of the cluster.
    pub(super) fn value_of(&self, key: String) -> Result<Option<Bytes>> {
        self.value_in(Source::Cluster, key)
    }

    /// Reads one backup. One that could not be read is an error and not an invalid copy.
    pub(super) fn copy_in(&self, source: Source, name: &str) -> Result<BackupCopy> {
        Ok(copy_of(name, self.value_in(source, self.keys.backup(name))?))
    }

    /// What there is, for a report: what a member has, where the cluster does not answer and that
    /// is accepted.
    pub(super) fn observe_to_report(&self) -> Result<Ground<'_>> {
        self.reporting(|source| self.observe_in(source, &[]))
    }

    /// Reads for a report.
    pub(super) fn reporting<T>(&self, read: impl Fn(Source) -> Result<T>) -> Result<T> {
        if self.cut_off.get().is_some_and(|until| Instant::now() < until) {
            return read(Source::Member);
        }
        match read(Source::Cluster) {
            Err(error) if self.accepts_old_answers(&error) => {
                let Ok(old) = read(Source::Member) else { return Err(error) };
                self.cut_off.set(Some(Instant::now() + CUT_OFF));
                Ok(old)
            }
            read => read,
        }
    }

    /// Returns whether a reader takes what a member has after this error.
    pub(super) fn accepts_old_answers(&self, error: &Error) -> bool {
        error.kind == Kind::Unreachable && self.surroundings.stale_reads == StaleReads::Accept
    }
}
