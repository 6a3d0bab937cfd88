//! When the streams of a worker that is to stop end, and when the worker may: decisions, without waiting.
//!
//! A stream is what goes on until somebody ends it: a WebSocket, server-sent events, a gRPC call. Its client
//! connects again when it ends, so that the ends of many are spread over the time there is: a worker that
//! stops must not bring all its clients to the next one in the same second.

use std::time::{Duration, Instant};

/// No stream is ended before this part of the time has passed: a client that leaves by itself is better.
const QUIET_PART: u32 = 10;
/// At the end so much of the time is kept free, for ends that were begun to be carried out ...
const FREE_PART: u32 = 5;
/// ... and never more than this: closing a WebSocket takes 4 s at most (`proxy::upgrade`).
const FREE_MAX: Duration = Duration::from_secs(5);

/// The time in which streams are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: Instant,
    length: Duration,
}

impl Window {
    /// `length` from now on, where now is `from`.
    pub fn new(from: Instant, length: Duration) -> Self {
        Self { from, length }
    }

    /// When a stream is to end that is known at `now`; `part`, from 0 to 1, is its place among the others.
    pub fn end(&self, now: Instant, part: f64) -> Instant {
        let first = (self.from + self.length / QUIET_PART).max(now);
        let last = self.from + self.length - (self.length / FREE_PART).min(FREE_MAX);
        first + last.saturating_duration_since(first).mul_f64(part.clamp(0.0, 1.0))
    }
}

/// How long a worker that is to stop waits for what it is doing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For requests that end by themselves.
    pub requests: Duration,
    /// For streams.
    pub streams: Duration,
}

impl Patience {
    /// Whether the worker may be told to end, `waited` after it took its last request: nothing is `in_flight`
    /// any more, or what is has had its time. `streams` of those in flight are streams.
    pub fn is_over(&self, waited: Duration, in_flight: u64, streams: u64) -> bool {
        let requests = in_flight.saturating_sub(streams);
        (requests == 0 || waited >= self.requests) && (streams == 0 || waited >= self.streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ends_lie_between_a_tenth_of_the_time_and_what_is_kept_free() {
        let from = Instant::now();
        for (length, now, part, expected) in [
            (300_000, 0, 0.0, 30_000),
            (300_000, 0, 1.0, 295_000),
            (300_000, 0, 0.5, 162_500),
            (3_000, 0, 0.0, 300),
            (3_000, 0, 1.0, 2_400),
            // Known late: no end lies in the past.
            (3_000, 1_400, 0.0, 1_400),
            (3_000, 1_400, 0.5, 1_900),
            (3_000, 2_900, 0.5, 2_900),
            (3_000, 9_000, 1.0, 9_000),
            (0, 0, 0.7, 0),
        ] {
            let window = Window::new(from, ms(length));
            assert_eq!(window.end(from + ms(now), part), from + ms(expected), "{length} {now} {part}");
        }
    }

    #[test]
    fn a_worker_waits_for_requests_and_streams_each_as_long_as_they_may_take() {
        let patience = Patience { requests: ms(30), streams: ms(300) };
        for (waited, in_flight, streams, over) in [
            (0, 0, 0, true),
            (29, 1, 0, false),
            (30, 1, 0, true),
            (30, 2, 1, false),
            (299, 1, 1, false),
            (300, 1, 1, true),
            (299, 2, 1, false),
            // Counters are read one after the other: more streams than requests is possible for a moment.
            (0, 0, 1, false),
        ] {
            assert_eq!(
                patience.is_over(ms(waited), in_flight, streams),
                over,
                "{waited} {in_flight} {streams}"
            );
        }
        // The other way round.
        let patience = Patience { requests: ms(300), streams: ms(30) };
        assert!(patience.is_over(ms(30), 1, 1) && !patience.is_over(ms(30), 2, 1));
    }
}
