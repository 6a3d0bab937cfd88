//! Where a worker is to listen: a port, a socket file, or a socket that switchman has opened; for it alone until
//! nothing of it is left.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::inherit::{ListenerGuard, ListenerTable, NoListener, Seat};
use super::port::{NoPort, PortGuard, PortTable};
use super::socket::{NoSocket, SocketGuard, SocketTable};
use crate::config::{Account, UpstreamAt};
use crate::registry::Address;
use crate::version::{ServiceName, VersionId, WorkerId};

/// Hands out places; clonable.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    ports: PortTable,
    sockets: SocketTable,
    listeners: ListenerTable,
}

/// One place, held until this is dropped.
#[derive(Debug)]
pub(crate) enum Place {
    Port(PortGuard),
    Socket(SocketGuard),
    Listener(ListenerGuard),
}

/// There is no place to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error(transparent)]
    Port(#[from] NoPort),
    #[error(transparent)]
    Socket(#[from] NoSocket),
    #[error(transparent)]
    Listener(#[from] NoListener),
}

impl Places {
    /// Sockets lie below `run`, the folder of pid files.
    pub(crate) fn new(run: PathBuf) -> Self {
        let (ports, listeners) = (PortTable::default(), ListenerTable::default());
        Self { ports, sockets: SocketTable::new(run), listeners }
    }

    /// A place that nobody else has, for a process of this worker, which runs as `account`. Opens sockets or makes a
    /// folder: it blocks for a moment.
    pub(crate) fn pick(
        &self,
        at: UpstreamAt,
        seat: Seat,
        account: Option<&Account>,
    ) -> Result<Place, NoPlace> {
        Ok(match at {
            UpstreamAt::Port => Place::Port(self.ports.pick()?),
            UpstreamAt::Unix => Place::Socket(self.sockets.pick(account)?),
            UpstreamAt::Inherit => Place::Listener(self.listeners.pick(seat)?),
        })
    }

    /// A path for the socket that a process which runs as `account` sends its notifications to.
    pub(crate) fn pick_for_notify(&self, account: Option<&Account>) -> Result<SocketGuard, NoPlace> {
        Ok(self.sockets.pick(account)?)
    }

    /// The place of a worker that an earlier switchman has started; none if another worker has it. `process` is its main
    /// process, where that has inherited the place.
    pub(crate) fn claim(&self, address: &Address, process: Option<(Seat, &OwnedFd, u32)>) -> Option<Place> {
        Some(match (address, process) {
            (Address::Tcp(address), Some((seat, descriptor, pid))) => {
                match self.listeners.claim(seat, *address, descriptor, pid) {
                    Some(listener) => Place::Listener(listener),
                    // It goes on; the next process gets another socket.
                    None => Place::Port(self.ports.claim(address.port())?),
                }
            }
            (Address::Tcp(address), None) => Place::Port(self.ports.claim(address.port())?),
            (Address::Unix(path), _) => Place::Socket(self.sockets.claim(path)),
        })
    }

    /// The path that a process of an earlier switchman sends its notifications to.
    pub(crate) fn claim_for_notify(&self, path: &Path) -> SocketGuard {
        self.sockets.claim(path)
    }

    /// Lets go of what was kept for workers of a version, but for those that wait for a process.
    pub(crate) fn keep_only(&self, service: &ServiceName, version: &VersionId, waiting: &[WorkerId]) {
        self.listeners.keep_only(service, version, waiting);
    }
}

impl Place {
    /// Leaves it to a worker that outlives this switchman: what lies there stays.
    pub(crate) fn leave(self) {
        match self {
            Self::Listener(listener) => listener.leave(),
            place => std::mem::forget(place),
        }
    }

    /// As the data plane connects to it.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Port(port) => Address::Tcp(port.address()),
            Self::Socket(socket) => Address::Unix(socket.path().to_owned()),
            Self::Listener(listener) => Address::Tcp(listener.address()),
        }
    }

    /// The socket that the process is to inherit, where there is one.
    pub(crate) fn inherited(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Listener(listener) => listener.descriptor().map(Some),
            Self::Port(_) | Self::Socket(_) => Ok(None),
        }
    }
}
