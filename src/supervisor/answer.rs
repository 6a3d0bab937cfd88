//! What the supervisor answers to a command: what it refuses, and what it sets going.

use super::command::{Action, Command, Refused};
use super::managed::Folder;
use super::{Key, Supervisor, lifecycle};
use crate::version::{VersionId, VersionState};

/// The most workers of one version that may be asked for.
const WORKERS_MAX: u32 = 256;

/// What an answer depends on.
#[derive(Debug, Clone, Copy)]
struct Standing<'a> {
    version: &'a VersionId,
    state: VersionState,
    carries_traffic: bool,
    folder_gone: bool,
    folder_broken: bool,
}

/// Whether an action is refused, and why.
fn refusal(action: Action, standing: Standing<'_>) -> Option<Refused> {
    let Standing { version, state, carries_traffic, folder_gone, folder_broken } = standing;
    let refused = |message: String, hint: String| Some(Refused { message, hint });
    match action {
        Action::Stop { force: false } | Action::Drain { force: false } if carries_traffic => {
            let verb = if matches!(action, Action::Stop { .. }) { "stop" } else { "drain" };
            refused(
                format!("{version} carries traffic"),
                format!("switchman promote another version first, or: switchman {verb} {version} --force"),
            )
        }
        Action::Scale { workers } if workers == 0 || workers > WORKERS_MAX => refused(
            format!("{workers} is no number of workers: from 1 to {WORKERS_MAX}"),
            if workers == 0 {
                format!("switchman stop {version}")
            } else {
                format!("switchman scale {version} --workers {WORKERS_MAX}")
            },
        ),
        Action::Start | Action::Restart | Action::Scale { .. } if state == VersionState::Arriving => refused(
            format!("{version} is still arriving"),
            "wait: it starts by itself when its folder is complete".to_owned(),
        ),
        Action::Start | Action::Restart if folder_gone => refused(
            format!("the folder of {version} is gone"),
            format!("upload {version} again; it starts by itself"),
        ),
        Action::Start | Action::Restart if folder_broken => refused(
            format!("the files of {version} are not what their list of checksums says"),
            format!("upload {version} again; it starts by itself. What is wrong: switchman versions"),
        ),
        _ => None,
    }
}

impl Supervisor {
    /// Does what a command asks, or says why not.
    pub(super) fn answer(&mut self, command: &Command) -> Result<(), Refused> {
        self.refuse_at_the_end()?;
        let key = Key { service: command.service.clone(), version: command.version.clone() };
        let carries_traffic = self.carries_traffic(&key);
        let Some(version) = self.version(&key) else {
            return Err(Refused {
                message: format!("{} has no version {}", key.service, key.version),
                hint: "see what there is: switchman versions".to_owned(),
            });
        };
        let state = version.life.state();
        let folder_gone = version.folder == Folder::Gone || version.life.is_retiring();
        let folder_broken = version.files.is_broken();
        let standing = Standing { version: &key.version, state, carries_traffic, folder_gone, folder_broken };
        if let Some(refused) = refusal(command.action, standing) {
            return Err(refused);
        }
        tracing::info!(service = %key.service, version = %key.version, action = ?command.action, "asked for");
        match command.action {
            Action::Start => {
                self.a_person_wants(&key, true);
                self.try_hooks_again(&key);
                if !matches!(state, VersionState::Starting | VersionState::Ready) {
                    self.follow_the_load(&key);
                }
                self.start(&key);
            }
            Action::Stop { .. } | Action::Drain { .. } => {
                self.a_person_wants(&key, false);
                if folder_gone {
                    self.step(&key, lifecycle::Event::Retire);
                } else {
                    self.before_stop(&key);
                    self.step(&key, lifecycle::Event::Stop);
                }
            }
            Action::Restart => {
                self.try_hooks_again(&key);
                self.follow_the_load(&key);
                self.restart(&key).map_err(|why| Refused {
                    message: format!("{} cannot be restarted: {why}", key.version),
                    hint: "correct that; the old workers go on".to_owned(),
                })?;
                self.a_person_wants(&key, true);
            }
            Action::Scale { workers } => {
                version.scaled = Some(workers);
                if let Some(service) = self.services.get_mut(&key.service) {
                    service.memory.set_scaled(&key.version, workers);
                }
                self.step(&key, lifecycle::Event::Scale(workers));
            }
        }
        Ok(())
    }

    /// Refuses while switchman ends.
    pub(super) fn refuse_at_the_end(&self) -> Result<(), Refused> {
        if self.ending.is_some() { Err(Refused::at_the_end()) } else { Ok(()) }
    }

    /// How many workers a person asked for is forgotten, where their number follows the load.
    fn follow_the_load(&mut self, key: &Key) {
        let Some(service) = self.services.get_mut(&key.service) else { return };
        let Some(version) = service.versions.get_mut(&key.version) else { return };
        if version.spec.scale.is_some() {
            version.scaled = None;
            service.memory.forget_scaled(&key.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let version = VersionId::from("4f2a91c");
        let ready = Standing {
            version: &version,
            state: VersionState::Ready,
            carries_traffic: false,
            folder_gone: false,
            folder_broken: false,
        };
        let current = Standing { carries_traffic: true, ..ready };
        let arriving = Standing { state: VersionState::Arriving, ..ready };
        let gone = Standing { folder_gone: true, ..current };
        let broken = Standing { folder_broken: true, state: VersionState::Failed, ..ready };
        for (action, standing, hint) in [
            (Action::Stop { force: false }, ready, None),
            (Action::Stop { force: false }, current, Some("switchman stop 4f2a91c --force")),
            (Action::Drain { force: false }, current, Some("switchman drain 4f2a91c --force")),
            (Action::Stop { force: true }, current, None),
            (Action::Drain { force: true }, current, None),
            (Action::Restart, current, None),
            (Action::Start, ready, None),
            (Action::Start, arriving, Some("starts by itself")),
            (Action::Stop { force: false }, arriving, None),
            (Action::Restart, gone, Some("upload 4f2a91c again")),
            (Action::Start, broken, Some("upload 4f2a91c again")),
            (Action::Stop { force: false }, broken, None),
            (Action::Scale { workers: 4 }, current, None),
            (Action::Scale { workers: 0 }, current, Some("switchman stop 4f2a91c")),
            (Action::Scale { workers: 100_000 }, current, Some("--workers 256")),
        ] {
            let refused = refusal(action, standing);
            assert_eq!(refused.is_some(), hint.is_some(), "{action:?} {standing:?}");
            if let (Some(refused), Some(hint)) = (refused, hint) {
                assert!(refused.hint.contains(hint), "{refused:?}");
            }
        }
    }
}
