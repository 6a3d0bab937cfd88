//! The life of one process, as a task: start or adopt, watch, wait until ready, and end with everything it started.
//!
//! The only place that starts processes. It reports what it sees and decides nothing; when it has reported the
//! end, nothing of the process tree is left and its port or socket is free. Until then its record says what the
//! next switchman has to know to go on with it; when this switchman leaves, the task ends and the process does not.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ending::{KILL_MAX, kill, successor, until_empty};
use super::launch::cgroup::{Cgroup, Cgroups};
use super::launch::{self, Identity, Outfit};
use super::lifecycle::{End, Health, ProcessId};
use super::main_process::MainProcess;
use super::notified::{Notified, NotifySocket};
use super::output::{Alarms, Listening, LogStore};
use super::pipes;
use super::place::{Place, Places};
use super::printed::{QUOTED_LINES, quote, says_in_use};
use super::readiness::{self, SharedTree, Verdict, ask};
use super::record::{self, Record};
use super::tree::{Listener, Tree};
use super::turns::{Turn, Turns, Urgency};
use super::{Event, Key, fingerprint, live, warm};
use crate::config::{Alarm, Protocol, RunCommand, RunSpec};
use crate::registry::Address;

/// A worker that does nothing for this long while it starts lets the next one begin: one that hangs must not hold up
/// the others, and one that works does not share its processor with more than it must.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// What counts as nothing, in the kernel's ticks of processor time (hundredths of a second): a twentieth of one core.
const IDLE_TICKS: u64 = 25;
/// How long what is left in its pipes is read after a process tree has ended.
const OUTPUT_AFTER_END: Duration = Duration::from_secs(1);
/// A process that ends well may have left the work to one that it has forked: how long that one has to write its
/// number into `PIDFILE`, before the worker was ready and after.
const FORK_MAX: Duration = Duration::from_secs(3);
const FORK_MAX_READY: Duration = Duration::from_millis(250);

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
    /// Which of its lines are an alarm.
    pub(crate) alarm: Option<Arc<Alarm>>,
    /// Where it waits for its turn, and before whom; none for one that runs already.
    pub(crate) turns: Option<(Turns, Urgency)>,
    /// How often its worker was started again before.
    pub(crate) restarts: u32,
    /// Which folder of its name it is started from.
    pub(crate) identity: Option<(u64, u64)>,
    /// Nothing is started before this.
    pub(crate) cleared: CancellationToken,
    /// switchman leaves, and its workers stay.
    pub(crate) leaving: CancellationToken,
}

/// Where the process comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// It is to be started, under this number.
    New(ProcessId),
    /// An earlier switchman has started it, and it is what its record says.
    Adopted(Box<Found>),
}

/// A process that an earlier switchman has left.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    /// Tells when it ends.
    pub(crate) descriptor: OwnedFd,
    /// Where it listens, held for it.
    pub(crate) place: Place,
}

/// What the task sees.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process runs and was given this address.
    Spawned { pid: u32, address: Address },
    /// Something worth knowing while it is not ready.
    Noted(String),
    /// It has printed lines that are an alarm.
    Alarms(Alarms),
    /// It is ready, late, or has lost its port.
    Verdict(Verdict),
    /// It is ready, and its liveness checks have come to another result; why, as the end of a sentence about it.
    Health(Health, String),
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

/// Runs one process until nothing of it is left, or until switchman leaves it to the next one. `told` (or its
/// sender's end) tells it to end.
pub(crate) async fn run(launch: Launch, origin: Origin, mut told: oneshot::Receiver<()>, reporter: Reporter) {
    if let Some(end) = live(&launch, origin, &mut told, &reporter).await {
        record::remove(&launch.who.pidfile);
        reporter.send(Report::Ended(end)).await;
    }
}

/// A process that runs, and what belongs to it.
#[derive(Debug)]
struct Process {
    main: MainProcess,
    record: Record,
    /// The number that its lines are logged under.
    printer: u32,
    /// Held until nothing of the process is left.
    place: Place,
    cgroup: Option<Cgroup>,
    notified: Option<Notified>,
    tree: SharedTree,
    readers: Vec<JoinHandle<()>>,
    /// Whether it has printed the line that shows that it is ready.
    said: Listening,
}

/// Why it is watched no longer.
#[derive(Debug)]
enum Watched {
    Told,
    Exited { status: io::Result<Option<ExitStatus>>, passed: bool },
}

/// How it ended; none if switchman has left it.
async fn live(
    launch: &Launch,
    origin: Origin,
    told: &mut oneshot::Receiver<()>,
    reporter: &Reporter,
) -> Option<End> {
    let (begun, turn) = match origin {
        Origin::Adopted(found) => (adopt(launch, *found, reporter), None),
        Origin::New(number) => {
            let turn = tokio::select! {
                biased;
                _ = &mut *told => return Some(End::Told),
                () = launch.leaving.cancelled() => return None,
                turn = launch.turn() => turn,
            };
            (start(launch, number, reporter), turn)
        }
    };
    let mut process = match begun {
        Ok(process) => process,
        Err(why) => return Some(End::ByItself(why)),
    };
    reporter.send(process.spawned()).await;
    tokio::select! {
        biased;
        end = process.lead(launch, turn, told, reporter) => return Some(end),
        () = launch.leaving.cancelled() => {}
    }
    process.leave().await;
    None
}

impl Launch {
    /// Waits until it may be started; none for one that waits for nobody.
    async fn turn(&self) -> Option<Turn> {
        self.cleared.cancelled().await;
        match &self.turns {
            None => None,
            Some((turns, urgency)) => Some(turns.take(*urgency).await),
        }
    }
}

/// Starts the process and writes it down, or says why it cannot be. Waits for nothing in between: what was started is
/// recorded, whatever becomes of this task.
fn start(launch: &Launch, number: ProcessId, reporter: &Reporter) -> Result<Process, String> {
    let Launch { who, run, spec, .. } = launch;
    let outfit = Outfit::prepare(spec, who, &launch.places, launch.cgroups.as_deref());
    let outfit = outfit.map_err(|why| format!("could not be started: {why}"))?;
    let begun = launch::command(run, spec, who, &outfit).and_then(|mut command| {
        let [out, err] = pipes::paths(&who.pidfile);
        command.stdout(pipes::make(&out, spec.isolation.account.as_ref())?);
        command.stderr(pipes::make(&err, spec.isolation.account.as_ref())?);
        let child = command.spawn()?;
        Ok((command, child))
    });
    let (command, child) = begun.map_err(|error| {
        outfit.discard();
        format!("could not be started: {}", launch::explain_spawn(&error, run, &who.folder))
    })?;
    // A child that was not waited for has its number.
    let pid = child.id().unwrap_or_default();
    let Outfit { place, cgroup, notify } = outfit;
    let notify_path = notify.as_ref().map(|socket| socket.path().to_owned());
    let record = Record {
        service: who.service.clone(),
        version: who.version.clone(),
        worker: who.worker,
        process: number.0,
        restarts: launch.restarts,
        pid,
        started: record::started(pid).unwrap_or_default(),
        boot: record::boot().unwrap_or_default(),
        address: (&place.address()).into(),
        inherited: matches!(place, Place::Listener(_)),
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
        notify: notify_path,
        h2c: spec.protocol == Protocol::H2c,
        command: fingerprint::of(run, spec),
        folder: who.folder.clone(),
        identity: launch.identity,
        pidfile: who.pidfile.clone(),
        at: jiff::Timestamp::now(),
        ready: false,
        unwanted: false,
        grace: spec.stop.grace,
        drain: spec.stop.drain,
    };
    let tree = Arc::new(Mutex::new(Tree::new(pid, &who.pidfile).in_cgroup(cgroup.clone())));
    let (readers, said) = launch.read_output(pid, reporter);
    // It holds the pipes, and with them what a process has printed that has ended already. From here on their end is
    // seen when the process lets go of them.
    drop(command);
    let process = Process {
        main: MainProcess::Child(child),
        record,
        printer: pid,
        place,
        cgroup,
        notified: notify.map(|socket| socket.listen(tree.clone())),
        tree,
        readers,
        said,
    };
    process.record.write_down();
    Ok(process)
}

/// Goes on with a process that an earlier switchman has left.
fn adopt(launch: &Launch, found: Found, reporter: &Reporter) -> Result<Process, String> {
    let Found { record, descriptor, place } = found;
    let main = MainProcess::known(descriptor).map_err(|e| format!("cannot be watched: {e}"))?;
    // Where its main process is in it, the rest is.
    let cgroup = record.cgroup.as_deref().and_then(Cgroup::open);
    let cgroup = cgroup.filter(|cgroup| cgroup.members().contains(&record.pid.cast_signed()));
    let tree = Arc::new(Mutex::new(Tree::adopted(&record).in_cgroup(cgroup.clone())));
    let notified = record.notify.as_deref().and_then(|path| {
        let guard = launch.places.claim_for_notify(path);
        let socket = NotifySocket::again(guard, launch.spec.isolation.account.as_ref());
        let socket =
            socket.inspect_err(|e| tracing::error!(pid = record.pid, "nothing it says is heard: {e}"));
        Some(socket.ok()?.listen(tree.clone()))
    });
    let (readers, mut said) = launch.read_output(record.pid, reporter);
    if record.ready {
        // It does not print that again.
        said = Listening::Heard;
    }
    let printer = record.pid;
    Ok(Process { main, printer, record, place, cgroup, notified, tree, readers, said })
}

impl Process {
    fn spawned(&self) -> Report {
        Report::Spawned { pid: self.record.pid, address: self.place.address() }
    }

    /// From now to its end.
    async fn lead(
        &mut self,
        launch: &Launch,
        turn: Option<Turn>,
        told: &mut oneshot::Receiver<()>,
        reporter: &Reporter,
    ) -> End {
        match self.watch(launch, turn, told, reporter).await {
            Watched::Told => {
                self.terminate(self.record.grace).await;
                End::Told
            }
            Watched::Exited { status, passed } => {
                reporter.send(Report::Exited).await;
                self.explain(launch, status, passed).await
            }
        }
    }

    /// Waits until it is ready (and says so), asks then whether it still answers, until it ends or is told to end. Its
    /// turn is over when it is ready, or does nothing.
    async fn watch(
        &mut self,
        launch: &Launch,
        mut turn: Option<Turn>,
        told: &mut oneshot::Receiver<()>,
        reporter: &Reporter,
    ) -> Watched {
        let (address, tree) = (self.place.address(), self.tree.clone());
        // One that was ready under an earlier switchman is warm, and has said all that it had to.
        let is_warm = self.record.ready;
        let said = self.notified.as_ref().filter(|_| !is_warm).map(Notified::said);
        let line = self.said.clone();
        let check = async || {
            let deadline = Instant::now() + launch.spec.ready.deadline;
            let (said, mut line) = (said.clone(), line.clone());
            let verdict =
                readiness::wait(&launch.spec, &launch.who, &address, said, &tree, &mut line, reporter).await;
            if verdict == Verdict::Ready && !is_warm {
                warm::warm(launch, &address, deadline, reporter).await;
            }
            verdict
        };
        let readiness = check();
        let (idle, liveness) = (idle(&tree), live::watch(launch, &address, reporter));
        tokio::pin!(readiness, idle, liveness);
        let (mut waiting, mut passed) = (true, false);
        loop {
            tokio::select! {
                status = self.main.wait() => {
                    let time = match &status {
                        Ok(Some(status)) if status.success() && passed => FORK_MAX_READY,
                        Ok(Some(status)) if status.success() => FORK_MAX,
                        // It is looked for once.
                        Ok(None) => Duration::ZERO,
                        Ok(Some(_)) | Err(_) => return Watched::Exited { status, passed },
                    };
                    let successor = tokio::select! {
                        successor = successor(&tree, time) => successor,
                        _ = &mut *told => return Watched::Told,
                    };
                    let Some((pid, main)) = successor else { return Watched::Exited { status, passed } };
                    self.main = main;
                    self.record.pid = pid;
                    self.record.started = record::started(pid).unwrap_or_default();
                    self.record.write_down();
                    reporter.send(self.spawned()).await;
                    readiness.set(check());
                }
                _ = &mut *told => return Watched::Told,
                verdict = &mut readiness, if waiting => {
                    // It may be forking away at this moment: then who listens is not yet known to be of its tree.
                    if verdict == Verdict::PortTaken && !ask(&tree, |tree| tree.root_runs()).await {
                        readiness.set(check());
                        continue;
                    }
                    waiting = false;
                    turn = None;
                    passed = verdict == Verdict::Ready;
                    if passed && !self.record.ready {
                        self.record.ready = true;
                        self.record.write_down();
                    }
                    reporter.send(Report::Verdict(verdict)).await;
                }
                () = &mut idle, if turn.is_some() => turn = None,
                never = &mut liveness, if passed => match never {},
            }
        }
    }

    /// Ends what the process has left behind, and says how it ended.
    async fn explain(
        &mut self,
        launch: &Launch,
        status: io::Result<Option<ExitStatus>>,
        passed: bool,
    ) -> End {
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
        self.finish().await;
        let Identity { service, version, worker, .. } = &launch.who;
        let lines = launch.logs.tail(service, version, (*worker, self.printer), QUOTED_LINES);
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
    async fn terminate(&mut self, grace: Duration) {
        ask(&self.tree, |tree| tree.signal(Signal::TERM)).await;
        let ends = async {
            // How it ends does not matter to who told it to.
            let _ = self.main.wait().await;
            until_empty(&self.tree, None).await;
        };
        if tokio::time::timeout(grace, ends).await.is_err() {
            kill(&self.tree).await;
            let _ = tokio::time::timeout(KILL_MAX, self.main.wait()).await;
        }
        self.finish().await;
    }

    /// Reads what is left in the pipes.
    async fn finish(&mut self) {
        let deadline = Instant::now() + OUTPUT_AFTER_END;
        for mut reader in self.readers.drain(..) {
            if tokio::time::timeout_at(deadline, &mut reader).await.is_err() {
                // Somebody outside the tree was handed the pipe.
                reader.abort();
            }
        }
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove_emptied().await;
        }
    }

    /// Leaves it running for the next switchman.
    async fn leave(self) {
        for reader in self.readers {
            // It has been told; an error would mean that it has ended already.
            let _ = reader.await;
        }
        self.place.leave();
    }
}

/// Waits until a tree has done nothing for [`IDLE_FOR`].
async fn idle(tree: &SharedTree) {
    let mut used = 0;
    loop {
        tokio::time::sleep(IDLE_FOR).await;
        let now = ask(tree, Tree::ticks).await;
        // Less is another set of processes, and so not nothing.
        if now.abs_diff(used) < IDLE_TICKS {
            return;
        }
        used = now;
    }
}
