//! The order of a keeper.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::lock::identity::Identity;
use crate::lock::run::OnLost;

/// What a keeper is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The store.
    pub url: String,
    /// The lease.
    pub lease: i64,
    /// How long it lasts after each renewal, in milliseconds.
    pub ttl: u64,
    /// The name of the key that ends with it.
    pub name: String,
    /// The revision that created that key.
    pub created: i64,
    /// The owner.
    pub owner: Identity,
    /// What becomes of it when the lease is lost.
    pub on_lost: OnLost,
    /// The directory that the notes are in; `None` for the one in `/tmp`.
    pub runtime: Option<PathBuf>,
    /// The audit log.
    pub audit_log: PathBuf,
    /// The root: its audit log replaces one that cannot be used.
    pub root: PathBuf,
}
