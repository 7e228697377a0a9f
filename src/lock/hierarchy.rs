//! The order in which the six locks of the hierarchy are acquired. Other names have no rank and are
//! left to deadlock detection.

use super::edit::RecordEdit;
use super::record::{Record, Token};
use super::request::Requester;
use crate::error::{Error, Kind, Result};
use crate::name::Name;

const RANKS: [(&str, u32); 6] =
    [("state", 1), ("config", 2), ("signals", 3), ("backup", 4), ("temp", 5), ("user", 10)];

fn rank(name: &str) -> Option<u32> {
    RANKS.iter().find(|(ranked, _)| *ranked == name).map(|(_, rank)| *rank)
}

/// The locks that a requester of these must not hold.
fn below(names: &[Name]) -> Vec<&'static str> {
    let Some(highest) = names.iter().filter_map(|name| rank(name.as_str())).min() else {
        return Vec::new();
    };
    let asked = |ranked: &str| names.iter().any(|name| name.as_str() == ranked);
    RANKS
        .iter()
        .filter(|(name, rank)| *rank > highest && !asked(name))
        .map(|(name, _)| *name)
        .collect()
}

/// Refuses a request for a lock above one that the owner holds already, even if it is free: two
/// owners that acquire them in different orders would deadlock some day. A command's locks for
/// itself are exempt: their order follows from the locks of its caller. `held` returns the record
/// of a lock.
pub fn check(
    edits: &[RecordEdit],
    requester: &Requester,
    held: impl Fn(&Name) -> Result<Record>,
) -> Result<()> {
    if requester.owner.is(&requester.process) {
        return Ok(());
    }
    let is_new = |edit: &&RecordEdit| requester.own_grant(&edit.name, &edit.record).is_none();
    let names: Vec<Name> = edits.iter().filter(is_new).map(|edit| edit.name.clone()).collect();
    let mut later: Vec<(Name, Token)> = Vec::new();
    for lower in below(&names) {
        let lower = Name::parse("lock", lower)?;
        let record = held(&lower)?;
        later
            .extend(requester.own_grant(&lower, &record).map(|grant| (lower.clone(), grant.token)));
    }
    let Some((first, token)) = later.first() else { return Ok(()) };
    let first_rank = rank(first.as_str()).unwrap_or_default();
    let Some(asked) =
        names.iter().find(|name| rank(name.as_str()).is_some_and(|rank| rank < first_rank))
    else {
        return Ok(());
    };
    let list = |names: &mut dyn Iterator<Item = &Name>| {
        names.map(Name::as_str).collect::<Vec<_>>().join(",")
    };
    let to_release = list(&mut later.iter().map(|(name, _)| name));
    let all = list(&mut names.iter().chain(later.iter().map(|(name, _)| name)));
    let message = format!(
        "{asked} comes before {first} in the order of locks, and {first} is held already (token \
         {token}); take them at once or {asked} first"
    );
    Err(Error::new(Kind::LockOrder, message)
        .hint_command(format!("lock release {to_release}"), format!("then: lock acquire {all}"))
        .detail("lock", asked.as_str())
        .detail("held", first.as_str())
        .detail("token", token.get()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_the_six_locks_across_requests() {
        let names = |names: &[&str]| {
            names.iter().map(|name| Name::parse("lock", name).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(below(&names(&["backup"])), ["temp", "user"]);
        assert_eq!(below(&names(&["state", "config"])), ["signals", "backup", "temp", "user"]);
        assert_eq!(below(&names(&["user"])), [""; 0]);
        assert_eq!(below(&names(&["deploy"])), [""; 0]);
    }
}
