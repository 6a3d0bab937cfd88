//! The life of one process, as a task: start, watch, wait until ready, and end with everything it started.
//!
//! The only place that starts processes. It reports what it sees and decides nothing; when it has reported the
//! end, nothing of the process tree is left and its port is free.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::launch::{self, Identity};
use super::lifecycle::{End, ProcessId};
use super::output::{LogStore, Printer, Stream};
use super::port::PortTable;
use super::readiness::{self, SharedTree, Verdict, ask};
use super::tree::{Listener, Tree};
use super::{Event, Key};
use crate::config::{RunCommand, RunSpec};

/// A start that takes longer lets the next one begin: a worker that hangs must not hold up the others.
const TURN_MAX: Duration = Duration::from_secs(5);
/// How long what is left in its pipes is read after a process tree has ended.
const OUTPUT_AFTER_END: Duration = Duration::from_secs(1);
/// After KILL, how long to wait for a process to vanish. Only one that hangs in the kernel takes longer.
const KILL_MAX: Duration = Duration::from_secs(10);
/// Lines of its output that the reason of a failure quotes.
const QUOTED_LINES: usize = 10;
/// Of a quoted line, so many characters.
const QUOTED_CHARS: usize = 300;

/// Everything that one process needs.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) who: Identity,
    pub(crate) run: RunCommand,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) ports: PortTable,
    pub(crate) logs: LogStore,
    /// Starts wait for their turn here; none for one that is urgent.
    pub(crate) turns: Option<Arc<Semaphore>>,
}

/// What the task sees.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process runs and was given this address.
    Spawned { pid: u32, address: std::net::SocketAddr },
    /// Something worth knowing while it is not ready.
    Noted(String),
    /// It is ready, late, or has lost its port.
    Verdict(Verdict),
    /// The process has ended; what it started is being ended.
    Exited,
    /// Nothing of it is left.
    Ended(End),
}

/// Brings reports to the supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) key: Key,
    pub(crate) process: ProcessId,
}

impl Reporter {
    pub(crate) async fn send(&self, report: Report) {
        // The supervisor ends after its workers; it is gone only when the runtime is torn down.
        let _ = self.events.send(Event::Report(self.key.clone(), self.process, report)).await;
    }
}

/// Runs one process until nothing of it is left. `told` (or its sender's end) tells it to end.
pub(crate) async fn run(launch: Launch, mut told: oneshot::Receiver<()>, reporter: Reporter) {
    let end = live(&launch, &mut told, &reporter).await;
    // It may not have written one.
    let _ = tokio::fs::remove_file(&launch.who.pidfile).await;
    reporter.send(Report::Ended(end)).await;
}

async fn live(launch: &Launch, told: &mut oneshot::Receiver<()>, reporter: &Reporter) -> End {
    let Launch { who, run, spec, .. } = launch;
    let mut turn: Option<OwnedSemaphorePermit> = None;
    if let Some(turns) = &launch.turns {
        tokio::select! {
            permit = turns.clone().acquire_owned() => turn = permit.ok(),
            _ = &mut *told => return End::Told,
        }
    }
    if let Some(folder) = who.pidfile.parent()
        && let Err(error) = tokio::fs::create_dir_all(folder).await
    {
        return End::ByItself(format!(
            "could not be started: the folder {} cannot be made: {error}",
            folder.display()
        ));
    }
    let port = match launch.ports.pick() {
        Ok(port) => port,
        Err(error) => return End::ByItself(format!("could not be started: {error}")),
    };
    let address = port.address();
    let mut child = match launch::command(run, spec, who, address).spawn() {
        Ok(child) => child,
        Err(error) => return End::ByItself(launch::explain_spawn(&error, run, &who.folder)),
    };
    // A child that was not waited for has its number.
    let pid = child.id().unwrap_or_default();
    let tree: SharedTree = Arc::new(Mutex::new(Tree::new(pid, &who.pidfile)));
    reporter.send(Report::Spawned { pid, address }).await;
    let readers = read_output(&mut child, launch, pid);

    let mut passed = false;
    let mut waiting = true;
    let turn_over = Instant::now() + TURN_MAX;
    let status = {
        let readiness = readiness::wait(&spec.ready, address, &tree, reporter);
        tokio::pin!(readiness);
        loop {
            tokio::select! {
                status = child.wait() => break status,
                verdict = &mut readiness, if waiting => {
                    waiting = false;
                    turn = None;
                    passed = verdict == Verdict::Ready;
                    reporter.send(Report::Verdict(verdict)).await;
                }
                () = tokio::time::sleep_until(turn_over), if turn.is_some() => turn = None,
                _ = &mut *told => {
                    terminate(&mut child, &tree, spec.stop.grace).await;
                    finish(readers).await;
                    return End::Told;
                }
            }
        }
    };
    drop(turn);
    reporter.send(Report::Exited).await;
    let taken = !passed && ask(&tree, move |tree| tree.who_listens(address.port())).await == Listener::Other;
    kill(&tree).await;
    finish(readers).await;

    let lines = launch.logs.tail(&who.service, &who.version, (who.worker, pid), QUOTED_LINES);
    let how = match status {
        Ok(status) => launch::explain_exit(status, run),
        Err(error) => format!("ended, and its status cannot be read: {error}"),
    };
    if taken || (!passed && lines.iter().any(|line| says_in_use(line))) {
        End::PortTaken(quote(&format!("{how}: its port {} was taken", address.port()), &lines))
    } else {
        End::ByItself(quote(&how, &lines))
    }
}

/// How runtimes say that a port is taken: C and Python, Node.js, Go, Rust, the JVM.
fn says_in_use(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("eaddrinuse") || line.contains("address already in use")
}

fn quote(how: &str, lines: &[Arc<str>]) -> String {
    if lines.is_empty() {
        return format!("{how}; it printed nothing");
    }
    let mut text = format!("{how}; it printed last:");
    for line in lines {
        text.push_str("\n  ");
        text.extend(line.chars().take(QUOTED_CHARS));
    }
    text
}

fn read_output(child: &mut Child, launch: &Launch, pid: u32) -> Vec<JoinHandle<()>> {
    let printer = |stream| Printer {
        service: launch.who.service.clone(),
        version: launch.who.version.clone(),
        worker: launch.who.worker,
        pid,
        stream,
    };
    let stdout =
        child.stdout.take().map(|out| tokio::spawn(printer(Stream::Stdout).read(out, launch.logs.clone())));
    let stderr =
        child.stderr.take().map(|out| tokio::spawn(printer(Stream::Stderr).read(out, launch.logs.clone())));
    stdout.into_iter().chain(stderr).collect()
}

/// Reads what is left in the pipes.
async fn finish(readers: Vec<JoinHandle<()>>) {
    let deadline = Instant::now() + OUTPUT_AFTER_END;
    for mut reader in readers {
        if tokio::time::timeout_at(deadline, &mut reader).await.is_err() {
            // Somebody outside the tree was handed the pipe.
            reader.abort();
        }
    }
}

/// TERM to the whole tree, `grace`, then KILL.
async fn terminate(child: &mut Child, tree: &SharedTree, grace: Duration) {
    ask(tree, |tree| tree.signal(Signal::TERM)).await;
    let ends = async {
        let _ = child.wait().await;
        until_empty(tree, None).await;
    };
    if tokio::time::timeout(grace, ends).await.is_err() {
        kill(tree).await;
        // It was killed: its status does not matter.
        let _ = tokio::time::timeout(KILL_MAX, child.wait()).await;
    }
    kill(tree).await;
}

/// KILL to the whole tree, until nothing of it is left.
async fn kill(tree: &SharedTree) {
    if tokio::time::timeout(KILL_MAX, until_empty(tree, Some(Signal::KILL))).await.is_err() {
        let left = ask(tree, Tree::look).await;
        tracing::error!(?left, "these processes do not end after KILL; they hang in the kernel");
    }
}

/// Waits until the tree is empty, sending `signal` at each look. /proc tells nobody when a tree becomes empty, so
/// this looks again and again, less often each time.
async fn until_empty(tree: &SharedTree, signal: Option<Signal>) {
    let mut pause = Duration::from_millis(5);
    loop {
        let left = match signal {
            Some(signal) => ask(tree, move |tree| tree.signal(signal)).await,
            None => ask(tree, |tree| !tree.look().is_empty()).await,
        };
        if !left {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}
