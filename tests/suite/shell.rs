//! Shells that own locks and get their commands line by line, so that a test knows the progress of
//! each.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use crate::sandbox::{Ran, Sandbox, until};

/// A shell; it owns its locks until it ends.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    /// A shell that waits for its first line.
    pub fn start(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.program("sh");
        command.env_remove("PIPELINE_OWNER_PID").env_remove("PIPELINE_LOCK_TOKEN");
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// A shell that holds this lock.
    #[track_caller]
    pub fn holding(sandbox: &Sandbox, words: &str) -> Self {
        let mut script = Self::start(sandbox);
        script.lock(&format!("acquire {words} 0")).expect(0);
        script
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line; [`Self::end`] waits for the end of that.
    pub fn begin(&mut self, line: &str) {
        writeln!(self.stdin, "{{ {line}; }} </dev/null 2>&1; echo \"ended $?\"").unwrap();
    }

    /// Waits for the line's end, or the shell's. Both streams are in both fields of the result.
    pub fn end(&mut self) -> Ran {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                let status = std::process::Output {
                    status: self.child.wait().unwrap(),
                    stdout: said.clone().into(),
                    stderr: said.into(),
                };
                return Ran::of(status);
            }
            if let Some(code) = line.strip_prefix("ended ") {
                let code = code.trim().parse().unwrap();
                return Ran { code, stdout: said.clone(), stderr: said };
            }
            said += &line;
        }
    }

    /// Waits until it prints a line that begins with this.
    #[track_caller]
    pub fn until_it_says(&mut self, beginning: &str) {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            assert!(!line.starts_with("ended "), "it ended without saying {beginning:?}");
            line.clear();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "it ended without saying {beginning:?}"
            );
        }
    }

    /// Waits until its command sleeps, and not only for a moment: several probes in a row see it
    /// asleep.
    #[track_caller]
    pub fn until_asleep(&self, sandbox: &Sandbox) {
        until("it does not sleep", || {
            (0..5).all(|_| on_record(sandbox).len() > 1 && sleeps(youngest(self.pid())))
        });
    }

    /// Runs a line in it.
    pub fn tell(&mut self, line: &str) -> Ran {
        self.begin(line);
        self.end()
    }

    /// Runs a `lock` command in it.
    pub fn lock(&mut self, words: &str) -> Ran {
        self.tell(&lock(words))
    }

    /// Sends it a `lock` command that has to wait, and returns once it waits.
    #[track_caller]
    pub fn queue(&mut self, sandbox: &Sandbox, words: &str) {
        self.begin(&lock(words));
        until_waiting(sandbox, self.pid());
    }

    /// Kills it with -9; it is dead when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last of a chain of children, for which all others wait.
fn youngest(pid: u32) -> u32 {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().next().map_or(pid, |child| youngest(child.parse().unwrap()))
}

fn sleeps(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// A `lock` command as scripts write it.
pub fn lock(words: &str) -> String {
    format!("\"$PIPELINE_BINARY\" lock {words}")
}

/// All entries on record: the lock, its status, and the owner.
pub fn on_record(sandbox: &Sandbox) -> Vec<(String, String, u32)> {
    let entries = sandbox.run("lock list --json").expect(0).json();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let entries = entries.as_array().unwrap().iter();
    entries
        .map(|entry| {
            (
                text(entry, "lock"),
                text(entry, "status"),
                entry["owner"]["pid"].as_u64().unwrap().try_into().unwrap(),
            )
        })
        .collect()
}

/// The owners that wait, in the order of the queue.
pub fn waiting(sandbox: &Sandbox) -> Vec<u32> {
    let waiting = on_record(sandbox).into_iter().filter(|(_, status, _)| status == "waiting");
    waiting.map(|(_, _, pid)| pid).collect()
}

/// Waits until this owner waits for a lock.
#[track_caller]
pub fn until_waiting(sandbox: &Sandbox, pid: u32) {
    until(&format!("process {pid} waits"), || waiting(sandbox).contains(&pid));
}
