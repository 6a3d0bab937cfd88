//! What the data plane counts, and how the rest reads it.
//!
//! Each version and each worker has one cell of counters a data-plane thread. A thread writes only its own
//! cell ([`ThreadSlot`] says which), so counting costs neither a lock nor a contended cache line; a reader
//! adds the cells up and may see a request half counted, never twice. Rates and percentiles come from
//! samples that one control-plane task takes each second ([`VersionCounters::sample`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// Which data-plane thread counts: an index below the number of threads that the counters were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSlot(pub usize);

/// Adds to a counter that only the calling thread writes: a plain load and store, no locked instruction.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// One thread's running requests on one worker. Aligned so that no two threads share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct InFlightCell {
    started: AtomicU64,
    ended: AtomicU64,
}

/// How many requests one worker is answering.
#[derive(Debug)]
pub struct InFlight {
    threads: Box<[InFlightCell]>,
}

impl InFlight {
    /// Counters for `threads` data-plane threads.
    pub fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| InFlightCell::default()).collect() }
    }

    /// Counts one request as started. Call [`InFlight::end`] from the same thread.
    pub fn begin(&self, slot: ThreadSlot) {
        bump(&self.threads[slot.0].started, 1);
    }

    /// Counts one request as ended.
    pub fn end(&self, slot: ThreadSlot) {
        bump(&self.threads[slot.0].ended, 1);
    }

    /// Requests running now, over all threads. `ended` is read first, so the answer is never too small for
    /// a request that was running during the whole call.
    pub fn now(&self) -> u64 {
        let ended: u64 = self.threads.iter().map(|c| c.ended.load(Relaxed)).sum();
        let started: u64 = self.threads.iter().map(|c| c.started.load(Relaxed)).sum();
        started.saturating_sub(ended)
    }
}

/// Buckets a power of two is divided into: a percentile is right to one part in 16.
const SUB_BUCKETS: u64 = 8;
/// Buckets in all: microseconds up to 2^36 (19 hours).
const BUCKETS: usize = 34 * SUB_BUCKETS as usize;

/// The bucket that a latency in microseconds falls into.
fn bucket_of(micros: u64) -> usize {
    if micros < SUB_BUCKETS {
        return micros as usize;
    }
    let power = u64::from(63 - micros.leading_zeros());
    let within = (micros >> (power - 3)) & (SUB_BUCKETS - 1);
    (((power - 2) * SUB_BUCKETS + within) as usize).min(BUCKETS - 1)
}

/// The middle of a bucket, in microseconds.
fn bucket_middle(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket as f64 + 0.5;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let low = (SUB_BUCKETS + bucket % SUB_BUCKETS) << shift;
    low as f64 + (1u64 << shift) as f64 / 2.0
}

#[derive(Debug)]
#[repr(align(128))]
struct VersionCell {
    requests: AtomicU64,
    errors: AtomicU64,
    gone: AtomicU64,
    /// Milliseconds since 1970 of the last request's start; 0 = never.
    last_hit: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for VersionCell {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            last_hit: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// What `/versions` says of a version's traffic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Traffic {
    /// Requests ended since switchman started.
    pub requests: u64,
    /// Of those, how many ended in a 5xx, from the worker or from switchman for want of an answer.
    pub errors: u64,
    /// Requests a second over the last ten seconds.
    pub rps: f64,
    /// Median latency in milliseconds over the last minute; none without a request in it.
    pub p50_ms: Option<f64>,
    /// 99th percentile, likewise.
    pub p99_ms: Option<f64>,
    /// When the last request was counted.
    pub last_hit: Option<Timestamp>,
}

/// Samples kept for rates: one a second.
const RATE_WINDOW: usize = 10;
/// A histogram is kept each this many samples.
const HISTOGRAM_EVERY: u64 = 10;
/// Histograms kept: the window of the percentiles is this many times [`HISTOGRAM_EVERY`] seconds.
const HISTOGRAMS: usize = 6;

/// What the sampler remembers; touched by control-plane tasks only.
#[derive(Debug, Default)]
struct Window {
    samples: u64,
    requests: VecDeque<(Timestamp, u64)>,
    histograms: VecDeque<Vec<u64>>,
}

/// The counters of one version. They outlive restarts of its workers.
#[derive(Debug)]
pub struct VersionCounters {
    threads: Box<[VersionCell]>,
    window: Mutex<Window>,
}

impl VersionCounters {
    /// Counters for `threads` data-plane threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| VersionCell::default()).collect(),
            window: Mutex::new(Window::default()),
        }
    }

    /// Counts one ended request: `error` for a 5xx, `latency` from its head to the end of its answer,
    /// `now_ms` milliseconds since 1970.
    pub fn record(&self, slot: ThreadSlot, error: bool, latency: Duration, now_ms: u64) {
        let cell = &self.threads[slot.0];
        bump(&cell.requests, 1);
        bump(&cell.errors, u64::from(error));
        bump(&cell.latency[bucket_of(latency.as_micros().min(u128::from(u64::MAX)) as u64)], 1);
        cell.last_hit.store(now_ms, Relaxed);
    }

    /// Counts one request whose client left before it had its answer; beside [`VersionCounters::record`].
    pub fn record_gone(&self, slot: ThreadSlot) {
        bump(&self.threads[slot.0].gone, 1);
    }

    /// Requests whose clients left before they had their answers, since the start.
    pub fn gone(&self) -> u64 {
        self.threads.iter().map(|c| c.gone.load(Relaxed)).sum()
    }

    /// Requests ended since the start.
    pub fn requests(&self) -> u64 {
        self.threads.iter().map(|c| c.requests.load(Relaxed)).sum()
    }

    /// Requests ended since the start that one thread has counted.
    pub fn requests_on(&self, slot: ThreadSlot) -> u64 {
        self.threads[slot.0].requests.load(Relaxed)
    }

    /// Takes the sample of this second; called by one task, once a second.
    pub fn sample(&self, now: Timestamp) {
        let requests = self.requests();
        let mut window = self.window();
        if window.samples.is_multiple_of(HISTOGRAM_EVERY) {
            if window.histograms.len() == HISTOGRAMS {
                window.histograms.pop_front();
            }
            window.histograms.push_back(self.histogram());
        }
        if window.requests.len() == RATE_WINDOW {
            window.requests.pop_front();
        }
        window.requests.push_back((now, requests));
        window.samples += 1;
    }

    /// What `/versions` shows, as of `now`.
    pub fn traffic(&self, now: Timestamp) -> Traffic {
        let requests = self.requests();
        let mut since = self.histogram();
        let window = self.window();
        if let Some(oldest) = window.histograms.front() {
            since.iter_mut().zip(oldest).for_each(|(new, old)| *new -= old);
        }
        let rps = window.requests.front().map_or(0.0, |(then, count)| {
            let seconds = now.duration_since(*then).as_secs_f64();
            if seconds > 0.0 { (requests - count) as f64 / seconds } else { 0.0 }
        });
        let last_hit = self.threads.iter().map(|c| c.last_hit.load(Relaxed)).max().unwrap_or(0);
        Traffic {
            requests,
            errors: self.threads.iter().map(|c| c.errors.load(Relaxed)).sum(),
            rps: (rps * 10.0).round() / 10.0,
            p50_ms: percentile_ms(&since, 0.50),
            p99_ms: percentile_ms(&since, 0.99),
            last_hit: i64::try_from(last_hit)
                .ok()
                .filter(|ms| *ms > 0)
                .and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        }
    }

    fn histogram(&self) -> Vec<u64> {
        let mut sum = vec![0; BUCKETS];
        for cell in &self.threads {
            sum.iter_mut().zip(&cell.latency).for_each(|(s, c)| *s += c.load(Relaxed));
        }
        sum
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latency below which `part` of the counted requests lie, in milliseconds.
fn percentile_ms(histogram: &[u64], part: f64) -> Option<f64> {
    let total: u64 = histogram.iter().sum();
    let wanted = (total as f64 * part).ceil() as u64;
    let mut seen = 0;
    histogram.iter().enumerate().find_map(|(bucket, count)| {
        seen += count;
        (total > 0 && seen >= wanted).then(|| (bucket_middle(bucket) / 10.0).round() / 100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_own_middle() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(bucket_middle(bucket) as u64), bucket);
        }
    }

    #[test]
    fn traffic_is_counted_over_all_threads() {
        let counters = VersionCounters::new(2);
        let start: Timestamp = "2026-11-21T07:30:00Z".parse().unwrap();
        counters.sample(start);
        for n in 0..100 {
            counters.record(
                ThreadSlot(n % 2),
                n < 3,
                Duration::from_millis(if n < 98 { 2 } else { 80 }),
                1_000,
            );
        }
        let traffic = counters.traffic(start.checked_add(jiff::SignedDuration::from_secs(10)).unwrap());
        assert_eq!((traffic.requests, traffic.errors, traffic.rps), (100, 3, 10.0));
        assert!((1.8..2.2).contains(&traffic.p50_ms.unwrap()));
        assert!((70.0..90.0).contains(&traffic.p99_ms.unwrap()));
        assert_eq!(traffic.last_hit, Timestamp::from_second(1).ok());
    }

    #[test]
    fn in_flight_goes_up_and_down() {
        let in_flight = InFlight::new(2);
        in_flight.begin(ThreadSlot(0));
        in_flight.begin(ThreadSlot(1));
        assert_eq!(in_flight.now(), 2);
        in_flight.end(ThreadSlot(1));
        assert_eq!(in_flight.now(), 1);
    }
}
