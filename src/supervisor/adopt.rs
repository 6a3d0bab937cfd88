//! Goes on with the workers of an earlier switchman that was killed or has left, before anything new is started.
//!
//! ```text
//! records below <state>/run --checked against /proc--> found --choose--> adopted: the version goes on with them
//!                     |                                            +---> ended in order: nobody wants them any more
//!                     +-- does not fit: never signalled
//! processes that carry our mark and were not found: `leftover`
//! ```
//!
//! An adopted worker has the same process, address and number of restarts as before, and is checked once before it
//! counts as ready. Where its command has changed since, its version is restarted in turn once all of it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::launch::Identity;
use super::leftover::{self, Kept};
use super::lifecycle::{Adopted, Event as LifeEvent, ProcessId};
use super::managed::{Folder, Managed, Running};
use super::memory::Mark;
use super::record::{self, Record};
use super::worker::{Found, Launch, Origin};
use super::{Key, RUN_FOLDER, Supervisor, fingerprint, main_process};
use crate::config::{Protocol, ReadyCheck, RunCommand, RunSpec};
use crate::registry::Address;
use crate::version::WorkerId;

/// What ties this switchman to the one before it and the one after it.
#[derive(Debug)]
pub(super) struct Succession {
    /// Cancelled when switchman leaves its workers to the next one.
    pub(super) leaving: CancellationToken,
    /// Cancelled when what nobody goes on with has ended: nothing is started before.
    pub(super) cleared: CancellationToken,
    /// Cancelled at shutdown: what is ended in order need not wait for the earlier switchman any more.
    pub(super) ending: CancellationToken,
    /// The highest number of a process that each version has used.
    pub(super) last: BTreeMap<Key, u64>,
    /// Adopted workers that were ready and have not been heard of yet.
    awaited: BTreeSet<(Key, ProcessId)>,
    /// Whether they all have been heard of.
    pub(super) returned: watch::Sender<bool>,
    /// Nothing is published before every adopted worker was heard of: requests go on with them as they were published
    /// before.
    pub(super) holds_back: bool,
}

impl Succession {
    /// Nothing was looked at yet; `returned` is told when all workers that were ready take requests again.
    pub(super) fn new(returned: watch::Sender<bool>, holds_back: bool) -> Self {
        Self {
            leaving: CancellationToken::new(),
            cleared: CancellationToken::new(),
            ending: CancellationToken::new(),
            last: BTreeMap::new(),
            awaited: BTreeSet::new(),
            returned,
            holds_back,
        }
    }
}

/// What lies below the run folder.
#[derive(Debug, Default)]
struct Look {
    /// Records that fit, and descriptors of their processes.
    fitting: Vec<(Record, OwnedFd)>,
    last: BTreeMap<Key, u64>,
}

/// Reads the records and checks them. Blocks.
fn look(run: &Path) -> Look {
    let mut look = Look::default();
    for file in record::files(run) {
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let mut folders = file.ancestors().skip(1).filter_map(name);
        if let (Some(version), Some(service)) = (folders.next(), folders.next()) {
            let key = Key { service: service.into(), version: version.into() };
            let last = look.last.entry(key).or_default();
            *last = Record::number_in(&file).unwrap_or(0).max(*last);
        }
    }
    let Ok(boot) = record::boot() else { return look };
    for record in record::read_all(run) {
        // Opened before it is checked: the descriptor stays with the process that is found to fit.
        let descriptor = main_process::open(record.pid);
        let misfit = record.misfit(&boot);
        let Record { service, version, worker, pid, .. } = &record;
        match (misfit, descriptor) {
            (None, Ok(descriptor)) => look.fitting.push((record, descriptor)),
            (None, Err(error)) => {
                tracing::error!(%service, %version, %worker, pid, %error, "this worker cannot be watched");
            }
            (Some(why), _) => {
                tracing::info!(%service, %version, %worker, pid, "the record of this worker does not fit: {why}");
            }
        }
    }
    look
}

/// Which of the processes of one version go on, of `workers` that it is to run: of each worker the newest that was
/// ready, else the newest; a rolling restart that was cut short is not gone on with.
fn choose(records: &[&Record], workers: u32) -> BTreeSet<u64> {
    let mut best: BTreeMap<WorkerId, &Record> = BTreeMap::new();
    for record in records.iter().filter(|record| record.worker.0 < workers && !record.unwanted) {
        let rank = |record: &Record| (record.ready, record.process);
        let chosen = best.entry(record.worker).or_insert(record);
        if rank(record) > rank(chosen) {
            *chosen = record;
        }
    }
    best.values().map(|record| record.process).collect()
}

/// How an adopted process is checked, spoken to and stopped: as `spec` says if it was started so, else as it was
/// started. What was ready once has shown it; where that cannot be shown again, it is enough that it still listens.
fn spec_of(record: &Record, spec: &RunSpec, changed: bool) -> RunSpec {
    let mut spec = spec.clone();
    if changed {
        spec.protocol = if record.h2c { Protocol::H2c } else { Protocol::Http1 };
        spec.stop.grace = record.grace;
        spec.stop.drain = record.drain;
        spec.ready.check = ReadyCheck::Tcp;
    }
    if let ReadyCheck::After(time) = &mut spec.ready.check {
        let age = Duration::try_from(jiff::Timestamp::now().duration_since(record.at)).unwrap_or_default();
        *time = if record.ready { Duration::ZERO } else { time.saturating_sub(age) };
    }
    spec
}

impl Supervisor {
    /// Looks for what an earlier switchman has left, goes on with what is still wanted, and ends the rest.
    pub(super) async fn adopt(&mut self) {
        let run = self.settings.state.join(RUN_FOLDER);
        let folder = run.clone();
        let Look { fitting, last } =
            tokio::task::spawn_blocking(move || look(&folder)).await.unwrap_or_default();
        self.succession.last = last;
        let mut kept = Kept::default();
        let mut versions: BTreeMap<Key, Vec<Found>> = BTreeMap::new();
        for (record, descriptor) in fitting {
            let address = Address::from(&record.address);
            let seat = (record.service.clone(), record.version.clone(), record.worker);
            let inherited = record.inherited.then_some((seat, &descriptor, record.pid));
            let Some(place) = self.places.claim(&address, inherited) else {
                tracing::error!(pid = record.pid, %address, "two workers are recorded for one address; this one is ended");
                continue;
            };
            kept.pidfiles.insert(record.pidfile.clone());
            kept.sockets.extend(record.notify.clone());
            if let Address::Unix(path) = address {
                kept.sockets.insert(path);
            }
            let key = Key { service: record.service.clone(), version: record.version.clone() };
            versions.entry(key).or_default().push(Found { record, descriptor, place });
        }
        for (key, found) in versions {
            self.adopt_version(&key, found);
        }
        self.note_returned();
        let cleared = self.succession.cleared.clone();
        self.tasks.spawn(async move {
            leftover::end(run, kept).await;
            cleared.cancel();
        });
    }

    /// Goes on with the processes of one version, as far as it is to run.
    fn adopt_version(&mut self, key: &Key, found: Vec<Found>) {
        let left = found.iter().map(|found| found.record.worker.0 + 1).max().unwrap_or(0);
        let workers = if self.is_wanted(key, &found) { self.prepare(key, left) } else { 0 };
        let records: Vec<&Record> = found.iter().map(|found| &found.record).collect();
        let chosen = choose(&records, workers);
        let (go_on, rest): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| chosen.contains(&found.record.process));
        for found in rest {
            self.end_in_order(key, found);
        }
        if !go_on.is_empty() {
            self.go_on(key, workers, go_on);
        }
    }

    /// Whether a version that has left processes is to run at all.
    fn is_wanted(&self, key: &Key, found: &[Found]) -> bool {
        let Some(service) = self.services.get(&key.service) else { return false };
        let folder = service.config.root.join(key.version.as_str());
        service.config.versions.is_match(key.version.as_str())
            && !service.memory.is(Mark::Stopped, &key.version)
            && !service.memory.is(Mark::Asleep, &key.version)
            && found.iter().all(|found| found.record.folder == folder)
    }

    /// Makes the version known; answers how many workers it is to run. Their number may have followed the load; the
    /// numbers of those that are `left` are below it.
    fn prepare(&mut self, key: &Key, left: u32) -> u32 {
        let Some(root) = self.services.get(&key.service).map(|service| service.config.root.clone()) else {
            return 0;
        };
        self.add(key, &root.join(key.version.as_str()));
        let workers = self.read_spec(key);
        let Some(version) = self.version(key) else { return 0 };
        match workers {
            Ok(_) => {
                version.followed = version.spec.scale.map(|scale| scale.within(left));
                version.workers()
            }
            Err(why) => {
                tracing::error!(service = %key.service, version = %key.version, "its workers go on as they are: {why}");
                version.workers()
            }
        }
    }

    fn go_on(&mut self, key: &Key, workers: u32, found: Vec<Found>) {
        let identity = found.iter().max_by_key(|found| found.record.process).and_then(|f| f.record.identity);
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        version.identity = identity;
        if let Some(identity) = identity {
            version.arrived = service.memory.arrived(&key.version, identity, version.arrived);
        }
        if !version.path.is_dir() {
            version.folder = Folder::Gone;
        }
        let spec = version.spec.clone();
        let now = spec.run.as_ref().map(|run| fingerprint::of(run, &spec));
        let mut processes = Vec::new();
        let mut origins = Vec::new();
        for found in found {
            let record = &found.record;
            let (process, worker, restarts) = (ProcessId(record.process), record.worker, record.restarts);
            processes.push(Adopted { process, worker, restarts });
            let changed = now.as_ref().is_some_and(|now| *now != record.command);
            version.restart_when_ready |= changed;
            let spec = Arc::new(spec_of(record, &spec, changed));
            let (stop, told) = oneshot::channel();
            let mut running = Running::starting(stop, spec.clone());
            running.pid = Some(record.pid);
            running.address = Some((&record.address).into());
            running.since = record.at.into();
            running.adopted = true;
            version.processes.insert(process, running);
            if record.ready {
                self.succession.awaited.insert((key.clone(), process));
            }
            tracing::info!(
                service = %key.service, version = %key.version, %worker, pid = record.pid,
                address = %Address::from(&record.address), changed, "going on with a worker of an earlier switchman"
            );
            origins.push((process, spec, told, found));
        }
        let was_ready = origins.iter().any(|(.., found)| found.record.ready);
        self.step(key, LifeEvent::Adopt { workers, was_ready, processes });
        for (process, spec, told, found) in origins {
            let launch = self.launch_of(&found.record, spec);
            self.attend(key, process, launch, Origin::Adopted(Box::new(found)), told);
        }
    }

    /// Ends a process that nobody wants any more as if it had been told to: TERM, its grace, KILL, its output read. An
    /// earlier switchman that still lives may have requests there: then it is given the time that it has for them.
    fn end_in_order(&mut self, key: &Key, mut found: Found) {
        found.record.unwanted = true;
        found.record.write_down();
        let (mut stop, told) = oneshot::channel();
        let (alone, ending) = (self.settings.alone.clone(), self.succession.ending.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = alone.cancelled() => {}
                () = ending.cancelled() => {}
                // It has ended by itself, or switchman leaves it to the next one.
                () = stop.closed() => {}
            }
            drop(stop);
        });
        tracing::info!(
            service = %key.service, version = %key.version, worker = %found.record.worker, pid = found.record.pid,
            "ending a worker of an earlier switchman, which is not to run any more"
        );
        let spec = Arc::new(spec_of(&found.record, &RunSpec::default(), true));
        let launch = self.launch_of(&found.record, spec);
        self.attend(key, ProcessId(found.record.process), launch, Origin::Adopted(Box::new(found)), told);
    }

    fn launch_of(&self, record: &Record, spec: Arc<RunSpec>) -> Launch {
        let who = Identity {
            service: record.service.clone(),
            version: record.version.clone(),
            worker: record.worker,
            folder: record.folder.clone(),
            pidfile: record.pidfile.clone(),
        };
        // It runs already: only the words for its end depend on the command.
        let run = spec.run.clone().unwrap_or(RunCommand::Exec(Vec::new()));
        self.launch(who, run, spec, record.restarts, record.identity)
    }

    /// Restarts a version whose adopted processes were started with another command, once all of it is ready.
    pub(super) fn restart_what_has_changed(&mut self, key: &Key) {
        let Some(version) = self.version(key).filter(|version| version.restart_when_ready) else { return };
        if version.life.ready().count() == version.processes.len() {
            version.restart_when_ready = false;
            if let Err(why) = self.restart(key) {
                tracing::error!(service = %key.service, version = %key.version, "not restarted with its new command: {why}");
            }
        }
    }

    /// Publishes what was held back, once every adopted worker was heard of.
    pub(super) fn publish_what_was_held(&mut self) {
        if self.succession.holds_back && self.succession.awaited.is_empty() {
            self.succession.holds_back = false;
            for key in self.keys() {
                self.publish(&key);
            }
        }
    }

    /// Notes that a process was heard of.
    pub(super) fn heard_of(&mut self, key: &Key, process: ProcessId) {
        if self.succession.awaited.remove(&(key.clone(), process)) {
            self.note_returned();
        }
    }

    /// Says so when every adopted worker that was ready takes requests again, or has shown that it does not.
    pub(super) fn note_returned(&mut self) {
        let Succession { returned, awaited, holds_back, .. } = &self.succession;
        if *returned.borrow() || !awaited.is_empty() || *holds_back {
            return;
        }
        let live = self.live.load();
        let routed = |version: &Managed| {
            let service = live.service(version.service.as_str());
            let routed = service.and_then(|service| service.registry.versions.get(&version.version));
            routed.map_or(0, |routed| routed.ready.len()) == version.life.ready().count()
        };
        if self.services.values().flat_map(|service| service.versions.values()).all(routed) {
            self.succession.returned.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{ServiceName, VersionId};

    fn record(worker: u32, process: u64, ready: bool) -> Record {
        Record {
            service: ServiceName::from("app"),
            version: VersionId::from("4f2a91c"),
            worker: WorkerId(worker),
            process,
            restarts: 0,
            pid: 1,
            started: 0,
            boot: String::new(),
            address: record::ListensOn::Port(([127, 0, 0, 1], 4711).into()),
            inherited: false,
            cgroup: None,
            notify: None,
            h2c: true,
            command: String::new(),
            folder: "/srv/app/4f2a91c".into(),
            identity: None,
            pidfile: "/run/0-1.pid".into(),
            at: jiff::Timestamp::now() - Duration::from_secs(60),
            ready,
            unwanted: false,
            grace: Duration::from_secs(1),
            drain: Duration::from_secs(2),
        }
    }

    #[test]
    fn of_each_worker_the_newest_that_was_ready_goes_on() {
        let chosen = |records: &[(u32, u64, bool)], workers| {
            let records: Vec<Record> = records.iter().map(|(w, p, ready)| record(*w, *p, *ready)).collect();
            choose(&records.iter().collect::<Vec<_>>(), workers).into_iter().collect::<Vec<u64>>()
        };
        assert_eq!(chosen(&[(0, 1, true), (1, 2, true)], 2), [1, 2]);
        assert_eq!(chosen(&[(0, 1, true), (1, 2, true)], 1), [1], "it has fewer workers now");
        assert_eq!(chosen(&[(0, 1, true)], 0), [0; 0], "it is not to run");
        assert_eq!(chosen(&[(0, 1, true), (0, 3, false)], 1), [1], "a rolling restart that had just begun");
        assert_eq!(chosen(&[(0, 1, true), (0, 3, true)], 1), [3], "one that was nearly done");
        assert_eq!(chosen(&[(0, 4, false), (0, 3, false)], 1), [4]);

        let (old, mut new) = (record(0, 1, true), record(0, 3, true));
        new.unwanted = true;
        assert_eq!(
            choose(&[&old, &new], 1),
            BTreeSet::from([1]),
            "it was to be ended, and was ready meanwhile"
        );
    }

    #[test]
    fn a_process_is_checked_and_stopped_as_it_was_started() {
        let mut spec = RunSpec::default();
        spec.ready.check = ReadyCheck::After(Duration::from_secs(100));
        let after = |ready| match spec_of(&record(0, 1, ready), &spec, false).ready.check {
            ReadyCheck::After(time) => time.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(after(true), 0, "it has waited already");
        assert!((39..=40).contains(&after(false)), "it has waited for a minute");
        let changed = spec_of(&record(0, 1, true), &spec, true);
        assert_eq!((changed.protocol, changed.ready.check), (Protocol::H2c, ReadyCheck::Tcp));
        assert_eq!((changed.stop.grace.as_secs(), changed.stop.drain.as_secs()), (1, 2));
    }
}
