//! What holds of a root after a death in it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use pipeline_state::document::{Reading, inspect};
use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox};

/// A root of its own with the same files, of the same age.
pub fn copy_of(start: &Sandbox) -> Sandbox {
    fn copy(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                DirBuilder::new().mode(0o700).create(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), &target).unwrap();
                let modified = entry.metadata().unwrap().modified().unwrap();
                File::options().append(true).open(&target).unwrap().set_modified(modified).unwrap();
            }
        }
    }
    let root = Sandbox::like(start);
    copy(start.path(), root.path());
    root
}

/// A document without its variable fields, and its revision.
pub fn content(bytes: &[u8]) -> (Value, u64) {
    let mut document: Value = serde_json::from_slice(bytes).unwrap();
    let revision = document.pointer("/metadata/revision").and_then(Value::as_u64).unwrap();
    if let Some(metadata) = document["metadata"].as_object_mut() {
        for ours in ["created", "lastModified", "revision", "digest", "lineage"] {
            metadata.remove(ours);
        }
    }
    for (_, time) in
        document["signals"].as_object_mut().unwrap().iter_mut().filter(|(_, time)| time.is_number())
    {
        *time = json!("a time");
    }
    (document, revision)
}

/// The bytes that every kill and failure must leave: the newest three backups, and the live file or
/// the mirror.
pub fn precious(start: &Sandbox, extra_fields: &[&str]) -> Vec<Vec<u8>> {
    let backups =
        start.shelf("state-").into_iter().map(|name| start.file(".state-backups").join(name));
    let mut files: Vec<_> =
        backups.chain(extra_fields.iter().map(|name| start.file(name))).collect();
    let older = files.len().saturating_sub(3 + extra_fields.len());
    files.drain(..older).for_each(drop);
    files.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Each signal has its file, of the same time, and each file its signal.
pub fn assert_signals(root: &Sandbox, place: &str) {
    let mut known = root.document()["signals"].clone();
    for name in root.names(".signals") {
        let file: Value =
            serde_json::from_slice(&fs::read(root.file(".signals").join(&name)).unwrap()).unwrap();
        let time = known.as_object_mut().unwrap().remove(name.trim_end_matches(".json"));
        assert_eq!(Some(&file["timestamp"]), time.as_ref(), "{name} is of another time: {place}");
    }
    known.as_object_mut().unwrap().retain(|_, time| !time.is_null()); // as old hooks have them
    assert_eq!(known, json!({}), "signals without a file: {place}");
}

/// Conditions on every root after a successful commit.
pub fn assert_settled(root: &Sandbox, precious: &[Vec<u8>], place: &str) {
    assert_eq!(
        root.debris(),
        Vec::<std::path::PathBuf>::new(),
        "temporary files are left: {place}"
    );
    let live = fs::read(root.state()).unwrap();
    assert_eq!(fs::read(root.mirror()).unwrap(), live, "the mirror differs: {place}");
    assert_eq!(
        fs::metadata(root.state()).unwrap().nlink(),
        1,
        "something shares the live inode: {place}"
    );
    assert!(matches!(inspect(&live), Reading::Sealed(_)), "the live file's seal is wrong: {place}");
    assert_signals(root, place);
    let kept = root.snapshot();
    for (path, bytes) in &kept {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("state-") && name.ends_with(".json") {
            match inspect(bytes) {
                Reading::Sealed(document) => {
                    let revision = format!("-r{}-", document.seal.revision);
                    assert!(name.contains(&revision), "{name} holds {revision}: {place}");
                }
                Reading::Unsealed(_) => {
                    assert!(precious.contains(bytes), "{name} has no seal: {place}")
                }
                bad => panic!("the backup {name} is {bad:?}: {place}"),
            }
        }
    }
    for wanted in precious {
        let found = kept.iter().any(|(path, bytes)| bytes == wanted && *path != root.state());
        assert!(
            found,
            "a document or a piece of evidence is lost: {place}\n{}",
            String::from_utf8_lossy(wanted)
        );
    }
}

/// An acknowledged change is in the mirror as well, or a warning was printed.
pub fn is_mirrored(root: &Sandbox, ran: &Ran) -> bool {
    ran.stderr.contains("mirror") || fs::read(root.mirror()).ok() == fs::read(root.state()).ok()
}
