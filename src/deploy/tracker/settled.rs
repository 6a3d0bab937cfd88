//! A folder that was complete: its files are checked for changes now and then, and a change is followed until the
//! folder is quiet again where that asks for a restart.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Task;
use crate::deploy::Modification;
use crate::deploy::check::Checked;
use crate::deploy::inventory::Inventory;
use crate::deploy::proof::{Claim, Proof, Proven};
use crate::deploy::restart_file::RestartFile;
use crate::deploy::settle::{Settling, Verdict};

/// The shortest time between two checks of one folder.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(2);
/// A proof that took long, for its checksums, is followed by a pause this many times as long.
const PAUSE_PER_PROOF: u32 = 20;
/// How long the version's own files must be quiet until others that change all the time are taken for what the
/// application writes, and no longer for a part of the upload.
const OTHERS_MAX: Duration = Duration::from_secs(30);

/// A folder that has settled.
#[derive(Debug)]
pub(super) struct Settled {
    /// Its files, as they are known to be.
    files: Arc<Inventory>,
    /// When that was seen.
    seen: Instant,
    restart_file: RestartFile,
    /// What is to be done next, and when; none while it is being done.
    next: Option<(Instant, Task)>,
    /// Where a change asks for a restart: the change that is going on.
    changing: Option<Changing>,
}

/// A change that is to be followed by a restart.
#[derive(Debug)]
struct Changing {
    /// The files that were there.
    known: Settling,
    /// All files.
    all: Settling,
    /// What has changed, in words.
    what: String,
    /// What was said last of why there is no restart yet.
    said: Option<String>,
}

/// What is worth telling.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Files are not what they were.
    Modified(Modification),
    /// They changed and are quiet again; in words.
    Restart(String),
    /// Why a restart has to wait.
    Waits(String),
}

impl Settled {
    /// A folder that is complete since `now`.
    pub(super) fn new(files: Arc<Inventory>, restart_file: RestartFile, now: Instant) -> Self {
        let next = Some((now + CHECK_EVERY, Task::Check(files.clone())));
        Self { files, seen: now, restart_file, next, changing: None }
    }

    /// The same folder under another name: what is being done under the old one counts for nothing.
    pub(super) fn renamed(self, now: Instant) -> Self {
        Self::new(self.files, self.restart_file, now)
    }

    /// When something is to be done, and whether it must not wait; none while it is being done.
    pub(super) fn due(&self) -> Option<(Instant, bool)> {
        self.next.as_ref().map(|(at, _)| (*at, self.changing.is_some()))
    }

    /// What is to be done now.
    pub(super) fn take(&mut self) -> Option<Task> {
        self.next.take().map(|(_, task)| task)
    }

    /// Takes in when its restart file was last modified; whether that asks for a restart.
    pub(super) fn touched(&mut self, at: Option<SystemTime>) -> bool {
        self.restart_file.is_request(at)
    }

    /// Takes in what a check saw at `now`. With `restart` a change is followed until nothing has changed for
    /// `settle`.
    pub(super) fn checked(&mut self, checked: Checked, settle: Duration, restart: bool) -> Vec<News> {
        let Checked { all, known, modification } = checked;
        self.files = known.manifest.inventory.clone();
        let before = std::mem::replace(&mut self.seen, all.at);
        let mut next = (all.at + all.took + CHECK_EVERY, Task::Check(self.files.clone()));
        if let Some(modification) = modification.as_ref().filter(|_| restart) {
            let changing = self.changing.get_or_insert_with(|| Changing {
                known: Settling::came_after(before),
                all: Settling::came_after(before),
                what: String::new(),
                said: None,
            });
            changing.what = modification.to_string();
        }
        if let Some(changing) = &mut self.changing {
            let verdicts = (changing.known.looked(&known, settle), changing.all.looked(&all, settle));
            let others_go_on = changing.known.quiet() >= OTHERS_MAX;
            let again = match verdicts {
                (Verdict::Quiet(_), Verdict::Quiet(_)) => None,
                (Verdict::Quiet(_), Verdict::LookAgain { unfinished: None, .. }) if others_go_on => None,
                (Verdict::LookAgain { at, .. }, _) | (_, Verdict::LookAgain { at, .. }) => Some(at),
            };
            next = match again {
                Some(at) => (at, next.1),
                None => {
                    let claim = Claim { seen: all.manifest, runs: Some(self.files.clone()) };
                    (all.at, Task::Prove(claim))
                }
            };
        }
        self.next = Some(next);
        modification.map(News::Modified).into_iter().collect()
    }

    /// Takes in what came out of the proof that the changed folder is complete.
    pub(super) fn proven(&mut self, proven: Proven) -> Option<News> {
        let pause = CHECK_EVERY.max(proven.took * PAUSE_PER_PROOF);
        self.next = Some((proven.at + pause, Task::Check(self.files.clone())));
        let changing = self.changing.as_mut()?;
        let why = match proven.proof {
            Proof::Changed => return None,
            Proof::Complete { .. } => {
                let what = std::mem::take(&mut changing.what);
                self.changing = None;
                return Some(News::Restart(format!("its files have changed: {what}")));
            }
            Proof::Unfinished(why) => why.to_string(),
            Proof::Broken(why) => why,
        };
        let news = changing.said.as_ref() != Some(&why);
        changing.said = Some(why.clone());
        news.then(|| News::Waits(format!("not restarted since its files changed: {why}")))
    }
}
