//! A directory tree as it may exist on a disk: names, and their nodes. Read from a real directory,
//! written to one.
//!
//! Temporary files are named after the inode of a lock file. That differs in every written copy, so
//! in an image such a name holds the node instead.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pipeline_state::document::seal::{Digest, verified, with_digest};
use pipeline_state::fs::identity::DirId;
use pipeline_state::fs::real::Real;
use pipeline_state::fs::{Dir, Disk, Ops as _};
use pipeline_state::store::layout::{CHECKPOINTS, INTENT, STATE_FILE, WORKSHOP};

/// A file, directory or link, independent of its names.
pub type Node = usize;

/// Type and content of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, Node>),
    Link(OsString),
}

/// Permission bits, and the time of modification if it was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub mode: u32,
    pub mtime: Option<(i64, i64)>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub body: Body,
    pub attributes: Attributes,
}

/// The nodes of a tree, some of which may have no name. Node 0 is the top.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub nodes: BTreeMap<Node, Entry>,
}

pub const TOP: Node = 0;
/// Placeholder for a lock file that does not exist.
const GONE: Node = 999_999_999;
const TEMPORARY: &str = ".pipeline-state-";

impl Image {
    /// Reads a directory; records the node of each inode.
    pub fn read(top: &Path) -> (Self, HashMap<u64, Node>) {
        let (mut image, mut inodes) = (Self::default(), HashMap::new());
        image.read_node(top, &mut inodes);
        (image, inodes)
    }

    fn read_node(&mut self, path: &Path, inodes: &mut HashMap<u64, Node>) -> Node {
        let stat = path.symlink_metadata().unwrap();
        if let Some(node) = inodes.get(&stat.ino()) {
            return *node;
        }
        let node = inodes.len();
        inodes.insert(stat.ino(), node);
        let body = if stat.is_dir() {
            let mut names: Vec<OsString> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            let mut read = |name: OsString| {
                let node = self.read_node(&path.join(&name), inodes);
                (with_node(&name, inodes), node)
            };
            Body::Directory(names.into_iter().map(&mut read).collect())
        } else if stat.is_symlink() {
            Body::Link(fs::read_link(path).unwrap().into())
        } else {
            Body::File(fs::read(path).unwrap())
        };
        // a recent state file could make a reader wait for an editor
        let is_state = path.file_name().is_some_and(|name| name == STATE_FILE);
        let mtime = (!is_state).then_some((stat.mtime(), stat.mtime_nsec()));
        self.nodes.insert(
            node,
            Entry { body, attributes: Attributes { mode: stat.mode() & 0o7777, mtime } },
        );
        node
    }

    /// Equal for two images with the same names and the same sharing of nodes.
    pub fn digest(&self) -> u64 {
        let (mut hasher, mut seen) = (DefaultHasher::new(), HashMap::new());
        self.digest_node(TOP, &mut seen, &mut hasher);
        hasher.finish()
    }

    fn digest_node(&self, node: Node, seen: &mut HashMap<Node, usize>, hasher: &mut DefaultHasher) {
        let number = seen.len();
        let number = *seen.entry(node).or_insert(number);
        number.hash(hasher);
        if number + 1 < seen.len() {
            return;
        }
        let entry = &self.nodes[&node];
        entry.attributes.hash(hasher);
        match &entry.body {
            Body::Directory(names) => {
                for (name, node) in names {
                    name.hash(hasher);
                    self.digest_node(*node, seen, hasher);
                }
            }
            Body::File(bytes) => Digest::of(bytes).as_str().hash(hasher), // optimized code
            Body::Link(target) => target.hash(hasher),
        }
    }

    /// Creates the tree in an empty directory. Nodes without a time are some seconds old, so that
    /// no reader takes them for the work of an editor.
    pub fn write(&self, top: &Path) {
        let old = SystemTime::now() - Duration::from_secs(10);
        Writer { image: self, old, made: HashMap::new() }.directory(TOP, top);
        own_intent(top);
    }

    /// The tree as the next boot finds it: records of this boot refer to an earlier one.
    pub fn left_to_the_next_boot(mut self) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let (boot, earlier) = (boot.trim(), "00000000-0000-4000-8000-000000000000");
        for entry in self.nodes.values_mut() {
            if let Body::File(bytes) = &mut entry.body
                && let Ok(text) = std::str::from_utf8(bytes)
                && text.contains(boot)
            {
                let other = backdated(&text.replace(boot, earlier));
                let resealed = || with_digest(serde_json::from_str(&other).ok()?);
                let resealed = verified(bytes).and_then(|_| resealed());
                *bytes = resealed.unwrap_or_else(|| other.clone().into_bytes());
            }
        }
        self
    }
}

/// The text with all grants and waits a quarter of a century ago, before this boot.
fn backdated(text: &str) -> String {
    let now = pipeline_state::time::rfc3339(SystemTime::now());
    let year = now.split('-').next().unwrap();
    let before = ["since\":\"", "since\": \"", "since\\\":\\\""];
    before.iter().fold(text.to_owned(), |text, before| {
        text.replace(&format!("{before}{year}"), &format!("{before}2001"))
    })
}

/// Rewrites the intent of an interrupted restore or `init --fresh` for this directory: the tree
/// represents the original root, not a copy of it.
pub fn own_intent(top: &Path) {
    let path = top.join(CHECKPOINTS).join(WORKSHOP).join(INTENT);
    let Some(mut intent) = fs::read(&path).ok().and_then(|bytes| verified(&bytes)) else { return };
    let disk = Disk::real();
    let root = DirId::of(&disk, &disk.open_root(top).unwrap()).unwrap().unwrap().to_value();
    for field in ["root", "configRoot"] {
        if let Some(recorded) = intent.get_mut(field).filter(|recorded| !recorded.is_null()) {
            *recorded = root.clone();
        }
    }
    fs::write(path, with_digest(intent).unwrap()).unwrap();
}

struct Writer<'a> {
    image: &'a Image,
    old: SystemTime,
    made: HashMap<Node, PathBuf>,
}

impl Writer<'_> {
    fn directory(&mut self, node: Node, dir: &Path) {
        let Body::Directory(names) = &self.image.nodes[&node].body else {
            panic!("{node} is no directory")
        };
        // lock files come first: see the head of this file
        for (name, node) in names {
            self.entry(*node, &dir.join(with_inode(name, &self.made)));
        }
    }

    fn entry(&mut self, node: Node, path: &Path) {
        if let Some(first) = self.made.get(&node) {
            fs::hard_link(first, path).unwrap();
            return;
        }
        self.made.insert(node, path.to_owned());
        let Entry { body, attributes } = &self.image.nodes[&node];
        match body {
            Body::File(bytes) => {
                fs::write(path, bytes).unwrap();
                let file = File::options().append(true).open(path).unwrap();
                file.set_times(FileTimes::new().set_modified(self.old)).unwrap();
            }
            Body::Link(target) => symlink(target, path).unwrap(),
            Body::Directory(_) => {
                fs::create_dir(path).unwrap();
                self.directory(node, path);
            }
        }
        if !matches!(body, Body::Link(_)) {
            fs::set_permissions(path, Permissions::from_mode(attributes.mode)).unwrap();
        }
        if let Some(mtime) = attributes.mtime {
            Real.set_link_mtime(&Dir::working(), path.as_os_str(), mtime).unwrap();
        }
    }
}

/// The number in a temporary file's name, and the text after it.
fn numbered(name: &OsStr) -> Option<(&str, &str)> {
    let (number, purpose) = name.to_str()?.strip_prefix(TEMPORARY)?.split_once('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some((number, purpose))
}

/// A temporary file's name with the node of its lock file in place of the inode.
pub fn with_node(name: &OsStr, inodes: &HashMap<u64, Node>) -> OsString {
    match numbered(name) {
        Some((inode, purpose)) => {
            let node = inodes.get(&inode.parse().unwrap()).copied().unwrap_or(GONE);
            format!("{TEMPORARY}{node}-{purpose}").into()
        }
        None => name.to_owned(),
    }
}

fn with_inode(name: &OsStr, made: &HashMap<Node, PathBuf>) -> OsString {
    match numbered(name) {
        Some((node, purpose)) => {
            let lock = made.get(&node.parse().unwrap());
            let inode = lock.map_or(GONE as u64, |lock| fs::metadata(lock).unwrap().ino());
            format!("{TEMPORARY}{inode}-{purpose}").into()
        }
        None => name.to_owned(),
    }
}
