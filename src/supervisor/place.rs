//! Where a worker is to listen: a port or a socket file, for it alone until nothing of it is left.

use std::path::PathBuf;

use super::port::{NoPort, PortGuard, PortTable};
use super::socket::{NoSocket, SocketGuard, SocketTable};
use crate::config::UpstreamAt;
use crate::registry::Address;

/// Hands out places; clonable.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    ports: PortTable,
    sockets: SocketTable,
}

/// One place, held until this is dropped.
#[derive(Debug)]
pub(crate) enum Place {
    Port(PortGuard),
    Socket(SocketGuard),
}

/// There is no place to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error(transparent)]
    Port(#[from] NoPort),
    #[error(transparent)]
    Socket(#[from] NoSocket),
}

impl Places {
    /// Sockets lie below `run`, the folder of pid files.
    pub(crate) fn new(run: PathBuf) -> Self {
        Self { ports: PortTable::default(), sockets: SocketTable::new(run) }
    }

    /// A place that nobody else has. Opens sockets or makes a folder: it blocks for a moment.
    pub(crate) fn pick(&self, at: UpstreamAt) -> Result<Place, NoPlace> {
        Ok(match at {
            UpstreamAt::Port | UpstreamAt::Inherit => Place::Port(self.ports.pick()?),
            UpstreamAt::Unix => Place::Socket(self.sockets.pick()?),
        })
    }

    /// The place of a worker that an earlier switchman has started; none if another worker has it.
    pub(crate) fn claim(&self, address: &Address) -> Option<Place> {
        Some(match address {
            Address::Tcp(address) => Place::Port(self.ports.claim(address.port())?),
            Address::Unix(path) => Place::Socket(self.sockets.claim(path)),
        })
    }
}

impl Place {
    /// Leaves it to a worker that outlives this switchman: what lies there stays.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }

    /// As the data plane connects to it.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Port(port) => Address::Tcp(port.address()),
            Self::Socket(socket) => Address::Unix(socket.path().to_owned()),
        }
    }
}
