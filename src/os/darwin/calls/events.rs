//! Changes in directories, by kqueue(2).
//!
//! A directory reports that a name in it came or went, and a file that it was edited in place. For
//! the second each watched name is opened, too; not more, since a process has 256 descriptors by
//! default.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use rustix::fs::{Mode, OFlags, fstat, open, openat};

use super::process::AT_ONCE;
use crate::os::darwin::seen::Seen;
use crate::os::events::Interest;

/// A queue of changes, readable when there is one.
#[derive(Debug)]
pub struct Events {
    queue: Kqueue,
    watched: Vec<Watched>,
}

/// A watched directory. The same path has the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(usize);

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    dir: OwnedFd,
    identity: (i32, u64),
    names: Names,
    files: Vec<OwnedFd>,
}

/// The changes that matter, of names in a directory.
#[derive(Debug)]
enum Names {
    None,
    All,
    These(Seen),
}

/// `O_EVTONLY`: opened to be watched, which does not keep a volume from being unmounted.
const WATCH_ONLY: OFlags = OFlags::from_bits_retain(0x8000);
/// Changes of a directory's own name.
const ITSELF: FilterFlag =
    FilterFlag::NOTE_DELETE.union(FilterFlag::NOTE_RENAME).union(FilterFlag::NOTE_REVOKE);
const ANY: FilterFlag = ITSELF
    .union(FilterFlag::NOTE_WRITE)
    .union(FilterFlag::NOTE_EXTEND)
    .union(FilterFlag::NOTE_ATTRIB);

impl Events {
    /// An empty queue; an error where the kernel has no more.
    pub fn new() -> io::Result<Self> {
        Ok(Self { queue: Kqueue::new()?, watched: Vec::new() })
    }

    /// Watches a directory, again where it is watched already.
    pub fn watch(&mut self, dir: &Path, interest: Interest<'_>) -> io::Result<WatchId> {
        let flags = WATCH_ONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(dir, flags, Mode::empty())?;
        let stat = fstat(&opened)?;
        let identity = (stat.st_dev, stat.st_ino);
        let names: Option<&[OsString]> = match interest {
            Interest::Itself => None,
            Interest::Names(names) | Interest::NamesAndCloses(names) => Some(names),
        };
        let is_same = |known: &Watched| {
            known.path == dir && matches!(known.names, Names::None) == names.is_none()
        };
        let known = self.watched.iter().position(is_same);
        if let Some(place) = known
            && let Some(watched) = self.watched.get_mut(place)
            && watched.identity == identity
        {
            watched.open_files(&self.queue);
            return Ok(WatchId(place));
        }
        register(&self.queue, opened.as_fd())?;
        let names = match names {
            None => Names::None,
            Some([]) => Names::All,
            Some(names) => Names::These(Seen::of(opened.as_fd(), names)),
        };
        let path = dir.to_owned();
        let mut watched = Watched { path, dir: opened, identity, names, files: Vec::new() };
        watched.open_files(&self.queue);
        let place = known.unwrap_or(self.watched.len());
        match self.watched.get_mut(place) {
            Some(old) => *old = watched,
            None => self.watched.push(watched),
        }
        Ok(WatchId(place))
    }

    /// Drains the queue and returns whether a change matters: those of these names, and where a
    /// directory itself moved or disappeared. A name that the kernel does not say is empty.
    pub fn happened(&mut self, matters: impl Fn(WatchId, &OsStr) -> bool) -> bool {
        let (mut mattered, mut has_event) = (false, false);
        while let Some(event) = self.next() {
            has_event = true;
            let is_of_dir = |watched: &Watched| {
                usize::try_from(watched.dir.as_raw_fd()).is_ok_and(|fd| fd == event.ident())
            };
            mattered |= event.fflags().intersects(ITSELF) && self.watched.iter().any(is_of_dir);
        }
        if !has_event {
            return false;
        }
        for (place, watched) in self.watched.iter_mut().enumerate() {
            let mut are_replaced = false;
            match &mut watched.names {
                Names::None => {}
                Names::All => mattered |= matters(WatchId(place), OsStr::new("")),
                Names::These(seen) => seen.renew(watched.dir.as_fd(), |name| {
                    are_replaced = true;
                    mattered |= matters(WatchId(place), name);
                }),
            }
            if are_replaced {
                watched.open_files(&self.queue);
            }
        }
        mattered
    }

    fn next(&self) -> Option<KEvent> {
        let nothing = FilterFlag::empty();
        let mut event =
            [KEvent::new(0, EventFilter::EVFILT_VNODE, EvFlags::empty(), nothing, 0, 0)];
        let count = self.queue.kevent(&[], &mut event, Some(AT_ONCE)).unwrap_or(0);
        event.into_iter().take(count).next()
    }
}

impl Watched {
    /// Watches the files that have the names now; what they had before is closed.
    fn open_files(&mut self, queue: &Kqueue) {
        let Names::These(seen) = &self.names else { return };
        let flags = WATCH_ONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |name| openat(&self.dir, name, flags, Mode::empty()).ok();
        let files = seen.names().filter_map(open);
        self.files = files.filter(|file| register(queue, file.as_fd()).is_ok()).collect();
    }
}

fn register(queue: &Kqueue, file: BorrowedFd<'_>) -> io::Result<()> {
    let ident = usize::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = EvFlags::EV_ADD | EvFlags::EV_CLEAR;
    let event = KEvent::new(ident, EventFilter::EVFILT_VNODE, flags, ANY, 0, 0);
    queue.kevent(&[event], &mut [], Some(AT_ONCE))?;
    Ok(())
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
