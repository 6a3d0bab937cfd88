//! How a connection gives an answer of ours: on the wire, in the log, and without a reset that would hide it.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::proxy::clock::ticks;
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{self, Answer, Cause, Manner, Refusal};
use crate::proxy::grpc;
use crate::proxy::h1::{lines, target};
use crate::proxy::handler::{After, Connection};
use crate::proxy::route::Request;
use crate::proxy::stamp::Stamp;
use crate::proxy::thread::Buffers;
use crate::registry::Version;

/// How long what a client still sends is read and thrown away, so that it sees our answer and no reset.
const LINGER: Duration = Duration::from_secs(5);

impl<S: Downstream> Connection<S> {
    /// Answers in the application's place.
    pub(super) async fn refuse(
        &mut self,
        refusal: &Refusal,
        request: Option<&Request>,
        version: Option<&str>,
        b: &mut Buffers,
    ) -> After {
        // What was not understood has no id yet.
        if self.client.wants_ids() {
            b.stamp.identify(&self.thread.ids, None);
        }
        let (id, client) = (b.stamp.id(), b.stamp.client);
        tracing::debug!(cause = refusal.cause.as_str(), detail = %refusal.detail, %client, id, "refused");
        // What follows a request that was not understood, or whose body was not read, cannot be understood.
        let whole = request.filter(|r| r.keep_alive && r.body.is_done() && !self.is_last_request());
        if version.is_none()
            && let Some(request) = whole
        {
            b.down.consume(request.length);
        }
        let manner = Manner {
            head_only: request.is_some_and(|r| r.is_head),
            close: whole.is_none(),
            http11: request.is_none_or(|r| r.http11),
        };
        b.response.clear();
        let mut answer = match request.and_then(|r| r.grpc) {
            Some(_) => grpc::answer(refusal, version),
            None => error::answer(refusal, version),
        };
        answer.headers.extend(b.stamp.id().map(|id| ("x-request-id", id.to_owned().into())));
        if request.is_some_and(|r| r.grpc.is_none()) {
            self.dress(&mut answer, refusal, &b.request);
        }
        self.io.answer(&answer, manner, &mut b.response);
        self.alarm.arm(self.thread.timeouts().body);
        let io = &mut self.io;
        let send = async {
            io.write_all(&b.response).await?;
            poll_fn(|cx| io.poll_finish(cx, &[])).await
        };
        match self.alarm.race(send).await {
            Some(Ok(())) if whole.is_some() => After::KeepAlive,
            Some(Ok(())) => After::Linger,
            _ => After::Close,
        }
    }

    /// Gives the answer the form that the request wishes whose head is `request`, on a page of its service.
    fn dress(&self, answer: &mut Answer, refusal: &Refusal, request: &[u8]) {
        let host = target::host(lines::values(request, "host").next().unwrap_or_default());
        let service = self.thread.with_routing(|r| Some(r.service_for_host(host)?.name.clone()));
        self.thread.pages.borrow().dress(answer, refusal, service.as_ref(), request);
    }

    /// Says what went wrong with a worker; at most one line a second.
    pub(super) fn log(&self, refusal: &Refusal, version: &Version, stamp: &Stamp) {
        if refusal.cause.status() >= 500 && self.thread.may_warn() {
            tracing::warn!(
                cause = refusal.cause.as_str(),
                detail = %refusal.detail,
                service = %version.service,
                version = %version.id,
                client = %stamp.client,
                id = stamp.id(),
                "a request failed"
            );
        }
    }

    /// Counts and says that the client left before it had its answer: for nobody but the operator.
    pub(super) fn log_gone(&self, version: &Version, stamp: &Stamp) {
        version.counters.record_gone(self.thread.slot);
        tracing::debug!(
            cause = Cause::ClientGone.as_str(),
            status = Cause::ClientGone.status(),
            service = %version.service,
            version = %version.id,
            client = %stamp.client,
            id = stamp.id(),
            "the client left"
        );
    }

    /// Closes our side and reads what the client still sends: unread bytes would make the kernel reset the
    /// connection, and the client might never see the answer.
    pub(super) async fn linger(&mut self, b: &mut Buffers) {
        self.alarm.arm(ticks(LINGER));
        if !matches!(self.alarm.race(self.io.shutdown()).await, Some(Ok(()))) {
            return;
        }
        loop {
            b.down.clear();
            let read = poll_fn(|cx| b.down.poll_fill(cx, &mut self.io));
            if !matches!(self.alarm.race(read).await, Some(Ok(1..))) {
                return;
            }
        }
    }
}
