//! The new process, as the old one sees it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use super::VARIABLE;
use super::channel::{Channel, FDS_MAX, PROTOCOL, Packet};
use super::sockets::Sockets;

/// The last lines of the new process that are quoted when it fails.
const LINES_QUOTED: usize = 20;
/// How long a process that has closed its end may take to end, until it is killed.
const END_MAX: Duration = Duration::from_secs(2);

/// Why a new process did not take over; it has ended.
#[derive(Debug, thiserror::Error)]
pub enum NoHeir {
    /// It cannot be started at all.
    #[error("{} cannot be started: {source}", binary.display())]
    NotStarted {
        /// The binary.
        binary: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it had taken over.
    #[error("{} did not take over: {how}{}", binary.display(), quoted(said))]
    Ended {
        /// The binary.
        binary: PathBuf,
        /// How it ended.
        how: String,
        /// Its last lines.
        said: String,
    },
    /// It took too long.
    #[error("{} was not ready within {waited:?} and was ended{}", binary.display(), quoted(said))]
    Late {
        /// The binary.
        binary: PathBuf,
        /// How long it had.
        waited: Duration,
        /// Its last lines.
        said: String,
    },
    /// The old one is to end, whatever becomes of the new one.
    #[error("switchman was told to end meanwhile")]
    GivenUp,
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it said:\n{said}") }
}

/// A new process. Dropped before it was let go, it is killed.
#[derive(Debug)]
pub struct Heir {
    binary: PathBuf,
    pid: u32,
    channel: Channel,
    child: Child,
    /// Passes on what it logs; answers with the last lines once it logs elsewhere or has ended.
    said: JoinHandle<String>,
    let_go: bool,
}

/// The file that this process was started from, as it is now: a link is followed anew, and a file that was replaced
/// is the new one.
///
/// # Errors
/// The system does not say.
pub fn own_binary() -> io::Result<PathBuf> {
    let typed = std::env::args_os().next().map(PathBuf::from);
    if let Some(typed) = typed.filter(|typed| typed.components().count() > 1 && typed.is_file()) {
        return std::path::absolute(typed);
    }
    let running = std::env::current_exe()?;
    let name = running.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map_or_else(|| running.clone(), PathBuf::from))
}

impl Heir {
    /// Starts `binary` with the arguments and the environment of this process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(binary: &Path) -> Result<Self, NoHeir> {
        let failed = |source| NoHeir::NotStarted { binary: binary.to_owned(), source };
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let mut command = Command::new(binary);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, "stdin").stdin(theirs).stderr(Stdio::piped());
        // The sockets come another way, and the watchdog is for whoever is the main process.
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(failed)?;
        // Its copy of their end must go, or its end would never be seen.
        drop(command);
        let pid = child.id().unwrap_or_default();
        let said = tokio::spawn(pass_on(child.stderr.take()));
        tracing::info!(pid, binary = %binary.display(), "a new process is to take over");
        Ok(Self { binary: binary.to_owned(), pid, channel, child, said, let_go: false })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Offers the lock of the `state` folder and all sockets, and waits until it has built everything.
    ///
    /// # Errors
    /// It failed. It has ended.
    pub async fn build(
        &mut self,
        state: &Path,
        lock: BorrowedFd<'_>,
        sockets: &Sockets,
    ) -> Result<(), NoHeir> {
        if let Err(error) = self.offer(state, lock, sockets).await {
            tracing::debug!(%error, "the new process took not all that was offered");
            return Err(self.ended().await);
        }
        match self.channel.hear().await {
            Ok(Some((Packet::Built, _))) => Ok(()),
            _ => Err(self.ended().await),
        }
    }

    async fn offer(&self, state: &Path, lock: BorrowedFd<'_>, sockets: &Sockets) -> io::Result<()> {
        let hello = Packet::Hello { protocol: PROTOCOL, state: state.to_owned() };
        self.channel.say(&hello, &[lock, rustix::stdio::stderr()]).await?;
        for tcp in &sockets.tcp {
            let packet = Packet::Tcp { asked: tcp.asked, bound: tcp.bound };
            let fds: Vec<BorrowedFd<'_>> = tcp.sockets.iter().map(AsFd::as_fd).collect();
            for fds in fds.chunks(FDS_MAX) {
                self.channel.say(&packet, fds).await?;
            }
        }
        for unix in &sockets.unix {
            let packet = Packet::Unix { path: unix.path.clone(), ours: unix.ours };
            self.channel.say(&packet, &[unix.socket.as_fd()]).await?;
        }
        self.channel.say(&Packet::Offered, &[]).await
    }

    /// Leaves the workers to it, and waits until it accepts requests; answers with the number of versions that went on.
    ///
    /// # Errors
    /// It failed. It has ended.
    pub async fn take_over(&mut self) -> Result<usize, NoHeir> {
        if self.channel.say(&Packet::Yours, &[]).await.is_err() {
            return Err(self.ended().await);
        }
        match self.channel.hear().await {
            Ok(Some((Packet::Ready { versions }, _))) => Ok(versions),
            _ => Err(self.ended().await),
        }
    }

    /// Lets it go its own way. When this is dropped, it takes that for the end of this process.
    pub async fn let_go(&mut self) {
        self.let_go = true;
        // How it ends from here on is its own affair: who watches it starts it again.
        if let Err(error) = self.channel.say(&Packet::Go, &[]).await {
            tracing::error!(pid = self.pid, %error, "the new process has ended as soon as it had taken over");
        }
    }

    /// Ends it, because it took too long.
    pub async fn late(&mut self, waited: Duration) -> NoHeir {
        let said = self.end(Duration::ZERO).await.1;
        NoHeir::Late { binary: self.binary.clone(), waited, said }
    }

    /// Ends it, because this process is to end.
    pub async fn give_up(&mut self) -> NoHeir {
        self.end(Duration::ZERO).await;
        NoHeir::GivenUp
    }

    /// It has closed its end, or says what nobody understands: how it ended.
    async fn ended(&mut self) -> NoHeir {
        let (status, said) = self.end(END_MAX).await;
        let how = match status {
            Some(status) => status.to_string(),
            None => "it gave up the handover".to_owned(),
        };
        NoHeir::Ended { binary: self.binary.clone(), how, said }
    }

    /// Waits for its end, and kills it if that takes too long; how it ended by itself, and its last lines.
    async fn end(&mut self, within: Duration) -> (Option<ExitStatus>, String) {
        let status = match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                // It may have ended just now.
                let _ = self.child.kill().await;
                None
            }
        };
        // What it started may hold its stderr.
        let said = tokio::time::timeout(END_MAX, &mut self.said).await;
        (status, said.ok().and_then(Result::ok).unwrap_or_default())
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if !self.let_go {
            let _ = self.child.start_kill();
        }
    }
}

/// Passes on what the new process logs until it logs by itself; answers with the last lines.
async fn pass_on(stderr: Option<ChildStderr>) -> String {
    let mut last = VecDeque::new();
    let Some(stderr) = stderr else { return String::new() };
    let (mut lines, mut ours) = (BufReader::new(stderr).split(b'\n'), tokio::io::stderr());
    while let Ok(Some(mut line)) = lines.next_segment().await {
        if last.len() == LINES_QUOTED {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line).into_owned());
        line.push(b'\n');
        // A log that cannot be written has nowhere to say so.
        let _ = ours.write_all(&line).await;
    }
    let _ = ours.flush().await;
    last.make_contiguous().join("\n")
}
