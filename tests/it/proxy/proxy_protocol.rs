//! PROXY headers on real sockets: good ones, bad ones, in pieces, from strangers.

use std::time::Duration;

use switchman::proxy::{Door, Front, Settings};
use tokio::io::AsyncWriteExt;

use super::forwarded::{ANY, got, trusting};
use super::rig::{Client, echoes_heads};
use super::{GET, Rig};

/// A rig whose connections begin with a PROXY header of one of these networks.
async fn rig(settings: Settings, trusted: &[&str]) -> Rig {
    let doors = vec![Door { proxy_protocol: true, ..Door::from(ANY) }];
    let front = Front { doors, ..trusting(trusted) };
    Rig::start_behind(settings, &[echoes_heads().await], &[], front).await
}

const V2_TCP4: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x13\x88\0\x50";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const V2_UNSPEC_WITH_MORE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x05\x04\0\x02ab";

#[tokio::test]
async fn the_header_says_who_the_client_is() {
    let rig = rig(Settings::default(), &["127.0.0.1/32"]).await;
    for (header, ip) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n".as_slice(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 5000 80\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5000 80\r\n", "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (V2_TCP4, "192.0.2.7"),
        (V2_LOCAL, "127.0.0.1"),
        (V2_UNSPEC_WITH_MORE, "127.0.0.1"),
    ] {
        let mut client = rig.connect().await;
        client.send([header, GET.as_bytes()].concat()).await;
        for _ in 0..2 {
            let response = client.response().await.unwrap();
            assert_eq!(got(&response, "x-forwarded-for"), [ip], "{}", header.escape_ascii());
            client.send(GET).await;
        }
    }
}

#[tokio::test]
async fn a_header_in_single_bytes_is_the_same_header() {
    let rig = rig(Settings::default(), &["127.0.0.1/32"]).await;
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n".as_slice(), V2_TCP4] {
        let mut client = rig.connect().await;
        client.stream.set_nodelay(true).unwrap();
        for byte in [header, GET.as_bytes()].concat() {
            client.stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(got(&client.response().await.unwrap(), "x-forwarded-for"), ["192.0.2.7"]);
    }
}

#[tokio::test]
async fn what_the_client_forged_behind_the_header_stays_forged() {
    let rig = rig(Settings::default(), &["127.0.0.1/32"]).await;
    let forged = "GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    let response = rig.ask([V2_TCP4, forged.as_bytes()].concat()).await;
    assert_eq!(got(&response, "x-forwarded-for"), ["192.0.2.7"], "the client is no trusted proxy");
    let response = rig.ask([V2_LOCAL, forged.as_bytes()].concat()).await;
    assert_eq!(got(&response, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"], "the proxy itself is");
}

#[tokio::test]
async fn a_broken_or_missing_header_closes_the_connection() {
    let rig = rig(Settings::default(), &["127.0.0.1/32"]).await;
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    let oversized = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 100]].concat();
    for bytes in [GET.as_bytes(), b"PROXY TCP4 x y 1 2\r\n", endless.as_bytes(), &oversized] {
        let mut client = rig.connect().await;
        client.send([bytes, GET.as_bytes()].concat()).await;
        assert!(client.is_closed().await);
        assert!(client.buffer.is_empty(), "{}", client.buffer.escape_ascii());
    }
}

#[tokio::test]
async fn a_header_of_a_stranger_closes_the_connection() {
    let rig = rig(Settings::default(), &["10.0.0.0/8"]).await;
    let mut client: Client = rig.connect().await;
    client.send([V2_TCP4, GET.as_bytes()].concat()).await;
    assert!(client.is_closed().await && client.buffer.is_empty());
}

#[tokio::test]
async fn a_header_that_does_not_end_is_not_waited_for() {
    let settings = Settings { head_timeout: Duration::from_millis(200), ..Settings::default() };
    let rig = rig(settings, &["127.0.0.1/32"]).await;
    let mut client = rig.connect().await;
    client.send("PROXY TCP4").await;
    assert!(client.is_closed().await && client.buffer.is_empty());
}
