//! The real program under strace(1): lists its calls, and injects into one of them.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sandbox::{BINARY, Sandbox};

/// A system call of the program: the `nth` of its name.
pub struct Call {
    pub name: String,
    pub nth: usize,
    pub line: String,
}

/// Calls that change the disk or end the process. A death before another call equals a death before
/// the next of these.
const CHANGES: [&str; 22] = [
    "write",
    "ftruncate",
    "fallocate",
    "fsync",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "symlinkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chmod",
    "utimensat",
    "fsetxattr",
    "fremovexattr",
    "fchown",
    "exit_group",
];

impl Call {
    pub fn changes(&self) -> bool {
        CHANGES.contains(&self.name.as_str()) || self.line.contains("O_CREAT")
    }
}

/// The program under strace in this root.
pub fn strace<'a>(
    root: &Sandbox,
    options: &[&str],
    words: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut command = root.program("strace");
    command.arg("-qq").args(options).arg(BINARY).args(words);
    command
}

/// Strace's options for an injection into the calls of one name.
pub fn injection(call: &str, fault: &str) -> [String; 6] {
    ["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={call}:{fault}")]
        .map(str::to_owned)
}

/// The calls in a trace, from the first that names the root on. Of the first thread only: each
/// counts its own.
pub fn calls_in(trace: &str, root: &str) -> Vec<Call> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut calls = Vec::new();
    let (mut begun, mut thread) = (false, None);
    for line in trace.lines() {
        let text = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let number = line.trim_start().split(' ').next().filter(|_| text.len() < line.len());
        let Some((name, arguments)) =
            text.split_once('(').filter(|(name, _)| !name.contains([' ', '<', '+', '-']))
        else {
            continue;
        };
        if *thread.get_or_insert(number) != number {
            continue;
        }
        let nth = counts.entry(name).and_modify(|count| *count += 1).or_insert(1);
        // descriptors are shown with their paths, and so is the working directory: only quoted
        // names count
        begun |= arguments.contains(&format!("\"{root}"));
        if begun && !["mmap", "fcntl"].contains(&name) {
            calls.push(Call { name: name.to_owned(), nth: *nth, line: text.replace(root, "ROOT") });
        }
    }
    assert!(
        calls.last().is_some_and(|call| call.name == "exit_group"),
        "the trace is not whole:\n{trace}"
    );
    calls
}

/// Four at a time: half of the time is waiting for the disk. Every case runs, even after a failure.
pub fn in_parallel<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let shown = std::panic::catch_unwind(AssertUnwindSafe(|| work(case)));
                    failed.fetch_add(usize::from(shown.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} of {} cases failed; see above", cases.len());
}
