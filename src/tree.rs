//! Directory trees: their listings with digests, compared and searched. [`walk`] makes them.

mod walk;

use sha2::{Digest as _, Sha256};

pub use self::walk::{
    Attributes, DEPTH, MODE_BITS, Made, cannot_be_kept, check, copy, copy_what_can_be_kept, dress,
    foreign_owner, is_mount_point, list, list_holding, remove,
};
use crate::acl::Acls;
use crate::clutter::is_below_clutter;
use crate::document::seal::Digest;

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the top, with `/` between names; empty for the top itself.
    pub path: String,
    /// Its type and contents.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// Last modification: seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
    /// Its access control lists.
    pub acls: Acls,
}

/// The type and contents of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File {
        /// Its size.
        bytes: u64,
        /// The digest of its content.
        sha256: Digest,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// The target, unresolved.
        target: String,
    },
}

/// The entries of a tree, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(Vec<Entry>);

impl Listing {
    /// A listing of these entries, given in any order.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self(entries)
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entry of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        let place = self.0.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.0.get(place)
    }

    /// The part below `top`, with paths relative to it; `None` if there is no such entry.
    pub fn below(&self, top: &str) -> Option<Self> {
        self.get(top)?;
        let below = |entry: &Entry| {
            let rest = entry.path.strip_prefix(top)?;
            let path = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
            Some(Entry { path: path.to_owned(), ..entry.clone() })
        };
        Some(Self::new(self.0.iter().filter_map(below).collect()))
    }

    /// The same with paths relative to the parent of `top`.
    #[must_use]
    pub fn under(self, top: &str) -> Vec<Entry> {
        let join =
            |path: &str| if path.is_empty() { top.to_owned() } else { format!("{top}/{path}") };
        self.0.into_iter().map(|entry| Entry { path: join(&entry.path), ..entry }).collect()
    }

    /// A digest of the contents: types, modes, links and digests, but no times. Equal trees have
    /// equal fingerprints.
    pub fn fingerprint(&self) -> Digest {
        let mut hash = Sha256::new();
        for Entry { path, what, mode, acls, .. } in &self.0 {
            let what = match what {
                What::File { sha256, .. } => sha256.as_str(),
                What::Directory => "directory",
                What::Link { target } => target,
            };
            hash.update(format!("{path}\0{mode:o}\0{what}\0"));
            for acl in [&acls.access, &acls.default].into_iter().flatten() {
                hash.update(format!("{acl}\0"));
            }
        }
        Digest::finish(hash)
    }

    /// The directories directly in the one at `path`.
    fn directories_in<'l>(&'l self, path: &str) -> impl Iterator<Item = &'l Entry> + use<'l> {
        let top = if path.is_empty() { String::new() } else { format!("{path}/") };
        let start = self.0.partition_point(|entry| entry.path < top);
        let below = self
            .0
            .iter()
            .skip(start)
            .map_while(move |entry| Some((entry, entry.path.strip_prefix(&top)?)));
        below
            .filter(|(entry, rest)| {
                entry.what == What::Directory && !rest.is_empty() && !rest.contains('/')
            })
            .map(|(entry, _)| entry)
    }

    /// Returns whether there is a file or link below the directory at `path`.
    fn holds_files_in(&self, path: &str) -> bool {
        let top = format!("{path}/");
        let start = self.0.partition_point(|entry| entry.path < top);
        let mut below = self.0.iter().skip(start).take_while(|entry| entry.path.starts_with(&top));
        below.any(|entry| entry.what != What::Directory)
    }

    /// The same without the clutter that `actual` lacks or holds with another content, which no
    /// seal covers.
    pub fn without_lost_clutter(&self, actual: &Self) -> Self {
        let is_kept = |entry: &&Entry| {
            !is_below_clutter(&entry.path)
                || actual.get(&entry.path).is_some_and(|found| found.what == entry.what)
        };
        Self(self.0.iter().filter(is_kept).cloned().collect())
    }

    /// The first difference in contents from `actual`, in words; modes and times do not count.
    /// Neither does clutter, nor the loss of a directory without files: git and archives keep none.
    pub fn first_difference(&self, actual: &Self) -> Option<String> {
        let wrong = self.0.iter().find_map(|entry| {
            let path = &entry.path;
            match actual.get(path).map(|found| &found.what) {
                Some(found) if *found == entry.what => None,
                _ if is_below_clutter(path) => None,
                None if entry.what == What::Directory && !self.holds_files_in(path) => None,
                Some(What::File { .. }) if matches!(entry.what, What::File { .. }) => {
                    Some(format!("{path} is not what it was: its digest is wrong"))
                }
                Some(_) => Some(format!("{path} is not what it was")),
                None => Some(format!("{path} is missing")),
            }
        });
        let is_extra =
            |found: &&Entry| self.get(&found.path).is_none() && !is_below_clutter(&found.path);
        let extra = || actual.0.iter().find(is_extra);
        wrong.or_else(|| extra().map(|found| format!("{} does not belong to it", found.path)))
    }

    /// The entries directly in a directory, by its path; that of the top is empty.
    pub fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Entry> {
        let is_child = move |entry: &&Entry| match entry.path.rsplit_once('/') {
            Some((parent, _)) => parent == path,
            None => path.is_empty() && !entry.path.is_empty(),
        };
        self.0.iter().filter(is_child)
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        let size =
            |entry: &Entry| if let What::File { bytes, .. } = entry.what { bytes } else { 0 };
        self.0.iter().map(size).sum()
    }

    /// The number of files and links.
    pub fn files(&self) -> usize {
        self.0.iter().filter(|entry| entry.what != What::Directory).count()
    }
}
