//! An owner in JSON output: the same object in every command.

use serde::Serialize;

use crate::journal::Owner;
use crate::user;

/// A process that commands act for, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OwnerView {
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// Its user.
    pub uid: Option<u32>,
    /// The login name of that user.
    pub user: Option<String>,
    /// The name of its machine.
    pub host: String,
    /// The name of its program, never with arguments.
    pub program: Option<String>,
    /// Its start, in clock ticks since boot.
    pub start: Option<u64>,
}

impl OwnerView {
    /// The same with this user, and the user's name.
    #[must_use]
    pub fn of_user(self, uid: Option<u32>) -> Self {
        Self { uid, user: uid.and_then(user::name), ..self }
    }
}

impl From<&Owner> for OwnerView {
    fn from(owner: &Owner) -> Self {
        let Owner { pid, uid, host, program, start } = owner;
        Self {
            pid: *pid,
            host: host.clone(),
            program: Some(program.clone()),
            start: *start,
            ..Self::default()
        }
        .of_user(Some(*uid))
    }
}
