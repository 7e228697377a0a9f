//! Restores without an exchange of names: real overlays, mounts and immutable files, in a mount
//! namespace of the test.

use std::fs;
use std::rc::Rc;

use crate::observed::{Fault, Observed};
use pipeline_state::error::Kind;
use pipeline_state::fs::Disk;
use pipeline_state::name::Name;
use pipeline_state::store::Probe;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::options::WriteOptions;
use rustix::io::Errno;

use crate::faults::store;
use crate::permitted::is_permitted;
use crate::sandbox::{Ran, Sandbox};
use crate::snapshots::{Whole, assert_tidy, restored, twin, with_small_checkpoint};

/// True if this user may mount.
fn may_mount() -> bool {
    is_permitted("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
}

/// Runs a bash script in a mount namespace of its own; `$B` is the program. The first failing
/// command ends it.
fn mounted(root: &Sandbox, script: &str) -> Ran {
    let mut command = root.program("unshare");
    command.args(["-m", "bash", "-euc", script]).env("B", crate::sandbox::BINARY);
    Ran::of(command.output().unwrap())
}

/// Copies the contents of a directory, as `cp -a` does.
fn copy(from: &str, to: &std::path::Path) {
    let status = std::process::Command::new("cp").args(["-a", from]).arg(to).status();
    assert!(status.unwrap().success());
}

/// The result of restoring `good` in a root that is the lower layer of an overlay, after these
/// commands.
fn in_an_overlay(commands: &str) -> (Ran, Sandbox) {
    let (image, outer, out) = (with_small_checkpoint(), Sandbox::empty(), Sandbox::empty());
    copy(&format!("{}/.", image.path().display()), &{
        fs::create_dir(outer.file("lower")).unwrap();
        outer.file("lower")
    });
    let script = format!(
        "mkdir layers m; mount -t tmpfs none layers; mkdir layers/upper layers/work
         mount -t overlay overlay -o lowerdir=lower,upperdir=layers/upper,workdir=layers/work m
         out={}; cd m; {commands}; cp -a . \"$out\"",
        out.path().display()
    );
    (mounted(&outer, &script), out)
}

#[test]
fn in_an_overlay_the_directories_of_the_image_are_restored_file_by_file() {
    if !may_mount() {
        return;
    }
    let new = restored(&with_small_checkpoint());
    let (ran, out) = in_an_overlay("\"$B\" recover restore --latest good");
    assert_eq!(ran.code, 0, "{ran:?}");
    let found = Whole::of(&out);
    assert_eq!(found.state, new.state);
    let print = |listing: Option<pipeline_state::tree::Listing>| {
        listing.map(|listing| listing.fingerprint())
    };
    assert_eq!(print(found.config), print(new.config));
    let names = |signals: &Option<pipeline_state::tree::Listing>| {
        signals
            .iter()
            .flat_map(|all| all.entries())
            .map(|entry| entry.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&found.signals), names(&new.signals));
    assert_tidy(&out, "in an overlay");
    assert!(
        out.names("config").iter().all(|name| !name.starts_with('.')),
        "{:?}",
        out.names("config")
    );
}

#[test]
fn in_an_overlay_a_guard_undoes_its_commands_changes() {
    if !may_mount() {
        return;
    }
    let (ran, out) = in_an_overlay(
        "\"$B\" recover guard op -- sh -c 'echo changed >config/rules.json; exit 3' || [ $? = 3 ]
         \"$B\" state set y:=1; \"$B\" state signal DONE",
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::read_to_string(out.file("config/rules.json")).unwrap(), "{\"a\": 2}\n");
    assert_eq!(out.document()["y"], 1);
    assert!(out.file(".signals/DONE.json").exists());
}

#[test]
fn in_an_overlay_checkpoints_of_the_image_are_removed() {
    if !may_mount() {
        return;
    }
    let (ran, out) =
        in_an_overlay("\"$B\" recover checkpoint newest; \"$B\" recover cleanup 0 --keep 1");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(out.names(".checkpoints").len(), 1, "{:?}", out.names(".checkpoints"));
    out.ok("recover verify");
}

/// Makes `config/` and `.signals/` mounts of their own, with the same contents.
const MOUNT_BOTH: &str = "for name in config .signals; do
    cp -a $name $name.copy; mount -t tmpfs -o mode=700 none $name; cp -a $name.copy/. $name; \
        rm -r $name.copy; done";

#[test]
fn mounted_directories_are_checkpointed_restored_and_given_signals() {
    if !may_mount() {
        return;
    }
    let (root, out) = (with_small_checkpoint(), Sandbox::empty());
    let script = format!(
        "{MOUNT_BOTH}; \"$B\" recover restore --latest good; \"$B\" recover checkpoint mounted
         echo changed >config/rules.json; \"$B\" state signal LATE; [ -e .signals/LATE.json ]
         \"$B\" recover restore --latest mounted; cp -a . {}",
        out.path().display()
    );
    let ran = mounted(&root, &script);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stderr, "", "nothing is warned of");
    assert_eq!(fs::read_to_string(out.file("config/rules.json")).unwrap(), "{\"a\": 1}\n");
    assert_eq!(out.names("config"), ["link", "rules.json"]);
    assert_eq!(out.names(".signals"), ["EARLY.json"]);
    assert_eq!(out.document()["n"], 3);
}

#[test]
fn a_mounted_state_file_is_read_and_not_written() {
    if !may_mount() {
        return;
    }
    let root = Sandbox::with_history();
    fs::copy(root.state(), root.file("one.json")).unwrap();
    let script = "mount --bind one.json .workflow-state.json
        expect() { local code=$1; shift; \"$B\" \"$@\" 2>err && rc=0 || rc=$?
          [ $rc = $code ] || { cat err; exit 1; }
          [ $code = 0 ] || grep -q 'is a mount point' err; }
        expect 0 state get .n
        expect 6 state set n:=9
        expect 6 state init
        expect 6 recover guard op -- touch ran
        expect 0 state get .n
        [ ! -e ran ]; [ -z \"$(find . -name '*.tmp')\" ]; [ ! -e .checkpoints/.in-progress ]";
    let ran = mounted(&root, script);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(root.document()["n"], 3);
    // in an empty root, a refused `init` creates nothing
    let bare = Sandbox::empty();
    fs::copy(root.state(), bare.file("one.json")).unwrap();
    fs::write(bare.state(), "").unwrap();
    let script = "mount --bind one.json .workflow-state.json; \"$B\" state init && exit 1; \
                  [ \"$(ls -A | wc -l)\" -le 3 ]";
    let ran = mounted(&bare, script);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(bare.names("."), [".workflow-state.json", "one.json"]);
}

#[test]
fn an_immutable_file_refuses_a_restore_before_anything_is_made() {
    let root = with_small_checkpoint();
    let new = restored(&root);
    for name in ["config/rules.json", "config", ".workflow-state.json"] {
        let root = Sandbox::empty(); // not in memory: tmpfs need not support immutable files
        let start = with_small_checkpoint();
        copy(&format!("{}/.", start.path().display()), root.path());
        let path = root.file(name);
        if !is_permitted("chattr", &["+i", path.to_str().unwrap()]) {
            return;
        }
        let before =
            root.snapshot().into_iter().filter(|(path, _)| !path.starts_with(root.file(".locks")));
        let before: Vec<_> = before.collect();
        let refused = root.run("recover restore --latest good");
        let after =
            root.snapshot().into_iter().filter(|(path, _)| !path.starts_with(root.file(".locks")));
        let after: Vec<_> = after.collect();
        let guarded = root.run("recover guard op -- touch ran");
        assert!(
            std::process::Command::new("chattr").arg("-i").arg(&path).status().unwrap().success()
        );
        refused.expect(6).saying("lsattr -d");
        guarded.expect(6);
        assert!(!root.file("ran").exists(), "{name}: the command ran");
        assert_eq!(after, before, "{name}");
        root.ok("recover restore --latest good");
        assert_eq!(Whole::of(&root).state, new.state);
    }
}

/// `git clean` or a synchronising tool may remove the target directory of a probe's rename.
#[test]
fn a_probe_whose_directory_is_removed_displaces_nothing() {
    let start = with_small_checkpoint();
    fs::write(
        start.state(),
        fs::read_to_string(start.state()).unwrap().replace("pre-init", "HAND"),
    )
    .unwrap();
    let before = start.snapshot();
    let removed = start.path().to_owned();
    let disk = Disk::new(Rc::new(Observed::new(move |call| {
        if call.name == "rename" {
            let scratch = removed.join(".pipeline-state-restore-0-probe");
            if scratch.join("not-empty").exists() {
                fs::remove_dir_all(scratch).unwrap();
            }
        }
        Fault::None
    })));
    let error = Probe::of(&store(&start, disk)).plan().unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "{error}");
    let is_own = |path: &std::path::Path| path.starts_with(start.file(".locks"));
    let after: Vec<_> = start.snapshot().into_iter().filter(|(path, _)| !is_own(path)).collect();
    let before: Vec<_> = before.into_iter().filter(|(path, _)| !is_own(path)).collect();
    assert_eq!(after, before);
}

#[test]
fn an_entry_in_place_of_a_probes_directory_is_kept() {
    let root = with_small_checkpoint();
    fs::write(root.file(".pipeline-state-restore-0-probe"), "a file of the user's").unwrap();
    root.run("recover restore --latest good").expect(6).saying("ls -la");
    let kept = fs::read_to_string(root.file(".pipeline-state-restore-0-probe")).unwrap();
    assert_eq!(kept, "a file of the user's");
    fs::remove_file(root.file(".pipeline-state-restore-0-probe")).unwrap();
    root.ok("recover restore --latest good");
}

/// A root with an intent to restore `good`; its `nth` exchange fails.
fn interrupted_at(nth: usize) -> Sandbox {
    let start = with_small_checkpoint();
    let root = Sandbox::empty();
    copy(&format!("{}/.", start.path().display()), root.path());
    let mut exchanges = 0;
    let disk = Disk::new(Rc::new(Observed::new(move |call| {
        exchanges += usize::from(call.name == "exchange");
        if call.name == "exchange" && exchanges >= nth {
            Fault::Fails(Errno::IO)
        } else {
            Fault::None
        }
    })));
    let which = Which::Latest(Some(Name::parse("operation", "good").unwrap()));
    store(&root, disk).restores().restore(&which, &WriteOptions::of("restore")).unwrap_err();
    root
}

#[test]
fn a_mount_over_a_pending_restore_allows_reads_and_an_abort() {
    if !may_mount() {
        return;
    }
    for (nth, target, undone) in [(1, "config", "false"), (2, ".signals", "true")] {
        let (old, root) = (Whole::of(&with_small_checkpoint()), interrupted_at(nth));
        let staged = root.revision() + 1;
        let script = format!(
            "cp -a {target} {target}.copy; mount -t tmpfs -o mode=700 none {target}
             [ \"$(\"$B\" state get .n 2>err)\" = 3 ]; grep -q 'the state as it is going to be is \
                 served' err
             \"$B\" state set z:=1 2>err && exit 1 || [ $? = 6 ]
             grep -q 'is a mount point' err; grep -q 'recover restore --abort' err
             \"$B\" --json recover restore --abort | grep -q '\"undone\":{undone}'
             [ \"$(\"$B\" --json recover restore --abort)\" = \
                 '{{\"aborted\":null,\"undone\":false}}' ]
             rm -r {target}.copy"
        );
        let ran = mounted(&root, &script);
        assert_eq!(ran.code, 0, "{target}: {ran:?}");
        assert_eq!(Whole::of(&root).state, old.state, "{target}");
        assert_eq!(
            fs::read_to_string(root.file("config/rules.json")).unwrap(),
            "{\"a\": 2}\n",
            "{target}"
        );
        if undone == "true" {
            assert!(root.revision() > staged, "a reader may have seen revision {staged}");
        }
        root.ok("state set z:=1");
        assert_tidy(&twin(&root), target);
    }
}

#[test]
fn a_file_system_without_modes_is_refused_and_nothing_is_left_on_it() {
    let root = Sandbox::empty();
    for answer in [Errno::PERM, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS] {
        let disk = Disk::new(Rc::new(Observed::new(move |call| match call.name {
            "create" | "make_dir" => Fault::FailsAfter(answer),
            _ => Fault::None,
        })));
        let begin = pipeline_state::store::fresh::InitMode::Continue;
        let error = store(&root, disk).init(begin, &WriteOptions::of("init")).unwrap_err();
        let is_named = error.message.contains("file system without permissions");
        assert_eq!((error.code() as u8, is_named), (6, true), "{answer:?}: {error}");
        assert_eq!(root.names("."), [] as [&str; 0]);
    }
}
