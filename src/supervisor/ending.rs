//! What becomes of a process tree when its main process ends or is told to: another one takes over, or nothing is left.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::main_process::{self, MainProcess};
use super::readiness::{SharedTree, ask};
use super::tree::Tree;

/// After KILL, how long to wait for a process to vanish. Only one that hangs in the kernel takes longer.
pub(crate) const KILL_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a tree, at first and at most.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(250);
/// So many looks in a row must find a tree empty: a process that forks and ends while `/proc` is read is seen in one
/// look neither itself nor by its child.
const EMPTY_LOOKS: u32 = 2;

/// The process that has taken over from a main process that has ended: the member of its tree that its `PIDFILE` names.
/// Waits for it for `time`, while there is a member at all.
pub(crate) async fn successor(tree: &SharedTree, time: Duration) -> Option<(u32, MainProcess)> {
    let begun = Instant::now();
    let mut empty = 0;
    loop {
        let last = begun.elapsed() >= time;
        let (members, named) = ask(tree, |tree| {
            // Opened before it is looked up: the descriptor stays with the process that is found to be a member.
            let named = tree.named_by_pidfile();
            let named = named.and_then(|pid| Some((pid, main_process::open(pid).ok()?)));
            (tree.look(), named)
        })
        .await;
        if let Some((pid, descriptor)) = named
            && members.contains(&pid.cast_signed())
            && let Ok(main) = MainProcess::known(descriptor)
        {
            ask(tree, move |tree| tree.root_is(pid)).await;
            return Some((pid, main));
        }
        empty = if members.is_empty() { empty + 1 } else { 0 };
        if last || empty == EMPTY_LOOKS {
            return None;
        }
        tokio::time::sleep(LOOK_MIN).await;
    }
}

/// KILL to the whole tree, until nothing of it is left.
pub(crate) async fn kill(tree: &SharedTree) {
    if tokio::time::timeout(KILL_MAX, until_empty(tree, Some(Signal::KILL))).await.is_err() {
        let left = ask(tree, Tree::look).await;
        tracing::error!(?left, "these processes do not end after KILL; they hang in the kernel");
    }
}

/// Waits until the tree is empty, sending `signal` at each look. /proc tells nobody when a tree becomes empty, so
/// this looks again and again, less often each time.
pub(crate) async fn until_empty(tree: &SharedTree, signal: Option<Signal>) {
    let mut pause = LOOK_MIN;
    let mut empty = 0;
    loop {
        let left = match signal {
            Some(signal) => ask(tree, move |tree| tree.signal(signal)).await,
            None => ask(tree, |tree| !tree.look().is_empty()).await,
        };
        (empty, pause) = if left { (0, (pause * 2).min(LOOK_MAX)) } else { (empty + 1, LOOK_MIN) };
        if empty == EMPTY_LOOKS {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}
