//! A state file, or a whole root, that is absent for a moment.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use crate::observed::{Call, Fault, Observed};
use pipeline_state::fs::Disk;
use pipeline_state::store::FileStore;

use crate::races::{increment, store_on};
use crate::sandbox::{Ran, Sandbox, until};

/// A disk that puts the state file back just before the second lookup in its place.
fn returning(root: &Sandbox) -> Disk {
    let (away, state, looks) = (root.file("away"), root.state(), Cell::new(0));
    Disk::new(Rc::new(Observed::new(move |call: &Call| {
        if call.name == "stat" && call.path == state && away.exists() {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                fs::rename(&away, &state).unwrap();
            }
        }
        Fault::None
    })))
}

/// A root after its state file was just moved away; the clock has no effect, since the time is in
/// the future.
fn gone() -> Sandbox {
    let root = Sandbox::with_history();
    fs::rename(root.state(), root.file("away")).unwrap();
    date(&root, SystemTime::now() + Duration::from_secs(3600));
    root
}

fn date(root: &Sandbox, time: SystemTime) {
    fs::File::open(root.path()).unwrap().set_modified(time).unwrap();
}

fn store(root: &Sandbox) -> FileStore {
    store_on(root, returning(root))
}

#[test]
fn readers_and_writers_wait_for_a_file_that_comes_back() {
    let root = gone();
    assert_eq!(store(&root).read().unwrap().value["n"], 3);
    let root = gone();
    increment(&store(&root)).unwrap();
    assert_eq!(root.document()["n"], 4);
    let root = gone();
    store(&root).backup(None).unwrap();
}

#[test]
fn reports_and_repairs_do_not_wait() {
    let root = gone();
    let store = store(&root).reporting_absence();
    assert_eq!(store.read().unwrap_err().kind.name(), "missing");
    assert_eq!(increment(&store).unwrap_err().kind.name(), "missing");
    let root = gone();
    let began = Instant::now();
    for words in ["state validate", "state status", "recover doctor", "state init"] {
        assert_eq!(root.run(words).code, 3, "{words}");
    }
    root.ok("state recover");
    assert!(began.elapsed() < Duration::from_secs(60), "none of them waits for ever");
}

#[test]
fn a_file_that_is_gone_for_long_is_missing_at_once_and_the_wait_ends() {
    let root = Sandbox::with_history();
    fs::remove_file(root.state()).unwrap();
    root.run("state get .n").expect(3); // a second at most
    date(&root, SystemTime::now() - Duration::from_secs(10));
    root.run("state get .n").expect(3);
    root.run("state set a=b").expect(3);
}

struct Watcher {
    child: Child,
    lines: Receiver<String>,
}

impl Watcher {
    fn new(root: &Sandbox, dir: &str, filter: &str) -> Self {
        let mut child =
            root.command().args(["--root", dir, "state", "watch", filter]).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    #[track_caller]
    fn reads(&self, expected: &str) {
        assert_eq!(self.lines.recv_timeout(Duration::from_secs(60)).as_deref(), Ok(expected));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True if a process has an inotify descriptor and sleeps.
fn is_watching(pid: u32) -> bool {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let has_inotify = targets.any(|target| target.to_string_lossy().contains("inotify"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    has_inotify && stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// A sandbox with a state in `r` and `.n` 1.
fn below() -> Sandbox {
    let root = Sandbox::empty();
    fs::create_dir(root.file("r")).unwrap();
    root.ok("--root r state init");
    root.ok("--root r state set n:=1");
    root
}

#[test]
fn watch_outlasts_absence_damage_and_edits() {
    let root = below();
    let (state, away) = (root.file("r/.workflow-state.json"), root.file("away"));
    let watcher = Watcher::new(&root, "r", ".n");
    watcher.reads("1");
    fs::rename(&state, &away).unwrap();
    fs::rename(&away, &state).unwrap();
    root.ok("--root r state set n:=2");
    watcher.reads("2");
    let sealed = fs::read_to_string(&state).unwrap();
    fs::write(&state, sealed.replace("\"n\": 2", "\"n\": 20")).unwrap();
    fs::write(&state, "{\"torn").unwrap();
    root.ok("--root r state recover");
    watcher.reads("2");
    root.ok("--root r state set n:=3");
    watcher.reads("3");
}

#[test]
fn wait_and_watch_follow_a_root_that_is_replaced() {
    let root = below();
    let watcher = Watcher::new(&root, "r", ".n");
    watcher.reads("1");
    let mut waiting = root.command();
    let waiting = waiting
        .args(["--root", "r", "state", "wait", ".n == 2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("it looked and sleeps", || is_watching(waiting.id()));
    let swap = "cp -a r new && mv r old && mv new r";
    root.bash(swap).expect(0);
    root.ok("--root r state set n:=2");
    watcher.reads("2");
    Ran::of(waiting.wait_with_output().unwrap()).expect(0);
    // its directory disappears and comes back
    let root = Sandbox::empty();
    fs::create_dir_all(root.file("d/r")).unwrap();
    root.ok("--root d/r state init");
    let watcher = Watcher::new(&root, "d/r", ".n");
    watcher.reads("null");
    root.bash("cp -a d new && mv d old && mv new d").expect(0);
    root.ok("--root d/r state set n:=5");
    watcher.reads("5");
}

#[test]
fn a_permanent_error_ends_watch() {
    let root = below();
    root.run("--root nowhere state watch .n").expect(5);
    root.run("--root r state wait .n.x.y").expect(4);
    let mut watcher = Watcher::new(&root, "r", ".n.x");
    assert_eq!(watcher.child.wait().unwrap().code(), Some(4));
}
