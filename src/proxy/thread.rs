//! What the tasks of one data-plane thread share. Nothing in here is ever locked or seen by another thread.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use crate::metrics::ThreadSlot;
use crate::proxy::body::ahead::Share;
use crate::proxy::clock::{Clock, HasClock, ticks};
use crate::proxy::h1::buf::Buf;
use crate::proxy::limits::Settings;
use crate::proxy::pages::Pages;
use crate::proxy::per_client::PerClient;
use crate::proxy::remembered::{Gates, Remembered};
use crate::proxy::stamp::{Ids, Stamp};
use crate::proxy::streams::Streams;
use crate::proxy::upstream::Pool;
use crate::routing::{Live, Routing};

/// Buffer sets kept for reuse; what a burst needed beyond that is given back to the allocator.
const BUFFERS_KEPT: usize = 512;
/// How often idle connections to workers are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// A written head larger than this was an exception; its buffer is not kept.
const HEAD_KEPT: usize = 128 * 1024;

/// The four buffers of a request on its way. A connection that waits for its next request has none.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Read from the client.
    pub(crate) down: Buf,
    /// Read from the worker.
    pub(crate) up: Buf,
    /// Written to the worker: the head, and what of the body came with it.
    pub(crate) request: Vec<u8>,
    /// Written to the client.
    pub(crate) response: Vec<u8>,
    /// What the request is stamped with.
    pub(crate) stamp: Stamp,
}

impl Buffers {
    fn new() -> Self {
        Self {
            down: Buf::new(),
            up: Buf::new(),
            request: Vec::new(),
            response: Vec::new(),
            stamp: Stamp::default(),
        }
    }
}

/// Lets `arc_swap::Cache` look into a shared [`Live`].
#[derive(Debug)]
struct LiveCell(Arc<Live>);

impl Deref for LiveCell {
    type Target = ArcSwap<Routing>;

    fn deref(&self) -> &Self::Target {
        self.0.cell()
    }
}

/// Timeouts in ticks of the clock, so that arming one is an addition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) head: u64,
    pub(crate) idle: u64,
    pub(crate) connect: u64,
    pub(crate) first_byte: u64,
    pub(crate) body: u64,
    pub(crate) tunnel: u64,
    pub(crate) wait: u64,
    /// The greatest age of a connection.
    pub(crate) age: u64,
}

impl Timeouts {
    fn new(settings: &Settings) -> Self {
        Self {
            head: ticks(settings.head_timeout),
            idle: ticks(settings.idle_timeout),
            connect: ticks(settings.connect_timeout),
            first_byte: ticks(settings.first_byte_timeout),
            body: ticks(settings.body_timeout),
            tunnel: ticks(settings.tunnel_timeout),
            wait: ticks(settings.wait_timeout),
            age: if settings.connection_age.is_zero() { u64::MAX } else { ticks(settings.connection_age) },
        }
    }
}

/// One data-plane thread.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its place in the counters.
    pub(crate) slot: ThreadSlot,
    /// A reload replaces it as a whole; whoever looked keeps what was.
    settings: RefCell<Rc<Settings>>,
    timeouts: Cell<Timeouts>,
    pub(crate) live: Arc<Live>,
    pub(crate) clock: Clock,
    pub(crate) pool: RefCell<Pool>,
    /// What its bodies may hold.
    pub(crate) share: Share,
    /// Shared by the responses that are being compressed, which are counted so.
    pub(crate) compressing: Rc<()>,
    /// What answers of ours look like.
    pub(crate) pages: RefCell<Pages>,
    /// Makes the ids of requests.
    pub(crate) ids: Ids,
    pub(crate) remembered: RefCell<Remembered>,
    pub(crate) clients: RefCell<PerClient>,
    pub(crate) streams: Streams,
    /// No new requests: connections end as soon as they are idle.
    pub(crate) draining: Cell<bool>,
    /// How many ticks an idle connection then waits for one more request, its last; 0: it is only asked once more.
    pub(crate) drain_idle: Cell<u64>,
    routing: RefCell<Cache<LiveCell, Arc<Routing>>>,
    #[allow(clippy::vec_box, reason = "a set moves often: to a connection and back, as one pointer")]
    buffers: RefCell<Vec<Box<Buffers>>>,
    turn: Cell<u64>,
    /// The tick of the last warning, so that a dead worker does not flood the log.
    warned: Cell<Option<u64>>,
}

impl HasClock for Thread {
    fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Thread {
    /// A thread that is alone.
    #[cfg(test)]
    pub(crate) fn new(slot: ThreadSlot, settings: Settings, live: Arc<Live>) -> Self {
        Self::with_gates(slot, settings, live, Arc::default(), Pages::default())
    }

    /// One of several threads, which share `gates` and `pages`.
    pub(crate) fn with_gates(
        slot: ThreadSlot,
        settings: Settings,
        live: Arc<Live>,
        gates: Arc<Gates>,
        pages: Pages,
    ) -> Self {
        Self {
            slot,
            timeouts: Cell::new(Timeouts::new(&settings)),
            clock: Clock::new(),
            pool: RefCell::new(Pool::new(&settings)),
            share: Share::default(),
            compressing: Rc::default(),
            pages: RefCell::new(pages),
            ids: Ids::new(),
            remembered: RefCell::new(Remembered::new(slot, gates)),
            clients: RefCell::new(PerClient::new(&settings)),
            streams: Streams::default(),
            draining: Cell::new(false),
            drain_idle: Cell::new(0),
            routing: RefCell::new(Cache::new(LiveCell(live.clone()))),
            buffers: RefCell::new(Vec::new()),
            turn: Cell::new(fastrand::u64(..)),
            warned: Cell::new(None),
            settings: RefCell::new(Rc::new(settings)),
            live,
        }
    }

    /// The limits in force.
    pub(crate) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// The timeouts in force.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts.get()
    }

    /// From now on, these limits and pages.
    pub(crate) fn reconfigure(&self, settings: Settings, pages: Pages) {
        self.timeouts.set(Timeouts::new(&settings));
        self.pool.borrow_mut().reconfigure(&settings);
        self.clients.borrow_mut().reconfigure(&settings);
        self.settings.replace(Rc::new(settings));
        self.pages.replace(pages);
    }

    /// Begins each second of the retry budgets; for as long as the thread runs.
    pub(crate) async fn count_seconds(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.remembered.borrow_mut().next_second();
        }
    }

    /// Looks at the snapshot of this moment.
    pub(crate) fn with_routing<R>(&self, look: impl FnOnce(&Routing) -> R) -> R {
        look(self.routing.borrow_mut().load())
    }

    pub(crate) fn take_buffers(&self) -> Box<Buffers> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Box::new(Buffers::new()))
    }

    pub(crate) fn give_back(&self, mut buffers: Box<Buffers>) {
        let mut kept = self.buffers.borrow_mut();
        let ordinary = !buffers.down.is_oversized()
            && !buffers.up.is_oversized()
            && buffers.request.capacity().max(buffers.response.capacity()) <= HEAD_KEPT;
        if ordinary && kept.len() < BUFFERS_KEPT {
            buffers.down.clear();
            buffers.up.clear();
            kept.push(buffers);
        }
    }

    /// Another number each time: whose turn it is among equals.
    pub(crate) fn turn(&self) -> u64 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Whether a warning may be logged: about one a second.
    pub(crate) fn may_warn(&self) -> bool {
        let now = self.clock.now();
        let may = self.warned.get().is_none_or(|last| now >= last + ticks(Duration::from_secs(1)));
        if may {
            self.warned.set(Some(now));
        }
        may
    }

    /// Keeps the idle connections to those workers that take requests; for as long as the thread runs.
    pub(crate) async fn follow_registry(&self) {
        let mut generations = self.live.watch();
        loop {
            generations.borrow_and_update();
            let routing = self.live.load();
            self.pool.borrow_mut().sync(&routing);
            self.remembered.borrow_mut().sync(&routing);
            if generations.changed().await.is_err() {
                return;
            }
        }
    }

    /// Closes connections to workers that were idle for too long; for as long as the thread runs.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.pool.borrow_mut().sweep(self.clock.now());
        }
    }
}
