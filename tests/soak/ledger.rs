//! What was sent, what came back, what was done meanwhile, and the verdict on all of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::trouble::Fault;

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
    /// A WebSocket that its client soon closes.
    Socket,
    /// A WebSocket that stays open; each message that comes back counts as answered.
    Open,
}

impl Kind {
    /// Whether doing it twice does harm.
    fn is_once_only(self) -> bool {
        matches!(self, Self::Post | Self::Upload | Self::DroppedPost)
    }

    /// Whether a worker's answer is what must come, unless that worker was hit.
    fn is_streamed(self) -> bool {
        matches!(self, Self::Download | Self::Events | Self::Socket | Self::Open)
    }
}

/// How often an idempotent request may be begun: by one worker and, once, by another.
const ASKED_MAX: usize = 2;
/// A request may meet the end of a worker a moment before or after the signal was sent.
const SLACK: Duration = Duration::from_millis(250);
/// From the moment a kill is noted to the moment it is done.
const AT_ONCE: Duration = Duration::from_millis(10);
/// That a worker was retired is seen later than it happens.
const SEEN_LATE: Duration = Duration::from_secs(2);

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// There was no connection to be had.
    Refused,
    /// It had a connection that was made for it.
    New,
    /// It had one that had carried others.
    Kept,
}

/// One request that did not go as usual.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// The worker's process, if its answer had begun.
    pub(crate) pid: Option<u32>,
    /// What it was sent on.
    pub(crate) reach: Reach,
    /// What came instead.
    pub(crate) what: String,
}

impl Failure {
    /// When it can have gone wrong: a WebSocket that was open for long did so at its end.
    fn time(&self) -> (Instant, Instant) {
        (if self.kind == Kind::Open { self.ended } else { self.started }, self.ended)
    }
}

/// What was done to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// KILL.
    Killed,
    /// STOP, and CONT later.
    Stopped,
    /// It was ended by a person (restart, scale, stop) or because its version was taken away: it lets requests end,
    /// not streams.
    Retired,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    answered: BTreeMap<Kind, u64>,
    /// When requests began that have not ended.
    running: HashMap<String, Instant>,
    /// Ids of requests that must be done at most once, and were answered.
    done: HashSet<String>,
    failures: Vec<Failure>,
    /// Answers that were not those of their request.
    wrong: Vec<String>,
    hits: Vec<Hit>,
    /// When switchman was killed, and with it every connection through it.
    kills: Vec<Instant>,
    faults: Vec<Span>,
    /// What took longer than it was asked to, by more than [`STALL_MIN`].
    stalls: Vec<Stall>,
}

/// A harm of one worker.
#[derive(Debug, Clone, Copy)]
struct Hit {
    pid: u32,
    harm: Harm,
    from: Instant,
    until: Instant,
}

/// From the beginning of a fault until everything was well again.
#[derive(Debug, Clone, Copy)]
struct Span {
    fault: Fault,
    from: Instant,
    until: Instant,
}

impl Span {
    /// Whether it is to blame for what ended then: what began before it had ended before it ([`Ledger::is_quiet`]).
    fn has(&self, end: Instant) -> bool {
        self.from <= end && end <= self.until
    }
}

/// Time that somebody waited for an answer, beyond what the answer was asked to take.
#[derive(Debug, Clone, Copy)]
struct Stall {
    ended: Instant,
    length: Duration,
}

/// Shorter ones are not worth remembering.
const STALL_MIN: Duration = Duration::from_millis(10);

/// One row of the table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// How often it was done.
    pub(crate) times: usize,
    /// Requests that failed and had no right to.
    pub(crate) failed: usize,
    /// Likewise WebSockets.
    pub(crate) cut: usize,
    /// Requests that nobody could save: what answered them was killed or stood still, and they must not be done twice;
    /// or switchman itself was killed with them.
    pub(crate) lost: usize,
    /// WebSockets and streams of events likewise, or whose worker was told to stop.
    pub(crate) ended: usize,
    /// The longest that somebody waited.
    pub(crate) stall: Duration,
}

impl Ledger {
    pub(crate) fn begins(&self, id: &str, started: Instant) {
        self.0.lock().unwrap().running.insert(id.to_owned(), started);
    }

    /// Whether everything that began before `then` has ended.
    pub(crate) fn is_quiet(&self, then: Instant) -> bool {
        self.0.lock().unwrap().running.values().all(|started| *started > then)
    }

    pub(crate) fn answered(&self, kind: Kind, id: &str) {
        let mut entries = self.0.lock().unwrap();
        entries.running.remove(id);
        *entries.answered.entry(kind).or_default() += 1;
        if kind.is_once_only() && kind != Kind::DroppedPost {
            entries.done.insert(id.to_owned());
        }
    }

    /// An answer that was asked to take `asked` came now.
    pub(crate) fn waited(&self, started: Instant, asked: Duration) {
        let ended = Instant::now();
        let length = (ended - started).saturating_sub(asked);
        if length > STALL_MIN {
            self.0.lock().unwrap().stalls.push(Stall { ended, length });
        }
    }

    pub(crate) fn failed(&self, failure: Failure) {
        let mut entries = self.0.lock().unwrap();
        entries.running.remove(&failure.id);
        entries.failures.push(failure);
    }

    pub(crate) fn wrong(&self, what: String) {
        self.0.lock().unwrap().wrong.push(what);
    }

    pub(crate) fn harm(&self, pid: u32, harm: Harm) {
        let now = Instant::now();
        self.0.lock().unwrap().hits.push(Hit { pid, harm, from: now, until: now });
    }

    /// This worker stood still for so long that it was taken for dead, and replaced.
    pub(crate) fn was_replaced(&self, pid: u32) {
        let mut entries = self.0.lock().unwrap();
        let stopped = |hit: &&mut Hit| hit.pid == pid && hit.harm == Harm::Stopped;
        let last = entries.hits.iter_mut().rev().find(stopped).unwrap();
        (last.harm, last.until) = (Harm::Killed, Instant::now());
    }

    /// switchman is killed now.
    pub(crate) fn switchman_is_killed(&self) {
        self.0.lock().unwrap().kills.push(Instant::now());
    }

    /// This worker was told to end at some time since `from`.
    pub(crate) fn was_retired(&self, pid: u32, from: Instant) {
        let (harm, until) = (Harm::Retired, Instant::now());
        self.0.lock().unwrap().hits.push(Hit { pid, harm, from, until });
    }

    /// This worker stood still until now; it may have been retired meanwhile.
    pub(crate) fn goes_on(&self, pid: u32) {
        let mut entries = self.0.lock().unwrap();
        let stopped = |hit: &&mut Hit| hit.pid == pid && hit.harm == Harm::Stopped;
        let last = entries.hits.iter_mut().rev().find(stopped);
        last.unwrap().until = Instant::now();
    }

    /// A fault that began then is over.
    pub(crate) fn fault(&self, fault: Fault, from: Instant) {
        self.0.lock().unwrap().faults.push(Span { fault, from, until: Instant::now() });
    }

    /// Requests that were answered, by kind.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        self.0.lock().unwrap().answered.clone()
    }

    /// What each fault did; `journal` is what the workers wrote down.
    pub(crate) fn table(&self, journal: &str) -> BTreeMap<Fault, Row> {
        let entries = self.0.lock().unwrap();
        let begun = begun(journal);
        let mut rows: BTreeMap<Fault, Row> = BTreeMap::new();
        for span in &entries.faults {
            let row = rows.entry(span.fault).or_default();
            row.times += 1;
            for failure in entries.failures.iter().filter(|failure| span.has(failure.ended)) {
                let had_to = entries.excuse(failure, pids_of(&begun, &failure.id));
                *match failure.kind {
                    Kind::Socket | Kind::Open if !had_to => &mut row.cut,
                    Kind::Socket | Kind::Open | Kind::Events if had_to => &mut row.ended,
                    _ if had_to => &mut row.lost,
                    _ => &mut row.failed,
                } += 1;
            }
            let stalls = entries.stalls.iter().filter(|stall| span.has(stall.ended));
            row.stall = stalls.map(|stall| stall.length).fold(row.stall, Duration::max);
        }
        rows
    }

    /// What went wrong that had no right to; `journal` is what the workers wrote down.
    pub(crate) fn verdict(&self, journal: &str) -> Vec<String> {
        let entries = self.0.lock().unwrap();
        let begun = begun(journal);
        let mut problems = entries.wrong.clone();
        for failure in &entries.failures {
            let pids = pids_of(&begun, &failure.id);
            if !entries.excuse(failure, pids) {
                let after = failure.ended - failure.started;
                problems.push(format!(
                    "{:?} {} failed after {after:?}: {}; begun by {pids:?}, answered by {:?}, {}",
                    failure.kind,
                    failure.id,
                    failure.what,
                    failure.pid,
                    near(failure, &entries)
                ));
            }
        }
        for id in entries.done.iter().filter(|id| pids_of(&begun, id).len() != 1) {
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
}

/// The processes that have begun each request.
fn begun(journal: &str) -> HashMap<&str, Vec<u32>> {
    let mut begun: HashMap<&str, Vec<u32>> = HashMap::new();
    for line in journal.lines() {
        // The line of a worker that was killed while it wrote may be torn.
        let Some((id, pid)) = line.split_once(' ') else { continue };
        begun.entry(id).or_default().extend(pid.parse::<u32>());
    }
    begun
}

fn pids_of<'a>(begun: &'a HashMap<&str, Vec<u32>>, id: &str) -> &'a [u32] {
    begun.get(id).map_or(&[], Vec::as_slice)
}

impl Entries {
    /// Whether what was done to workers or to switchman itself explains the failure. A small GET or PUT is asked of another worker: two must
    /// have been hit.
    fn excuse(&self, failure: &Failure, begun: &[u32]) -> bool {
        if self.kills.iter().any(|kill| went_through(failure, *kill)) {
            return true;
        }
        let hits = &self.hits;
        let hit = |pid: u32, what: &[Harm]| {
            let then = |hit: &Hit| {
                let slack = if hit.harm == Harm::Retired { SEEN_LATE } else { SLACK };
                hit.until + SLACK >= failure.started && hit.from <= failure.ended + slack
            };
            hits.iter().any(|hit| hit.pid == pid && what.contains(&hit.harm) && then(hit))
        };
        // A worker that stands still for longer than switchman waits is as good as gone.
        let lost = [Harm::Killed, Harm::Stopped];
        match failure.kind {
            kind if kind.is_once_only() => match begun {
                [] => hits.iter().any(|any| hit(any.pid, &lost)),
                pids => pids.iter().any(|pid| hit(*pid, &lost)),
            },
            // Dropped by the one; the other may have been hit, and one that stands still has not even begun it.
            Kind::DroppedGet => match begun {
                [_] => hits.iter().any(|any| hit(any.pid, &lost)),
                pids => pids.iter().any(|pid| hit(*pid, &lost)),
            },
            Kind::Get | Kind::Put => match begun {
                [one, other] if one != other => hit(*one, &lost) && hit(*other, &lost),
                _ => false,
            },
            Kind::Download => failure.pid.is_some_and(|pid| hit(pid, &[Harm::Killed])),
            kind if kind.is_streamed() => {
                failure.pid.is_some_and(|pid| hit(pid, &[Harm::Killed, Harm::Retired]))
            }
            _ => false,
        }
    }
}

/// Whether a request was on its way through switchman when it was killed. Whoever came later had to wait, and no more:
/// a connection that was there before may be used a moment before its end is noticed.
fn went_through(failure: &Failure, kill: Instant) -> bool {
    let late = match failure.reach {
        Reach::Refused => return false,
        Reach::New => AT_ONCE,
        Reach::Kept => SLACK,
    };
    failure.started <= kill + late && kill <= failure.ended
}

/// What was done about the time of a failure, to read in a report.
fn near(failure: &Failure, entries: &Entries) -> String {
    let window = Duration::from_secs(2);
    let (begun, ended) = failure.time();
    let near = entries.hits.iter().filter(|hit| hit.until + window >= begun && hit.from <= ended + window);
    let mut told: Vec<String> = near
        .map(|Hit { pid, harm, from, until }| {
            let lasted = *until - *from;
            match from.checked_duration_since(begun) {
                Some(after) => format!("{harm:?} {pid} {after:?} after, for {lasted:?}"),
                None => format!("{harm:?} {pid} {:?} before, for {lasted:?}", begun - *from),
            }
        })
        .collect();
    let during = entries.faults.iter().filter(|span| span.has(ended));
    told.extend(during.map(|span| format!("during {:?}", span.fault)));
    format!("near it: {}", told.join(", "))
}
