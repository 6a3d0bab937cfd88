//! How the requests of a service reach its workers: what the data plane does for them beside choosing a version.
//!
//! Plain values. The supervisor hangs them on each [`crate::registry::Version`], so that the data plane has them
//! at hand without looking anything up.

use std::path::PathBuf;
use std::time::Duration;

/// How requests of one service are delivered. The default is what holds where nobody says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Requests that one worker is given at a time; more wait in `queue`. None: as many as come.
    pub max_in_flight: Option<u32>,
    /// What waits while every worker is at `max_in_flight`.
    pub queue: Queue,
    /// How long a worker's share of the requests grows after it became ready; zero gives it all at once.
    pub slow_start: Duration,
    /// Bytes of a response that are taken from the worker ahead of a slow client; 0 takes none.
    pub buffer: u64,
    /// Bytes of a request's body that are gathered before a worker is asked; 0 gathers none.
    pub buffer_requests: u64,
    /// Compression of responses; none leaves them as they are.
    pub compress: Option<Compress>,
    /// The folder with pages for the answers that switchman makes itself.
    pub errors: Option<PathBuf>,
    /// How long WebSockets, event streams and gRPC streams may go on when their worker is to stop.
    pub streams: Duration,
    /// Protocols that a connection may become (`Upgrade`), as in `websocket`.
    pub upgrade: Vec<String>,
}

/// Requests that wait for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The most that wait for one version; the next is refused at once.
    pub size: u32,
    /// The longest that one waits.
    pub timeout: Duration,
}

/// Compression of responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Content codings that may be used, the most wanted first: `br`, `zstd`, `gzip`.
    pub codings: Vec<Coding>,
    /// Content types, as in `text/html`; `text/*` is every text.
    pub types: Vec<String>,
    /// Smaller bodies stay as they are, in bytes.
    pub min: u64,
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_in_flight: None,
            queue: Queue { size: 100, timeout: Duration::from_secs(30) },
            slow_start: Duration::from_secs(10),
            // Most pages and answers of APIs are smaller, and a slow client then holds no worker.
            buffer: 256 * 1024,
            buffer_requests: 0,
            compress: None,
            errors: None,
            streams: Duration::from_secs(300),
            upgrade: vec!["websocket".to_owned()],
        }
    }
}
