//! What takes more than one step: settings and answers to them, flow control (RFC 9113 sections 5.1.2, 5.2, 6.5.3,
//! 6.7, 6.9), and the caps that the configuration sets, as they show on the wire.

use switchman::config::Http2;

use super::*;
use crate::support::eventually;

/// The lengths of the DATA frames of stream 1 up to the answer to a PING that is sent now.
async fn data(raw: &mut Raw) -> Vec<usize> {
    raw.send(PING, 0, 0, MARK).await;
    let mut lengths = Vec::new();
    loop {
        let frame = raw.next().await.expect("the connection goes on");
        match frame.kind {
            DATA if frame.stream == 1 => lengths.push(frame.payload.len()),
            PING if frame.payload == MARK => return lengths,
            _ => {}
        }
    }
}

/// The next DATA frame of stream 1.
async fn next_data(raw: &mut Raw) -> Vec<u8> {
    loop {
        let frame = raw.next().await.expect("the connection goes on");
        if frame.kind == DATA && frame.stream == 1 {
            return frame.payload;
        }
    }
}

#[tokio::test]
async fn settings_and_pings_are_answered_in_their_order() {
    let (rig, _) = rig(Settings::default()).await;
    let mut raw = Raw::connect(rig.address).await;
    raw.client.send(settings(&[(3, 100)])).await;
    for n in 0..3 {
        raw.send(PING, 0, 0, &[n; 8]).await;
    }
    let (mut acks, mut pongs) = (0, Vec::new());
    while acks < 2 || pongs.len() < 3 {
        let frame = raw.next().await.unwrap();
        match (frame.kind, frame.flags) {
            (SETTINGS, ACK) => acks += 1,
            (PING, ACK) => pongs.push(frame.payload),
            _ => {}
        }
    }
    // Those of the connection's start, and these.
    assert_eq!((acks, pongs), (2, vec![vec![0; 8], vec![1; 8], vec![2; 8]]));
}

#[tokio::test]
async fn no_more_is_sent_than_the_window_allows() {
    let (rig, _) = rig(Settings::default()).await;
    let mut raw = Raw::connect(rig.address).await;
    // The last value of several counts (section 6.5.3).
    raw.client.send([settings(&[(4, 100), (4, 3)]), request(1)].concat()).await;
    assert_eq!(next_data(&mut raw).await, b"hel");
    assert_eq!(data(&mut raw).await, [0; 0], "the window is empty");
    // Smaller than what was sent: the window is below zero, and must be filled up first (section 6.9.2).
    raw.client.send(settings(&[(4, 1)])).await;
    raw.client.send(window(1, 2)).await;
    assert_eq!(data(&mut raw).await, [0; 0], "the window is at zero");
    raw.client.send(window(1, 1)).await;
    assert_eq!(next_data(&mut raw).await, b"l");
    // A larger initial window makes the windows of open streams larger.
    raw.client.send(settings(&[(4, 100)])).await;
    assert_eq!(next_data(&mut raw).await, b"o");
}

#[tokio::test]
async fn a_window_that_is_empty_at_first_opens() {
    let (rig, _) = rig(Settings::default()).await;
    let mut raw = Raw::connect(rig.address).await;
    raw.client.send([settings(&[(4, 0)]), request(1)].concat()).await;
    while raw.next().await.unwrap().kind != HEADERS {}
    assert_eq!(data(&mut raw).await, [0; 0]);
    raw.client.send(window(1, 5)).await;
    assert_eq!(next_data(&mut raw).await, b"hello");
}

/// The settings that the server says first, in pairs.
async fn said(raw: &mut Raw) -> Vec<(u16, u32)> {
    let first = raw.next().await.unwrap();
    assert_eq!((first.kind, first.flags), (SETTINGS, 0));
    let pairs = first.payload.chunks(6);
    pairs.map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), code(&pair[2..]))).collect()
}

#[tokio::test]
async fn configured_caps_are_told_and_held() {
    let http2 = Http2 { streams: 2, stream_window: 2048, connection_window: 200_000, ..Http2::default() };
    let silent = Router::new().fallback(|| async { std::future::pending::<&str>().await });
    let rig = Rig::start(Settings { http2, ..Settings::default() }, &[]).await;
    let workers = rig.set_workers(&[application(silent).await]).await;
    let mut raw = Raw::connect(rig.address).await;
    let said = said(&mut raw).await;
    for (id, value) in [(3, 2), (4, 2048)] {
        assert!(said.contains(&(id, value)), "{id} is {value} in {said:?}");
    }
    // The connection's window is told by what it grows.
    let grows = loop {
        let frame = raw.next().await.unwrap();
        if frame.kind == WINDOW_UPDATE {
            break code(&frame.payload);
        }
    };
    assert_eq!(grows, 200_000 - 65_535);
    // The third request is refused, and the two before it run (section 5.1.2).
    raw.client.send([request(1), request(3), request(5)].concat()).await;
    assert_eq!(see(&mut raw, 5, true, false).await, Seen::Reset(REFUSED));
    eventually("two run", || async { (workers[0].in_flight.now() == 2).then_some(()) }).await;
    // More than a stream's window is a flow-control error of that stream, once the client knows of the window.
    raw.client
        .send(
            [frame(SETTINGS, ACK, 0, b""), reset(1, CANCEL), upload(7), frame(DATA, 0, 7, &[0; 2049])]
                .concat(),
        )
        .await;
    let seen = see(&mut raw, 7, true, false).await;
    assert!(matches!(seen, Seen::Reset(FLOW_CONTROL) | Seen::Goaway(FLOW_CONTROL)), "{seen:?}");
}

#[tokio::test]
async fn malformed_requests_are_capped() {
    let http2 = Http2 { error_resets: 5, ..Http2::default() };
    let (rig, asked) = rig(Settings { http2, ..Settings::default() }).await;
    let mut raw = Raw::connect(rig.address).await;
    let malformed = block(&[(":method", "GET")]);
    for stream in (1..11).step_by(2) {
        raw.send(HEADERS, WHOLE, stream, &malformed).await;
        assert_eq!(see(&mut raw, stream, true, false).await, Seen::Reset(PROTOCOL));
    }
    raw.send(HEADERS, WHOLE, 11, &malformed).await;
    assert_eq!(see(&mut raw, 11, true, false).await, Seen::Goaway(11), "ENHANCE_YOUR_CALM");
    assert_eq!(asked.load(Relaxed), 0);
}
