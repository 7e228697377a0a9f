//! Leaves the queues where a request waits for itself.

use super::ground::Ground;
use super::oracle::ClusterOracle;
use crate::error::Result;
use crate::etcd::client::Client;
use crate::etcd::messages::TxnRequest;
use crate::etcd::txn::{Keys, created_at, delete};
use crate::lock::deadlock::{Cycle, find_cycle, may_close_cycle};
use crate::lock::identity::Identity;
use crate::lock::request::Requester;

/// Refuses a request that waits for itself, in these locks. Of several that find the same cycle one
/// leaves it, and is refused: the others have to be there still.
pub(super) fn leave(
    client: &Client,
    requester: &Requester,
    all: &Ground,
    oracle: &ClusterOracle,
) -> Result<()> {
    let Some(Cycle { error, waiting }) = find(requester, all, oracle) else { return Ok(()) };
    let is_in_it = |process: &Identity| waiting.iter().any(|one| one.is(process));
    let (mut compare, mut success) = (Vec::new(), Vec::new());
    for (_, waiting) in all.all_waiting() {
        if is_in_it(&waiting.waiter.process) {
            compare.push(created_at(waiting.key.clone(), waiting.created));
        }
        if requester.process.is(&waiting.waiter.process) {
            success.push(delete(&Keys::one(waiting.key.clone())));
        }
    }
    let request = TxnRequest { compare, success, failure: Vec::new() };
    match client.commit(&request).map_err(|failure| failure.of_read())?.succeeded {
        true => Err(error),
        false => Ok(()),
    }
}

/// The cycle in which a request waits for itself.
fn find(requester: &Requester, all: &Ground, oracle: &ClusterOracle) -> Option<Cycle> {
    let records = all.all_records();
    let awaited = records.iter().map(|(_, record)| record);
    if !may_close_cycle(requester, awaited.filter(|record| !record.waiters.is_empty())) {
        return None;
    }
    find_cycle(&requester.process, &records, oracle, &mut all.lines())
}
