//! `recover doctor` tests what the file system and the machine do.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;

use pipeline_state::error::ExitCode;
use pipeline_state::fs::Disk;
use pipeline_state::recovery::doctor::{Report, Subject, examine};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::doctor::{brief, findings, in_order};
use crate::faults::store;
use crate::observed::{Fault, Observed};
use crate::permitted::is_permitted;
use crate::sandbox::{BINARY, Ran, Sandbox, installed};

/// What is tried in each place, in this order.
const IN_PLACES: [&str; 10] = [
    "create",
    "modes",
    "write",
    "sync",
    "link",
    "rename",
    "exchange",
    "sync_directory",
    "flock",
    "events",
];
const SCRATCH: &str = ".pipeline-state-doctor";

/// The tests of a report, without their times.
fn tests(report: &Value) -> Vec<(String, Value, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tests = report["tests"].as_array().unwrap().iter();
    tests.map(|test| (text(&test["test"]), test["place"].clone(), test["works"].clone())).collect()
}

/// The report in a root whose calls of one name have a fault.
fn with_fault(call: &'static str, fault: Fault) -> Report {
    let root = in_order();
    let observed = Observed::new(move |made| if made.name == call { fault } else { Fault::None });
    let report = examine(&store(&root, Disk::new(Rc::new(observed))));
    assert!(!root.file(SCRATCH).exists(), "{call}");
    report
}

#[test]
fn a_root_in_order_passes_every_test_and_keeps_nothing_of_them() {
    let root = in_order();
    let before = (root.snapshot(), root.path().metadata().unwrap().mtime_nsec());
    let report = root.run("doctor --json").expect(0).json();
    let mut expected: Vec<_> =
        IN_PLACES.map(|name| (name.to_owned(), json!("."), json!(true))).into();
    for name in ["restore_plan", "start_time", "child_end"] {
        expected.push((name.to_owned(), Value::Null, json!(true)));
    }
    assert_eq!(tests(&report), expected, "{}", report["tests"]);
    assert_eq!((root.snapshot(), root.path().metadata().unwrap().mtime_nsec()), before);
    let places: Vec<_> = report["machine"]["places"].as_array().unwrap().iter().collect();
    assert_eq!(places.len(), 5, "{places:?}");
    assert_eq!(report["machine"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["machine"]["names_fold"], false);
}

/// A call that fails or lies, and what the doctor says.
struct Answer {
    call: &'static str,
    fault: Fault,
    test: &'static str,
    saying: &'static str,
    code: ExitCode,
}

#[test]
fn each_failing_answer_is_a_finding_with_its_consequence() {
    use ExitCode::{DiskFull, General, PermissionDenied, StateCorruption};
    let answer = |call, fault, test, saying, code| Answer { call, fault, test, saying, code };
    let unsupported = Fault::Fails(Errno::OPNOTSUPP);
    let answers = [
        answer("create", Fault::Fails(Errno::NOSPC), "create", "no command can write", DiskFull),
        answer("create", Fault::FailsAfter(Errno::NOSYS), "modes", "others could read", General),
        answer("set_mode", Fault::Fails(Errno::PERM), "modes", "are not kept", PermissionDenied),
        answer("set_mode", Fault::Ignored, "modes", "mode 0640 was set, and", PermissionDenied),
        answer("write", Fault::Fails(Errno::IO), "write", "do not keep", General),
        answer("sync", Fault::Fails(Errno::INVAL), "sync", "a power cut may take", General),
        answer("sync_dir", Fault::Fails(Errno::IO), "sync_directory", "a power cut", General),
        answer("link", Fault::Fails(Errno::PERM), "link", "each commit copies", General),
        answer("rename", Fault::Fails(Errno::IO), "rename", "no command can commit", General),
        answer("exchange", Fault::Fails(Errno::INVAL), "exchange", "for an instant", General),
        answer("exchange", Fault::Ignored, "exchange", "were not exchanged", General),
        answer("lock", unsupported, "flock", "locks exclude nothing", General),
        answer("lock", Fault::Ignored, "flock", "does not see the flock", StateCorruption),
    ];
    for Answer { call, fault, test, saying, code } in answers {
        let report = with_fault(call, fault);
        let case = format!("{call} {fault:?}: {report:#?}");
        let found = report.findings.iter().find(|finding| finding.message.contains(saying));
        let found = found.unwrap_or_else(|| panic!("{case}"));
        assert_eq!((found.subject, found.code), (Subject::Machine, code), "{case}");
        assert!(!found.remedies.is_empty() && !found.message.contains(SCRATCH), "{case}");
        let failed = report.trials.answers.iter().find(|answer| answer.works == Some(false));
        assert_eq!(json!(failed.unwrap().test), test, "{case}");
    }
}

#[test]
fn a_user_without_a_watch_left_is_a_finding() {
    if !is_permitted("unshare", &["-Ur", "true"]) {
        return;
    }
    let root = in_order();
    let script = "echo 0 >/proc/sys/user/max_inotify_instances; \"$B\" doctor";
    let mut command = root.program("unshare");
    command.args(["-Ur", "sh", "-c", script]).env("B", BINARY);
    let ran = Ran::of(command.output().unwrap()).expect(1);
    assert!(ran.stdout.contains("look at intervals\nhint: sysctl fs.inotify"), "{ran:?}");
}

#[test]
fn a_restore_is_probed_and_not_only_judged_by_flags() {
    let root = in_order();
    let observed = Observed::new(|call| {
        let is_of_config = call.from.as_ref().is_some_and(|from| from.ends_with("config"));
        let is_kept_out = call.name == "rename" && is_of_config || call.name == "make_dir";
        if is_kept_out && !call.path.ends_with(SCRATCH) {
            Fault::Fails(Errno::PERM)
        } else {
            Fault::None
        }
    });
    let report = examine(&store(&root, Disk::new(Rc::new(observed))));
    let found = report.findings.iter().find(|finding| finding.subject == Subject::Restore);
    let found = found.unwrap_or_else(|| panic!("{report:#?}"));
    assert!(found.message.starts_with("a restore, and so a guard, would be refused"), "{found:?}");
    assert_eq!(found.code, ExitCode::PermissionDenied);
}

#[test]
fn what_a_killed_doctor_left_is_removed_by_the_next() {
    let root = in_order();
    fs::create_dir(root.file(SCRATCH)).unwrap();
    fs::create_dir(root.file(SCRATCH).join("old")).unwrap();
    fs::write(root.file(SCRATCH).join("one"), "left").unwrap();
    assert_eq!(root.ok("doctor"), "No problems found");
    assert!(!root.file(SCRATCH).exists());
}

#[test]
fn two_doctors_do_not_meet() {
    let root = in_order();
    fs::create_dir(root.file(SCRATCH)).unwrap();
    fs::write(root.file(SCRATCH).join("one"), "in use").unwrap();
    let other = File::open(root.file(SCRATCH)).unwrap();
    other.lock().unwrap();
    let report = root.run("doctor --json").expect(0).json();
    assert_eq!(report["tests"][0]["why"], "another doctor is at work");
    assert_eq!(report["tests"][1]["test"], "restore_plan", "{}", report["tests"]);
    assert!(root.file(SCRATCH).join("one").exists());
}

#[test]
fn a_hostile_scratch_directory_leads_nowhere() {
    let (root, outside) = (in_order(), Sandbox::empty());
    fs::write(outside.file("one"), "mine").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.file(SCRATCH)).unwrap();
    let found = findings(&root, "doctor");
    assert!(found.iter().any(|found| found["subject"] == "machine"), "{}", brief(&found));
    assert_eq!(fs::read_to_string(outside.file("one")).unwrap(), "mine");
}

#[test]
fn where_no_state_is_the_directory_is_tested_all_the_same() {
    let root = Sandbox::empty();
    let report = root.run("doctor --json").json();
    let works = |(name, place, works): &(String, Value, Value)| {
        *works == (*place == json!(".") || name != "restore_plan")
    };
    let tests = tests(&report);
    assert_eq!(tests.iter().filter(|test| works(test)).count(), IN_PLACES.len() + 2, "{tests:?}");
    assert!(!root.file(SCRATCH).exists());
}

/// A file system, and the commands that mount it at `m`.
const FILE_SYSTEMS: [(&str, &str); 6] = [
    ("ext4", "truncate -s 64M i; mkfs.ext4 -qF i; mount -o loop i m"),
    ("xfs", "truncate -s 320M i; mkfs.xfs -qf i; mount -o loop i m"),
    ("btrfs", "truncate -s 128M i; mkfs.btrfs -qf i; mount -o loop i m"),
    ("tmpfs", "mount -t tmpfs none m"),
    (
        "overlay",
        "mkdir o; mount -t tmpfs none o; mkdir o/lower o/upper o/work
         mount -t overlay none -o lowerdir=o/lower,upperdir=o/upper,workdir=o/work m",
    ),
    ("vfat", "truncate -s 64M i; mkfs.vfat i >/dev/null; mount -o loop i m"),
];

/// The doctor's answers are true: what passes does work, and `init` refuses what does not.
#[test]
fn the_answers_are_true_on_the_file_systems_of_this_kernel() {
    if !is_permitted("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        return;
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    for (name, mount) in FILE_SYSTEMS {
        if !known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
            eprintln!("this kernel has no {name}: the doctor is not tried on it");
            continue;
        }
        let maker = mount.split_whitespace().find(|word| word.starts_with("mkfs."));
        if maker.is_some_and(|maker| maker == "mkfs.btrfs" || maker == "mkfs.vfat")
            && !installed_quietly(maker.unwrap_or_default())
        {
            eprintln!("{maker:?} is not installed: the doctor is not tried on {name}");
            continue;
        }
        if !maker.is_none_or(|maker| installed_quietly(maker) || installed(maker)) {
            continue;
        }
        let root = Sandbox::empty();
        let script = format!(
            "mkdir m; {mount}; mkdir m/root; cd m/root; $B state init -q || echo refused >../refused
             mkdir -p config; echo 1 >config/a; $B doctor --json >../report || true
             if [ ! -e ../refused ]; then $B recover guard g -- sh -c 'echo 2 >config/a; \
                 exit 3' || [ $? = 3 ]
             $B state set n:=1; fi >/dev/null; ls -A >&2; cat ../report; cat config/a"
        );
        let mut command = root.program("unshare");
        command.args(["-m", "bash", "-euc", &script]).env("B", BINARY);
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        let report: Value =
            serde_json::from_str(ran.stdout.lines().next().unwrap_or_default()).unwrap();
        let failed: Vec<_> =
            tests(&report).into_iter().filter(|(_, _, works)| *works == false).collect();
        if name == "vfat" {
            assert_eq!(failed[0].0, "modes", "{name}: {ran:?}");
            continue;
        }
        assert!(failed.is_empty(), "{name}: {failed:?}");
        assert_eq!(report["findings"], json!([]), "{name}");
        assert!(ran.stdout.ends_with("\n1\n"), "{name}: {ran:?}");
        assert_eq!(
            ran.stderr.contains("tmpfs: a reboot takes all of it"),
            name == "tmpfs",
            "{ran:?}"
        );
    }
}

fn installed_quietly(program: &str) -> bool {
    std::process::Command::new(program).arg("-V").output().is_ok()
}

/// A side directory on another device is tested for itself, and named.
#[test]
fn a_side_directory_on_another_device_is_tested_too() {
    if !is_permitted("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        return;
    }
    let root = in_order();
    let script =
        "cp -a .locks copy; mount -t tmpfs -o mode=700 none .locks; cp -a copy/. .locks; rm -r copy
        \"$B\" doctor --json";
    let mut command = root.program("unshare");
    command.args(["-m", "bash", "-euc", script]).env("B", BINARY);
    let ran = Ran::of(command.output().unwrap()).expect(0);
    assert!(ran.stderr.contains(".locks is on another device (tmpfs): scripts that do"), "{ran:?}");
    let in_locks = tests(&ran.json()).into_iter().filter(|(_, place, _)| *place == json!(".locks"));
    let in_locks: Vec<String> = in_locks.map(|(name, ..)| name).collect();
    assert_eq!(in_locks, IN_PLACES);
}
