//! What stands before a request: TLS, the proxies in front, ids.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;

use super::keys::front::{CERTIFICATE, TLS};
use super::keys::names;
use super::read::{addresses, path};
use super::value;
use crate::certificates::{Pair, Spec};
use crate::hint::Problem;
use crate::yaml::{Fields, Reader};

/// HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The public addresses with TLS.
    pub listen: Vec<SocketAddr>,
    /// Certificates, at least one; all could be read.
    pub certificates: Vec<Spec>,
    /// Plain requests are sent to https.
    pub redirect: bool,
}

/// Clients, and the proxies between them and us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// HTTPS, where it is wanted.
    pub tls: Option<Tls>,
    /// Proxies that are believed what they say of their clients.
    pub trusted_proxies: Vec<IpNet>,
    /// The public addresses on which each connection begins with a PROXY header.
    pub proxy_protocol: Vec<SocketAddr>,
    /// Each request gets an id.
    pub request_ids: bool,
}

const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];

/// Reads the keys of the file that are about the front; `listen` are the addresses without TLS.
pub(super) fn front(file: &Fields<'_>, listen: &[SocketAddr], folder: &Path) -> Option<Front> {
    let tls = match file.get("tls") {
        Some(reader) => Some(tls(reader, folder)?),
        None => None,
    };
    let trusted_proxies: Vec<IpNet> = file
        .get("trusted_proxies")
        .map(|reader| reader.one_or_more().iter().filter_map(|r| r.value(network)).collect())
        .unwrap_or_default();
    let with_tls = tls.iter().flat_map(|tls| &tls.listen);
    let all: Vec<SocketAddr> = listen.iter().chain(with_tls).copied().collect();
    let proxy_protocol = file.get("proxy_protocol").map(|r| proxy_protocol(&r, &all)).unwrap_or_default();
    if !proxy_protocol.is_empty() && file.get("trusted_proxies").is_none() {
        let problem =
            Problem::error("proxy_protocol", "nobody is trusted, so every connection would be closed");
        let at = file.get("proxy_protocol").unwrap_or_else(|| file.map().clone());
        at.report(problem.hint("add the load balancer, as in `trusted_proxies: [\"10.0.0.0/8\"]`"));
    }
    let request_ids = match file.get("request_id") {
        Some(reader) => reader.value(|text| value::one_of(text, &SWITCH))?,
        None => true,
    };
    Some(Front { tls, trusted_proxies, proxy_protocol, request_ids })
}

fn tls(reader: Reader<'_>, folder: &Path) -> Option<Tls> {
    let fields = reader.fields(&names(&[&TLS]))?;
    let listen = fields.require("listen", r#"["0.0.0.0:7443"]"#).map(|reader| addresses(&reader));
    let example = "[{certificate: /etc/ssl/app.pem, key: /etc/ssl/app.key}]";
    let certificates = fields.require("certificates", example).map(|reader| {
        let certificates = reader.one_or_more();
        if certificates.is_empty() {
            reader.error("the list is empty", format!("add one, as in `certificates: {example}`"));
        }
        certificates.into_iter().filter_map(|reader| certificate(reader, folder)).collect()
    });
    let redirect = fields.get("redirect").map(|reader| reader.boolean());
    Some(Tls { listen: listen?, certificates: certificates?, redirect: redirect.unwrap_or(Some(false))? })
}

/// One certificate, whose files are looked at.
fn certificate(reader: Reader<'_>, folder: &Path) -> Option<Spec> {
    let fields = reader.fields(&names(&[&CERTIFICATE]))?;
    let hosts = fields.get("hosts").map(|reader| {
        reader.one_or_more().iter().filter_map(|reader| reader.value(host)).collect::<Vec<_>>()
    });
    let certificate = fields.require("certificate", "/etc/ssl/app.pem");
    let key = fields.require("key", "/etc/ssl/app.key");
    let (certificate, key) = (certificate?, key?);
    let spec = Spec {
        hosts: hosts.unwrap_or_default(),
        certificate: path(&certificate, folder)?,
        key: path(&key, folder)?,
    };
    if let Err(error) = Pair::load(&spec) {
        let at = if error.is_key { key } else { certificate };
        at.error(error.to_string(), error.hint);
        return None;
    }
    Some(spec)
}

/// A host name whose first label may be `*`.
fn host(text: &str) -> Result<String, Box<Problem>> {
    match text.strip_prefix("*.") {
        Some(rest) => value::host(rest).map(|rest| format!("*.{rest}")),
        None => value::host(text),
    }
}

/// An address, or a network as in `10.0.0.0/8`.
fn network(text: &str) -> Result<IpNet, Box<Problem>> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        let problem = Problem::error("", format!("`{text}` is neither an IP address nor a network"));
        Box::new(problem.hint("write it as in \"10.0.0.7\" or \"10.0.0.0/8\""))
    })
}

/// All public addresses, none, or some of them.
fn proxy_protocol(reader: &Reader<'_>, all: &[SocketAddr]) -> Vec<SocketAddr> {
    if reader.node().list().is_none()
        && let Some(scalar) = reader.node().scalar()
        && let Some(is_on) = scalar.as_bool()
    {
        return if is_on { all.to_vec() } else { Vec::new() };
    }
    let known = |text: &str| {
        let address = value::address(text)?;
        if all.contains(&address) {
            return Ok(address);
        }
        let known: Vec<String> = all.iter().map(|address| format!("\"{address}\"")).collect();
        let problem = Problem::error("", format!("`{text}` is no address that is listened on"));
        Err(Box::new(problem.hint(format!("write true, or some of [{}]", known.join(", ")))))
    };
    reader.one_or_more().iter().filter_map(|reader| reader.value(known)).collect()
}
