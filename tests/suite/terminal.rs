//! Output for people: tables that fit, colour with a meaning, a status that follows changes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use unicode_width::UnicodeWidthStr as _;

use crate::owners::Owner;
use crate::sandbox::{BINARY, Ran, Sandbox, installed, until};
use crate::strace::{injection, strace};

/// Runs the program in a terminal of this width; returns its output without control sequences.
fn in_terminal(root: &Sandbox, columns: u16, words: &str) -> (String, String) {
    let line = format!("stty cols {columns} rows 24; exec {BINARY} {words}");
    let shown = root
        .program("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .output()
        .unwrap();
    let raw = Ran::of(shown).stdout.replace('\r', "");
    let mut plain = String::new();
    let mut rest = raw.as_str();
    while let Some((before, behind)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = behind
            .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
            .get(1..)
            .unwrap_or_default();
    }
    (raw.clone(), plain + rest)
}

fn busy_root(owner: &Owner) -> Sandbox {
    let root = Sandbox::with_history();
    root.run_args(&["state", "set", "a=b", "--reason", &"long reason ".repeat(9)]).expect(0);
    root.ok("state phase a-phase-whose-name-is-so-long-that-no-table-can-bear-it-nor-should");
    root.ok(&format!(
        "recover checkpoint {} {{\"version\":\"1.2.3\",\"note\":\"{}\"}}",
        "x".repeat(60),
        "y".repeat(60)
    ));
    let name = "n".repeat(70);
    root.ok(&format!(
        "lock acquire {name} {{\"purpose\":\"{}\"}} --owner-pid {}",
        "p".repeat(90),
        owner.pid()
    ));
    root.ok(&format!("lock acquire deploy --owner-pid {}", owner.pid()));
    root
}

const TABLES: [&str; 4] = ["lock list", "recover list", "state backups", "state history"];

#[test]
fn a_table_fits_a_terminal_and_is_whole_in_a_pipe() {
    if !installed("script") {
        return;
    }
    let owner = Owner::new();
    let root = busy_root(&owner);
    let mut waiter = root.spawn("lock run deploy -- true");
    let waits = || root.ok("lock list --json").contains(r#""status":"waiting""#);
    until("it waits", waits);
    for table in TABLES {
        let whole = root.ok(table);
        assert!(
            !whole.contains('…') && whole.lines().any(|line| line.chars().count() > 80),
            "{whole}"
        );
        for columns in [80, 60, 40] {
            let (_, shown) = in_terminal(&root, columns, table);
            let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(
                widest <= columns.into() && shown.contains('…'),
                "{columns}: {widest}\n{shown}"
            );
            assert_eq!(shown.lines().count(), whole.lines().count(), "{shown}");
        }
        let (_, wide) = in_terminal(&root, 500, table);
        assert_eq!(
            wide.lines().next(),
            whole.lines().next(),
            "where there is room nothing is left out"
        );
    }
    for status in ["state status", "lock status"] {
        let (_, shown) = in_terminal(&root, 80, status);
        let holder = shown.lines().find(|line| line.starts_with("  n")).unwrap();
        assert!(holder.chars().count() <= 80, "{holder}");
    }
    drop(owner);
    assert!(waiter.wait().unwrap().success());
}

#[test]
fn columns_are_aligned_for_every_script() {
    let root = Sandbox::initialized();
    root.run_args(&["recover", "checkpoint", "wide", "部署中的阶段"]).expect(0);
    let listed = root.ok("recover list");
    let (head, row) = listed.split_once('\n').unwrap();
    let before = head.split_once("REVISION").unwrap().0;
    let (phase, numbers) = row.split_at(row.find("段").unwrap() + "段".len());
    let number = numbers.len() - numbers.trim_start().len();
    assert_eq!(phase.width() + number + 1, before.width() + "REVISION".len(), "{listed}");
    if !installed("script") {
        return;
    }
    root.run_args(&["recover", "checkpoint", "wide", &"部署中的阶段".repeat(20)]).expect(0);
    let (_, shown) = in_terminal(&root, 60, "recover list");
    assert!(shown.lines().all(|line| line.width() <= 60) && shown.contains('…'), "{shown}");
}

#[test]
fn of_a_holder_it_is_the_command_that_is_cut() {
    if !installed("script") {
        return;
    }
    let root = Sandbox::initialized();
    let script = root.script("bash", &format!("read -r _; : {}", "x".repeat(60)));
    root.ok(&format!("lock acquire deploy --owner-pid {}", script.pid()));
    for columns in [60, 50] {
        let (_, shown) = in_terminal(&root, columns, "state status");
        let holder = shown.lines().find(|line| line.starts_with("  deploy: ")).unwrap();
        assert!(holder.ends_with("…)") && holder.chars().count() <= columns.into(), "{holder}");
    }
}

#[test]
fn colour_is_for_terminals_or_on_request() {
    let root = Sandbox::with_history();
    for words in ["state status", "state validate", "recover doctor", "recover status", "lock list"]
    {
        assert!(!root.run(words).stdout.contains('\u{1b}'), "{words}: not in a pipe");
    }
    let green = "\u{1b}[32mhealthy\u{1b}[0m";
    assert!(root.ok("state status --color always").contains(green));
    if !installed("script") {
        return;
    }
    assert!(in_terminal(&root, 80, "state status").0.contains(green));
    assert!(!in_terminal(&root, 80, "state status --color never").0.contains('\u{1b}'));
}

#[test]
fn whether_there_is_colour_is_one_decision_for_help_errors_and_results() {
    let root = Sandbox::with_history();
    root.overwrite("{}"); // damage for the doctor, and an error for a writer
    let all = [
        "--help",
        "state get --help",
        "",
        "state",
        "state nosuch",
        "state status",
        "recover doctor",
        "state set a=b",
    ];
    let missing = "lock run missing -- no-such-program";
    for words in all.into_iter().chain([missing]) {
        for (options, is_coloured) in
            [("--color always", true), ("--color=always", true), ("", false)]
        {
            let args: Vec<&str> =
                options.split_whitespace().chain(words.split_whitespace()).collect();
            let ran = root.run_args(&args);
            let is_seen = (ran.stdout.clone() + &ran.stderr).contains('\u{1b}');
            assert_eq!(is_seen, is_coloured, "{options} {words}, in a pipe: {ran:?}");
            assert!(
                !(ran.stdout + &ran.stderr).contains("u{1b}"),
                "colour is escaped: {options} {words}"
            );
        }
        if !installed("script") {
            continue;
        }
        for (variable, options, is_coloured) in [
            ("TERM=xterm", "", true),
            ("TERM=xterm", "--color never", false),
            ("TERM=xterm", "--color=never", false),
            ("NO_COLOR=1", "", false),
            ("NO_COLOR=1", "--color auto", false),
            ("TERM=dumb", "", false),
            ("TERM=dumb", "--color always", true),
        ] {
            let line = format!("env {variable} {BINARY} {options} {words}");
            let shown = root
                .program("script")
                .env("TERM", "xterm")
                .args(["-qec", &line, "/dev/null"])
                .output()
                .unwrap();
            let shown = Ran::of(shown).stdout;
            assert_eq!(shown.contains('\u{1b}'), is_coloured, "{line}: {shown:?}");
        }
    }
}

#[test]
fn slow_commands_count_seconds_on_a_terminal_and_clear_the_line() {
    if !installed("script") {
        return;
    }
    let root = Sandbox::initialized();
    let mut holder = root.holder("config");
    // two commands that take as long as their locks are held
    let mut piped = root.spawn("recover checkpoint piped --lock-timeout 60");
    let mut log = BufReader::new(piped.stderr.take().unwrap());
    let mut said = String::new();
    log.read_line(&mut said).unwrap();
    assert!(said.starts_with("waiting for "), "{said}");
    let command = format!("{BINARY} recover checkpoint shown --lock-timeout 60");
    let mut shown = root
        .program("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .spawn()
        .unwrap();
    let mut screen = BufReader::new(shown.stdout.take().unwrap());
    let (mut seen, line) = (Vec::new(), b"\rmaking a checkpoint: ");
    while seen.windows(line.len()).filter(|part| part == line).count() < 2 {
        assert_ne!(
            screen.read_until(b'K', &mut seen).unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&seen)
        );
    }
    holder.go();
    let mut rest = String::new();
    screen.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\r\u{1b}[KCheckpoint created: ") && !rest.ends_with('K'), "{rest:?}");
    assert!(shown.wait().unwrap().success());
    log.read_to_string(&mut said).unwrap();
    assert!(
        piped.wait().unwrap().success() && !said.contains("making"),
        "in a pipe there is nothing to count on: {said}"
    );
}

/// A command that keeps running, and the lines it prints.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn new(root: &Sandbox, words: &str) -> Self {
        Self::of(root.command().args(words.split(' ')))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Reads until a line contains this. It comes at once or never.
    #[track_caller]
    fn reads(&mut self, words: &str) {
        let mut next = || self.lines.recv_timeout(Duration::from_secs(60)).ok();
        assert!(
            std::iter::from_fn(&mut next).any(|line| line.contains(words)),
            "{words:?} never came"
        );
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watched_status_is_shown_again_at_each_change() {
    let root = Sandbox::with_history();
    let mut state = Follower::new(&root, "state status --watch");
    state.reads("healthy, revision 4");
    root.ok("state phase built");
    state.reads("built");
    root.ok("state backup mine");
    state.reads("1 pinned");
    root.overwrite("");
    state.reads("damaged");
    state.reads("error: ");
    root.ok("state read");
    state.reads("healthy, revision 6");
    let mut recovery = Follower::new(&root, "recover status -w --json");
    recovery.reads("\"checkpoints\":0");
    root.ok("recover checkpoint op");
    recovery.reads("\"checkpoints\":1");
    root.run("recover handle 8 --operation fetch").expect(0);
    recovery.reads("\"component\":\"fetch\"");
}

#[test]
fn a_watched_lock_status_shows_grants_and_an_owners_death() {
    let root = Sandbox::named(); // there are not even directories
    let mut locks = Follower::new(&root, "lock status --watch --json");
    locks.reads("\"held\":0");
    let owner = Owner::new();
    root.ok(&format!("lock acquire deploy --owner-pid {}", owner.pid()));
    locks.reads("\"held\":1");
    drop(owner);
    locks.reads("\"stale\":1");
    root.ok("lock clean");
    locks.reads("\"stale\":0");
}

#[test]
fn a_watched_status_shows_the_death_of_an_unwatchable_owner() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::initialized();
    let owner = Owner::new();
    root.ok(&format!("lock acquire deploy --owner-pid {}", owner.pid()));
    // as if it had ended after it was observed, or the kernel had no more descriptors
    let options = injection("pidfd_open", "error=ESRCH");
    let options = options.each_ref().map(String::as_str);
    let mut locks =
        Follower::of(&mut strace(&root, &options, ["lock", "status", "--watch", "--json"]));
    locks.reads("\"held\":1");
    drop(owner);
    locks.reads("\"stale\":1");
}

#[test]
fn a_watched_status_shows_a_moved_and_replaced_root() {
    let root = Sandbox::initialized();
    let (here, away) = (root.path().join("r"), root.path().join("away"));
    std::fs::create_dir(&here).unwrap();
    root.ok("--root r state init");
    let mut state = Follower::new(&root, "--root r state status --watch --json");
    state.reads("\"revision\":1");
    let mut recovery = Follower::new(&root, "--root r recover status --watch --json");
    recovery.reads("\"health\":\"healthy\"");
    std::fs::rename(&here, &away).unwrap();
    recovery.reads("\"health\":\"unknown\"");
    assert_eq!(state.child.wait().unwrap().code(), Some(5), "without a root there is no state");
    std::fs::create_dir(&here).unwrap();
    root.ok("--root r state init");
    recovery.reads("\"health\":\"healthy\"");
}

#[test]
fn durations_of_a_watched_status_tick_in_a_terminal() {
    if !installed("script") {
        return;
    }
    let owner = Owner::new();
    let root = Sandbox::initialized();
    root.ok(&format!("lock acquire deploy --owner-pid {}", owner.pid()));
    let line = format!("stty cols 80 rows 24; exec {BINARY} lock status --watch");
    let watched = Follower::of(
        root.program("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm"),
    );
    let mut shown: Vec<String> = Vec::new();
    while shown.len() < 3 {
        let line = watched.lines.recv_timeout(Duration::from_secs(60)).expect("it stands still");
        if let Some((_, duration)) = line.split_once("deploy: held for ")
            && !shown.iter().any(|known| known == duration)
        {
            shown.push(duration.to_owned());
        }
    }
}

#[test]
fn a_watched_status_ends_when_its_reader_is_gone() {
    let root = Sandbox::initialized();
    for group in ["state", "lock", "recover"] {
        let ran = root.bash(&format!(
            "set -o pipefail; $PIPELINE_BINARY {group} status --watch --json | head -1"
        ));
        assert_eq!(
            (ran.code, ran.stdout.lines().count(), ran.stderr.as_str()),
            (0, 1, ""),
            "{group}"
        );
    }
}

#[test]
fn ctrl_c_ends_a_watched_status_without_a_word() {
    let root = Sandbox::initialized();
    let mut watched = Follower::new(&root, "state status --watch");
    watched.reads("healthy");
    let pid = watched.child.id().to_string();
    assert!(root.program("kill").args(["-INT", &pid]).status().unwrap().success());
    until("it ends", || watched.child.try_wait().unwrap().is_some());
}

#[test]
fn a_misspelt_name_is_answered_with_the_one_that_was_meant() {
    let root = Sandbox::with_history();
    let owner = Owner::new();
    let me = owner.pid();
    root.ok(&format!("lock acquire deploy --owner-pid {me}"));
    root.ok("state backup before-upgrade");
    let id = root.ok("recover checkpoint deployment").replace("Checkpoint created: ", "");
    let asked = [
        (
            format!("lock release depoly --owner-pid {me}"),
            "hint: pipeline-state lock release deploy ".to_owned(),
        ),
        (
            "lock break deplo --force".to_owned(),
            "hint: pipeline-state lock check deploy ".to_owned(),
        ),
        (
            "state recover befor-upgrade".to_owned(),
            "hint: pipeline-state state recover before-upgrade ".to_owned(),
        ),
        ("recover show deployment".to_owned(), format!("hint: pipeline-state recover show {id} ")),
        (format!("recover restore {id}s"), format!("hint: pipeline-state recover show {id} ")),
    ];
    for (words, hint) in asked {
        let told = root.run(&words).expect(1).stderr;
        assert_eq!(
            told.lines().nth(1).map(|line| line.starts_with(&hint)),
            Some(true),
            "{words}: {told}"
        );
    }
    let command = root.run("state sett a=b").expect(64).stderr;
    assert!(
        command.contains("hint: pipeline-state state set a=b   # did you mean"),
        "the nearest: {command}"
    );
    let ungrouped = root.run("list").expect(64).stderr;
    for group in ["lock", "recover"] {
        assert!(ungrouped.contains(&format!("hint: pipeline-state {group} list\n")), "{ungrouped}");
    }
    let other = root.run("lock release something-else --owner-pid 1").expect(1).stderr;
    assert!(!other.contains("did you mean"), "{other}");
}

#[test]
fn the_name_of_a_root_steers_no_terminal() {
    let place = Sandbox::empty();
    let root = format!("{}/odd\u{1b}[2J\nname\u{9b}", place.path().display());
    std::fs::create_dir(&root).unwrap();
    let log = format!("{root}/audit.log");
    let run = |words: &str| {
        let mut args = vec!["--root", &root, "--audit-log", &log];
        args.extend(words.split(' '));
        place.run_args(&args)
    };
    let mut shown = 0;
    for words in [
        "state init",
        "hook init-rules",
        "hook check",
        "state backup",
        "state validate",
        "state status",
        "lock status",
        "recover checkpoint op",
        "recover list",
        "recover status",
        "recover metrics",
        "recover doctor",
        "state history",
    ] {
        if words == "hook check" {
            std::fs::write(format!("{root}/config/skill-rules.json"), "{\"tool_rule\": []}")
                .unwrap(); // a finding names the file
        }
        let ran = run(words).expect(0);
        let steers = |c: char| c.is_control() && c != '\n';
        let is_torn = ran.stdout.lines().any(|line| line.starts_with("name"));
        assert!(!ran.stdout.contains(steers) && !is_torn, "{words}: {:?}", ran.stdout);
        shown += ran.stdout.matches("odd\\u{1b}[2J\\nname\\u{9b}").count();
    }
    assert!(shown >= 7, "only {shown} paths are shown");
    let wanted = std::fs::canonicalize(&root).unwrap().join(".workflow-state.json");
    let told = run("state status --json").expect(0).json()["path"].as_str().map(str::to_owned);
    assert_eq!(told.as_deref(), wanted.to_str(), "a program gets it as it is");
}
