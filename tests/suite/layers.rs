//! The layers of the source: decisions name no file, and no layer uses one above it.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{dir}");
    found
}

/// The lines of `dir` that use one of `layers`, without re-exports.
fn uses(dir: &str, layers: &[&str], is_exempt: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources(dir) {
        if is_exempt(&name) {
            continue;
        }
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let is_use =
                layers.iter().any(|layer| line.contains(layer)) && !line.starts_with("pub use ");
            if is_use {
                found.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    found
}

/// The identity of a directory is data: records hold it.
const DATA: &str = "use crate::fs::identity::DirId;";

#[test]
fn what_decides_about_a_document_names_no_file() {
    let files = ["crate::fs", "std::fs", "files::", "Disk"];
    let mut found = uses("store", &files, |name| name.starts_with("store/files"));
    // The names of files.
    found.retain(|line| !line.contains(DATA) && !line.starts_with("store/layout.rs"));
    assert!(found.is_empty(), "{found:#?}");
    let below = ["crate::fs", "std::fs", "crate::store", "crate::lock"];
    let found = uses("document", &below, |_| false);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_decides_about_locks_names_no_file() {
    let files = ["crate::fs", "files::", "Disk"];
    let below = [
        "lock/files",
        "lock/process",
        "lock/remote/notes",
        "lock/remote/keeper_process",
        "lock/remote/taken",
    ];
    let is_below = |name: &str| below.iter().any(|below| name.starts_with(below));
    let found = uses("lock", &files, is_below);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_layer_uses_one_above_it() {
    let layers: [(&str, &[&str]); 7] = [
        ("recovery", &["crate::cli"]),
        ("hook", &["crate::cli"]),
        ("store", &["crate::cli", "crate::recovery", "crate::hook"]),
        ("lock", &["crate::cli", "crate::recovery", "crate::hook", "crate::store"]),
        ("journal", &["crate::cli", "crate::recovery", "crate::hook", "crate::store"]),
        ("etcd", &["crate::cli", "crate::store", "crate::lock", "crate::document", "crate::fs"]),
        ("fs", &["crate::cli", "crate::recovery", "crate::hook", "crate::store", "crate::lock"]),
    ];
    for (dir, above) in layers {
        let found = uses(dir, above, |_| false);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn the_operating_system_knows_nothing_of_this_program() {
    let mut found = uses("os", &["crate::"], |_| false);
    found.retain(|line| !line.contains("crate::os"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_one_module_knows_which_operating_system_it_runs_on() {
    let words = ["target_os", "\"/proc", "inotify", "pidfd", "statx", "kqueue", "findmnt"];
    let found = uses("", &words, |name| name.starts_with("os/") || name == "os.rs");
    assert!(found.is_empty(), "{found:#?}");
}
