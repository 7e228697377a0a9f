//! A root of its own for each test, and the real binary in it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::StatVfsMountFlags;
use serde_json::Value;

#[path = "keys.rs"]
pub mod keys;

use self::keys::Keys;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_pipeline-state");

/// What commands lock with flock(2).
const LOCK_FILES: [&str; 3] = [".locks/state.lock", ".locks/.gate", ".locks/.reserving"];

/// A directory that is removed with the test.
pub struct Sandbox {
    dir: tempfile::TempDir,
    /// Set if `PIPELINE_ROOT` names it.
    is_named: bool,
}

/// A file system in memory with room for large documents, on which scripts can be run; none if
/// `TMPDIR` asks for another place.
fn memory() -> Option<&'static str> {
    static PLACE: OnceLock<Option<&str>> = OnceLock::new();
    *PLACE.get_or_init(|| {
        let stat = rustix::fs::statvfs("/dev/shm").ok()?;
        let fits = stat.f_bavail * stat.f_frsize >= 2 << 30
            && !stat.f_flag.contains(StatVfsMountFlags::NOEXEC);
        (fits && std::env::var_os("TMPDIR").is_none()).then_some("/dev/shm")
    })
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    /// An empty directory: in `TMPDIR`, or in memory if that is not set.
    pub fn empty() -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("pipeline-state-test-");
        let dir = match memory() {
            Some(memory) => builder.tempdir_in(memory),
            None => builder.tempdir(),
        };
        Self { dir: dir.unwrap(), is_named: false }
    }

    /// An empty directory that `PIPELINE_ROOT` names.
    pub fn named() -> Self {
        Self { is_named: true, ..Self::empty() }
    }

    /// An empty directory, named by `PIPELINE_ROOT` if the other one is.
    pub fn like(other: &Self) -> Self {
        Self { is_named: other.is_named, ..Self::empty() }
    }

    /// A root of locks without a state.
    pub fn with_locks() -> Self {
        use std::os::unix::fs::DirBuilderExt as _;
        let sandbox = Self::empty();
        std::fs::DirBuilder::new().mode(0o700).create(sandbox.file(".locks")).unwrap();
        sandbox
    }

    /// A directory with a state in it.
    pub fn initialized() -> Self {
        let sandbox = Self::empty();
        sandbox.ok("state init");
        sandbox
    }

    /// A state with a history: revision 4, `.n` is 3.
    pub fn with_history() -> Self {
        let sandbox = Self::initialized();
        for n in 1..=3 {
            sandbox.ok(&format!("state set n:={n}"));
        }
        sandbox
    }

    /// A directory with this text as its state file, a few seconds old.
    pub fn holding(document: &str) -> Self {
        let sandbox = Self::empty();
        sandbox.overwrite(document);
        sandbox
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.file(".workflow-state.json")
    }

    pub fn mirror(&self) -> PathBuf {
        self.file(".state-backups/mirror.json")
    }

    /// The program in this root, without the caller's relevant environment.
    pub fn command(&self) -> Command {
        let mut command = self.dressed(Command::new(BINARY));
        command.env("XDG_CONFIG_HOME", self.file(".user"));
        command
    }

    /// Any program in this root.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        self.dressed(Command::new(program))
    }

    fn dressed(&self, mut command: Command) -> Command {
        command
            .current_dir(self.path())
            .env("AUDIT_LOG", self.file("audit.log"))
            .env("PIPELINE_BINARY", BINARY);
        for name in
            ["STATE_FILE", "PIPELINE_ROOT", "DEBUG", "PIPELINE_FORMAT", "LOCK_TIMEOUT", "NO_COLOR"]
        {
            command.env_remove(name);
        }
        // the suite may itself run under `lock run`
        for name in [
            "PIPELINE_OWNER_PID",
            "PIPELINE_LOCK_TOKEN",
            "PIPELINE_LOCK_EXIT",
            "CLAUDE_PROJECT_DIR",
            "PIPELINE_GUARD_TOKEN",
            "PIPELINE_STORE",
        ] {
            command.env_remove(name);
        }
        if let Some(keys) = Keys::of(self.path()) {
            command.env("PIPELINE_STORE", keys.url());
        }
        if self.is_named {
            command.env("PIPELINE_ROOT", self.path());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program with these words, split at spaces.
    pub fn run(&self, words: &str) -> Ran {
        self.run_args(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub fn run_args(&self, args: &[&str]) -> Ran {
        Ran::of(self.command().args(args).output().unwrap())
    }

    /// Runs the program with this on its standard input.
    pub fn feed(&self, words: &str, input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(words.split_whitespace()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // a program that refuses early may close its end
        let _ = child.stdin.take().unwrap().write_all(input);
        Ran::of(child.wait_with_output().unwrap())
    }

    pub fn spawn(&self, words: &str) -> Child {
        self.command().args(words.split_whitespace()).spawn().unwrap()
    }

    /// Runs a line of bash, in which `$PIPELINE_BINARY` is the program.
    pub fn bash(&self, script: &str) -> Ran {
        Ran::of(self.program("bash").arg("-c").arg(script).output().unwrap())
    }

    /// Runs and expects success; returns standard output without its last newline.
    #[track_caller]
    pub fn ok(&self, words: &str) -> String {
        self.run(words).expect(0).stdout.trim_end().to_owned()
    }

    /// The document that is kept, parsed.
    pub fn document(&self) -> Value {
        if Keys::of(self.path()).is_some() {
            return serde_json::from_str(&self.ok("state read")).unwrap();
        }
        serde_json::from_slice(&std::fs::read(self.state()).unwrap()).unwrap()
    }

    pub fn revision(&self) -> u64 {
        self.document()["metadata"]["revision"].as_u64().unwrap()
    }

    /// Writes the live file in place, as another program would, with an mtime of a few seconds ago,
    /// so that no reader waits for an editor.
    pub fn overwrite(&self, bytes: impl AsRef<[u8]>) {
        if let Some(keys) = Keys::of(self.path()) {
            return keys.put("state", bytes.as_ref());
        }
        std::fs::write(self.state(), bytes).unwrap();
        make_old(&self.state());
    }

    /// The names in a directory, sorted, without the `.gitignore` of `init`.
    pub fn names(&self, directory: &str) -> Vec<String> {
        if let Some(keys) = Keys::of(self.path()) {
            return keys.names(directory);
        }
        let Ok(entries) = std::fs::read_dir(self.file(directory)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| name != ".gitignore");
        names.sort();
        names
    }

    /// The names in `.state-backups/` with this prefix.
    pub fn shelf(&self, prefix: &str) -> Vec<String> {
        self.names(".state-backups").into_iter().filter(|name| name.starts_with(prefix)).collect()
    }

    /// Everything below the root with its content, to detect changes; without the logs, the journal
    /// and the gate that its writers hold, since refusals are events, and without the pids in the
    /// lock files.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn collect(dir: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
            let mut entries: Vec<_> =
                std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                if path.ends_with(".locks/.gate") || path.ends_with("journal.jsonl") {
                    continue;
                }
                let kind = path.symlink_metadata().unwrap().file_type();
                if kind.is_dir() {
                    into.push((path.clone(), Vec::new()));
                    collect(&path, into);
                } else if LOCK_FILES.iter().any(|name| path.ends_with(name)) {
                    into.push((path, Vec::new()));
                } else if kind.is_file()
                    && !path.ends_with("audit.log")
                    && !path.ends_with(".error-recovery.log")
                {
                    into.push((path.clone(), std::fs::read(&path).unwrap()));
                } else if kind.is_symlink() {
                    into.push((path.clone(), b"link".to_vec()));
                }
            }
        }
        let mut files = Vec::new();
        collect(self.path(), &mut files);
        files
    }

    /// Temporary files anywhere in the root.
    pub fn debris(&self) -> Vec<PathBuf> {
        let names = self.snapshot().into_iter().map(|(path, _)| path);
        names.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect()
    }
}

impl Ran {
    pub fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Expects an exit code; an error must have its sentence, success none.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert_eq!(self.stderr.contains("error:"), code != 0, "stderr: {}", self.stderr);
        // each of doctor's findings has its remedy on standard output
        let has_next_step = self.stderr.contains("hint: ") || self.stdout.contains("\nhint: ");
        assert!(code != 4 || has_next_step, "an error about input without a hint: {}", self.stderr);
        self
    }

    /// Expects a text on standard error.
    #[track_caller]
    pub fn saying(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "{words:?} is not in {:?}", self.stderr);
        self
    }

    /// Expects a text on standard output.
    #[track_caller]
    pub fn showing(self, words: &str) -> Self {
        assert!(self.stdout.contains(words), "{words:?} is not in {:?}", self.stdout);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.stdout))
    }
}

/// Sets a file's mtime ten seconds back.
pub fn make_old(path: &Path) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(10)).unwrap();
}

/// Polls for a condition that other processes bring about. It comes at once or never; the limit is
/// for the latter.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never came about: {what}");
        std::thread::yield_now();
    }
}

/// True if a program is installed; otherwise prints so in one line.
pub fn installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        assert!(
            std::env::var_os("CI").is_none(),
            "{program} is missing, and in CI nothing is skipped"
        );
        eprintln!("{program} is not installed: the test that needs it is not run");
    }
    found
}

impl Ran {
    /// The JSON error, which must be one line and of this kind.
    #[track_caller]
    pub fn expect_json_error(&self, kind: &str) -> Value {
        let line = self
            .stderr
            .lines()
            .find(|line| line.starts_with("{\"error\""))
            .unwrap_or_else(|| panic!("{}", self.stderr));
        let error: Value = serde_json::from_str(line).unwrap();
        assert_eq!(error["error"]["kind"], kind, "{line}");
        error["error"].clone()
    }
}
