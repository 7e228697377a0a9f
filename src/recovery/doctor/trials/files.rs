//! Calls on files.

use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::processes::is_reported;
use super::scratch::Scratch;
use super::{ROOT, Run, Trial, Tried, Trouble};
use crate::error::{Error, Result};
use crate::fs::probe::Probe;
use crate::fs::{Access, Dir, Disk, FsError, Locked, SET_MODE};
use crate::os::events::{Events, Interest};

/// What is written.
const BYTES: &[u8] = b"{\"written\": \"by the doctor\"}\n";
/// Files in the scratch directory.
const ONE: &str = "one";
const OTHER: &str = "other";
const SECOND_NAME: &str = "second-name";
const FOLDED: &str = "ONE";

type Attempt = fn(&Disk, &Dir) -> Tried;

impl Run<'_> {
    /// Makes all trials on files in a scratch directory of `place`.
    pub(super) fn try_files(&mut self, place: &'static str) {
        let Ok(Some((parent, _))) = self.open(place) else { return };
        let disk = self.store.disk().clone();
        let made = Scratch::make(&disk, &parent).and_then(|made| {
            Ok(match made {
                Some(made) => {
                    create(&disk, &made.dir)?;
                    Some(made)
                }
                None => None,
            })
        });
        // Where modes cannot be set nothing can be made.
        let has_no_modes = made.as_ref().is_err_and(is_about_modes);
        let test = if has_no_modes { Trial::Modes } else { Trial::Create };
        let mut scratch = None;
        self.answer(test, Some(place), |_| {
            scratch = made?;
            match scratch {
                Some(_) => Ok(()),
                None => Err(Trouble::NotTried("another doctor is at work".to_owned())),
            }
        });
        let Some(scratch) = scratch else { return };
        let dir = &scratch.dir;
        let trials: [(Trial, Attempt); 9] = [
            (Trial::Modes, modes),
            (Trial::Write, write),
            (Trial::Sync, sync),
            (Trial::Link, link),
            (Trial::Rename, rename),
            (Trial::Exchange, exchange),
            (Trial::SyncDirectory, |disk, dir| Ok(disk.sync_dir(dir)?)),
            (Trial::Flock, flock),
            (Trial::Events, events),
        ];
        for (trial, attempt) in trials {
            self.answer(trial, Some(place), |_| attempt(&disk, dir));
        }
        if place == ROOT {
            self.trials.names_fold = disk.stat(dir, FOLDED).ok().map(|found| found.is_some());
        }
    }
}

/// Makes the file for the other trials. Where its mode cannot be set, the error says so.
fn create(disk: &Disk, dir: &Dir) -> Result<()> {
    match disk.create(dir, ONE) {
        Err(error) if disk.stat(dir, ONE)?.is_some() => {
            Err(FsError { operation: SET_MODE, ..error }.into())
        }
        made => Ok(made.map(drop)?),
    }
}

fn is_about_modes(error: &Error) -> bool {
    error.cause::<FsError>().is_some_and(|error| error.operation == SET_MODE)
}

/// Both modes differ from what a umask or a mount option gives to all.
fn modes(disk: &Disk, dir: &Dir) -> Tried {
    for mode in [0o640, 0o600] {
        let was = disk.stat(dir, ONE)?.ok_or_else(vanished)?;
        disk.set_mode(dir, ONE, &was, mode)?;
        let is = disk.stat(dir, ONE)?.map_or(0, |stat| stat.mode);
        if is != mode {
            return Err(Trouble::Lies(format!("mode {mode:04o} was set, and it is {is:04o}")));
        }
    }
    Ok(())
}

fn write(disk: &Disk, dir: &Dir) -> Tried {
    let file = disk.open(dir, ONE, Access::Append)?.ok_or_else(vanished)?;
    disk.write(&file, &dir.path_of(ONE), BYTES)?;
    match disk.read(dir, ONE, BYTES.len() as u64)? {
        Some(content) if content.bytes == BYTES => Ok(()),
        _ => Err(Trouble::Lies("what was written is not what is read".to_owned())),
    }
}

fn sync(disk: &Disk, dir: &Dir) -> Tried {
    let file = disk.open(dir, ONE, Access::Append)?.ok_or_else(vanished)?;
    Ok(disk.sync(&file, &dir.path_of(ONE))?)
}

fn link(disk: &Disk, dir: &Dir) -> Tried {
    disk.link(dir.entry(ONE), dir.entry(SECOND_NAME))?;
    let (one, second) = (disk.stat(dir, ONE)?, disk.stat(dir, SECOND_NAME)?);
    match (one, second) {
        (Some(one), Some(second)) if one.same_file(&second) && one.nlink == 2 => {
            Ok(disk.unlink(dir, SECOND_NAME)?)
        }
        _ => Err(Trouble::Lies("the second name is another file".to_owned())),
    }
}

fn rename(disk: &Disk, dir: &Dir) -> Tried {
    drop(disk.create(dir, OTHER)?);
    let new = disk.stat(dir, OTHER)?.ok_or_else(vanished)?;
    disk.rename(dir.entry(OTHER), dir.entry(ONE))?;
    match disk.stat(dir, ONE)? {
        Some(found) if found.same_file(&new) && disk.stat(dir, OTHER)?.is_none() => Ok(()),
        _ => Err(Trouble::Lies("the old file is still there".to_owned())),
    }
}

/// Of directories, as a restore exchanges them.
fn exchange(disk: &Disk, dir: &Dir) -> Tried {
    for (name, inner) in [("old", "a"), ("new", "b")] {
        disk.make_dir(dir, name)?;
        drop(disk.create(&disk.open_dir(dir, name)?, inner)?);
    }
    disk.exchange(dir.entry("new"), dir.entry("old"))?;
    match disk.stat(dir, "old/b")?.is_some() && disk.stat(dir, "new/a")?.is_some() {
        true => Ok(()),
        false => Err(Trouble::Lies("the names were not exchanged".to_owned())),
    }
}

fn flock(disk: &Disk, dir: &Dir) -> Tried {
    let file = disk.open(dir, ONE, Access::Append)?.ok_or_else(vanished)?;
    let Locked::Yes(held) = disk.lock(file, &dir.path_of(ONE), Duration::ZERO)? else {
        return Err(Trouble::Lies("a new file is locked".to_owned()));
    };
    if disk.probe(dir, ONE)? != Probe::Locked {
        return Err(Trouble::Lies("a second descriptor does not see the flock".to_owned()));
    }
    drop(held);
    match disk.probe(dir, ONE)? {
        Probe::Free => Ok(()),
        _ => Err(Trouble::Lies("the flock outlives its descriptor".to_owned())),
    }
}

fn events(disk: &Disk, dir: &Dir) -> Tried {
    let failed = |source| FsError { operation: "watch", path: dir.path().to_owned(), source };
    let names = [SECOND_NAME.into()];
    let mut events = Events::new().map_err(failed)?;
    events.watch(dir.path(), Interest::Names(&names)).map_err(failed)?;
    drop(disk.create(dir, SECOND_NAME)?);
    is_reported(vec![PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)])
}

fn vanished() -> Trouble {
    Trouble::NotTried("something else removes files of the doctor".to_owned())
}
