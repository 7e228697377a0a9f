//! Certificates, users and passwords, by the variables that etcdctl reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Kind, Result};

/// Where systems keep the certificates that they trust, if no CA is named.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The variable of the CA's certificates.
const CACERT: &str = "ETCDCTL_CACERT";
/// The variable of the client's certificate.
const CERT: &str = "ETCDCTL_CERT";
/// The variable of the client's key.
const KEY: &str = "ETCDCTL_KEY";
/// The variables that name files.
pub const FILES: [&str; 3] = [CACERT, CERT, KEY];
/// The variable of the user: `NAME` or `NAME:PASSWORD`.
const USER: &str = "ETCDCTL_USER";
/// The variable of the password.
const PASSWORD: &str = "ETCDCTL_PASSWORD";
/// The variable that turns the check of the server's certificate off.
pub const SKIP_VERIFY: &str = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY";

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The check of the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// It must be signed by the CA and name the host.
    #[default]
    Required,
    /// It may be any.
    Skipped,
}

/// What a cluster may ask of a client, and what the client asks of it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The file of the certificates that sign those of servers; the system's if none is named.
    pub ca: Option<PathBuf>,
    /// The files of the client's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The login.
    pub user: Option<User>,
    /// The check of the server.
    pub verification: Verification,
}

impl Credentials {
    /// Reads the variables. `get` returns the value of one, if it is set and not empty.
    pub fn of(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let path = |name| get(name).map(PathBuf::from);
        let identity = match (path(CERT), path(KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(unusable(KEY, "is needed beside ETCDCTL_CERT")),
            (None, Some(_)) => return Err(unusable(CERT, "is needed beside ETCDCTL_KEY")),
        };
        let text = |name: &'static str| match get(name).map(OsString::into_string) {
            Some(Err(_)) => Err(unusable(name, "is not UTF-8")),
            value => Ok(value.and_then(std::result::Result::ok)),
        };
        let user = match (text(USER)?, text(PASSWORD)?) {
            (None, None) => None,
            (None, Some(_)) => return Err(unusable(USER, "is needed beside ETCDCTL_PASSWORD")),
            // As etcdctl: with ETCDCTL_PASSWORD the name may have a colon.
            (Some(name), Some(password)) => Some(User { name, password }),
            (Some(both), None) => match both.split_once(':') {
                Some((name, password)) => {
                    Some(User { name: name.to_owned(), password: password.to_owned() })
                }
                None => return Err(unusable(PASSWORD, "is needed beside ETCDCTL_USER")),
            },
        };
        let verification = match text(SKIP_VERIFY)?.as_deref() {
            // As Go reads booleans.
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Verification::Skipped,
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Verification::Required,
            Some(_) => return Err(unusable(SKIP_VERIFY, "is neither true nor false")),
        };
        Ok(Self { ca: path(CACERT), identity, user, verification })
    }

    /// The configuration of TLS. Reads the files, which may have been replaced since.
    pub fn tls(&self) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        let builder = match self.verification {
            Verification::Required => builder.with_root_certificates(self.roots()?),
            Verification::Skipped => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider })),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key_der = PrivateKeyDer::from_pem_slice(&read(KEY, key)?)
                    .map_err(|error| bad_file(KEY, key, error))?;
                builder.with_client_auth_cert(certificates(CERT, certificate)?, key_der).map_err(
                    |error| match error {
                        rustls::Error::InconsistentKeys(_) => mismatch(certificate, key),
                        error => bad_file(CERT, certificate, error),
                    },
                )?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let system = || SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
        let Some(path) = self.ca.clone().or_else(system) else {
            return Err(unusable(CACERT, "must name the CA: this system has no list of its own"));
        };
        let (added, _) = roots.add_parsable_certificates(certificates(CACERT, &path)?);
        match added {
            0 => Err(bad_file(CACERT, &path, "it has no certificate of a CA")),
            _ => Ok(roots),
        }
    }
}

fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(variable, path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| bad_file(variable, path, error))?;
    if found.is_empty() {
        Err(bad_file(variable, path, "it has no certificate"))
    } else {
        Ok(found)
    }
}

fn read(variable: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let message = format!("{}, named by {variable}, cannot be read: {error}", path.display());
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::DependencyMissing,
            _ => Kind::of_io(&error),
        };
        Error::new(kind, message)
            .hint_shell(format!("echo \"${variable}\""), "see which file it is to be")
    })
}

fn bad_file(variable: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    let message = format!("{}, named by {variable}, cannot be used: {why}", path.display());
    Error::new(Kind::Usage, message).hint_text("it must be PEM, as etcdctl reads it")
}

fn mismatch(certificate: &Path, key: &Path) -> Error {
    let [certificate, key] = [certificate, key].map(|path| path.display());
    let message = format!("{key}, named by {KEY}, is not the key of the certificate {certificate}");
    Error::new(Kind::Usage, message)
        .hint_text(format!("{CERT} and {KEY} name a certificate and its own key"))
}

fn unusable(variable: &str, why: &str) -> Error {
    Error::new(Kind::Usage, format!("{variable} {why}"))
        .hint_text("these variables are those of etcdctl")
}

/// Accepts every certificate, because the user said so.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Credentials> {
        Credentials::of(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_user_is_read_as_etcdctl_reads_it() {
        let user = |variables: &[(&str, &str)]| {
            of(variables).unwrap().user.map(|user| (user.name, user.password))
        };
        assert_eq!(user(&[]), None);
        assert_eq!(user(&[(USER, "me:a:b")]), Some(("me".into(), "a:b".into())));
        assert_eq!(user(&[(USER, "me:a"), (PASSWORD, "b")]), Some(("me:a".into(), "b".into())));
    }

    #[test]
    fn half_of_a_pair_is_refused() {
        for half in [(CERT, "c"), (KEY, "k"), (PASSWORD, "p"), (USER, "me"), (SKIP_VERIFY, "yes")] {
            assert_eq!(of(&[half]).unwrap_err().kind, Kind::Usage, "{half:?}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let credentials = of(&[(USER, "me:secret")]).unwrap();
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let credentials = of(&[(CACERT, "/dev/null")]).unwrap();
        let error = credentials.tls().unwrap_err();
        assert_eq!((error.kind, error.message.contains("/dev/null")), (Kind::Usage, true));
        let error = of(&[(CACERT, "/nowhere")]).unwrap().tls().unwrap_err();
        assert!(error.message.contains("ETCDCTL_CACERT"), "{error}");
        assert_eq!(error.kind, Kind::DependencyMissing);
    }
}
