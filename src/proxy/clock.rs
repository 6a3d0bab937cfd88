//! One coarse clock a thread: timeouts that cost a request no timer and no system call.
//!
//! A connection has one [`Alarm`]. Arming it writes one number; once a [`TICK`] the thread's clock looks at
//! all alarms and wakes the tasks whose time has come, which then see [`Alarm::expired`]. So a timeout is
//! never early and up to one tick late.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;
use tokio::sync::Notify;

/// How often alarms are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// An alarm that is not armed.
const NEVER: u64 = u64::MAX;

/// The clock of one thread.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Ticks since the thread's start.
    now: Cell<u64>,
    /// The same moment on both clocks, taken anew each tick: wall time follows corrections.
    anchor: Cell<(Instant, u64)>,
    alarms: RefCell<Slab<Rc<Entry>>>,
    /// Told each time an alarm is dropped: a connection has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Entry {
    /// Where it lies.
    key: usize,
    /// The tick at which it expires.
    due: Cell<u64>,
    /// Its task; none until that was polled for the first time.
    waker: OnceCell<Waker>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            now: Cell::new(0),
            anchor: Cell::new(anchor()),
            alarms: RefCell::new(Slab::new()),
            ended: Notify::new(),
        }
    }

    /// Ticks for ever; one task of the thread.
    pub(crate) async fn run(&self) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let start = Instant::now();
        loop {
            interval.tick().await;
            self.anchor.set(anchor());
            self.now.set((start.elapsed().as_millis() / TICK.as_millis()) as u64);
            self.wake(|entry| entry.due.get() <= self.now.get());
        }
    }

    /// Ticks since the start of the thread.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// The moment of the last tick, without asking the system.
    pub(crate) fn instant(&self) -> Instant {
        self.anchor.get().0
    }

    /// Milliseconds since 1970 at `instant`, without asking the system.
    pub(crate) fn wall_ms(&self, instant: Instant) -> u64 {
        let (then, wall) = self.anchor.get();
        wall + instant.saturating_duration_since(then).as_millis() as u64
    }

    /// Wakes every connection, so that it sees that the thread drains.
    pub(crate) fn wake_all(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, which: impl Fn(&Entry) -> bool) {
        for (_, entry) in self.alarms.borrow().iter().filter(|(_, entry)| which(entry)) {
            if let Some(waker) = entry.waker.get() {
                waker.wake_by_ref();
            }
        }
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.alarms.borrow().len()
    }

    /// Waits until at most `most` connections are open.
    pub(crate) async fn at_most(&self, most: usize) {
        while self.open() > most {
            self.ended.notified().await;
        }
    }
}

/// How many ticks a duration is, at least: the current tick has already begun.
pub(crate) fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(NEVER).saturating_add(1)
}

/// The longest duration that takes this many ticks.
pub(crate) fn duration(ticks: u32) -> Duration {
    TICK.saturating_mul(ticks.saturating_sub(1))
}

fn anchor() -> (Instant, u64) {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), wall.as_millis() as u64)
}

/// Implemented by what owns a [`Clock`], so that an alarm can find it.
pub(crate) trait HasClock {
    fn clock(&self) -> &Clock;
}

/// The one deadline of one connection; its task is woken when it passes.
pub(crate) struct Alarm<T: HasClock> {
    owner: Rc<T>,
    entry: Rc<Entry>,
}

impl<T: HasClock> Alarm<T> {
    /// An alarm that is not armed. From here on its connection counts as open.
    pub(crate) fn new(owner: Rc<T>) -> Self {
        let mut alarms = owner.clock().alarms.borrow_mut();
        let place = alarms.vacant_entry();
        let entry = Rc::new(Entry { key: place.key(), due: Cell::new(NEVER), waker: OnceCell::new() });
        place.insert(entry.clone());
        drop(alarms);
        Self { owner, entry }
    }

    /// Makes the calling task the one that is woken; the alarm must be used in this task only.
    pub(crate) async fn attach(&self) {
        poll_fn(|cx| {
            self.entry.waker.get_or_init(|| cx.waker().clone());
            Poll::Ready(())
        })
        .await;
    }

    /// Sets the deadline anew, `ticks` from now (see [`ticks`]).
    pub(crate) fn arm(&self, ticks: u64) {
        self.entry.due.set(self.owner.clock().now().saturating_add(ticks));
    }

    /// Whether the deadline has passed.
    pub(crate) fn expired(&self) -> bool {
        self.entry.due.get() <= self.owner.clock().now()
    }

    /// The future's output, or none if the deadline passes first.
    pub(crate) async fn race<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl<T: HasClock> Drop for Alarm<T> {
    fn drop(&mut self) {
        let clock = self.owner.clock();
        clock.alarms.borrow_mut().try_remove(self.entry.key);
        clock.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early() {
        for (ms, expected) in [(0, 1), (1, 2), (250, 2), (251, 3), (60_000, 241)] {
            assert_eq!(ticks(Duration::from_millis(ms)), expected, "{ms} ms");
        }
        assert_eq!(ticks(Duration::MAX), NEVER);
        assert_eq!(duration(3), Duration::from_millis(500));
    }

    struct Owner(Clock);

    impl HasClock for Owner {
        fn clock(&self) -> &Clock {
            &self.0
        }
    }

    #[tokio::test]
    async fn an_alarm_ends_what_it_guards_and_counts_its_connection() {
        let owner = Rc::new(Owner(Clock::new()));
        let alarm = Alarm::new(owner.clone());
        alarm.attach().await;
        assert_eq!(owner.0.open(), 1);
        assert!(!alarm.expired(), "it is not armed");
        alarm.arm(1);
        tokio::select! {
            () = owner.0.run() => {}
            raced = alarm.race(std::future::pending::<()>()) => assert_eq!(raced, None),
        }
        assert!(owner.0.now() >= 1);
        alarm.arm(1);
        assert_eq!(alarm.race(async { 7 }).await, Some(7));
        drop(alarm);
        owner.0.at_most(0).await;
    }
}
