//! What idle connections cost in memory: ten thousand that have carried one request each and wait for the next.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::Result;
use crate::proxies::{Memory, Proxy};

/// How many there are.
pub(crate) const CONNECTIONS: usize = 10_000;
/// How many are made at a time.
const AT_ONCE: usize = 100;
/// They come from so many addresses, as they would outside: a proxy may limit those of one client.
const CLIENTS: usize = 100;
/// How long a proxy has to give back what it needed only while they were made.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory before the connections were made, and while they wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) before: Memory,
    pub(crate) after: Memory,
}

/// Whether this process may open as many files; else why not.
pub(crate) fn is_possible() -> std::result::Result<(), String> {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < CONNECTIONS as u64 + 100 => {
            Err(format!("the limit of open files is {limit}, and {CONNECTIONS} connections need more"))
        }
        _ => Ok(()),
    }
}

/// Makes the connections to `proxy`, looks, and closes them.
pub(crate) async fn measure(proxy: &Proxy) -> Result<Idle> {
    let before = proxy.memory()?;
    let address: SocketAddr = proxy.address.parse()?;
    let mut open = Vec::with_capacity(CONNECTIONS);
    while open.len() < CONNECTIONS {
        let numbers = open.len()..open.len() + AT_ONCE;
        let mut making: JoinSet<std::io::Result<TcpStream>> = numbers.map(|n| idle(address, n)).collect();
        while let Some(made) = making.join_next().await {
            open.push(made??);
        }
    }
    tokio::time::sleep(SETTLE).await;
    let after = proxy.memory()?;
    // One that was closed meanwhile has something to read: its end.
    let closed = open.iter().filter(|stream| stream.try_read(&mut [0]).is_ok()).count();
    if closed > 0 {
        return Err(format!("{} closed {closed} of {CONNECTIONS} idle connections", proxy.name).into());
    }
    Ok(Idle { before, after })
}

/// One connection whose first request was answered.
async fn idle(address: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let client = [127, 0, 1, 1 + (number % CLIENTS) as u8];
    let socket = TcpSocket::new_v4()?;
    socket.bind((client, 0).into())?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // The whole answer ends with the body of `/healthz`.
    while !answer.ends_with(b"ok\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            let said = String::from_utf8_lossy(&answer).into_owned();
            return Err(std::io::Error::other(format!("the connection was closed after {said:?}")));
        }
    }
    Ok(stream)
}
