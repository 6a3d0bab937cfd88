//! Everything that bounds a request or a connection, with defaults that protect without being noticed.

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use crate::config::Http2;

/// The most headers that [`Settings::headers`] can allow: a set of them is kept in 128 bits.
pub(crate) const HEADERS_MAX: usize = 128;

/// The data plane's limits. [`Settings::default`] is meant for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest request or response head, in bytes (431, 502). Default 64 KiB.
    pub head_bytes: usize,
    /// Most headers of a request or response (431, 502), at most 128. Default 100.
    pub headers: usize,
    /// Longest request target, in bytes (414). Default 16 KiB.
    pub uri_bytes: usize,
    /// From the first byte of a request head to its last (408). Default 30 s.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request. Default 75 s.
    pub idle_timeout: Duration,
    /// How long a worker may take to accept a connection (502). Default 5 s.
    pub connect_timeout: Duration,
    /// From the end of a request to the first byte of its answer (504). Default 60 s.
    pub first_byte_timeout: Duration,
    /// How long a body may stand still, in either direction. Default 60 s.
    pub body_timeout: Duration,
    /// How long an upgraded connection, or a stream of server-sent events, may be silent. Default 1 h.
    pub tunnel_timeout: Duration,
    /// How long a request waits for its version under `unavailable: wait` (503). Default 30 s.
    pub wait_timeout: Duration,
    /// Idle connections kept to one worker by one thread; fewer than run at a time means connecting anew all the
    /// time. Default 512.
    pub idle_per_worker: usize,
    /// How long an idle connection to a worker is kept. Default 60 s.
    pub upstream_idle_timeout: Duration,
    /// Connections from clients in all; more wait in the kernel's queue. Default: half of the process's limit
    /// of open files, as each may need a second one to a worker; see [`raise_open_files`].
    pub max_connections: usize,
    /// What one HTTP/2 connection may do.
    pub http2: Http2,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            headers: 100,
            uri_bytes: 16 * 1024,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            tunnel_timeout: Duration::from_secs(3600),
            wait_timeout: Duration::from_secs(30),
            idle_per_worker: 512,
            upstream_idle_timeout: Duration::from_secs(60),
            max_connections: max_connections(),
            http2: Http2::default(),
        }
    }
}

/// Half of the limit of open files; where there is none, as many as ports.
fn max_connections() -> usize {
    let files = rustix::process::getrlimit(Resource::Nofile).current;
    files.map_or(65_536, |files| usize::try_from(files / 2).unwrap_or(65_536)).max(64)
}

/// Raises this process's limit of open files to what the system allows, as [`Settings::default`] builds on it.
/// Returns the limit before and after. Processes started later inherit it.
///
/// # Errors
/// The system refuses; the limit is as it was.
pub fn raise_open_files() -> io::Result<(Option<u64>, Option<u64>)> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let after = Rlimit { current: before.maximum, maximum: before.maximum };
    rustix::process::setrlimit(Resource::Nofile, after)?;
    Ok((before.current, before.maximum))
}
