//! Versions whose workers take only so many requests at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use switchman::config::{Delivery, Queue};
use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::sync::watch;

use super::rig::{Client, application, hello};
use super::{GET, Rig};
use crate::support::eventually;

/// A worker that answers `held` once it is let.
async fn held() -> (Address, watch::Sender<bool>, Arc<AtomicUsize>) {
    let (release, released) = watch::channel(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let app = axum::Router::new().fallback(move || {
        let mut released = released.clone();
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let _ = released.wait_for(|open| *open).await;
            "held"
        }
    });
    (application(app).await, release, asked)
}

/// A rig with a limit of one request a worker.
async fn limited(workers: &[Address], size: u32, timeout: Duration) -> Rig {
    let mut rig = Rig::start(Settings::default(), &[]).await;
    let queue = Queue { size, timeout };
    rig.delivery = Arc::new(Delivery { max_in_flight: Some(1), queue, ..Delivery::default() });
    rig.set_workers(workers).await;
    rig
}

/// Sends a request that the worker holds.
async fn occupy(rig: &Rig, asked: &AtomicUsize) -> Client {
    let before = asked.load(Ordering::Relaxed);
    let mut client = rig.connect().await;
    client.send(GET).await;
    eventually("the worker has it", || async { (asked.load(Ordering::Relaxed) > before).then_some(()) })
        .await;
    client
}

/// Two requests for the one place in an empty line: one is refused, and the other one, which this is, waits.
async fn wait_in_line(rig: &Rig) -> Client {
    let (mut one, mut other) = (rig.connect().await, rig.connect().await);
    one.send(GET).await;
    other.send(GET).await;
    let (refused, waits) = tokio::select! {
        response = one.response() => (response, other),
        response = other.response() => (response, one),
    };
    assert_eq!(refused.unwrap().header("x-switchman-error"), Some("queue-full"));
    waits
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_request_waits_for_room_and_the_next_one_is_refused() {
    let (worker, release, asked) = held().await;
    let rig = limited(&[worker], 1, LONG).await;
    let mut first = occupy(&rig, &asked).await;
    let mut second = wait_in_line(&rig).await;
    let mut third = rig.connect().await;
    third.send(GET).await;
    let refused = third.response().await.unwrap();
    assert_eq!((refused.status, refused.header("x-switchman-error")), (503, Some("queue-full")));
    assert!(refused.header("retry-after").is_some(), "{}", refused.head);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the worker has one at a time");

    release.send_replace(true);
    assert_eq!(first.response().await.unwrap().text(), "held");
    assert_eq!(second.response().await.unwrap().text(), "held");
    third.send(GET).await;
    assert_eq!(third.response().await.unwrap().text(), "held", "its connection goes on");
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let (worker, _release, asked) = held().await;
    let rig = limited(&[worker], 10, Duration::from_millis(300)).await;
    let _first = occupy(&rig, &asked).await;
    let refused = rig.ask(GET).await;
    assert_eq!((refused.status, refused.header("x-switchman-error")), (503, Some("queue-timeout")));
    assert!(refused.header("retry-after").is_some(), "{}", refused.head);
}

#[tokio::test]
async fn who_leaves_gives_its_place_up() {
    let (worker, release, asked) = held().await;
    let rig = limited(&[worker], 1, LONG).await;
    let mut first = occupy(&rig, &asked).await;
    drop(wait_in_line(&rig).await);
    // Refused until its place is free; then it waits there, which is that nothing comes for a while.
    let mut third = loop {
        let mut client = rig.connect().await;
        client.send(GET).await;
        match tokio::time::timeout(Duration::from_secs(1), client.response()).await {
            Ok(refused) => assert_eq!(refused.unwrap().header("x-switchman-error"), Some("queue-full")),
            Err(_) => break client,
        }
    };
    release.send_replace(true);
    assert_eq!(first.response().await.unwrap().text(), "held");
    assert_eq!(third.response().await.unwrap().text(), "held");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "the worker never saw the one that left");
}

#[tokio::test]
async fn who_waits_is_given_a_worker_that_comes_meanwhile() {
    let (worker, _release, asked) = held().await;
    let rig = limited(std::slice::from_ref(&worker), 1, LONG).await;
    let _first = occupy(&rig, &asked).await;
    let mut second = wait_in_line(&rig).await;
    rig.set_workers(&[]).await;
    rig.set_workers(&[hello().await]).await;
    assert_eq!(second.response().await.unwrap().text(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_exact_over_all_threads_and_nobody_starves() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (running.clone(), most.clone());
    let app = axum::Router::new().fallback(move || {
        let (now, highest) = (now.clone(), highest.clone());
        async move {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            "hello"
        }
    });
    let rig = limited(&[application(app).await], 100, LONG).await;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let address = rig.address;
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for _ in 0..50 {
                    client.send(GET).await;
                    assert_eq!(client.response().await.unwrap().text(), "hello");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!((most.load(Ordering::SeqCst), running.load(Ordering::SeqCst)), (1, 0));
}
