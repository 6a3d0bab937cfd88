//! The data plane: takes each request to a worker of the version that the rules choose.
//!
//! # The life of a request
//!
//! Each thread has its own listener, runtime, idle connections and counters; a request never leaves its thread.
//! The numbers are those in [`handler`] (1-3, 10), [`ask`] (4-7) and [`exchange`] (8-9).
//!
//! ```text
//!  client --1 read head--> 2 parse, check --> 3 snapshot: host -> service -> rules -> version (route)
//!            7 watch           400, 431 ..        421, 503                    | wait for it, if the rule says so
//!     ^                                                                       v
//!     |               4 the better of two ready workers (balance), or a place in line (place, queue) <--+
//!     |                                                                       v                           |
//!     |                                   5 idle connection, or a new one (upstream) --refused: the next--+
//!     |                                                                       v                           |
//!     |                          6 write head and body so far in one go; pump the rest (h1::pump)         |
//!     |                                                                       v                           |
//!     |                          7 first bytes of the answer --died unanswered: again, if that is safe----+
//!     |                                                                       v
//!     +--- 9 pump the body ----- 8 head rewritten (headers), first body bytes with it; 101 -> upgrade
//!                                10 count; keep both connections, or close them
//! ```
//!
//! Which workers fail ([`health`]) and how often it may be done again ([`budget`]) a thread remembers in
//! [`remembered`].
//!
//! Invariants: no lock (but that of the line, where a version has `max_in_flight`), no boxed body, no timer and no formatting on this way; one read and one write on each
//! side of an ordinary request. Nothing is sent to a worker that was not understood in the one way there is.
//! Every answer that is not the worker's says so ([`error`]).
//!
//! What comes before HTTP (PROXY headers, TLS) is in [`front`]; whom a request comes from is in [`client`].
//!
//! HTTP/1 as bytes is [`h1`] alone. Its text is the inner form of every head, so that the same way serves
//! every client; where HTTP/2 ([`h2`](mod@h2)) differs is [`downstream`] and [`ends`]. A worker that speaks
//! HTTP/2 is given that text too, by a stream that translates it ([`upstream::h2c`]).

pub(crate) mod ask;
pub(crate) mod balance;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod doors;
pub(crate) mod downstream;
pub(crate) mod ends;
/// The answers that switchman makes itself.
pub mod error;
pub(crate) mod exchange;
pub(crate) mod front;
pub(crate) mod grpc;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod handler;
pub(crate) mod headers;
pub(crate) mod health;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod pages;
pub(crate) mod per_client;
pub(crate) mod place;
pub(crate) mod queue;
pub(crate) mod refuse;
pub(crate) mod remembered;
pub(crate) mod route;
pub(crate) mod stamp;
pub(crate) mod streams;
pub(crate) mod thread;
pub(crate) mod upgrade;
pub(crate) mod upstream;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};

use crate::drain::Window;
use crate::metrics::ThreadSlot;
use crate::proxy::clock::ticks;
use crate::proxy::doors::{Doors, Plan};
use crate::proxy::remembered::Gates;
use crate::proxy::thread::Thread;
use crate::routing::Live;

pub use crate::proxy::front::{Door, Front, Inside, Tls};
pub use crate::proxy::limits::{Settings, raise_open_files};
pub use crate::proxy::listener::{BindError, Listeners, bind, bind_front, bind_or_take};
pub use crate::proxy::pages::Pages;

/// A thread of the data plane could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the data-plane thread {thread}: {source}")]
pub struct StartError {
    /// Its number, from 0.
    pub thread: usize,
    /// What the system said.
    pub source: io::Error,
}

/// The running data plane.
#[derive(Debug)]
pub struct ProxyHandle {
    drain: watch::Sender<Option<Drain>>,
    /// One a thread: what it is to do from now on.
    plans: Vec<mpsc::UnboundedSender<Plan>>,
    /// One a thread: how many connections it had to cut in the end. The sender's loss means it has ended.
    ended: Vec<watch::Receiver<Option<usize>>>,
}

/// How the threads end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drain {
    /// What is open after this is cut.
    deadline: Duration,
    /// How long an idle connection may wait for one more request, its last.
    idle: Duration,
}

/// How draining went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open at the deadline and were cut.
    pub cut: usize,
}

/// Starts one thread for each of the listeners' threads, named `proxy-N`, counting in `ThreadSlot(N)`. Answers of
/// ours look as `pages` say.
///
/// # Errors
/// The system refuses a thread or its event queue.
pub fn start(
    listeners: Listeners,
    live: &Arc<Live>,
    settings: &Settings,
    pages: &Pages,
) -> Result<ProxyHandle, StartError> {
    let (drain, _) = watch::channel(None);
    let mut handle = ProxyHandle { drain, plans: Vec::new(), ended: Vec::new() };
    let gates = Arc::<Gates>::default();
    for (number, plan) in Plan::for_threads(listeners, settings, pages).into_iter().enumerate() {
        let (live, gates) = (live.clone(), gates.clone());
        let drain = handle.drain.subscribe();
        let (plans, planned) = mpsc::unbounded_channel();
        let (ended, when_ended) = watch::channel(None);
        let (started, when_started) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || match runtime() {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    let Plan { settings, pages, doors } = plan;
                    let thread = Thread::with_gates(ThreadSlot(number), settings, live, gates, pages);
                    let thread = Rc::new(thread);
                    let cut = runtime.block_on(run_thread(thread, doors, planned, drain));
                    drop(runtime);
                    ended.send_replace(Some(cut));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .and_then(|_| when_started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
            .map_err(|source| StartError { thread: number, source })?;
        handle.plans.push(plans);
        handle.ended.push(when_ended);
    }
    Ok(handle)
}

impl ProxyHandle {
    /// Stops accepting (what the kernel has queued is still served), closes idle connections, lets requests
    /// end, and ends streams one after the other. What is open after `deadline` is cut; then the threads end.
    pub fn drain(&self, deadline: Duration) -> impl Future<Output = Drained> + Send + use<> {
        self.end(Drain { deadline, idle: Duration::ZERO })
    }

    /// Likewise, where another process accepts from the same sockets: an idle connection is closed with the answer
    /// to its next request, or when it had half of the time without one. So no request meets a connection that is
    /// being closed while its client is busy.
    pub fn give_way(&self, deadline: Duration) -> impl Future<Output = Drained> + Send + use<> {
        self.end(Drain { deadline, idle: deadline / 2 })
    }

    /// From now on these limits, pages and addresses. What stays the same is not touched; connections go on.
    /// `listeners` are for as many threads as there are.
    pub fn reconfigure(&self, listeners: Listeners, settings: &Settings, pages: &Pages) {
        for (plan, thread) in Plan::for_threads(listeners, settings, pages).into_iter().zip(&self.plans) {
            // It may have ended.
            let _ = thread.send(plan);
        }
    }

    fn end(&self, how: Drain) -> impl Future<Output = Drained> + Send + use<> {
        self.drain.send_if_modified(|drain| drain.replace(how).is_none());
        let threads = self.ended.clone();
        async move {
            let mut cut = 0;
            for mut thread in threads {
                cut += thread.wait_for(Option::is_some).await.ok().and_then(|cut| *cut).unwrap_or(0);
            }
            Drained { cut }
        }
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}

/// The whole life of one thread; returns how many connections it had to cut.
async fn run_thread(
    thread: Rc<Thread>,
    first: Vec<doors::Door>,
    mut plans: mpsc::UnboundedReceiver<Plan>,
    mut drain: watch::Receiver<Option<Drain>>,
) -> usize {
    let mut doors = Doors::new(thread.clone());
    doors.set(first);
    let ticking = thread.clone();
    tokio::task::spawn_local(async move { ticking.clock.run().await });
    let following = thread.clone();
    tokio::task::spawn_local(async move { following.follow_registry().await });
    let ending = thread.clone();
    tokio::task::spawn_local(async move { ending.streams.run(&ending.live).await });
    let sweeping = thread.clone();
    tokio::task::spawn_local(async move { sweeping.sweep().await });
    let counting = thread.clone();
    tokio::task::spawn_local(async move { counting.count_seconds().await });

    let drain = loop {
        tokio::select! {
            biased;
            drain = drain.wait_for(Option::is_some) => break drain.ok().and_then(|drain| *drain),
            Some(Plan { settings, pages, doors: new }) = plans.recv() => {
                thread.reconfigure(settings, pages);
                doors.set(new);
            }
        }
    };
    // Without a handle nobody could ask for a graceful end any more.
    let Drain { deadline, idle } = drain.unwrap_or(Drain { deadline: Duration::ZERO, idle: Duration::ZERO });
    thread.draining.set(true);
    thread.drain_idle.set(if idle.is_zero() { 0 } else { ticks(idle) });
    thread.streams.drain(Window::new(Instant::now(), deadline));
    doors.close().await;
    thread.clock.wake_all();
    let _ = tokio::time::timeout(deadline, thread.clock.at_most(0)).await;
    thread.pool.borrow_mut().clear();
    thread.clock.open()
}
