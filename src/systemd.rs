//! What switchman and systemd tell each other; nothing of it happens where systemd did not start us.
//!
//! ```text
//! systemd -> us: sockets (socket units, and those that a switchman before us has stored), the watchdog's time
//! us -> systemd: READY, RELOADING, STOPPING, MAINPID after an upgrade, WATCHDOG, sockets to be stored
//! ```
//!
//! Stored sockets stay open while no switchman runs: after a crash nobody is refused, clients wait for the next.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::handover::sockets::{Sockets, Unix};

/// What the names of the sockets begin with that we store.
const STORED: &str = "switchman.";
/// Likewise of unix sockets; their path follows.
const STORED_UNIX: &str = "switchman.unix.";
/// The most descriptors of one message to systemd; the kernel allows 253.
const FDS_MAX: usize = 64;
/// The sockets that systemd gives us. Call it before anything is opened, and once.
pub fn sockets() -> Sockets {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut given = ListenFd::from_env();
    let mut sockets = Sockets::default();
    for place in 0..given.len() {
        let name = names.get(place).copied().unwrap_or_default();
        if let Err(error) = take(&mut given, place, name, &mut sockets) {
            tracing::warn!(name, %error, "a file descriptor of systemd is no listening socket, and is left alone");
        }
    }
    sockets
}

fn take(given: &mut ListenFd, place: usize, name: &str, sockets: &mut Sockets) -> io::Result<()> {
    if let Ok(Some(socket)) = given.take_tcp_listener(place) {
        let address = socket.local_addr()?;
        sockets.add_tcp(address, address, socket);
        return Ok(());
    }
    let Some(socket) = given.take_unix_listener(place)? else { return Ok(()) };
    // One of ours was moved to its path after it was made, so only its name knows where it is.
    let stored = name.strip_prefix(STORED_UNIX).map(PathBuf::from);
    let ours = stored.is_some();
    let path = stored.map_or_else(|| unix_path(&socket), Ok)?;
    sockets.unix.push(Unix { path, ours, socket });
    Ok(())
}

fn unix_path(socket: &UnixListener) -> io::Result<PathBuf> {
    let address = socket.local_addr()?;
    address.as_pathname().map(Into::into).ok_or_else(|| io::Error::other("it has no path"))
}

/// Everything runs; also after a reload.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read anew; [`ready`] says when that is over.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd is not told of the reload"),
    }
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// From now on `pid` is the process that systemd watches.
pub fn main_pid(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Has systemd keep these sockets. What it has already it keeps once.
pub fn store(sockets: &Sockets) {
    for tcp in &sockets.tcp {
        let name = format!("{STORED}{}", tcp.bound).replace(':', "_");
        let fds: Vec<BorrowedFd<'_>> = tcp.sockets.iter().map(AsFd::as_fd).collect();
        fds.chunks(FDS_MAX).for_each(|fds| store_as(&name, fds));
    }
    // That of a socket unit is kept by its unit.
    for unix in sockets.unix.iter().filter(|unix| unix.ours) {
        store_as(&format!("{STORED_UNIX}{}", unix.path.display()), &[unix.socket.as_fd()]);
    }
}

fn store_as(name: &str, fds: &[BorrowedFd<'_>]) {
    let said = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], fds);
    if let Err(error) = said {
        tracing::warn!(name, %error, "systemd was not given a listening socket to keep");
    }
}

/// Has systemd close the sockets of an address that is listened on no more.
pub fn forget(address: std::net::SocketAddr) {
    let name = format!("{STORED}{address}").replace(':', "_");
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]);
}

/// Tells the watchdog that we live, twice in the time that it gives us; for as long as it is polled.
pub async fn keep_alive() {
    let Some(time) = sd_notify::watchdog_enabled().filter(|time| *time > Duration::ZERO) else { return };
    let mut beats = tokio::time::interval(time / 2);
    loop {
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(?what, %error, "systemd cannot be told");
    }
}
