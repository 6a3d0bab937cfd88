//! What the tasks of processes saw, noted as facts and told to the lifecycle.

use super::lifecycle::{End, Event, Health, ProcessId};
use super::managed::Managed;
use super::output::Alarms;
use super::readiness::Verdict;
use super::worker::Report;
use super::{Key, Supervisor};
use crate::journal::What;

impl Supervisor {
    pub(super) fn reported(&mut self, key: &Key, process: ProcessId, report: Report) {
        self.write_down(key, process, &report);
        let passed = matches!(report, Report::Verdict(Verdict::Ready));
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
            Report::Alarms(alarms) => {
                version.note_alarms(process, alarms);
                self.publish(key);
                self.restart_alarmed(key, process);
                return;
            }
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
            Report::Health(health, why) => {
                let pid = version.processes.get(&process).and_then(|p| p.pid);
                if health != Health::Well {
                    tracing::error!(service = %key.service, version = %key.version, pid, "a worker {why}");
                }
                Event::Health(process, health, why)
            }
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
        if passed {
            // An alarm that was raised before has the worker replaced only now.
            self.restart_alarmed(key, process);
        }
        self.restart_what_has_changed(key);
        self.heard_of(key, process);
    }

    /// What people may want to read later.
    fn write_down(&mut self, key: &Key, process: ProcessId, report: &Report) {
        let Some(version) = self.version(key) else { return };
        let Some(worker) = version.life.worker_of(process) else { return };
        let running = version.processes.get(&process);
        let (pid, adopted) = running.map_or((None, false), |running| (running.pid, running.adopted));
        let what = match (report, pid) {
            (Report::Spawned { pid, .. }, None) if adopted => What::Adopted { worker, pid: *pid },
            (Report::Spawned { pid, .. }, _) => What::Started { worker, pid: *pid },
            (Report::Verdict(Verdict::Ready), Some(pid)) => What::Ready { worker, pid },
            (Report::Alarms(Alarms { count, last }), Some(pid)) => {
                What::Alarm { worker, pid, count: *count, line: last.clone() }
            }
            (Report::Ended(End::Told), Some(pid)) => What::Ended { worker, pid, why: None },
            (Report::Ended(End::ByItself(why) | End::PortTaken(why)), Some(pid)) => {
                What::Ended { worker, pid, why: Some(why.clone()) }
            }
            _ => return,
        };
        self.journal.record(&key.service, Some(&key.version), what);
    }

    /// Has a process replaced that raised an alarm, where the service says so.
    fn restart_alarmed(&mut self, key: &Key, process: ProcessId) {
        let alarm = self.services.get(&key.service).and_then(|service| service.config.alarm.as_ref());
        let restarts = alarm.is_some_and(|alarm| alarm.restart);
        let raised = |version: &mut Managed| {
            version.processes.get(&process).is_some_and(|running| running.alarms.count > 0)
        };
        if restarts && self.version(key).is_some_and(raised) {
            self.step(key, Event::Alarmed(process));
        }
    }

    /// A number for a data-plane side.
    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }
}
