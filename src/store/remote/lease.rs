//! The numbers of leases.

use crate::error::Result;
use crate::store::next_revision::random;

/// A random number for a lease.
pub(super) fn random_lease() -> Result<i64> {
    Ok((i64::from_be_bytes(random()?) & i64::MAX).max(1))
}
