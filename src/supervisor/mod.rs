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

mod adopt;
mod answer;
mod effects;
mod fingerprint;
mod files;
mod folder;
mod get;
mod health;
mod launch;
mod leftover;
mod lifecycle;
mod main_process;
mod live;
mod managed;
mod memory;
mod pipes;
mod place;
mod port;
mod readiness;
mod record;
mod reports;
mod rolling;
mod socket;
mod tree;
mod turns;
mod warm;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::config;
use crate::deploy::VersionChange;
use crate::registry::Registry;
use crate::routing::Live;
use crate::version::{ServiceName, VersionId, VersionState};
use adopt::Succession;
use command::{Ask, How, SupervisorHandle};
use lifecycle::ProcessId;
use managed::Managed;
use memory::Memory;
use output::LogStore;
use place::Places;
use rolling::Rolling;
use turns::Turns;
use worker::Report;

/// The folder of pid files and sockets, in the state folder.
const RUN_FOLDER: &str = "run";
/// Reports that may wait before a worker's task has to.
const EVENTS_WAITING: usize = 1_024;
/// What is asked and may wait.
const ASKED_WAITING: usize = 64;
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
    /// Cancelled when no other switchman sends requests to the workers in `state` any more: at once, except in an
    /// upgrade.
    pub alone: CancellationToken,
    /// Workers that may be starting at the same moment; from 1.
    pub max_workers_starting: usize,
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
    versions: BTreeMap<VersionId, Managed>,
    /// The restart of all of them, while there is one.
    rolling: Rolling,
}

/// The owner of every version and process.
#[derive(Debug)]
struct Supervisor {
    settings: Settings,
    services: BTreeMap<ServiceName, Service>,
    registry: Registry,
    live: Arc<Live>,
    places: Places,
    logs: LogStore,
    turns: Turns,
    succession: Succession,
    /// The tasks of processes.
    tasks: TaskTracker,
    last_serial: u64,
    events: mpsc::Sender<Event>,
    /// Set at shutdown: who wants to know when everything has ended.
    ending: Option<Vec<oneshot::Sender<()>>>,
}

/// Where events come from.
#[derive(Debug)]
struct Inbox {
    changes: mpsc::Receiver<VersionChange>,
    asked: mpsc::Receiver<Ask>,
    ends: mpsc::Receiver<(How, oneshot::Sender<()>)>,
    /// Whether there is still a handle; without one nobody could ever end the supervisor.
    open: bool,
    events: mpsc::Receiver<Event>,
    routing: watch::Receiver<u64>,
}

/// Starts the supervisor: it publishes the services at once, and their versions as `changes` tells of them. `live`
/// says which versions carry traffic. Workers that an earlier switchman has left go on. The task ends after
/// [`SupervisorHandle::shutdown`], or when every handle is gone; either way every process has ended by then. After
/// [`SupervisorHandle::leave`] it ends and the processes go on. Call within a tokio runtime.
pub fn spawn(
    settings: Settings,
    registry: Registry,
    changes: mpsc::Receiver<VersionChange>,
    live: Arc<Live>,
) -> (SupervisorHandle, JoinHandle<()>) {
    // What workers leave behind comes to switchman instead of to init, so that it can be found and ended.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "switchman cannot adopt what its workers leave behind");
    }
    registry.update(|services| {
        for (name, service) in &settings.services {
            services.entry(name.clone()).or_default().root.clone_from(&service.root);
        }
    });
    let services = settings
        .services
        .iter()
        .map(|(name, config)| {
            let memory = Memory::load(&settings.state, name);
            (
                name.clone(),
                Service {
                    config: config.clone(),
                    memory,
                    versions: BTreeMap::new(),
                    rolling: Rolling::default(),
                },
            )
        })
        .collect();
    let logs = LogStore::default();
    let places = Places::new(settings.state.join(RUN_FOLDER));
    let (events_in, events) = mpsc::channel(EVENTS_WAITING);
    let (ask, asked) = mpsc::channel(ASKED_WAITING);
    let (ends_in, ends) = mpsc::channel(1);
    let inbox = Inbox { changes, asked, ends, open: true, events, routing: live.watch() };
    let (succession, returned) = Succession::new();
    let turns = Turns::new(settings.max_workers_starting);
    let supervisor = Supervisor {
        settings,
        services,
        registry,
        live,
        places,
        logs: logs.clone(),
        turns,
        succession,
        tasks: TaskTracker::new(),
        last_serial: 0,
        events: events_in,
        ending: None,
    };
    let handle = SupervisorHandle { ask, ends: ends_in, returned, logs };
    (handle, tokio::spawn(supervisor.run(inbox)))
}

impl Inbox {
    /// The next event. Reports come first: what has happened goes before what is asked.
    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => event,
            asked = self.ends.recv(), if self.open => {
                self.open = asked.is_some();
                asked.map_or(Event::End(How::Stop, None), |(how, done)| Event::End(how, Some(done)))
            }
            Some(change) = self.changes.recv() => Event::Change(change),
            Some(ask) = self.asked.recv() => Event::Ask(ask),
            Ok(()) = self.routing.changed() => Event::Routing,
        }
    }
}

impl Supervisor {
    async fn run(mut self, mut inbox: Inbox) {
        let _reaper = AbortOnDropHandle::new(tokio::spawn(reap()));
        self.adopt().await;
        let waiting: Vec<_> = loop {
            match inbox.next().await {
                Event::End(How::Leave, done) => {
                    self.succession.leaving.cancel();
                    break self.ending.take().unwrap_or_default().into_iter().chain(done).collect();
                }
                event => self.handle(event),
            }
            let empty = self.services.values().flat_map(|s| s.versions.values()).all(|v| v.life.is_empty());
            if empty && let Some(waiting) = self.ending.take() {
                break waiting;
            }
        };
        // Nobody hears what the last tasks report.
        drop(inbox);
        self.tasks.close();
        self.tasks.wait().await;
        for done in waiting {
            // Who no longer waits need not know.
            let _ = done.send(());
        }
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
            Event::Ask(Ask::RestartAll { service, reply }) => {
                let _ = reply.send(self.restart_all(service.as_ref()));
            }
            Event::Report(key, process, report) => self.reported(&key, process, report),
            Event::Due(key, event) => self.step(&key, event),
            Event::Routing => {
                self.note_returned();
                self.retire_what_lost_its_folder();
            }
            Event::End(_, done) => {
                self.ending.get_or_insert_default().extend(done);
                self.succession.ending.cancel();
                for key in self.keys() {
                    self.step(&key, lifecycle::Event::Shutdown);
                }
            }
        }
        self.go_on_restarting();
    }

    /// Decides, publishes, acts: in this order.
    fn step(&mut self, key: &Key, event: lifecycle::Event) {
        let Some(version) = self.version(key) else { return };
        let now = std::time::Instant::now();
        let effects = version.life.step(event, now);
        // Before it is published: the data plane looks for streams that are to end when the registry changes.
        version.note_stops(&effects, now);
        self.publish(key);
        for effect in effects {
            self.carry_out(key, effect);
        }
    }

    fn publish(&mut self, key: &Key) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(view) = service.versions.get_mut(&key.version).map(Managed::view) else { return };
        let gone = view.state == VersionState::Gone;
        if gone {
            service.versions.remove(&key.version);
            self.logs.forget(&key.service, &key.version);
        }
        self.registry.update(|services| {
            let versions = &mut services.entry(key.service.clone()).or_default().versions;
            if gone {
                versions.remove(&key.version);
            } else {
                versions.insert(key.version.clone(), Arc::new(view));
            }
        });
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
