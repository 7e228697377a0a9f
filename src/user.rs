//! Users: this process's own, their names, and the next step where a file is another user's.

use std::sync::OnceLock;

use nix::unistd::{Uid, User};

use crate::error::Hint;

/// The effective user: files of other users are not trusted. It never changes in this process.
pub fn current() -> u32 {
    static USER: OnceLock<u32> = OnceLock::new();
    *USER.get_or_init(|| rustix::process::geteuid().as_raw())
}

/// The login name of a user id, if the user database has one.
pub fn name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

/// A user for a sentence: `alice (uid 1000)`, or `uid 1000` where no name is known.
pub fn describe(uid: u32) -> String {
    name(uid).map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// A user for a command line such as chown(1): the login name, or `+UID`, which is never taken
/// for a name.
pub fn as_operand(uid: u32) -> String {
    name(uid).unwrap_or_else(|| format!("+{uid}"))
}

/// The next step where a file of another user denies access. A file that root left in a user's
/// directory is given back.
pub fn use_as(uid: u32) -> Hint {
    if uid == 0 { Hint::FilesOfRoot } else { work_as(uid) }
}

/// The next step where everything belongs to another user.
pub fn work_as(uid: u32) -> Hint {
    let name = as_operand(uid);
    let name = name.strip_prefix('+').map_or(name.clone(), |number| format!("'#{number}'"));
    let why = "work as the owner";
    Hint::Shell(format!("sudo -u {name} -s"), why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_shown_by_number() {
        assert_eq!(name(0).as_deref(), Some("root"));
        assert_eq!(describe(0), "root (uid 0)");
        assert_eq!(describe(4_000_000_001), "uid 4000000001");
        assert_eq!(as_operand(4_000_000_001), "+4000000001");
    }
}
