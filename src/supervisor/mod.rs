//! Runs the workers of every version: starts, checks, restarts, drains and stops them, and writes the registry.
//!
//! ```text
//! VersionChange, Command, Live --+
//!                                +--> Event --> Supervisor::handle --> Lifecycle::step (pure) --> publish --> effects
//! reports of worker tasks -------+                                                                              |
//!            ^------------------------ worker::run, drains, timers <--------------------------------------------+
//! ```
//!
//! One task owns all state and takes one [`Event`] after the other. What follows from an event is decided by
//! [`lifecycle`], published in the registry, and only then done: a worker is out of the registry before it is told
//! to end.

pub mod command;
pub mod output;

mod accepted;
mod adopt;
mod answer;
mod autoscale;
mod configure;
mod effects;
mod ending;
mod fingerprint;
mod files;
mod folder;
mod get;
mod health;
mod hooks;
mod inherit;
mod isolated;
mod launch;
mod leftover;
mod lifecycle;
mod live;
mod main_process;
mod managed;
mod memory;
mod notified;
mod pipes;
mod place;
mod printed;
mod publish;
mod port;
mod readiness;
mod record;
mod reports;
mod retention;
mod rolling;
mod seat;
mod sleep;
mod socket;
mod tree;
mod turns;
mod upkeep;
mod warm;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config;
use crate::deploy::VersionChange;
use crate::etcd;
use crate::journal::Journal;
use crate::registry::Registry;
use crate::routing::Live;
use crate::version::{ServiceName, VersionId};
use adopt::Succession;
use command::{Ask, How};
use launch::cgroup::Cgroups;
use lifecycle::ProcessId;
use managed::Managed;
use memory::Memory;
use output::LogStore;
use place::Places;
use rolling::Rolling;
use seat::Inbox;
pub use seat::{Seat, spawn, take_seat};
use turns::Turns;
use upkeep::Before;
use worker::Report;

/// The folder of pid files and sockets, in the state folder.
const RUN_FOLDER: &str = "run";
/// How often ended orphans that nobody waits for are looked for.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// What the supervisor needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The services by name.
    pub services: BTreeMap<ServiceName, config::Service>,
    /// Data-plane threads, which counters are made for.
    pub threads: usize,
    /// The folder for what survives a restart.
    pub state: PathBuf,
    /// Workers that may be starting at the same moment; from 1.
    pub max_workers_starting: usize,
    /// What nodes agree in about hooks that are run once for all of them; none: this is the only node.
    pub etcd: Option<etcd::Cluster>,
    /// The name of this node.
    pub node: String,
    /// Cancelled when no other switchman sends requests to the workers in `state` any more: at once, except in an
    /// upgrade.
    pub alone: CancellationToken,
}

/// Everything that the supervisor reacts to.
#[derive(Debug)]
enum Event {
    /// A deploy root changed.
    Change(VersionChange),
    /// Somebody asks for something.
    Ask(Ask),
    /// The task of a process saw something.
    Report(Key, ProcessId, Report),
    /// A drain or a back-off is over.
    Due(Key, lifecycle::Event),
    /// The task of a hook has something to say; the number tells it from those of before.
    Hook(Key, hooks::Kind, u64, hooks::Said),
    /// A request came for a version that sleeps.
    Wake(Key),
    /// A second has passed.
    Tick,
    /// A folder could not be deleted; perhaps it can be now.
    Prune(Key),
    /// Rules, aliases or the registry changed, and with them perhaps what carries traffic.
    Routing,
    /// switchman ends, and its workers do or do not. Without a sender nobody could ever end it.
    End(How, Option<oneshot::Sender<()>>),
}

/// One version of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: ServiceName,
    version: VersionId,
}

/// One service.
#[derive(Debug)]
struct Service {
    config: config::Service,
    memory: Memory,
    /// Whose turn it is to run `before_start`.
    before_start: Arc<Semaphore>,
    /// What `current` was when it was looked at last; none: it was not looked at.
    current: Option<Option<VersionId>>,
    versions: BTreeMap<VersionId, Managed>,
    /// The restart of all of them, while there is one.
    rolling: Rolling,
    /// It is gone from the configuration; its last versions are about to end.
    removed: bool,
}

impl Service {
    fn new(config: config::Service, memory: Memory) -> Self {
        Self {
            config,
            memory,
            before_start: Arc::new(Semaphore::new(1)),
            current: None,
            versions: BTreeMap::new(),
            rolling: Rolling::default(),
            removed: false,
        }
    }
}

/// The owner of every version and process.
#[derive(Debug)]
struct Supervisor {
    settings: Settings,
    services: BTreeMap<ServiceName, Service>,
    registry: Registry,
    live: Arc<Live>,
    places: Places,
    cgroups: Option<Arc<Cgroups>>,
    logs: LogStore,
    journal: Journal,
    turns: Turns,
    succession: Succession,
    /// The tasks of processes.
    tasks: TaskTracker,
    last_serial: u64,
    last_hook: u64,
    /// Hooks that are under way, those that are wanted no more among them.
    hooks_under_way: usize,
    /// What requests for versions that sleep ring.
    bell: mpsc::UnboundedSender<(ServiceName, VersionId)>,
    events: mpsc::Sender<Event>,
    /// Set at shutdown: who wants to know when everything has ended.
    ending: Option<Vec<oneshot::Sender<()>>>,
}

impl Supervisor {
    async fn run(mut self, mut inbox: Inbox) -> Seat {
        let _reaper = AbortOnDropHandle::new(tokio::spawn(reap()));
        self.adopt().await;
        self.finish_pruning();
        self.publish_what_was_held();
        let mut leaving: Option<Vec<_>> = None;
        let mut has_left = false;
        let mut waiting: Vec<_> = loop {
            match inbox.next().await {
                Event::End(How::Leave, done) => leaving.get_or_insert_default().extend(done),
                event => self.handle(event),
            }
            self.publish_what_was_held();
            if self.hooks_under_way > 0 {
                // A migration is neither cut nor left alone: the next switchman would begin it once more.
                continue;
            }
            if let Some(leaving) = leaving.take() {
                self.succession.leaving.cancel();
                has_left = true;
                break self.ending.take().unwrap_or_default().into_iter().chain(leaving).collect();
            }
            let empty = self.services.values().flat_map(|s| s.versions.values()).all(|v| v.life.is_empty());
            if empty && let Some(waiting) = self.ending.take() {
                break waiting;
            }
        };
        // Nobody hears what the last tasks report.
        inbox.events.close();
        self.tasks.close();
        self.tasks.wait().await;
        if has_left {
            // Who goes on writes to the same files, and may be this process again.
            self.logs.flush().await;
        } else {
            self.logs.close().await;
            self.journal.close();
            waiting.extend(inbox.close());
        }
        for done in waiting {
            // Who no longer waits need not know.
            let _ = done.send(());
        }
        let Self { registry, logs, journal, bell, last_serial, last_hook, succession, .. } = self;
        Seat { inbox, registry, logs, journal, returned: succession.returned, bell, last_serial, last_hook }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Change(_) if self.ending.is_some() => {}
            Event::Change(change) => self.folder_changed(change),
            // Who asked may have gone away.
            Event::Ask(Ask::Act(command)) => {
                let answer = self.answer(&command);
                let _ = command.reply.send(answer);
            }
            Event::Ask(Ask::Configure { services, reply }) => {
                let _ = reply.send(Ok(self.configure(services)));
            }
            Event::Ask(Ask::RestartAll { service, reply }) => {
                let _ = reply.send(self.restart_all(service.as_ref()));
            }
            Event::Report(key, process, report) => self.reported(&key, process, report),
            Event::Due(key, event) => self.step(&key, event),
            Event::Hook(key, kind, number, said) => self.hook_said(&key, kind, number, said),
            Event::Wake(key) => self.wake(&key),
            Event::Tick => self.tick(Instant::now()),
            Event::Prune(key) => self.prune_again(&key),
            Event::Routing => {
                self.note_returned();
                self.retire_what_lost_its_folder();
                self.wake_promoted();
                self.retain_all();
            }
            Event::End(_, done) => {
                self.ending.get_or_insert_default().extend(done);
                self.succession.ending.cancel();
                for key in self.keys() {
                    if !self.before_stop(&key) {
                        self.step(&key, lifecycle::Event::Shutdown);
                    }
                }
            }
        }
        self.go_on_restarting();
    }

    /// Decides, publishes, acts: in this order.
    fn step(&mut self, key: &Key, event: lifecycle::Event) {
        let Some(version) = self.version(key) else { return };
        let now = Instant::now();
        let before = Before::new(version, &event);
        let effects = version.life.step(event, now);
        // Before it is published: the data plane looks for streams that are to end when the registry changes.
        version.note_stops(&effects, now);
        self.follow_up(key, before);
        self.publish(key);
        for effect in effects {
            self.carry_out(key, effect);
        }
    }

    fn version(&mut self, key: &Key) -> Option<&mut Managed> {
        self.services.get_mut(&key.service)?.versions.get_mut(&key.version)
    }

    fn carries_traffic(&self, key: &Key) -> bool {
        let live = self.live.load();
        live.service(key.service.as_str()).is_some_and(|service| service.carries_traffic(&key.version))
    }

    /// Whether routing knows of this version.
    fn is_routed(&self, key: &Key) -> bool {
        let live = self.live.load();
        live.service(key.service.as_str()).is_some_and(|s| s.registry.versions.contains_key(&key.version))
    }

    fn keys(&self) -> Vec<Key> {
        let of = |(name, service): (&ServiceName, &Service)| {
            let name = name.clone();
            let versions: Vec<VersionId> = service.versions.keys().cloned().collect();
            versions.into_iter().map(move |version| Key { service: name.clone(), version })
        };
        self.services.iter().flat_map(of).collect()
    }
}

/// Reaps what was left to switchman and has ended, for as long as the supervisor runs.
async fn reap() {
    let mut zombies = HashSet::new();
    let mut often = tokio::time::interval(REAP_EVERY);
    loop {
        often.tick().await;
        let before = std::mem::take(&mut zombies);
        if tree::has_zombies() {
            zombies =
                tokio::task::spawn_blocking(move || tree::reap_orphans(&before)).await.unwrap_or_default();
        }
    }
}
