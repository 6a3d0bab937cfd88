//! The certificates of the public side: read from files, chosen by host name, read again when they change.
//!
//! [`Store`] is what a TLS handshake asks; [`follow()`] keeps it true to the files. A new pair that is broken never
//! replaces a working one.

mod follow;
mod pair;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

pub use follow::follow;
pub use pair::{Pair, PairError};

/// A certificate as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The hosts it is for, lower-case, perhaps with a wildcard; empty: those that the certificate names.
    pub hosts: Vec<String>,
    /// The file with the certificate and those that lead to its root, PEM.
    pub certificate: PathBuf,
    /// The file with its private key, PEM.
    pub key: PathBuf,
}

/// The cryptography in use. Named where it is wanted: the process as a whole has none.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates in force; read by each handshake.
#[derive(Debug)]
pub struct Store(ArcSwap<Set>);

impl Store {
    /// Holds these, at least one.
    pub fn new(pairs: &[Arc<Pair>]) -> Self {
        Self(ArcSwap::from_pointee(Set::new(pairs)))
    }

    /// From now on, these.
    pub fn replace(&self, pairs: &[Arc<Pair>]) {
        self.0.store(Arc::new(Set::new(pairs)));
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name()).map(|pair| pair.certified.clone())
    }
}

/// Certificates by the names that they are for.
#[derive(Debug)]
struct Set {
    exact: HashMap<String, Arc<Pair>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Arc<Pair>>,
    /// For clients that name no host, or one that nobody knows.
    first: Option<Arc<Pair>>,
}

impl Set {
    /// Where two are for the same host, the earlier one has it.
    fn new(pairs: &[Arc<Pair>]) -> Self {
        let mut set = Self { exact: HashMap::new(), wildcard: HashMap::new(), first: pairs.first().cloned() };
        for pair in pairs {
            for host in &pair.hosts {
                let (map, name) = match host.strip_prefix("*.") {
                    Some(rest) => (&mut set.wildcard, rest),
                    None => (&mut set.exact, host.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| pair.clone());
            }
        }
        set
    }

    /// The exact host before a wildcard, which stands for one label; else the first.
    fn choose(&self, host: Option<&str>) -> Option<&Arc<Pair>> {
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let wildcard = || self.wildcard.get(host.split_once('.')?.1);
        self.exact.get(host).or_else(wildcard).or(self.first.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_host_comes_before_the_wildcard_and_strangers_get_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let pair = |name: &str, hosts: &[&str]| {
            let spec = pair::tests::write(folder.path(), name, &["named.example"]);
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            Arc::new(Pair::load(&Spec { hosts, ..spec }).unwrap())
        };
        let pairs = [
            pair("first", &[]),
            pair("wild", &["*.example.com", "b.example.com"]),
            pair("exact", &["a.example.com", "b.example.com"]),
        ];
        let set = Set::new(&pairs);
        for (host, expected) in [
            (None, 0),
            (Some("unknown.org"), 0),
            (Some("named.example"), 0),
            (Some("x.example.com"), 1),
            (Some("B.Example.com"), 1),
            (Some("a.example.com."), 2),
            (Some("a.example.com"), 2),
            (Some("example.com"), 0),
            (Some("a.b.example.com"), 0),
        ] {
            assert!(Arc::ptr_eq(set.choose(host).unwrap(), &pairs[expected]), "{host:?}");
        }
        assert!(Set::new(&[]).choose(Some("a")).is_none());
    }
}
