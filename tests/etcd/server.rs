//! Servers for tests: etcd on free ports of loopback, with its data in memory.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pipeline_state::etcd::address::Address;
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::endpoints::Endpoints;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Runs a server until its own standard input ends, whatever ends this process.
const KEEPER: &str = r#"
dir=$1; shift
"$@" >"$dir/log" 2>&1 &
pid=$!
echo $pid
cat >/dev/null
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
rm -rf "$dir"
"#;

/// Long enough for a server to start on a machine with much else to do.
pub const PATIENT: Patience =
    Patience { reach: Duration::from_secs(60), settle: Duration::from_secs(60) };

/// A program that ends with this value, and with the test in any case.
#[derive(Debug)]
pub struct Process {
    keeper: Child,
    pid: Pid,
}

impl Process {
    /// Starts it. `dir` has its output, and is removed at its end.
    pub fn start(dir: &Path, words: &Command) -> Self {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(dir).arg(words.get_program()).args(words.get_args());
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        Self { keeper, pid }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Stops it. Its threads stop one by one, and one that has not yet may still answer.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
            stat.is_ok_and(|stat| stat.rsplit(')').next().unwrap().starts_with(" T"))
        };
        while !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A directory in memory, where there is some.
pub fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("etcd-").tempdir_in(base).unwrap()
}

/// A server, which ends with this value.
#[derive(Debug)]
pub struct Server {
    process: Process,
    pub port: u16,
}

impl Server {
    /// Starts a server with further arguments. `scheme` is that of its clients.
    pub fn start(scheme: &str, arguments: &[&str]) -> Self {
        let [port, peer] = free_ports();
        Self::member(
            "default",
            scheme,
            [port, peer],
            &format!("default=http://127.0.0.1:{peer}"),
            arguments,
        )
    }

    /// Starts a member of a cluster.
    pub fn member(
        name: &str,
        scheme: &str,
        [port, peer]: [u16; 2],
        cluster: &str,
        arguments: &[&str],
    ) -> Self {
        let dir = scratch().keep();
        let (client, peer) =
            (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", name, "--data-dir"])
            .arg(dir.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", cluster, "--logger", "zap"])
            .args(arguments);
        Self { process: Process::start(&dir, &etcd), port }
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn stop(&self) {
        self.process.stop();
    }

    /// Its address, with keys of their own for each caller.
    pub fn url(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("etcd://127.0.0.1:{}/test-{}", self.port, NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(&self.url(), Credentials::default(), PATIENT)
    }

    /// Runs etcdctl on it, and returns what it prints.
    pub fn etcdctl(&self, words: &[&str]) -> String {
        etcdctl(&[&["--endpoints", &format!("127.0.0.1:{}", self.port)], words].concat())
    }
}

/// Runs etcdctl, and returns what it prints.
pub fn etcdctl(words: &[&str]) -> String {
    let ran = Command::new("etcdctl").env("ETCDCTL_API", "3").args(words).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "etcdctl {words:?}: {said}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The server that tests share which change nothing of the server itself.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| {
        let server = Server::start("http", &[]);
        server.client().status().unwrap();
        server
    })
}

/// A client of the store at `url`.
pub fn client(url: &str, credentials: Credentials, patience: Patience) -> Client {
    let user = credentials.user.clone();
    let wire = Endpoints::new(&Address::parse(url).unwrap(), credentials).unwrap();
    Client::new(Box::new(wire), user, patience)
}

/// Ports that are free now.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
