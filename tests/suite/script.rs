//! Scripts that hold locks: they print a line, stop where they `read`, and continue on command. And
//! the program's view of locks from outside.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use pipeline_state::document::seal::with_digest;
use rustix::process::Signal;
use serde_json::Value;

use crate::owners::queued;
use crate::sandbox::{Ran, Sandbox, until};

/// A running script; killed when dropped.
pub struct Script {
    child: Child,
    output: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
}

impl Script {
    /// Starts a program with piped standard input and output.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, output, input }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints, without its newline; empty at the end of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads until it prints this line.
    #[track_caller]
    pub fn until(&mut self, wanted: &str) {
        loop {
            let line = self.line();
            assert_ne!(line, "", "it ended before it said {wanted:?}");
            if line == wanted {
                return;
            }
        }
    }

    /// Lets it continue from where it reads a line.
    pub fn go(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// Kills it with -9 without reaping it: until then it is a zombie.
    pub fn leave_a_zombie(&mut self) {
        self.child.kill().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        until("a zombie", || state().rsplit_once(") ").unwrap().1.starts_with('Z'));
    }

    /// Kills its children with -9; the first process of a pid namespace takes all others with it.
    pub fn kill_children(&self) {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap();
        for child in children.split_whitespace() {
            let child = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
            rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        }
    }

    /// Kills it with -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Closes its input and waits for its end; returns its exit code and remaining output.
    pub fn end(mut self) -> Ran {
        drop(self.input.take());
        let mut stdout = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut stdout).unwrap();
        let mut stderr = Vec::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            std::io::Read::read_to_end(&mut pipe, &mut stderr).unwrap();
        }
        let status = self.child.wait().unwrap();
        Ran::of(std::process::Output { status, stdout: stdout.into_bytes(), stderr })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process was started with a signal ignored, as by nohup(1): its children inherit
/// that.
pub fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let is_ignored = u64::from_str_radix(ignored, 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1;
    if is_ignored {
        eprintln!("this process ignores {signal:?}, and its children with it: not tested");
    }
    is_ignored
}

impl Sandbox {
    /// A script in this shell; `$B` is the program.
    pub fn script(&self, shell: &str, text: &str) -> Script {
        let mut command = self.program(shell);
        command.arg("-c").arg(text).env("B", crate::sandbox::BINARY);
        Script::of(command)
    }

    /// A script that holds a lock and then reads a line.
    pub fn holder(&self, name: &str) -> Script {
        let mut script = self
            .script("bash", &format!("$B lock acquire {name} 0 || exit; echo held; read -r _; :"));
        script.until("held");
        script
    }

    /// A script that waits for a lock, prints `got CODE` and reads a line; it is in the queue when
    /// this returns.
    pub fn waiter(&self, name: &str) -> Script {
        let text = format!("echo $$; $B lock acquire {name} 20 -q; echo got $?; read -r _; :");
        let mut script = self.script("bash", &text);
        let pid: u32 = script.line().parse().unwrap();
        self.await_row("waiting", pid);
        script
    }

    /// Waits until `lock list` shows an owner in a state.
    #[track_caller]
    pub fn await_row(&self, status: &str, pid: u32) {
        until(&format!("{pid} {status}"), || {
            self.rows().iter().any(|row| row["status"] == status && row["owner"]["pid"] == pid)
        });
    }

    /// The rows of `lock list`.
    #[track_caller]
    pub fn rows(&self) -> Vec<Value> {
        self.run("lock list --json").expect(0).json().as_array().unwrap().clone()
    }

    /// The output of `lock check`, and its exit code.
    #[track_caller]
    pub fn check(&self, name: &str) -> (String, i32) {
        let ran = self.run(&format!("lock check {name}"));
        assert_eq!(ran.stderr, "", "an answer writes nothing to stderr");
        (ran.stdout.trim_end().to_owned(), ran.code)
    }

    /// True if another process that tries once gets a lock; it is released at once.
    #[track_caller]
    pub fn is_free(&self, name: &str) -> bool {
        let ran = self.bash(&format!(
            "$PIPELINE_BINARY lock acquire {name} 0 && $PIPELINE_BINARY lock release {name}"
        ));
        assert!(matches!(ran.code, 0 | 2), "{ran:?}");
        ran.code == 0
    }

    pub fn record_of(&self, name: &str) -> PathBuf {
        self.file(format!(".locks/{name}.json"))
    }

    /// Changes a record of a living owner in a way that no version of the program would.
    pub fn forge(&self, name: &str, change: impl Fn(&mut Value)) {
        self.put_record(name, &forged(&self.record_of(name), change));
    }

    /// Puts the waiters of a lock into its record, as earlier versions did.
    pub fn put_waiters_into_record(&self, name: &str) {
        let queue = queued(self, name);
        let lifelines = queue.iter().filter_map(|waiter| waiter.lifeline.as_ref());
        let details = lifelines.map(|lifeline| {
            let bytes = std::fs::read(self.file(format!(".locks/{lifeline}"))).unwrap();
            let mut waiter: Value = serde_json::from_slice(&bytes).unwrap();
            waiter.as_object_mut().unwrap().shift_remove("digest");
            waiter
        });
        let waiters: Vec<Value> = details.collect();
        std::fs::remove_dir_all(self.file(".locks/.queue")).unwrap();
        self.forge(name, |record| record["waiters"] = waiters.clone().into());
    }

    /// Replaces a record's bytes, by a rename as the program does.
    pub fn put_record(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.file("forged"), bytes).unwrap();
        std::fs::rename(self.file("forged"), self.record_of(name)).unwrap();
    }
}

/// The changed contents of a file that ends in a digest, with a matching digest.
pub fn forged(file: &Path, change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut record: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    record.as_object_mut().unwrap().shift_remove("digest");
    change(&mut record);
    with_digest(record).unwrap()
}
