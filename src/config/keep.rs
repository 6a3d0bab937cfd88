//! What switchman does with versions over time: hooks, retention, sleep, and workers that follow the load.

use std::time::Duration;

use super::RunCommand;
use super::keys::keep::{HOOK, HOOKS, WORKERS};
use super::keys::names;
use super::read::duration;
use super::run::command;
use super::value;
use crate::yaml::{Fields, Reader};

/// What becomes of the versions of a service over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// Commands at points of a version's life.
    pub hooks: Hooks,
    /// How many versions run, the newest by arrival; none: all.
    pub keep: Option<usize>,
    /// Whether the folders of versions beyond `keep` are deleted.
    pub prune: bool,
    /// How long nobody must have asked for a version before it is put to sleep; none: see [`Upkeep::idle_of`].
    pub idle: Option<Duration>,
    /// The longest that a request waits for a version that is being woken.
    pub wake: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        let wake = Duration::from_secs(30);
        Self { hooks: Hooks::default(), keep: None, prune: false, idle: None, wake }
    }
}

impl Upkeep {
    /// After how much idle time a version sleeps whose workers follow `scale`.
    pub fn idle_of(&self, scale: Option<&Scale>) -> Option<Duration> {
        let to_zero = scale.is_some_and(|scale| scale.min == 0);
        self.idle.or(to_zero.then_some(IDLE))
    }
}

/// Commands at points of a version's life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before its first worker is started; once for each version.
    pub before_start: Option<Hook>,
    /// When it is ready for the first time.
    pub after_ready: Option<Hook>,
    /// When it is stopped, before its workers are told to end.
    pub before_stop: Option<Hook>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The command.
    pub run: RunCommand,
    /// The longest it may take.
    pub timeout: Duration,
}

/// Workers that follow the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The fewest; 0: the version may sleep.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// Requests in flight that one worker is to have.
    pub target_in_flight: u32,
}

impl Scale {
    /// The nearest number of workers that an awake version may have.
    pub fn within(&self, workers: u32) -> u32 {
        workers.clamp(self.min.max(1), self.max.max(1))
    }
}

/// When a version with `min: 0` sleeps, where nobody says.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A version that is put to sleep sooner would do nothing but start and stop.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// Nothing starts in less.
const WAKE_MIN: Duration = Duration::from_millis(100);
/// How long a hook may take where nobody says: a migration is given time ...
const HOOK_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// ... a stop, which may be that of the machine, is not.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_MAX: u64 = 10_000;
const WORKERS_MAX: u64 = 1_000;
const TARGET_MAX: u64 = 1_000_000;

const PRUNE: [(&str, bool); 2] = [("disk", true), ("off", false)];

/// Reads what a service says of its versions over time. `max_in_flight` is what one worker is given at a time.
pub(super) fn upkeep(service: &Fields<'_>, max_in_flight: Option<u32>) -> Upkeep {
    let usual = Upkeep::default();
    let keep = service.get("keep").and_then(|r| r.number(1..=KEEP_MAX));
    let prune = service.get("prune").and_then(|r| {
        let prune = r.value(|text| value::one_of(text, &PRUNE))?;
        if prune && service.get("keep").is_none() {
            r.error(
                "`prune` deletes what is beyond `keep`, and there is no `keep`",
                "add it, as in `keep: 10`",
            );
        }
        Some(prune)
    });
    warn_of_a_target_never_reached(service, max_in_flight);
    Upkeep {
        hooks: service.get("hooks").map(hooks).unwrap_or_default(),
        keep: keep.and_then(|n| usize::try_from(n).ok()),
        prune: prune.unwrap_or(usual.prune),
        idle: service.get("idle").and_then(|r| duration(&r, IDLE_MIN)),
        wake: service.get("wake").and_then(|r| duration(&r, WAKE_MIN)).unwrap_or(usual.wake),
    }
}

fn hooks(reader: Reader<'_>) -> Hooks {
    let Some(fields) = reader.fields(&names(&[&HOOKS])) else { return Hooks::default() };
    let get = |key, timeout| fields.get(key).and_then(|r| hook(r, timeout));
    Hooks {
        before_start: get("before_start", HOOK_TIMEOUT),
        after_ready: get("after_ready", HOOK_TIMEOUT),
        before_stop: get("before_stop", STOP_TIMEOUT),
    }
}

fn hook(reader: Reader<'_>, usual: Duration) -> Option<Hook> {
    if reader.node().map().is_none() {
        return Some(Hook { run: command(&reader)?, timeout: usual });
    }
    let fields = reader.fields(&names(&[&HOOK]))?;
    let run = fields.require("run", "./migrate").and_then(|r| command(&r));
    let timeout = fields.get("timeout").and_then(|r| duration(&r, WAKE_MIN)).unwrap_or(usual);
    Some(Hook { run: run?, timeout })
}

/// The number of workers to start with, and how it follows the load, if it does.
pub(super) fn workers(reader: &Reader<'_>) -> Option<(u32, Option<Scale>)> {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    if reader.node().map().is_none() {
        return reader.number(1..=WORKERS_MAX).map(|workers| (number(workers), None));
    }
    let fields = reader.clone().fields(&names(&[&WORKERS]))?;
    let min = match fields.get("min") {
        Some(reader) => reader.number(0..=WORKERS_MAX),
        None => Some(1),
    };
    let max = fields.require("max", "4").and_then(|r| r.number(1..=WORKERS_MAX));
    let target = fields.require("target_in_flight", "20").and_then(|r| r.number(1..=TARGET_MAX));
    let scale = Scale { min: number(min?), max: number(max?), target_in_flight: number(target?) };
    if scale.min > scale.max {
        reader.error(
            format!("`min` is {}, more than `max`, which is {}", scale.min, scale.max),
            "make `max` larger",
        );
    }
    Some((scale.min.max(1), Some(scale)))
}

/// A worker that is never given as many requests as would call for another one.
fn warn_of_a_target_never_reached(service: &Fields<'_>, max_in_flight: Option<u32>) {
    let target = || {
        let entries = service.get("workers")?.node().map()?;
        let entry = entries.iter().find(|entry| entry.key == "target_in_flight")?;
        entry.value.text()?.parse::<u32>().ok()
    };
    if let (Some(target), Some(most), Some(at)) = (target(), max_in_flight, service.get("workers"))
        && target >= most
    {
        let message = format!(
            "no worker is given more than `max_in_flight: {most}` requests, so `target_in_flight: {target}` never \
             calls for another one"
        );
        at.warning(message, "make `target_in_flight` smaller than `max_in_flight`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Collector, parse};

    const KEYS: [&str; 6] = ["hooks", "keep", "prune", "idle", "wake", "workers"];

    /// What `text` says, and the problems, one `key: message` each.
    #[allow(clippy::type_complexity, reason = "three things that each test takes apart")]
    fn read(text: &str) -> (Upkeep, Option<(u32, Option<Scale>)>, Vec<String>) {
        let (node, problems) = (parse(text).unwrap(), Collector::default());
        let fields = Reader::new(&node, &problems).fields(&KEYS).unwrap();
        let read = (upkeep(&fields, Some(10)), fields.get("workers").and_then(|r| workers(&r)));
        let problems = problems.into_inner().0.into_iter();
        (read.0, read.1, problems.map(|p| format!("{}: {}", p.key, p.message)).collect())
    }

    #[test]
    fn hooks_are_commands_or_maps() {
        let text = "hooks: {before_start: ./migrate, after_ready: [./warm, up], \
                    before_stop: {run: ./bye, timeout: 2s}}";
        let (upkeep, _, problems) = read(text);
        assert_eq!(problems, [""; 0]);
        let shell = |text: &str| RunCommand::Shell(text.to_owned());
        let exec = RunCommand::Exec(vec!["./warm".to_owned(), "up".to_owned()]);
        let hook = |run, seconds| Some(Hook { run, timeout: Duration::from_secs(seconds) });
        assert_eq!(upkeep.hooks.before_start, hook(shell("./migrate"), 300));
        assert_eq!(upkeep.hooks.after_ready, hook(exec, 300));
        assert_eq!(upkeep.hooks.before_stop, hook(shell("./bye"), 2));
        let (upkeep, _, _) = read("hooks: {before_stop: ./bye}");
        assert_eq!(upkeep.hooks.before_stop, hook(shell("./bye"), 30));
    }

    #[test]
    fn a_version_with_min_0_sleeps_unless_somebody_says_when() {
        let (upkeep, workers, _) = read("workers: {min: 0, max: 4, target_in_flight: 5}");
        let (workers, scale) = workers.unwrap();
        assert_eq!(workers, 1, "it begins with one");
        assert_eq!(upkeep.idle_of(scale.as_ref()), Some(IDLE));
        assert_eq!(upkeep.idle_of(None), None);
        let (upkeep, _, _) = read("idle: 2m");
        assert_eq!(upkeep.idle_of(scale.as_ref()), Some(Duration::from_secs(120)));
        assert_eq!(upkeep.idle_of(None), Some(Duration::from_secs(120)));
        let (_, workers, _) = read("workers: {max: 4, target_in_flight: 5}");
        assert_eq!(workers.unwrap().1.unwrap().min, 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("prune: disk", "prune: `prune` deletes what is beyond `keep`, and there is no `keep`"),
            ("keep: 0", "keep: 0 is not from 1 to 10000"),
            ("idle: 10", "idle: `10` has no unit"),
            ("wake: 0s", "wake: `0s` is out of range"),
            ("hooks: {before_strat: x}", "hooks.before_strat: the key `before_strat` is not known"),
            ("hooks: {before_start: {timeout: 1s}}", "hooks.before_start: the key `run` is missing"),
            ("workers: {min: 1}", "workers: the key `max` is missing"),
            (
                "workers: {min: 5, max: 4, target_in_flight: 5}",
                "workers: `min` is 5, more than `max`, which is 4",
            ),
            (
                "workers: {min: 0, max: 4, target_in_flight: 10}",
                "workers: no worker is given more than `max_in_flight: 10` requests, so `target_in_flight: 10` \
                 never calls for another one",
            ),
        ] {
            let (_, _, problems) = read(text);
            assert!(problems.iter().any(|p| p == problem), "{text}: {problems:?}");
        }
        assert_eq!(read("keep: 3\nprune: disk\nidle: 1m\nwake: 5s").2, [""; 0]);
    }
}
