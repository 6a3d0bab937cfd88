//! Carries out what the lifecycle decided: starts tasks and tells them to end. Nothing here waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::launch::Identity;
use super::lifecycle::{Effect, End, Event as LifeEvent, ProcessId};
use super::managed::Running;
use super::record::PIDFILE;
use super::turns::Urgency;
use super::worker::{self, Launch, Origin, Report, Reporter};
use super::{Event, Key, RUN_FOLDER, Supervisor};
use crate::config::{RunCommand, RunSpec};
use crate::drain::Patience;
use crate::registry::Upstream;
use crate::version::WorkerId;

/// Time between two looks at the requests of a draining worker.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);
/// So many looks in a row must find none: a request may have chosen the worker from the snapshot before.
const DRAIN_LOOKS: u32 = 2;

impl Supervisor {
    pub(super) fn carry_out(&mut self, key: &Key, effect: Effect) {
        match effect {
            Effect::Start { process, worker, urgent } => self.start_process(key, process, worker, urgent),
            Effect::Drain(process) => self.drain(key, process),
            Effect::Terminate(process) => {
                let stop = self.version(key).and_then(|v| v.processes.get_mut(&process)?.stop.take());
                if let Some(stop) = stop {
                    // It may have ended by itself.
                    let _ = stop.send(());
                }
            }
            Effect::RetryAfter(worker, timer, delay) => {
                let (events, key) = (self.events.clone(), key.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // The supervisor may have ended.
                    let _ = events.send(Event::Due(key, LifeEvent::Retry(worker, timer))).await;
                });
            }
        }
    }

    fn start_process(&mut self, key: &Key, process: ProcessId, worker: WorkerId, urgent: bool) {
        let urgency = match (self.carries_traffic(key), urgent) {
            (true, _) => Urgency::Traffic,
            (false, true) => Urgency::Again,
            (false, false) => Urgency::New,
        };
        let run_folder =
            self.settings.state.join(RUN_FOLDER).join(key.service.as_str()).join(key.version.as_str());
        let pidfile = run_folder.join(format!("{worker}-{}.{PIDFILE}", process.0));
        let Some(version) = self.version(key) else { return };
        let (spec, identity) = (version.spec.clone(), version.identity);
        let restarts = version.life.workers().find(|(id, ..)| *id == worker).map_or(0, |(_, _, n, _)| n);
        let who = Identity {
            service: key.service.clone(),
            version: key.version.clone(),
            worker,
            folder: version.path.clone(),
            pidfile,
        };
        let (stop, told) = oneshot::channel();
        version.processes.insert(process, Running::starting(stop, spec.clone()));
        let Some(run) = spec.run.clone() else {
            // `start` and `restart` have checked that there is a command; what was adopted may have lost it since.
            let (events, key) = (self.events.clone(), key.clone());
            self.tasks.spawn(async move {
                let end = End::ByItself("could not be started: nothing says how to run it".to_owned());
                Reporter { events, key, process }.send(Report::Ended(end)).await;
            });
            return;
        };
        let mut launch = self.launch(who, run, spec, restarts, identity);
        launch.urgency = Some(urgency);
        self.attend(key, process, launch, Origin::New(process), told);
    }

    /// What the task of a process needs; it waits for nobody's turn.
    pub(super) fn launch(
        &self,
        who: Identity,
        run: RunCommand,
        spec: Arc<RunSpec>,
        restarts: u32,
        identity: Option<(u64, u64)>,
    ) -> Launch {
        Launch {
            who,
            run,
            spec,
            places: self.places.clone(),
            cgroups: self.cgroups.clone(),
            logs: self.logs.clone(),
            turns: self.turns.clone(),
            urgency: None,
            restarts,
            identity,
            cleared: self.succession.cleared.clone(),
            leaving: self.succession.leaving.clone(),
        }
    }

    /// Starts the task of a process.
    pub(super) fn attend(
        &self,
        key: &Key,
        process: ProcessId,
        launch: Launch,
        origin: Origin,
        told: oneshot::Receiver<()>,
    ) {
        let reporter = Reporter { events: self.events.clone(), key: key.clone(), process };
        self.tasks.spawn(worker::run(launch, origin, told, reporter));
    }

    fn drain(&mut self, key: &Key, process: ProcessId) {
        let (events, alone) = (self.events.clone(), self.settings.alone.clone());
        let Some(version) = self.version(key) else { return };
        let Some(patience) = version.processes.get(&process).map(|running| version.patience(running)) else {
            return;
        };
        let Some(running) = version.processes.get(&process) else { return };
        let (upstream, key) = (running.upstream.clone(), key.clone());
        let alone = Some(alone).filter(|_| running.adopted);
        let before_end = version.upkeep.hooks.before_end();
        let Some(running) = version.processes.get_mut(&process) else { return };
        running.drain = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(alone) = alone {
                // The requests of the earlier switchman are counted there; it has its own deadline.
                let longest = patience.requests.max(patience.streams);
                let _ = tokio::time::timeout(longest, alone.cancelled()).await;
            }
            if let Some(upstream) = upstream {
                drained(&upstream, patience).await;
            }
            before_end.await;
            let _ = events.send(Event::Due(key, LifeEvent::Drained(process))).await;
        })));
    }
}

/// Waits until no request runs and no stream is open, or until those that are have had their time.
async fn drained(upstream: &Upstream, patience: Patience) {
    let begun = Instant::now();
    let mut looks = 0;
    while looks < DRAIN_LOOKS {
        tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        // Streams first: one that ends between the two looks is taken for a request, not the other way round.
        let streams = upstream.streams.now();
        let in_flight = upstream.in_flight.now();
        looks = if patience.is_over(begun.elapsed(), in_flight, streams) { looks + 1 } else { 0 };
    }
    let cut = upstream.in_flight.now();
    if cut > 0 {
        let address = &upstream.address;
        tracing::warn!(%address, requests = cut, "the time to drain is over; requests and streams are cut");
    }
}
