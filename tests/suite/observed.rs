//! A seam for tests: every call is announced to a [`FaultHook`] before it is made, and the hook
//! decides whether it is made, fails, writes only a part, or never happens because the process
//! "died".

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use pipeline_state::acl::AclKind;
use pipeline_state::fs::real::Real;
use pipeline_state::fs::{Access, At, Dir, Ops, Stat};

/// One call, as the hook sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method of [`Ops`].
    pub name: &'static str,
    /// Its path; for a link or rename the destination. Empty where only a descriptor is known.
    pub path: PathBuf,
    /// For a link or rename the source.
    pub from: Option<PathBuf>,
}

impl Call {
    /// Returns whether the call changes anything.
    pub fn changes(&self) -> bool {
        const CHANGES: [&str; 17] = [
            "make_dir",
            "create",
            "write",
            "sync",
            "sync_dir",
            "link",
            "rename",
            "unlink",
            "remove_dir",
            "exchange",
            "symlink",
            "set_mode",
            "set_group",
            "set_mtime",
            "set_link_mtime",
            "set_acl",
            "remove_acl",
        ];
        CHANGES.contains(&self.name)
    }
}

/// The fault that a test injects into a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is made.
    None,
    /// It fails with this error and changes nothing.
    Fails(Errno),
    /// It is made, but the error is reported all the same.
    FailsAfter(Errno),
    /// A write takes only its first byte; any other call is made.
    ShortWrite,
    /// A write takes its first half and fails with this error; any other call fails.
    Torn(Errno),
    /// An exchange, a mode or a lock is reported as done, and is not; any other call is made.
    Ignored,
    /// A lock is only tried, and while another open file has it the hook is called again, with the
    /// call `blocked`; any other call is made. So a test can choose the next holder without a wait
    /// in the kernel.
    TryLock,
}

/// Decides the fault of each call.
pub type FaultHook = Box<dyn FnMut(&Call) -> Fault>;

/// [`Real`], with a hook before every call.
pub struct Observed {
    hook: RefCell<FaultHook>,
}

impl Observed {
    /// Calls `hook` before each call.
    pub fn new(hook: impl FnMut(&Call) -> Fault + 'static) -> Self {
        Self { hook: RefCell::new(Box::new(hook)) }
    }

    fn call<T>(&self, call: &Call, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let fate = (self.hook.borrow_mut())(call);
        match fate {
            Fault::None | Fault::ShortWrite | Fault::TryLock | Fault::Ignored => make(),
            Fault::Fails(errno) | Fault::Torn(errno) => Err(errno.into()),
            Fault::FailsAfter(errno) => make().and(Err(errno.into())),
        }
    }

    /// A call that has an effect and no result.
    fn effect(&self, call: &Call, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let fate = (self.hook.borrow_mut())(call);
        match fate {
            Fault::Ignored => Ok(()),
            Fault::None | Fault::ShortWrite | Fault::TryLock => make(),
            Fault::Fails(errno) | Fault::Torn(errno) => Err(errno.into()),
            Fault::FailsAfter(errno) => make().and(Err(errno.into())),
        }
    }

    fn on<T>(
        &self,
        name: &'static str,
        dir: &Dir,
        entry: &OsStr,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.call(&Call { name, path: dir.path_of(entry), from: None }, make)
    }

    fn on_file<T>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.call(&Call { name, path: PathBuf::new(), from: None }, make)
    }
}

impl Ops for Observed {
    fn open_root(&self, path: &Path) -> io::Result<OwnedFd> {
        self.on("open_root", &Dir::working(), path.as_os_str(), || Real.open_root(path))
    }

    fn open_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
        self.on("open_dir", dir, name, || Real.open_dir(dir, name))
    }

    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.on("make_dir", dir, name, || Real.make_dir(dir, name))
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<OsString>> {
        self.on("list", dir, OsStr::new(""), || Real.list(dir))
    }

    fn stat(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat> {
        self.on("stat", dir, name, || Real.stat(dir, name))
    }

    fn open(&self, dir: &Dir, name: &OsStr, access: Access) -> io::Result<File> {
        let call = match access {
            Access::Read => "open",
            Access::Append => "open_append",
            Access::Overwrite => "open_overwrite",
            Access::CreateNew => "create",
        };
        self.on(call, dir, name, || Real.open(dir, name, access))
    }

    fn fstat(&self, file: &File) -> io::Result<Stat> {
        self.on_file("fstat", || Real.fstat(file))
    }

    fn read(&self, file: &File, buffer: &mut [u8]) -> io::Result<usize> {
        self.on_file("read", || Real.read(file, buffer))
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let fate =
            (self.hook.borrow_mut())(&Call { name: "write", path: PathBuf::new(), from: None });
        let part = bytes.get(..1).unwrap_or(bytes);
        match fate {
            Fault::None | Fault::TryLock | Fault::Ignored => Real.write(file, bytes),
            Fault::ShortWrite => Real.write(file, part),
            Fault::Fails(errno) => Err(errno.into()),
            Fault::FailsAfter(errno) => Real.write(file, part).and(Err(errno.into())),
            Fault::Torn(errno) => {
                Real.write(file, &bytes[..bytes.len() / 2]).and(Err(errno.into()))
            }
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.on_file("sync", || Real.sync(file))
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        self.on("sync_dir", dir, OsStr::new(""), || Real.sync_dir(dir))
    }

    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        let call = Call { name: "link", path: to.path(), from: Some(from.path()) };
        self.call(&call, || Real.link(from, to))
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        let call = Call { name: "rename", path: to.path(), from: Some(from.path()) };
        self.call(&call, || Real.rename(from, to))
    }

    fn unlink(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.on("unlink", dir, name, || Real.unlink(dir, name))
    }

    fn remove_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.on("remove_dir", dir, name, || Real.remove_dir(dir, name))
    }

    fn exchange(&self, one: At<'_>, other: At<'_>) -> io::Result<()> {
        let call = Call { name: "exchange", path: other.path(), from: Some(one.path()) };
        self.effect(&call, || Real.exchange(one, other))
    }

    fn symlink(&self, target: &OsStr, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.on("symlink", dir, name, || Real.symlink(target, dir, name))
    }

    fn read_link(&self, dir: &Dir, name: &OsStr) -> io::Result<OsString> {
        self.on("read_link", dir, name, || Real.read_link(dir, name))
    }

    fn pin(&self, dir: &Dir, name: &OsStr) -> io::Result<File> {
        self.on("pin", dir, name, || Real.pin(dir, name))
    }

    fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        let call = Call { name: "set_mode", path: PathBuf::new(), from: None };
        self.effect(&call, || Real.set_mode(file, mode))
    }

    fn set_group(&self, file: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
        self.on_file("set_group", || Real.set_group(file, gid))
    }

    fn set_mtime(&self, file: BorrowedFd<'_>, mtime: (i64, i64)) -> io::Result<()> {
        self.on_file("set_mtime", || Real.set_mtime(file, mtime))
    }

    fn set_link_mtime(&self, dir: &Dir, name: &OsStr, mtime: (i64, i64)) -> io::Result<()> {
        self.on("set_link_mtime", dir, name, || Real.set_link_mtime(dir, name, mtime))
    }

    fn acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<Vec<u8>> {
        self.on_file("acl", || Real.acl(file, kind))
    }

    fn set_acl(&self, file: BorrowedFd<'_>, kind: AclKind, acl: &[u8]) -> io::Result<()> {
        self.on_file("set_acl", || Real.set_acl(file, kind, acl))
    }

    fn remove_acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<()> {
        self.on_file("remove_acl", || Real.remove_acl(file, kind))
    }

    fn lock(&self, file: &File, patience: Duration) -> io::Result<()> {
        let mut call = Call { name: "lock", path: PathBuf::new(), from: None };
        loop {
            let fate = (self.hook.borrow_mut())(&call);
            let result = match fate {
                Fault::None | Fault::ShortWrite => return Real.lock(file, patience),
                Fault::Ignored => return Ok(()),
                Fault::TryLock => Real.lock(file, Duration::ZERO),
                Fault::Fails(errno) | Fault::Torn(errno) => return Err(errno.into()),
                Fault::FailsAfter(errno) => {
                    return Real.lock(file, patience).and(Err(errno.into()));
                }
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !patience.is_zero() => {
                    call.name = "blocked"
                }
                result => return result,
            }
        }
    }

    fn try_lock_shared(&self, file: &File) -> io::Result<()> {
        self.on_file("try_lock_shared", || Real.try_lock_shared(file))
    }

    fn now(&self) -> SystemTime {
        Real.now()
    }
}
