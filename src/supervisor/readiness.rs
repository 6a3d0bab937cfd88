//! Waits until a worker is ready: its own process listens where it was told to, and its check passes.
//!
//! Before a check is believed, `/proc` is asked who listens: a port can be taken by somebody else between the
//! moment it was picked and the moment the worker wants it, and requests must never be sent there. Sockets lie in a
//! folder of our own, each under a name of its own: who listens there is the worker.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::get::Failure;
use super::launch::{self, Identity};
use super::notified::Said;
use super::output::Listening;
use super::tree::{Listener, Tree};
use super::worker::{Report, Reporter};
use super::{accepted, health};
use crate::config::{Ready, ReadyCheck, RunSpec, UpstreamAt};
use crate::registry::Address;

/// A tree that the blocking threads look at in turn.
pub(crate) type SharedTree = Arc<Mutex<Tree>>;

/// The first pause between two looks for where a worker listens that does not listen where it should; it doubles.
const LOOK_ELSEWHERE_AFTER: Duration = Duration::from_millis(500);

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
    spec: &RunSpec,
    who: &Identity,
    address: &Address,
    said: Option<watch::Receiver<Said>>,
    tree: &SharedTree,
    line: &mut Listening,
    reporter: &Reporter,
) -> Verdict {
    let ready = &spec.ready;
    let started = Instant::now();
    if let Some(said) = said {
        return match notified(said, ready.deadline, reporter).await {
            Ok(()) => unless_taken(tree, address).await,
            Err(failure) => late(ready, &failure),
        };
    }
    let inherited = spec.upstream == UpstreamAt::Inherit;
    let mut elsewhere = Elsewhere { inherited, ..Elsewhere::default() };
    loop {
        // There is no time for another check after this one.
        let last = started.elapsed() + ready.interval > ready.deadline;
        let failure = match &ready.check {
            ReadyCheck::After(time) => {
                tokio::time::sleep(time.saturating_sub(started.elapsed())).await;
                return unless_taken(tree, address).await;
            }
            ReadyCheck::Log(pattern) => match tokio::time::timeout(ready.deadline, line.line()).await {
                Ok(()) => return unless_taken(tree, address).await,
                Err(_) => {
                    return late(ready, &format!("no line that it printed matches `{}`", pattern.as_str()));
                }
            },
            // Its socket is open before it is there.
            _ if inherited => match check(spec, who, address).await {
                Ok(()) => return Verdict::Ready,
                Err(failure) => {
                    elsewhere.look(address, tree, last, reporter).await.unwrap_or_else(|| failure.to_string())
                }
            },
            ReadyCheck::Http(_) | ReadyCheck::Tcp | ReadyCheck::Notify | ReadyCheck::Command(_) => {
                // Connecting costs little; /proc lists every connection of the machine.
                match health::connects(address, ready.timeout).await {
                    Err(failure) => elsewhere
                        .look(address, tree, last, reporter)
                        .await
                        .unwrap_or_else(|| failure.to_string()),
                    Ok(()) => match who_listens(tree, address).await {
                        Listener::Other => return Verdict::PortTaken,
                        Listener::Nobody => format!("nothing listens on {address}"),
                        Listener::Own => match check(spec, who, address).await {
                            // It may have ended meanwhile, and somebody else have answered.
                            Ok(()) => match who_listens(tree, address).await {
                                Listener::Own => return Verdict::Ready,
                                Listener::Other => return Verdict::PortTaken,
                                Listener::Nobody => format!("nothing listens on {address} any more"),
                            },
                            Err(failure) => failure.to_string(),
                        },
                    },
                }
            }
        };
        if last {
            return late(ready, &failure);
        }
        tokio::time::sleep(ready.interval).await;
    }
}

async fn check(spec: &RunSpec, who: &Identity, address: &Address) -> Result<(), Failure> {
    let timeout = spec.ready.timeout;
    match &spec.ready.check {
        ReadyCheck::Http(path) => health::http(address, spec.protocol, path, timeout).await,
        ReadyCheck::Command(run) => launch::check::check(run, spec, who, address, timeout).await,
        ReadyCheck::Tcp if spec.upstream == UpstreamAt::Inherit => accepted::accepts(address, timeout).await,
        ReadyCheck::Tcp | ReadyCheck::After(_) | ReadyCheck::Log(_) | ReadyCheck::Notify => Ok(()),
    }
}

fn late(ready: &Ready, failure: &str) -> Verdict {
    Verdict::Late(format!("did not become ready within {:?}: {failure}", ready.deadline))
}

/// For checks that ask nobody: ready, unless somebody else listens in its place.
async fn unless_taken(tree: &SharedTree, address: &Address) -> Verdict {
    match who_listens(tree, address).await {
        Listener::Other => Verdict::PortTaken,
        Listener::Own | Listener::Nobody => Verdict::Ready,
    }
}

/// Waits until the worker says that it is ready; what it says meanwhile is reported. Else why it is not.
async fn notified(
    mut said: watch::Receiver<Said>,
    deadline: Duration,
    reporter: &Reporter,
) -> Result<(), String> {
    let mut shown = None;
    let waiting = async {
        loop {
            let now = said.borrow_and_update().clone();
            if now.ready {
                return;
            }
            if now.status != shown {
                shown = now.status;
                reporter.send(Report::Noted(shown.clone().unwrap_or_default())).await;
            }
            if said.changed().await.is_err() {
                // Its reader has failed, and has said so.
                std::future::pending::<()>().await;
            }
        }
    };
    if tokio::time::timeout(deadline, waiting).await.is_ok() {
        return Ok(());
    }
    let now = said.borrow().clone();
    let status = now.status.map(|status| format!("; its last status: {status}")).unwrap_or_default();
    Err(match now.disbelieved {
        None => format!("it has not sent READY=1 to its NOTIFY_SOCKET{status}"),
        Some(pid) => format!(
            "READY=1 came from process {pid}, which is none of the worker's, or had ended before it could be looked at\
             {status}"
        ),
    })
}

async fn who_listens(tree: &SharedTree, address: &Address) -> Listener {
    let Address::Tcp(address) = address else { return Listener::Own };
    let port = address.port();
    ask(tree, move |tree| tree.who_listens(port)).await
}

/// Looks, less and less often, where a worker listens that does not listen where it should.
#[derive(Debug, Default)]
struct Elsewhere {
    /// When to look next, and how long to wait after that.
    next: Option<(Instant, Duration)>,
    found: Option<String>,
    /// Its own socket was handed to it.
    inherited: bool,
}

impl Elsewhere {
    /// What was found last; reported when it is new. The `last` look is always a fresh one.
    async fn look(
        &mut self,
        address: &Address,
        tree: &SharedTree,
        last: bool,
        reporter: &Reporter,
    ) -> Option<String> {
        let now = Instant::now();
        let (at, pause) = self.next.unwrap_or((now, LOOK_ELSEWHERE_AFTER));
        if now >= at || last {
            self.next = Some((now + pause, pause * 2));
            let mut listens_on = ask(tree, Tree::listens_on).await;
            if self.inherited {
                // It holds that one in any case.
                listens_on.retain(|listens| *address != Address::Tcp(*listens));
            }
            let found = elsewhere(address, &listens_on, self.inherited);
            if let Some(new) = found.as_ref().filter(|_| found != self.found) {
                reporter.send(Report::Noted(new.clone())).await;
            }
            self.found = found;
        }
        self.found.clone()
    }
}

/// The sentence for a worker that listens, but not where it was told to.
fn elsewhere(address: &Address, listens_on: &[SocketAddr], inherited: bool) -> Option<String> {
    let places: Vec<String> = listens_on.iter().map(ToString::to_string).collect();
    let (given, hint) = match address {
        Address::Tcp(address) if inherited => {
            let hint = "make it serve file descriptor 3 (LISTEN_FDS), or remove `upstream: inherit`";
            (format!("socket it was given ({address}, file descriptor 3)"), hint)
        }
        Address::Tcp(address) => {
            let port = address.port();
            let hint = match listens_on.iter().any(|a| a.port() == port) {
                true => "make it listen on $HOST, which is 127.0.0.1",
                false => "make it listen on $PORT",
            };
            (format!("port it was given (PORT={port})"), hint)
        }
        Address::Unix(path) => {
            let hint = "make it listen on the socket $SOCKET, or remove `upstream: unix`";
            (format!("socket it was given (SOCKET={})", path.display()), hint)
        }
    };
    (!places.is_empty())
        .then(|| format!("the worker listens on {}, not on the {given}; hint: {hint}", places.join(" and ")))
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
