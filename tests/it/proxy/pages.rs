//! Answers of ours in the form that the client wishes, and pages from a folder.

use std::collections::BTreeMap;
use std::path::Path;

use switchman::config::Delivery;
use switchman::proxy::{Pages, Settings};
use switchman::version::ServiceName;

use super::Rig;
use super::rig::Response;
use crate::support::eventually;

/// What a browser says.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

async fn ask(rig: &Rig, host: &str, headers: &str) -> Response {
    rig.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn the_client_gets_the_form_that_it_wishes() {
    let rig = Rig::start_on(Settings::default(), &[], &["app"]).await;
    for (accept, kind, text) in [
        (BROWSER, "text/html; charset=utf-8", "<h1>503 Service Unavailable</h1>"),
        ("*/*", "application/problem+json", "\"type\":\"urn:switchman:problem:not-ready\""),
        ("application/json", "application/problem+json", "\"status\":503"),
        ("text/plain", "text/plain; charset=utf-8", "503 Service Unavailable (not-ready)\n"),
        ("text/html;q=0.1, text/plain;q=0.2", "text/plain; charset=utf-8", "hint: switchman versions"),
        ("image/png", "application/problem+json", "\"title\""),
    ] {
        let response = ask(&rig, "app", &format!("Accept: {accept}\r\n")).await;
        assert_eq!((response.status, response.header("content-type")), (503, Some(kind)), "{accept}");
        assert_eq!(response.header("x-switchman-error"), Some("not-ready"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.text().contains(text), "{accept}: {}", response.text());
    }
}

#[tokio::test]
async fn what_a_client_says_is_escaped_and_an_answer_to_head_is_only_a_head() {
    let rig = Rig::start_on(Settings::default(), &[], &["app"]).await;
    let evil = "a'&b=(1);";
    let response = ask(&rig, evil, &format!("Accept: {BROWSER}\r\nX-Request-Id: <7>\r\n")).await;
    let id = response.header("x-request-id").unwrap();
    assert_eq!(response.status, 421);
    assert!(response.text().contains("<p>no service answers the host `a&#39;&amp;b=(1);`</p>"));
    assert!(response.text().contains(&format!("<p class=\"id\">{id}</p>")), "{}", response.text());
    assert!(!response.text().contains("<7>"), "the id of a client that nobody trusts");

    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send(format!("HEAD / HTTP/1.1\r\nHost: app\r\nAccept: {BROWSER}\r\n\r\n")).await;
        let (status, head) = client.head().await.unwrap();
        assert!(status == 503 && head.contains("content-type: text/html"), "{head}");
    }
    assert!(client.buffer.is_empty());
}

/// A rig with pages of its own for the service `app`, and of all services, both in `folder`.
async fn with_pages(folder: &Path) -> Rig {
    let app = Some(ServiceName::from("app"));
    let pages = Pages::follow(BTreeMap::from([(app, folder.join("app")), (None, folder.join("all"))]));
    Rig::start_with(Settings::default(), &[], &["app"], Delivery::default(), &pages).await
}

#[tokio::test]
async fn pages_come_from_the_service_s_folder_then_from_that_of_all_then_from_us() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
    for name in ["app", "all"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    write("app/5xx.html", "<b>{status} {cause} {title}</b> {detail} {other}");
    write("all/4xx.html", "all: {status}");
    let rig = with_pages(folder.path()).await;
    let html = "Accept: text/html\r\n";

    let response = ask(&rig, "app", html).await;
    assert!(
        response.text().starts_with("<b>503 not-ready Service Unavailable</b> the version")
            && response.text().ends_with(" {other}"),
        "{}",
        response.text()
    );
    assert_eq!(response.header("x-switchman-error"), Some("not-ready"));
    assert_eq!(ask(&rig, "other", html).await.text(), "all: 421");
    let json = ask(&rig, "app", "Accept: */*\r\n").await;
    assert_eq!(json.header("content-type"), Some("application/problem+json"), "pages are for people");

    // A more exact page is written, then moved into place, then removed; none is lost in between.
    write("app/not-ready.html.new", "soon back");
    std::fs::rename(folder.path().join("app/not-ready.html.new"), folder.path().join("app/not-ready.html"))
        .unwrap();
    let shows = async |text: &str| {
        eventually(text, || async { ask(&rig, "app", html).await.text().starts_with(text).then_some(()) })
            .await;
    };
    shows("soon back").await;
    std::fs::remove_file(folder.path().join("app/not-ready.html")).unwrap();
    shows("<b>503").await;
    std::fs::remove_dir_all(folder.path().join("app")).unwrap();
    shows("<!doctype html>").await;
}
