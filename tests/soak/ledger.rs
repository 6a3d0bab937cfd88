//! What was sent, what came back, what was done to the workers meanwhile, and the verdict on all of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a request was meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A small GET.
    Get,
    /// A small PUT: idempotent, with a body.
    Put,
    /// A small POST.
    Post,
    /// A POST of some 100 KB.
    Upload,
    /// A GET of 1 MB.
    Download,
    /// A GET whose worker ends the connection without an answer.
    DroppedGet,
    /// Likewise a POST.
    DroppedPost,
    /// A GET whose worker ends the connection in the middle of the body.
    Cut,
    /// Server-sent events.
    Events,
    /// A WebSocket.
    Socket,
}

impl Kind {
    /// Whether doing it twice does harm.
    fn is_once_only(self) -> bool {
        matches!(self, Self::Post | Self::Upload | Self::DroppedPost)
    }

    /// Whether a worker's answer is what must come, unless that worker was hit.
    fn is_streamed(self) -> bool {
        matches!(self, Self::Download | Self::Events | Self::Socket)
    }
}

/// How often an idempotent request may be begun: by one worker and, once, by another.
const ASKED_MAX: usize = 2;
/// A request may meet the end of a worker a moment before or after the signal was sent.
const SLACK: Duration = Duration::from_millis(250);

/// One request that did not go as usual.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// The worker's process, if its answer had begun.
    pub(crate) pid: Option<u32>,
    /// What came instead.
    pub(crate) what: String,
}

/// What was done to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// KILL.
    Killed,
    /// STOP, and CONT later.
    Stopped,
    /// It was ended by a rolling restart, or because its version was taken away: it lets requests end, not streams.
    Retired,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    answered: BTreeMap<Kind, u64>,
    /// Ids of requests that must be done at most once, and were answered.
    done: HashSet<String>,
    failures: Vec<Failure>,
    /// Answers that were not those of their request.
    wrong: Vec<String>,
    faults: Vec<Hit>,
}

/// A fault of one worker.
#[derive(Debug, Clone, Copy)]
struct Hit {
    pid: u32,
    fault: Fault,
    from: Instant,
    until: Instant,
}

impl Ledger {
    pub(crate) fn answered(&self, kind: Kind, id: &str) {
        let mut entries = self.0.lock().unwrap();
        *entries.answered.entry(kind).or_default() += 1;
        if kind.is_once_only() && kind != Kind::DroppedPost {
            entries.done.insert(id.to_owned());
        }
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.0.lock().unwrap().failures.push(failure);
    }

    pub(crate) fn wrong(&self, what: String) {
        self.0.lock().unwrap().wrong.push(what);
    }

    pub(crate) fn fault(&self, pid: u32, fault: Fault) {
        let now = Instant::now();
        self.0.lock().unwrap().faults.push(Hit { pid, fault, from: now, until: now });
    }

    /// This worker stood still until now; it may have been retired meanwhile.
    pub(crate) fn goes_on(&self, pid: u32) {
        let mut entries = self.0.lock().unwrap();
        let stopped = |hit: &&mut Hit| hit.pid == pid && hit.fault == Fault::Stopped;
        let last = entries.faults.iter_mut().rev().find(stopped);
        last.unwrap().until = Instant::now();
    }

    /// Requests that were answered, by kind.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        self.0.lock().unwrap().answered.clone()
    }

    /// What went wrong that had no right to; `journal` is what the workers wrote down.
    pub(crate) fn verdict(&self, journal: &str) -> Vec<String> {
        let entries = self.0.lock().unwrap();
        let mut begun: HashMap<&str, Vec<u32>> = HashMap::new();
        for line in journal.lines() {
            // The line of a worker that was killed while it wrote may be torn.
            let Some((id, pid)) = line.split_once(' ') else { continue };
            begun.entry(id).or_default().extend(pid.parse::<u32>());
        }
        let mut problems = entries.wrong.clone();
        for failure in &entries.failures {
            let pids = begun.get(failure.id.as_str()).map_or(&[][..], Vec::as_slice);
            if !excused(failure, pids, &entries.faults) {
                let after = failure.ended - failure.started;
                problems.push(format!(
                    "{:?} {} failed after {after:?}: {}; begun by {pids:?}, answered by {:?}, {}",
                    failure.kind,
                    failure.id,
                    failure.what,
                    failure.pid,
                    near(failure, &entries.faults)
                ));
            }
        }
        for id in entries.done.iter().filter(|id| begun.get(id.as_str()).map_or(0, Vec::len) != 1) {
            problems.push(format!("{id} was answered, and begun by {:?}", begun.get(id.as_str())));
        }
        for (id, pids) in begun {
            let once = ["Post-", "Upload-", "DroppedPost-"].iter().any(|kind| id.starts_with(kind));
            if pids.len() > if once { 1 } else { ASKED_MAX } {
                problems.push(format!("{id} was begun {} times, by {pids:?}", pids.len()));
            }
        }
        problems
    }

    /// Failures, excused ones too, and faults, for what is printed at the end.
    pub(crate) fn summary(&self) -> String {
        let entries = self.0.lock().unwrap();
        let mut failures: BTreeMap<Kind, usize> = BTreeMap::new();
        entries.failures.iter().for_each(|failure| *failures.entry(failure.kind).or_default() += 1);
        let count = |fault| entries.faults.iter().filter(|hit| hit.fault == fault).count();
        format!(
            "answered {:?}; failed {failures:?}; workers killed {}, stopped {}, retired {}",
            entries.answered,
            count(Fault::Killed),
            count(Fault::Stopped),
            count(Fault::Retired)
        )
    }
}

/// Whether a fault explains the failure. A small GET or PUT is asked of another worker: two must have been hit.
fn excused(failure: &Failure, begun: &[u32], faults: &[Hit]) -> bool {
    let hit = |pid: u32, what: &[Fault]| {
        let then = |hit: &Hit| hit.until + SLACK >= failure.started && hit.from <= failure.ended + SLACK;
        faults.iter().any(|hit| hit.pid == pid && what.contains(&hit.fault) && then(hit))
    };
    // A worker that stands still for longer than switchman waits is as good as gone.
    let lost = [Fault::Killed, Fault::Stopped];
    match failure.kind {
        kind if kind.is_once_only() => match begun {
            [] => faults.iter().any(|fault| hit(fault.pid, &lost)),
            pids => pids.iter().any(|pid| hit(*pid, &lost)),
        },
        // Dropped by the one; the other may have been hit.
        Kind::DroppedGet => begun.iter().any(|pid| hit(*pid, &lost)),
        Kind::Get | Kind::Put => match begun {
            [one, other] if one != other => hit(*one, &lost) && hit(*other, &lost),
            _ => false,
        },
        Kind::Download => failure.pid.is_some_and(|pid| hit(pid, &[Fault::Killed])),
        kind if kind.is_streamed() => {
            failure.pid.is_some_and(|pid| hit(pid, &[Fault::Killed, Fault::Retired]))
        }
        _ => false,
    }
}

/// The faults about the time of a failure, to read in a report.
fn near(failure: &Failure, faults: &[Hit]) -> String {
    let window = Duration::from_secs(2);
    let near = faults
        .iter()
        .filter(|hit| hit.until + window >= failure.started && hit.from <= failure.ended + window);
    let told: Vec<String> = near
        .map(|Hit { pid, fault, from, until }| {
            let lasted = *until - *from;
            match from.checked_duration_since(failure.started) {
                Some(after) => format!("{fault:?} {pid} {after:?} after its start, for {lasted:?}"),
                None => {
                    let before = failure.started - *from;
                    format!("{fault:?} {pid} {before:?} before its start, for {lasted:?}")
                }
            }
        })
        .collect();
    format!("near it: {}", told.join(", "))
}
