//! What the tests share: waiting for conditions, worker programs, servers.

pub(crate) mod etcd;
pub(crate) mod http;
pub(crate) mod relay;
pub(crate) mod switchman;

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a condition may take to come true; raise it on a slow machine.
pub(crate) fn patience() -> Duration {
    let ms = std::env::var("SWITCHMAN_TEST_PATIENCE_MS").ok().and_then(|v| v.parse().ok());
    Duration::from_millis(ms.unwrap_or(30_000))
}

/// Asks until the answer is there; panics with `what` when patience ends.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {:?} in vain: {what}", patience());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
