//! What happens to a service on a bad day: workers killed and stopped, and at the same time a person who edits rules
//! (well and badly), promotes, restarts and deploys.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ledger::{Fault, Ledger};
use super::support::eventually;
use super::support::switchman::Switchman;
use super::{VERSIONS, WORKERS};

/// Five failures of a version's workers within a minute are a crash loop: fewer are bad luck, and must be borne.
const KILLS_A_MINUTE: usize = 4;
const MINUTE: Duration = Duration::from_secs(61);
/// The longest a worker stands still, in ms. Longer than [`FIRST_BYTE`]: what may be done twice is then asked of
/// another worker.
const STOPPED_MAX: u64 = 3_500;
/// How long switchman waits for an answer in these tests (`limits.first_byte_timeout`).
pub(crate) const FIRST_BYTE: &str = "2s";
/// The longest pause between two faults, in ms; between two edits.
const FAULT_PAUSE: u64 = 1_500;
const EDIT_PAUSE: u64 = 2_000;

/// What trouble needs.
pub(crate) struct Trouble {
    pub(crate) switchman: Arc<Switchman>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) random: fastrand::Rng,
}

impl Trouble {
    async fn pause(&mut self, most: u64) -> bool {
        tokio::time::sleep(Duration::from_millis(self.random.u64(most / 4..most))).await;
        !self.stop.load(Relaxed)
    }

    /// The processes of a version's workers that are ready.
    async fn ready(&self, version: &str) -> Vec<u32> {
        let version = self.switchman.version(version).await.unwrap();
        let workers = version["workers"].as_array().unwrap().iter();
        let ready = workers.filter(|worker| worker["state"] == "ready");
        ready.map(|worker| u32::try_from(worker["pid"].as_u64().unwrap()).unwrap()).collect()
    }

    /// One fault after the other, each on one worker, until told to stop.
    pub(crate) async fn faults(mut self) {
        let mut kills = [(); VERSIONS.len()].map(|()| VecDeque::<Instant>::new());
        while self.pause(FAULT_PAUSE).await {
            let at = self.random.usize(..VERSIONS.len());
            let ready = self.ready(VERSIONS[at]).await;
            // A rolling restart takes one away and a fault another; there must be a third that can answer.
            let Some(pid) = (ready.len() >= 3).then(|| ready[self.random.usize(..ready.len())]) else {
                continue;
            };
            let process = Pid::from_raw(pid.cast_signed()).unwrap();
            kills[at].retain(|kill| kill.elapsed() < MINUTE);
            if kills[at].len() < KILLS_A_MINUTE && self.random.bool() {
                kills[at].push_back(Instant::now());
                self.ledger.fault(pid, Fault::Killed);
                // It may have ended by itself in a rolling restart, in this very moment.
                let _ = kill_process(process, Signal::KILL);
            } else {
                self.ledger.fault(pid, Fault::Stopped);
                if kill_process(process, Signal::STOP).is_ok() {
                    tokio::time::sleep(Duration::from_millis(self.random.u64(50..STOPPED_MAX))).await;
                    let _ = kill_process(process, Signal::CONT);
                    self.ledger.goes_on(pid);
                }
            }
        }
    }

    /// What a person does meanwhile, one thing after the other, until told to stop.
    pub(crate) async fn edits(mut self) {
        let mut deployed = 0;
        while self.pause(EDIT_PAUSE).await {
            match self.random.u8(..5) {
                0 => self.switchman.write_rules(&rules(self.random.u8(..=100))),
                1 => self.switchman.write_rules("routes: [{to: nowhere"),
                2 => {
                    let version = VERSIONS[self.random.usize(..VERSIONS.len())];
                    self.switchman.done(&["promote", version]).await;
                }
                3 => self.restart().await,
                _ => {
                    deployed += 1;
                    self.deploy(&format!("dec0de{deployed:02}")).await;
                }
            }
        }
        // What is in force at the end is a good document again.
        self.switchman.write_rules(&rules(50));
    }

    /// A rolling restart of one version. A worker that is killed meanwhile may make it fail, which it says.
    async fn restart(&mut self) {
        let version = VERSIONS[self.random.usize(..VERSIONS.len())];
        let before = self.ready(version).await;
        let ending = async {
            let output = self.switchman.command(&["restart", version]).await;
            let status = output.status.code();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(status, Some(0 | 1)), "restart {version} ended with {status:?}: {said}");
        };
        // Which worker is taken when is not told: each is looked for until it has gone.
        let watching = async {
            let mut left = before.clone();
            while !left.is_empty() {
                let now = self.ready(version).await;
                for gone in left.extract_if(.., |pid| !now.contains(pid)) {
                    self.ledger.fault(gone, Fault::Retired);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(ending, watching) } => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the restart of {version} does not end"),
        }
    }

    /// A version comes, runs dark, and is taken away again.
    async fn deploy(&self, version: &str) {
        let build = self.switchman.build(version);
        std::fs::write(build.join("switchman.yaml"), "workers: 1\n").unwrap();
        self.switchman.rsync(&build, version).await;
        self.switchman.wait_state(version, "ready").await;
        std::fs::remove_dir_all(self.switchman.root().join(version)).unwrap();
        eventually("the version that was taken away is gone", || async {
            self.switchman.version(version).await.is_none_or(|v| v["state"] == "gone").then_some(())
        })
        .await;
    }

    /// Each version has all its workers again.
    pub(crate) async fn over(switchman: &Switchman) {
        for version in VERSIONS {
            switchman
                .wait_version(version, "has all its workers", |v| {
                    let workers = v["workers"].as_array().unwrap();
                    workers.iter().filter(|worker| worker["state"] == "ready").count() == WORKERS
                })
                .await;
        }
    }
}

/// A document that sends so many of a hundred users to the second version, the others to `current`.
pub(crate) fn rules(percent: u8) -> String {
    format!("key: cookie.uid\nroutes:\n  - {{split: {{{}: {percent}%}}}}\n", VERSIONS[1])
}
