//! A bad day: first every fault by itself, in any order, so that the table can say what each of them did; then workers
//! that die and hang while a person edits, promotes, restarts and deploys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::VERSIONS;
use super::hands::{Hands, Kills};
use super::ledger::Ledger;
use super::support::eventually;
use super::support::switchman::Switchman;

/// What is done. Each is a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Deploy,
    Promote,
    Rollback,
    EditRules,
    BreakRules,
    Restart,
    Scale,
    StopVersion,
    KillWorker,
    HangWorker,
    Reload,
    KillSwitchman,
    Upgrade,
    KillBoth,
    KillInRestart,
    UpgradeInRestart,
    /// Several of the former at the same time.
    AtOnce,
}

/// One round.
const ROUND: [Fault; 16] = [
    Fault::Deploy,
    Fault::Promote,
    Fault::Rollback,
    Fault::EditRules,
    Fault::BreakRules,
    Fault::Restart,
    Fault::Scale,
    Fault::StopVersion,
    Fault::KillWorker,
    Fault::HangWorker,
    Fault::Reload,
    Fault::KillSwitchman,
    Fault::Upgrade,
    Fault::KillBoth,
    Fault::KillInRestart,
    Fault::UpgradeInRestart,
];

/// How long the load goes on after a fault before the next: what it did must show.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// About how long a rolling restart takes, in ms.
const RESTART: u64 = 3_000;
/// The longest pause between two accidents of those at once, in ms; between two things that a person does.
const ACCIDENT_PAUSE: u64 = 1_500;
const EDIT_PAUSE: u64 = 2_000;

impl Fault {
    /// What the table calls it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Deploy => "a version is deployed and taken away",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::EditRules => "rules edited",
            Self::BreakRules => "rules broken",
            Self::Restart => "rolling restart",
            Self::Scale => "scaled up and down",
            Self::StopVersion => "a version is stopped and started",
            Self::KillWorker => "a worker is killed",
            Self::HangWorker => "a worker hangs",
            Self::Reload => "configuration reloaded",
            Self::KillSwitchman => "switchman is killed (-9), starts again",
            Self::Upgrade => "switchman is upgraded",
            Self::KillBoth => "switchman and a worker are killed",
            Self::KillInRestart => "switchman is killed in a rolling restart",
            Self::UpgradeInRestart => "switchman is upgraded in one",
            Self::AtOnce => "all of that at once",
        }
    }
}

/// Who makes it, and what is needed for that.
pub(crate) struct Trouble {
    pub(crate) switchman: Switchman,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) random: fastrand::Rng,
    pub(crate) kills: Kills,
}

impl Trouble {
    fn hands(&mut self) -> Hands<'_> {
        let random = self.random.fork();
        Hands { switchman: &self.switchman, ledger: &self.ledger, kills: &self.kills, random }
    }

    /// One fault after the other: at least one whole round, and another for as long as there is time.
    pub(crate) async fn one_by_one(&mut self, until: Instant) {
        loop {
            let mut round = ROUND;
            self.random.shuffle(&mut round);
            for fault in round {
                self.one(fault).await;
            }
            if Instant::now() > until {
                return;
            }
        }
    }

    async fn one(&mut self, fault: Fault) {
        let from = Instant::now();
        let workers = self.hands().all_workers().await;
        let mut hands = self.hands();
        match fault {
            Fault::Deploy => hands.deploy().await,
            Fault::Promote => hands.promote().await,
            Fault::Rollback => hands.rollback().await,
            Fault::EditRules => hands.edit_rules(),
            Fault::BreakRules => hands.break_rules(),
            Fault::Restart => hands.restart().await,
            Fault::Scale => hands.scale().await,
            Fault::StopVersion => hands.stop_version().await,
            Fault::KillWorker => hands.kill_worker().await,
            Fault::HangWorker => hands.hang_worker().await,
            Fault::Reload => hands.reload().await,
            Fault::KillSwitchman => self.kill_switchman().await,
            Fault::Upgrade => self.switchman.upgrade().await,
            Fault::KillBoth => self.kill_both().await,
            Fault::KillInRestart | Fault::UpgradeInRestart => self.take_over_in_restart(fault).await,
            Fault::AtOnce => unreachable!("it is in no round"),
        }
        self.hands().all_is_well().await;
        if matches!(fault, Fault::Reload | Fault::KillSwitchman | Fault::Upgrade) {
            let now = self.hands().all_workers().await;
            assert_eq!(now, workers, "{fault:?} is no reason to end a worker: {}", self.switchman.log());
        }
        tokio::time::sleep(AFTERWARDS).await;
        // What this fault has touched is over, so that the next is not blamed for it.
        let well = Instant::now();
        eventually("the requests end", async || self.ledger.is_quiet(well).then_some(())).await;
        self.ledger.fault(fault, from);
    }

    /// kill -9, and a start. Meanwhile connections wait in the queue of the socket that the test holds.
    async fn kill_switchman(&mut self) {
        self.ledger.switchman_is_killed();
        self.switchman.kill_and_start().await;
    }

    /// A worker dies while no switchman runs.
    async fn kill_both(&mut self) {
        let victim = self.hands().victim_to_kill().await;
        self.ledger.switchman_is_killed();
        self.switchman.kill().await;
        if let Some(victim) = victim {
            victim.kill(&self.ledger);
        }
        self.switchman.start_again().await;
    }

    /// A rolling restart has begun when another process takes over; whether it goes on is not told.
    async fn take_over_in_restart(&mut self, fault: Fault) {
        let (from, before) = (Instant::now(), self.hands().all_workers().await);
        let version = VERSIONS[self.random.usize(..VERSIONS.len())];
        self.switchman.done(&["restart", version, "--no-wait"]).await;
        tokio::time::sleep(Duration::from_millis(self.random.u64(..RESTART))).await;
        match fault {
            Fault::KillInRestart => self.kill_switchman().await,
            _ => self.switchman.upgrade().await,
        }
        let hands = self.hands();
        hands.all_is_well().await;
        let now = hands.all_workers().await;
        for gone in before.into_iter().filter(|pid| !now.contains(pid)) {
            self.ledger.was_retired(gone, from);
        }
    }

    /// Accidents, and what a person does meanwhile.
    pub(crate) async fn at_once(&mut self, until: Instant) {
        let from = Instant::now();
        let (first, second) = (self.random.fork(), self.random.fork());
        let hands =
            |random| Hands { switchman: &self.switchman, ledger: &self.ledger, kills: &self.kills, random };
        tokio::join!(accidents(hands(first), until), edits(hands(second), until));
        hands(self.random.clone()).all_is_well().await;
        self.ledger.fault(Fault::AtOnce, from);
    }
}

/// Whether there is time for more.
async fn pause(random: &mut fastrand::Rng, most: u64, until: Instant) -> bool {
    tokio::time::sleep(Duration::from_millis(random.u64(most / 4..most))).await;
    Instant::now() < until
}

async fn accidents(mut hands: Hands<'_>, until: Instant) {
    while pause(&mut hands.random, ACCIDENT_PAUSE, until).await {
        if hands.random.bool() {
            hands.kill_worker().await;
        } else {
            hands.hang_worker().await;
        }
    }
}

async fn edits(mut hands: Hands<'_>, until: Instant) {
    while pause(&mut hands.random, EDIT_PAUSE, until).await {
        match hands.random.u8(..6) {
            0 => hands.edit_rules(),
            1 => hands.break_rules(),
            2 => hands.promote().await,
            3 => hands.rollback().await,
            4 => hands.restart().await,
            _ => hands.deploy().await,
        }
    }
    // What is in force at the end is a good document again.
    hands.edit_rules();
}
