//! What one data-plane thread listens on, and how that changes while it runs.
//!
//! A door that stays keeps its sockets and its connections; what holds for it (TLS, who is trusted) is exchanged
//! for the connections that begin from then on. A door that goes takes in what the kernel has queued and is
//! closed; its connections go on.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::proxy::front::Entrance;
use crate::proxy::limits::Settings;
use crate::proxy::listener::{self, Listeners};
use crate::proxy::pages::Pages;
use crate::proxy::thread::Thread;

/// What one thread is to do from now on.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its part of the limits.
    pub(crate) settings: Settings,
    pub(crate) pages: Pages,
    pub(crate) doors: Vec<Door>,
}

/// One public address, as one thread has it.
#[derive(Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    entrance: Entrance,
    /// Not used where the thread has the address already.
    sockets: Vec<TcpListener>,
}

impl Plan {
    /// One for each of the listeners' threads, which share the limits of connections.
    pub(crate) fn for_threads(listeners: Listeners, settings: &Settings, pages: &Pages) -> Vec<Self> {
        let Listeners { addresses, threads, front } = listeners;
        let entrances = front.entrances(&addresses);
        let count = threads.len();
        let settings = Settings {
            max_connections: settings.max_connections.div_ceil(count),
            connections_per_client: settings.connections_per_client.div_ceil(count),
            ..settings.clone()
        };
        let plan = |sockets: Vec<(usize, TcpListener)>| {
            let door = |(address, entrance): (&SocketAddr, &Entrance)| Door {
                address: *address,
                entrance: entrance.clone(),
                sockets: Vec::new(),
            };
            let mut doors: Vec<Door> = addresses.iter().zip(&entrances).map(door).collect();
            for (place, socket) in sockets {
                doors[place].sockets.push(socket);
            }
            Self { settings: settings.clone(), pages: pages.clone(), doors }
        };
        threads.into_iter().map(plan).collect()
    }
}

/// The doors of one thread that are open.
pub(crate) struct Doors {
    thread: Rc<Thread>,
    open: Vec<Open>,
}

struct Open {
    address: SocketAddr,
    entrance: Rc<RefCell<Rc<Entrance>>>,
    /// Tells the tasks to end.
    stop: watch::Sender<bool>,
    /// One a socket.
    accepting: Vec<JoinHandle<()>>,
}

impl Doors {
    pub(crate) fn new(thread: Rc<Thread>) -> Self {
        Self { thread, open: Vec::new() }
    }

    /// From now on these doors and no others.
    pub(crate) fn set(&mut self, doors: Vec<Door>) {
        // Dropped, an `Open` tells its tasks to end.
        self.open.retain(|open| doors.iter().any(|door| door.address == open.address));
        for Door { address, entrance, sockets } in doors {
            let entrance = Rc::new(entrance);
            match self.open.iter().find(|open| open.address == address) {
                Some(open) => drop(open.entrance.replace(entrance)),
                None => self.open(address, entrance, sockets),
            }
        }
    }

    fn open(&mut self, address: SocketAddr, entrance: Rc<Entrance>, sockets: Vec<TcpListener>) {
        let (stop, stopped) = watch::channel(false);
        let entrance = Rc::new(RefCell::new(entrance));
        let accept = |socket| match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => {
                let accepting = listener::run(self.thread.clone(), socket, entrance.clone(), stopped.clone());
                Some(tokio::task::spawn_local(accepting))
            }
            Err(error) => {
                tracing::error!(%error, %address, "cannot watch a listening socket");
                None
            }
        };
        let accepting = sockets.into_iter().filter_map(accept).collect();
        self.open.push(Open { address, entrance, stop, accepting });
    }

    /// Stops accepting; what the kernel has queued is taken in first.
    pub(crate) async fn close(self) {
        for Open { stop, accepting, .. } in self.open {
            stop.send_replace(true);
            for task in accepting {
                let _ = task.await;
            }
        }
    }
}
