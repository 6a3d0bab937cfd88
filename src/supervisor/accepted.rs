//! Whether a connection to a socket that switchman itself has opened was accepted by a worker.
//!
//! The kernel answers for such a socket as soon as it listens: that a connection is made says nothing. The worker's end
//! of it has no owner in `/proc/net/tcp` until somebody accepts it.

use std::net::SocketAddr;
use std::time::Duration;

use procfs::net::{TcpNetEntry, TcpState};
use tokio::net::TcpStream;

use super::get::Failure;
use super::health;
use crate::registry::Address;

/// The first pause between two looks; it doubles.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// The longest.
const LOOK_MAX: Duration = Duration::from_millis(200);

/// A connection is accepted within `timeout`; else why not.
pub(crate) async fn accepts(address: &Address, timeout: Duration) -> Result<(), Failure> {
    let Address::Tcp(address) = *address else { return health::connects(address, timeout).await };
    let accepted = async {
        let failed = |error| Failure::Silent(format!("connecting to {address} failed: {error}"));
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        let from = stream.local_addr().map_err(failed)?;
        let mut pause = LOOK_MIN;
        while !tokio::task::spawn_blocking(move || is_accepted(address, from)).await.unwrap_or(false) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
        Ok(())
    };
    tokio::time::timeout(timeout, accepted).await.unwrap_or_else(|_| {
        Err(Failure::Silent(format!(
            "no connection was accepted on {address} within {timeout:?}; hint: with `upstream: inherit` a worker serves \
             the socket that it finds as file descriptor 3 (LISTEN_FDS), and under a shell is begun with `exec`"
        )))
    })
}

/// Whether the worker's end of the connection from `from` has had an owner.
fn is_accepted(address: SocketAddr, from: SocketAddr) -> bool {
    let Ok(entries) = procfs::net::tcp() else {
        // Where nothing can be seen, the connection has to do.
        return true;
    };
    let is_it = |entry: &&TcpNetEntry| entry.local_address == address && entry.remote_address == from;
    // One that is closed already, or gone, was accepted before.
    entries.iter().find(is_it).is_none_or(|entry| entry.inode != 0 || entry.state != TcpState::Established)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_waits_is_not_accepted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let said = accepts(&address, Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(said.contains("no connection was accepted on 127.0.0.1:"), "{said}");
        let accepting = std::thread::spawn(move || {
            // The one from above, and the next.
            let first = listener.accept().unwrap();
            (first, listener.accept().unwrap(), listener)
        });
        accepts(&address, Duration::from_secs(30)).await.unwrap();
        let (_, _, listener) = accepting.join().unwrap();
        // At once closed again.
        let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
        accepts(&address, Duration::from_secs(30)).await.unwrap();
        closing.join().unwrap();
        assert!(accepts(&address, Duration::from_secs(1)).await.unwrap_err().to_string().contains("failed"));
    }
}
