//! The proxies as real processes in a temporary folder, before the same two workers.
//!
//! switchman starts the workers, as it would anywhere; nginx and HAProxy are given their addresses. A second switchman
//! reaches two more of the same workers over unix sockets. Access logs are off in all of them; switchman counts its
//! metrics, which the others have none of.

mod haproxy;
mod nginx;
mod switchman;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{Options, Result};

/// The switchman whose workers listen on unix sockets.
pub(crate) const UNIX: &str = "switchman, unix sockets";

/// How long a process may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that each proxy must be able to hold: the idle ones, and some to the workers.
const CONNECTIONS: usize = 11_000;

/// One running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    /// Its public address.
    pub(crate) address: String,
    /// Where it is to speak HTTP/2 by prior knowledge.
    pub(crate) http2: Option<String>,
    process: Child,
    /// Its child processes serve requests (nginx); switchman's are the workers and do not count.
    children_serve: bool,
}

/// What a proxy's processes hold in memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident; pages that processes share count in each.
    pub(crate) rss: u64,
    /// Without pages of files, which the kernel drops when it needs room; shared pages are divided among those that
    /// share them.
    pub(crate) own: u64,
}

/// Starts all of them; nginx first, since the others are compared with it.
pub(crate) async fn start(options: &Options, threads: usize, folder: &Path) -> Result<Vec<Proxy>> {
    let (port, workers) = switchman::start(options, threads, switchman::Upstream::Port, folder).await?;
    let (unix, _) = switchman::start(options, threads, switchman::Upstream::Unix, folder).await?;
    let nginx = nginx::start(threads, folder, &workers).await?;
    let haproxy = haproxy::start(threads, folder, &workers).await?;
    Ok(vec![nginx, haproxy, port, unix])
}

/// The addresses of the first and the second version's worker.
type Workers = [String; 2];

/// Debian keeps servers in /usr/sbin, which is not in every PATH.
pub(crate) fn server_program(name: &str) -> PathBuf {
    let debian = Path::new("/usr/sbin").join(name);
    if debian.exists() { debian } else { name.into() }
}

impl Proxy {
    /// Starts it with its output in `NAME.log`, and waits until it takes connections.
    async fn spawn(name: &'static str, mut command: Command, address: String, folder: &Path) -> Result<Self> {
        let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{name} does not start: {e}\nhint: scripts/install-deps bench"))?;
        let mut proxy = Self { name, address, http2: None, process, children_serve: false };
        let ended =
            eventually(&format!("{name} takes connections"), async || match proxy.process.try_wait() {
                Ok(None) => tokio::net::TcpStream::connect(&proxy.address).await.ok().map(|_| None),
                Ok(Some(status)) => Some(Some(format!("{name} ended with {status}"))),
                Err(error) => Some(Some(format!("{name}: {error}"))),
            })
            .await
            .unwrap_or_else(|error| Some(error.to_string()));
        if let Some(error) = ended {
            return Err(format!("{error}\n{}", proxy.log(folder)).into());
        }
        Ok(proxy)
    }

    /// What it printed.
    fn log(&self, folder: &Path) -> String {
        std::fs::read_to_string(folder.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Its process, and those of its children that serve requests.
    fn processes(&self) -> Result<Vec<Process>> {
        let pid = self.process.id().ok_or_else(|| format!("{} has ended", self.name))?;
        let process = Process::new(pid.try_into()?)?;
        let mut processes = Vec::new();
        if self.children_serve {
            for child in process.task_main_thread()?.children()? {
                processes.push(Process::new(child.try_into()?)?);
            }
        }
        processes.push(process);
        Ok(processes)
    }

    /// CPU time that it has used so far, in user and system mode, over all its threads and serving processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for process in self.processes()? {
            let stat = process.stat()?;
            ticks += stat.utime + stat.stime;
        }
        Ok(Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
    }

    /// What all its processes hold now, from `/proc/PID/smaps_rollup`.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut memory = Memory { rss: 0, own: 0 };
        for process in self.processes()? {
            let rollup = process.smaps_rollup()?.memory_map_rollup;
            for map in &rollup {
                let of = |name: &str| map.extension.map.get(name).copied().unwrap_or(0);
                memory.rss += of("Rss");
                memory.own += of("Pss_Anon") + of("Pss_Shmem");
            }
        }
        Ok(memory)
    }

    /// TERM, and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.terminate()?;
        tokio::time::timeout(PATIENCE, self.process.wait())
            .await
            .map_err(|_| format!("{} does not end within {PATIENCE:?} of TERM", self.name))??;
        Ok(())
    }

    fn terminate(&self) -> Result<()> {
        let pid = self.process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        kill_process(pid.ok_or_else(|| format!("{} has ended", self.name))?, Signal::TERM)?;
        Ok(())
    }
}

impl Drop for Proxy {
    /// Where the benchmark fails half-way: KILL would leave nginx's children and the workers behind.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.terminate();
        }
    }
}

/// An address on loopback that nothing listens on.
fn free_address() -> Result<String> {
    let port = portpicker::pick_unused_port().ok_or("there is no free port")?;
    Ok(format!("127.0.0.1:{port}"))
}

async fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    tokio::fs::write(&path, text).await?;
    Ok(path)
}

/// Asks until there is an answer or patience ends.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} in vain: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
