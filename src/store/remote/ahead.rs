//! Values that are too large to go with the transaction that needs them.
//!
//! They are put ahead of it under a lease, and the transaction detaches them from that. So they are
//! there if it was carried out, and end with the lease if it was not.

use std::time::Duration;

use bytes::Bytes;

use super::lease::random_lease;
use crate::error::Result;
use crate::etcd::client::Client;
use crate::etcd::failure::Failure;
use crate::etcd::messages::{Compare, RequestOp, TxnRequest};
use crate::etcd::txn::{detach, leased, put_with_lease};

/// How long they last without their transaction.
const LEASE: Duration = Duration::from_secs(600);

/// Values that were put ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    lease: i64,
    keys: Vec<String>,
}

impl Ahead {
    /// Puts each of these by a request of its own, as long as the guard holds; `None` if it does
    /// not.
    pub(super) fn put(
        client: &Client,
        values: impl IntoIterator<Item = (String, Bytes)>,
        guard: Option<&Compare>,
    ) -> Result<Option<Self>> {
        let lease = random_lease()?;
        client.grant(lease, LEASE).map_err(Failure::of_read)?;
        let mut keys = Vec::new();
        for (key, value) in values {
            let request = TxnRequest {
                compare: guard.into_iter().cloned().collect(),
                success: vec![put_with_lease(key.clone(), value, lease)],
                failure: Vec::new(),
            };
            // Without its transaction it is nothing.
            if !client.commit(&request).map_err(Failure::of_read)?.succeeded {
                Self { lease, keys }.take_back(client);
                return Ok(None);
            }
            keys.push(key);
        }
        Ok(Some(Self { lease, keys }))
    }

    /// Removes values of a transaction that was not carried out and never will be.
    pub(super) fn take_back(&self, client: &Client) {
        // If that fails, the lease ends by itself.
        let _ = client.revoke(self.lease);
    }

    /// Holds while they are there and their transaction was not carried out.
    pub(super) fn guards(&self) -> impl Iterator<Item = Compare> + '_ {
        // All end together.
        self.keys.iter().take(1).map(|key| leased(key.clone(), self.lease))
    }

    /// The operations that let them stay.
    pub(super) fn operations(&self) -> impl Iterator<Item = RequestOp> + '_ {
        self.keys.iter().map(|key| detach(key.clone()))
    }
}
