//! Workers that speak HTTP/2 in clear text, by prior knowledge.
//!
//! ```text
//!  request head and body, HTTP/1.1 text --> Stream --HEADERS, DATA, trailers--> Connection --> worker
//!  response head and body, HTTP/1.1 text <-- (one of many) <--HEADERS, DATA, trailers--   (one of a few)
//! ```
//!
//! The rest of the proxy does not know: to it a [`Stream`] is a connection that carries one request, written and
//! read as HTTP/1.1 with `Content-Length` or chunks. So checks, hop-by-hop rules, limits and retries exist once,
//! and every kind of client reaches every kind of worker. What the text cannot say is said by the error of a
//! read: see [`failure`].

mod connection;
pub(crate) mod failure;
mod head;
mod stream;

use std::rc::Rc;
use std::task::Context;

use tokio::sync::Mutex;

pub(crate) use connection::{Connection, KeepAlive};
pub(crate) use stream::Stream;

/// Most connections of one thread to one worker. With all of them full, streams wait in the one with the fewest
/// until the worker allows more.
const CONNECTIONS_MAX: usize = 16;

/// One thread's connections to one worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Vec<Connection>,
    turn: Rc<Mutex<()>>,
}

impl Connections {
    /// Held by who makes a connection.
    pub(crate) fn turn(&self) -> Rc<Mutex<()>> {
        self.turn.clone()
    }

    pub(crate) fn add(&mut self, connection: Connection) {
        self.open.push(connection);
    }

    /// A stream of the first connection with room, so that those behind become idle; with no connection left to
    /// be made, of the one with the fewest. `None`: another connection is due.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>) -> Option<Box<Stream>> {
        self.open.retain_mut(|connection| connection.takes_streams(cx));
        let found = match self.open.iter().find(|connection| connection.has_room()) {
            None if self.open.len() >= CONNECTIONS_MAX => self.open.iter().min_by_key(|c| c.streams()),
            found => found,
        };
        found.map(Connection::stream)
    }

    /// Closes connections without a stream for more than `keep` ticks.
    pub(crate) fn sweep(&mut self, now: u64, keep: u64) {
        self.open.retain(|connection| connection.idle_for(now) <= keep);
    }
}
