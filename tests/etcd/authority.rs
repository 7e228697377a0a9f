//! A CA for tests, by openssl(1).

use std::path::{Path, PathBuf};
use std::process::Command;

/// The arguments for a new key.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
/// The arguments for a signature.
const CA: &str = "-CA ca.pem -CAkey ca.key -CAcreateserial";

/// A directory with a CA, and the certificates that it signed.
#[derive(Debug)]
pub struct Authority {
    pub dir: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        authority
            .openssl(&format!("req -x509 {KEY} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"));
        authority
    }

    /// Makes and signs a certificate with this common name, for these names and addresses.
    pub fn sign(&self, name: &str, alternatives: &str) {
        self.openssl(&format!("req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        let extensions =
            format!("subjectAltName={alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n");
        std::fs::write(self.path("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr {CA} -days 2 -extfile extensions -out {name}.pem"
        ));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }

    fn openssl(&self, words: &str) {
        let ran = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}
