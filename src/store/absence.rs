//! A state file that is gone for a moment: git checkout and some editors unlink it and create it again.

use std::time::{Duration, Instant, SystemTime};

use super::Store;
use super::ground::{Ground, Held};
use super::judge::Health;
use super::order::Purpose;
use crate::error::Result;
use crate::fs::Dir;
use crate::fs::watch::Watch;

/// How long ago the directory must have changed for its file to be waited for, and how long that takes at most.
const MOMENT: Duration = Duration::from_secs(1);

/// Whether commands wait for a state file that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// They wait for a moment, where something happened just now.
    WaitedOut,
    /// It is reported at once.
    Reported,
}

impl Store {
    /// The same store for a command that must not wait for a state file that is gone.
    #[must_use]
    pub fn reporting_absence(self) -> Self {
        Self { absence: Absence::Reported, ..self }
    }

    /// Waits for a state file that is gone, while its directory changed within the last moment and for a moment in all.
    /// The caller holds no lock. True if the file is back.
    pub(super) fn returns(&self) -> Result<bool> {
        if self.absence == Absence::Reported {
            return Ok(false);
        }
        let deadline = Instant::now() + MOMENT;
        let mut watch = Watch::new(&self.settings.directory, &self.settings.file_name);
        loop {
            if self.is_there()? {
                return Ok(true);
            }
            let now = Instant::now();
            match self.left_of_moment()? {
                Some(left) if now < deadline => watch.wait(Some(deadline.min(now + left))),
                _ => return Ok(false),
            }
        }
    }

    fn is_there(&self) -> Result<bool> {
        Ok(self.disk.stat(&Dir::working(), self.path())?.is_some())
    }

    /// How long the last change of the directory is still a moment ago.
    fn left_of_moment(&self) -> Result<Option<Duration>> {
        let Some(stat) = self.disk.stat(&Dir::working(), &self.settings.directory)? else { return Ok(None) };
        let (seconds, nanos) = stat.mtime;
        let since = Duration::new(seconds.try_into().unwrap_or_default(), nanos.try_into().unwrap_or_default());
        let age = self.disk.now().duration_since(SystemTime::UNIX_EPOCH + since).unwrap_or_default();
        Ok(MOMENT.checked_sub(age).filter(|left| !left.is_zero()))
    }

    /// [`Store::undamaged_ground`] for writers, which wait for a file that is gone for a moment.
    pub(super) fn writers_ground(&self, deadline: Instant) -> Result<(Held<'_>, Ground)> {
        let (held, ground) = self.undamaged_ground(Purpose::Write, deadline)?;
        if !matches!(ground.health, Health::Missing) {
            return Ok((held, ground));
        }
        drop(held);
        match self.returns()? {
            true => self.undamaged_ground(Purpose::Write, deadline),
            false => Err(self.refusal(&ground.health, &ground.shelf)),
        }
    }
}
