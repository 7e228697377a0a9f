//! What a power cut may leave of a recording.
//!
//! What is assumed of the file system: a directory operation is atomic (a rename over two directories, too), and one that
//! gives a name is durable once that name's directory was synced; a file's bytes and attributes are durable once it was
//! synced; a symbolic link is as durable as its name. Nothing else is: of what was not synced any part may be there, in any
//! order (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, call this the weakest abstract persistence model).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::image::{Attributes, Body, Image, Node, TOP};
use super::recorder::{Event, Recording};

/// How much of a file's unsynced bytes is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nothing,
    Zeros,
    Half,
    All,
}

/// Random numbers that are the same in each run (Steele et al., SplitMix64).
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

/// A file's bytes and attributes: what is certain of them, and what was last written.
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

    /// What is added or changed is there in part; what was there before stays.
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

/// Trees that may be left.
pub struct Images {
    pub images: Vec<Image>,
    /// Whether these are all of them.
    pub are_all: bool,
}

impl<'a> Cut<'a> {
    /// The moment before the event number `at`.
    pub fn new(recording: &'a Recording, at: usize) -> Self {
        let mut loose: Vec<usize> = Vec::new();
        let (mut files, mut directories) = (BTreeMap::new(), BTreeMap::new());
        for (node, entry) in &recording.image.nodes {
            let attributes = entry.attributes;
            match &entry.body {
                Body::File(bytes) => {
                    let file = File { synced: bytes, last: bytes, synced_attributes: attributes, attributes };
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
                        loose.retain(|number| !is_made_durable_by(&recording.events[*number], *node));
                    }
                }
                Event::Acknowledged => {}
            }
        }
        Self { recording, at, loose, files, directories }
    }

    /// Every tree that may be left; or `limit` of them, those nearest to all and to nothing first, then some at random.
    pub fn images(&self, limit: usize, seed: u64) -> Images {
        let mut chance = Chance(seed);
        let (mut seen, mut images) = (HashSet::new(), Vec::new());
        let (subsets, mut are_all) = self.subsets(limit, &mut chance);
        for lost in subsets {
            let bare = self.without(&lost);
            if !bare.is_a_tree() {
                continue; // no file system lets a directory have two names
            }
            let (fillings, all) = self.fillings(&bare, limit, &mut chance);
            are_all &= all;
            for image in fillings {
                if seen.insert(image.digest()) {
                    images.push(image);
                }
            }
            if images.len() >= limit {
                return Images { images, are_all: false };
            }
        }
        Images { images, are_all }
    }

    /// Which directory operations are lost; and whether these are all possible sets.
    fn subsets(&self, limit: usize, chance: &mut Chance) -> (Vec<BTreeSet<usize>>, bool) {
        let loose: BTreeSet<usize> = self.loose.iter().copied().collect();
        let some = |chosen: &[usize]| chosen.iter().copied().collect::<BTreeSet<usize>>();
        let mut subsets = vec![some(&[]), loose.clone()];
        for one in &self.loose {
            subsets.push(some(&[*one]));
            subsets.push(&loose - &some(&[*one]));
            subsets.push(loose.range(..one).copied().collect());
        }
        let is_small = self.loose.len() < 16 && 1 << self.loose.len() <= limit.max(1 << 10);
        if is_small {
            for bits in 0..1_usize << self.loose.len() {
                subsets.push(
                    self.loose.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, n)| *n).collect(),
                );
            }
        } else {
            for number in 0..limit {
                // Every other one is near to all or to nothing.
                let bits = match number % 4 {
                    0 => chance.next() & chance.next() & chance.next(),
                    1 => chance.next() | chance.next() | chance.next(),
                    _ => chance.next(),
                };
                let picks = self.loose.iter().enumerate().filter(|(place, _)| bits >> (place % 64) & 1 == 1);
                subsets.push(picks.map(|(_, number)| *number).collect());
            }
        }
        let mut seen = HashSet::new();
        subsets.retain(|subset| seen.insert(subset.clone()));
        (subsets, is_small)
    }

    /// One tree for each way in which the files that have a name may be filled.
    fn fillings(&self, bare: &Image, limit: usize, chance: &mut Chance) -> (Vec<Image>, bool) {
        let mut loose: Vec<(Node, &File<'_>)> = Vec::new();
        for node in bare.reachable() {
            loose.extend(self.files.get(&node).filter(|file| file.is_loose()).map(|file| (node, file)));
        }
        let count = loose.iter().try_fold(1_usize, |count, (_, file)| count.checked_mul(file.parts().len()));
        let tries = count.unwrap_or(limit).min(limit / 4 + 4);
        let are_all = count == Some(tries);
        let mut images = Vec::new();
        for number in 0..tries {
            let mut image = bare.clone();
            let mut rest = number;
            for (node, file) in &loose {
                let parts = file.parts();
                let part = match (are_all, number) {
                    (true, _) => parts[rest % parts.len()],
                    (false, 0) => parts[0],
                    (false, 1) => Part::All,
                    (false, _) => parts[chance.next() as usize % parts.len()],
                };
                rest /= parts.len();
                let entry = image.nodes.get_mut(node).unwrap();
                entry.body = Body::File(file.bytes(part));
                entry.attributes = if part == Part::Nothing { file.synced_attributes } else { file.attributes };
            }
            images.push(image);
        }
        (images, are_all)
    }

    /// The tree without some operations, with all files as they were last written.
    fn without(&self, lost: &BTreeSet<usize>) -> Image {
        let mut image = self.recording.image.clone();
        for (number, event) in self.recording.events.iter().take(self.at).enumerate() {
            let Event::Named(namings) = event else { continue };
            if lost.contains(&number) {
                continue;
            }
            for (directory, name, node) in namings {
                let Body::Directory(names) = &mut image.nodes.get_mut(directory).unwrap().body else { continue };
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
                && let Some(link) = image.nodes.get_mut(node).filter(|entry| matches!(entry.body, Body::Link(_)))
            {
                link.attributes = *attributes;
            }
        }
        for (node, (synced, last)) in &self.directories {
            // With what was named in it lost, its attributes are lost, too.
            let attributes = if lost.is_empty() { *last } else { *synced };
            image.nodes.get_mut(node).unwrap().attributes = attributes;
        }
        image.drop_the_nameless();
        image
    }
}

/// Whether the sync of a directory makes an operation durable: it gives a name in it, or only takes one away there.
fn is_made_durable_by(event: &Event, directory: Node) -> bool {
    let Event::Named(namings) = event else { return false };
    let given: Vec<Node> = namings.iter().filter(|(_, _, node)| node.is_some()).map(|(parent, ..)| *parent).collect();
    if given.is_empty() {
        return namings.iter().any(|(parent, ..)| *parent == directory);
    }
    given.contains(&directory)
}

/// The moments whose trees include those of all others: before each sync, before each acknowledgement, and at the end.
pub fn moments(recording: &Recording) -> Vec<usize> {
    let ends = |event: &Event| matches!(event, Event::Synced(_) | Event::Acknowledged);
    let events = recording.events.iter().enumerate();
    let mut moments: Vec<usize> = events.filter(|(_, event)| ends(event)).map(|(number, _)| number).collect();
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
