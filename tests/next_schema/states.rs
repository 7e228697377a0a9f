//! States of today's release, and of the next one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Next;
use crate::sandbox::{BINARY, Sandbox};

/// Revision 4 of today's release, with `.n` 3 and a name of the pipeline.
pub fn todays() -> Sandbox {
    let root = Sandbox::initialized();
    root.ok("state set n:=1 metadata.pipeline=web");
    root.ok("state set n:=2");
    root.ok("state set n:=3");
    root
}

/// Revision 5, which the next release wrote on top of [`todays`].
pub fn of_the_next(next: &Next) -> Sandbox {
    let root = todays();
    next.ok(&root, "state set n:=4");
    root
}

/// A copy of a root.
pub fn copy(root: &Sandbox) -> Sandbox {
    let twin = Sandbox::empty();
    let source = root.path().join(".");
    assert!(
        Command::new("cp")
            .arg("-a")
            .args([source.as_path(), twin.path()])
            .status()
            .unwrap()
            .success()
    );
    twin
}

/// A restore of the checkpoint `good` by today's release, killed after its intent was written.
pub fn interrupted_restore(root: &Sandbox) -> Sandbox {
    for nth in 1.. {
        let twin = copy(root);
        let kill = format!("inject=renameat,renameat2,rename:signal=KILL:when={nth}");
        let words = [
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=renameat,renameat2,rename",
            "-e",
            &kill,
            BINARY,
        ];
        let restore = ["recover", "restore", "--latest", "good"];
        let ended = twin.program("strace").args(words).args(restore).output().unwrap();
        if twin.file(".checkpoints/.in-progress/intent.json").exists() {
            return twin;
        }
        assert!(!ended.status.success(), "the restore ended before it was decided");
    }
    unreachable!("every number of calls was tried")
}

/// The live file and the mirror lose their contents.
pub fn damage(root: &Sandbox, also_mirror: bool) {
    root.overwrite("{\"torn");
    if also_mirror {
        fs::write(root.mirror(), "{\"torn").unwrap();
    }
}

/// Names the files that changed since a snapshot; expected to be empty.
#[track_caller]
pub fn assert_untouched(root: &Sandbox, before: &[(PathBuf, Vec<u8>)], what: &str) {
    let now = root.snapshot();
    let is_in = |file: &&(PathBuf, Vec<u8>), others: &[(PathBuf, Vec<u8>)]| others.contains(file);
    let new = now.iter().filter(|file| !is_in(file, before));
    let changed: Vec<&PathBuf> =
        new.chain(before.iter().filter(|file| !is_in(file, &now))).map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{what}: {changed:?}");
}
