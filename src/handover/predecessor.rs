//! The old process, as the new one sees it.

use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::net::{SocketType, sockopt};

use super::VARIABLE;
use super::channel::{Channel, PROTOCOL, Packet};
use super::sockets::{Sockets, Unix};

/// Why nothing can be taken over. This process is to end; the old one goes on.
#[derive(Debug, thiserror::Error)]
pub enum NoPredecessor {
    /// The channel does not work.
    #[error("the old process cannot be heard: {0}")]
    Channel(#[from] io::Error),
    /// It speaks another way.
    #[error("the old process speaks handover protocol {0}, this one speaks {PROTOCOL}")]
    Protocol(u32),
    /// It has ended, or does not want to be followed any more.
    #[error("the old process has given up the upgrade")]
    GaveUp,
    /// It says what is not expected.
    #[error("the old process said `{said}` instead of `{expected}`")]
    OutOfTurn {
        /// What came.
        said: String,
        /// What was to come.
        expected: &'static str,
    },
}

/// What the old process leaves.
#[derive(Debug)]
pub struct Inheritance {
    /// Its state folder.
    pub state: PathBuf,
    /// That folder's lock.
    pub lock: OwnedFd,
    /// What it listens on.
    pub sockets: Sockets,
}

/// The old process.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    /// Where it logs.
    log: OwnedFd,
}

/// What was offered so far.
#[derive(Debug, Default)]
struct Offer {
    hello: Option<(PathBuf, OwnedFd, OwnedFd)>,
    sockets: Sockets,
}

impl Offer {
    /// Takes one packet; whether it was the last.
    fn take(&mut self, packet: Packet, fds: Vec<OwnedFd>) -> Result<bool, NoPredecessor> {
        let mut fds = fds.into_iter();
        match packet {
            Packet::Hello { protocol, .. } if protocol != PROTOCOL => {
                return Err(NoPredecessor::Protocol(protocol));
            }
            Packet::Hello { state, .. } => {
                self.hello = fds.next().zip(fds.next()).map(|(l, e)| (state, l, e))
            }
            Packet::Tcp { asked, bound } => {
                fds.for_each(|fd| self.sockets.add_tcp(asked, bound, TcpListener::from(fd)));
            }
            Packet::Unix { path, ours } => {
                let unix = |fd| Unix { path: path.clone(), ours, socket: UnixListener::from(fd) };
                self.sockets.unix.extend(fds.map(unix));
            }
            Packet::Offered => return Ok(true),
            other => {
                return Err(NoPredecessor::OutOfTurn { said: format!("{other:?}"), expected: "Offered" });
            }
        }
        Ok(false)
    }
}

impl Predecessor {
    /// The process that has started this one to follow it, and what it leaves; none where nobody did. Call within a
    /// tokio runtime.
    ///
    /// # Errors
    /// It cannot be understood.
    pub async fn meet() -> Result<Option<(Self, Inheritance)>, NoPredecessor> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let stdin = rustix::stdio::stdin();
        // The variable may have come from further above.
        if sockopt::socket_type(stdin).ok() != Some(SocketType::SEQPACKET) {
            return Ok(None);
        }
        let channel = Channel::new(stdin.try_clone_to_owned()?)?;
        let nothing = OpenOptions::new().read(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(nothing).map_err(io::Error::from)?;
        let mut offer = Offer::default();
        loop {
            let (packet, fds) = channel.hear().await?.ok_or(NoPredecessor::GaveUp)?;
            if offer.take(packet, fds)? {
                break;
            }
        }
        let Some((state, lock, log)) = offer.hello else { return Err(NoPredecessor::GaveUp) };
        Ok(Some((Self { channel, log }, Inheritance { state, lock, sockets: offer.sockets })))
    }

    /// Says that all is built, and waits until the workers are ours.
    ///
    /// # Errors
    /// They never will be.
    pub async fn built(&self) -> Result<(), NoPredecessor> {
        self.channel.say(&Packet::Built, &[]).await?;
        self.hear_only(&Packet::Yours, "Yours").await
    }

    /// Says that requests are accepted, and waits until the old one accepts none. From here on this process stands for
    /// itself, also where the old one is dead: the workers are ours, and nobody else serves them.
    pub async fn ready(&self, versions: usize) {
        let told = self.channel.say(&Packet::Ready { versions }, &[]).await;
        let go = match told {
            Ok(()) => self.hear_only(&Packet::Go, "Go").await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = go {
            tracing::warn!(%error, "the old process ended before it had handed over; going on alone");
        }
        if let Err(error) = rustix::stdio::dup2_stderr(&self.log) {
            tracing::error!(%error, "this process cannot log where the old one did");
        }
    }

    /// Waits until the old process has ended: nobody else sends requests to the workers then.
    pub async fn ended(self) {
        while let Ok(Some(_)) = self.channel.hear().await {}
    }

    async fn hear_only(&self, packet: &Packet, expected: &'static str) -> Result<(), NoPredecessor> {
        match self.channel.hear().await? {
            Some((said, _)) if said == *packet => Ok(()),
            Some((said, _)) => Err(NoPredecessor::OutOfTurn { said: format!("{said:?}"), expected }),
            None => Err(NoPredecessor::GaveUp),
        }
    }
}
