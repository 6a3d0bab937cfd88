//! What is kept of a version, merged from the files and the memory of its workers. Blocks: it reads files.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::file::Opened;
use super::{Entry, Portion, Query};
use crate::supervisor::output::store::{Snapshot, after};
use crate::version::WorkerId;

/// Hands on the lines that are wanted, oldest first; false when nobody wants them any more.
pub(super) fn read(snapshot: Snapshot, query: &Query, out: &mpsc::Sender<Vec<Entry>>) -> bool {
    let workers = workers(snapshot, query);
    let mut from = query.since.unwrap_or(Timestamp::MIN);
    if let Some(lines) = query.lines {
        from = from.max(begin(&workers, query, lines));
    }
    let lines = merge(workers.iter().map(|worker| worker.forward(from)).collect());
    let mut portion = Portion::default();
    for line in lines.filter(|line| line.at >= from && query.wants(line)) {
        portion.push(line);
        if portion.is_full() && out.blocking_send(std::mem::take(&mut portion).lines).is_err() {
            return false;
        }
    }
    portion.lines.is_empty() || out.blocking_send(portion.lines).is_ok()
}

/// When the last `lines` lines that are wanted begin.
fn begin(workers: &[Worker], query: &Query, lines: usize) -> Timestamp {
    let since = query.since.unwrap_or(Timestamp::MIN);
    let mut times: Vec<Timestamp> = workers
        .iter()
        .flat_map(|worker| {
            let recent = worker.backward().take_while(|line| line.at >= since);
            recent.filter(|line| query.wants(line)).map(|line| line.at).take(lines)
        })
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    match (lines.checked_sub(1), times.first()) {
        (Some(last), _) => times.get(last).copied().unwrap_or(since),
        (None, Some(newest)) => after(*newest),
        // None is wanted, and nothing is known of when the last one was: nothing is.
        (None, None) => Timestamp::MAX,
    }
}

/// What is kept of one worker: the lines of the files until those in memory begin.
#[derive(Debug)]
struct Worker {
    /// Oldest first.
    files: Vec<Opened>,
    /// The lines from here on are in memory, or came after the snapshot.
    until: Timestamp,
    memory: Vec<Entry>,
}

fn workers(snapshot: Snapshot, query: &Query) -> Vec<Worker> {
    let mut files: BTreeMap<WorkerId, Vec<Opened>> =
        snapshot.folder.as_deref().map(super::file::open).unwrap_or_default();
    let ids: BTreeSet<WorkerId> = files.keys().chain(snapshot.memory.keys()).copied().collect();
    let wanted = ids.into_iter().filter(|id| query.worker.is_none_or(|worker| worker == *id));
    let worker = |id: WorkerId| {
        let memory: Vec<Entry> = snapshot.memory.get(&id).into_iter().flatten().map(Entry::from).collect();
        let until = memory.first().map_or(after(snapshot.upto), |first| first.at);
        Worker { files: files.remove(&id).unwrap_or_default(), until, memory }
    };
    wanted.map(worker).collect()
}

impl Worker {
    /// Its lines from `from` on, oldest first; a few older ones may come before.
    fn forward(&self, from: Timestamp) -> impl Iterator<Item = Entry> {
        let files = self.files.iter().flat_map(move |file| file.forward(from));
        files.filter(|line| line.at < self.until).chain(self.memory.iter().cloned())
    }

    /// Its lines, newest first.
    fn backward(&self) -> impl Iterator<Item = Entry> {
        let files = self.files.iter().rev().flat_map(Opened::backward);
        self.memory.iter().rev().cloned().chain(files.filter(|line| line.at < self.until))
    }
}

/// The lines of all, by time.
fn merge<I: Iterator<Item = Entry>>(sources: Vec<I>) -> impl Iterator<Item = Entry> {
    let mut sources: Vec<Peekable<I>> = sources.into_iter().map(Iterator::peekable).collect();
    std::iter::from_fn(move || {
        let next = sources.iter_mut().filter_map(|source| source.peek().map(|line| line.at)).min()?;
        sources.iter_mut().find_map(|source| source.next_if(|line| line.at == next))
    })
}
