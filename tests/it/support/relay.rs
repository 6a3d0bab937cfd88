//! A TCP relay that a test can cut, freeze and mend: a network between two programs on one machine.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::eventually;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fine,
    /// Connections stay open and nothing comes through.
    Frozen,
}

/// Relays connections on a port of its own to another one.
pub(crate) struct Relay {
    address: SocketAddr,
    to: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Accepts and relays; none while cut.
    running: Option<JoinHandle<()>>,
}

impl Relay {
    /// A relay to a port of loopback.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let mut relay = Self {
            address: listener.local_addr().expect("a bound socket"),
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            weather: watch::Sender::new(Weather::Fine),
            running: None,
        };
        relay.run(listener);
        relay
    }

    /// Where clients reach the other end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks all connections and refuses new ones.
    pub(crate) async fn cut(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Lets connections through again.
    pub(crate) async fn mend(&mut self) {
        self.weather.send_replace(Weather::Fine);
        if self.running.is_none() {
            let address = self.address;
            let bind = || async move { TcpListener::bind(address).await.ok() };
            let listener = eventually("the relay's port is free again", bind).await;
            self.run(listener);
        }
    }

    /// Lets nothing through, and breaks nothing.
    pub(crate) fn freeze(&self) {
        self.weather.send_replace(Weather::Frozen);
    }

    fn run(&mut self, listener: TcpListener) {
        let (to, weather) = (self.to, self.weather.subscribe());
        self.running = Some(tokio::spawn(async move {
            // Dropped with this task, which ends every connection.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, to, weather.clone()));
            }
        }));
    }
}

async fn connection(mut client: TcpStream, to: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    loop {
        if weather.wait_for(|weather| *weather == Weather::Fine).await.is_err() {
            return;
        }
        tokio::select! {
            // Bytes that one side has sent and the other has not taken are lost with the freeze, which only
            // makes it worse for whoever sits behind it.
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = weather.wait_for(|weather| *weather == Weather::Frozen) => {}
        }
    }
}
