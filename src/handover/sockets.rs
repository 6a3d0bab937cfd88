//! Listening sockets that are there already: handed over by the switchman before, or held by systemd.
//!
//! What listens takes its own by address before it binds anything. So no address is ever closed in between, and
//! a connection that the kernel has queued is accepted by whoever takes the socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// One TCP address, with all sockets that share it.
#[derive(Debug)]
pub struct Tcp {
    /// As it was configured; its port may be 0.
    pub asked: SocketAddr,
    /// As it was bound.
    pub bound: SocketAddr,
    /// At least one. Each must be accepted from: the kernel spreads connections over them.
    pub sockets: Vec<TcpListener>,
}

/// One unix socket.
#[derive(Debug)]
pub struct Unix {
    /// Its file.
    pub path: PathBuf,
    /// Whether its file is ours to remove; that of a systemd socket unit is not.
    pub ours: bool,
    /// The socket.
    pub socket: UnixListener,
}

/// Sockets that listen.
#[derive(Debug, Default)]
pub struct Sockets {
    /// By address.
    pub tcp: Vec<Tcp>,
    /// By file.
    pub unix: Vec<Unix>,
}

impl Sockets {
    /// Adds one socket of a TCP address.
    pub fn add_tcp(&mut self, asked: SocketAddr, bound: SocketAddr, socket: TcpListener) {
        match self.tcp.iter_mut().find(|tcp| tcp.bound == bound) {
            Some(tcp) => tcp.sockets.push(socket),
            None => self.tcp.push(Tcp { asked, bound, sockets: vec![socket] }),
        }
    }

    /// Takes what listens on the address that is configured as `asked`.
    pub fn take_tcp(&mut self, asked: SocketAddr) -> Option<Tcp> {
        let at = self.tcp.iter().position(|tcp| tcp.asked == asked || tcp.bound == asked)?;
        Some(self.tcp.swap_remove(at))
    }

    /// Takes the socket with this file.
    pub fn take_unix(&mut self, path: &Path) -> Option<Unix> {
        let at = self.unix.iter().position(|unix| unix.path == path)?;
        Some(self.unix.swap_remove(at))
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        self.tcp.extend(others.tcp);
        self.unix.extend(others.unix);
    }

    /// The same sockets once more: they listen until both are closed.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let tcp = self.tcp.iter().map(|Tcp { asked, bound, sockets }| {
            let sockets = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
            Ok(Tcp { asked: *asked, bound: *bound, sockets })
        });
        let unix = self.unix.iter().map(|Unix { path, ours, socket }| {
            Ok(Unix { path: path.clone(), ours: *ours, socket: socket.try_clone()? })
        });
        Ok(Self { tcp: tcp.collect::<io::Result<_>>()?, unix: unix.collect::<io::Result<_>>()? })
    }

    /// Closes what nobody took; files of ours go with their sockets.
    pub fn close(self) {
        for tcp in &self.tcp {
            tracing::info!(address = %tcp.bound, "no longer listening: the configuration does not name it");
        }
        for unix in self.unix.into_iter().filter(|unix| unix.ours) {
            if let Err(error) = std::fs::remove_file(&unix.path) {
                tracing::debug!(path = %unix.path.display(), %error, "the file of a socket was gone already");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_socket_is_taken_by_its_address_or_by_what_was_asked_for() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (first, bound) = listener();
        let again = first.try_clone().unwrap();
        let (other, elsewhere) = listener();
        let mut sockets = Sockets::default();
        sockets.add_tcp(any, bound, first);
        sockets.add_tcp(any, bound, again);
        sockets.add_tcp(elsewhere, elsewhere, other);
        let mut copy = sockets.try_clone().unwrap();
        let taken = copy.take_tcp(any).unwrap();
        assert_eq!((taken.bound, taken.sockets.len()), (bound, 2));
        assert!(copy.take_tcp(bound).is_none(), "it is taken already");
        assert!(copy.take_tcp(elsewhere).is_some());
        drop((copy, taken));
        assert!(std::net::TcpStream::connect(bound).is_ok(), "the first ones still listen");
    }

    #[test]
    fn what_nobody_takes_is_closed_and_a_file_of_ours_removed() {
        let folder = tempfile::tempdir().unwrap();
        let unix = |name: &str, ours| {
            let path = folder.path().join(name);
            Unix { socket: UnixListener::bind(&path).unwrap(), path, ours }
        };
        let mut sockets = Sockets { unix: vec![unix("a", true), unix("b", false)], ..Sockets::default() };
        sockets.extend(Sockets { unix: vec![unix("c", true)], ..Sockets::default() });
        assert!(sockets.take_unix(&folder.path().join("c")).is_some());
        sockets.close();
        let there = |name: &str| folder.path().join(name).exists();
        assert!(!there("a") && there("b") && there("c"));
    }
}
