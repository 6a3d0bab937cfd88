//! Hooks: commands of a service that are run at points of a version's life.
//!
//! ```text
//! start, restart --> before_start, once for the folder (with etcd: once for all nodes) --> start, restart
//! ready for the first time --> after_ready                                    fails: the version fails
//! stop --> before_stop, while the version drains; its workers are told to end when both are over
//! ```
//!
//! How a hook went is remembered with the folder's identity: over a restart of switchman it is not run again, for
//! another folder of that name it is. [`process`] runs one; here is when, and what follows.

mod process;
mod task;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::memory::Ran;
use super::{Key, RUN_FOLDER, Supervisor, lifecycle};
use crate::config;
use crate::etcd::once::{Once, Unfinished};
use process::Job;
use task::Task;

/// A point of a version's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BeforeStart,
    AfterReady,
    BeforeStop,
}

impl Kind {
    /// The key that it has in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BeforeStart => "before_start",
            Self::AfterReady => "after_ready",
            Self::BeforeStop => "before_stop",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the task of a hook has to say.
#[derive(Debug)]
pub(crate) enum Said {
    /// How far it is: it runs, or waits for something.
    Is(String),
    /// It has ended, and how.
    Ended(Result<(), Unfinished>),
}

/// The hooks of one version that are under way.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    before_start: Option<UnderWay>,
    after_ready: Option<UnderWay>,
    before_stop: Option<UnderWay>,
    /// A person wants `before_start` to be run although it has failed.
    again: bool,
    /// What people must know about them.
    pub(crate) note: Option<String>,
}

/// One that is under way. Dropped, it is told to end.
#[derive(Debug)]
struct UnderWay {
    number: u64,
    _told: DropGuard,
    /// Cancelled when nothing of it is left.
    over: CancellationToken,
}

impl Hooks {
    /// Whether one is under way.
    pub(crate) fn any(&self) -> bool {
        [&self.before_start, &self.after_ready, &self.before_stop].iter().any(|hook| hook.is_some())
    }

    /// The version is not to run any more: what was to prepare it, or to follow, is ended.
    pub(crate) fn give_up(&mut self) {
        self.before_start = None;
        self.after_ready = None;
        self.note = None;
    }

    /// Waits until nothing stands between draining workers and their end.
    pub(crate) fn before_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let over = self.before_stop.as_ref().map(|hook| hook.over.clone());
        async move {
            if let Some(over) = over {
                over.cancelled().await;
            }
        }
    }

    fn of(&mut self, kind: Kind) -> &mut Option<UnderWay> {
        match kind {
            Kind::BeforeStart => &mut self.before_start,
            Kind::AfterReady => &mut self.after_ready,
            Kind::BeforeStop => &mut self.before_stop,
        }
    }
}

impl Supervisor {
    /// Whether something must be done before a version is started or restarted; then it is under way, or has failed.
    pub(super) fn prepare_first(&mut self, key: &Key) -> bool {
        let Some(service) = self.services.get(&key.service) else { return false };
        let Some(version) = service.versions.get(&key.version) else { return false };
        if service.config.upkeep.hooks.before_start.is_none() {
            return false;
        }
        if version.upkeep.hooks.before_start.is_some() {
            return true;
        }
        match service.memory.ran(&key.version, version.identity).before_start {
            Some(Ok(())) => return false,
            Some(Err(why)) if !version.upkeep.hooks.again => {
                self.not_prepared(key, why);
                return true;
            }
            Some(Err(_)) | None => {}
        }
        self.begin(key, Kind::BeforeStart);
        self.step(key, lifecycle::Event::Prepare);
        self.note(key, Some("before_start runs".to_owned()));
        true
    }

    /// A person starts a version: what has failed is tried again.
    pub(super) fn try_hooks_again(&mut self, key: &Key) {
        if let Some(version) = self.version(key) {
            version.upkeep.hooks.again = true;
            version.upkeep.hooks.note = None;
        }
    }

    /// Runs `after_ready`, unless it was run.
    pub(super) fn after_ready(&mut self, key: &Key) {
        let Some(service) = self.services.get(&key.service) else { return };
        let Some(version) = service.versions.get(&key.version) else { return };
        let wanted = service.config.upkeep.hooks.after_ready.is_some()
            && version.upkeep.hooks.after_ready.is_none()
            && !service.memory.ran(&key.version, version.identity).after_ready;
        if wanted {
            self.begin(key, Kind::AfterReady);
        }
    }

    /// Runs `before_stop`, if the version has workers that it would be for. True if it is under way.
    pub(super) fn before_stop(&mut self, key: &Key) -> bool {
        let Some(service) = self.services.get(&key.service) else { return false };
        let Some(version) = service.versions.get(&key.version) else { return false };
        if version.upkeep.hooks.before_stop.is_some() {
            return true;
        }
        let wanted =
            service.config.upkeep.hooks.before_stop.is_some() && version.life.ready().next().is_some();
        if wanted {
            self.begin(key, Kind::BeforeStop);
        }
        wanted
    }

    /// Starts the task of a hook.
    fn begin(&mut self, key: &Key, kind: Kind) {
        let run_folder = self.settings.state.join(RUN_FOLDER);
        let (logs, events) = (self.logs.clone(), self.events.clone());
        let (etcd, node) = (self.settings.etcd.clone(), self.settings.node.clone());
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let Some(hook) = of(&service.config.upkeep.hooks, kind).cloned() else { return };
        self.last_hook += 1;
        self.hooks_under_way += 1;
        let number = self.last_hook;
        let (service_name, name) = (key.service.as_str(), key.version.as_str());
        let hooks = &mut version.upkeep.hooks;
        let again = kind == Kind::BeforeStart && std::mem::take(&mut hooks.again);
        let once = etcd.map(|cluster| {
            let key = Once::key(&cluster, service_name, name, kind.as_str());
            Once { cluster, key, node, again }
        });
        let (told, over) = (CancellationToken::new(), CancellationToken::new());
        *hooks.of(kind) = Some(UnderWay { number, _told: told.clone().drop_guard(), over: over.clone() });
        let job = Job {
            kind,
            hook,
            service: key.service.clone(),
            version: key.version.clone(),
            folder: version.path.clone(),
            pidfile: run_folder.join(service_name).join(name).join(format!("{kind}-{number}.pid")),
            spec: version.spec.clone(),
            logs,
        };
        let turn = service.before_start.clone();
        let cleared = self.succession.cleared.clone();
        tokio::spawn(Task { key: key.clone(), number, job, once, turn, cleared, told, over, events }.run());
    }

    /// Takes what the task of a hook says.
    pub(super) fn hook_said(&mut self, key: &Key, kind: Kind, number: u64, said: Said) {
        if matches!(said, Said::Ended(_)) {
            self.hooks_under_way = self.hooks_under_way.saturating_sub(1);
        }
        let ending = self.ending.is_some();
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        let slot = version.upkeep.hooks.of(kind);
        if slot.as_ref().is_none_or(|way| way.number != number) {
            // One of before: it was told to end.
            return;
        }
        let ended = match said {
            Said::Is(what) => return self.note(key, Some(format!("{kind} {what}"))),
            Said::Ended(ended) => ended,
        };
        *slot = None;
        if let Err(Unfinished::Failed(why)) = &ended {
            tracing::error!(service = %key.service, version = %key.version, hook = %kind, "{why}");
        }
        let failure = match ended {
            Ok(()) => None,
            Err(Unfinished::Failed(why)) => Some(why),
            // Who told it does not want to know.
            Err(Unfinished::Told) if kind != Kind::BeforeStop => return,
            Err(Unfinished::Told) => None,
        };
        let identity = version.identity;
        match kind {
            Kind::BeforeStart => {
                let result = failure.clone().map_or(Ok(()), Err);
                service.memory.set_ran(&key.version, identity, |ran| ran.before_start = Some(result));
                match failure {
                    None => self.prepared(key),
                    Some(why) => self.not_prepared(key, why),
                }
            }
            Kind::AfterReady => {
                service.memory.set_ran(&key.version, identity, |ran: &mut Ran| ran.after_ready = true);
                self.note(key, failure);
            }
            // The drains that wait for it have heard.
            Kind::BeforeStop if ending => self.step(key, lifecycle::Event::Shutdown),
            Kind::BeforeStop => {}
        }
    }

    /// `before_start` has been run well: the version starts, or its workers are replaced.
    fn prepared(&mut self, key: &Key) {
        self.note(key, None);
        let Some(version) = self.version(key) else { return };
        let workers = version.workers();
        let event = match version.life.is_preparing() {
            true => lifecycle::Event::Start { workers },
            false if version.life.is_wanted() => lifecycle::Event::Restart { workers },
            false => return,
        };
        self.step(key, event);
    }

    /// `before_start` has failed: the version fails, or its old workers go on.
    fn not_prepared(&mut self, key: &Key, why: String) {
        let Some(version) = self.version(key) else { return };
        if version.life.ready().next().is_some() {
            version.upkeep.hooks.note = None;
            self.step(key, lifecycle::Event::Unrestartable(why));
        } else {
            version.upkeep.hooks.note = None;
            let hint = format!("hint: mend it, then run it again: switchman start {}", key.version);
            self.step(key, lifecycle::Event::Unrunnable(format!("{why}\n{hint}")));
        }
    }

    /// Shows what people must know about the hooks of a version.
    fn note(&mut self, key: &Key, note: Option<String>) {
        if let Some(version) = self.version(key)
            && version.upkeep.hooks.note != note
        {
            version.upkeep.hooks.note = note;
            self.publish(key);
        }
    }
}

fn of(hooks: &config::Hooks, kind: Kind) -> Option<&config::Hook> {
    match kind {
        Kind::BeforeStart => hooks.before_start.as_ref(),
        Kind::AfterReady => hooks.after_ready.as_ref(),
        Kind::BeforeStop => hooks.before_stop.as_ref(),
    }
}
