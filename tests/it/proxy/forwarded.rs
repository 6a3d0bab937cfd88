//! What workers are told of clients: nothing that a client made up, and everything that a trusted proxy says.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use switchman::proxy::{Door, Front, Inside, Settings};
use switchman::registry::Address;

use super::rig::{Response, echoes_heads};
use super::{GET, Rig};

/// A front of one plain address that trusts these networks.
pub(crate) fn trusting(proxies: &[&str]) -> Front {
    let trusted_proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
    Front { trusted_proxies, ..Front::from(vec![Door::from(ANY)]) }
}

/// Any port of loopback.
pub(crate) const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn start(front: Front, workers: &[Address]) -> Rig {
    Rig::start_behind(Settings::default(), workers, &[], front).await
}

/// The values of a header that the worker got, in order.
pub(crate) fn got<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let lines = response.text().lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

const FORGED: &str = "GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 6.6.6.7\r\n\
    X_Forwarded_For: 6.6.6.8\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
    X-Forwarded-Prefix: /x\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: forged\r\nX_Request_Id: forged\r\n\
    X-Request-Start: t=6\r\nA: 1\r\n\r\n";

#[tokio::test]
async fn what_a_stranger_says_of_itself_is_replaced() {
    let rig = start(trusting(&["10.0.0.0/8"]), &[echoes_heads().await]).await;
    let response = rig.ask(FORGED).await;
    for (name, values) in [
        ("x-forwarded-for", vec!["127.0.0.1"]),
        ("x-forwarded-proto", vec!["http"]),
        ("x-forwarded-host", vec!["app"]),
        ("a", vec!["1"]),
    ] {
        assert_eq!(got(&response, name), values, "{name}");
    }
    for name in ["x_forwarded_for", "forwarded", "x-forwarded-prefix", "x-real-ip", "x_request_id"] {
        assert!(got(&response, name).is_empty(), "{name}: {}", response.text());
    }
    assert!(!response.text().contains("forged") && !response.text().contains("6.6.6"), "{}", response.text());
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_passed_on_and_extended() {
    let rig = start(trusting(&["127.0.0.1/32", "6.6.6.0/24"]), &[echoes_heads().await]).await;
    let response = rig.ask(FORGED).await;
    for (name, values) in [
        ("x-forwarded-for", vec!["6.6.6.6, 6.6.6.7, 127.0.0.1"]),
        ("x-forwarded-proto", vec!["https"]),
        ("x-forwarded-host", vec!["evil"]),
        ("x-forwarded-prefix", vec!["/x"]),
        ("x-real-ip", vec!["6.6.6.6"]),
        ("forwarded", vec!["for=6.6.6.6, for=127.0.0.1;proto=http"]),
        ("x-request-id", vec!["forged"]),
        ("x-request-start", vec!["t=6"]),
        ("x_forwarded_for", vec![]),
        ("x_request_id", vec![]),
    ] {
        assert_eq!(got(&response, name), values, "{name}");
    }
}

#[tokio::test]
async fn each_request_has_an_id_and_its_start() {
    let rig = Rig::start(Settings::default(), &[echoes_heads().await]).await;
    let mut client = rig.connect().await;
    let mut ids = HashSet::new();
    for _ in 0..3 {
        client.send(GET).await;
        let response = client.response().await.unwrap();
        let [id] = got(&response, "x-request-id")[..] else { panic!("one id: {}", response.text()) };
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(response.header("x-request-id"), None, "answers of the worker are its own");
        ids.insert(id.to_owned());
        let [start] = got(&response, "x-request-start")[..] else { panic!("one start: {}", response.text()) };
        let start: u128 = start.strip_prefix("t=").unwrap().parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(now.abs_diff(start) < 60_000, "{start} is not now ({now})");
    }
    assert_eq!(ids.len(), 3, "each has its own");
}

#[tokio::test]
async fn an_id_that_is_not_sane_is_replaced_even_of_a_trusted_proxy() {
    let rig = start(trusting(&["127.0.0.1/32"]), &[echoes_heads().await]).await;
    let long = "x".repeat(129);
    for id in ["a b", long.as_str(), "caf\u{e9}", ""] {
        let response = rig.ask(format!("GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: {id}\r\n\r\n")).await;
        assert_eq!(got(&response, "x-request-id")[0].len(), 32, "{id:?}");
    }
}

#[tokio::test]
async fn answers_of_ours_carry_the_id() {
    let rig = start(trusting(&["127.0.0.1/32"]), &[]).await;
    let response = rig.ask(GET).await;
    assert_eq!((response.status, response.header("x-request-id").map(str::len)), (503, Some(32)));
    let response = rig.ask("GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: quoted\r\n\r\n").await;
    assert_eq!(response.header("x-request-id"), Some("quoted"));
    let response = rig.ask("GET / HTTP/9\r\n\r\n").await;
    assert_eq!((response.status, response.header("x-request-id").map(str::len)), (505, Some(32)));

    let off = start(Front { request_ids: false, ..trusting(&[]) }, &[]).await;
    assert_eq!(off.ask(GET).await.header("x-request-id"), None);
    off.set_workers(&[echoes_heads().await]).await;
    let response = off.ask("GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: its own\r\n\r\n").await;
    assert_eq!(got(&response, "x-request-id"), ["its own"]);
}

#[tokio::test]
async fn plain_requests_are_sent_to_https_unless_they_came_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let spec = super::tls::pair(folder.path(), "app", &["app"]);
    let (tls, _) = super::tls::tls(&[spec]);
    let doors = vec![
        Door { inside: Inside::Redirect, ..Door::from(ANY) },
        Door { inside: Inside::Tls(tls), ..Door::from(ANY) },
    ];
    let rig = start(Front { doors, ..trusting(&["127.0.0.1/32"]) }, &[echoes_heads().await]).await;
    let port = rig.addresses[1].port();
    for (request, location) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: app:7000\r\n\r\n", format!("https://app:{port}/a?b=c")),
        (
            "POST http://app?q HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            format!("https://app:{port}/?q"),
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", format!("https://[::1]:{port}/")),
        ("GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-Proto: http\r\n\r\n", format!("https://app:{port}/")),
    ] {
        let response = rig.ask(request).await;
        assert_eq!(
            (response.status, response.header("location")),
            (308, Some(location.as_str())),
            "{request}"
        );
        assert_eq!(response.header("x-switchman-error"), Some("https-required"));
    }
    let response = rig.ask("GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-Proto: https\r\n\r\n").await;
    assert_eq!(response.status, 200);
    assert_eq!(rig.ask("GET / HTTP/1.0\r\n\r\n").await.status, 400, "there is no host to redirect to");
}
