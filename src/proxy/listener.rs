//! The public addresses: one listening socket for each thread and address, shared by the kernel
//! (`SO_REUSEPORT`), and the loop that accepts. Sockets that are there already (an upgrade, systemd) are taken
//! instead, and every one of them is accepted from.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{self as sys, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::sync::watch;

use crate::handover::sockets::{Sockets, Tcp};
use crate::proxy::front::{self, Door, Entrance, Front};
use crate::proxy::thread::Thread;

/// Connections that the kernel may hold for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when files or memory have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
    /// What to type next.
    pub hint: String,
}

impl BindError {
    fn new(address: SocketAddr, error: impl Into<io::Error>) -> Self {
        let source = error.into();
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => format!("see who has it: ss -ltnp 'sport = :{}'", address.port()),
            io::ErrorKind::PermissionDenied => {
                "use a port from 1024, or give the binary the right: setcap cap_net_bind_service+ep"
                    .to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "see this machine's addresses: ip address".to_owned(),
            _ => "see `listen:` in switchman.yaml".to_owned(),
        };
        Self { address, source, hint }
    }
}

/// Listening sockets, bound and not yet served.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) addresses: Vec<SocketAddr>,
    /// For each thread its sockets, each with its place in `addresses`: one an address, or more where more were
    /// there already.
    pub(crate) threads: Vec<Vec<(usize, TcpListener)>>,
    /// What stands before their requests.
    pub(crate) front: Front,
}

impl Listeners {
    /// The addresses with the ports that were picked, in the order they were asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same sockets once more, to be handed on. They listen until both are closed.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn share(&self) -> io::Result<Sockets> {
        let mut shared = Sockets::default();
        for (place, socket) in self.threads.iter().flatten() {
            let asked = self.front.doors[*place].address;
            shared.add_tcp(asked, self.addresses[*place], socket.try_clone()?);
        }
        Ok(shared)
    }
}

/// Binds each address once for each of `threads` threads (at least one). Port 0 picks a free port, the same
/// for all.
///
/// # Errors
/// An address that is in use (also by another switchman), forbidden or not this machine's.
pub fn bind(listen: &[SocketAddr], threads: usize) -> Result<Listeners, BindError> {
    let doors: Vec<Door> = listen.iter().copied().map(Door::from).collect();
    bind_front(doors.into(), threads)
}

/// Likewise, for addresses whose connections begin in different ways.
///
/// # Errors
/// As for [`bind`].
pub fn bind_front(front: Front, threads: usize) -> Result<Listeners, BindError> {
    bind_or_take(front, threads, &mut Sockets::default())
}

/// Likewise; an address that `given` has sockets of is not bound anew.
///
/// # Errors
/// As for [`bind`].
pub fn bind_or_take(front: Front, threads: usize, given: &mut Sockets) -> Result<Listeners, BindError> {
    let listen: Vec<SocketAddr> = front.doors.iter().map(|door| door.address).collect();
    let mut listeners = Listeners { addresses: Vec::new(), threads: Vec::new(), front };
    listeners.threads.resize_with(threads.max(1), Vec::new);
    for (place, address) in listen.iter().enumerate() {
        // `[::]:80` beside `0.0.0.0:80` must leave IPv4 to the other.
        let v6_only = listen.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        let fail = |error| BindError::new(*address, error);
        let bound = match given.take_tcp(*address) {
            Some(tcp) => {
                let bound = tcp.bound;
                let sockets = enough(tcp, listeners.threads.len(), v6_only).map_err(fail)?;
                for (socket, thread) in sockets.into_iter().zip((0..listeners.threads.len()).cycle()) {
                    listeners.threads[thread].push((place, socket));
                }
                bound
            }
            None => {
                // SO_REUSEPORT would share the port with another switchman in silence: ask without it first.
                let probe = socket(*address, v6_only, false).map_err(fail)?;
                let mut bound = *address;
                bound.set_port(local_port(&probe).map_err(fail)?);
                drop(probe);
                for sockets in &mut listeners.threads {
                    sockets.push((place, listening(bound, v6_only).map_err(fail)?));
                }
                bound
            }
        };
        listeners.addresses.push(bound);
    }
    Ok(listeners)
}

/// At least one socket for each of `threads` threads, of those that are there and as many more as it takes. Where
/// the kernel does not share the address (a socket of systemd), all threads wait at the sockets that there are.
fn enough(tcp: Tcp, threads: usize, v6_only: bool) -> io::Result<Vec<TcpListener>> {
    let Tcp { bound, mut sockets, .. } = tcp;
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        sockopt::set_tcp_nodelay(socket, true)?;
    }
    let given = sockets.len();
    let is_shared = sockets.first().map_or(Ok(true), sockopt::socket_reuseport)?;
    while sockets.len() < threads {
        let more = match is_shared {
            true => listening(bound, v6_only)?,
            false => sockets[sockets.len() % given].try_clone()?,
        };
        sockets.push(more);
    }
    Ok(sockets)
}

/// A socket that listens on an address of ours.
fn listening(bound: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = socket(bound, v6_only, true)?;
    sys::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A bound socket. What is set on it here, accepted connections inherit: no system call for each of them.
fn socket(address: SocketAddr, v6_only: bool, shared: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = sys::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6_only)?;
    }
    sys::bind(&socket, &address)?;
    Ok(socket)
}

fn local_port(socket: &OwnedFd) -> io::Result<u16> {
    let address = SocketAddr::try_from(sys::getsockname(socket)?)?;
    Ok(address.port())
}

/// Accepts until `stop` turns true, then what is queued already, then closes the socket.
pub(crate) async fn run(
    thread: Rc<Thread>,
    listener: tokio::net::TcpListener,
    entrance: Rc<RefCell<Rc<Entrance>>>,
    stop: watch::Receiver<bool>,
) {
    let mut stopped = stop.clone();
    let mut stopped = std::pin::pin!(async move { stopped.wait_for(|stop| *stop).await.map(|_| ()) });
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = async {
                // At the limit, others wait in the kernel's queue.
                let most = thread.settings().max_connections;
                if thread.clock.open() >= most && thread.may_warn() {
                    tracing::warn!(limit = most, "a thread has all the connections it may have; others wait");
                }
                thread.clock.at_most(most.saturating_sub(1)).await;
                listener.accept().await
            } => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, client)) => front::enter(&thread, &now(&entrance), stream, client),
            Err(error) => pause(&thread, &error).await,
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, client)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = tokio::net::TcpStream::from_std(stream)
        {
            front::enter(&thread, &now(&entrance), stream, client);
        }
    }
}

/// What holds for the connections that begin now.
fn now(entrance: &RefCell<Rc<Entrance>>) -> Rc<Entrance> {
    entrance.borrow().clone()
}

/// An accept that failed because the client has left is nothing; one for want of files or memory needs time.
async fn pause(thread: &Thread, error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
        return;
    }
    if thread.may_warn() {
        tracing::warn!(%error, "cannot accept connections; hint: raise the limit of open files (ulimit -n)");
    }
    tokio::time::sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_one_picked_port_and_nobody_else_gets_it() {
        let listeners = bind(&["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()], 3).unwrap();
        assert_eq!(listeners.threads.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        let first = listeners.addresses()[0];
        assert!(listeners.threads.iter().all(|sockets| sockets[0].1.local_addr().unwrap() == first));
        let error = bind(&[first], 1).unwrap_err();
        assert!(error.to_string().contains(&first.to_string()) && error.hint.contains("ss -ltnp"), "{error}");
    }
}
