//! Asks a ready worker again and again whether it still answers, and tells the supervisor when that changes.
//!
//! What counts is decided by [`Pulse`], without a clock. A check that switchman itself made late, or could not make,
//! says nothing about the worker: counting begins anew. So a machine that stood still for some seconds restarts nobody.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::get::Failure;
use super::launch::check;
use super::lifecycle::Unwell;
use super::worker::{Launch, Report, Reporter};
use super::{accepted, health};
use crate::config::{LiveCheck, UpstreamAt};
use crate::registry::Address;

/// A check that begins or ends later than this after its time was made by a switchman that stood still ...
const LATE_MAX: Duration = Duration::from_secs(1);
/// ... or than this part of the timeout, where that is less.
const LATE_PART: u32 = 2;
/// The checks of many workers are not made at the same moment: each pause is shorter or longer by up to this part.
const JITTER: f64 = 0.1;

/// What the supervisor is told of a ready worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It failed as many checks as it may.
    Unwell(Unwell),
    /// It passes again.
    Well,
}

/// Asks for as long as it is polled; reports changes.
pub(crate) async fn watch(launch: &Launch, address: &Address, reporter: &Reporter) -> Infallible {
    let Some(check) = launch.spec.live_check() else { return std::future::pending().await };
    let live = &launch.spec.life.live;
    let late = LATE_MAX.min(live.timeout / LATE_PART);
    let mut pulse = Pulse::new(live.failures);
    let mut due = Instant::now() + live.interval.mul_f64(fastrand::f64());
    loop {
        sleep_until(due).await;
        let begun = Instant::now();
        let found = ask(&check, launch, address, live.timeout).await;
        let in_time = begun - due <= late && begun.elapsed() <= live.timeout + late;
        if let Some(change) = pulse.note(found, in_time) {
            reporter.send(Report::Live(change)).await;
        }
        due = Instant::now() + live.interval.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0));
    }
}

async fn ask(
    check: &LiveCheck,
    launch: &Launch,
    address: &Address,
    timeout: Duration,
) -> Result<(), Failure> {
    match check {
        LiveCheck::Http(path) => health::http(address, launch.spec.protocol, path, timeout).await,
        LiveCheck::Tcp if launch.spec.upstream == UpstreamAt::Inherit => {
            accepted::accepts(address, timeout).await
        }
        LiveCheck::Tcp => health::connects(address, timeout).await,
        LiveCheck::Command(run) => check::check(run, &launch.spec, &launch.who, address, timeout).await,
        LiveCheck::Off | LiveCheck::AsReady => Ok(()),
    }
}

/// What the checks of one worker add up to.
#[derive(Debug)]
struct Pulse {
    failures_max: u32,
    failures: u32,
    told: Told,
}

/// What the supervisor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Well,
    AnswersBadly,
    Silent,
}

impl Pulse {
    fn new(failures_max: u32) -> Self {
        Self { failures_max, failures: 0, told: Told::Well }
    }

    /// Notes what a check found; answers what the supervisor does not know yet.
    fn note(&mut self, found: Result<(), Failure>, in_time: bool) -> Option<Change> {
        let (now, why) = match found {
            Ok(()) => {
                self.failures = 0;
                let was = std::mem::replace(&mut self.told, Told::Well);
                return (was != Told::Well).then_some(Change::Well);
            }
            Err(Failure::Silent(why)) if in_time => (Told::Silent, why),
            Err(Failure::Answered(why)) if in_time => (Told::AnswersBadly, why),
            Err(_) => {
                self.failures = 0;
                return None;
            }
        };
        self.failures += 1;
        if self.failures < self.failures_max || now <= self.told {
            return None;
        }
        self.told = now;
        let answers = now == Told::AnswersBadly;
        let verb = if answers { "answers badly" } else { "does not answer" };
        let times = self.failures_max;
        Some(Change::Unwell(Unwell {
            answers,
            why: format!("{verb} ({times} liveness checks in a row): {why}"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn silent() -> Result<(), Failure> {
        Err(Failure::Silent(String::new()))
    }
    const fn badly() -> Result<(), Failure> {
        Err(Failure::Answered(String::new()))
    }
    const fn unasked() -> Result<(), Failure> {
        Err(Failure::Unasked(String::new()))
    }

    /// What the supervisor is told, a letter a check: `-` nothing, `b` answers badly, `s` silent, `w` well.
    fn told(checks: &[(Result<(), Failure>, bool)]) -> String {
        let mut pulse = Pulse::new(3);
        let letter =
            |(found, in_time): &(Result<(), Failure>, bool)| match pulse.note(found.clone(), *in_time) {
                None => '-',
                Some(Change::Well) => 'w',
                Some(Change::Unwell(Unwell { answers: true, .. })) => 'b',
                Some(Change::Unwell(Unwell { answers: false, .. })) => 's',
            };
        checks.iter().map(letter).collect()
    }

    #[test]
    fn the_last_of_so_many_failures_in_a_row_counts() {
        let checks =
            |all: &[Result<(), Failure>]| told(&all.iter().map(|c| (c.clone(), true)).collect::<Vec<_>>());
        assert_eq!(checks(&[silent(), silent(), silent(), silent(), Ok(()), Ok(())]), "--s-w-");
        assert_eq!(checks(&[silent(), silent(), Ok(()), silent(), silent(), badly()]), "-----b");
        assert_eq!(checks(&[badly(), badly(), badly(), badly(), silent(), badly(), Ok(())]), "--b-s-w");
        assert_eq!(checks(&[silent(), silent(), silent(), badly(), Ok(())]), "--s-w", "badly is no better");
        assert_eq!(checks(&[silent(), silent(), unasked(), silent(), silent(), silent()]), "-----s");
    }

    #[test]
    fn what_was_late_does_not_count_unless_it_is_good() {
        let (late, good) = ((silent(), false), (Ok(()), false));
        let bad = (silent(), true);
        assert_eq!(told(&[late.clone(), late.clone(), late.clone(), late.clone()]), "----");
        assert_eq!(told(&[bad.clone(), bad.clone(), late, bad.clone(), bad.clone(), bad, good]), "-----sw");
    }
}
