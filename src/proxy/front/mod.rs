//! How an accepted socket becomes a connection: by PROXY header and TLS, where its public address has them.
//!
//! ```text
//! accept --plain----------------------------------------------------> handler
//!        \-PROXY header (proxy_protocol)--> TLS handshake (tls)-----> handler, over the TLS stream
//!            | not from a trusted proxy,       | plain HTTP: 400
//!            | or broken: closed               | broken: closed
//! ```

pub(crate) mod proxy_protocol;
mod tls;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use ipnet::IpNet;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::proxy::client::{Client, is_trusted};
use crate::proxy::clock::{Alarm, ticks};
use crate::proxy::error::{self, Manner, Refusal};
use crate::proxy::handler::{self, DRAIN_FIRST};
use crate::proxy::per_client::{self, Counted};
use crate::proxy::thread::Thread;

pub use tls::Tls;

/// A public address, and how connections to it begin.
#[derive(Debug, Clone)]
pub struct Door {
    /// The address.
    pub address: SocketAddr,
    /// Each connection begins with a PROXY header, and comes from a trusted proxy.
    pub proxy_protocol: bool,
    /// What comes next.
    pub inside: Inside,
}

/// What a connection is, behind the PROXY header.
#[derive(Debug, Clone)]
pub enum Inside {
    /// HTTP.
    Http,
    /// HTTP, whose requests are sent to the first address with TLS.
    Redirect,
    /// TLS with HTTP inside.
    Tls(Tls),
}

impl From<SocketAddr> for Door {
    /// HTTP as it is.
    fn from(address: SocketAddr) -> Self {
        Self { address, proxy_protocol: false, inside: Inside::Http }
    }
}

/// Everything that stands before a request.
#[derive(Debug, Clone)]
pub struct Front {
    /// The public addresses.
    pub doors: Vec<Door>,
    /// Proxies that are believed what they say of their clients.
    pub trusted_proxies: Vec<IpNet>,
    /// Each request gets an id.
    pub request_ids: bool,
}

impl From<Vec<Door>> for Front {
    /// Nobody is trusted, and there are ids.
    fn from(doors: Vec<Door>) -> Self {
        Self { doors, trusted_proxies: Vec::new(), request_ids: true }
    }
}

/// One [`Door`] whose sockets are bound, with all that a connection has to know of the front.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    pub(crate) proxy_protocol: bool,
    pub(crate) tls: Option<Tls>,
    /// The port that requests are sent to instead, by https.
    pub(crate) redirect: Option<u16>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) request_ids: bool,
}

impl Default for Entrance {
    fn default() -> Self {
        Self {
            proxy_protocol: false,
            tls: None,
            redirect: None,
            trusted_proxies: Vec::new(),
            request_ids: true,
        }
    }
}

impl Front {
    /// The doors, bound to `addresses`.
    pub(crate) fn entrances(&self, addresses: &[SocketAddr]) -> Vec<Entrance> {
        let is_tls = |door: &Door| matches!(door.inside, Inside::Tls(_));
        let https = self.doors.iter().zip(addresses).find(|(door, _)| is_tls(door));
        let https = https.map(|(_, address)| address.port());
        let entrance = |door: &Door| {
            let (tls, redirect) = match &door.inside {
                Inside::Http => (None, None),
                Inside::Redirect => (None, https),
                Inside::Tls(tls) => (Some(tls.clone()), None),
            };
            let (trusted_proxies, request_ids) = (self.trusted_proxies.clone(), self.request_ids);
            Entrance { proxy_protocol: door.proxy_protocol, tls, redirect, trusted_proxies, request_ids }
        };
        self.doors.iter().map(entrance).collect()
    }
}

/// Takes the connection of `peer` in.
pub(crate) fn enter(thread: &Rc<Thread>, entrance: &Rc<Entrance>, stream: TcpStream, peer: SocketAddr) {
    let peer = peer.ip();
    // Whose connection it is, a PROXY header says later.
    let counted = if entrance.proxy_protocol { Ok(None) } else { count(thread, entrance, peer) };
    // Closed without a word: an answer would cost what the limit is to save.
    let Ok(counted) = counted else { return };
    // Made here and not in the task, so that the connection counts as open at once.
    let alarm = Alarm::new(thread.clone());
    if entrance.proxy_protocol || entrance.tls.is_some() {
        tokio::task::spawn_local(begin(thread.clone(), entrance.clone(), alarm, stream, peer, counted));
    } else {
        let client = Rc::new(Client::new(peer, entrance).counted(counted));
        tokio::task::spawn_local(handler::serve(thread.clone(), alarm, stream, client));
    }
}

/// Counts a connection as its client's, unless that is a trusted proxy, which speaks for many.
fn count(thread: &Rc<Thread>, entrance: &Entrance, client: IpAddr) -> Result<Option<Counted>, ()> {
    match is_trusted(client.to_canonical(), &entrance.trusted_proxies) {
        true => Ok(None),
        false => per_client::count(thread, client),
    }
}

/// Takes what comes before HTTP, then serves. Both are boxed, each for as long as it lasts: an idle connection is
/// as small as one without all this.
async fn begin(
    thread: Rc<Thread>,
    entrance: Rc<Entrance>,
    alarm: Alarm<Thread>,
    stream: TcpStream,
    peer: IpAddr,
    mut counted: Option<Counted>,
) {
    alarm.attach().await;
    let introduced = Box::pin(in_time(&thread, &alarm, introduce(&thread, &entrance, stream, peer))).await;
    let Some(Some((stream, ip))) = introduced else { return };
    if entrance.proxy_protocol {
        match count(&thread, &entrance, ip) {
            Ok(its) => counted = its,
            Err(()) => return,
        }
    }
    let client = Rc::new(Client::new(ip, &entrance).counted(counted));
    let serving: Pin<Box<dyn Future<Output = ()>>> = match stream {
        Begun::Plain(stream) => Box::pin(handler::serve(thread, alarm, stream, client)),
        Begun::Tls(stream) => Box::pin(handler::serve(thread, alarm, stream, client)),
    };
    serving.await;
}

/// The future's output, or none after the time that a request head has. A thread that drains waits no longer than
/// for the first request of any connection.
async fn in_time<F: Future>(thread: &Thread, alarm: &Alarm<Thread>, future: F) -> Option<F::Output> {
    alarm.arm(thread.timeouts().head);
    let mut future = pin!(future);
    let mut told_to_drain = false;
    poll_fn(|cx| {
        if thread.draining.get() && !told_to_drain {
            told_to_drain = true;
            alarm.arm(ticks(DRAIN_FIRST));
        }
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if alarm.expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A connection on which HTTP comes next.
enum Begun {
    Plain(TcpStream),
    Tls(tls::Stream),
}

/// PROXY header and handshake, as far as `entrance` has them. Also who the client is.
async fn introduce(
    thread: &Thread,
    entrance: &Entrance,
    stream: TcpStream,
    peer: IpAddr,
) -> Option<(Begun, IpAddr)> {
    let client = match entrance.proxy_protocol {
        false => peer,
        true => match proxied(entrance, &stream, peer).await {
            Ok(client) => client,
            Err(why) => {
                if thread.may_warn() {
                    tracing::warn!(%peer, "closed a connection where PROXY headers are wanted: {why}");
                }
                return None;
            }
        },
    };
    let Some(tls) = &entrance.tls else { return Some((Begun::Plain(stream), client)) };
    match handshake(tls, stream).await {
        Ok(stream) => Some((Begun::Tls(stream), client)),
        Err(error) => {
            tracing::debug!(%client, %error, "a TLS handshake failed");
            None
        }
    }
}

/// Who the client of a connection with a PROXY header is.
async fn proxied(entrance: &Entrance, stream: &TcpStream, peer: IpAddr) -> Result<IpAddr, String> {
    if !is_trusted(peer.to_canonical(), &entrance.trusted_proxies) {
        return Err("its peer is not in `trusted_proxies`".to_owned());
    }
    let said = proxy_protocol::read(stream).await.map_err(|broken| broken.to_string())?;
    Ok(said.unwrap_or(peer))
}

/// The handshake. Who speaks plain HTTP instead is told so.
async fn handshake(tls: &Tls, mut stream: TcpStream) -> io::Result<tls::Stream> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
        let refusal = Refusal::bad("this port speaks TLS: the address begins with https://");
        let mut answer = Vec::new();
        let manner = Manner { head_only: false, close: true, http11: true };
        error::answer(&refusal, None).write(manner, &mut answer);
        stream.write_all(&answer).await?;
        // What is left unread would make the kernel reset the connection, and the answer might be lost.
        stream.shutdown().await?;
        while stream.try_read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        return Err(io::Error::other("it is plain HTTP"));
    }
    tls.accept(stream).await
}
