//! What happens to a service: a person's commands, and accidents of its workers. What is done to a worker is written
//! into the ledger, since it excuses what that worker could not answer.

use std::collections::VecDeque;
use std::process::Output;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};

use super::ledger::{Harm, Ledger};
use super::support::eventually;
use super::support::switchman::Switchman;
use super::{VERSIONS, WORKERS};

/// Five failures of a version's workers within a minute are a crash loop: fewer are bad luck, and must be borne.
const KILLS_A_MINUTE: usize = 4;
const MINUTE: Duration = Duration::from_secs(61);
/// The longest a worker stands still, in ms. Longer than [`FIRST_BYTE`]: what may be done twice is then asked of
/// another worker.
const STOPPED_MAX: u64 = 5_000;
/// How long switchman waits for an answer in these tests (`limits.first_byte_timeout`).
pub(crate) const FIRST_BYTE: &str = "2s";
/// How a worker is taken for dead in these tests: after some 3.5 s, so that some are and some are not.
pub(crate) const LIVE: &str = "{interval: 500ms, timeout: 1500ms, failures: 2}";

/// When workers were killed, by version.
pub(crate) type Kills = Mutex<[VecDeque<Instant>; VERSIONS.len()]>;

/// Who does it.
pub(crate) struct Hands<'a> {
    pub(crate) switchman: &'a Switchman,
    pub(crate) ledger: &'a Ledger,
    pub(crate) kills: &'a Kills,
    pub(crate) random: fastrand::Rng,
}

/// A worker that may be hit.
pub(crate) struct Victim {
    /// The number of its version.
    at: usize,
    pid: u32,
}

impl Victim {
    fn signal(&self, signal: Signal) -> bool {
        let process = Pid::from_raw(self.pid.cast_signed()).unwrap();
        // It may have ended by itself in a rolling restart, in this very moment.
        kill_process(process, signal).is_ok()
    }

    /// KILL.
    pub(crate) fn kill(&self, ledger: &Ledger) {
        ledger.harm(self.pid, Harm::Killed);
        self.signal(Signal::KILL);
    }
}

/// Accidents.
impl Hands<'_> {
    /// A worker that is ready. A rolling restart may take one away meanwhile, so there must be a third that can answer.
    pub(crate) async fn victim(&mut self) -> Option<Victim> {
        let at = self.random.usize(..VERSIONS.len());
        let ready = self.ready(VERSIONS[at]).await;
        (ready.len() >= 3).then(|| Victim { at, pid: ready[self.random.usize(..ready.len())] })
    }

    /// Likewise, and its version can still bear its death, which is noted.
    pub(crate) async fn victim_to_kill(&mut self) -> Option<Victim> {
        let victim = self.victim().await?;
        let kills = &mut self.kills.lock().unwrap()[victim.at];
        kills.retain(|kill| kill.elapsed() < MINUTE);
        (kills.len() < KILLS_A_MINUTE).then(|| {
            kills.push_back(Instant::now());
            victim
        })
    }

    /// KILL to a worker.
    pub(crate) async fn kill_worker(&mut self) {
        let Some(victim) = self.victim_to_kill().await else { return };
        victim.kill(self.ledger);
        let gone = async || (!self.ready(VERSIONS[victim.at]).await.contains(&victim.pid)).then_some(());
        eventually("the end of a worker is seen", gone).await;
    }

    /// STOP to a worker, and CONT later. It may have been taken for dead by then.
    pub(crate) async fn hang_worker(&mut self) {
        let Some(victim) = self.victim().await else { return };
        self.ledger.harm(victim.pid, Harm::Stopped);
        if victim.signal(Signal::STOP) {
            tokio::time::sleep(Duration::from_millis(self.random.u64(50..STOPPED_MAX))).await;
            let was_replaced = !self.ready(VERSIONS[victim.at]).await.contains(&victim.pid);
            victim.signal(Signal::CONT);
            if was_replaced {
                self.ledger.was_replaced(victim.pid);
            } else {
                self.ledger.goes_on(victim.pid);
            }
        }
    }
}

/// What a person does.
impl Hands<'_> {
    fn any_version(&mut self) -> &'static str {
        VERSIONS[self.random.usize(..VERSIONS.len())]
    }

    pub(crate) fn edit_rules(&mut self) {
        self.switchman.write_rules(&rules(self.random.u8(..=100)));
    }

    pub(crate) fn break_rules(&mut self) {
        self.switchman.write_rules("routes: [{to: nowhere");
    }

    pub(crate) async fn promote(&mut self) {
        let version = self.any_version();
        self.switchman.done(&["promote", version]).await;
    }

    pub(crate) async fn rollback(&mut self) {
        self.switchman.done(&["rollback"]).await;
    }

    /// A rolling restart of one version. A worker that is killed meanwhile may make it fail, which it says.
    pub(crate) async fn restart(&mut self) {
        let version = self.any_version();
        let before = self.ready(version).await;
        let restarting = async {
            let Output { status, stderr, .. } = self.switchman.command(&["restart", version]).await;
            let said = String::from_utf8_lossy(&stderr);
            assert!(matches!(status.code(), Some(0 | 1)), "restart {version} ended with {status:?}: {said}");
            eventually("all workers of before the restart are gone", async || {
                let now = self.ready(version).await;
                before.iter().all(|pid| !now.contains(pid)).then_some(())
            })
            .await;
        };
        self.retiring(version, restarting).await;
    }

    /// Another worker, and away with it.
    pub(crate) async fn scale(&mut self) {
        let version = self.any_version();
        let (more, usual) = ((WORKERS + 1).to_string(), WORKERS.to_string());
        self.switchman.done(&["scale", version, "--workers", &more]).await;
        self.has_ready(version, WORKERS + 1).await;
        let scaling = async {
            self.switchman.done(&["scale", version, "--workers", &usual]).await;
            self.has_ready(version, WORKERS).await;
        };
        self.retiring(version, scaling).await;
    }

    /// Takes all traffic from the second version, stops it, and starts it again.
    pub(crate) async fn stop_version(&mut self) {
        let [other, version] = VERSIONS;
        self.switchman.done(&["promote", other]).await;
        self.switchman.write_rules(&rules(0));
        self.switchman.wait_version(version, "carries nothing", |v| v["dark"] == true).await;
        self.retiring(version, self.switchman.done(&["stop", version])).await;
        self.switchman.done(&["start", version]).await;
        self.has_ready(version, WORKERS).await;
        self.switchman.write_rules(&rules(30));
        self.switchman.wait_version(version, "carries something", |v| v["dark"] == false).await;
    }

    /// Another value in the configuration, and `switchman reload`.
    pub(crate) async fn reload(&mut self) {
        let file = self.switchman.folder.path().join("switchman.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let seconds = self.random.u8(50..70);
        let changed = Regex::new(r"idle_timeout: \d+s").unwrap();
        let text = changed.replace(&text, format!("idle_timeout: {seconds}s"));
        std::fs::write(&file, text.as_bytes()).unwrap();
        self.switchman.done(&["reload"]).await;
    }

    /// A version comes, runs dark, and is taken away again.
    pub(crate) async fn deploy(&mut self) {
        let version = format!("dec0de{:06x}", self.random.u32(..1 << 24));
        let build = self.switchman.build(&version);
        std::fs::write(build.join("switchman.yaml"), "workers: 1\n").unwrap();
        self.switchman.rsync(&build, &version).await;
        self.switchman.wait_state(&version, "ready").await;
        std::fs::remove_dir_all(self.switchman.root().join(&version)).unwrap();
        eventually("the version that was taken away is gone", || async {
            self.switchman.version(&version).await.is_none_or(|v| v["state"] == "gone").then_some(())
        })
        .await;
    }
}

/// What is looked at meanwhile.
impl Hands<'_> {
    /// The processes of a version's workers that are ready.
    async fn ready(&self, version: &str) -> Vec<u32> {
        let version = self.switchman.version(version).await.unwrap();
        let workers = version["workers"].as_array().unwrap().iter();
        let ready = workers.filter(|worker| worker["state"] == "ready");
        ready.map(|worker| u32::try_from(worker["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    async fn has_ready(&self, version: &str, workers: usize) {
        let said = format!("{version} has {workers} ready workers");
        let ready = async || (self.ready(version).await.len() == workers).then_some(());
        eventually(&said, ready).await;
    }

    /// Does what ends workers of a version. Which of them, and when, is not told: they are watched until it is done.
    async fn retiring<T>(&self, version: &str, doing: impl Future<Output = T>) {
        let mut left = self.ready(version).await;
        let mut look = async || {
            let now = self.ready(version).await;
            for gone in left.extract_if(.., |pid| !now.contains(pid)) {
                self.ledger.harm(gone, Harm::Retired);
            }
        };
        let watching = async {
            loop {
                look().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = doing => {}
            () = watching => {}
        }
        look().await;
    }

    /// The processes of all workers that are ready.
    pub(crate) async fn all_workers(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for version in VERSIONS {
            all.extend(self.ready(version).await);
        }
        all
    }

    /// Each version has all its workers.
    pub(crate) async fn all_is_well(&self) {
        for version in VERSIONS {
            self.has_ready(version, WORKERS).await;
        }
    }
}

/// A document that sends so many of a hundred users to the second version, the others to `current`.
pub(crate) fn rules(percent: u8) -> String {
    format!("key: cookie.uid\nroutes:\n  - {{split: {{{}: {percent}%}}}}\n", VERSIONS[1])
}
