//! Waits until a worker is ready: its own process listens on its port, and its check passes.
//!
//! Before a check is believed, `/proc` is asked who listens: a port can be taken by somebody else between the
//! moment it was picked and the moment the worker wants it, and requests must never be sent there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::health;
use super::tree::{Listener, Tree};
use super::worker::{Report, Reporter};
use crate::config::{Ready, ReadyCheck};

/// A tree that the blocking threads look at in turn.
pub(crate) type SharedTree = Arc<Mutex<Tree>>;

/// How often it is looked for where a worker listens that does not listen on its port.
const LOOK_ELSEWHERE_EVERY: Duration = Duration::from_secs(1);

/// How the wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The worker is ready.
    Ready,
    /// The deadline is over, and why it was not ready by then.
    Late(String),
    /// Somebody else listens on the port.
    PortTaken,
}

/// Checks until there is a verdict. Reports what stands in the way, where that is worth
/// knowing already.
pub(crate) async fn wait(
    ready: &Ready,
    address: SocketAddr,
    tree: &SharedTree,
    reporter: &Reporter,
) -> Verdict {
    let started = Instant::now();
    let mut last_look: Option<Instant> = None;
    let mut noted: Option<String> = None;
    loop {
        let failure = match ask(tree, move |tree| tree.who_listens(address.port())).await {
            Listener::Other => return Verdict::PortTaken,
            Listener::Nobody if !matches!(ready.check, ReadyCheck::After(_)) => {
                if last_look.is_none_or(|then| then.elapsed() >= LOOK_ELSEWHERE_EVERY) {
                    last_look = Some(Instant::now());
                    let elsewhere = elsewhere(address, &ask(tree, Tree::listens_on).await);
                    if let Some(new) = elsewhere.as_ref().filter(|_| noted != elsewhere) {
                        reporter.send(Report::Noted(new.clone())).await;
                    }
                    noted = elsewhere;
                }
                noted.clone().unwrap_or_else(|| format!("nothing listens on {address}"))
            }
            Listener::Own | Listener::Nobody => {
                let checked = match &ready.check {
                    ReadyCheck::Http(path) => health::http(address, path, ready.timeout).await,
                    ReadyCheck::Tcp => health::tcp(address, ready.timeout).await,
                    ReadyCheck::After(time) => {
                        tokio::time::sleep(time.saturating_sub(started.elapsed())).await;
                        match ask(tree, move |tree| tree.who_listens(address.port())).await {
                            Listener::Other => return Verdict::PortTaken,
                            Listener::Own | Listener::Nobody => Ok(()),
                        }
                    }
                };
                match checked {
                    Ok(()) => return Verdict::Ready,
                    Err(failure) => failure,
                }
            }
        };
        if started.elapsed() + ready.interval > ready.deadline {
            return Verdict::Late(format!("did not become ready within {:?}: {failure}", ready.deadline));
        }
        tokio::time::sleep(ready.interval).await;
    }
}

/// The sentence for a worker that listens, but not where it was told to.
fn elsewhere(address: SocketAddr, listens_on: &[SocketAddr]) -> Option<String> {
    let places: Vec<String> = listens_on.iter().map(ToString::to_string).collect();
    let port = address.port();
    let hint = if listens_on.iter().any(|a| a.port() == port) {
        "make it listen on $HOST, which is 127.0.0.1"
    } else {
        "make it listen on $PORT"
    };
    (!places.is_empty()).then(|| {
        format!(
            "the worker listens on {}, not on the port it was given (PORT={port}); hint: {hint}",
            places.join(" and ")
        )
    })
}

/// Looks at the tree on a thread that may block.
pub(crate) async fn ask<T: Send + 'static>(
    tree: &SharedTree,
    look: impl FnOnce(&mut Tree) -> T + Send + 'static,
) -> T {
    let tree = tree.clone();
    let looked =
        tokio::task::spawn_blocking(move || look(&mut tree.lock().unwrap_or_else(PoisonError::into_inner)));
    match looked.await {
        Ok(answer) => answer,
        // The runtime is shutting down: nobody waits for an answer any more.
        Err(_) => std::future::pending().await,
    }
}
