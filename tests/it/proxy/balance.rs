//! Which worker gets how much: failing workers, new workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchman::config::{Delivery, Protocol};
use switchman::proxy::Settings;
use switchman::registry::{Address, Upstream};
use switchman::version::WorkerId;

use super::rig::{Client, application, find, worker};
use super::{GET, Rig};
use crate::support::patience;

const POST: &str = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n";

async fn named(name: &'static str) -> Address {
    application(axum::Router::new().fallback(move || async move { name })).await
}

#[tokio::test]
async fn a_worker_that_keeps_failing_is_left_out_until_it_answers_again() {
    let (broken, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (is_broken, counted) = (broken.clone(), asked.clone());
    let flaky = worker(move |stream| {
        let (is_broken, counted) = (is_broken.clone(), counted.clone());
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            while reader.more().await {
                if find(&reader.buffer, b"\r\n\r\n").is_none() {
                    continue;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                if is_broken.load(Ordering::Relaxed) {
                    return;
                }
                reader.buffer.clear();
                reader.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nflaky").await;
            }
        }
    });
    let rig = Rig::start(Settings::default(), &[flaky.await, named("well").await]).await;
    let mut client = rig.connect().await;
    let started = Instant::now();
    let mut failed = 0;
    for _ in 0..200 {
        client.send(POST).await;
        failed += usize::from(client.response().await.unwrap().status == 502);
    }
    // Three in a row, and one trial for each second that this has taken.
    let trials = started.elapsed().as_secs() as usize;
    assert!((3..=3 + trials).contains(&failed), "{failed} of 200 failed");
    assert_eq!(asked.load(Ordering::Relaxed), failed, "every other request went elsewhere");

    broken.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + patience();
    loop {
        client.send(GET).await;
        if client.response().await.unwrap().text() == "flaky" {
            break;
        }
        assert!(Instant::now() < deadline, "it is never tried again");
    }
    // One success, and it has its share again.
    let mut seen = Vec::new();
    for _ in 0..10 {
        client.send(GET).await;
        seen.push(client.response().await.unwrap().text().to_owned());
    }
    assert_eq!(seen.iter().filter(|text| *text == "flaky").count(), 5, "{seen:?}");
}

#[tokio::test]
async fn the_last_worker_is_asked_whatever_it_does() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let broken = worker(move |stream| {
        let counted = counted.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            reader.more().await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let rig = Rig::start(Settings::default(), &[broken.await]).await;
    for _ in 0..10 {
        assert_eq!(rig.ask(POST).await.header("x-switchman-error"), Some("upstream-closed"));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn a_new_worker_is_given_little_at_first() {
    let mut rig = Rig::start(Settings::default(), &[]).await;
    rig.delivery = Arc::new(Delivery { slow_start: Duration::from_secs(600), ..Delivery::default() });
    let addresses = [named("old").await, named("new").await];
    let upstream = |(id, address): (usize, &Address)| {
        let mut upstream =
            Upstream::new(1_000_000 + id as u64, WorkerId(id as u32), address.clone(), Protocol::Http1, 2);
        if id == 0 {
            // Since the machine started would be too little on a machine that has just done so.
            upstream.since = Instant::now().checked_sub(Duration::from_secs(20)).unwrap();
        }
        Arc::new(upstream)
    };
    // A worker of 20 s is as new as one of no age, where it takes ten minutes: both have the least share.
    rig.set_upstreams(addresses.iter().enumerate().map(upstream).collect()).await;
    assert_eq!(count(&rig, "new", 100).await, 50);
    // Where it takes 20 s, the old one has its whole share, and the new one a tenth of its half.
    rig.delivery = Arc::new(Delivery { slow_start: Duration::from_secs(20), ..Delivery::default() });
    rig.set_upstreams(addresses.iter().enumerate().map(upstream).collect()).await;
    let new = count(&rig, "new", 400).await;
    assert!((1..=60).contains(&new), "{new} of 400");
    rig.delivery = Arc::new(Delivery { slow_start: Duration::ZERO, ..Delivery::default() });
    rig.set_upstreams(addresses.iter().enumerate().map(upstream).collect()).await;
    assert_eq!(count(&rig, "new", 100).await, 50);
}

/// How many of so many requests, one after the other, a worker answers.
async fn count(rig: &Rig, name: &str, requests: usize) -> usize {
    let (mut client, mut answered) = (rig.connect().await, 0);
    for _ in 0..requests {
        client.send(GET).await;
        answered += usize::from(client.response().await.unwrap().text() == name);
    }
    answered
}
