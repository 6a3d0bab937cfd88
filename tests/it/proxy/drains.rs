//! Draining: nothing that could end is cut, everything that is idle ends at once.

use switchman::proxy::{Drained, Settings};

use super::rig::{Client, find, hello, worker};
use super::{GET, Rig};
use crate::support::patience;

#[tokio::test]
async fn idle_connections_end_at_once_and_running_requests_end_well() {
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = worker(move |stream| {
        let mut held = held.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while reader.more().await {
                let slow = find(&reader.buffer, b"GET /slow").is_some();
                reader.buffer.clear();
                if slow {
                    let _ = held.wait_for(|open| *open).await;
                }
                reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    });
    let rig = Rig::start(Settings::default(), &[]).await;
    let upstreams = rig.set_workers(&[slow.await]).await;
    let mut idle = rig.connect().await;
    idle.send(GET).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    let mut running = rig.connect().await;
    running.send("GET /slow HTTP/1.1\r\nHost: app\r\n\r\n").await;
    crate::support::eventually("it runs", || async { (upstreams[0].in_flight.now() == 1).then_some(()) })
        .await;

    let drained = tokio::spawn(rig.proxy.drain(patience()));
    assert!(idle.is_closed().await);
    crate::support::eventually("nothing is accepted any more", || async {
        tokio::net::TcpStream::connect(rig.address).await.is_err().then_some(())
    })
    .await;
    assert!(!drained.is_finished());
    release.send_replace(true);
    let response = running.response().await.unwrap();
    assert_eq!((response.text(), response.header("connection")), ("ok", Some("close")));
    assert_eq!(drained.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_under_load_loses_nothing() {
    let rig = Rig::start(Settings::default(), &[hello().await]).await;
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let address = rig.address;
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut answered = 0;
                loop {
                    client.send(GET).await;
                    match client.response().await {
                        Some(response) => {
                            assert_eq!((response.status, response.text()), (200, "hello"), "client {n}");
                            answered += 1;
                            if response.header("connection") == Some("close") {
                                return answered;
                            }
                        }
                        // Closed between two requests: nothing of an answer was cut.
                        None => {
                            assert!(client.buffer.is_empty(), "client {n} after {answered}");
                            return answered;
                        }
                    }
                }
            })
        })
        .collect();
    crate::support::eventually("load has passed", || async {
        (rig.counters.requests() > 1000).then_some(())
    })
    .await;
    // These are in the kernel's queue or just accepted when draining begins; each must be answered.
    let mut late = Vec::new();
    for _ in 0..20 {
        let mut client = rig.connect().await;
        client.send(GET).await;
        late.push(client);
    }
    let drained = tokio::spawn(rig.proxy.drain(patience()));
    for mut client in late {
        assert_eq!(client.response().await.expect("an answer").text(), "hello");
    }
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert_eq!(drained.await.unwrap(), Drained { cut: 0 });
}
