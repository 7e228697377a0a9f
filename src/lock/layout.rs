//! The names of the files in the directory of locks.

/// The directory of locks, beside the state file.
pub const LOCKS: &str = ".locks";
/// The lock file that every commit takes.
pub const STATE_LOCK: &str = "state.lock";
/// The file with the flock that guards all records.
pub const GATE: &str = ".gate";
/// The file with the flock that guards the reservation of tokens.
pub const RESERVING: &str = ".reserving";
/// The journal of a change of several records.
pub const PENDING: &str = ".pending";
/// The counter of this boot's tokens.
pub const COUNTER: &str = ".tokens";
/// The durable reservation of tokens.
pub const RESERVED: &str = ".reserved";
/// The directory with the queues: a directory for each lock that is waited for.
pub const QUEUES: &str = ".queue";
/// The prefix of the files that keep damaged records.
pub const QUARANTINE: &str = ".torn-";
/// All files that have a fixed name and are not space in reserve.
pub const LOCK_FILES: [&str; 6] = [STATE_LOCK, GATE, PENDING, COUNTER, RESERVED, RESERVING];
