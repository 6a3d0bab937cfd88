//! One connection of a client: its requests, one after the other. The steps are numbered as in [`super`].

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proxy::client::Client;
use crate::proxy::clock::{Alarm, ticks};
use crate::proxy::downstream::{Downstream, Http1};
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::exchange::Failure;
use crate::proxy::h2;
use crate::proxy::route::{self, Request, Route};
use crate::proxy::thread::{Buffers, Thread};
use crate::registry::Version;
use crate::routing::NoVersion;

/// How long a connection that is new when draining begins may take to send its request.
pub(super) const DRAIN_FIRST: Duration = Duration::from_secs(1);
/// What becomes of the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It waits for the next.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed once the client has stopped sending.
    Linger,
    /// It goes on as HTTP/2.
    Http2,
}

/// One connection of a client, or one stream of one.
pub(crate) struct Connection<S> {
    pub(crate) thread: Rc<Thread>,
    pub(crate) io: S,
    pub(crate) alarm: Alarm<Thread>,
    pub(crate) client: Rc<Client>,
    pub(crate) life: Life,
}

/// How long a connection has lived.
#[derive(Debug)]
pub(crate) struct Life {
    /// The tick at which it began.
    began: u64,
    /// Its requests, with the one that is under way.
    requests: u32,
}

impl Life {
    pub(crate) fn new(thread: &Thread) -> Self {
        Self { began: thread.clock.now(), requests: 0 }
    }

    /// Another request has begun.
    pub(crate) fn count(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// For how many more ticks it may take new requests.
    pub(crate) fn left(&self, thread: &Thread) -> u64 {
        thread.timeouts.age.saturating_sub(thread.clock.now() - self.began)
    }

    /// It is too old, or has had all of its requests.
    pub(crate) fn is_over(&self, thread: &Thread) -> bool {
        let most = thread.settings.requests_per_connection;
        most > 0 && self.requests >= most || self.left(thread) == 0
    }
}

/// A request that leads to a version.
pub(crate) struct Planned {
    pub(crate) request: Request,
    pub(crate) version: Arc<Version>,
    /// The value of a `Set-Cookie`, where an id was assigned.
    pub(crate) cookie: Option<String>,
}

/// Why a request leads to none.
enum Unplanned {
    /// The client has left.
    Gone,
    /// It gets an answer of ours; the request is there if it was understood.
    Refused(Refusal, Option<Request>),
}

/// What a look at a request's bytes finds.
enum Look {
    /// Where it goes, or why nowhere.
    Done(Result<Planned, Unplanned>),
    /// Its version is worth waiting for.
    Wait(NoVersion, Request),
    /// Its version sleeps or is being woken.
    Asleep(Arc<Version>, Request),
    /// The head is not whole.
    More,
}

/// What an idle connection sees next.
enum Next {
    /// The first bytes of a request.
    Request(Box<Buffers>),
    /// The client has left, or the connection was idle for too long.
    End,
    /// Draining has begun.
    Drain,
}

/// Serves one connection until it ends. No `async fn`, which would hold what it is given twice.
pub(crate) fn serve<S>(
    thread: Rc<Thread>,
    alarm: Alarm<Thread>,
    io: S,
    client: Rc<Client>,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let life = Life::new(&thread);
    let mut connection = Connection { thread, io: Http1(io), alarm, client, life };
    async move {
        connection.alarm.attach().await;
        let mut is_new = true;
        while let Some(mut buffers) = connection.first_bytes(is_new).await {
            // Boxed, so that a connection without a request is small: it waits longer than it works, and by the
            // thousand.
            let after = Box::pin(connection.requests(&mut buffers)).await;
            if after == After::Http2 && is_new {
                let first = Bytes::copy_from_slice(buffers.down.filled());
                connection.thread.give_back(buffers);
                let Connection { thread, io: Http1(io), alarm, client, life: _ } = connection;
                return Box::pin(h2::serve(thread, alarm, io, client, first)).await;
            }
            connection.thread.give_back(buffers);
            if after != After::KeepAlive {
                return;
            }
            is_new = false;
        }
    }
}

impl<S: Downstream> Connection<S> {
    /// Waits for the first bytes of a request; none when the connection is to end. Holds no buffers meanwhile.
    async fn first_bytes(&mut self, is_new: bool) -> Option<Box<Buffers>> {
        let timeouts = &self.thread.timeouts;
        self.alarm.arm(if is_new { timeouts.head } else { timeouts.idle });
        let mut told_to_drain = false;
        loop {
            match poll_fn(|cx| self.poll_next(cx, told_to_drain)).await {
                Next::Request(buffers) => return Some(buffers),
                Next::End => return None,
                Next::Drain => told_to_drain = true,
            }
            // A request may be on its way. A new connection was made to send one; an old one is asked once
            // more, after tokio has looked what has arrived.
            if is_new {
                self.alarm.arm(ticks(DRAIN_FIRST));
            } else {
                self.alarm.arm(0);
                tokio::task::yield_now().await;
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, told_to_drain: bool) -> Poll<Next> {
        let thread = &self.thread;
        let mut buffers = thread.take_buffers();
        let polled = buffers.down.poll_fill(cx, &mut self.io);
        if let Poll::Ready(Ok(1..)) = polled {
            return Poll::Ready(Next::Request(buffers));
        }
        thread.give_back(buffers);
        match polled {
            Poll::Pending if self.alarm.expired() => Poll::Ready(Next::End),
            Poll::Pending if thread.draining.get() && !told_to_drain => Poll::Ready(Next::Drain),
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(Next::End),
        }
    }

    /// The requests whose first bytes are in `b.down`, one after the other, until it is empty or the connection ends.
    async fn requests(&mut self, b: &mut Buffers) -> After {
        let mut is_first = true;
        loop {
            match self.request(b).await {
                After::KeepAlive if b.down.is_empty() => return After::KeepAlive,
                After::KeepAlive => is_first = false,
                After::Http2 if is_first => return After::Http2,
                After::Linger => {
                    self.linger(b).await;
                    return After::Close;
                }
                After::Close | After::Http2 => return After::Close,
            }
        }
    }

    /// The life of one request whose first bytes are in `b.down`.
    pub(super) async fn request(&mut self, b: &mut Buffers) -> After {
        // 1-3: to a version.
        let started = Instant::now();
        b.stamp.begin(self.client.ip, self.thread.clock.wall_ms(started));
        self.life.count();
        let planned = match self.plan(b).await {
            Ok(planned) => planned,
            Err(after) => return after,
        };
        b.down.consume(planned.request.length);
        // 4-9: to a worker and back.
        let (is_error, after) = match self.exchange(&planned, b).await {
            Ok((status, after)) => (status >= 500, after),
            Err(failure) => Box::pin(self.fail(failure, &planned, b)).await,
        };
        // 10: counted.
        let now = Instant::now();
        let now_ms = self.thread.clock.wall_ms(now);
        planned.version.counters.record(self.thread.slot, is_error, now - started, now_ms);
        after
    }

    /// What becomes of the connection after a request that leads to no version.
    async fn turn_away(&mut self, unplanned: Unplanned, b: &mut Buffers) -> After {
        match unplanned {
            Unplanned::Gone => After::Close,
            Unplanned::Refused(refusal, _)
                if refusal.cause == Cause::HttpVersion && h2::is_preface(b.down.filled()) =>
            {
                After::Http2
            }
            Unplanned::Refused(refusal, request) => self.refuse(&refusal, request.as_ref(), None, b).await,
        }
    }

    /// Ends an exchange that went wrong. Also whether that was an error of the version.
    async fn fail(&mut self, failure: Failure, planned: &Planned, b: &mut Buffers) -> (bool, After) {
        let version = &planned.version;
        match failure {
            Failure::Gone => {
                self.log_gone(version, &b.stamp);
                (false, After::Close)
            }
            Failure::Cut(refusal, code) => {
                self.io.abort(code);
                self.log(&refusal, version, &b.stamp);
                (true, After::Close)
            }
            Failure::Refused(refusal) => {
                self.log(&refusal, version, &b.stamp);
                let name = Some(version.id.as_str());
                let after = self.refuse(&refusal, Some(&planned.request), name, b).await;
                (refusal.cause.status() >= 500, after)
            }
        }
    }

    /// Whether the connection ends with the answer to this request.
    pub(super) fn is_last_request(&self) -> bool {
        self.thread.draining.get() || self.life.is_over(&self.thread)
    }

    /// Steps 1 to 3: a request that leads to a version; else what becomes of the connection after it.
    async fn plan(&mut self, b: &mut Buffers) -> Result<Planned, After> {
        match self.find(b).await {
            Ok(planned) => Ok(planned),
            Err(unplanned) => Err(Box::pin(self.turn_away(unplanned, b)).await),
        }
    }

    /// Reads until the head is whole, and finds its version.
    async fn find(&mut self, b: &mut Buffers) -> Result<Planned, Unplanned> {
        self.alarm.arm(self.thread.timeouts.head);
        loop {
            match self.look(b, true) {
                Look::Done(planned) => return planned,
                Look::Wait(..) | Look::Asleep(..) => return Box::pin(self.wait(b)).await,
                Look::More => {}
            }
            self.more_of_head(b).await?;
        }
    }

    /// What the bytes in `b.down` lead to at this moment; `patient` ones to a version that sleeps, too.
    fn look(&self, b: &mut Buffers, patient: bool) -> Look {
        let without_length = self.io.body_without_length();
        let (request, stamp) = (&mut b.request, &mut b.stamp);
        let bytes = b.down.filled();
        match route::plan(&self.thread, &self.client, bytes, without_length, request, stamp, patient) {
            Ok(None) => Look::More,
            Ok(Some((request, Route::To { version, cookie }))) => {
                Look::Done(Ok(Planned { request, version, cookie }))
            }
            Ok(Some((request, Route::Wait(reason)))) => Look::Wait(reason, request),
            Ok(Some((request, Route::Asleep(version)))) => Look::Asleep(version, request),
            Ok(Some((request, Route::Nowhere(refusal)))) => {
                Look::Done(Err(Unplanned::Refused(refusal, Some(request))))
            }
            Err(refusal) => Look::Done(Err(Unplanned::Refused(refusal, None))),
        }
    }

    /// Waits for the version that the request in `b.down` is for: because its rule says so, or until it is awake.
    async fn wait(&self, b: &mut Buffers) -> Result<Planned, Unplanned> {
        // Subscribed before the first look, so that no change is missed.
        let mut changes = self.thread.live.watch();
        let mut woken: Option<Arc<Version>> = None;
        let mut armed = false;
        loop {
            let (timeout, request) = match (self.look(b, true), &woken) {
                (Look::Asleep(version, request), _) => {
                    let refusal = route::wake_timeout(&version);
                    woken = Some(version);
                    (refusal, request)
                }
                // It was to be woken, and now is neither ready nor on its way.
                (Look::Wait(_, request), Some(version)) => {
                    return Err(Unplanned::Refused(self.not_woken(version), Some(request)));
                }
                (Look::Done(Err(Unplanned::Refused(refusal, request))), Some(version))
                    if refusal.cause.status() == 503 =>
                {
                    return Err(Unplanned::Refused(self.not_woken(version), request));
                }
                (Look::Wait(reason, request), None) => {
                    let waited = self.thread.settings.wait_timeout;
                    let detail = format!("waited {waited:?} in vain for the version of this request");
                    (Refusal::new(reason.into(), detail), request)
                }
                (Look::Done(planned), _) => return planned,
                (Look::More, _) => return Err(Unplanned::Gone),
            };
            if !armed {
                armed = true;
                let wake = woken.as_ref().and_then(|version| version.wake.as_ref());
                self.alarm.arm(wake.map_or(self.thread.timeouts.wait, |wake| ticks(wake.within)));
            }
            if !matches!(self.alarm.race(changes.changed()).await, Some(Ok(()))) {
                // `unavailable: current` may still lead somewhere.
                return match self.look(b, false) {
                    Look::Done(Ok(planned)) => Ok(planned),
                    _ => Err(Unplanned::Refused(timeout, Some(request))),
                };
            }
        }
    }

    /// Why a version that was to be woken is not.
    fn not_woken(&self, version: &Version) -> Refusal {
        route::wake_failed(version, self.thread.version_now(version).as_deref())
    }

    /// Reads until there is another line of the head: without one, parsing again would find nothing.
    async fn more_of_head(&mut self, b: &mut Buffers) -> Result<(), Unplanned> {
        loop {
            if b.down.is_full() && !b.down.grow(self.thread.settings.head_bytes + 1) {
                let refusal = Refusal::new(Cause::HeadTooLarge, "the request head is too large");
                return Err(Unplanned::Refused(refusal, None));
            }
            let before = b.down.filled().len();
            match self.alarm.race(poll_fn(|cx| b.down.poll_fill(cx, &mut self.io))).await {
                Some(Ok(1..)) => {}
                Some(_) => return Err(Unplanned::Gone),
                None => {
                    let refusal =
                        Refusal::new(Cause::RequestTimeout, "the request head did not arrive in time");
                    return Err(Unplanned::Refused(refusal, None));
                }
            }
            let all = b.down.filled();
            if all[before..].contains(&b'\n') || all.len() > self.thread.settings.uri_bytes {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::metrics::ThreadSlot;
    use crate::proxy::Settings;
    use crate::routing::Live;

    /// Ten thousand idle connections are ten thousand of these futures. With what tokio adds to each, it fills the
    /// 256 bytes that a task takes at the least.
    #[tokio::test]
    async fn the_state_of_a_connection_stays_small() {
        let thread = Rc::new(Thread::new(ThreadSlot(0), Settings::default(), Live::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let alarm = Alarm::new(thread.clone());
        let client = Client::new([127, 0, 0, 1].into(), &Rc::default());
        let serving = serve(thread, alarm, io, Rc::new(client));
        assert!(size_of_val(&serving) <= 160, "{} bytes", size_of_val(&serving));
    }
}
