//! The outputs of a worker: two FIFOs that live as long as somebody of the worker's tree holds them.
//!
//! The worker is given each of them open for reading and writing, so that it holds both ends: when the reader
//! (switchman) vanishes, what it prints neither kills it (SIGPIPE) nor is lost. It waits in the pipe, up to
//! [`ROOM`], for the next switchman, which opens the FIFO by its name; a worker that prints more than that
//! meanwhile waits too. A spool file would never make it wait, but a process that opens `/dev/stderr` anew would
//! then write over its beginning.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::{self, Receiver};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::launch::reach;
use crate::config::Account;

/// The ending of the FIFO for standard output.
pub(crate) const OUT: &str = "out";
/// The ending of the FIFO for standard error.
pub(crate) const ERR: &str = "err";
/// How much may wait in each, in bytes; the first that the system grants (`/proc/sys/fs/pipe-max-size`, and less for
/// a user who holds many). The last is what every pipe has.
const ROOM: [usize; 3] = [1 << 20, 1 << 18, 1 << 16];

/// Makes one FIFO, for our user alone or also for the group of `account`, and opens it as the worker is to have it.
pub(crate) fn make(path: &Path, account: Option<&Account>) -> io::Result<File> {
    // One of the same name would be of a process that was never recorded.
    let _ = std::fs::remove_file(path);
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?;
    if let Some(account) = account {
        reach::give(path, account)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // With less room the worker waits sooner while no switchman runs; nothing else changes.
    let _ = ROOM.iter().any(|bytes| fcntl_setpipe_size(&file, *bytes).is_ok());
    Ok(file)
}

/// Both FIFOs of the process with this `PIDFILE`: standard output and standard error.
pub(crate) fn paths(pidfile: &Path) -> [PathBuf; 2] {
    [OUT, ERR].map(|ending| pidfile.with_extension(ending))
}

/// The reading end: ends when nobody of the worker's tree holds the FIFO any more, or, once switchman leaves, after a
/// whole line.
#[derive(Debug)]
pub(crate) struct Output {
    receiver: Receiver,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    leaves: bool,
    /// The last byte that was read.
    last: u8,
}

impl Output {
    /// Opens the FIFO at `path`. Call within a tokio runtime.
    pub(crate) fn open(path: &Path, leaving: CancellationToken) -> io::Result<Self> {
        let receiver = pipe::OpenOptions::new().open_receiver(path)?;
        Ok(Self { receiver, leaving: Box::pin(leaving.cancelled_owned()), leaves: false, last: b'\n' })
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.leaves = self.leaves || self.leaving.as_mut().poll(cx).is_ready();
        if !self.leaves {
            ready!(Pin::new(&mut self.receiver).poll_read(cx, buf))?;
            self.last = buf.filled().last().copied().unwrap_or(self.last);
        } else if self.last != b'\n' {
            // The rest of the line that was begun, if it is there; what follows is for the next reader.
            let mut byte = [0];
            if let Ok(1) = self.receiver.try_read(&mut byte) {
                buf.put_slice(&byte);
                self.last = byte[0];
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_printed_without_a_reader_waits_for_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0-1.out");
        let mut worker = make(&path, None).unwrap();
        let token = CancellationToken::new();
        let mut first = Output::open(&path, token.clone()).unwrap();
        worker.write_all(b"one\n").unwrap();
        let mut buffer = [0; 100];
        assert_eq!(first.read(&mut buffer).await.unwrap(), 4);

        drop(first);
        worker.write_all(b"two\n").unwrap();
        // What every pipe has, at least.
        worker.write_all(&[b'x'; 60_000]).unwrap();
        let mut second = Output::open(&path, token).unwrap();
        drop(worker);
        let mut rest = Vec::new();
        second.read_to_end(&mut rest).await.unwrap();
        assert!(rest.starts_with(b"two\nxxx") && rest.len() == 60_004, "{}", rest.len());
    }

    #[tokio::test]
    async fn who_leaves_reads_to_the_end_of_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0-1.out");
        let mut worker = make(&path, None).unwrap();
        let leaving = CancellationToken::new();
        let mut first = Output::open(&path, leaving.clone()).unwrap();
        worker.write_all(b"begun, ").unwrap();
        let mut buffer = [0; 7];
        first.read_exact(&mut buffer).await.unwrap();
        worker.write_all(b"ended\nnext\n").unwrap();
        leaving.cancel();
        let mut rest = String::new();
        first.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ended\n");

        let mut second = Output::open(&path, CancellationToken::new()).unwrap();
        let mut next = [0; 5];
        second.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"next\n");
        let idle = tokio::time::timeout(Duration::from_millis(20), second.read(&mut next)).await;
        assert!(idle.is_err(), "it ends only when the worker has let go of it");
    }
}
