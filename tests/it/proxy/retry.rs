//! What is asked a second time, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use switchman::proxy::Settings;
use switchman::registry::Address;

use super::rig::{Client, Response, application, worker};
use super::{GET, Rig};
use crate::support::switchman::{Setup, Switchman};
use crate::support::{eventually, http};

const POST: &str = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n";

/// A worker that accepts, reads and never answers, as a stopped process does.
async fn hung() -> Address {
    worker(|stream| async move {
        let mut reader = Client { stream, buffer: Vec::new() };
        while reader.more().await {}
    })
    .await
}

/// A worker that closes each connection at its first bytes, and counts them.
async fn resets(asked: &Arc<AtomicUsize>) -> Address {
    let asked = asked.clone();
    worker(move |stream| {
        let asked = asked.clone();
        async move {
            let mut reader = Client { stream, buffer: Vec::new() };
            reader.more().await;
            asked.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await
}

async fn alive() -> Address {
    application(axum::Router::new().fallback(|| async { "alive" })).await
}

async fn ask(client: &mut Client, request: &str) -> Response {
    client.send(request).await;
    client.response().await.expect("an answer")
}

fn cause(response: &Response) -> (u16, Option<&str>) {
    (response.status, response.header("x-switchman-error"))
}

#[tokio::test]
async fn a_hung_worker_costs_a_get_its_timeout_once_and_a_post_its_answer() {
    let settings = Settings { first_byte_timeout: Duration::from_millis(300), ..Settings::default() };
    let rig = Rig::start(settings, &[hung().await, alive().await]).await;
    let mut client = rig.connect().await;
    // Both are idle, so that they take turns: each of two requests in a row goes to another one.
    for _ in 0..2 {
        assert_eq!(ask(&mut client, GET).await.text(), "alive");
    }
    // The POST that met the hung worker may have been done: it is not sent again.
    let answers = [ask(&mut client, POST).await, ask(&mut client, POST).await];
    let mut causes = answers.each_ref().map(cause);
    causes.sort_unstable();
    assert_eq!(causes, [(200, None), (504, Some("upstream-timeout"))]);
}

#[tokio::test]
async fn where_all_workers_hang_a_get_asks_two_of_them() {
    let settings = Settings { first_byte_timeout: Duration::from_millis(300), ..Settings::default() };
    let rig = Rig::start(settings, &[hung().await, hung().await, hung().await]).await;
    assert_eq!(cause(&rig.ask(GET).await), (504, Some("upstream-timeout")));
}

#[tokio::test]
async fn retries_do_not_multiply_an_outage() {
    const REQUESTS: usize = 1000;
    let asked = Arc::new(AtomicUsize::new(0));
    let rig = Rig::start(Settings::default(), &[resets(&asked).await, resets(&asked).await]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(rig.connect().await);
    }
    for request in 0..REQUESTS {
        let response = ask(&mut clients[request % 8], GET).await;
        assert_eq!(cause(&response), (502, Some("upstream-closed")));
    }
    // A fifth more, or 30 on each of the two threads, whichever is more.
    let asked = asked.load(Ordering::Relaxed);
    assert!((REQUESTS + 30..=REQUESTS + REQUESTS / 5 + 30).contains(&asked), "{asked} for {REQUESTS}");
}

#[tokio::test]
async fn a_body_that_is_not_held_whole_is_not_sent_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let rig = Rig::start(Settings::default(), &[resets(&asked).await, resets(&asked).await]).await;
    let mut client = rig.connect().await;
    // PUT may be repeated, but the worker dies before all of it has come.
    client.send("PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nab").await;
    assert_eq!(cause(&client.response().await.unwrap()), (502, Some("upstream-closed")));
    assert!(client.is_closed().await);
    assert_eq!(asked.swap(0, Ordering::Relaxed), 1);
    let response = rig.ask("PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nabcd").await;
    assert_eq!((response.status, asked.load(Ordering::Relaxed)), (502, 2));
}

#[tokio::test]
async fn a_stopped_worker_process_is_not_noticed_by_gets() {
    let top = "threads: 1\nlimits: {first_byte_timeout: 500ms}\n";
    let switchman = Switchman::start(Setup { top, service: "    workers: 2\n", ..Setup::default() }).await;
    let version = switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "it is current", |v| v["dark"] == false).await;
    let pid = |worker: usize| {
        let pid = version["workers"][worker]["pid"].as_i64().unwrap();
        rustix::process::Pid::from_raw(pid as i32).unwrap()
    };
    rustix::process::kill_process(pid(0), rustix::process::Signal::STOP).unwrap();
    let mut client = Client::connect(switchman.address).await;
    for _ in 0..20 {
        assert_eq!(ask(&mut client, GET).await.status, 200);
    }
    assert!(switchman.log().contains("keeps failing and is left out"), "{}", switchman.log());
    rustix::process::kill_process(pid(0), rustix::process::Signal::CONT).unwrap();
    eventually("it answers again", || async {
        assert_eq!(http::get(&switchman.url("/")).await.unwrap().status, 200);
        switchman.log().contains("that was left out answers again").then_some(())
    })
    .await;
}
