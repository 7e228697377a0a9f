//! The same claims on a cluster: where [`TEST_STORE`] names one, each root has keys of its own
//! there in place of its files.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The variable with the address of a cluster for the states of all roots.
pub const TEST_STORE: &str = "PIPELINE_TEST_STORE";

/// The keys of one root.
pub struct Keys {
    endpoint: String,
    prefix: String,
}

impl Keys {
    /// Of the root at a path; none where roots are files.
    pub fn of(root: &Path) -> Option<Self> {
        let address = std::env::var(TEST_STORE).ok()?;
        let endpoint = address.trim_start_matches("etcd://").to_owned();
        Some(Self { endpoint, prefix: format!("/{}", root.file_name()?.to_str()?) })
    }

    pub fn url(&self) -> String {
        format!("etcd://{}{}", self.endpoint, self.prefix)
    }

    fn etcdctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint]).args(words);
        command
    }

    /// Puts a key as another program would.
    pub fn put(&self, key: &str, value: &[u8]) {
        let key = format!("{}/{key}", self.prefix);
        let mut put = self.etcdctl(&["put", &key]);
        let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        put.stdin.take().unwrap().write_all(value).unwrap();
        assert!(put.wait().unwrap().success());
    }

    /// The names that a directory of a root would have, sorted.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let (kinds, ending): (&[&str], _) = match directory {
            ".state-backups" => (&["backup", "corrupt"], ""),
            ".signals" => (&["signal"], ".json"),
            _ => return Vec::new(),
        };
        let mut names = Vec::new();
        for kind in kinds {
            let prefix = format!("{}/{kind}/", self.prefix);
            let listed = self.etcdctl(&["get", "--prefix", "--keys-only", &prefix]).output();
            let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
            let keys = listed.lines().filter_map(|key| key.strip_prefix(&prefix));
            names.extend(keys.map(|name| format!("{name}{ending}")));
        }
        names.sort();
        names
    }
}
