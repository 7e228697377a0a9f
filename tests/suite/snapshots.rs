//! Roots with checkpoints, and the parts of a restore: the state, `config/` and `.signals/`, as
//! one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use pipeline_state::fs::Disk;
use pipeline_state::store::layout::STAGED_PREFIX;
use pipeline_state::tree::{self, Entry, Listing};
use serde_json::Value;

use crate::crash::image::Image;
use crate::kill::content;
use crate::sandbox::Sandbox;

/// The contents of a checkpoint, with modes and times; of the state, its users' fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub state: Value,
    pub config: Option<Listing>,
    pub signals: Option<Listing>,
}

impl Whole {
    /// The current contents, with the state from its file.
    pub fn of(root: &Sandbox) -> Self {
        Self::with(root, &fs::read(root.state()).unwrap())
    }

    pub fn with(root: &Sandbox, state: &[u8]) -> Self {
        let disk = Disk::real();
        let dir = disk.open_root(root.path()).unwrap();
        // staged entries in a tree that cannot be renamed stay until the next writer
        let is_own = |entry: &&Entry| !entry.path.starts_with(STAGED_PREFIX);
        let list = |name| {
            let listing = tree::list(&disk, &dir, name).unwrap()?;
            Some(Listing::new(listing.entries().iter().filter(is_own).cloned().collect()))
        };
        let mut state = content(state).0;
        for ours in ["y", "z"] {
            // written by commands that only test for access
            state.as_object_mut().unwrap().shift_remove(ours);
        }
        Self { state, config: list("config"), signals: list(".signals") }
    }
}

/// A root with the same files, modes and times; the state file is some seconds old.
pub fn twin(root: &Sandbox) -> Sandbox {
    let twin = Sandbox::empty();
    Image::read(root.path()).0.write(twin.path());
    twin
}

/// A configuration with every kind of entry.
pub fn configure(root: &Sandbox) {
    let at = |name: &str| root.file("config").join(name);
    fs::create_dir_all(at("deep/er/est")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("rules.json"), "{\"a\": 1}\n").unwrap();
    fs::write(at("a name\nof two lines"), "x").unwrap();
    fs::write(
        at("deep/er/est/binary"),
        (0..300_000_u32).map(|n| (n * 7 % 251) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::write(at("empty file"), "").unwrap();
    symlink("../../outside", at("deep/link")).unwrap();
    for (name, mode) in [
        ("rules.json", 0o640),
        ("a name\nof two lines", 0o400),
        ("deep/er", 0o555),
        ("empty", 0o711),
    ] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let old =
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_577_880_000, 123_456_789);
    fs::File::open(at("rules.json")).unwrap().set_modified(old).unwrap();
    fs::File::open(at("empty")).unwrap().set_modified(old).unwrap();
}

/// Changes the state, the configuration and the signals: something edited, removed, added each.
pub fn change_all(root: &Sandbox) {
    let at = |name: &str| root.file("config").join(name);
    fs::write(at("rules.json"), "{\"a\": 2}\n").unwrap();
    fs::remove_file(at("empty file")).unwrap();
    fs::write(at("new"), "new").unwrap();
    fs::set_permissions(at("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(at("deep/link")).unwrap();
    fs::create_dir(at("deep/link")).unwrap();
    root.ok("state set n:=7 phase=late");
    root.ok("state signal LATE");
    root.ok("state signal EARLY --clear");
}

/// A root with a checkpoint `good` that differs in everything from the current contents.
pub fn with_checkpoint() -> Sandbox {
    let root = Sandbox::with_history();
    configure(&root);
    root.ok("state signal EARLY");
    root.ok("state signal BOTH");
    root.ok("recover checkpoint good");
    change_all(&root);
    root
}

/// A small one, for tests with very many cases.
pub fn with_small_checkpoint() -> Sandbox {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/rules.json"), "{\"a\": 1}\n").unwrap();
    symlink("rules.json", root.file("config/link")).unwrap();
    root.ok("state signal EARLY");
    root.ok("recover checkpoint good");
    fs::write(root.file("config/rules.json"), "{\"a\": 2}\n").unwrap();
    fs::create_dir(root.file("config/new")).unwrap();
    fs::remove_file(root.file("config/link")).unwrap();
    root.ok("state set n:=7");
    root.ok("state signal EARLY --clear");
    root
}

/// The result of restoring `good`.
pub fn restored(root: &Sandbox) -> Whole {
    let twin = twin(root);
    twin.ok("recover restore --latest good");
    Whole::of(&twin)
}

/// Expects no leftovers of a checkpoint or a restore.
#[track_caller]
pub fn assert_tidy(root: &Sandbox, place: &str) {
    let left = |name: &String| name.starts_with(".pipeline-state-");
    let names: Vec<String> = root.names(".").into_iter().filter(left).collect();
    assert_eq!(names, [] as [&str; 0], "{place}");
    assert!(!root.file(".checkpoints/.in-progress").exists(), "{place}");
    // the next change of a lock reuses the temporary name of an interrupted one
    let mut debris = root.debris();
    debris.retain(|path| !path.starts_with(root.file(".locks")));
    assert_eq!(debris, Vec::<std::path::PathBuf>::new(), "{place}");
}
