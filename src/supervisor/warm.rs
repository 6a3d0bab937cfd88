//! Asks a new worker for what it is to have done once before it takes requests: caches, compiled code, connections.
//!
//! A request that fails is noted, and the next one is sent. The worker has passed its readiness check, so that a warming
//! request which has become wrong (a path that is gone) must not keep a good version away from its traffic.

use tokio::time::{Instant, timeout_at};

use super::get::{Failure, Get};
use super::worker::{Launch, Report, Reporter};
use crate::registry::Address;

/// What the worker finds in its log.
const AGENT: &str = "switchman-warm";

/// Sends every request of `warm`, one after the other, until `deadline`.
pub(crate) async fn warm(launch: &Launch, address: &Address, deadline: Instant, reporter: &Reporter) {
    let spec = &launch.spec;
    for warm in &spec.life.warm {
        let get = Get { path: &warm.path, headers: &warm.headers, agent: AGENT, whole: true };
        let mut failure = None;
        for _ in 0..warm.times {
            match timeout_at(deadline, get.ask(address, spec.protocol)).await {
                Ok(Ok(status)) if !status.is_server_error() => {}
                Ok(Ok(status)) => {
                    let why = format!("GET {} answered {}", warm.path, status.as_u16());
                    failure = Some(Failure::Answered(why));
                }
                Ok(Err(why)) => failure = Some(why),
                Err(_) => {
                    let (path, deadline) = (&warm.path, spec.ready.deadline);
                    note(
                        launch,
                        &format!("GET {path} was not answered by the deadline of {deadline:?}"),
                        reporter,
                    )
                    .await;
                    return;
                }
            }
        }
        if let Some(failure) = failure {
            note(launch, &failure.to_string(), reporter).await;
        }
    }
}

/// Says what did not work, once a path.
async fn note(launch: &Launch, what: &str, reporter: &Reporter) {
    let who = &launch.who;
    tracing::warn!(service = %who.service, version = %who.version, worker = %who.worker, "warming: {what}");
    reporter.send(Report::Noted(format!("warming worker {}: {what}", who.worker))).await;
}
