//! Where the supervisor's events come from, and which goes first.

use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Ask, How};
use super::{Event, Key};
use crate::deploy::VersionChange;
use crate::version::{ServiceName, VersionId};

/// Where events come from.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) changes: mpsc::Receiver<VersionChange>,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) ends: mpsc::Receiver<(How, oneshot::Sender<()>)>,
    /// Whether there is still a handle; without one nobody could ever end the supervisor.
    pub(super) open: bool,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) rings: mpsc::UnboundedReceiver<(ServiceName, VersionId)>,
    pub(super) ticks: tokio::time::Interval,
    pub(super) routing: watch::Receiver<u64>,
}

impl Inbox {
    /// The next event. Reports come first: what has happened goes before what is asked.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => event,
            asked = self.ends.recv(), if self.open => {
                self.open = asked.is_some();
                asked.map_or(Event::End(How::Stop, None), |(how, done)| Event::End(how, Some(done)))
            }
            Some((service, version)) = self.rings.recv() => Event::Wake(Key { service, version }),
            Some(change) = self.changes.recv() => Event::Change(change),
            Some(ask) = self.asked.recv() => Event::Ask(ask),
            Ok(()) = self.routing.changed() => Event::Routing,
            _ = self.ticks.tick() => Event::Tick,
        }
    }
}
