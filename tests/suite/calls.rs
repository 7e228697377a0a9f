//! System calls of a command, counted to catch slow growth: a time would be noise. Counting starts
//! with the first access to the root; the calls of the loader and the C library before do not
//! count. See `benches/README.md`.

use std::collections::HashMap;

use pipeline_state::lock::Waiter;

use crate::owners::{Owner, Waiting, queued, sleeps};
use crate::sandbox::{BINARY, Sandbox, installed, until};
use crate::strace::{calls_in, strace};

/// Memory and the C library's own calls differ from one library to the next.
const NOT_COUNTED: [&str; 8] =
    ["brk", "munmap", "mremap", "mprotect", "madvise", "sigaltstack", "getrandom", "exit_group"];

/// The system calls of a command.
struct Asked {
    lines: Vec<String>,
    /// Opens per file of `/proc`. Their number depends on the number of ancestors.
    proc_files: HashMap<String, usize>,
    calls: usize,
}

impl Asked {
    fn by(root: &Sandbox, words: &str) -> Self {
        Self::ending(0, root, words)
    }

    fn ending(code: i32, root: &Sandbox, words: &str) -> Self {
        let trace = root.file("trace");
        let options = ["-f", "-s", "4096", "-o", trace.to_str().unwrap()];
        let output = strace(root, &options, words.split(' ')).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = std::fs::read_to_string(&trace).unwrap();
        std::fs::remove_file(&trace).unwrap();
        assert!(!text.contains("clone"), "{words} starts a thread or a process:\n{text}");
        let calls = calls_in(&text, root.path().to_str().unwrap());
        let calls = calls.into_iter().filter(|call| !NOT_COUNTED.contains(&call.name.as_str()));
        let lines: Vec<String> = calls.map(|call| call.line).collect();
        let mut proc_files = HashMap::new();
        for line in lines.iter().filter(|line| line.starts_with("open")) {
            if let Some((_, rest)) = line.split_once("\"/proc/") {
                let path = rest.split('"').next().unwrap_or_default();
                *proc_files.entry(path.to_owned()).or_insert(0) += 1;
            }
        }
        // Each is opened, read once and closed.
        let calls = lines.len() - 3 * proc_files.values().sum::<usize>();
        Self { lines, proc_files, calls }
    }

    #[track_caller]
    fn at_most(&self, limit: usize) -> &Self {
        assert!(
            self.calls <= limit,
            "{} calls, not {limit}:\n{}",
            self.calls,
            self.lines.join("\n")
        );
        assert!(
            self.calls + 2 > limit,
            "{} calls: the limit of {limit} can be lowered",
            self.calls
        );
        self
    }

    fn count(&self, call: &str) -> usize {
        self.lines.iter().filter(|line| line.starts_with(&format!("{call}("))).count()
    }
}

#[test]
fn starting_loads_the_c_library_and_no_other() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::initialized();
    let output = strace(&root, &["-e", "trace=open,openat"], ["--version"]).output().unwrap();
    let trace = String::from_utf8_lossy(&output.stderr);
    let opened = trace.lines().filter(|line| !line.contains("ENOENT") && line.contains(".so"));
    let others: Vec<&str> = opened
        .filter(|line| !["/libc.so", "/ld.so"].iter().any(|its| line.contains(its)))
        .collect();
    assert!(others.is_empty(), "see build.rs: {others:?}");
}

#[test]
fn the_program_has_a_fixed_address_and_nothing_to_relocate() {
    if !cfg!(all(target_os = "linux", target_env = "gnu", not(target_feature = "crt-static"))) {
        return;
    }
    const EXECUTABLE: u8 = 2; // ET_EXEC; 3 is a shared object, which any address suits
    assert_eq!(std::fs::read(BINARY).unwrap()[16], EXECUTABLE, "see build.rs");
}

#[test]
fn reading_asks_the_kernel_for_little_beyond_the_file() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::with_history();
    // find the root (4), configuration files (2), pending restore (1), the file (4), the answer (1)
    Asked::by(&root, "state read").at_most(12);
    Asked::by(&root, "state get .phase").at_most(12);
}

#[test]
fn a_commit_makes_the_calls_of_the_protocol_and_few_others() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::with_history();
    for n in 1..=5 {
        root.ok(&format!("state set n:={n}0")); // from now on each new backup removes one
    }
    for words in ["state set phase=x", "state update .n=7"] {
        let asked = Asked::by(&root, words);
        // The line in the journal takes ten: its author (5), and the file (5). The link count is
        // read before each of three files is opened for writing. The pid in the lock file takes
        // two.
        asked.at_most(74);
        assert_eq!(asked.count("fsync"), 2, "the new file's and its directory's");
        assert_eq!(asked.count("renameat"), 1, "of the live file");
        assert_eq!(asked.count("renameat2"), 1, "of the mirror");
        assert_eq!(
            (asked.count("linkat"), asked.count("unlinkat"), asked.count("flock")),
            (1, 2, 1),
            "a new backup; the oldest one and the old mirror"
        );
    }
}

#[test]
fn a_free_lock_takes_few_calls_and_no_sync() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::initialized();
    root.ok("lock acquire a --owner-pid 1"); // reserves tokens, and creates the permanent files
    root.ok("lock release a --owner-pid 1");
    let acquired = Asked::by(&root, &format!("lock acquire a --owner-pid {}", std::process::id()));
    let released = Asked::by(&root, &format!("lock release a --owner-pid {}", std::process::id()));
    // The line in the journal takes nine: the directory (2), the file (5), and its author.
    acquired.at_most(63);
    released.at_most(57);
    for asked in [&acquired, &released] {
        assert_eq!((asked.count("fsync"), asked.count("flock")), (0, 1));
        assert_eq!(
            asked.count("rt_sigaction"),
            0,
            "a request that is granted at once creates no wakeup pipe"
        );
        assert!(!asked.lines.iter().any(|line| line.contains(".wait-")), "and makes no lifeline");
    }
    // The owners' liveness is checked once more while holding the gate; a release checks none. The
    // journal names the owner's program.
    assert!(acquired.proc_files.values().all(|count| *count <= 3), "{:?}", acquired.proc_files);
    assert!(released.proc_files.values().all(|count| *count <= 2), "{:?}", released.proc_files);
}

#[test]
fn a_wait_costs_a_lifeline_and_few_other_calls() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::initialized();
    let owner = Owner::new();
    root.ok(&format!("lock acquire a --owner-pid {}", owner.pid()));
    // It joins the queue, sleeps once until its deadline, and leaves, before the notice of a long
    // wait.
    let asked =
        Asked::ending(2, &root, &format!("lock acquire a 0.2 --owner-pid {}", std::process::id()));
    // The gate is opened three times, each time after its link count is read, and our pid is
    // written.
    asked.at_most(226);
    let on_lifeline =
        |line: &&String| ["openat(", "unlinkat("].iter().any(|call| line.starts_with(call));
    let lifeline =
        asked.lines.iter().filter(on_lifeline).filter(|line| line.contains(".wait-")).count();
    assert_eq!(lifeline, 2, "it is created and removed:\n{}", asked.lines.join("\n"));
    assert_eq!(
        (asked.count("fsync"), asked.count("flock")),
        (0, 4),
        "three times the gate, once the lifeline"
    );
}

#[test]
fn calls_of_a_commit_do_not_grow_with_the_root() {
    if !installed("strace") {
        return;
    }
    let root = Sandbox::with_history();
    let few = Asked::by(&root, "state set n:=4").calls;
    for batch in 0..4 {
        let names: Vec<String> = (0..64).map(|n| format!("other-{batch}-{n}")).collect();
        root.ok(&format!("lock acquire {} --owner-pid {}", names.join(","), std::process::id()));
    }
    for _ in 0..20 {
        root.ok("recover checkpoint x");
    }
    std::fs::File::options()
        .append(true)
        .open(root.file("audit.log"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    assert_eq!(Asked::by(&root, "state set n:=5").calls, few);
}

#[test]
fn ten_megabytes_of_strings_are_changed_in_few_times_their_size() {
    if !installed("time") {
        return;
    }
    let root = Sandbox::initialized();
    let strings: Vec<String> =
        (0..100_000).map(|n| format!("task {n}: {}", "with some words ".repeat(6))).collect();
    let mut document = root.document();
    document["many"] = strings.into();
    root.feed("state write - --force", document.to_string().as_bytes()).expect(0);
    let bytes = root.state().metadata().unwrap().len();
    assert!(bytes > 10_000_000);
    // the largest resident memory, in KiB: time(1)
    let peak = |words: &[&str]| {
        let mut command = root.program("time");
        let output = command.args(["-f", "%M", BINARY]).args(words).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        told.trim().parse::<u64>().unwrap_or_else(|_| panic!("{told}")) * 1024
    };
    // a debug build needs more; a release build takes less than half the file
    let own = peak(&["--version"]);
    let changes = [
        (["state", "update", ".n = 1"], 3),
        (["state", "set", "phase=x"], 3),
        (["state", "set", "n:=2"], 3),
    ];
    for (words, times) in changes {
        let peak = peak(&words) - own;
        assert!(peak <= bytes * times, "{words:?} takes {peak} bytes for {bytes}");
    }
    assert_eq!((&root.document()["n"], &root.document()["phase"]), (&2.into(), &"x".into()));
}

/// One turn among many waiters.
#[derive(Debug, PartialEq)]
struct Turn {
    /// The calls of the release, but for the listing of the queue.
    released: usize,
    /// The number of waiters whose process or lifeline the release looks at.
    by_release: usize,
    /// The same of the waiter that it wakes.
    by_woken: usize,
    /// The same of a request that joins the queue and sleeps.
    by_joining: usize,
}

impl Turn {
    fn among(count: usize) -> Self {
        let root = Sandbox::initialized();
        let (holder, first, last) = (Owner::new(), Owner::new(), Owner::new());
        root.ok(&format!("lock acquire a --owner-pid {}", holder.pid()));
        let traced = |owner: &Owner, trace: &std::path::Path| {
            let words = format!("lock acquire a 300 --owner-pid {}", owner.pid());
            let options = ["-f", "-o", trace.to_str().unwrap()];
            let waiting = Waiting::new(strace(&root, &options, words.split(' ')).spawn().unwrap());
            until("the waiter sleeps in its queue", || sleeps(&root, "a", owner.pid()));
            waiting
        };
        let traces = ["first", "last"].map(|name| root.file(name));
        let woken = traced(&first, &traces[0]);
        let owners: Vec<Owner> = (2..count).map(|_| Owner::new()).collect();
        let between: Vec<Waiting> =
            owners.iter().map(|owner| Waiting::in_queue(&root, "a", owner)).collect();
        let joining = traced(&last, &traces[1]);
        let waiters = queued(&root, "a");
        assert_eq!(waiters.len(), count);
        let record = std::fs::read_to_string(root.record_of("a")).unwrap();
        assert!(record.contains("\"waiters\": []"), "{record}");
        let released = Asked::by(&root, &format!("lock release a --owner-pid {}", holder.pid()));
        woken.ended().expect(0);
        drop((joining, between));
        let [woken, joining] = traces.map(|trace| std::fs::read_to_string(trace).unwrap());
        let (_, woken) = woken.rsplit_once("--- SIGURG").unwrap();
        let looked_at = |trace: &str, except: &Owner| {
            let is_named = |waiter: &&Waiter| {
                let lifeline = waiter.lifeline.as_ref().unwrap().as_str();
                let process = format!("/proc/{}/", waiter.process.pid);
                waiter.owner.pid != except.pid()
                    && (trace.contains(lifeline) || trace.contains(&process))
            };
            waiters.iter().filter(is_named).count()
        };
        let listings = released.count("getdents64");
        Self {
            released: released.lines.len() - listings,
            by_release: looked_at(&released.lines.join("\n"), &holder),
            by_woken: looked_at(woken, &first),
            by_joining: looked_at(&joining, &last),
        }
    }
}

#[test]
fn a_turn_costs_the_same_however_many_wait() {
    if !installed("strace") {
        return;
    }
    let few = Turn::among(8);
    assert_eq!((few.by_release, few.by_woken, few.by_joining), (1, 0, 2), "{few:?}");
    assert_eq!(Turn::among(64), few);
}
