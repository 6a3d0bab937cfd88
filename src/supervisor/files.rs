//! What is known of the files of a version, beside that they are there: why they are not complete, whether they are
//! still what its workers were started from, and who asks for a restart on their account.

use std::path::Path;
use std::time::SystemTime;

use super::{Key, Supervisor, lifecycle};
use crate::deploy::Modification;
use crate::journal::What;
use crate::version::VersionState;

/// The files of one version.
#[derive(Debug)]
pub(crate) struct Files {
    /// Why the folder is not taken for complete, or what stands in the way of a restart.
    waits: Option<String>,
    /// They are not what their list of checksums says: nothing may be started from them.
    broken: bool,
    /// What has changed since they were complete.
    modification: Option<Modification>,
    /// When all workers were last started or told to be replaced.
    started: SystemTime,
}

impl Default for Files {
    fn default() -> Self {
        Self { waits: None, broken: false, modification: None, started: SystemTime::UNIX_EPOCH }
    }
}

impl Files {
    /// They are complete.
    pub(crate) fn settled(&mut self) {
        (self.waits, self.broken) = (None, false);
    }

    /// All workers are started from them, or replaced, from `now` on.
    pub(crate) fn started(&mut self, now: SystemTime) {
        (self.waits, self.started) = (None, now);
    }

    /// Whether nothing may be started from them.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes in a change. `oldest` is when the oldest process was started, where there is one. Answers whether that
    /// says something new of what runs.
    fn modified(&mut self, mut modification: Modification, oldest: Option<SystemTime>) -> bool {
        let news = match &self.modification {
            Some(before) if self.is_modified(oldest) => modification.after(before),
            _ => true,
        };
        self.modification = Some(modification);
        news && self.is_modified(oldest)
    }

    /// Whether a process runs that was started before they changed, and that is not being replaced.
    pub(crate) fn is_modified(&self, oldest: Option<SystemTime>) -> bool {
        self.changed().is_some_and(|at| oldest.is_some_and(|oldest| oldest < at))
    }

    /// When they changed, if that was after all workers were last started.
    fn changed(&self) -> Option<SystemTime> {
        self.modification.as_ref().map(|modification| modification.at).filter(|at| self.started < *at)
    }

    /// Whether a start of all workers from what is there now would make a difference; `failed`: none is left.
    fn would_be_new(&self, oldest: Option<SystemTime>, failed: bool) -> bool {
        if failed { self.changed().is_some() } else { self.is_modified(oldest) }
    }

    /// What people must know of them. `oldest` as above; `restart` is what they can type.
    pub(crate) fn reason(&self, oldest: Option<SystemTime>, restart: &str) -> Option<String> {
        let modification = self.modification.as_ref().filter(|_| self.is_modified(oldest));
        let modified = modification.map(|modification| {
            format!("modified: {modification}; it still runs what was there before; hint: {restart}")
        });
        let parts: Vec<String> = modified.into_iter().chain(self.waits.clone()).collect();
        (!parts.is_empty()).then(|| parts.join("\n"))
    }
}

impl Supervisor {
    /// A quiet folder is not taken for complete, or is no longer quiet.
    pub(super) fn folder_waits(&mut self, key: &Key, why: Option<String>) {
        let Some(version) = self.version(key) else { return };
        version.files.waits = why;
        self.publish(key);
    }

    /// A quiet folder is not what its list of checksums says. Workers of it that run, from before another folder took
    /// its place, go on.
    pub(super) fn folder_is_broken(&mut self, key: &Key, path: &Path, why: String) {
        if self.version(key).is_none() {
            self.add(key, path);
        }
        let Some(version) = self.version(key) else { return };
        version.files.broken = true;
        if version.life.is_wanted() {
            version.files.waits = Some(why);
            self.publish(key);
        } else {
            version.files.waits = None;
            self.step(key, lifecycle::Event::Unrunnable(why));
        }
    }

    /// Files have changed.
    pub(super) fn files_modified(&mut self, key: &Key, modification: Modification) {
        let Some(version) = self.version(key) else { return };
        let oldest = version.oldest();
        if version.files.modified(modification, oldest) {
            let reason = version.files.reason(oldest, &format!("switchman restart {}", key.version));
            tracing::warn!(service = %key.service, version = %key.version, "{}", reason.unwrap_or_default());
            self.publish(key);
        }
    }

    /// A touched file or changed ones ask for a restart. What a person has stopped stays so.
    pub(super) fn restart_asked(&mut self, key: &Key, why: &str, changed: bool) {
        let Some(version) = self.version(key) else { return };
        let failed = version.life.state() == VersionState::Failed;
        if changed && !version.files.would_be_new(version.oldest(), failed) {
            tracing::info!(service = %key.service, version = %key.version, "not restarted, it was since: {why}");
            return;
        }
        if version.files.broken || !(version.life.is_wanted() || failed) {
            let state = version.life.state();
            tracing::info!(service = %key.service, version = %key.version, "not restarted, it is {state}: {why}");
            return;
        }
        let asked = What::Asked { action: format!("restart ({why})") };
        self.journal.record(&key.service, Some(&key.version), asked);
        if let Err(problem) = self.restart(key) {
            tracing::error!(service = %key.service, version = %key.version, "cannot be restarted: {problem}");
            self.folder_waits(key, Some(format!("{why}, and it cannot be restarted: {problem}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn change(file: &str, second: u64) -> Modification {
        Modification { files: vec![file.to_owned()], others: false, at: at(second) }
    }

    #[test]
    fn modified_is_what_runs_from_files_that_changed_later() {
        let mut files = Files::default();
        files.started(at(10));
        let oldest = Some(at(11));
        assert!(!files.modified(change("a", 9), oldest), "it was started from the changed ones");
        assert!(!Files::default().modified(change("a", 20), None), "nothing runs");
        assert!(files.modified(change("a", 20), oldest));
        assert!(!files.modified(change("a", 21), oldest), "nothing new");
        assert!(files.modified(change("b", 22), oldest));
        let reason = files.reason(oldest, "switchman restart 4f2a91c").unwrap();
        assert_eq!(
            reason,
            "modified: a, b; it still runs what was there before; hint: switchman restart 4f2a91c"
        );

        assert!(files.would_be_new(oldest, false) && files.would_be_new(None, true));
        files.started(at(30));
        assert!(!files.would_be_new(oldest, false) && !files.would_be_new(None, true));
        assert!(!files.is_modified(oldest), "the old worker is being replaced");
        assert_eq!(files.reason(oldest, ""), None);
        assert!(!files.modified(change("a", 29), oldest), "seen late");
        assert!(files.modified(change("c", 40), Some(at(31))));
        assert_eq!(
            files.modification.as_ref().unwrap().files,
            ["c"],
            "what was before the restart is forgotten"
        );
        assert!(
            !files.is_modified(Some(at(41))),
            "a worker that was started again by itself has the new files"
        );
    }
}
