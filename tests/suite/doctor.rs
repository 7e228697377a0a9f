//! `recover doctor`, degraded mode.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::sandbox::{Ran, Sandbox};

pub fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A root with checkpoints `one` and `two`, a configuration, a signal, five backups.
pub fn in_order() -> Sandbox {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/rules.json"), "{}\n").unwrap();
    root.ok("recover checkpoint one");
    root.ok("recover checkpoint two");
    root.ok("state signal GO");
    root
}

/// The doctor's findings, as JSON.
pub fn findings(root: &Sandbox, words: &str) -> Vec<Value> {
    let ran = root.run(&format!("{words} --json"));
    let report: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    report["findings"].as_array().unwrap().clone()
}

/// A fault: how to cause it, and the doctor's finding.
struct Fault {
    plant: fn(&Sandbox),
    subject: &'static str,
    saying: &'static str,
    code: u64,
    remedy: &'static str,
    safe: bool,
}

const SAFE: &str = "pipeline-state recover doctor --fix";

/// Faults that can all exist at once.
const FAULTS: [Fault; 19] = [
    Fault {
        plant: |root| {
            let name = root.shelf("state-").into_iter().find(|name| name.contains("-r2-")).unwrap();
            fs::write(root.file(".state-backups").join(name), "x").unwrap();
        },
        subject: "backups",
        saying: "-r2-",
        code: 3,
        remedy: "rm -i ",
        safe: false,
    },
    Fault {
        plant: |root| {
            let id =
                root.names(".checkpoints").into_iter().find(|id| id.ends_with("-one")).unwrap();
            fs::write(root.file(".checkpoints").join(id).join("config/rules.json"), "{}X").unwrap();
        },
        subject: "checkpoints",
        saying: "config/rules.json",
        code: 3,
        remedy: "rm -rI ",
        safe: false,
    },
    Fault {
        plant: |root| fs::write(root.file(".locks/torn.json"), "junk").unwrap(),
        subject: "locks",
        saying: "the record of the lock torn is damaged",
        code: 3,
        remedy: "pipeline-state lock break torn",
        safe: false,
    },
    Fault {
        plant: |root| {
            root.bash("\"$PIPELINE_BINARY\" lock acquire dead -q; :").expect(0);
        },
        subject: "locks",
        saying: "the lock dead",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| fs::remove_file(root.mirror()).unwrap(),
        subject: "mirror",
        saying: "is missing",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| chmod(root.state(), 0o644),
        subject: "modes",
        saying: ".workflow-state.json has mode 0644",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| chmod(root.file(".signals"), 0o755),
        subject: "modes",
        saying: ".signals has mode 0755",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| chmod(root.file(".checkpoints"), 0o777),
        subject: "modes",
        saying: ".checkpoints may be written by others",
        code: 6,
        remedy: "chmod 700 ",
        safe: false,
    },
    Fault {
        plant: |root| fs::write(root.file(".pipeline-state-99-state.tmp"), "half").unwrap(),
        subject: "leftovers",
        saying: ".pipeline-state-99-state.tmp",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| {
            fs::write(root.file(".state-backups/.pipeline-state-99-mirror.tmp"), "half").unwrap()
        },
        subject: "leftovers",
        saying: ".state-backups/.pipeline-state-99-mirror.tmp",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| fs::create_dir(root.file(".pipeline-state-restore-1-config")).unwrap(),
        subject: "leftovers",
        saying: ".pipeline-state-restore-1-config",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| fs::write(root.file(".locks/.live-1-2-3-4"), "").unwrap(),
        subject: "locks",
        saying: ".live-1-2-3-4",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| {
            fs::write(root.file(".state-backups/.pipeline-state-99-signal-0.tmp"), "half").unwrap()
        },
        subject: "leftovers",
        saying: "99-signal-0.tmp is of a signal whose writer was killed",
        code: 1,
        remedy: SAFE,
        safe: true,
    },
    Fault {
        plant: |root| {
            fs::write(root.file(".signals/BAD.json"), "{").unwrap();
            chmod(root.file(".signals/BAD.json"), 0o600);
        },
        subject: "signals",
        saying: "BAD.json is not the file of a signal",
        code: 4,
        remedy: "rm -i ",
        safe: false,
    },
    Fault {
        plant: |root| {
            fs::write(root.file(".signals/GONE.json"), r#"{"timestamp": 1}"#).unwrap();
            chmod(root.file(".signals/GONE.json"), 0o600);
        },
        subject: "signals",
        saying: "a signal that the state does not have",
        code: 1,
        remedy: "rm -i ",
        safe: false,
    },
    Fault {
        plant: |root| {
            symlink("/nowhere", root.file("config/link"))
                .and_then(|()| {
                    std::os::unix::net::UnixListener::bind(root.file("config/socket")).map(drop)
                })
                .unwrap()
        },
        subject: "config",
        saying: "config/socket is a device, pipe or socket",
        code: 6,
        remedy: "ls -ld ",
        safe: false,
    },
    Fault {
        plant: |root| {
            fs::write(root.file("config/skill-rules.json"), r#"{"tool_rules": [{"tool": 7}]}"#)
                .unwrap()
        },
        subject: "rules",
        saying: "config/skill-rules.json: hooks skip these rules",
        code: 4,
        remedy: "pipeline-state hook check",
        safe: false,
    },
    Fault {
        plant: |root| chmod(root.file("audit.log"), 0o666),
        subject: "logs",
        saying: "the audit log cannot be used",
        code: 6,
        remedy: "ls -ld ",
        safe: false,
    },
    Fault {
        plant: |root| {
            let from = root.file(".state-backups").join(&root.shelf("state-")[0]);
            let name = root.file(".state-backups/state-20990101-000000-r1-x.json");
            fs::copy(from, name).unwrap();
        },
        subject: "clock",
        saying: "is from the future, 2099-01-01",
        code: 1,
        remedy: "date -u",
        safe: false,
    },
];

/// The findings in a few words, for a failure message.
pub fn brief(findings: &[Value]) -> String {
    findings
        .iter()
        .map(|finding| {
            format!("{} {} {}\n", finding["code"], finding["subject"], finding["message"])
        })
        .collect()
}

fn tells_of(findings: &[Value], fault: &Fault) -> bool {
    findings.iter().any(|finding| {
        finding["subject"] == fault.subject
            && finding["message"].as_str().unwrap().contains(fault.saying)
            && finding["code"] == fault.code
            && finding["remedy"].as_str().unwrap().starts_with(fault.remedy)
            && finding["fix"] == if fault.safe { "automatic" } else { "manual" }
    })
}

#[test]
fn a_root_in_order_is_found_in_order() {
    let root = in_order();
    assert_eq!(root.ok("recover doctor"), "No problems found");
    assert_eq!(root.ok("recover doctor --fix"), "No problems found");
    // a fresh one, too, and one that was restored and rolled back
    assert_eq!(Sandbox::initialized().ok("recover doctor"), "No problems found");
    root.ok("recover restore --latest");
    assert_eq!(root.ok("recover doctor"), "No problems found");
}

/// Standard error, but for the warning about a root in memory, where the roots of tests are.
fn without_warning(ran: &Ran) -> String {
    ran.stderr.replace("warning: the root is on tmpfs: a reboot takes all of it\n", "")
}

#[test]
fn each_fault_is_found_alone_and_no_other_with_it() {
    for fault in &FAULTS {
        let root = in_order();
        (fault.plant)(&root);
        let before = root.snapshot();
        let found = findings(&root, "recover doctor");
        assert!(tells_of(&found, fault), "{}:\n{}", fault.saying, brief(&found));
        assert_eq!(found.len(), 1, "{}", brief(&found));
        assert_eq!(root.snapshot(), before, "{}", fault.saying);
        let shown = root.run("recover doctor").expect(i32::try_from(fault.code).unwrap());
        let name = shown.stdout.split(' ').next().unwrap();
        assert_eq!(
            without_warning(&shown),
            format!("error: 1 problem found [{name}]\n"),
            "what it is stands above it"
        );
    }
}

#[test]
fn doctor_finds_all_faults_and_fixes_only_safe_ones() {
    let root = in_order();
    for fault in &FAULTS {
        (fault.plant)(&root);
    }
    let before = root.snapshot();
    let found = findings(&root, "recover doctor");
    for fault in &FAULTS {
        assert!(tells_of(&found, fault), "{}:\n{}", fault.saying, brief(&found));
    }
    assert_eq!(found.len(), FAULTS.len(), "{}", brief(&found));
    assert_eq!(root.snapshot(), before);
    // a line each, then its remedy; the worst decides the exit code
    let shown = root.run("recover doctor");
    let is_hint = shown.stdout.lines().map(|line| line.starts_with("hint: "));
    let alternating = [false, true].repeat(FAULTS.len());
    assert_eq!((shown.code, is_hint.collect::<Vec<_>>()), (3, alternating), "{}", shown.stdout);
    let safe = FAULTS.iter().filter(|fault| fault.safe).count();
    let summary = format!(
        "error: {0} problems found [STATE_CORRUPTION]\n\
         hint: {SAFE}   # does what is safe: {safe} of {0}\n",
        FAULTS.len()
    );
    assert_eq!(without_warning(&shown), summary, "and nothing is reported twice");

    let precious = |root: &Sandbox| {
        let files = root.snapshot().into_iter();
        let ours =
            files.filter(|(path, _)| !path.to_string_lossy().contains("/.locks") && path.is_file());
        ours.filter(|(path, _)| !path.to_string_lossy().ends_with(".tmp")).collect::<Vec<_>>()
    };
    let kept = precious(&root);
    let left = findings(&root, "recover doctor --fix");
    for fault in &FAULTS {
        // a damaged record is preserved; its lock still has an unknown holder
        let is_torn = fault.saying.contains("torn");
        assert_eq!(
            tells_of(&left, fault),
            !fault.safe && !is_torn,
            "{}:\n{}",
            fault.saying,
            brief(&left)
        );
    }
    assert_eq!(left.len(), FAULTS.iter().filter(|fault| !fault.safe).count(), "{}", brief(&left));
    let after = precious(&root);
    for file in &kept {
        assert!(after.contains(file), "{:?} was touched", file.0);
    }
    assert_eq!(findings(&root, "recover doctor --fix"), left, "a second time changes nothing more");
}

#[test]
fn the_fix_heals_like_every_command_and_decides_nothing() {
    let root = in_order();
    root.overwrite("{ torn");
    let found = findings(&root, "recover doctor");
    assert_eq!(
        (found[0]["subject"].as_str(), found[0]["fix"].as_str()),
        (Some("state"), Some("automatic")),
        "{found:?}"
    );
    assert!(root.run("recover doctor --fix").expect(0).stdout.contains("fixed: state: "));
    assert_eq!(root.document()["n"], 3);

    // an edit and a deletion need a person's decision
    root.overwrite(fs::read_to_string(root.state()).unwrap().replace("\"n\": 3", "\"n\": 33"));
    let edited = fs::read(root.state()).unwrap();
    let is_told = |way_on: &str| root.run("recover doctor --fix").expect(3).stdout.contains(way_on);
    assert!(is_told("\nhint: pipeline-state state adopt"));
    assert_eq!(fs::read(root.state()).unwrap(), edited);
    fs::remove_file(root.state()).unwrap();
    assert!(is_told("\nhint: pipeline-state state recover"));
    assert!(!root.state().exists());
    // so does healing, if it is disabled
    root.overwrite("{ torn");
    let fix = root
        .command()
        .env("PIPELINE_AUTO_RECOVER", "0")
        .args(["recover", "doctor", "--fix"])
        .status()
        .unwrap();
    assert_eq!((fix.code(), fs::read(root.state()).unwrap()), (Some(3), b"{ torn".to_vec()));
}

#[test]
fn where_there_is_no_state_the_doctor_says_how_to_make_one_and_makes_none() {
    let root = Sandbox::empty();
    let shown = root.run("recover doctor --fix").expect(1);
    assert!(shown.stdout.contains("\nhint: pipeline-state state init"), "{}", shown.stdout);
    assert_eq!(root.names("."), [] as [&str; 0]);
}

#[test]
fn a_fault_of_a_side_directory_hides_no_other() {
    let root = in_order();
    let backups = root.file(".state-backups");
    fs::rename(&backups, root.file("moved")).unwrap();
    symlink("moved", &backups).unwrap();
    fs::write(root.file(".pipeline-state-99-state.tmp"), "half").unwrap();
    fs::remove_dir_all(root.file(".signals")).unwrap();
    fs::write(root.file(".signals"), "").unwrap();
    let found = findings(&root, "recover doctor");
    let about = |word: &str| {
        found.iter().any(|finding| finding["message"].as_str().unwrap().contains(word))
    };
    assert!(
        about(".state-backups") && about(".signals") && about("99-state.tmp"),
        "{}",
        brief(&found)
    );
}

#[test]
fn a_degraded_state_is_reported_with_its_reason() {
    let root = in_order();
    root.run_args(&["recover", "degrade", "no database", r#"["reports", "mail"]"#]).expect(0);
    let found = findings(&root, "recover doctor");
    assert!(found[0]["message"].as_str().unwrap().ends_with("no database"), "{found:?}");
    assert_eq!(found[0]["remedy"], "pipeline-state recover recover-mode   # back to normal");
    assert_eq!(
        root.document()["degradedMode"]["disabledFeatures"],
        json!(["reports", "mail"]),
        "{}",
        root.document()
    );
    for (words, code) in [
        ("degraded", 0),
        ("degraded mail", 0),
        ("degraded other", 1),
        ("degraded other --exit-zero", 0),
    ] {
        let ran = root.run(&format!("recover {words}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (code, ""), "{words}");
    }
    root.ok("recover recover-mode");
    let normal = json!({"enabled": false, "reason": "", "timestamp": "", "disabledFeatures": []});
    assert_eq!(root.document()["degradedMode"], normal);
    assert_eq!(root.run("recover degraded").code, 1);
    root.run_args(&["recover", "degrade", "x", "[1]"]).expect(4);
}

#[test]
fn too_many_checkpoints_are_found_and_the_remedy_removes_them() {
    let root = in_order();
    let made = root.file(".checkpoints").join(&root.names(".checkpoints")[0]);
    for number in 0..120 {
        let copy = root.file(format!(".checkpoints/checkpoint-20260101-{number:06}-x"));
        assert!(
            std::process::Command::new("cp")
                .arg("-r")
                .arg(&made)
                .arg(copy)
                .status()
                .unwrap()
                .success()
        );
    }
    let month_ago = findings(&root, "recover doctor");
    assert!(
        month_ago[0]["remedy"].as_str().unwrap().starts_with("pipeline-state recover cleanup "),
        "{month_ago:?}"
    );
    root.ok("recover cleanup");
    assert_eq!(root.ok("recover doctor"), "No problems found");
}
