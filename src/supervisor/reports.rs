//! What the tasks of processes saw, noted as facts and told to the lifecycle.

use super::lifecycle::{Event, ProcessId};
use super::live::Change;
use super::readiness::Verdict;
use super::worker::Report;
use super::{Key, Supervisor};

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
                let serial = self.next_serial();
                if let Some(version) = self.version(key) {
                    version.give_upstream(process, serial);
                }
                Event::Passed(process)
            }
            Report::Verdict(Verdict::Late(why)) => {
                version.has_failed(process);
                Event::Late(process, why)
            }
            Report::Verdict(Verdict::PortTaken) => Event::PortTaken(process),
            Report::Live(Change::Unwell(unwell)) => {
                tracing::error!(
                    service = %key.service, version = %key.version, pid = version.processes.get(&process).and_then(|p| p.pid),
                    "a worker {}", unwell.why
                );
                Event::Unwell(process, unwell)
            }
            Report::Live(Change::Well) => Event::Well(process),
            Report::Exited => {
                let serial = self.next_serial();
                if let Some(version) = self.version(key) {
                    version.keep_open(process, serial);
                }
                Event::Exited(process)
            }
            Report::Ended(end) => {
                version.has_failed(process);
                version.processes.remove(&process);
                Event::Ended(process, end)
            }
        };
        self.step(key, event);
        self.restart_what_has_changed(key);
        self.heard_of(key, process);
    }

    /// A number for a data-plane side.
    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }
}
