//! How a supervisor begins: where its events come from, and what one that has left leaves to the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::adopt::Succession;
use super::command::{Ask, How, SupervisorHandle};
use super::memory::Memory;
use super::output::LogStore;
use super::place::Places;
use super::turns::Turns;
use super::{Event, Key, RUN_FOLDER, Service, Settings, Supervisor, isolated};
use crate::deploy::VersionChange;
use crate::journal::Journal;
use crate::registry::Registry;
use crate::routing::Live;
use crate::version::{ServiceName, VersionId};

/// Reports that may wait before a worker's task has to.
const EVENTS_WAITING: usize = 1_024;
/// What is asked and may wait.
const ASKED_WAITING: usize = 64;
/// How often idle versions are looked for, and how busy the others are.
const TICK: Duration = Duration::from_secs(1);

/// Where events come from.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) changes: mpsc::Receiver<VersionChange>,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) ends: mpsc::Receiver<(How, oneshot::Sender<()>)>,
    /// Whether there is still a handle; without one nobody could ever end the supervisor.
    pub(super) open: bool,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) rings: mpsc::UnboundedReceiver<(ServiceName, VersionId)>,
    pub(super) ticks: tokio::time::Interval,
    pub(super) routing: watch::Receiver<u64>,
}

/// What stays when a supervisor has left: another one can go on with it, and everybody asks that one then.
#[derive(Debug)]
pub struct Seat {
    pub(super) inbox: Inbox,
    pub(super) registry: Registry,
    pub(super) logs: LogStore,
    pub(super) journal: Journal,
    pub(super) returned: watch::Sender<bool>,
    pub(super) bell: mpsc::UnboundedSender<(ServiceName, VersionId)>,
    pub(super) last_serial: u64,
    pub(super) last_hook: u64,
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
) -> (SupervisorHandle, JoinHandle<Seat>) {
    // What workers leave behind comes to switchman instead of to init, so that it can be found and ended.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "switchman cannot adopt what its workers leave behind");
    }
    let (_, events) = mpsc::channel(EVENTS_WAITING);
    let (ask, asked) = mpsc::channel(ASKED_WAITING);
    let (ends_in, ends) = mpsc::channel(1);
    let (bell, rings) = mpsc::unbounded_channel();
    let ticks = tokio::time::interval(TICK);
    let inbox = Inbox { changes, asked, ends, open: true, events, rings, ticks, routing: live.watch() };
    let (returned_in, returned) = watch::channel(false);
    let journal = Journal::default();
    let logs = LogStore::open(&settings.state, &journal);
    let handle =
        SupervisorHandle { ask, ends: ends_in, returned, logs: logs.clone(), journal: journal.clone() };
    let seat =
        Seat { inbox, registry, logs, journal, returned: returned_in, bell, last_serial: 0, last_hook: 0 };
    (handle, take_seat(settings, seat, live))
}

/// Starts a supervisor where another one has left: it takes back the workers. What was published stays until they were
/// heard of. Call within a tokio runtime.
pub fn take_seat(settings: Settings, seat: Seat, live: Arc<Live>) -> JoinHandle<Seat> {
    let Seat { mut inbox, registry, logs, journal, returned, bell, last_serial, last_hook } = seat;
    // Somebody sat here before: what was published is truer than what is known at first.
    let holds_back = last_serial > 0;
    let (events_in, events) = mpsc::channel(EVENTS_WAITING);
    inbox.events = events;
    returned.send_replace(false);
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
            (name.clone(), Service::new(config.clone(), memory))
        })
        .collect();
    for (name, service) in &settings.services {
        logs.configure(name, service.logs.clone());
    }
    let places = Places::new(settings.state.join(RUN_FOLDER));
    let cgroups = isolated::prepare(&settings).map(Arc::new);
    let turns = Turns::new(settings.max_workers_starting);
    let supervisor = Supervisor {
        settings,
        services,
        registry,
        live,
        places,
        cgroups,
        logs,
        journal,
        turns,
        succession: Succession::new(returned, holds_back),
        tasks: TaskTracker::new(),
        last_serial,
        last_hook,
        hooks_under_way: 0,
        bell,
        events: events_in,
        ending: None,
    };
    tokio::spawn(supervisor.run(inbox))
}

impl Inbox {
    /// Nothing is asked any more: what came too late is told so by its end. Answers who else waits for the end.
    pub(super) fn close(&mut self) -> Vec<oneshot::Sender<()>> {
        self.asked.close();
        while self.asked.try_recv().is_ok() {}
        self.ends.close();
        std::iter::from_fn(|| self.ends.try_recv().ok()).map(|(_, done)| done).collect()
    }

    /// The next event. Reports come first: what has happened goes before what is asked.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => event,
            asked = self.ends.recv(), if self.open => {
                self.open = asked.is_some();
                asked.map_or(Event::End(How::Stop, None), |(how, done)| Event::End(how, Some(done)))
            }
            Some((service, version)) = self.rings.recv() => Event::Wake(Key { service, version }),
            Some(change) = self.changes.recv() => Event::Change(change),
            Some(ask) = self.asked.recv() => Event::Ask(ask),
            Ok(()) = self.routing.changed() => Event::Routing,
            _ = self.ticks.tick() => Event::Tick,
        }
    }
}
