//! The streams of one data-plane thread: what is open until somebody ends it, and when switchman does.
//!
//! A WebSocket, a response of server-sent events or a gRPC call holds a [`Stream`] while it is open. It stays on
//! its worker whatever becomes of rules, aliases and other versions. Only when its own worker is to stop, or
//! switchman itself, is it given the moment at which it ends ([`Window::end`]); its task is woken then, and ends
//! it in the way of its protocol:
//!
//! ```text
//! supervisor: Upstream::stops --registry changes--> look: each stream of it gets its end
//! run_thread: drain ------------------------------> every stream gets its end
//!             the end has come --> Stream::poll_end is ready --> upgrade (Close frames), exchange (after a whole part)
//! ```

pub(crate) mod events;
pub(crate) mod frames;
pub(crate) mod messages;
pub(crate) mod parts;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;
use tokio::sync::Notify;

use crate::drain::Window;
use crate::proxy::thread::Thread;
use crate::registry::Upstream;
use crate::routing::Live;

/// The open streams of one thread.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: RefCell<Slab<Rc<Entry>>>,
    /// The time in which all are to end, once switchman shuts down.
    shutdown: Cell<Option<Window>>,
    /// Told when a stream was given its end.
    scheduled: Notify,
}

#[derive(Debug)]
struct Entry {
    upstream: Arc<Upstream>,
    /// When it is to end; none while it may go on.
    end: Cell<Option<Instant>>,
    ending: Cell<bool>,
    /// Who wants to know of its end.
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    /// It is to end within `window`, if not before.
    fn end_within(&self, window: &Window, now: Instant) {
        let end = window.end(now, fastrand::f64());
        self.end.set(Some(self.end.get().map_or(end, |before| before.min(end))));
    }

    fn end_now(&self) {
        self.ending.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Streams {
    /// Gives each stream its end when there is a reason, and tells it when that has come; for as long as the
    /// thread runs.
    pub(crate) async fn run(&self, live: &Live) {
        let mut generations = live.watch();
        loop {
            generations.borrow_and_update();
            let next = self.look(Instant::now());
            let until_next = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = generations.changed() => {}
                () = self.scheduled.notified() => {}
                () = until_next => {}
            }
        }
    }

    /// All streams are to end within `window`.
    pub(crate) fn drain(&self, window: Window) {
        self.shutdown.set(Some(window));
        let now = Instant::now();
        self.open.borrow().iter().for_each(|(_, entry)| entry.end_within(&window, now));
        self.scheduled.notify_one();
    }

    /// Ends what is to end by `now`; answers when the next one is.
    fn look(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for (_, entry) in self.open.borrow().iter().filter(|(_, entry)| !entry.ending.get()) {
            if let (None, Some(window)) = (entry.end.get(), entry.upstream.stops.get()) {
                entry.end_within(window, now);
            }
            match entry.end.get() {
                Some(end) if end <= now => entry.end_now(),
                Some(end) => next = Some(next.map_or(end, |next| next.min(end))),
                None => {}
            }
        }
        next
    }
}

/// One open stream. It counts as such on its worker for as long as this lives.
#[derive(Debug)]
pub(crate) struct Stream {
    thread: Rc<Thread>,
    key: usize,
    entry: Rc<Entry>,
}

impl Stream {
    /// A response of `upstream` has become a stream.
    pub(crate) fn begin(thread: &Rc<Thread>, upstream: Arc<Upstream>) -> Self {
        upstream.streams.begin(thread.slot);
        let (end, ending, waker) = (Cell::new(None), Cell::new(false), RefCell::new(None));
        let entry = Rc::new(Entry { upstream, end, ending, waker });
        let streams = &thread.streams;
        let key = streams.open.borrow_mut().insert(entry.clone());
        // Its request was under way when its worker was told to stop.
        let windows = [entry.upstream.stops.get().copied(), streams.shutdown.get()];
        for window in windows.iter().flatten() {
            entry.end_within(window, Instant::now());
            streams.scheduled.notify_one();
        }
        Self { thread: thread.clone(), key, entry }
    }

    /// Whether it is to end now.
    pub(crate) fn is_ending(&self) -> bool {
        self.entry.ending.get()
    }

    /// Ready once it is to end; until then the task is woken for it.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_ending() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.thread.streams.open.borrow_mut().try_remove(self.key);
        self.entry.upstream.streams.end(self.thread.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Protocol;
    use crate::metrics::ThreadSlot;
    use crate::proxy::Settings;
    use crate::registry::Address;
    use crate::version::WorkerId;

    fn upstream(serial: u64) -> Arc<Upstream> {
        let address = Address::Unix("/nowhere".into());
        Arc::new(Upstream::new(serial, WorkerId(0), address, Protocol::Http1, 1))
    }

    /// A thread with 50 streams on one worker and one on another.
    fn streams() -> (Rc<Thread>, Vec<Stream>, Stream) {
        let thread = Rc::new(Thread::new(ThreadSlot(0), Settings::default(), Live::new()));
        let busy = upstream(1);
        let of_busy = (0..50).map(|_| Stream::begin(&thread, busy.clone())).collect();
        let other = Stream::begin(&thread, upstream(2));
        (thread, of_busy, other)
    }

    fn ending(streams: &[Stream]) -> usize {
        streams.iter().filter(|stream| stream.is_ending()).count()
    }

    #[test]
    fn the_streams_of_a_worker_that_stops_end_one_after_the_other() {
        let (thread, streams, other) = streams();
        let now = Instant::now();
        assert_eq!(thread.streams.look(now), None, "nothing is to end");
        let upstream = streams[0].entry.upstream.clone();
        assert_eq!(upstream.streams.now(), 50);
        upstream.stops.set(Window::new(now, Duration::from_secs(100))).unwrap();
        let mut moments = Vec::new();
        let mut next = thread.streams.look(now);
        while let Some(moment) = next {
            let before = ending(&streams);
            next = thread.streams.look(moment);
            moments.extend(std::iter::repeat_n(moment - now, ending(&streams) - before));
        }
        assert_eq!(moments.len(), 50);
        assert!(moments[0] >= Duration::from_secs(10) && moments[49] <= Duration::from_secs(95));
        assert!(moments[49] - moments[0] > Duration::from_secs(30), "they are spread: {moments:?}");
        assert!(!other.is_ending(), "its worker goes on");
        drop(streams);
        assert_eq!((upstream.streams.now(), thread.streams.open.borrow().len()), (0, 1));
        // A request that was under way becomes a stream only now.
        let late = Stream::begin(&thread, upstream);
        assert!(thread.streams.look(now + Duration::from_secs(95)).is_none() && late.is_ending());
    }

    #[test]
    fn at_shutdown_all_end_and_none_later_than_before() {
        let (thread, streams, other) = streams();
        let now = Instant::now();
        streams[0].entry.upstream.stops.set(Window::new(now, Duration::from_secs(1))).unwrap();
        thread.streams.look(now);
        thread.streams.drain(Window::new(now, Duration::from_secs(100)));
        thread.streams.look(now + Duration::from_secs(1));
        assert_eq!((ending(&streams), other.is_ending()), (50, false));
        thread.streams.look(now + Duration::from_secs(95));
        assert!(other.is_ending());
    }
}
