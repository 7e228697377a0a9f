//! Trees that a power cut may leave of a recording.
//!
//! Assumptions about the file system: a directory operation is atomic (a rename over two
//! directories, too), and one that adds a name is durable once that name's directory is synced; a
//! file's bytes and attributes are durable once it is synced; a symbolic link is as durable as its
//! name. Nothing else is: any part of unsynced changes may survive, in any order (Pillai et al.,
//! "All File Systems Are Not Created Equal", OSDI 2014, call this the weakest abstract persistence
//! model).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::image::{Attributes, Body, Image, Node, TOP};
use super::recorder::{Event, Recording};
use crate::effort::is_exhaustive;

/// Trees with some operations missing of which a moment has all.
const FEW: usize = 24;

/// Surviving part of a file's unsynced bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nothing,
    Zeros,
    Half,
    All,
}

/// Pseudo-random numbers, the same in each run (Steele et al., SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A moment in a recording, between two events.
pub struct Cut<'a> {
    recording: &'a Recording,
    at: usize,
    /// Directory operations that may be undone.
    loose: Vec<usize>,
    files: BTreeMap<Node, File<'a>>,
    directories: BTreeMap<Node, (Attributes, Attributes)>,
}

/// A file's bytes and attributes: the durable ones, and the last written ones.
#[derive(Clone)]
struct File<'a> {
    synced: &'a [u8],
    last: &'a [u8],
    synced_attributes: Attributes,
    attributes: Attributes,
}

impl File<'_> {
    fn is_loose(&self) -> bool {
        self.synced != self.last || self.synced_attributes != self.attributes
    }

    fn parts(&self) -> &'static [Part] {
        match (self.synced == self.last, self.synced_attributes == self.attributes) {
            (true, true) => &[Part::All],
            (true, false) => &[Part::Nothing, Part::All],
            (false, _) => &[Part::Nothing, Part::Zeros, Part::Half, Part::All],
        }
    }

    /// Only added or changed bytes are incomplete; earlier ones stay.
    fn bytes(&self, part: Part) -> Vec<u8> {
        let common = self.synced.iter().zip(self.last).take_while(|(old, new)| old == new).count();
        let changed = self.last.len() - common;
        let mut bytes = self.last.to_vec();
        match part {
            Part::All => {}
            Part::Nothing => bytes = self.synced.to_vec(),
            Part::Zeros => bytes[common..].fill(0),
            Part::Half if self.synced.len() == self.last.len() => {
                bytes[common + changed / 2..].copy_from_slice(&self.synced[common + changed / 2..]);
            }
            Part::Half => bytes.truncate(common + changed / 2),
        }
        bytes
    }
}

/// Possible trees.
pub struct Images {
    /// Each with its digest.
    pub images: Vec<(u64, Image)>,
    /// True if the list is complete.
    pub are_all: bool,
}

/// Distinct trees.
struct Found {
    seen: HashSet<u64>,
    images: Vec<(u64, Image)>,
    are_all: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { seen: HashSet::new(), images: Vec::new(), are_all: true }
    }
}

impl Found {
    fn keep(&mut self, image: Image) {
        // no file system lets a directory have two names
        if image.is_a_tree() {
            let digest = image.digest();
            if self.seen.insert(digest) {
                self.images.push((digest, image));
            }
        }
    }

    fn finish(self) -> Images {
        Images { images: self.images, are_all: self.are_all }
    }
}

/// Possible contents of one file.
struct Choice<'a> {
    parts: &'a [Part],
    /// Combinations of the files before it.
    before: usize,
}

impl Choice<'_> {
    /// The part for this combination number.
    fn nth(&self, number: usize) -> Part {
        self.parts[number / self.before % self.parts.len()]
    }

    fn first(&self) -> Part {
        self.parts[0]
    }

    fn last(&self) -> Part {
        self.parts[self.parts.len() - 1]
    }
}

impl<'a> Cut<'a> {
    /// The moment before event number `at`.
    pub fn new(recording: &'a Recording, at: usize) -> Self {
        let mut loose: Vec<usize> = Vec::new();
        let (mut files, mut directories) = (BTreeMap::new(), BTreeMap::new());
        for (node, entry) in &recording.image.nodes {
            let attributes = entry.attributes;
            match &entry.body {
                Body::File(bytes) => {
                    let file = File {
                        synced: bytes,
                        last: bytes,
                        synced_attributes: attributes,
                        attributes,
                    };
                    files.insert(*node, file);
                }
                Body::Directory(_) => drop(directories.insert(*node, (attributes, attributes))),
                Body::Link(_) => {}
            }
        }
        for (number, event) in recording.events.iter().take(at).enumerate() {
            match event {
                Event::Named(_) => loose.push(number),
                Event::Filled(node, bytes) => files.get_mut(node).unwrap().last = bytes,
                Event::Marked(node, attributes) => {
                    if let Some(file) = files.get_mut(node) {
                        file.attributes = *attributes;
                    } else if let Some(directory) = directories.get_mut(node) {
                        directory.1 = *attributes;
                    }
                }
                Event::Synced(node) => {
                    if let Some(file) = files.get_mut(node) {
                        (file.synced, file.synced_attributes) = (file.last, file.attributes);
                    } else if let Some(directory) = directories.get_mut(node) {
                        directory.0 = directory.1;
                        loose.retain(|number| {
                            !is_made_durable_by(&recording.events[*number], *node)
                        });
                    }
                }
                Event::Acknowledged => {}
            }
        }
        Self { recording, at, loose, files, directories }
    }

    /// Every possible tree, if those are few. Otherwise the trees with all, nothing, all but one
    /// operation, one operation, or all from some operation on missing, alternating between whole
    /// files and nothing in unsynced ones, and `limit` random trees. Of many such trees the two
    /// halves take turns from moment to moment.
    pub fn images(&self, limit: usize, seed: u64) -> Images {
        let mut chance = Chance(seed);
        let mut found = Found::default();
        let count = self.loose.len();
        if count < 12 {
            for bits in 0..1_u64 << count {
                let bare = self.without(&self.picked(bits));
                let ways = self.ways(&bare);
                if ways > limit || found.images.len() > limit {
                    found.are_all = false;
                    break;
                }
                for number in 0..ways {
                    found.keep(self.filled(&bare, |choice| choice.nth(number)));
                }
            }
        } else {
            found.are_all = false;
        }
        if found.are_all {
            return found.finish();
        }
        let extremes = self.extremes();
        let are_few = extremes.len() <= FEW || is_exhaustive();
        for (number, lost) in extremes.into_iter().enumerate() {
            let has_turn = (number as u64 / 2 + seed).is_multiple_of(2);
            if !are_few && !has_turn && !lost.is_empty() && lost.len() < count {
                continue;
            }
            let bare = self.without(&lost);
            let is_whole = (number as u64 + seed).is_multiple_of(2);
            if is_whole || is_exhaustive() {
                found.keep(self.filled(&bare, |choice| choice.last()));
            }
            if !is_whole || is_exhaustive() {
                found.keep(self.filled(&bare, |choice| choice.first()));
            }
        }
        for number in 0..limit {
            // half of them are near to all or to nothing
            let bits = match number % 4 {
                0 => chance.next() & chance.next() & chance.next(),
                1 => chance.next() | chance.next() | chance.next(),
                _ => chance.next(),
            };
            let bare = self.without(&self.picked(bits));
            found.keep(self.filled(&bare, |choice| choice.nth(chance.next() as usize)));
        }
        found.finish()
    }

    /// The operations with set bits.
    fn picked(&self, bits: u64) -> BTreeSet<usize> {
        let picks =
            self.loose.iter().enumerate().filter(|(place, _)| bits >> (place % 64) & 1 == 1);
        picks.map(|(_, number)| *number).collect()
    }

    fn extremes(&self) -> BTreeSet<BTreeSet<usize>> {
        let loose: BTreeSet<usize> = self.loose.iter().copied().collect();
        let mut extremes = BTreeSet::from([BTreeSet::new(), loose.clone()]);
        for one in &self.loose {
            let alone = BTreeSet::from([*one]);
            extremes.extend([
                &loose - &alone,
                alone,
                loose.range(..one).copied().collect(),
                loose.range(one..).copied().collect(),
            ]);
        }
        extremes
    }

    /// The files of a tree with uncertain content.
    fn open_files(&self, bare: &Image) -> Vec<(Node, &File<'_>)> {
        let files =
            bare.reachable().into_iter().filter_map(|node| Some((node, self.files.get(&node)?)));
        files.filter(|(_, file)| file.is_loose()).collect()
    }

    /// Number of combinations of their contents.
    fn ways(&self, bare: &Image) -> usize {
        let parts = self.open_files(bare).into_iter().map(|(_, file)| file.parts().len());
        parts.fold(1, usize::saturating_mul)
    }

    /// The tree with uncertain files filled by `choose`.
    fn filled(&self, bare: &Image, mut choose: impl FnMut(&mut Choice<'_>) -> Part) -> Image {
        let mut image = bare.clone();
        let mut ways = 1;
        for (node, file) in self.open_files(bare) {
            let parts = file.parts();
            let part = choose(&mut Choice { parts, before: ways });
            ways *= parts.len();
            let entry = image.nodes.get_mut(&node).unwrap();
            entry.body = Body::File(file.bytes(part));
            entry.attributes =
                if part == Part::Nothing { file.synced_attributes } else { file.attributes };
        }
        image
    }

    /// The tree without some operations, with all files as last written.
    fn without(&self, lost: &BTreeSet<usize>) -> Image {
        let mut image = self.recording.image.clone();
        for (number, event) in self.recording.events.iter().take(self.at).enumerate() {
            let Event::Named(namings) = event else { continue };
            if lost.contains(&number) {
                continue;
            }
            for (directory, name, node) in namings {
                let Body::Directory(names) = &mut image.nodes.get_mut(directory).unwrap().body
                else {
                    continue;
                };
                match node {
                    Some(node) => names.insert(name.clone(), *node),
                    None => names.remove(name),
                };
            }
        }
        for (node, file) in &self.files {
            let entry = image.nodes.get_mut(node).unwrap();
            (entry.body, entry.attributes) = (Body::File(file.last.to_vec()), file.attributes);
        }
        for event in self.recording.events.iter().take(self.at) {
            if let Event::Marked(node, attributes) = event
                && let Some(link) =
                    image.nodes.get_mut(node).filter(|entry| matches!(entry.body, Body::Link(_)))
            {
                link.attributes = *attributes;
            }
        }
        for (node, (synced, last)) in &self.directories {
            // with names in it lost, its attributes are lost, too
            let attributes = if lost.is_empty() { *last } else { *synced };
            image.nodes.get_mut(node).unwrap().attributes = attributes;
        }
        image.drop_the_nameless();
        image
    }
}

/// True if the sync of a directory makes an operation durable: one that adds a name in it, or only
/// removes one there.
fn is_made_durable_by(event: &Event, directory: Node) -> bool {
    let Event::Named(namings) = event else { return false };
    let given: Vec<Node> =
        namings.iter().filter(|(_, _, node)| node.is_some()).map(|(parent, ..)| *parent).collect();
    if given.is_empty() {
        return namings.iter().any(|(parent, ..)| *parent == directory);
    }
    given.contains(&directory)
}

/// The moments that cover the trees of all others: before each sync, before each acknowledgement,
/// and at the end.
pub fn moments(recording: &Recording) -> Vec<usize> {
    let ends = |event: &Event| matches!(event, Event::Synced(_) | Event::Acknowledged);
    let events = recording.events.iter().enumerate();
    let mut moments: Vec<usize> =
        events.filter(|(_, event)| ends(event)).map(|(number, _)| number).collect();
    moments.push(recording.events.len());
    moments
}

impl Image {
    fn reachable(&self) -> BTreeSet<Node> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![TOP]);
        while let Some(node) = next.pop() {
            if reached.insert(node)
                && let Body::Directory(names) = &self.nodes[&node].body
            {
                next.extend(names.values());
            }
        }
        reached
    }

    fn is_a_tree(&self) -> bool {
        let mut named = BTreeSet::from([TOP]);
        let is_directory = |node: &&Node| matches!(self.nodes[node].body, Body::Directory(_));
        let names = |body: &Body| match body {
            Body::Directory(names) => names.values().copied().collect(),
            _ => Vec::new(),
        };
        let all: Vec<Node> = self.nodes.values().flat_map(|entry| names(&entry.body)).collect();
        all.iter().filter(is_directory).all(|node| named.insert(*node))
    }

    fn drop_the_nameless(&mut self) {
        let reached = self.reachable();
        self.nodes.retain(|node, _| reached.contains(node));
    }
}
