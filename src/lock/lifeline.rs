//! The names of lifelines: files in `.locks` that prove, by their flock, that a process lives.
//!
//! A process keeps an exclusive flock on its lifeline for as long as a record or a queue names it.
//! The kernel drops the flock when the process ends, however it ends, and any process on the same
//! machine can test it, whatever pid namespace it is in. A lifeline is created, locked and removed
//! only while the gate is held, and it is tested only if it is named.
//!
//! A waiter has one lifeline for all the locks it waits for. It holds what a listing says of the
//! waiter; the names of its files in the queues have what decides (`queue_entry`).
//!
//! A root is data: a record may come with a clone or an archive. So a lifeline's name has one of
//! three forms, and a record with a name of any other form is damaged. Nothing outside `.locks` is
//! ever opened.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::identity::Identity;
use crate::error::{Error, Kind, Result};

/// The prefix of the lifelines of commands that `lock run` started.
pub const COMMAND: &str = ".live-";
/// The prefix of the lifelines of waiters; the rest is the waiter's ID.
pub const WAITER: &str = ".wait-";
/// The prefix of the lifelines of guards; random digits follow.
pub const GUARD: &str = ".guard-";
/// Random bytes in a waiter's ID.
const RANDOM: usize = 8;
/// The longest name. A command's lifeline holds three numbers and a part of the boot's ID.
const LONGEST: usize = 128;

/// The name of a lifeline: one of the three prefixes, then lower-case letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Lifeline(String);

impl Lifeline {
    /// Parses a file name; `None` if it is not the name of a lifeline.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = [COMMAND, WAITER, GUARD].iter().find_map(|prefix| name.strip_prefix(prefix))?;
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = !rest.is_empty() && name.len() <= LONGEST && rest.bytes().all(is_plain);
        is_name.then(|| Self(name.to_owned()))
    }

    /// A new waiter's lifeline, with a random name.
    pub fn random() -> Result<Self> {
        Self::with_random(WAITER)
    }

    /// A new guard's lifeline, with a random name.
    pub fn of_guard() -> Result<Self> {
        Self::with_random(GUARD)
    }

    fn with_random(prefix: &str) -> Result<Self> {
        let mut bytes = [0; RANDOM];
        crate::os::fill_random(&mut bytes).map_err(|errno| {
            Error::new(Kind::Io, format!("the kernel has no random bytes: {errno}"))
        })?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{prefix}{digits}")))
    }

    /// The lifeline of the command that this process of `lock run` starts. Containers that start
    /// together may give their processes the same ids at the same time.
    pub fn of_command(process: &Identity) -> Result<Self> {
        let Identity { pid, start, namespace } = process;
        let boot = namespace.boot.split('-').next().unwrap_or_default();
        let name = format!("{COMMAND}{pid}-{start}-{}-{boot}", namespace.pid_namespace);
        Self::parse(&name).ok_or_else(|| {
            Error::new(Kind::Internal, format!("{name} is not the name of a lifeline"))
        })
    }

    /// The lifeline of the waiter with this ID; `None` if `id` is malformed.
    pub fn of_waiter(id: &str) -> Option<Self> {
        let is_id = id.len() == 2 * RANDOM
            && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(format!("{WAITER}{id}")))
    }

    /// The waiter's ID.
    pub fn id(&self) -> &str {
        self.0.strip_prefix(WAITER).unwrap_or(&self.0)
    }

    /// The file's name in `.locks`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Lifeline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| {
            de::Error::custom(format!("{name:?} is not the name of a process's file"))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_lifeline_name_escapes_the_directory() {
        for bad in [
            "",
            ".live-",
            ".wait-",
            "../x",
            "/etc/passwd",
            ".live-/../../x",
            ".live-../x",
            ".live-a/b",
            ".live-a\0",
            "state.lock",
            ".gate",
            ".wait-A",
            &format!(".wait-{}", "a".repeat(200)),
        ] {
            assert_eq!(Lifeline::parse(bad), None, "{bad:?}");
        }
        assert!(Lifeline::parse(".live-12-345-4026531836-0d1e2f3a").is_some());
    }

    #[test]
    fn a_waiter_id_round_trips() {
        let one = Lifeline::random().unwrap();
        assert_ne!(one, Lifeline::random().unwrap());
        assert_eq!(Lifeline::of_waiter(one.id()), Some(one.clone()));
        assert_eq!(Lifeline::parse(one.as_str()), Some(one));
        for bad in
            ["", "0123456789abcde", "0123456789ABCDEF", "../../0123456789", "0123456789abcdef0"]
        {
            assert_eq!(Lifeline::of_waiter(bad), None, "{bad:?}");
        }
    }
}
