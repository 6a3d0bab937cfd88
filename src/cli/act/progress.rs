//! When a start, stop, restart or scale counts as done, and when as failed. Pure.

use std::time::Duration;

use crate::admin::types::Version;
use crate::version::{VersionState, WorkerState};

/// How long a state from before the command may still be shown after it was accepted.
const STALE_WITHIN: Duration = Duration::from_secs(3);

/// How long workers may take to become ready, unless somebody says otherwise.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What is to become of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Started,
    Stopped,
    Restarted,
    Scaled(u32),
}

impl Goal {
    /// How long it may take unless somebody says otherwise; none: as long as switchman allows, which ends what
    /// drains when its time is over.
    pub(super) fn within(self) -> Option<Duration> {
        match self {
            Self::Started | Self::Scaled(_) => Some(START_WITHIN),
            Self::Stopped | Self::Restarted => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    Failed(String),
    GoingOn,
}

/// Whether the goal is reached. A failure that was there before the command counts only when it is still shown
/// after [`STALE_WITHIN`]; a reason that was there before never counts.
pub(super) fn progress(goal: Goal, before: &Version, now: &Version, since_accepted: Duration) -> Progress {
    let all_ready =
        now.state == VersionState::Ready && !now.workers.is_empty() && ready(now) == now.workers.len();
    let is_old = |pid: Option<u32>| pid.is_some() && before.workers.iter().any(|w| w.pid == pid);
    let done = match goal {
        Goal::Started => all_ready,
        Goal::Stopped => now.state == VersionState::Stopped,
        Goal::Restarted => all_ready && !now.workers.iter().any(|w| is_old(w.pid)),
        // Nothing runs, and nothing was to be started: the number is for the next start.
        Goal::Scaled(_) if matches!(before.state, VersionState::Stopped | VersionState::Asleep) => {
            now.state == before.state
        }
        Goal::Scaled(workers) => all_ready && now.workers.len() == workers as usize,
    };
    if done {
        return Progress::Done;
    }
    let is_news = (now.since, now.state, &now.reason) != (before.since, before.state, &before.reason);
    let failed = goal != Goal::Stopped && now.state == VersionState::Failed;
    if failed && (is_news || since_accepted > STALE_WITHIN) {
        return Progress::Failed(now.reason.clone().unwrap_or_else(|| "it failed".to_owned()));
    }
    // Somebody else has typed the opposite: what is waited for will not come.
    let turned = match (goal, now.state) {
        (Goal::Stopped, VersionState::Starting | VersionState::Ready | VersionState::Failed) => {
            Some("it was started meanwhile")
        }
        (Goal::Restarted, VersionState::Draining | VersionState::Stopped) => Some("it was stopped meanwhile"),
        _ => None,
    };
    if let Some(turned) = turned.filter(|_| since_accepted > STALE_WITHIN) {
        return Progress::Failed(turned.to_owned());
    }
    // A restart that is given up leaves the old workers ready, and says why.
    let given_up = goal == Goal::Restarted && all_ready && now.reason != before.reason;
    match &now.reason {
        Some(reason) if given_up => Progress::Failed(reason.clone()),
        _ => Progress::GoingOn,
    }
}

pub(super) fn ready(version: &Version) -> usize {
    version.workers.iter().filter(|w| w.state == WorkerState::Ready).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{Traffic, Worker};

    fn version(state: VersionState, reason: Option<&str>, workers: &[(u32, WorkerState)]) -> Version {
        Version {
            service: "app".into(),
            version: "4f2a91c".into(),
            state,
            dark: false,
            aliases: Vec::new(),
            routes: Vec::new(),
            path: "/srv/app/4f2a91c".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
            reason: reason.map(str::to_owned),
            modified: false,
            workers: workers
                .iter()
                .zip(0..)
                .map(|(&(pid, state), id)| Worker {
                    id,
                    pid: Some(pid),
                    address: None,
                    state,
                    in_flight: 0,
                    restarts: 0,
                })
                .collect(),
            traffic: Traffic {
                requests: 0,
                in_flight: 0,
                rps: 0.0,
                errors: 0,
                p50_ms: None,
                p99_ms: None,
                last_hit: None,
            },
        }
    }

    #[test]
    fn what_counts_as_done() {
        use VersionState as V;
        use WorkerState as W;
        let failed = |why: &str| Progress::Failed(why.into());
        let stopped = version(V::Stopped, None, &[]);
        let asleep = version(V::Asleep, None, &[]);
        let broken = version(V::Failed, Some("exit 1"), &[]);
        let ready = version(V::Ready, None, &[(1, W::Ready), (2, W::Ready)]);
        let half = version(V::Ready, None, &[(3, W::Ready), (2, W::Ready)]);
        let renewed = version(V::Ready, None, &[(3, W::Ready), (4, W::Ready)]);
        let starting = version(V::Starting, None, &[(1, W::Starting)]);
        let cases = [
            ("start", Goal::Started, &stopped, starting.clone(), Progress::GoingOn),
            (
                "start",
                Goal::Started,
                &stopped,
                version(V::Ready, None, &[(1, W::Ready), (2, W::Starting)]),
                Progress::GoingOn,
            ),
            ("start", Goal::Started, &stopped, ready.clone(), Progress::Done),
            ("start fails", Goal::Started, &stopped, broken.clone(), failed("exit 1")),
            ("the old failure", Goal::Started, &broken, broken.clone(), Progress::GoingOn),
            (
                "another failure",
                Goal::Started,
                &broken,
                version(V::Failed, Some("exit 2"), &[]),
                failed("exit 2"),
            ),
            (
                "stop",
                Goal::Stopped,
                &ready,
                version(V::Draining, None, &[(1, W::Draining)]),
                Progress::GoingOn,
            ),
            ("stop", Goal::Stopped, &ready, stopped.clone(), Progress::Done),
            ("stop a failed one", Goal::Stopped, &broken, broken.clone(), Progress::GoingOn),
            ("restart", Goal::Restarted, &ready, ready.clone(), Progress::GoingOn),
            ("restart", Goal::Restarted, &ready, half, Progress::GoingOn),
            ("restart", Goal::Restarted, &ready, renewed, Progress::Done),
            (
                "restart given up",
                Goal::Restarted,
                &ready,
                Version { reason: Some("exit 1".into()), ..ready.clone() },
                failed("exit 1"),
            ),
            ("scale a stopped one", Goal::Scaled(2), &stopped, stopped.clone(), Progress::Done),
            ("scale a sleeping one", Goal::Scaled(2), &asleep, asleep.clone(), Progress::Done),
            ("start a sleeping one", Goal::Started, &asleep, starting.clone(), Progress::GoingOn),
            ("stop a sleeping one", Goal::Stopped, &asleep, stopped.clone(), Progress::Done),
            ("scale up", Goal::Scaled(3), &ready, ready.clone(), Progress::GoingOn),
            (
                "scale down",
                Goal::Scaled(1),
                &ready,
                version(V::Ready, None, &[(1, W::Ready)]),
                Progress::Done,
            ),
        ];
        for (name, goal, before, now, expected) in cases {
            assert_eq!(progress(goal, before, &now, Duration::ZERO), expected, "{name}");
        }
        let later = Duration::from_secs(5);
        assert_eq!(progress(Goal::Started, &broken, &broken, later), failed("exit 1"));
        let draining = version(V::Draining, None, &[(1, W::Draining)]);
        for (goal, now, expected) in [
            (Goal::Stopped, &draining, Progress::GoingOn),
            (Goal::Stopped, &starting, failed("it was started meanwhile")),
            (Goal::Stopped, &broken, failed("it was started meanwhile")),
            (Goal::Restarted, &starting, Progress::GoingOn),
            (Goal::Restarted, &draining, failed("it was stopped meanwhile")),
        ] {
            assert_eq!(progress(goal, &ready, now, later), expected, "{goal:?}");
        }
    }
}
