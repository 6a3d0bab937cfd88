//! The loads: which requests are sent, how, to whom; and what came of a run.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::proxies::{Proxy, UNIX};
use crate::{Result, h2load, rules, wrk};

/// A kind of request, how it is sent, and over how many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Bytes of the answer's body; for POST also of the request's.
    pub(crate) size: usize,
    pub(crate) post: bool,
    pub(crate) sent: Sent,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Each connection sends one after the other, without pause.
    Closed,
    /// The same, and each request has a connection of its own.
    NewConnection,
    /// At a rate that does not depend on the answers: half of what nginx carries at most.
    AtHalf,
    /// As HTTP/2 by prior knowledge, this many streams a connection, without pause.
    Http2 { streams: usize },
}

/// What one run is made of, beside its load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// A user whom every proxy sends to the first version.
    pub(crate) uid: &'a str,
    pub(crate) time: Duration,
    /// Requests a second, for [`Sent::AtHalf`].
    pub(crate) half: f64,
    /// For files.
    pub(crate) folder: &'a Path,
}

/// What the load's program counted.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) requests_a_second: f64,
    pub(crate) p99_ms: f64,
    /// Answers that were no 2xx or 3xx or too short, and connections that broke.
    pub(crate) failures: u64,
}

const KIB: usize = 1024;

impl Load {
    /// All loads, in the order in which they are shown.
    pub(crate) fn all() -> Vec<Self> {
        let kinds = [(KIB, false), (64 * KIB, false), (KIB, true), (64 * KIB, true)];
        let mut loads = Vec::new();
        for (size, post) in kinds {
            for connections in [1, 64, 512] {
                loads.push(Self { connections, size, post, sent: Sent::Closed });
            }
        }
        let small = Self { sent: Sent::NewConnection, ..Self::maximum() };
        loads.extend([small, Self { sent: Sent::AtHalf, ..small }]);
        let http2 = Sent::Http2 { streams: 10 };
        loads.extend([KIB, 64 * KIB].map(|size| Self { size, sent: http2, ..small }));
        loads
    }

    /// What is worth knowing of a second number of threads.
    pub(crate) fn few() -> Vec<Self> {
        let few = |load: &Self| {
            load.sent == Sent::Closed && load.connections == 64 && (!load.post || load.size > KIB)
        };
        Self::all().into_iter().filter(few).collect()
    }

    /// The load whose requests a second are the maximum that [`Sent::AtHalf`] speaks of.
    pub(crate) fn maximum() -> Self {
        Self { connections: 64, size: KIB, post: false, sent: Sent::Closed }
    }

    /// Whether this proxy is measured with it. Unix sockets change the same share of every load.
    pub(crate) fn takes(&self, proxy: &Proxy) -> bool {
        let is_http2 = matches!(self.sent, Sent::Http2 { .. });
        (proxy.name != UNIX || self.connections == 64) && (!is_http2 || proxy.http2.is_some())
    }

    /// The request's path at the worker.
    pub(crate) fn path(&self) -> String {
        if self.post { "/echo".to_owned() } else { format!("/bytes/{}", self.size) }
    }

    /// One request, whose answer must be right to the byte.
    pub(crate) async fn check(&self, proxy: &Proxy) -> Result<()> {
        let body = "x".repeat(self.size);
        let sent = if self.post { body.as_str() } else { "" };
        let method = if self.post { "POST" } else { "GET" };
        let answer = rules::ask(&proxy.address, method, &self.path(), "", sent).await?;
        if answer != body {
            let length = answer.len();
            return Err(format!("{}: {self}: the answer is wrong ({length} bytes)", proxy.name).into());
        }
        Ok(())
    }

    /// Drives `proxy`, with the headers that make it look at every rule.
    pub(crate) async fn run(&self, proxy: &Proxy, with: Circumstances<'_>) -> Result<Counted> {
        match self.sent {
            Sent::Closed | Sent::NewConnection => wrk::run(self, proxy, with).await,
            Sent::AtHalf | Sent::Http2 { .. } => h2load::run(self, proxy, with).await,
        }
    }
}

impl Circumstances<'_> {
    /// The header lines of every request.
    pub(crate) fn headers(&self) -> [String; 2] {
        ["x-qa: no".to_owned(), format!("Cookie: session=0123456789abcdef; uid={}", self.uid)]
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Sent::Http2 { .. } = self.sent {
            f.write_str("HTTP/2 ")?;
        }
        let method = if self.post { "POST" } else { "GET" };
        let s = if self.connections == 1 { "" } else { "s" };
        write!(f, "{method} {} KiB, {} connection{s}", self.size / KIB, self.connections)?;
        match self.sent {
            Sent::Closed => Ok(()),
            Sent::NewConnection => f.write_str(", a new one each request"),
            Sent::AtHalf => f.write_str(", half of nginx's maximum"),
            Sent::Http2 { streams } => write!(f, " of {streams} streams"),
        }
    }
}
