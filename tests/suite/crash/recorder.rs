//! A seam that makes every call and records its effect on the tree: operations that a power cut may
//! undo.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use pipeline_state::acl::AclKind;
use pipeline_state::fs::real::Real;
use pipeline_state::fs::{Access, At, Dir, Disk, Ops, Stat};

use super::image::{Attributes, Body, Entry, Image, Node, with_node};

/// A name in a directory, and its new node.
pub type Naming = (Node, OsString, Option<Node>);

/// The effects, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// An atomic directory operation: these names get new nodes, or none.
    Named(Vec<Naming>),
    /// A file has these bytes.
    Filled(Node, Vec<u8>),
    /// A node has these attributes.
    Marked(Node, Attributes),
    /// A file or directory was synced.
    Synced(Node),
    /// A step succeeded and was acknowledged.
    Acknowledged,
}

/// The history of a tree.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The tree at the beginning, all of it durable, and the nodes that were created later.
    pub image: Image,
    pub events: Vec<Event>,
    /// Each event in words.
    pub words: Vec<String>,
}

#[derive(Clone)]
pub struct Recorder {
    recording: Rc<RefCell<Recording>>,
    inodes: Rc<RefCell<HashMap<u64, Node>>>,
    blind_to: Option<&'static str>,
    directories: Directories,
}

/// Renames of existing directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directories {
    /// They succeed.
    Movable,
    /// Those of `config/` and `.signals/` fail, as on an overlay's lower layer.
    Merged,
}

impl Directories {
    fn check(self, name: &OsStr) -> io::Result<()> {
        match self {
            Self::Merged if name == "config" || name == ".signals" => {
                Err(rustix::io::Errno::XDEV.into())
            }
            _ => Ok(()),
        }
    }
}

impl Recorder {
    /// Starts a recording of the calls below a directory.
    pub fn of(top: &Path) -> Self {
        let (image, inodes) = Image::read(top);
        let recording = Recording { image, events: Vec::new(), words: Vec::new() };
        Self {
            recording: Rc::new(RefCell::new(recording)),
            inodes: Rc::new(RefCell::new(inodes)),
            blind_to: None,
            directories: Directories::Movable,
        }
    }

    /// Hides such a file from readers of this disk.
    pub fn blind_to(self, name: Option<&'static str>) -> Self {
        Self { blind_to: name, ..self }
    }

    /// Lets directories be renamed, or not.
    pub fn with(self, directories: Directories) -> Self {
        Self { directories, ..self }
    }

    fn hides(&self, name: &OsStr) -> bool {
        self.blind_to.is_some_and(|hidden| name == hidden)
    }

    pub fn disk(&self) -> Disk {
        Disk::new(Rc::new(self.clone()))
    }

    pub fn acknowledge(&self) {
        self.push(Event::Acknowledged, "acknowledged".to_owned());
    }

    pub fn recording(&self) -> Recording {
        self.recording.borrow().clone()
    }

    fn push(&self, event: Event, words: String) {
        let mut recording = self.recording.borrow_mut();
        recording.events.push(event);
        recording.words.push(words);
    }

    fn node(&self, stat: &Stat) -> Node {
        *self.inodes.borrow().get(&stat.ino).unwrap_or_else(|| panic!("an unknown inode: {stat:?}"))
    }

    fn node_at(&self, dir: &Dir, name: &OsStr) -> Option<Node> {
        Real.stat(dir, name).ok().map(|stat| self.node(&stat))
    }

    fn node_of(&self, file: BorrowedFd<'_>) -> Node {
        let inode = rustix::fs::fstat(file).unwrap().st_ino;
        *self.inodes.borrow().get(&inode).unwrap_or_else(|| panic!("an unknown inode: {inode}"))
    }

    /// A directory and a name in it; of a path, those of its last component.
    fn place(&self, dir: &Dir, name: &OsStr) -> (Node, OsString) {
        let path = Path::new(name);
        let (parent, name) = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => {
                (self.node_at(dir, parent.as_os_str()).unwrap(), path.file_name().unwrap())
            }
            None => (self.node(&Real.stat(dir, OsStr::new(".")).unwrap()), name),
        };
        (parent, with_node(name, &self.inodes.borrow()))
    }

    /// Records a node that was just created under this name.
    fn made(&self, dir: &Dir, name: &OsStr, body: Body) -> io::Result<Node> {
        let stat = Real.stat(dir, name)?;
        let mut recording = self.recording.borrow_mut();
        let node = recording.image.nodes.len();
        let attributes = Attributes { mode: stat.mode, mtime: None };
        recording.image.nodes.insert(node, Entry { body, attributes });
        self.inodes.borrow_mut().insert(stat.ino, node);
        Ok(node)
    }

    fn names_new(&self, call: &str, dir: &Dir, name: &OsStr, body: Body) -> io::Result<()> {
        let node = self.made(dir, name, body)?;
        let (parent, name) = self.place(dir, name);
        self.push(
            Event::Named(vec![(parent, name.clone(), Some(node))]),
            format!("{call} {name:?}"),
        );
        Ok(())
    }

    fn marks(&self, node: Node, change: impl FnOnce(&mut Attributes)) {
        let mut attributes = {
            let recording = self.recording.borrow();
            let marked = recording.events.iter().rev().find_map(|event| match event {
                Event::Marked(its, attributes) if *its == node => Some(*attributes),
                _ => None,
            });
            marked.unwrap_or(recording.image.nodes[&node].attributes)
        };
        change(&mut attributes);
        self.push(Event::Marked(node, attributes), format!("marks {node}"));
    }
}

impl Ops for Recorder {
    fn open_root(&self, path: &Path) -> io::Result<OwnedFd> {
        Real.open_root(path)
    }

    fn open_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
        Real.open_dir(dir, name)
    }

    fn make_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.make_dir(dir, name)?;
        self.names_new("make_dir", dir, name, Body::Directory(Default::default()))
    }

    fn list(&self, dir: &Dir) -> io::Result<Vec<OsString>> {
        Ok(Real.list(dir)?.into_iter().filter(|name| !self.hides(name)).collect())
    }

    fn stat(&self, dir: &Dir, name: &OsStr) -> io::Result<Stat> {
        Real.stat(dir, name)
    }

    fn open(&self, dir: &Dir, name: &OsStr, access: Access) -> io::Result<File> {
        if access == Access::Read && self.hides(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = Real.open(dir, name, access)?;
        if access == Access::CreateNew {
            self.names_new("create", dir, name, Body::File(Vec::new()))?;
        }
        Ok(file)
    }

    fn fstat(&self, file: &File) -> io::Result<Stat> {
        Real.fstat(file)
    }

    fn read(&self, file: &File, buffer: &mut [u8]) -> io::Result<usize> {
        Real.read(file, buffer)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let count = Real.write(file, bytes)?;
        let node = self.node(&Real.fstat(file)?);
        let content = std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        self.push(Event::Filled(node, content), format!("write {node}"));
        Ok(count)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let node = self.node(&Real.fstat(file)?);
        self.push(Event::Synced(node), format!("sync {node}"));
        Ok(())
    }

    fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        let node = self.node(&Real.stat(dir, OsStr::new("."))?);
        self.push(
            Event::Synced(node),
            format!("sync_dir {}", dir.path().file_name().unwrap_or_default().display()),
        );
        Ok(())
    }

    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        Real.link(from, to)?;
        let (parent, name) = self.place(to.dir, to.name);
        self.push(
            Event::Named(vec![(parent, name.clone(), self.node_at(to.dir, to.name))]),
            format!("link {name:?}"),
        );
        Ok(())
    }

    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        self.directories.check(from.name)?;
        Real.rename(from, to)?;
        let ((old_parent, old_name), (parent, name)) =
            (self.place(from.dir, from.name), self.place(to.dir, to.name));
        let words = format!("rename {old_name:?} {name:?}");
        let node = self.node_at(to.dir, to.name);
        self.push(Event::Named(vec![(old_parent, old_name, None), (parent, name, node)]), words);
        Ok(())
    }

    fn unlink(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.unlink(dir, name)?;
        let (parent, name) = self.place(dir, name);
        self.push(Event::Named(vec![(parent, name.clone(), None)]), format!("unlink {name:?}"));
        Ok(())
    }

    fn remove_dir(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.remove_dir(dir, name)?;
        let (parent, name) = self.place(dir, name);
        self.push(Event::Named(vec![(parent, name.clone(), None)]), format!("remove_dir {name:?}"));
        Ok(())
    }

    fn exchange(&self, one: At<'_>, other: At<'_>) -> io::Result<()> {
        self.directories.check(other.name)?;
        Real.exchange(one, other)?;
        let naming = |at: At<'_>| {
            let (parent, entry) = self.place(at.dir, at.name);
            (parent, entry, self.node_at(at.dir, at.name))
        };
        let words = format!("exchange {:?} {:?}", one.name, other.name);
        self.push(Event::Named(vec![naming(one), naming(other)]), words);
        Ok(())
    }

    fn symlink(&self, target: &OsStr, dir: &Dir, name: &OsStr) -> io::Result<()> {
        Real.symlink(target, dir, name)?;
        self.names_new("symlink", dir, name, Body::Link(target.to_owned()))
    }

    fn read_link(&self, dir: &Dir, name: &OsStr) -> io::Result<OsString> {
        Real.read_link(dir, name)
    }

    fn pin(&self, dir: &Dir, name: &OsStr) -> io::Result<File> {
        Real.pin(dir, name)
    }

    fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        Real.set_mode(file, mode)?;
        self.marks(self.node_of(file), |attributes| attributes.mode = mode);
        Ok(())
    }

    fn set_group(&self, file: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
        Real.set_group(file, gid)
    }

    fn set_mtime(&self, file: BorrowedFd<'_>, mtime: (i64, i64)) -> io::Result<()> {
        Real.set_mtime(file, mtime)?;
        self.marks(self.node_of(file), |attributes| attributes.mtime = Some(mtime));
        Ok(())
    }

    fn set_link_mtime(&self, dir: &Dir, name: &OsStr, mtime: (i64, i64)) -> io::Result<()> {
        Real.set_link_mtime(dir, name, mtime)?;
        let Some(node) = self.node_at(dir, name) else { return Ok(()) };
        self.marks(node, |attributes| attributes.mtime = Some(mtime));
        Ok(())
    }

    fn acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<Vec<u8>> {
        Real.acl(file, kind)
    }

    fn set_acl(&self, file: BorrowedFd<'_>, kind: AclKind, acl: &[u8]) -> io::Result<()> {
        Real.set_acl(file, kind, acl)
    }

    fn remove_acl(&self, file: BorrowedFd<'_>, kind: AclKind) -> io::Result<()> {
        Real.remove_acl(file, kind)
    }

    fn lock(&self, file: &File, patience: Duration) -> io::Result<()> {
        Real.lock(file, patience)
    }

    fn try_lock_shared(&self, file: &File) -> io::Result<()> {
        Real.try_lock_shared(file)
    }

    fn now(&self) -> SystemTime {
        Real.now()
    }
}
