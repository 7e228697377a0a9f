//! The parts of a store's address: `etcd://h1:2379,h2:2379/prefix`, `etcds://` for TLS.

use std::fmt;
use std::net::IpAddr;

use crate::error::{Error, Kind, Result, quote};

/// The port of a member, where none is named.
const PORT: u16 = 2379;
/// The prefix of all keys, where none is named.
const PREFIX: &str = "/pipeline-state";

/// How a member is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// In the clear.
    Plain,
    /// By TLS.
    Tls,
}

/// The address of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The address of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// How its members are spoken to.
    pub security: Security,
    /// Its members, in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    /// The beginning of all its keys, without a slash at the end.
    pub prefix: String,
}

impl Address {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self> {
        let (security, rest) = match text.split_once("://") {
            Some(("etcd", rest)) => (Security::Plain, rest),
            Some(("etcds", rest)) => (Security::Tls, rest),
            _ => return Err(unreadable("it begins with neither etcd:// nor etcds://")),
        };
        let (hosts, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if hosts.contains('@') {
            let error = unreadable("a user or password in it would be seen in `ps` and in logs");
            return Err(error.hint_shell("export ETCDCTL_USER=NAME ETCDCTL_PASSWORD=…", ""));
        }
        let endpoints = hosts.split(',').map(Endpoint::parse).collect::<Result<_>>();
        // A slash may be part of a password.
        let endpoints = endpoints.map_err(|error| match rest.contains('@') {
            true => unreadable("what is between :// and the first slash is not a list of hosts"),
            false => error,
        })?;
        let prefix = match path.trim_end_matches('/') {
            "" => PREFIX,
            path => path,
        };
        if prefix.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c)) {
            return Err(unreadable("its prefix has a character that is not allowed there"));
        }
        Ok(Self { security, endpoints, prefix: prefix.to_owned() })
    }

    /// The command that asks its members. Two sources of one setting stop etcdctl, and so an option
    /// would be refused where the variable is set.
    pub fn etcdctl(&self) -> String {
        let scheme = match self.security {
            Security::Plain => "",
            Security::Tls => "https://",
        };
        let endpoints = self.endpoints.iter().map(|endpoint| format!("{scheme}{endpoint}"));
        let endpoints: Vec<String> = endpoints.collect();
        format!("ETCDCTL_ENDPOINTS={} etcdctl", quote(&endpoints.join(",")))
    }

    /// The members that are spoken to in the clear over a network.
    pub fn exposed(&self) -> impl Iterator<Item = &Endpoint> {
        let is_plain = self.security == Security::Plain;
        self.endpoints.iter().filter(move |endpoint| is_plain && !endpoint.is_loopback())
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port {
            Some("") => Some(PORT),
            port => port.and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        };
        match port {
            Some(port) if !host.is_empty() => Ok(Self { host: host.to_owned(), port }),
            _ => Err(unreadable(&format!("{text:?} in it is not HOST or HOST:PORT"))),
        }
    }

    /// Returns whether it is this machine by its own name.
    fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn unreadable(why: &str) -> Error {
    let message = format!("the store's address cannot be used: {why}");
    Error::new(Kind::Usage, message)
        .hint_text("an address is etcd://HOST:2379,HOST:2379/PREFIX, or etcds:// for TLS")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_members_and_a_prefix() {
        let address = Address::parse("etcds://h1:1,h2,[::1]:3,[fe80::1]/a/b/").unwrap();
        assert_eq!(address.security, Security::Tls);
        let shown: Vec<String> = address.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["h1:1", "h2:2379", "[::1]:3", "[fe80::1]:2379"]);
        assert_eq!(address.prefix, "/a/b");
        assert_eq!(Address::parse("etcd://h").unwrap().prefix, PREFIX);
    }

    #[test]
    fn etcdctl_is_called_with_all_members_and_their_scheme() {
        let etcdctl = |text| Address::parse(text).unwrap().etcdctl();
        assert_eq!(etcdctl("etcd://h1:1,h2/p"), "ETCDCTL_ENDPOINTS=h1:1,h2:2379 etcdctl");
        assert_eq!(etcdctl("etcds://h/p"), "ETCDCTL_ENDPOINTS=https://h:2379 etcdctl");
        assert_eq!(etcdctl("etcd://[::1]/p"), "ETCDCTL_ENDPOINTS='[::1]:2379' etcdctl");
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = Address::parse("etcd://me:secret@h/p").unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(!error.to_text("error:", &"x".into()).contains("secret"));
        let error = Address::parse("etcd://me:sec/ret@h/p").unwrap_err();
        assert!(!error.to_text("error:", &"x".into()).contains("sec/"), "{error}");
        assert!(!error.message.contains("me:sec"), "{error}");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "h:1",
            "http://h",
            "etcd://",
            "etcd://h:",
            "etcd://h:0",
            "etcd://h:x",
            "etcd://,h",
            "etcd://[::1",
            "etcd://[::1]x",
            "etcd://::1",
            "etcd://h/a b",
            "etcd://h/a?b=c",
        ] {
            let bad_port = bad == "etcd://h:"; // an empty port is the default one
            assert_eq!(Address::parse(bad).is_err(), !bad_port, "{bad}");
        }
    }

    #[test]
    fn plain_text_to_another_machine_is_noticed() {
        let exposed = |text| Address::parse(text).unwrap().exposed().count();
        assert_eq!(exposed("etcd://127.0.0.1,localhost,[::1],h"), 1);
        assert_eq!(exposed("etcds://h"), 0);
    }
}
