//! The sockets that switchman opens for its workers (`upstream: inherit`): each worker number of a version has one, which
//! stays open while the worker is started again.
//!
//! ```text
//! process ends by itself -> its socket is kept -> the next process of the worker gets it
//! process was replaced, or is not wanted any more -> nobody needs the socket -> it is closed
//! ```
//!
//! The kernel picks the port, and it is ours from that moment on. Connections that come while no process is there wait in
//! the socket's queue. Two processes never have the same socket: while a rolling restart runs both, each has its own,
//! so that each gets its own requests only.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::FDTarget;
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::version::{ServiceName, VersionId, WorkerId};

/// One worker number of a version.
pub(crate) type Seat = (ServiceName, VersionId, WorkerId);

/// The sockets that wait for the next process of their worker; clonable.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerTable(Arc<Mutex<HashMap<Seat, TcpListener>>>);

/// The socket of one process; waits for the next one when this is dropped.
#[derive(Debug)]
pub(crate) struct ListenerGuard {
    table: ListenerTable,
    seat: Seat,
    address: SocketAddr,
    /// Gone only while it is dropped.
    listener: Option<TcpListener>,
}

/// No socket could be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "no port can be opened on 127.0.0.1: {0}; hint: see what listens with `ss -ltn`, and the limit of open files with `ulimit -n`"
)]
pub(crate) struct NoListener(#[from] io::Error);

impl ListenerTable {
    /// The socket that waits for a process of this worker, or a new one.
    pub(crate) fn pick(&self, seat: Seat) -> Result<ListenerGuard, NoListener> {
        let kept = self.kept().remove(&seat);
        // A worker can end it for all who have it: shutdown(2).
        let listener = match kept.filter(|kept| socket_acceptconn(kept).unwrap_or(false)) {
            Some(kept) => kept,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        };
        let address = listener.local_addr()?;
        Ok(ListenerGuard { table: self.clone(), seat, address, listener: Some(listener) })
    }

    /// The socket of a process that an earlier switchman has started: it has it open. None where it cannot be had of it.
    pub(crate) fn claim(
        &self,
        seat: Seat,
        address: SocketAddr,
        process: &OwnedFd,
        pid: u32,
    ) -> Option<ListenerGuard> {
        let entries = procfs::net::tcp().ok()?;
        let is_it = |e: &&TcpNetEntry| e.state == TcpState::Listen && e.local_address == address;
        let inode = entries.iter().find(is_it)?.inode;
        let open = procfs::process::Process::new(pid.cast_signed()).and_then(|process| process.fd()).ok()?;
        let fd = open.flatten().find(|fd| fd.target == FDTarget::Socket(inode))?.fd;
        let listener = TcpListener::from(pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).ok()?);
        // It may have opened another one under that number meanwhile.
        let is_it =
            listener.local_addr().is_ok_and(|local| local == address) && socket_acceptconn(&listener).ok()?;
        is_it.then(|| ListenerGuard { table: self.clone(), seat, address, listener: Some(listener) })
    }

    /// Closes the sockets of a version but for those of the workers that wait for a process.
    pub(crate) fn keep_only(&self, service: &ServiceName, version: &VersionId, waiting: &[WorkerId]) {
        self.kept().retain(|(s, v, worker), _| s != service || v != version || waiting.contains(worker));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Seat, TcpListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ListenerGuard {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leaves it to its process, of which the next supervisor can have it again.
    pub(crate) fn leave(mut self) {
        self.listener = None;
    }

    /// A descriptor of it for the process.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok(listener.try_clone()?.into())
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.table.kept().insert(self.seat.clone(), listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn seat(worker: u32) -> Seat {
        ("app".into(), "4f2a91c".into(), WorkerId(worker))
    }

    #[test]
    fn the_next_process_of_a_worker_has_its_socket_and_nobody_else_has() {
        let table = ListenerTable::default();
        let first = table.pick(seat(0)).unwrap();
        let beside = table.pick(seat(0)).unwrap();
        assert_ne!(first.address(), beside.address(), "no two processes share one");
        let address = first.address();
        drop(first);
        let waits = TcpStream::connect(address).unwrap();
        assert_ne!(table.pick(seat(1)).unwrap().address(), address);
        let next = table.pick(seat(0)).unwrap();
        assert_eq!(next.address(), address);
        let listener = TcpListener::from(next.descriptor().unwrap());
        assert_eq!(listener.accept().unwrap().1, waits.local_addr().unwrap());
    }

    #[test]
    fn the_socket_of_a_process_can_be_had_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let me = std::process::id();
        let process =
            rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        let process = process.unwrap();
        let table = ListenerTable::default();
        let guard = table.claim(seat(0), address, &process, me).unwrap();
        drop(listener);
        assert!(TcpStream::connect(guard.address()).is_ok(), "it is open still");
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(table.claim(seat(1), elsewhere, &process, me).is_none());
    }

    #[test]
    fn one_that_is_left_is_open_only_where_the_process_has_it() {
        let table = ListenerTable::default();
        let guard = table.pick(seat(0)).unwrap();
        let (address, process) = (guard.address(), guard.descriptor().unwrap());
        guard.leave();
        assert!(TcpStream::connect(address).is_ok());
        drop(process);
        assert!(TcpStream::connect(address).is_err() && table.kept().is_empty());
    }

    #[test]
    fn what_nobody_waits_for_is_closed() {
        let table = ListenerTable::default();
        let addresses = [0, 1].map(|worker| table.pick(seat(worker)).unwrap().address());
        table.keep_only(&"app".into(), &"another".into(), &[]);
        assert!(TcpStream::connect(addresses[0]).is_ok());
        table.keep_only(&"app".into(), &"4f2a91c".into(), &[WorkerId(1)]);
        assert!(TcpStream::connect(addresses[0]).is_err() && TcpStream::connect(addresses[1]).is_ok());
    }

    #[test]
    fn one_that_was_shut_down_is_not_given_again() {
        let table = ListenerTable::default();
        let guard = table.pick(seat(0)).unwrap();
        let worker = guard.descriptor().unwrap();
        rustix::net::shutdown(&worker, rustix::net::Shutdown::Both).unwrap();
        drop(guard);
        let next = table.pick(seat(0)).unwrap();
        assert!(TcpStream::connect(next.address()).is_ok());
    }
}
