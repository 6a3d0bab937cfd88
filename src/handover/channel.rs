//! What two switchmen say to each other, and the descriptors that go with it (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The way of speaking; goes up by one when a binary could not understand the one before.
pub(super) const PROTOCOL: u32 = 1;
/// The most descriptors of one packet; the kernel allows 253.
pub(super) const FDS_MAX: usize = 64;
/// The longest packet, in bytes; the longest one is a path.
const PACKET_MAX: usize = 16 * 1024;

/// One message. The picture in [`super`] says who says what when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Packet {
    /// With the state folder's lock, and where the old process logs.
    Hello { protocol: u32, state: PathBuf },
    /// With sockets of one TCP address.
    Tcp { asked: SocketAddr, bound: SocketAddr },
    /// With one unix socket.
    Unix { path: PathBuf, ours: bool },
    /// That was all.
    Offered,
    /// Everything that can fail without the workers has not.
    Built,
    /// The workers are yours.
    Yours,
    /// They answer, and requests are accepted.
    Ready { versions: usize },
    /// So be it: the old one accepts no more.
    Go,
}

/// One end of the connection between both processes. Packets keep their bounds and their order: it is no stream, and
/// only waits like one.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Both ends: ours, and the one for the other process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Over an end that does not block.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixStream::from_std(end.into())?))
    }

    /// Says one thing, with at most [`FDS_MAX`] descriptors.
    pub(super) async fn say(&self, packet: &Packet, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(packet)?;
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut with = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::Error::other("too many descriptors for one packet"));
            }
            sendmsg(&self.0, &[IoSlice::new(&text)], &mut with, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Waits for the next thing that is said, and its descriptors; none: the other end is closed.
    pub(super) async fn hear(&self) -> io::Result<Option<(Packet, Vec<OwnedFd>)>> {
        let receive = || {
            let mut text = [0; PACKET_MAX];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut text)];
            let received = recvmsg(&self.0, &mut into, &mut with, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let mut fds = Vec::new();
            for message in with.drain() {
                if let RecvAncillaryMessage::ScmRights(more) = message {
                    fds.extend(more);
                }
            }
            Ok((text[..received].to_vec(), fds))
        };
        let (text, fds) = match self.0.async_io(Interest::READABLE, receive).await {
            // What was not read when the other end was closed makes it look broken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            received => received?,
        };
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&text)?, fds)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn descriptors_arrive_with_what_is_said_of_them() {
        let (old, theirs) = Channel::pair().unwrap();
        let new = Channel::new(theirs).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = listener.local_addr().unwrap();
        let tcp = Packet::Tcp { asked: bound, bound };
        old.say(&tcp, &vec![listener.as_fd(); FDS_MAX]).await.unwrap();
        old.say(&Packet::Offered, &[]).await.unwrap();
        drop(listener);
        let (packet, fds) = new.hear().await.unwrap().unwrap();
        assert_eq!((packet, fds.len()), (tcp, FDS_MAX));
        let same = std::net::TcpListener::from(fds.into_iter().next().unwrap());
        assert_eq!(same.local_addr().unwrap(), bound);
        assert_eq!(new.hear().await.unwrap().unwrap().0, Packet::Offered);
        drop(old);
        assert!(new.hear().await.unwrap().is_none());
    }
}
