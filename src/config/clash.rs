//! What one value cannot know of another: addresses, deploy roots and hosts that get in each other's way.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Admin;
use super::service::{Draft, identity};
use super::value;
use crate::hint::Problem;
use crate::yaml::Fields;

/// Whether both cannot be bound: the same port, and the same address or every address.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    let every = |s: SocketAddr| s.ip().is_unspecified();
    let family = a.is_ipv4() == b.is_ipv4();
    a.port() == b.port() && a.port() != 0 && family && (a.ip() == b.ip() || every(a) || every(b))
}

/// Addresses that overlap.
pub(super) fn listeners(file: &Fields<'_>, listen: &[SocketAddr], admin: Option<&Admin>) {
    for (i, address) in listen.iter().enumerate() {
        if let Some(earlier) = listen[..i].iter().find(|earlier| same(**earlier, *address)) {
            let problem = Problem::error("listen", format!("{address} overlaps with {earlier}"));
            file.get("listen")
                .unwrap_or_else(|| file.map().clone())
                .report(problem.hint("keep one of the two"));
        }
    }
    let Some(admin) = admin.and_then(|admin| admin.listen) else { return };
    if let Some(public) = listen.iter().find(|public| same(**public, admin)) {
        let message = format!("the admin address {admin} overlaps with the public address {public}");
        let at = file.get("admin").or_else(|| file.get("listen")).unwrap_or_else(|| file.map().clone());
        at.report(Problem::error("admin.listen", message).hint("give the admin API a port of its own"));
    }
}

/// Services that share a deploy root or a host.
pub(super) fn services(drafts: &[Draft<'_>]) {
    let mut roots = HashMap::new();
    let mut hosts: HashMap<String, &str> = HashMap::new();
    let mut every_host: Option<&str> = None;
    for Draft { name, service, fields } in drafts {
        if let Some(other) = roots.insert(identity(&service.root), name)
            && let Some(reader) = fields.get("root")
        {
            let message = format!("{} is the root of `{other}` already", service.root.display());
            reader.error(message, "give each service a deploy root of its own");
        }
        let Some(reader) = fields.get("hosts") else {
            if let Some(other) = every_host.replace(name.as_str()) {
                // `routing` asks the services in the order of their names.
                let first = other.min(name.as_str());
                let message =
                    format!("`{other}` and `{name}` answer every host: `{first}` gets the requests");
                fields.map().warning(message, "add `hosts` to one of them");
            }
            continue;
        };
        for reader in reader.one_or_more() {
            let Some(Ok(host)) = reader.node().text().map(value::host) else { continue };
            if let Some(other) = hosts.insert(host, name.as_str()) {
                let message = match other == name.as_str() {
                    true => format!("{} stands twice", reader.node().describe()),
                    false => format!("{} is a host of `{other}` already", reader.node().describe()),
                };
                reader.error(message, "a host leads to one service: remove it here");
            }
        }
    }
}
