//! The roots in which commands begin.

use std::fs::{self};
use std::os::unix::fs::PermissionsExt as _;

use crate::owners::Owner;
use crate::sandbox::Sandbox;
use crate::snapshots::with_small_checkpoint;

pub fn empty(_: &Owner) -> Sandbox {
    Sandbox::empty()
}

pub fn history(_: &Owner) -> Sandbox {
    Sandbox::with_history()
}

pub fn checkpointed(_: &Owner) -> Sandbox {
    with_small_checkpoint()
}

pub fn twice_checkpointed(_: &Owner) -> Sandbox {
    let root = with_small_checkpoint();
    root.ok("recover checkpoint newest");
    root
}

pub fn signalled(_: &Owner) -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("state signal GO");
    root
}

pub fn ruled(_: &Owner) -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("hook init-rules");
    root
}

pub fn hooked(_: &Owner) -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("hook install");
    root
}

pub fn degraded(_: &Owner) -> Sandbox {
    let root = Sandbox::with_history();
    root.ok("recover degrade slow-disk");
    root
}

pub fn deploy_held(owner: &Owner) -> Sandbox {
    let root = Sandbox::with_history();
    root.ok(&format!("lock acquire deploy 0 --ttl 1h --owner-pid {}", owner.pid()));
    root
}

/// Locks of dead owners.
pub fn deserted() -> Sandbox {
    let (root, dead) = (Sandbox::with_history(), Owner::new());
    root.ok(&format!("lock acquire a,b 0 --owner-pid {}", dead.pid()));
    root
}

pub fn deleted() -> Sandbox {
    let root = Sandbox::with_history();
    fs::remove_file(root.state()).unwrap();
    root
}

pub fn edited() -> Sandbox {
    let root = Sandbox::with_history();
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    root
}

pub fn legacy() -> Sandbox {
    Sandbox::holding(concat!(
        r#"{"phase":3,"completedTasks":[],"signals":{"A":null},"lastActivation":1,"#,
        r#""created":"then"}"#
    ))
}

/// An unsealed state that breaks the rules, beside a checkpoint.
pub fn invalid() -> Sandbox {
    let root =
        Sandbox::holding(r#"{"phase":"a","completedTasks":[],"signals":{},"lastActivation":""}"#);
    root.ok("recover checkpoint good");
    for copy in root.shelf("") {
        fs::remove_file(root.file(".state-backups").join(copy)).unwrap();
    }
    root.overwrite(r#"{"phase":["no"],"completedTasks":3,"signals":{},"lastActivation":""}"#);
    root
}

/// Leftovers of dead processes, a missing mirror, a mode that is too open.
pub fn littered(_: &Owner) -> Sandbox {
    let root = deserted();
    for name in [".state-backups/.pipeline-state-1-mirror.tmp", ".locks/.live-1-1"] {
        fs::write(root.file(name), "half").unwrap();
    }
    fs::remove_file(root.mirror()).unwrap();
    fs::set_permissions(root.state(), fs::Permissions::from_mode(0o644)).unwrap();
    root
}

pub fn with_programs(owner: &Owner) -> Sandbox {
    let root = checkpointed(owner);
    for (name, script) in [
        ("editor", "sed -i 's/\"n\": 7/\"n\": 8/' \"$1\""),
        ("fails", "echo changed >config/rules.json; exit 3"),
        ("succeeds", "echo changed >config/rules.json"),
    ] {
        fs::write(root.file(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(root.file(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    root
}
