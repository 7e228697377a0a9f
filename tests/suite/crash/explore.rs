//! Recovery from every tree that a power cut may leave of a job, and from every tree that a second
//! one may leave of that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipeline_state::audit::Audit;
use pipeline_state::document::{Reading, inspect};
use pipeline_state::error::{Kind, Result};
use pipeline_state::fs::Disk;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::{FileStore, Settings};
use pipeline_state::tree::Listing;
use serde_json::json;

use super::image::Image;
use super::power_cut::{Cut, moments};
use super::recorder::{Directories, Event, Recorder, Recording};
use crate::effort::sampled;
use crate::kill::content;
use crate::races::settings_in;
use crate::sandbox::Sandbox;
use crate::snapshots::Whole;
use crate::strace::in_parallel;

pub type Step = fn(&FileStore) -> Result<()>;

/// Consecutive steps, each in a process of its own.
pub struct Job {
    pub name: &'static str,
    pub start: Sandbox,
    pub steps: Vec<Step>,
    /// The refusal of the state before the first step, if any, and its remedy.
    pub refused: (Kind, Step),
    /// Other effects of a step.
    pub facts: fn(&Sandbox, &FileStore) -> Facts,
    pub trees: Trees,
    pub directories: Directories,
    /// Trees examined per moment.
    pub limit: usize,
    /// Recoveries of different shapes that get a second power cut.
    pub shapes: usize,
}

/// Role of `config/` and `.signals/` in the comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trees {
    /// They change together with the state, times of modification included.
    Matter,
    /// They are ignored.
    Pass,
}

/// A deliberate fault in the protocol.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// Rewrites the recording, as if calls were reordered or missing.
    pub rewrite: fn(&mut Recording),
    /// A file that recovery does not see.
    pub blind_to: Option<&'static str>,
}

/// The view of the next command, or a violation.
type Seen = std::result::Result<View, String>;

/// The calls of the next commands, and the view after each.
type Recovery = (Recording, Vec<View>);

impl Mutant {
    /// The protocol as it is.
    pub const NONE: Self = Self { rewrite: |_| {}, blind_to: None };
}

/// Trees examined per moment of a recovery.
const SECOND: usize = 4;

/// Completeness of the search for violations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All trees, with second power cuts.
    All,
    /// Up to the first violation.
    TheFirst,
}

/// Result of a search.
#[derive(Default)]
pub struct Report {
    pub moments: usize,
    pub trees: usize,
    pub second: usize,
    pub sampled: usize,
    pub violations: Vec<String>,
}

/// Files besides the state that must not be lost once a step that made them was acknowledged.
pub type Facts = BTreeSet<String>;

/// A document with its trees, its revision, and its facts; none if the state is refused as
/// expected.
pub type View = Option<(Whole, u64, Facts)>;

pub fn store(root: &Sandbox, disk: &Disk) -> FileStore {
    let (lock_timeout, max_backups) = (Duration::from_secs(5), 3);
    let settings = Settings { lock_timeout, max_backups, ..settings_in(root.path()) };
    FileStore::new(
        disk.clone(),
        settings,
        Audit::new(disk.clone(), root.file("audit.log"), root.path()),
    )
    .reporting_absence()
}

pub fn write_z(store: &FileStore) -> Result<()> {
    let change = store.change(&WriteOptions::of("set"), &mut |base| {
        let mut value = base.draft();
        value["z"] = json!(base.value["z"].as_u64().unwrap_or(0) + 1);
        Ok(value.into())
    });
    change.map(|_| ())
}

fn begin(store: &FileStore) -> Result<()> {
    store.init(InitMode::Continue, &WriteOptions::of("init")).map(|_| ())
}

impl Job {
    pub fn new(name: &'static str, start: Sandbox, steps: Vec<Step>) -> Self {
        let refused: (Kind, Step) = (Kind::NotInitialized, begin);
        Self {
            name,
            start,
            steps,
            refused,
            facts: |_, _| Facts::new(),
            trees: Trees::Pass,
            directories: Directories::Movable,
            limit: sampled(12, 60),
            shapes: sampled(2, 6),
        }
    }

    fn view(&self, root: &Sandbox, store: &FileStore) -> Seen {
        match store.read() {
            Ok(served) => {
                let revision = content(&served.bytes).1;
                let mut whole = Whole::with(root, &served.bytes);
                if self.trees == Trees::Pass {
                    (whole.config, whole.signals) = (None, None);
                }
                Ok(Some((whole, revision, (self.facts)(root, store))))
            }
            Err(error) if error.kind == self.refused.0 => Ok(None),
            Err(error) => Err(format!("a bad read: {error}")),
        }
    }

    /// Runs the steps once, and records them and the view before the first and after each.
    pub fn record(&self) -> (Recording, Vec<View>) {
        let start = Image::read(self.start.path()).0;
        let (root, twin) = (Sandbox::empty(), Sandbox::empty());
        start.write(root.path());
        start.write(twin.path()); // a read may heal
        let recorder = Recorder::of(root.path()).with(self.directories);
        let disk = recorder.disk();
        let mut views = vec![self.view(&twin, &store(&twin, &Disk::real())).unwrap()];
        for step in &self.steps {
            step(&store(&root, &disk)).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            recorder.acknowledge();
            views.push(self.view(&root, &store(&root, &Disk::real())).unwrap());
        }
        (recorder.recording(), views)
    }

    /// Examines every tree.
    fn explore(&self) -> Report {
        let began = Instant::now();
        let (recording, views) = self.record();
        let report = self.search(&recording, &views, Mutant::NONE, Until::All);
        println!(
            "{}: {} moments, {} trees{}, {} of second power cuts, {} violations, {:.1} s",
            self.name,
            report.moments,
            report.trees,
            if report.sampled == 0 {
                String::new()
            } else {
                format!(" ({} moments sampled)", report.sampled)
            },
            report.second,
            report.violations.len(),
            began.elapsed().as_secs_f64()
        );
        report
    }

    pub fn search(
        &self,
        recording: &Recording,
        views: &[View],
        mutant: Mutant,
        until: Until,
    ) -> Report {
        let search = Search {
            job: self,
            mutant,
            until,
            known: Mutex::default(),
            shapes: Mutex::default(),
            report: Mutex::default(),
        };
        let moments: Vec<usize> = moments(recording);
        in_parallel(&moments, |at| search.at(recording, *at, views));
        let mut report = search.report.into_inner().unwrap();
        report.moments = moments.len();
        report
    }

    /// Destroys only the live file after each step, and returns the violations.
    pub fn survive_destruction(&self, mutant: Mutant) -> Vec<String> {
        let manners: [fn(&Path); 4] = [
            |path| fs::write(path, "").unwrap(),
            |path| fs::write(path, vec![0; 400]).unwrap(),
            |path| fs::write(path, &fs::read(path).unwrap()[..200]).unwrap(),
            |path| fs::write(path, "{\"phase\": \"x\", \"phase\": \"y\"}").unwrap(),
        ];
        let mut wrong = Vec::new();
        for (done, destroy) in
            (1..=self.steps.len()).flat_map(|done| manners.map(|manner| (done, manner)))
        {
            let root = Sandbox::empty();
            Image::read(self.start.path()).0.write(root.path());
            let recorder = Recorder::of(root.path()).blind_to(mutant.blind_to);
            let disk = recorder.disk();
            for step in &self.steps[..done] {
                step(&store(&root, &disk)).unwrap();
            }
            let wanted = self.view(&root, &store(&root, &Disk::real())).unwrap();
            destroy(&root.state());
            crate::sandbox::make_old(&root.state());
            let seen = self.view(&root, &store(&root, &disk));
            wrong.extend(judge(&seen, &[wanted]).err());
        }
        wrong
    }

    /// Expects no violation.
    #[track_caller]
    pub fn holds(&self) {
        let report = self.explore();
        let first: Vec<&String> = report.violations.iter().take(3).collect();
        assert!(first.is_empty(), "{} violations: {first:#?}", report.violations.len());
    }

    /// Expects a violation.
    #[track_caller]
    pub fn is_caught(&self, mutant: Mutant) {
        let (mut recording, views) = self.record();
        (mutant.rewrite)(&mut recording);
        let report = self.search(&recording, &views, mutant, Until::TheFirst);
        println!("{}: caught at tree {}", self.name, report.trees);
        assert!(!report.violations.is_empty(), "no violation in {} trees", report.trees);
    }
}

/// Results for trees that were examined already.
struct Search<'a> {
    job: &'a Job,
    mutant: Mutant,
    until: Until,
    known: Mutex<HashMap<u64, Seen>>,
    shapes: Mutex<HashSet<u64>>,
    report: Mutex<Report>,
}

impl Search<'_> {
    fn at(&self, recording: &Recording, at: usize, views: &[View]) {
        let done = recording
            .events
            .iter()
            .take(at)
            .filter(|event| matches!(event, Event::Acknowledged))
            .count();
        let mut acceptable = views[done..views.len().min(done + 2)].to_vec();
        // the facts of a step are certain once it was acknowledged
        if let [Some((_, _, certain)), Some((_, _, facts))] = acceptable.as_mut_slice() {
            facts.retain(|fact| certain.contains(fact));
        } else if let [None, Some((_, _, facts))] = acceptable.as_mut_slice() {
            facts.clear();
        }
        let found = Cut::new(recording, at).images(self.job.limit, at as u64);
        if !found.are_all {
            self.report.lock().unwrap().sampled += 1;
        }
        for (digest, image) in found.images {
            if self.until == Until::TheFirst && !self.report.lock().unwrap().violations.is_empty() {
                return;
            }
            let known = self.known.lock().unwrap().get(&digest).cloned();
            let outcome = known.unwrap_or_else(|| {
                let (outcome, recovery) = self.recover(&image);
                if let (Ok(seen), Some((recovery, views)), Until::All) =
                    (&outcome, recovery, self.until)
                {
                    self.once_more(&recovery, &views, &acceptable, seen);
                }
                self.report.lock().unwrap().trees += 1;
                self.known.lock().unwrap().insert(digest, outcome.clone());
                outcome
            });
            if let Err(why) = judge(&outcome, &acceptable) {
                let before: Vec<&String> = recording.words.iter().take(at).rev().take(12).collect();
                self.report
                    .lock()
                    .unwrap()
                    .violations
                    .push(format!("at event {at}, after {before:?}: {why}"));
            }
        }
    }

    /// Reads the tree with the next command, and writes with the one after it; returns the view and
    /// their calls.
    fn recover(&self, image: &Image) -> (Seen, Option<Recovery>) {
        let root = Sandbox::empty();
        image.clone().left_to_the_next_boot().write(root.path());
        let recorder =
            Recorder::of(root.path()).blind_to(self.mutant.blind_to).with(self.job.directories);
        let disk = recorder.disk();
        let seen = match self.job.view(&root, &store(&root, &disk)) {
            Ok(seen) => seen,
            Err(why) => return (Err(format!("{why}\n{}", listing(&root))), None),
        };
        recorder.acknowledge();
        match self.settle(&root, &disk, &seen) {
            Ok(after) => {
                recorder.acknowledge();
                (Ok(seen.clone()), Some((recorder.recording(), vec![seen, after])))
            }
            Err(why) => (Err(format!("{why}\n{}", listing(&root))), None),
        }
    }

    /// Cuts the power again in the middle of a recovery, once for each kind of recovery.
    fn once_more(&self, recovery: &Recording, views: &[View], acceptable: &[View], seen: &View) {
        let mut shape = DefaultHasher::new();
        for words in &recovery.words {
            words.replace(|c: char| c.is_ascii_digit(), "").hash(&mut shape); // times and inodes
        }
        seen.as_ref().map(|(_, revision, _)| revision).hash(&mut shape);
        // of the facts only those matter that an earlier step had acknowledged
        let mut views = views.to_vec();
        let needed =
            acceptable.first().cloned().flatten().map(|(_, _, facts)| facts).unwrap_or_default();
        if let Some(Some((_, _, facts))) = views.first_mut() {
            facts.retain(|fact| needed.contains(fact));
        }
        let mut shapes = self.shapes.lock().unwrap();
        if shapes.len() >= self.job.shapes || !shapes.insert(shape.finish()) {
            return;
        }
        drop(shapes);
        for at in moments(recovery) {
            let done = recovery
                .events
                .iter()
                .take(at)
                .filter(|event| matches!(event, Event::Acknowledged))
                .count();
            // before an acknowledgement either view may come out; a remedy adds its own effects
            let is_open = done == 0 || seen.is_none();
            let mut allowed: Vec<View> = if is_open { acceptable.to_vec() } else { Vec::new() };
            allowed.extend_from_slice(&views[done.saturating_sub(1)..views.len().min(done + 1)]);
            for (_, image) in Cut::new(recovery, at).images(SECOND, at as u64).images {
                let (outcome, _) = self.recover(&image);
                let mut report = self.report.lock().unwrap();
                report.second += 1;
                if let Err(why) = judge(&outcome, &allowed) {
                    let before: Vec<&String> = recovery.words.iter().take(at).collect();
                    report
                        .violations
                        .push(format!("a second power cut at {at} after {before:?}: {why}"));
                }
            }
        }
    }
}

fn judge(outcome: &Seen, acceptable: &[View]) -> std::result::Result<(), String> {
    let seen = outcome.as_ref().map_err(Clone::clone)?;
    let fits = |other: &View| match (seen, other) {
        (Some((seen, revision, facts)), Some((other, least, needed))) => {
            seen == other && revision >= least && facts.is_superset(needed)
        }
        (None, None) => true,
        _ => false,
    };
    if acceptable.iter().any(fits) {
        return Ok(());
    }
    let told: Vec<String> = acceptable.iter().map(tell).collect();
    Err(format!("seen is {}, and not {}", tell(seen), told.join(" or ")))
}

/// A view on one line.
fn tell(view: &View) -> String {
    let Some((whole, revision, facts)) = view else { return "a refusal".to_owned() };
    let tree = |listing: &Option<Listing>| {
        let entries = listing.iter().flat_map(|listing| listing.entries());
        entries
            .map(|entry| format!("{} {:o} {:?}", entry.path, entry.mode, entry.mtime))
            .collect::<Vec<_>>()
    };
    let (config, signals) = (tree(&whole.config), tree(&whole.signals));
    format!(
        "revision {revision}, {}, {facts:?}, config {config:?}, signals {signals:?}",
        whole.state
    )
}

impl Search<'_> {
    /// The next writer writes, and leaves the root in order; returns the view after it.
    fn settle(&self, root: &Sandbox, disk: &Disk, seen: &View) -> Seen {
        let writer = store(root, disk);
        let wanted = match seen {
            Some((whole, revision, _)) => {
                write_z(&writer).map_err(|error| format!("the next writer fails: {error}"))?;
                (whole.state.clone(), revision + 1)
            }
            None => {
                (self.job.refused.1)(&writer)
                    .map_err(|error| format!("the remedy fails: {error}"))?;
                write_z(&writer)
                    .map_err(|error| format!("the writer behind the remedy fails: {error}"))?;
                content(&fs::read(root.state()).unwrap())
            }
        };
        let live = fs::read(root.state()).unwrap();
        let (mut state, revision) = content(&live);
        let z = state.as_object_mut().unwrap().shift_remove("z");
        let mut expected = wanted.0;
        expected.as_object_mut().unwrap().shift_remove("z");
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        check(state == expected, "the next writer changed more than its command says")?;
        check(z.is_some() && revision == wanted.1, "the next writer's revision is not the next")?;
        check(matches!(inspect(&live), Reading::Sealed(_)), "the live file's seal is wrong")?;
        check(fs::read(root.mirror()).ok().as_ref() == Some(&live), "the mirror differs")?;
        check(fs::metadata(root.state()).unwrap().nlink() == 1, "something shares the live inode")?;
        check(!root.file(".checkpoints/.in-progress").exists(), "the staging directory is left")?;
        // the next change of a lock reuses the temporary name of an interrupted one
        let debris: Vec<_> = root
            .debris()
            .into_iter()
            .filter(|path| !path.starts_with(root.file(".locks")))
            .collect();
        check(debris.is_empty(), &format!("left over: {debris:?}"))?;
        let staged = root.names(".").into_iter().any(|name| name.starts_with(".pipeline-state-"));
        check(!staged, "something staged is left")?;
        let real = store(root, &Disk::real());
        for id in real.checkpoints().ids().map_err(|error| error.to_string())? {
            real.checkpoints()
                .verify(&id)
                .map_err(|error| format!("a checkpoint is not whole: {error}"))?;
        }
        self.job.view(root, &real)
    }
}

fn listing(root: &Sandbox) -> String {
    let files = root.snapshot().into_iter().map(|(path, bytes)| {
        let path = path.strip_prefix(root.path()).unwrap().display().to_string();
        let zeros = bytes.first() == Some(&0);
        format!("{path}: {} bytes{}", bytes.len(), if zeros { " of zeros" } else { "" })
    });
    files.collect::<Vec<_>>().join("\n")
}
