//! The environment of a worker: switchman's own without what is meant for switchman alone, what the service says, and
//! what tells the worker about itself.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt as _;

use tokio::process::Command;

use super::Identity;
use crate::config::RunSpec;
use crate::registry::Address;

/// Variables that systemd, or who plays its part, gives to switchman itself. A worker that took them for its own
/// would speak in switchman's name, listen on its sockets, or read its secrets.
const OURS: [&str; 20] = [
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    // The password of etcd, for etcdctl.
    "ETCDCTL_PASSWORD",
    "ETCDCTL_USER",
];
/// The beginning of switchman's own variables; its token is among them.
const PREFIX: &[u8] = b"SWITCHMAN_";

/// Whether a variable is meant for switchman alone.
fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX) || OURS.iter().any(|ours| name == *ours)
}

/// Where a worker is to listen, as it is told.
pub(super) fn place(address: Option<&Address>) -> OsString {
    match address {
        None => OsString::new(),
        Some(Address::Tcp(address)) => address.port().to_string().into(),
        Some(Address::Unix(path)) => path.into(),
    }
}

/// Gives `command` switchman's environment without what is switchman's alone, that of the user that it runs as, and what
/// the service says, in this order.
pub(crate) fn basis(command: &mut Command, spec: &RunSpec) {
    for name in std::env::vars_os().map(|(name, _)| name).filter(|name| is_ours(name)) {
        command.env_remove(name);
    }
    if let Some(person) = spec.isolation.account.as_ref().and_then(|account| account.person.as_ref()) {
        command.env("HOME", &person.home).env("USER", &person.name).env("LOGNAME", &person.name);
        command.env("SHELL", &person.shell);
    }
    command.envs(&spec.env);
}

/// Gives `command` the environment of a worker that is to listen on `address`.
pub(super) fn give(command: &mut Command, spec: &RunSpec, who: &Identity, address: Option<&Address>) {
    basis(command, spec);
    // What it is not given it must not find in switchman's own environment either. HOST holds for all: an
    // application that does not know SOCKET must not open a port to everybody.
    let (ip, given, absent) = match address {
        Some(Address::Unix(_)) => (IpAddr::V4(Ipv4Addr::LOCALHOST), Some("SOCKET"), "PORT"),
        Some(Address::Tcp(address)) => (address.ip(), Some("PORT"), "SOCKET"),
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), None, "SOCKET"),
    };
    command.env_remove("PORT").env_remove(absent);
    if let Some(given) = given {
        command.env(given, place(address));
    }
    command
        .env("HOST", ip.to_string())
        .env("COMMIT", who.version.as_str())
        .env("SWITCHMAN_SERVICE", who.service.as_str())
        .env("SWITCHMAN_VERSION", who.version.as_str())
        .env("SWITCHMAN_WORKER", who.worker.to_string())
        .env("PIDFILE", &who.pidfile);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switchmans_own_is_known() {
        for ours in ["NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "SWITCHMAN_TOKEN", "ETCDCTL_PASSWORD"] {
            assert!(is_ours(OsStr::new(ours)), "{ours}");
        }
        for theirs in ["PATH", "HOME", "TZ", "NODE_ENV", "SWITCHMAN", "LISTEN_FDS_OF_MINE"] {
            assert!(!is_ours(OsStr::new(theirs)), "{theirs}");
        }
    }
}
