//! Fences: grants that a writer needs in order to commit.

use super::record::{Record, Token};
use crate::error::{Error, Kind, Result};
use crate::name::Name;

/// A grant that a writer needs in order to commit: `--fence NAME:TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The lock.
    pub name: Name,
    /// The grant.
    pub token: Token,
}

impl std::str::FromStr for Fence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(Kind::Usage, format!("{text:?} is not a fence: {why}; write LOCK:TOKEN"))
        };
        let (name, token) = text.rsplit_once(':').ok_or_else(|| wrong("there is no colon"))?;
        Ok(Self {
            token: token.parse().map_err(|why: String| wrong(&why))?,
            name: Name::parse("lock", name)?,
        })
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.token)
    }
}

impl Fence {
    /// Refuses the writer unless the grant is on record.
    pub(super) fn check(&self, record: Option<&Record>) -> Result<()> {
        let Self { name, token } = self;
        if record.is_some_and(|record| record.grant(*token).is_some()) {
            return Ok(());
        }
        let message = format!("the grant {self} is no longer on record, so nothing was written");
        let why = format!(
            "see the holder of {name}; acquire it again, read the state again and redo the change"
        );
        Err(Error::new(Kind::Fenced, message)
            .hint_command("lock list", why)
            .detail("lock", name.as_str())
            .detail("token", token.get()))
    }
}
