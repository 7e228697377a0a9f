//! The address of a store on other machines.

use std::fmt;

/// The schemes of an address: without and with TLS.
const SCHEMES: [&str; 2] = ["etcd://", "etcds://"];

/// An address such as `etcd://h1:2379,h2:2379/prefix`. Shown without the name and password in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Self(text.to_owned());
        let hosts = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
        match hosts {
            Some(hosts) if !hosts.is_empty() && !hosts.starts_with('/') => Ok(url),
            _ => Err(format!(
                "{:?} is not an address such as etcd://HOST:2379/PREFIX",
                without_password(text)
            )),
        }
    }

    /// Returns whether it has no name and password in it.
    pub fn is_shown_whole(&self) -> bool {
        self.to_string() == self.0
    }

    /// The address with all that is in it, for a later call of this program.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no address, without what may be a name and a password in it.
pub fn without_password(text: &str) -> String {
    let (scheme, rest) = text
        .split_once("://")
        .map_or(("", text), |(_, rest)| (&text[..text.len() - rest.len()], rest));
    rest.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("{scheme}***@{host}"))
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (hosts, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let separator = if self.0.contains("://") { "://" } else { "" };
        match hosts.rsplit_once('@') {
            Some((_, hosts)) => write!(f, "{scheme}{separator}***@{hosts}{path}"),
            None => f.write_str(&self.0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = |text: &str| StoreUrl::parse(text).unwrap().to_string();
        assert_eq!(shown("etcd://h1:2379,h2/p@q"), "etcd://h1:2379,h2/p@q");
        assert_eq!(shown("etcds://me:pw@h1:2379/p"), "etcds://***@h1:2379/p");
        for no_address in ["http://me:pw@h", "me:pw@h", "http://me:p/pw@h"] {
            assert!(!StoreUrl::parse(no_address).unwrap_err().contains("pw"));
        }
        for bad in ["", "etcd://", "etcd:///p", "h1:2379", "redis://h"] {
            assert!(StoreUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
