//! Carries out what the lifecycle decided: starts tasks and tells them to end. Nothing here waits.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::launch::Identity;
use super::lifecycle::{Effect, Event as LifeEvent, ProcessId};
use super::managed::Running;
use super::worker::{self, Launch, Reporter};
use super::{Event, Key, RUN_FOLDER, Supervisor};
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
        let (places, logs, events) = (self.places.clone(), self.logs.clone(), self.events.clone());
        let cgroups = self.cgroups.clone();
        let turns = (!urgent).then(|| self.turns.clone());
        let run_folder =
            self.settings.state.join(RUN_FOLDER).join(key.service.as_str()).join(key.version.as_str());
        let Some(version) = self.version(key) else { return };
        // `start` and `restart` have checked that there is a command.
        let Some(run) = version.spec.run.clone() else { return };
        let launch = Launch {
            who: Identity {
                service: key.service.clone(),
                version: key.version.clone(),
                worker,
                folder: version.path.clone(),
                pidfile: run_folder.join(format!("{worker}-{}.pid", process.0)),
            },
            run,
            spec: version.spec.clone(),
            places,
            cgroups,
            logs,
            turns,
        };
        let (stop, told) = oneshot::channel();
        version.processes.insert(process, Running::starting(stop, version.spec.clone()));
        tokio::spawn(worker::run(launch, told, Reporter { events, key: key.clone(), process }));
    }

    fn drain(&mut self, key: &Key, process: ProcessId) {
        let events = self.events.clone();
        let Some(version) = self.version(key) else { return };
        let Some(patience) = version.processes.get(&process).map(|running| version.patience(running)) else {
            return;
        };
        let Some(running) = version.processes.get_mut(&process) else { return };
        let (upstream, key) = (running.upstream.clone(), key.clone());
        running.drain = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(upstream) = upstream {
                drained(&upstream, patience).await;
            }
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
