//! One version as the supervisor holds it: its life, the facts about its processes, and how people see it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::files::Files;
use super::lifecycle::{Effect, Lifecycle, ProcessId};
use super::upkeep::Upkeep;
use crate::config::{Delivery, RunSpec, UpstreamAt};
use crate::drain::{Patience, Window};
use crate::metrics::VersionCounters;
use crate::registry::{self, Address, Upstream};
use crate::version::{ServiceName, VersionId, VersionState, WorkerId, WorkerState};

/// One version.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) service: ServiceName,
    pub(crate) version: VersionId,
    pub(crate) path: PathBuf,
    /// Device and inode of the folder, once it was complete.
    pub(crate) identity: Option<(u64, u64)>,
    pub(crate) arrived: Timestamp,
    pub(crate) life: Lifecycle,
    /// How new processes are run.
    pub(crate) spec: Arc<RunSpec>,
    /// How many workers a person asked for, over what `spec` says.
    pub(crate) scaled: Option<u32>,
    /// How many its load has called for, over what `spec` says.
    pub(crate) followed: Option<u32>,
    pub(crate) upkeep: Upkeep,
    /// What people must know about its folder.
    pub(crate) folder: Folder,
    /// Processes of it were adopted whose command has changed since.
    pub(crate) restart_when_ready: bool,
    /// What is known of what lies in it.
    pub(crate) files: Files,
    pub(crate) processes: BTreeMap<ProcessId, Running>,
    /// The sockets of workers that are about to be started again: connections wait there.
    open: BTreeMap<WorkerId, Arc<Upstream>>,
    threads: usize,
    state: (VersionState, Timestamp),
    delivery: Arc<Delivery>,
    pub(crate) counters: Arc<VersionCounters>,
}

/// Whether the folder is still what the processes were started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    /// It is.
    There,
    /// It is gone while the version carries traffic.
    Gone,
    /// Another folder has taken its place while the version carries traffic.
    Replaced,
}

/// The facts about one process.
#[derive(Debug)]
pub(crate) struct Running {
    /// Tells its task to end it.
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) pid: Option<u32>,
    pub(crate) address: Option<Address>,
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// What it was started with.
    pub(crate) spec: Arc<RunSpec>,
    /// When it was started, by the clock that files are stamped with.
    pub(crate) since: SystemTime,
    /// Waits for its requests to end.
    pub(crate) drain: Option<AbortOnDropHandle<()>>,
    /// An earlier switchman has started it, and may still have requests there.
    pub(crate) adopted: bool,
}

impl Running {
    /// A process that is about to be started.
    pub(crate) fn starting(stop: oneshot::Sender<()>, spec: Arc<RunSpec>) -> Self {
        let (stop, since) = (Some(stop), SystemTime::now());
        Self { stop, pid: None, address: None, upstream: None, spec, since, drain: None, adopted: false }
    }
}

impl Managed {
    /// A version whose folder was just seen.
    pub(crate) fn new(
        service: ServiceName,
        version: VersionId,
        path: PathBuf,
        spec: Arc<RunSpec>,
        delivery: Arc<Delivery>,
        threads: usize,
    ) -> Self {
        let now = Timestamp::now();
        Self {
            service,
            version,
            path,
            identity: None,
            arrived: now,
            life: Lifecycle::arriving(),
            spec,
            scaled: None,
            followed: None,
            upkeep: Upkeep::default(),
            folder: Folder::There,
            restart_when_ready: false,
            files: Files::default(),
            processes: BTreeMap::new(),
            open: BTreeMap::new(),
            threads,
            state: (VersionState::Arriving, now),
            delivery,
            counters: Arc::new(VersionCounters::new(threads)),
        }
    }

    /// When the oldest of its processes was started.
    pub(crate) fn oldest(&self) -> Option<SystemTime> {
        self.processes.values().map(|running| running.since).min()
    }

    /// How many workers it is to run.
    pub(crate) fn workers(&self) -> u32 {
        self.scaled.or(self.followed).unwrap_or(self.spec.workers).max(1)
    }

    /// Tells the data plane of the workers that are to stop from `now` on, for the sake of their streams.
    pub(crate) fn note_stops(&self, effects: &[Effect], now: Instant) {
        for effect in effects {
            if let Effect::Drain(process) = effect
                && let Some(upstream) = self.processes.get(process).and_then(|p| p.upstream.as_ref())
            {
                // A worker is drained once; were it twice, the first time holds.
                let _ = upstream.stops.set(Window::new(now, self.delivery.streams));
            }
        }
    }

    /// How long a process of it that is to stop may take to end what it is doing.
    pub(crate) fn patience(&self, running: &Running) -> Patience {
        Patience { requests: running.spec.stop.drain, streams: self.delivery.streams }
    }

    /// The workers that are to have a process and have none, or one that ends: a process is about to be started.
    pub(crate) fn waiting_for_process(&self, view: &registry::Version) -> Vec<WorkerId> {
        let waits = |worker: &&registry::Worker| {
            self.life.is_wanted() && (worker.address.is_none() || worker.state == WorkerState::Stopping)
        };
        view.workers.iter().filter(waits).map(|worker| worker.id).collect()
    }

    /// Notes that a ready process has ended by itself whose socket waits for the next one: what is sent there from now
    /// on is sent to that. `serial` is not used for anything else.
    pub(crate) fn keep_open(&mut self, process: ProcessId, serial: u64) {
        let was_ready = self.life.ready().any(|ready| ready == process);
        let worker = self.life.worker_of(process);
        if let (Some(worker), Some(running), true) = (worker, self.processes.get(&process), was_ready)
            && running.spec.upstream == UpstreamAt::Inherit
            && let Some(before) = &running.upstream
        {
            let (address, protocol, threads) = (before.address.clone(), before.protocol, self.threads);
            self.open.insert(worker, Arc::new(Upstream::new(serial, worker, address, protocol, threads)));
        }
    }

    /// Gives a process that is ready its data-plane side; `serial` is not used for anything else.
    pub(crate) fn give_upstream(&mut self, process: ProcessId, serial: u64) {
        let worker = self.life.worker_of(process);
        if let (Some(worker), Some(running)) = (worker, self.processes.get_mut(&process))
            && let Some(address) = running.address.clone()
        {
            let open = self.open.remove(&worker).filter(|open| open.address == address);
            let protocol = running.spec.protocol;
            let new = || Arc::new(Upstream::new(serial, worker, address, protocol, self.threads));
            running.upstream = Some(open.unwrap_or_else(new));
        }
    }

    /// The process has not become ready: nobody knows when its worker will be.
    pub(crate) fn has_failed(&mut self, process: ProcessId) {
        let passed = self.processes.get(&process).is_some_and(|running| running.upstream.is_some());
        if let Some(worker) = self.life.worker_of(process).filter(|_| !passed) {
            self.open.remove(&worker);
        }
    }

    /// What is published of it.
    pub(crate) fn view(&mut self) -> registry::Version {
        let state = self.life.state();
        if self.state.0 != state {
            self.state = (state, Timestamp::now());
            let (service, version) = (&self.service, &self.version);
            match (state, self.life.reason()) {
                (VersionState::Failed, reason) => {
                    tracing::error!(%service, %version, "version failed: {}", reason.unwrap_or_default());
                }
                _ => tracing::info!(%service, %version, %state, "version is {state}"),
            }
        }
        let upstream = |process| self.processes.get(&process).and_then(|p: &Running| p.upstream.clone());
        let mut ready: Vec<Arc<Upstream>> = self.life.ready().filter_map(upstream).collect();
        let (life, wanted) = (&self.life, self.life.is_wanted());
        self.open.retain(|worker, _| wanted && life.workers().any(|(known, ..)| known == *worker));
        if ready.is_empty() {
            // Better to wait for a moment than to be refused.
            ready.extend(self.open.values().cloned());
        }
        registry::Version {
            service: self.service.clone(),
            id: self.version.clone(),
            path: self.path.clone(),
            state,
            since: self.state.1,
            arrived: self.arrived,
            reason: self.reason(),
            modified: self.files.is_modified(self.oldest()),
            workers: self
                .life
                .workers()
                .map(|(id, state, restarts, process)| {
                    let running = process.and_then(|process| self.processes.get(&process));
                    registry::Worker {
                        id,
                        pid: running.and_then(|p| p.pid),
                        address: running.and_then(|p| p.address.clone()),
                        state,
                        restarts,
                        upstream: process.and_then(upstream),
                    }
                })
                .collect(),
            ready,
            wake: self.upkeep.wake.clone(),
            delivery: self.delivery.clone(),
            counters: self.counters.clone(),
        }
    }

    fn reason(&self) -> Option<String> {
        let path = self.path.display();
        let folder = match self.folder {
            Folder::There => None,
            Folder::Gone => Some(format!(
                "its folder {path} is gone; it goes on serving because it carries traffic; hint: upload it again, or \
                 `switchman promote` another version"
            )),
            Folder::Replaced => Some(format!(
                "its folder {path} was replaced, and it still runs what was there before; hint: switchman restart {}",
                self.version
            )),
        };
        let files = self.files.reason(self.oldest(), &format!("switchman restart {}", self.version));
        let life = self.life.reason().map(str::to_owned);
        let (retired, hooks) = (self.upkeep.retired.clone(), self.upkeep.hooks.note.clone());
        let parts: Vec<String> = [folder, files, life, retired, hooks].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("\n"))
    }
}
