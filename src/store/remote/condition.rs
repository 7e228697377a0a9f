//! The condition of the cluster, for the doctor.

use super::RemoteStore;
use crate::error::Result;
use crate::etcd::messages::Alarm;

/// The condition of the cluster, as the member that answers knows it.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The member's version.
    pub version: String,
    /// The size of its database in bytes.
    pub database_bytes: u64,
    /// Whether the database takes nothing more.
    pub is_full: bool,
    /// Whether a member's data differs from that of the others.
    pub is_corrupt: bool,
}

impl Condition {
    /// Of the cluster of `store`.
    pub fn of(store: &RemoteStore) -> Result<Self> {
        let status = store.client.status()?;
        let alarms = store.client.alarms()?;
        let has = |kind: Alarm| alarms.iter().any(|member| member.alarm == kind as i32);
        Ok(Self {
            version: status.version,
            database_bytes: u64::try_from(status.db_size).unwrap_or_default(),
            is_full: has(Alarm::NoSpace),
            is_corrupt: has(Alarm::Corrupt),
        })
    }
}
