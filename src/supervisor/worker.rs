//! The life of one process, as a task: start, watch, wait until ready, and end with everything it started.
//!
//! The only place that starts processes. It reports what it sees and decides nothing; when it has reported the
//! end, nothing of the process tree is left and its port or socket is free.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::launch::cgroup::{Cgroup, Cgroups};
use super::launch::{self, Identity, Outfit};
use super::lifecycle::{End, ProcessId};
use super::notify::Notified;
use super::output::{LogStore, Printer, Stream};
use super::place::{Place, Places};
use super::readiness::{self, SharedTree, Verdict, ask};
use super::tree::{Listener, Tree};
use super::{Event, Key};
use crate::config::{RunCommand, RunSpec};
use crate::registry::Address;

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
    pub(crate) places: Places,
    /// Where control groups can be made, if they can.
    pub(crate) cgroups: Option<Arc<Cgroups>>,
    pub(crate) logs: LogStore,
    /// Starts wait for their turn here; none for one that is urgent.
    pub(crate) turns: Option<Arc<Semaphore>>,
}

/// What the task sees.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process runs and was given this address.
    Spawned { pid: u32, address: Address },
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

/// A process that was started, and what belongs to it.
#[derive(Debug)]
struct Process {
    child: Child,
    pid: u32,
    /// Held until nothing of the process is left.
    place: Place,
    cgroup: Option<Cgroup>,
    notified: Option<Notified>,
    tree: SharedTree,
    readers: Vec<JoinHandle<()>>,
}

/// Why it is watched no longer.
#[derive(Debug)]
enum Watched {
    Told,
    Exited { status: io::Result<ExitStatus>, passed: bool },
}

async fn live(launch: &Launch, told: &mut oneshot::Receiver<()>, reporter: &Reporter) -> End {
    let turn = match &launch.turns {
        None => None,
        Some(turns) => tokio::select! {
            turn = turns.clone().acquire_owned() => turn.ok(),
            _ = &mut *told => return End::Told,
        },
    };
    let mut process = match start(launch) {
        Ok(process) => process,
        Err(why) => return End::ByItself(format!("could not be started: {why}")),
    };
    reporter.send(Report::Spawned { pid: process.pid, address: process.place.address() }).await;
    match process.watch(launch, turn, told, reporter).await {
        Watched::Told => {
            process.terminate(launch.spec.stop.grace).await;
            End::Told
        }
        Watched::Exited { status, passed } => {
            reporter.send(Report::Exited).await;
            process.explain(launch, status, passed).await
        }
    }
}

/// Starts the process, or says why it cannot be.
fn start(launch: &Launch) -> Result<Process, String> {
    let Launch { who, run, spec, .. } = launch;
    let outfit = Outfit::prepare(spec, who, &launch.places, launch.cgroups.as_deref())?;
    let child = launch::command(run, spec, who, &outfit).and_then(|mut command| command.spawn());
    let mut child = child.map_err(|error| {
        outfit.discard();
        launch::explain_spawn(&error, run, &who.folder)
    })?;
    // A child that was not waited for has its number.
    let pid = child.id().unwrap_or_default();
    let Outfit { place, cgroup, notify } = outfit;
    let tree = Arc::new(Mutex::new(Tree::new(pid, &who.pidfile).in_cgroup(cgroup.clone())));
    let notified = notify.map(|socket| socket.listen(tree.clone()));
    let readers = read_output(&mut child, launch, pid);
    Ok(Process { child, pid, place, cgroup, notified, tree, readers })
}

impl Process {
    /// Waits until it is ready (and says so), ends, or is told to end. Its turn is over when it is ready, or after
    /// [`TURN_MAX`].
    async fn watch(
        &mut self,
        launch: &Launch,
        mut turn: Option<OwnedSemaphorePermit>,
        told: &mut oneshot::Receiver<()>,
        reporter: &Reporter,
    ) -> Watched {
        let turn_over = Instant::now() + TURN_MAX;
        let address = self.place.address();
        let said = self.notified.as_ref().map(Notified::said);
        let readiness = readiness::wait(&launch.spec, &launch.who, &address, said, &self.tree, reporter);
        tokio::pin!(readiness);
        let (mut waiting, mut passed) = (true, false);
        loop {
            tokio::select! {
                status = self.child.wait() => return Watched::Exited { status, passed },
                _ = &mut *told => return Watched::Told,
                verdict = &mut readiness, if waiting => {
                    waiting = false;
                    turn = None;
                    passed = verdict == Verdict::Ready;
                    reporter.send(Report::Verdict(verdict)).await;
                }
                () = tokio::time::sleep_until(turn_over), if turn.is_some() => turn = None,
            }
        }
    }

    /// Ends what the process has left behind, and says how it ended.
    async fn explain(self, launch: &Launch, status: io::Result<ExitStatus>, passed: bool) -> End {
        // A socket has a path that nobody else was given.
        let port = match &self.place {
            Place::Port(port) if !passed => Some(port.address().port()),
            Place::Port(_) | Place::Socket(_) | Place::Listener(_) => None,
        };
        let taken = match port {
            Some(port) => ask(&self.tree, move |tree| tree.who_listens(port)).await == Listener::Other,
            None => false,
        };
        kill(&self.tree).await;
        let out_of_memory = self.cgroup.as_ref().is_some_and(|cgroup| cgroup.out_of_memory() > 0);
        remove(self.cgroup).await;
        finish(self.readers).await;
        let Identity { service, version, worker, .. } = &launch.who;
        let lines = launch.logs.tail(service, version, (*worker, self.pid), QUOTED_LINES);
        let how = match status {
            Ok(status) => launch::explain_exit(status, &launch.run),
            Err(error) => format!("ended, and its status cannot be read: {error}"),
        };
        let how = match out_of_memory {
            true => format!("{how}; it needed more than its `cgroup.memory_max`"),
            false => how,
        };
        match port {
            Some(port) if taken || lines.iter().any(|line| says_in_use(line)) => {
                End::PortTaken(quote(&format!("{how}: its port {port} was taken"), &lines))
            }
            _ => End::ByItself(quote(&how, &lines)),
        }
    }

    /// TERM to the whole tree, `grace`, then KILL.
    async fn terminate(mut self, grace: Duration) {
        ask(&self.tree, |tree| tree.signal(Signal::TERM)).await;
        let ends = async {
            // How it ends does not matter to who told it to.
            let _ = self.child.wait().await;
            until_empty(&self.tree, None).await;
        };
        if tokio::time::timeout(grace, ends).await.is_err() {
            kill(&self.tree).await;
            let _ = tokio::time::timeout(KILL_MAX, self.child.wait()).await;
        }
        remove(self.cgroup).await;
        finish(self.readers).await;
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

/// Removes the control group of a tree of which nothing is left.
async fn remove(cgroup: Option<Cgroup>) {
    let mut pause = Duration::from_millis(1);
    // What is left of an ended process is in the group for a moment longer than in /proc.
    while let Some(cgroup) = cgroup.as_ref().filter(|cgroup| !cgroup.remove() && cgroup.members().is_empty())
    {
        if pause > KILL_MAX {
            tracing::warn!(cgroup = %cgroup.path().display(), "it is empty, and cannot be removed");
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
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
