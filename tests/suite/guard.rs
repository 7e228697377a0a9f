//! `recover guard` never undoes commits of others, and stays on record until everything is put
//! back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::sandbox::{Ran, Sandbox};

/// A guard after its command made its changes; the command waits for a word to continue.
pub struct Running {
    pub child: Child,
    pub id: String,
}

fn fifo(root: &Sandbox, name: &str) {
    let made = root.program("mkfifo").arg(root.file(name)).status().unwrap();
    assert!(made.success());
}

/// Starts a guard named `name`; its command runs `script`, waits for a word, and exits with `code`.
pub fn start(root: &Sandbox, name: &str, options: &str, script: &str, code: i32) -> Running {
    start_as((root, root.command()), name, options, script, code)
}

/// The same, by this command.
pub fn start_as(
    (root, mut command): (&Sandbox, Command),
    name: &str,
    options: &str,
    script: &str,
    code: i32,
) -> Running {
    fifo(root, &format!("{name}-up"));
    fifo(root, &format!("{name}-go"));
    let body = format!("{script}\necho up >{name}-up\nread word <{name}-go\nexit {code}\n");
    fs::write(root.file(format!("{name}.sh")), body).unwrap();
    let words = format!("recover guard {name} {options} -- sh ./{name}.sh");
    let child = command.args(words.split_whitespace()).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = String::new();
    fs::File::open(root.file(format!("{name}-up"))).unwrap().read_to_string(&mut up).unwrap();
    let id = root
        .names(".checkpoints")
        .into_iter()
        .rfind(|id| id.ends_with(&format!("-{name}")))
        .unwrap();
    Running { child, id }
}

impl Running {
    pub fn go_on(self, root: &Sandbox) -> (Ran, String) {
        let name = self.id.rsplit('-').next().unwrap();
        fs::File::options()
            .write(true)
            .open(root.file(format!("{name}-go")))
            .unwrap()
            .write_all(b"go\n")
            .unwrap();
        (Ran::of(self.child.wait_with_output().unwrap()), self.id)
    }
}

pub const SET: &str = "\"$PIPELINE_BINARY\" state set -q";

pub fn on_record(root: &Sandbox) -> Vec<String> {
    root.shelf("guard-")
}

#[test]
fn a_guard_undoes_its_commands_changes_and_keeps_other_commits() {
    let root = Sandbox::with_history();
    root.ok("state signal OLD -q");
    let script = format!(
        "{SET} n:=99 mine=1\n\"$PIPELINE_BINARY\" state complete -q guards\n\
         \"$PIPELINE_BINARY\" state signal MINE -q\n\
         \"$PIPELINE_BINARY\" state signal OLD --clear -q"
    );
    let guard = start(&root, "deploy", "", &script, 7);
    root.ok("state set theirs:=1 -q");
    root.ok("state complete others -q");
    root.ok("state signal THEIRS -q");
    let (ran, id) = guard.go_on(&root);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("others committed since {id}")), "{}", ran.stderr);
    let document = root.document();
    assert_eq!(
        (&document["n"], &document["mine"], &document["theirs"]),
        (&json!(3), &json!(null), &json!(1))
    );
    assert_eq!(document["completedTasks"], json!(["others"]));
    let mut signals: Vec<_> =
        document["signals"].as_object().unwrap().keys().map(String::as_str).collect();
    signals.sort_unstable();
    assert_eq!((signals, &document["lastSignal"]), (vec!["OLD", "THEIRS"], &json!("THEIRS")));
    assert_eq!(root.names(".signals"), ["OLD.json", "THEIRS.json"], "the files follow");
    assert!(on_record(&root).is_empty());
    root.run("recover doctor").expect(0);
}

#[test]
fn conflicting_changes_stay_and_the_guard_stays_on_record() {
    let root = Sandbox::with_history();
    let guard = start(&root, "deploy", "--unrestored-code 42", &format!("{SET} n:=99 mine=1"), 7);
    root.ok("state set n:=100");
    let before = root.document();
    let (ran, id) = guard.go_on(&root);
    assert_eq!(ran.code, 42, "{}", ran.stderr);
    let last = ran.stderr.lines().rev().find(|line| !line.starts_with("hint:")).unwrap();
    assert!(last.starts_with("error:") && last.contains(".n"), "it is said last: {}", ran.stderr);
    assert_eq!(root.document(), before);
    let problem = format!("the guard {id} did not put everything back");
    root.run("recover doctor").expect_finding(&problem);
    for words in ["state status", "recover status"] {
        let ran = root.run(words);
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(&problem), "{words}: {ran:?}");
    }
    let next = root.run("state set later=1").expect(0);
    assert!(
        next.stderr.lines().last().unwrap().contains(&problem),
        "the next writer says it last: {}",
        next.stderr
    );
    root.run("state status")
        .showing("Guard       the guard ")
        .showing("did not put everything back");
    assert_eq!(root.run("state status --json").json()["guards"][0]["standing"], "unrestored");
    root.ok("recover cleanup 0");
    assert!(root.names(".checkpoints").contains(&id), "its checkpoint is spared");
    let prefix = id.strip_prefix("checkpoint-").unwrap().strip_suffix("oy").unwrap();
    let forgotten = root.run(&format!("recover guard --forget {prefix} --json")).expect(0);
    assert_eq!(forgotten.json()["id"], id.as_str(), "a prefix names it");
    root.run(&format!("recover guard --forget {id}")).expect(1);
    assert!(root.run("state set later=2").expect(0).stderr.is_empty());
    assert!(on_record(&root).is_empty());
}

impl Ran {
    pub fn expect_finding(&self, words: &str) {
        assert_eq!(self.code, 3, "{self:?}");
        assert!(self.stdout.contains(words), "{words}: {self:?}");
    }
}

#[test]
fn a_restore_of_its_checkpoint_settles_a_guard() {
    let root = Sandbox::with_history();
    let guard = start(&root, "deploy", "", &format!("{SET} n:=99"), 7);
    root.ok("state set n:=100");
    let (ran, id) = guard.go_on(&root);
    assert_eq!((ran.code, on_record(&root).len()), (3, 1));
    root.ok(&format!("recover restore {id}"));
    assert_eq!((root.document()["n"].clone(), on_record(&root).len()), (json!(3), 0));
}

#[test]
fn a_killed_guard_is_on_record_as_killed() {
    let root = Sandbox::with_history();
    let mut guard = start(&root, "deploy", "", &format!("{SET} n:=99"), 7);
    assert_eq!(root.run("state status --json").json()["guards"][0]["standing"], "running");
    root.run(&format!("recover guard --forget {}", guard.id)).expect(1).saying("runs");
    guard.child.kill().unwrap();
    guard.child.wait().unwrap();
    let problem = format!("the guard {} was killed", guard.id);
    root.run("recover doctor").expect_finding(&problem);
    assert!(root.run("state set later=1").expect(0).stderr.contains(&problem));
    root.ok(&format!("recover restore {}", guard.id));
    assert!(on_record(&root).is_empty());
    assert_eq!(root.document()["n"], 3);
    fs::File::options()
        .write(true)
        .open(root.file("deploy-go"))
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
}

#[test]
fn a_process_that_left_the_guards_family_shows_its_token() {
    let root = Sandbox::with_history();
    fifo(&root, "done");
    // The daemon is adopted by another process before it commits.
    fifo(&root, "adopted");
    let daemon = format!("read x <adopted; {SET} n:=99; echo done >done");
    let script =
        format!("(setsid sh -c '{daemon}' >/dev/null 2>&1 &)\necho yes >adopted\nread x <done");
    let guard = start(&root, "deploy", "", &script, 7);
    let (ran, _) = guard.go_on(&root);
    assert_eq!((ran.code, root.document()["n"].clone()), (7, json!(3)), "{}", ran.stderr);
}

/// Removes the lines of the journal that contain these words.
fn forget_lines(root: &Sandbox, words: &str) {
    let journal = root.file(".state-backups/journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let kept: Vec<_> = text.lines().filter(|line| !line.contains(words)).collect();
    fs::write(&journal, kept.join("\n")).unwrap();
}

#[test]
fn a_revision_without_a_line_is_not_undone_and_the_guard_says_so() {
    // Another's revision, one of the guard, one without a line.
    for (lost, n, mine) in [(5, json!(99), json!(null)), (6, json!(3), json!(1))] {
        let root = Sandbox::with_history();
        let guard = start(&root, "deploy", "", &format!("{SET} n:=99\n{SET} mine=1"), 7);
        forget_lines(&root, &format!("\"revision\":{lost},"));
        root.ok("state set theirs:=1 -q");
        let (ran, id) = guard.go_on(&root);
        assert_eq!((ran.code, on_record(&root).len()), (3, 1), "{}", ran.stderr);
        let expected = format!("the journal has no line of revision {lost}, which its command may");
        assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
        let document = root.document();
        let mine = if mine == json!(1) { json!("1") } else { mine };
        assert_eq!((&document["n"], &document["mine"]), (&n, &mine), "{}", ran.stderr);
        assert_eq!(document["theirs"], 1, "it is another's");
        root.ok(&format!("recover restore {id}"));
        assert!(on_record(&root).is_empty());
    }
}

#[test]
fn a_guard_whose_journal_is_gone_stays_on_record() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/a"), "1").unwrap();
    let script =
        format!("{SET} n:=99\necho 2 >config/a\nrm .state-backups/journal.jsonl\nexit 4\n");
    fs::write(root.file("run.sh"), script).unwrap();
    let ran = root.run("recover guard --unrestored-code 42 deploy -- sh ./run.sh");
    assert_eq!((ran.code, on_record(&root).len()), (42, 1), "{}", ran.stderr);
    assert!(!ran.stderr.contains("nothing that is left"), "{}", ran.stderr);
    assert_eq!(root.document()["n"], 99, "its author is unknown");
    root.ok("recover restore --latest deploy");
    assert_eq!((root.document()["n"].clone(), on_record(&root).len()), (json!(3), 0));
}

#[test]
fn many_other_commits_leave_the_guards_evidence() {
    let root = Sandbox::with_history();
    let guard = start(&root, "deploy", "", &format!("{SET} n:=99"), 7);
    for n in 0..12 {
        root.ok(&format!("state set theirs:={n} -q"));
    }
    let (ran, _) = guard.go_on(&root);
    assert_eq!(
        (ran.code, &root.document()["n"], &root.document()["theirs"]),
        (7, &json!(3), &json!(11))
    );
    root.ok("state set theirs:=12");
    assert_eq!(
        root.shelf("state-").iter().filter(|name| !name.contains("pre-")).count(),
        5,
        "then they go as usual"
    );
}

#[test]
fn guards_in_parallel_put_back_their_own() {
    let root = Sandbox::with_history();
    let one = start(&root, "one", "", &format!("{SET} a:=1"), 7);
    let two = start(&root, "two", "", &format!("{SET} b:=1"), 7);
    let (ran, _) = one.go_on(&root);
    assert_eq!(
        (ran.code, &root.document()["a"], &root.document()["b"]),
        (7, &json!(null), &json!(1)),
        "{}",
        ran.stderr
    );
    let (ran, _) = two.go_on(&root);
    assert_eq!(
        (ran.code, &root.document()["b"], &root.document()["n"]),
        (7, &json!(null), &json!(3)),
        "{}",
        ran.stderr
    );
    assert!(on_record(&root).is_empty());
}

#[test]
fn an_outer_guard_undoes_the_remains_of_an_inner_one() {
    let root = Sandbox::with_history();
    let inner = format!(
        "{SET} n:=1\n\"$PIPELINE_BINARY\" recover guard -q inner -- sh -c '{SET} n:=2; exit 5'\n\
         {SET} k:=1"
    );
    let guard = start(&root, "outer", "", &inner, 7);
    assert_eq!(root.document()["n"], 1, "the inner one put its own back");
    root.ok("state set theirs:=1 -q");
    let (ran, _) = guard.go_on(&root);
    assert_eq!(
        (ran.code, &root.document()["n"], &root.document()["theirs"]),
        (7, &json!(3), &json!(1)),
        "{}",
        ran.stderr
    );
    assert_eq!(root.document()["k"], json!(null));
}

#[test]
fn a_record_in_a_copy_of_the_root_is_reported_and_nothing_follows_from_it() {
    let root = Sandbox::with_history();
    let guard = start(&root, "deploy", "", &format!("{SET} n:=99"), 0);
    let copy = Sandbox::empty();
    for name in [".workflow-state.json", ".state-backups", ".checkpoints", ".locks", ".signals"] {
        let status =
            root.program("cp").arg("-a").args([root.file(name), copy.file(name)]).status().unwrap();
        assert!(status.success());
    }
    assert_eq!(copy.run("state status --json").json()["guards"][0]["standing"], "foreign");
    for n in 0..9 {
        copy.run(&format!("state set copies:={n}")).expect(0).saying("of another root or machine");
    }
    assert_eq!(copy.shelf("state-").len(), 5, "no backup is kept for it");
    copy.ok(&format!("recover guard --forget {}", guard.id));
    let (ran, _) = guard.go_on(&root);
    assert_eq!((ran.code, on_record(&root).len()), (0, 0));
}

#[test]
fn a_guard_without_a_journal_does_not_begin() {
    let root = Sandbox::with_history();
    fs::remove_file(root.file(".state-backups/journal.jsonl")).unwrap();
    root.run("recover guard deploy -- touch ran").expect(5).saying("state init");
    assert!(!root.file("ran").exists() && on_record(&root).is_empty());
    root.ok("state init");
    root.run("recover guard deploy -q -- touch ran").expect(0);
    assert!(root.file("ran").exists() && on_record(&root).is_empty());
}

#[test]
fn entries_that_no_checkpoint_holds_do_not_defeat_a_guard() {
    let leftovers = [
        ("a name that is not UTF-8", "touch \"$(printf 'config/caf\\351')\""),
        ("a pipe", "mkfifo config/pipe"),
        ("a pipe beside the signals", "mkfifo .signals/pipe"),
        ("too many directories", "mkdir -p config/$(yes d | head -70 | tr '\\n' /)"),
    ];
    for (what, leave) in leftovers {
        let root = Sandbox::with_history();
        fs::create_dir(root.file("config")).unwrap();
        fs::write(root.file("config/a"), "1").unwrap();
        fs::write(root.file("run.sh"), format!("{SET} n:=99\n{leave}\necho 2 >config/a\nexit 7\n"))
            .unwrap();
        let ran = root.run("recover guard deploy -- sh ./run.sh");
        assert_eq!(
            (ran.code, root.document()["n"].clone()),
            (7, json!(3)),
            "{what}: {}",
            ran.stderr
        );
        assert_eq!(fs::read_to_string(root.file("config/a")).unwrap(), "1", "{what}");
        assert_eq!(root.names("config"), ["a"], "{what}");
        assert!(root.names(".signals").is_empty(), "{what}");
        assert!(ran.stderr.contains("moved aside"), "{what} is named: {}", ran.stderr);
        assert!(on_record(&root).is_empty());
    }
}

#[test]
fn a_guard_with_config_replaced_by_a_file_names_a_remedy() {
    let root = Sandbox::with_history();
    fs::create_dir(root.file("config")).unwrap();
    fs::write(root.file("config/a"), "1").unwrap();
    fs::write(root.file("run.sh"), "rm -r config\necho x >config\nexit 4\n").unwrap();
    let ran = root.run("recover guard deploy -- sh ./run.sh");
    assert_eq!((ran.code, on_record(&root).len()), (3, 1), "{}", ran.stderr);
    let hints = ran.stderr.lines().filter_map(|line| line.strip_prefix("hint: "));
    let hints: Vec<&str> = hints.map(|hint| hint.split("   #").next().unwrap()).collect();
    let away = hints.iter().position(|hint| hint.starts_with("mv ")).unwrap();
    assert!(root.program("sh").args(["-c", hints[away]]).status().unwrap().success());
    root.ok(hints[away + 1].strip_prefix("pipeline-state ").unwrap());
    assert_eq!(fs::read_to_string(root.file("config/a")).unwrap(), "1");
    assert!(on_record(&root).is_empty());
}

#[test]
fn config_is_put_back_unless_another_guard_may_have_changed_it() {
    for other_guard in [false, true] {
        let root = Sandbox::with_history();
        fs::create_dir(root.file("config")).unwrap();
        fs::write(root.file("config/a"), "1").unwrap();
        let guard = start(&root, "deploy", "", &format!("{SET} n:=99\necho 2 >config/a"), 7);
        if other_guard {
            root.run("recover guard -q other -- true").expect(0);
        }
        root.ok("state set theirs:=1 -q");
        let (ran, _) = guard.go_on(&root);
        assert_eq!(
            (&root.document()["n"], &root.document()["theirs"]),
            (&json!(3), &json!(1)),
            "{}",
            ran.stderr
        );
        let expected = if other_guard { ("2\n", 3, 1) } else { ("1", 7, 0) };
        let config = fs::read_to_string(root.file("config/a")).unwrap();
        assert_eq!((config.as_str(), ran.code, on_record(&root).len()), expected, "{}", ran.stderr);
    }
}

#[test]
fn retries_and_locks_around_a_guard_change_nothing_of_it() {
    let root = Sandbox::with_history();
    fs::write(root.file("run.sh"), format!("{SET} n:=$(date +%N | sed 's/^0*/1/')\nexit 7\n"))
        .unwrap();
    let words = ["lock", "run", "state,deploy", "--", crate::sandbox::BINARY];
    let guard = "recover guard g -q --retries 3 --base-delay 0 -- sh ./run.sh";
    let mut command = root.command();
    let ran = Ran::of(command.args(words).args(guard.split(' ')).output().unwrap());
    assert_eq!((ran.code, root.document()["n"].clone()), (7, json!(3)), "{}", ran.stderr);
    assert!(on_record(&root).is_empty());
}

#[test]
fn a_foreign_entry_among_guard_records_stops_no_command() {
    let root = Sandbox::with_history();
    let name = ".state-backups/guard-checkpoint-20231101-103000-x.json";
    let spoils: [(&str, &dyn Fn()); 3] = [
        ("damaged", &|| fs::write(root.file(name), "{}").unwrap()),
        ("a link", &|| std::os::unix::fs::symlink("/etc/passwd", root.file(name)).unwrap()),
        ("unreadable for others", &|| {
            fs::write(root.file(name), "").unwrap();
            fs::set_permissions(root.file(name), fs::Permissions::from_mode(0o000)).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        spoil();
        root.run(&format!("state set what={}", what.replace(' ', "-"))).expect(0);
        assert_eq!(
            root.run("state status --json").json()["guards"][0]["standing"],
            "damaged",
            "{what}"
        );
        root.ok("recover guard --forget checkpoint-20231101-103000-x");
        assert!(on_record(&root).is_empty(), "{what}");
    }
}
