//! What the tasks of processes saw, noted as facts and told to the lifecycle.

use std::sync::Arc;

use super::lifecycle::{Event, ProcessId};
use super::live::Change;
use super::readiness::Verdict;
use super::worker::Report;
use super::{Key, Supervisor};
use crate::registry::Upstream;

impl Supervisor {
    pub(super) fn reported(&mut self, key: &Key, process: ProcessId, report: Report) {
        let Some(version) = self.version(key) else { return };
        let event = match report {
            Report::Spawned { pid, address } => {
                if let Some(running) = version.processes.get_mut(&process) {
                    running.pid = Some(pid);
                    running.address = Some(address);
                }
                self.publish(key);
                return;
            }
            Report::Noted(note) => Event::Noted(process, note),
            Report::Verdict(Verdict::Ready) => {
                self.give_upstream(key, process);
                Event::Passed(process)
            }
            Report::Verdict(Verdict::Late(why)) => Event::Late(process, why),
            Report::Verdict(Verdict::PortTaken) => Event::PortTaken(process),
            Report::Live(Change::Unwell(unwell)) => {
                tracing::error!(
                    service = %key.service, version = %key.version, pid = version.processes.get(&process).and_then(|p| p.pid),
                    "a worker {}", unwell.why
                );
                Event::Unwell(process, unwell)
            }
            Report::Live(Change::Well) => Event::Well(process),
            Report::Exited => Event::Exited(process),
            Report::Ended(end) => {
                version.processes.remove(&process);
                Event::Ended(process, end)
            }
        };
        self.step(key, event);
        self.restart_what_has_changed(key);
        self.heard_of(key, process);
    }

    /// Makes the data-plane side of a process that is ready.
    fn give_upstream(&mut self, key: &Key, process: ProcessId) {
        self.last_serial += 1;
        let (serial, threads) = (self.last_serial, self.settings.threads);
        let Some(version) = self.version(key) else { return };
        let worker = version.life.worker_of(process);
        if let (Some(worker), Some(running)) = (worker, version.processes.get_mut(&process))
            && let Some(address) = running.address.clone()
        {
            let upstream = Upstream::new(serial, worker, address, running.spec.protocol, threads);
            running.upstream = Some(Arc::new(upstream));
        }
    }
}
