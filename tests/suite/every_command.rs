//! Every changing command, the real program under strace(1): killed before each of its changing
//! calls, and with failing calls.
//!
//! A command is one line of [`commands`]. A normal run shows its possible results: the document,
//! `config/`, the signals, the checkpoints and the locks are each as before or as after it; every
//! acknowledged change is there; the next writer succeeds and leaves the root in order. Stronger
//! claims about single commands, and kills before other calls, are in `kill`, `restore_kill`,
//! `lock_kill` and `lock_queue_kill`; a command that these kill at every call is not killed here
//! again ([`Row::killed_elsewhere`]), but fails here.
//!
//! Every [`DEATHS`]th kill is tried, and every [`FAILURES`]th failure (each error at each call on
//! the root that can return it); `PROOFS=all` tries all.

mod roots;
mod view;

use std::fs::{self, File};
use std::time::Instant;

use pipeline_state::error::ExitCode;
use pipeline_state::fs::Disk;
use pipeline_state::lock::{LockEntry, Mode};
use pipeline_state::store::change::Outcome;
use pipeline_state::store::options::WriteOptions;
use serde_json::json;

use self::roots::*;
use self::view::View;
use crate::effort::sampled;
use crate::faults::store;
use crate::kill::{assert_settled, damaged, precious};
use crate::lock_faults::{acquire, locks_on, release};
use crate::lock_kill::leftovers;
use crate::owners::Owner;
use crate::sandbox::{Ran, Sandbox, installed};
use crate::snapshots::{assert_tidy, twin};
use crate::strace::{Call, calls_in, in_parallel, injection, strace};

const DEATHS: usize = 3;
const FAILURES: usize = 31;

/// A command, and its initial root.
struct Row {
    /// Split at spaces; OWNER is the pid of a process that owns locks.
    words: &'static str,
    start: fn(&Owner) -> Sandbox,
    input: &'static str,
    /// The command that makes a refused initial state readable.
    remedy: Option<&'static str>,
    steps: Steps,
    kills: Kills,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// It makes one change, and confirms it.
    One,
    /// It makes several changes with output in between; if it fails, some may be done.
    Several,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kills {
    Here,
    Elsewhere,
}

fn row(words: &'static str, start: fn(&Owner) -> Sandbox) -> Row {
    Row { words, start, input: "", remedy: None, steps: Steps::One, kills: Kills::Here }
}

impl Row {
    fn fed(self, input: &'static str) -> Self {
        Self { input, ..self }
    }

    fn refused_until(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }

    fn in_steps(self) -> Self {
        Self { steps: Steps::Several, ..self }
    }

    fn killed_elsewhere(self) -> Self {
        Self { kills: Kills::Elsewhere, ..self }
    }
}

/// All changing commands. To add one, add its line.
fn commands() -> Vec<Row> {
    const DOCUMENT: &str =
        r#"{"phase":"written","completedTasks":["a"],"signals":{},"lastActivation":"now"}"#;
    const PROMPT: &str =
        r#"{"hook_event_name":"UserPromptSubmit","prompt":"write a specification"}"#;
    const USE: &str = concat!(
        r#"{"hook_event_name":"PostToolUse","tool_name":"Write","#,
        r#""tool_input":{"file_path":"docs/spec.md"}}"#
    );
    const SESSION: &str = r#"{"hook_event_name":"SessionStart","source":"startup"}"#;
    vec![
        row("state init", empty).refused_until("state init").killed_elsewhere(),
        row("state init --fresh --yes", history).killed_elsewhere(),
        row("state read", |_| damaged()).killed_elsewhere(),
        row("state set n:=7 m=seven", history).killed_elsewhere(),
        row("state set n:=7 --fence deploy:1", deploy_held),
        row("state write -", history).fed(DOCUMENT).killed_elsewhere(),
        row("state phase build", history),
        row("state complete lint unit", history),
        row("state unset n", history),
        row("state undo", history),
        row("state signal GO --phase gone", history),
        row("state signal GO --clear", signalled),
        row("state backup mine", history).killed_elsewhere(),
        row("state recover", |_| damaged()).killed_elsewhere(),
        row("state recover", |_| deleted()).refused_until("state recover"),
        row("state recover r2-", history).killed_elsewhere(),
        row("state recover --to-revision 2", history),
        row("state adopt", |_| edited()).refused_until("state adopt").killed_elsewhere(),
        row("state migrate", |_| legacy()).killed_elsewhere(),
        row("state edit", with_programs),
        row("lock acquire deploy 0 --owner-pid OWNER", history).killed_elsewhere(),
        row("--root . lock acquire deploy 0 --ttl 1h --owner-pid OWNER", |_| Sandbox::named()),
        row("lock acquire a,b,state 0 {\"for\":\"test\"} --owner-pid OWNER", history)
            .killed_elsewhere(),
        row("lock acquire deploy 0 --reentrant --owner-pid OWNER", deploy_held),
        row("lock acquire deploy 0 shared --owner-pid OWNER", deploy_held),
        row("lock release deploy --owner-pid OWNER", deploy_held).killed_elsewhere(),
        row("lock release deploy --token 1", deploy_held),
        row("lock break deploy --token 1", deploy_held),
        row("lock renew deploy --ttl 2h --token 1", deploy_held),
        row("lock clean", |_| deserted()).killed_elsewhere(),
        row("lock run deploy -- true", history).in_steps().killed_elsewhere(),
        row("recover checkpoint again", checkpointed).killed_elsewhere(),
        row("recover restore --latest good", checkpointed).killed_elsewhere(),
        row("recover cleanup 0", twice_checkpointed).killed_elsewhere(),
        row("recover guard step -- ./fails", with_programs).in_steps(),
        row("recover guard step -- ./succeeds", with_programs).in_steps(),
        row("recover degrade slow-disk reports,thumbnails", history),
        row("recover recover-mode", degraded),
        row("recover handle 2", |_| deserted()).in_steps(),
        row("recover handle 3", |_| deleted()).refused_until("state recover").in_steps(),
        row("recover handle 4", |_| invalid()).refused_until("recover handle 4").in_steps(),
        row("recover handle 7", littered).in_steps(),
        row("recover doctor --fix", littered).in_steps(),
        row("hook skill-activation-prompt", ruled).fed(PROMPT).in_steps(),
        row("hook post-tool-use-tracker", ruled).fed(USE),
        row("hook init-rules", history),
        row("report -o report.html", history),
        row("hook session-start", history).fed(SESSION),
        row("hook install --absolute", history).killed_elsewhere(),
        row("hook uninstall", hooked),
        row("recover remove 2", checkpointed),
    ]
}

// ---- a case ----

struct Job {
    row: Row,
    owner: Owner,
    start: Sandbox,
    before: View,
    after: View,
    code: i32,
    calls: Vec<Call>,
    precious: Vec<Vec<u8>>,
    /// The number of them that a full disk may cost: all automatic backups except two.
    spared_at_most: usize,
}

impl Job {
    fn new(row: Row) -> Self {
        let owner = Owner::new();
        let start = (row.start)(&owner);
        let before = View::of(&twin(&start));
        assert_eq!(
            before.document.is_none(),
            row.remedy.is_some() || !start.state().exists(),
            "{}",
            row.words
        );
        // an adopted edit continues unchanged, and the revision under it must stay
        let extra_fields: &[&str] = match row.words {
            "state adopt" => &[".state-backups/mirror.json"],
            _ if start.state().exists() => &[".workflow-state.json"],
            _ => &[],
        };
        let precious = precious(&start, extra_fields);
        let spared_at_most = (precious.len() - extra_fields.len()).saturating_sub(2);
        let mut job = Self {
            row,
            owner,
            start,
            after: before.clone(),
            before,
            code: 0,
            calls: Vec::new(),
            precious,
            spared_at_most,
        };
        let root = twin(&job.start);
        let traces = Sandbox::empty();
        let trace = traces.file("trace");
        let ran = job.run(&root, &["-y", "-o", trace.to_str().unwrap()]);
        assert!([0, 3].contains(&ran.code), "{}: {ran:?}", job.row.words);
        job.code = ran.code;
        let place = root.path().to_str().unwrap();
        job.calls = calls_in(&fs::read_to_string(trace).unwrap(), place);
        let on_root = |call: &Call| {
            call.line.replace("AT_FDCWD<ROOT>", "").contains("ROOT") || call.name == "exit_group"
        };
        job.calls.retain(on_root);
        job.after = View::of(&root);
        job
    }

    fn run(&self, root: &Sandbox, options: &[&str]) -> Ran {
        let stdin = root.file("stdin");
        fs::write(&stdin, self.row.input).unwrap();
        let words = self.row.words.replace("OWNER", &self.owner.pid().to_string());
        let mut command = strace(root, options, words.split(' '));
        command.env("EDITOR", "./editor").env_remove("VISUAL").stdin(File::open(&stdin).unwrap());
        let ran = Ran::of(command.output().unwrap());
        fs::remove_file(stdin).unwrap();
        ran
    }

    fn inject(&self, root: &Sandbox, call: &Call, fault: &str) -> Ran {
        let options = injection(&call.name, &format!("{fault}:when={}", call.nth));
        self.run(root, &options.each_ref().map(String::as_str))
    }

    fn killed_before(&self, call: &Call) {
        let root = twin(&self.start);
        let ran = self.inject(&root, call, "signal=SIGKILL");
        let place = format!(
            "{:?}, killed before {} #{}: {}",
            self.row.words, call.name, call.nth, call.line
        );
        assert_eq!(ran.code, 128 + 9, "it was not killed: {place}\n{ran:?}");
        let acknowledged = !ran.stdout.is_empty() && self.row.steps == Steps::One;
        let found = self.look(&root, &place);
        assert!(
            found.is(&self.after) || !acknowledged,
            "acknowledged and lost: {place}\n{found:#?}"
        );
        self.next_commands(&root, 0, &place);
    }

    fn failing_at(&self, call: &Call, error: &str, code: i32) {
        let root = twin(&self.start);
        let ran = self.inject(&root, call, &format!("error={error}"));
        let place = format!(
            "{:?}, {error} from {} #{}: {}\n{ran:?}",
            self.row.words, call.name, call.nth, call.line
        );
        let expected =
            if ["hook post", "hook session"].iter().any(|hook| self.row.words.starts_with(hook)) {
                1
            } else {
                code
            }; // an editor reads some codes its own way
        let said: Vec<&str> =
            ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let unconfirmed = ran.stderr.contains("did not confirm") || ran.stderr.contains("decided");
        // a guarded command's own code, or that of the worst finding, differs from this error's
        if self.row.steps == Steps::One {
            assert!(
                [0, expected].contains(&ran.code) || (ran.code == 1 && unconfirmed),
                "not {expected}: {place}"
            );
            let named = if ran.code == expected { code } else { ran.code };
            assert_eq!(said.len(), usize::from(ran.code != 0), "not one sentence: {place}");
            let name = ExitCode::of(u8::try_from(named).unwrap())
                .map(|code| format!("[{}]", code.name()))
                .unwrap();
            assert!(
                said.iter().all(|line| line.ends_with(&name)),
                "not the name of its code: {place}"
            );
        }
        assert!(
            !self.row.words.starts_with("hook") || ran.code != 2,
            "it blocks a person: {place}"
        );
        let found = self.look(&root, &place);
        if self.row.steps == Steps::One {
            // parts of a change outside the document may fail after the commit, with a warning
            let but_for = View { signals: self.after.signals.clone(), ..found.clone() };
            let done = found.is(&self.after)
                || (but_for.is(&self.after) && ran.stderr.contains("warning: "));
            assert!(
                done || ran.code != 0,
                "success is reported, but not the change: {place}\n{found:#?}"
            );
            let untouched =
                found.document == self.before.document && found.locks == self.before.locks;
            assert!(
                untouched || ran.code == 0 || unconfirmed || self.after.is(&self.before),
                "failure is reported, but there is a change: {place}\n{found:#?}"
            );
        }
        self.next_commands(&root, if code == 7 { self.spared_at_most } else { 0 }, &place);
    }

    /// The result: each part as before or as after the command.
    fn look(&self, root: &Sandbox, place: &str) -> View {
        let mut found = View::of(root);
        if let Some(remedy) = self.row.remedy
            && found.document.is_none()
        {
            let before = found.clone();
            let mended = root.run(remedy);
            assert_eq!(mended.code, 0, "{remedy}: {place}\n{mended:?}");
            found = View { document: None, revision: before.revision, ..View::of(root) };
        }
        let initialized = root.file(".state-backups").exists() || self.before.document.is_some();
        assert!(
            found.document.is_some() || self.row.remedy.is_some() || !initialized,
            "a bad read: {place}"
        );
        let mended = View { document: self.before.document.clone(), ..found.clone() };
        let between = if found.document.is_none() { mended } else { found.clone() };
        assert!(
            between.is_between(&self.before, &self.after),
            "neither before nor after: {place}\n{found:#?}\n{:#?}",
            self.after
        );
        found
    }

    /// The next writer and the next lock succeed, and leave the root in order.
    fn next_commands(&self, root: &Sandbox, spared: usize, place: &str) {
        for LockEntry { lock, .. } in locks_on(root, Disk::real()).list().unwrap() {
            root.ok(&format!("lock break {lock} --force")); // its owner lives
        }
        let real = store(root, Disk::real());
        if root.run("state read").code == 1 {
            root.ok("state init"); // a lock in a root without a state
        }
        let next = real.change(&WriteOptions::of("set"), &mut |base| {
            let mut value = base.draft();
            value["z"] = json!(1);
            Ok(value.into())
        });
        assert!(
            matches!(next, Ok(Outcome::Committed { .. })),
            "the next writer fails: {place}\n{next:?}"
        );
        if self.row.words == "hook init-rules" {
            // `config/` is its user's, so only this command clears its leftovers
            root.run(self.row.words);
        }
        if self.row.words.contains("doctor") {
            root.run("recover doctor"); // its scratch directory is its own
        }
        let shed = self.row.words.contains("handle 7");
        let precious = &self.precious[if shed { self.spared_at_most } else { spared }..];
        assert_settled(
            root,
            if self.row.words.contains("handle 4") { &[] } else { precious },
            place,
        );
        assert_tidy(root, place);
        let locks = locks_on(root, Disk::real());
        acquire(&locks, "next", Mode::Exclusive)
            .unwrap_or_else(|error| panic!("the next acquire: {error}: {place}"));
        release(&locks, "next")
            .unwrap_or_else(|error| panic!("the next release: {error}: {place}"));
        locks.clean(Instant::now()).unwrap();
        assert_eq!(leftovers(root), [""; 0], "{place}");
    }
}

/// The errors, their exit codes, and the calls that may return them; `create` means opens that
/// create a file.
const ERRORS: [(&str, i32, &[&str]); 6] = [
    (
        "EIO",
        1,
        &[
            "openat",
            "write",
            "fsync",
            "linkat",
            "rename",
            "unlinkat",
            "mkdirat",
            "symlinkat",
            "getdents64",
            "read",
        ],
    ),
    ("ENOSPC", 7, &["create", "write", "linkat", "rename", "mkdirat", "symlinkat"]),
    ("EDQUOT", 7, &["create", "write", "linkat", "rename", "mkdirat", "symlinkat"]),
    ("EACCES", 6, &["openat", "linkat", "rename", "unlinkat", "mkdirat"]),
    ("EROFS", 6, &["create", "linkat", "rename", "unlinkat", "mkdirat", "symlinkat", "fchmod"]),
    ("EMFILE", 10, &["openat"]),
];

fn may_return(call: &Call, names: &[&str]) -> bool {
    let name = if call.name.starts_with("rename") { "rename" } else { &call.name };
    let name = if name.starts_with("fchmod") { "fchmod" } else { name };
    names.contains(&name) || (names.contains(&"create") && call.line.contains("O_CREAT"))
}

#[test]
fn killed_at_any_changing_call_a_command_leaves_before_or_after() {
    if !installed("strace") {
        return;
    }
    let began = Instant::now();
    let rows = commands().into_iter().filter(|row| row.kills == Kills::Here);
    let jobs: Vec<Job> = rows.map(Job::new).collect();
    let cases: Vec<(&Job, &Call)> = jobs
        .iter()
        .flat_map(|job| job.calls.iter().filter(|call| call.changes()).map(move |call| (job, call)))
        .collect();
    let sampled: Vec<_> = cases.iter().step_by(sampled(DEATHS, 1)).collect();
    in_parallel(&sampled, |(job, call)| job.killed_before(call));
    println!(
        "{} commands, killed at {} of {} calls, {:.1} s",
        jobs.len(),
        sampled.len(),
        cases.len(),
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn a_failed_call_is_reported_and_blocks_no_later_command() {
    if !installed("strace") {
        return;
    }
    let began = Instant::now();
    let jobs: Vec<Job> = commands().into_iter().map(Job::new).collect();
    let mut cases = Vec::new();
    for job in &jobs {
        for call in &job.calls {
            let errors = ERRORS.iter().filter(|(_, _, names)| may_return(call, names));
            cases.extend(errors.map(|(error, code, _)| (job, call, *error, *code)));
        }
    }
    let sampled: Vec<_> = cases.iter().step_by(sampled(FAILURES, 1)).collect();
    in_parallel(&sampled, |(job, call, error, code)| job.failing_at(call, error, *code));
    println!(
        "{} commands, {} of {} failures, {:.1} s",
        jobs.len(),
        sampled.len(),
        cases.len(),
        began.elapsed().as_secs_f64()
    );
}
