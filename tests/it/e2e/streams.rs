//! Streams on real processes: what does not end them, and how they end when their own version stops.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::eventually;
use crate::support::http::get;
use crate::support::switchman::{Setup, Switchman};

/// Of each kind.
const MANY: usize = 20;

type WebSocket = WebSocketStream<TcpStream>;
type Events = BufReader<TcpStream>;

async fn websocket(switchman: &Switchman) -> WebSocket {
    let stream = TcpStream::connect(switchman.address).await.unwrap();
    let url = format!("ws://{}/ws", switchman.address);
    tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket").0
}

/// A stream of events whose first has arrived.
async fn events(switchman: &Switchman) -> Events {
    let mut stream = TcpStream::connect(switchman.address).await.unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
    let mut events = BufReader::new(stream);
    assert!(until_line(&mut events, "id: 0").await, "the first event");
    events
}

/// Reads lines up to this one; false when the stream ends before.
async fn until_line(events: &mut Events, wanted: &str) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        if events.read_line(&mut line).await.unwrap_or(0) == 0 {
            return false;
        }
        if line.trim_end() == wanted {
            return true;
        }
    }
}

/// Open streams of both kinds.
struct Open {
    sockets: Vec<WebSocket>,
    events: Vec<Events>,
}

impl Open {
    async fn start(switchman: &Switchman) -> Self {
        let mut open = Self { sockets: Vec::new(), events: Vec::new() };
        for _ in 0..MANY {
            open.sockets.push(websocket(switchman).await);
            open.events.push(events(switchman).await);
        }
        open
    }

    /// All of them carry something now, and events are still numbered on: nothing was connected again.
    async fn all_go_on(&mut self, why: &str) {
        for socket in &mut self.sockets {
            socket.send(Message::text("hello")).await.unwrap_or_else(|e| panic!("after {why}: {e}"));
            let echo = socket.next().await.unwrap_or_else(|| panic!("closed after {why}"));
            assert_eq!(echo.unwrap_or_else(|e| panic!("after {why}: {e}")), Message::text("hello"));
        }
        for events in &mut self.events {
            assert!(until_line(events, "").await && until_line(events, "").await, "events ended after {why}");
        }
    }

    /// Waits until all have ended, each in the right way; when each did, since `begun`, in order.
    async fn all_end(self, begun: Instant) -> Vec<Duration> {
        let sockets = self.sockets.into_iter().map(|mut socket| async move {
            let closed = loop {
                match socket.next().await {
                    Some(Ok(Message::Close(frame))) => break frame.expect("a status"),
                    Some(Ok(_)) => {}
                    other => panic!("no Close frame but {other:?}"),
                }
            };
            assert_eq!(closed.code, CloseCode::Restart);
            let ended = begun.elapsed();
            // Answers with a Close frame of its own.
            while socket.next().await.is_some() {}
            ended
        });
        let events = self.events.into_iter().map(|mut events| async move {
            // The last chunk follows a blank line: the end of an event.
            assert!(until_line(&mut events, "0").await && until_line(&mut events, "").await, "no last chunk");
            begun.elapsed()
        });
        let (mut ends, others) =
            tokio::join!(futures_util::future::join_all(sockets), futures_util::future::join_all(events));
        ends.extend(others);
        ends.sort_unstable();
        ends
    }
}

async fn in_flight(switchman: &Switchman, version: &str) -> Value {
    switchman.version(version).await.map_or(Value::Null, |v| v["traffic"]["in_flight"].clone())
}

fn spread(ends: &[Duration], length: Duration) {
    assert_eq!(ends.len(), 2 * MANY);
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    assert!(first >= length / 10, "the first tenth is quiet: {ends:?}");
    // On a machine with more to do than it can, an end may be seen late.
    assert!(last <= length + Duration::from_millis(500), "{ends:?}");
    assert!(last - first > Duration::from_millis(600), "they are spread: {ends:?}");
}

#[tokio::test]
async fn streams_stay_on_their_worker_until_their_own_version_stops() {
    let setup =
        Setup { service: "    drain: {streams: 3s}\n", rules: Some("routes: []\n"), ..Setup::default() };
    let switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let mut open = Open::start(&switchman).await;
    assert_eq!(in_flight(&switchman, "4f2a91c").await, 2 * MANY);

    switchman.deploy_ready("b001bee").await;
    open.all_go_on("a deploy").await;
    switchman.done(&["promote", "b001bee"]).await;
    open.all_go_on("a promote").await;
    switchman.write_rules("routes: [{name: qa, when: {header.x-qa: \"yes\"}, to: 4f2a91c}]\n");
    eventually("the rule is in force", || async {
        let answer = crate::support::http::get_with(&switchman.url("/"), &[("x-qa", "yes")]).await.ok()?;
        (answer.version() == "4f2a91c").then_some(())
    })
    .await;
    open.all_go_on("a rule edit").await;
    switchman.write_rules("routes: []\n");
    switchman.wait_version("4f2a91c", "is dark", |v| v["routes"] == serde_json::json!([])).await;
    switchman.deploy_ready("c0ffee1").await;
    switchman.done(&["restart", "c0ffee1"]).await;
    switchman.done(&["stop", "c0ffee1"]).await;
    open.all_go_on("the stop of another version").await;
    assert_eq!(in_flight(&switchman, "4f2a91c").await, 2 * MANY);

    let worker = switchman.version("4f2a91c").await.unwrap()["workers"][0]["pid"].as_u64().unwrap();
    let begun = Instant::now();
    let stopping = switchman.done(&["stop", "4f2a91c"]);
    let ending = async {
        let ends = open.all_end(begun).await;
        let gone = || async { (!std::path::Path::new(&format!("/proc/{worker}")).exists()).then_some(()) };
        eventually("the worker is gone", gone).await;
        (ends, begun.elapsed())
    };
    let (_, (ends, gone)) = tokio::join!(stopping, ending);
    spread(&ends, Duration::from_secs(3));
    let last = ends[ends.len() - 1];
    assert!(gone < last + Duration::from_secs(2), "gone after {gone:?}, the last stream after {last:?}");
    switchman.wait_version("4f2a91c", "nothing is in flight", |v| v["traffic"]["in_flight"] == 0).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
}

/// Events as curl prints them until they end, over HTTP/1.1 or HTTP/2.
struct Curl {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Curl {
    /// Has printed the version of the first event.
    async fn start(switchman: &Switchman, protocol: &str, version: &str) -> Self {
        let mut process = Command::new("curl")
            .args(["--silent", "--show-error", "--no-buffer", protocol, &switchman.url("/sse")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("curl is missing: scripts/install-deps test");
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        while !first.ends_with("\n\n") && output.read_line(&mut first).await.unwrap() > 0 {}
        assert!(first.starts_with(&format!("id: 0\ndata: version={version} ")), "{first}");
        Self { process, output }
    }

    /// What it prints from the second event to the end, which must be a good one.
    async fn end(mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).await.unwrap();
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "curl ended with {status}");
        rest
    }
}

#[tokio::test]
async fn curl_sees_whole_events_to_a_clean_end_and_comes_back_to_the_new_version() {
    let setup = Setup { service: "    drain: {streams: 2s}\n", ..Setup::default() };
    let switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    let protocols = ["--http1.1", "--http2-prior-knowledge"];
    let open = protocols.map(|protocol| Curl::start(&switchman, protocol, "4f2a91c"));
    let open = futures_util::future::join_all(open).await;
    switchman.deploy_ready("b001bee").await;
    switchman.done(&["promote", "b001bee"]).await;
    let ended = futures_util::future::join_all(open.into_iter().map(Curl::end));
    let (_, ended) = tokio::join!(switchman.done(&["stop", "4f2a91c"]), ended);
    for (protocol, rest) in protocols.into_iter().zip(ended) {
        assert!(rest.ends_with("\n\n"), "{protocol}: a part of an event: {rest:?}");
        let ids: Vec<usize> =
            rest.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert!(
            ids.len() > 2 && ids.iter().copied().eq(1..=ids.len()),
            "{protocol}: one after the other: {ids:?}"
        );
        assert_eq!(rest.matches("data: version=4f2a91c ").count(), ids.len(), "{protocol}: {rest}");
        Curl::start(&switchman, protocol, "b001bee").await;
    }
}

#[tokio::test]
async fn a_rolling_restart_and_shutdown_end_streams_one_after_the_other() {
    let setup = Setup { top: "drain: 3s\n", service: "    drain: {streams: 2s}\n", ..Setup::default() };
    let mut switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;

    let open = Open::start(&switchman).await;
    let restarting = async { switchman.done(&["restart", "4f2a91c"]).await };
    let begun = Instant::now();
    let (_, ends) = tokio::join!(restarting, open.all_end(begun));
    // It begins when the new worker is ready, which takes its time: only how they end is known.
    assert!(ends[2 * MANY - 1] - ends[0] > Duration::from_millis(400), "they are spread: {ends:?}");

    let open = Open::start(&switchman).await;
    let begun = Instant::now();
    let (_, ends) = tokio::join!(switchman.terminate(), open.all_end(begun));
    spread(&ends, Duration::from_secs(3));
    assert!(!switchman.log().contains("cut at the deadline"), "{}", switchman.log());
}

/// An application whose connections become `my-protocol`: it sends back what it gets, and `bye` at the end.
const MY_PROTOCOL: &str = r#"
import asyncio, os
async def serve(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if "upgrade: my-protocol" in head and "connection: upgrade" in head:
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: My-Protocol\r\n\r\n")
        while data := await reader.read(4096):
            writer.write(data)
        writer.write(b"bye")
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nplain")
    writer.close()
async def main():
    server = await asyncio.start_server(serve, os.environ["HOST"], int(os.environ["PORT"]))
    await server.serve_forever()
asyncio.run(main())
"#;

async fn upgrade(switchman: &Switchman, protocol: &str) -> (String, Events) {
    let mut stream = TcpStream::connect(switchman.address).await.unwrap();
    let request =
        format!("GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
    (head, stream)
}

#[tokio::test]
async fn another_protocol_is_passed_on_where_the_service_allows_it() {
    let service =
        "    run: [python3, app.py]\n    upgrade: [websocket, my-protocol]\n    drain: {streams: 1s}\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    let build = switchman.build("4f2a91c");
    std::fs::write(build.join("app.py"), MY_PROTOCOL).unwrap();
    switchman.rsync(&build, "4f2a91c").await;
    switchman.wait_state("4f2a91c", "ready").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;

    let (head, _) = upgrade(&switchman, "other-protocol").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("upgrade"), "{head}");
    let (head, mut stream) = upgrade(&switchman, "MY-protocol").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: my-protocol\r\n"), "{head}");
    stream.get_mut().write_all(b"hello\n").await.unwrap();
    assert!(until_line(&mut stream, "hello").await);
    assert_eq!(in_flight(&switchman, "4f2a91c").await, 1);

    let (_, rest) = tokio::join!(switchman.done(&["stop", "--force", "4f2a91c"]), async {
        let mut rest = String::new();
        stream.read_line(&mut rest).await.map(|_| rest)
    });
    // Nothing is known of it, so each side is told the end, and what is written then still passes or does not.
    assert!(["", "bye"].contains(&rest.unwrap().as_str()));
    let version = switchman.version("4f2a91c").await.unwrap();
    assert_eq!((&version["state"], &version["traffic"]["in_flight"]), (&"stopped".into(), &0.into()));
}
