//! Tokens: the numbers of grants, strictly increasing in one root across release, break, crash and
//! reboot.
//!
//! `.reserved` holds, durably, the number below which tokens may have been handed out, and the
//! boot. `.tokens` holds, for this boot only, the next token and the end of the reservation. It is
//! written under the gate; for a grant it is overwritten in place, by one write, and never synced:
//! a replacement by rename would make ext4 allocate and flush it each time (auto_da_alloc). Both
//! end in a digest, since one flipped bit of a number would repeat tokens. After a reboot, or when
//! `.tokens` is gone, torn or damaged, counting goes on from the reservation's end. So no grant
//! waits for a sync unless a block of `BLOCK` was used up faster than releases and waiters
//! reserve the next one.

use std::time::Instant;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::flock::{FileLock, LockedDir, ShortLock, flock, lock_dir};
use super::gate::{Gate, MIN_GATE_WAIT};
use super::records::{self, Records};
use super::reservation::{Reservation, is_of_previous_boot};
use super::root::LockRoot;
use crate::error::{Error, Kind, Result, quote_path};
use crate::fs::stage::{Durability, is_temporary, temporary};
use crate::fs::{Access, Dir};
use crate::lock::identity::{BootMatch, Namespace};
use crate::lock::layout::{COUNTER, LOCKS, RESERVED};
use crate::lock::record::Token;
use crate::lock::report::EntryStatus;
use crate::{digest, side};

/// Larger than either file.
const LIMIT: u64 = 1024;
/// The purpose of the staged reservation, in its temporary name.
const STAGED: &str = "reserved";
/// Tokens reserved at a time.
const BLOCK: u64 = 1024;
/// The next block is reserved when fewer than this many are left.
const LOW: u64 = 256;

/// The content of `.tokens`. Its numbers are written with all their digits, so that within one boot
/// it always has the same length, and overwriting leaves nothing of the old content.
#[derive(Debug, Serialize, Deserialize)]
struct Counter {
    boot: String,
    #[serde(with = "digits")]
    next: u64,
    /// The first token that is not reserved durably.
    #[serde(with = "digits")]
    end: u64,
}

mod digits {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{number:020}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Counter {
    fn read(records: Records<'_>) -> Result<Option<Self>> {
        let content = records.locks.disk.read(records.dir, COUNTER, LIMIT)?;
        Ok(content.and_then(|content| digest::decode(&content.bytes)))
    }

    fn of_this_boot(records: Records<'_>) -> Result<Option<Self>> {
        let here = Namespace::here()?;
        Ok(Self::read(records)?
            .filter(|counter| here.compare_boot(&counter.boot) == BootMatch::Same))
    }

    fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }
}

fn sealed(record: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = digest::encode(record);
    bytes.ok_or_else(|| Error::new(Kind::Internal, "a counter could not be encoded"))
}

/// Takes the next `count` tokens; `None` if fewer are reserved. The caller then leaves the gate,
/// under which nothing may sync, calls [`reserve`], and starts over.
pub(super) fn take(gate: &Gate<'_>, count: usize) -> Result<Option<Vec<Token>>> {
    let Some(mut counter) = Counter::of_this_boot(gate.records())? else {
        return Ok(None);
    };
    if counter.left() < count as u64 {
        return Ok(None);
    }
    let tokens = (counter.next..).take(count).filter_map(Token::new).collect();
    counter.next += count as u64;
    overwrite(gate, &counter)?;
    Ok(Some(tokens))
}

/// Takes a token for a caller that cannot wait for a reservation. A power cut may lose the fact
/// that an unreserved one was taken.
pub(super) fn take_or_overdraw(gate: &Gate<'_>) -> Result<Token> {
    if let Some(token) = take(gate, 1)?.and_then(|tokens| tokens.first().copied()) {
        return Ok(token);
    }
    let next = highest_known(gate.records())?;
    let end = next.checked_add(1).ok_or_else(|| used_up(gate.records().dir))?;
    let boot = Namespace::here()?.boot.clone();
    gate.replace(COUNTER, &sealed(&Counter { boot, next: end, end })?)?;
    Token::new(next).ok_or_else(|| Error::new(Kind::Internal, "tokens begin at 1"))
}

/// Overwrites a valid counter of this boot.
fn overwrite(gate: &Gate<'_>, counter: &Counter) -> Result<()> {
    let Records { locks, dir } = gate.records();
    let bytes = sealed(counter)?;
    match locks.disk.open(dir, COUNTER, Access::Overwrite) {
        Ok(Some(file)) => Ok(locks.disk.write(&file, &dir.path_of(COUNTER), &bytes)?),
        // A copy made of hard links must not count for its original.
        Ok(None) => gate.replace(COUNTER, &bytes),
        Err(error) if error.is(Errno::MLINK) => gate.replace(COUNTER, &bytes),
        Err(error) => Err(error.into()),
    }
}

/// Reserves the next block if few tokens are left; called where no process waits for the result.
pub(super) fn reserve_ahead(records: Records<'_>, deadline: Instant) {
    let counter = Counter::of_this_boot(records);
    if counter.is_ok_and(|counter| counter.is_none_or(|counter| counter.left() < LOW)) {
        let _ = reserve(records.locks, deadline); // the next request for a token reports the error
    }
}

/// Reserves a block durably. Even a request with no time left waits for other reservations: they
/// hold no lock that it requested.
pub(super) fn reserve(locks: &LockRoot, deadline: Instant) -> Result<()> {
    let deadline = deadline.max(Instant::now() + MIN_GATE_WAIT);
    let locked = lock_dir(locks, ShortLock::Reservation, deadline)?;
    locks.check_refusal()?;
    let dir = &locked.dir;
    let records = Records { locks, dir };
    let counter = Counter::of_this_boot(records)?;
    if counter.as_ref().is_some_and(|counter| counter.left() >= LOW) {
        return Ok(()); // another process did it during the wait
    }
    if is_of_previous_boot(&locks.disk, dir)? {
        // While torn can be distinguished from damaged.
        Gate::enter(locks, deadline)?.remove_all_torn()?;
    }
    let used = highest_known(records)?;
    let end = used.checked_add(BLOCK).ok_or_else(|| used_up(dir))?;
    put_reservation(locks, &locked, end)?;
    let gate = Gate::enter(locks, deadline)?;
    let counter = Counter::of_this_boot(gate.records())?;
    let next = counter.map_or(used, |counter| counter.next).max(1);
    let boot = Namespace::here()?.boot.clone();
    gate.replace(COUNTER, &sealed(&Counter { boot, next, end })?)
}

/// Reserves the tokens below `end`, durably.
fn put_reservation(locks: &LockRoot, locked: &LockedDir, end: u64) -> Result<()> {
    let LockedDir { root, dir, lock } = locked;
    let (name, here) = (temporary(lock.inode(), STAGED), Namespace::here()?);
    let reservation = Reservation { end, boot: here.boot.clone(), machine: here.machine.clone() };
    let staged = locks.disk.stage(dir, &name, &sealed(&reservation)?, Durability::Fsync)?;
    locks.disk.rename(dir.entry(&name), dir.entry(RESERVED))?;
    staged.keep();
    locks.disk.sync_dir(dir)?;
    Ok(locks.disk.sync_dir(root)?) // `.locks` itself may be new
}

/// A number above every token handed out so far; 0 where there is no lock.
pub(super) fn end(locks: &LockRoot) -> Result<u64> {
    let dir = records::open(locks)?;
    dir.map_or(Ok(0), |dir| highest_known(Records { locks, dir: &dir }))
}

/// Lets tokens go on from `end`, durably: lower ones were given out elsewhere.
pub(super) fn raise(locks: &LockRoot, end: u64, deadline: Instant) -> Result<()> {
    let deadline = deadline.max(Instant::now() + MIN_GATE_WAIT);
    let locked = lock_dir(locks, ShortLock::Reservation, deadline)?;
    if highest_known(Records { locks, dir: &locked.dir })? >= end {
        return Ok(());
    }
    put_reservation(locks, &locked, end)?;
    Gate::enter(locks, deadline)?.unlink(COUNTER)
}

/// Returns whether this is the name of a staged reservation.
pub(super) fn is_staged(name: &str) -> bool {
    is_temporary(name) && name.contains(STAGED)
}

/// Forgets what is reserved, so that the next grant needs a reservation, which may be refused.
/// Returns the locks that are held; then nothing was changed.
pub(super) fn forget(locks: &LockRoot, deadline: Instant) -> Result<Vec<String>> {
    let deadline = deadline.max(Instant::now() + MIN_GATE_WAIT);
    let _reservation = lock_dir(locks, ShortLock::Reservation, deadline)?;
    let gate = Gate::enter(locks, deadline)?;
    let held = super::report::list(locks)?;
    let is_held = |status| matches!(status, EntryStatus::Held | EntryStatus::Unknown);
    let held = held.into_iter().filter(|entry| is_held(entry.status));
    let mut names: Vec<String> = held.map(|entry| entry.lock).collect();
    names.dedup();
    if names.is_empty() {
        gate.unlink(COUNTER)?;
    }
    Ok(names)
}

/// Prevents reservations while the result is held; `None` if one is under way.
pub(super) fn block_reservations(locks: &LockRoot) -> Option<FileLock> {
    let root = side::open_root(&locks.disk, &locks.directory).ok()?;
    let dir = records::open(locks).ok()??;
    side::check(&locks.disk, &root, LOCKS, &dir).ok()?; // root would create its file there
    flock(locks, &root, &dir, ShortLock::Reservation, Instant::now()).ok()?
}

/// The error of a root in which no higher token exists. No root gets there by counting: a file with
/// such a number came with a clone, or is wrong.
fn used_up(dir: &Dir) -> Error {
    let path = quote_path(dir.path());
    Error::new(Kind::Internal, format!("all tokens are used up, as {path} has it"))
        .hint_command("lock list", "see which locks are held")
        .hint_shell(
            format!("mv -T {path} {path}.used-up"),
            "once none is held: tokens begin at 1 again",
        )
}

/// A number above every token handed out so far, from all that is known.
fn highest_known(records: Records<'_>) -> Result<u64> {
    let Records { locks, dir } = records;
    let reserved = Reservation::read(&locks.disk, dir)?.map(|reservation| reservation.end);
    let counted = Counter::read(records)?.map(|counter| counter.end);
    let highest = reserved.max(counted).unwrap_or(0);
    if reserved.is_some() && counted.is_some() {
        return Ok(highest.max(1));
    }
    if reserved.is_none() && locks.disk.stat(dir, RESERVED)?.is_some() {
        let path = dir.path_of(RESERVED);
        locks.warn(format!(
            "{} is damaged; tokens go on from the highest that is known",
            path.display()
        ));
    }
    // One of the files is gone or damaged. Either may hold the higher number, so the records are
    // checked too.
    let records = records.valid()?;
    let grants = records.iter().flat_map(|(_, record)| &record.holders);
    Ok(grants.map(|grant| grant.token.get().saturating_add(1)).fold(highest, u64::max).max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BOOT: &str = "11111111-2222-3333-4444-555555555555";

    #[test]
    fn any_bit_flip_in_either_file_is_detected() {
        let counter = sealed(&Counter { boot: BOOT.to_owned(), next: 99, end: 1025 }).unwrap();
        let reservation = Reservation { end: 1025, boot: BOOT.to_owned(), machine: "m".to_owned() };
        let reserved = sealed(&reservation).unwrap();
        assert_eq!(digest::decode::<Counter>(&counter).unwrap().next, 99);
        assert_eq!(Reservation::parse(&reserved), Some(reservation));
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..counter.len() * 8 {
            assert!(digest::decode::<Counter>(&flipped(&counter, bit)).is_none(), "bit {bit}");
        }
        for bit in 0..reserved.len() * 8 {
            assert_eq!(Reservation::parse(&flipped(&reserved, bit)), None, "bit {bit}");
        }
    }

    #[test]
    fn a_partly_written_counter_is_old_new_or_invalid() {
        let bytes = |next| sealed(&Counter { boot: BOOT.to_owned(), next, end: u64::MAX }).unwrap();
        for (old, new) in [(99, 100), (1, u64::MAX), (9, 11)] {
            let (before, after) = (bytes(old), bytes(new));
            assert_eq!(before.len(), after.len());
            for cut in 0..=after.len() {
                let mixed = [&after[..cut], &before[cut..]].concat();
                let next = digest::decode::<Counter>(&mixed).map(|counter| counter.next);
                assert!(
                    next.is_none_or(|next| [old, new].contains(&next)),
                    "{old} and {new} became {next:?}"
                );
            }
        }
    }

    #[test]
    fn reservations_of_earlier_versions_are_read() {
        let reservation = |end, boot: &str, machine: &str| {
            Some(Reservation { end, boot: boot.into(), machine: machine.into() })
        };
        assert_eq!(Reservation::parse(b"1025\n"), reservation(1025, "", ""));
        assert_eq!(Reservation::parse(b"2049 b m\n"), reservation(2049, "b", "m"));
        assert_eq!(Reservation::parse(b"torn"), None);
    }
}
