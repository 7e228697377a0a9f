//! Changes in directories, by inotify(7).

use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags as On};

use crate::os::events::Interest;

/// A queue of changes, readable when there is one.
#[derive(Debug)]
pub struct Events(OwnedFd);

/// A watched directory. The same directory has the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(i32);

const NAMES: On = On::MOVED_TO
    .union(On::MOVED_FROM)
    .union(On::CREATE)
    .union(On::DELETE)
    .union(On::MODIFY)
    .union(On::ONLYDIR);
const ITSELF: On = On::MOVE_SELF.union(On::DELETE_SELF);
/// Events of which the names are unknown, or after which there are no more.
const LOST: ReadFlags = ReadFlags::QUEUE_OVERFLOW
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::DELETE_SELF);

impl Events {
    /// An empty queue; an error where the kernel has no more.
    pub fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }

    /// Watches a directory, again where it is watched already.
    pub fn watch(&mut self, dir: &Path, interest: Interest<'_>) -> io::Result<WatchId> {
        let on = match interest {
            Interest::Names(_) => NAMES | ITSELF,
            Interest::NamesAndCloses(_) => NAMES | On::CLOSE_WRITE,
            Interest::Itself => ITSELF | On::MASK_ADD | On::ONLYDIR,
        };
        Ok(WatchId(inotify::add_watch(&self.0, dir, on)?))
    }

    /// Drains the queue and returns whether a change matters: those of these names, and where
    /// events were lost or a directory itself moved or disappeared.
    pub fn happened(&mut self, matters: impl Fn(WatchId, &OsStr) -> bool) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut mattered = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(CStr::to_bytes).map(OsStr::from_bytes);
            mattered |= event.events().intersects(LOST)
                || name.is_some_and(|name| matters(WatchId(event.wd()), name));
        }
        mattered
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
