//! The admin API: the JSON of the contract, who may do what, every error a problem.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use switchman::admin;
use switchman::config;
use switchman::handover::sockets::Sockets;
use switchman::metrics::ThreadSlot;
use switchman::registry::Ignored;
use switchman::version::VersionState;
use tokio::net::UnixStream;

use super::world::{World, Writer, at, put, shown, version};
use crate::support::eventually;

#[tokio::test]
async fn versions_is_the_json_of_the_contract() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    shown(&world, "app", "4f2a91c").await;
    let reply = world.ask("GET /versions", "").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let generation = world.live.load().generation;
    let expected = format!(
        r#"{{"node":"host-a","generation":{generation},"versions":[{{"service":"app","version":"4f2a91c","state":"ready","dark":true,"aliases":["latest"],"routes":[],"path":"/srv/app/4f2a91c","since":"2026-11-21T07:30:00Z","reason":null,"workers":[{{"id":0,"pid":4711,"address":"127.0.0.1:41234","state":"ready","in_flight":0,"restarts":0}}],"traffic":{{"requests":0,"in_flight":0,"rps":0.0,"errors":0,"p50_ms":null,"p99_ms":null,"last_hit":null}}}}]}}"#
    );
    assert_eq!(reply.body, expected);

    // One of them, by prefix, by alias: the same element.
    let one = world.ask("GET /services/app/versions/latest", "").await;
    assert_eq!(one.json(), reply.json()["versions"][0]);

    // Traffic shows, in flight as the sum over the workers.
    let routing = world.live.load();
    let counted = routing.service("app").unwrap().resolve("4f2a91c").unwrap().clone();
    counted.ready[0].in_flight.begin(ThreadSlot(0));
    counted.counters.record(ThreadSlot(0), true, Duration::from_millis(2), 1_000_500);
    let traffic = world.ask("GET /versions?service=app", "").await.json()["versions"][0]["traffic"].clone();
    assert_eq!((&traffic["requests"], &traffic["errors"]), (&json!(1), &json!(1)));
    assert_eq!(traffic["in_flight"], 1);
    assert_eq!(traffic["last_hit"], "1970-01-01T00:16:40Z");
    world.end().await;
}

#[tokio::test]
async fn all_adds_what_is_ignored_and_what_is_wrong() {
    let (world, registry) = World::start(&["app", "web"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    registry.update(|services| {
        let app = services.get_mut("app").unwrap();
        app.problem = Some("/srv/app cannot be read: permission denied".into());
        app.ignored.push(Ignored { name: "tmp".into(), reason: "its name is no hash".into() });
    });
    let document = "routes:\n  - {name: qa, when: {header.x-qa: \"yes\"}, to: b001bee}\n";
    assert_eq!(world.ask("PUT /services/app/rules", document).await.status, 200);
    eventually("the root's problem is in the snapshot", || async {
        let all = world.ask("GET /versions?all=1", "").await.json();
        (all["ignored"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let all = world.ask("GET /versions?all=1", "").await.json();
    assert_eq!(
        all["ignored"],
        json!([{"service": "app", "name": "tmp", "path": "/srv/app/tmp", "reason": "its name is no hash"}])
    );
    let problems = all["problems"].as_array().unwrap();
    assert_eq!(problems[0]["message"], "/srv/app cannot be read: permission denied");
    assert_eq!(problems[1]["message"], "no version or alias is called `b001bee`");
    assert_eq!((&problems[1]["severity"], &problems[1]["line"]), (&json!("warning"), &json!(2)));
    assert!(world.ask("GET /versions", "").await.json().get("ignored").is_none());
    let web = world.ask("GET /versions?service=web&all=1", "").await.json();
    assert_eq!((&web["versions"], &web["ignored"], &web["problems"]), (&json!([]), &json!([]), &json!([])));
    world.end().await;
}

#[tokio::test]
async fn who_may_do_what() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    shown(&world, "app", "4f2a91c").await;
    let host = format!("host: {}", world.address);
    let right = format!("authorization: Bearer {}", world.token);
    let wrong = format!("authorization: Bearer {}", "0".repeat(64));
    let promote = "POST /services/app/versions/4f2a91c/promote";
    let cases: &[(&str, &[&str], u16)] = &[
        ("GET /versions", &[&host], 200),
        ("GET /versions", &["host: evil.example"], 403),
        (promote, &[&host], 401),
        (promote, &[&host, &wrong], 401),
        (promote, &[&host, &right, "origin: http://evil.example"], 403),
        (promote, &["host: evil.example", &right], 403),
        (promote, &[&host, &right], 200),
        ("PUT /services/app/aliases/beta", &[&host], 401),
        ("DELETE /services/app/aliases/beta", &[&host], 401),
        ("POST /nowhere", &[&host], 401),
        ("GET /healthz", &[&host], 200),
    ];
    for (line, headers, status) in cases {
        let reply = world.ask_tcp(line, headers).await;
        assert_eq!(reply.status, *status, "{line} {headers:?}: {}", reply.body);
        if *status >= 400 {
            reply.problem();
        }
        if *status == 401 {
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(world.ask(promote, "").await.status, 200, "the socket needs no token");

    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&world.socket).unwrap().mode() & 0o777, 0o600);
    world.end().await;
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    let one = version("app", "4f2a91c000", VersionState::Ready);
    let two = version("app", "4f2a91c111", VersionState::Failed);
    put(&registry, vec![one, two]);
    shown(&world, "app", "4f2a91c111").await;
    let cases: &[(&str, &str, u16, &str)] = &[
        ("GET /", "", 404, "not-found"),
        ("GET /nowhere", "", 404, "not-found"),
        ("GET /services/app/versions/4f2a91c000/nowhere", "", 404, "not-found"),
        ("DELETE /versions", "", 405, "method-not-allowed"),
        ("GET /services/app/versions/4f2a91c000/start", "", 405, "method-not-allowed"),
        ("GET /versions?service=web", "", 404, "unknown-service"),
        ("GET /services/web/versions/4f2a91c000", "", 404, "unknown-service"),
        ("GET /services/app/versions/b001bee", "", 404, "unknown-version"),
        ("GET /services/app/versions/4f2a91c", "", 400, "ambiguous-version"),
        ("GET /services/app/versions/%ff", "", 400, "bad-request"),
        ("GET /services/app/aliases/beta", "", 404, "unknown-alias"),
        ("DELETE /services/app/aliases/beta", "", 404, "unknown-alias"),
        ("PUT /services/app/aliases/beta", "{", 400, "bad-request"),
        ("PUT /services/app/aliases/beta", r#"{"versoin": "4f2a91c000"}"#, 400, "bad-request"),
        ("PUT /services/app/aliases/beta", r#"{"version": "b001bee"}"#, 404, "unknown-version"),
        ("PUT /services/app/aliases/current", r#"{"version": "4f2a91c000"}"#, 409, "refused"),
        ("POST /services/app/versions/4f2a91c000/scale", r#"{"workers": 0}"#, 400, "bad-request"),
        ("POST /services/app/versions/4f2a91c000/scale", r#"{"workers": -1}"#, 400, "bad-request"),
        ("POST /services/app/versions/4f2a91c111/promote", "", 409, "refused"),
        ("POST /services/app/rollback", "", 409, "refused"),
        ("PUT /services/app/rules", "routes: 7\n", 422, "invalid-rules"),
        ("POST /services/app/rules/explain", r#"{"headers": 1}"#, 400, "bad-request"),
        ("GET /readyz", "", 503, "not-ready"),
    ];
    for (line, body, status, kind) in cases {
        let reply = world.ask(line, body).await;
        assert_eq!(reply.status, *status, "{line}: {}", reply.body);
        assert_eq!(reply.problem(), *kind, "{line}");
    }
    let refused = world.ask("DELETE /services/app/rules", "").await;
    assert_eq!(refused.header("allow"), Some("GET,HEAD,PUT"), "a 405 says what is possible");
    let large = "#".repeat(10 * 1024 * 1024 + 1);
    assert_eq!(world.ask("PUT /services/app/rules", &large).await.problem(), "too-large");
    let refused = world.ask("PUT /services/app/rules", "routes: 7\n").await.json();
    assert_eq!(refused["problems"][0]["line"], 1, "{refused}");

    world.listening.send_replace(true);
    let ready = world.ask("GET /readyz", "").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ok\n"));
    world.end().await;
}

#[tokio::test]
async fn who_changes_and_then_reads_sees_the_change() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    let mut other = version("app", "b001bee", VersionState::Ready);
    other.arrived = at("2026-11-21T07:45:00Z");
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready), other]);
    shown(&world, "app", "b001bee").await;
    let current =
        || async { world.ask("GET /services/app/versions/current", "").await.json()["version"].clone() };

    let promoted = world.ask("POST /services/app/versions/4f2a91c/promote", "").await.json();
    assert_eq!((&promoted["version"], &promoted["dark"]), (&json!("4f2a91c"), &json!(false)));
    assert_eq!(promoted["aliases"], json!(["current"]));
    assert_eq!(current().await, "4f2a91c");
    assert_eq!(
        world.ask("POST /services/app/versions/latest/promote", "").await.json()["version"],
        "b001bee"
    );
    assert_eq!(world.ask("POST /services/app/rollback", "").await.json()["version"], "4f2a91c");
    assert_eq!(current().await, "4f2a91c");

    let tagged = world.ask("PUT /services/app/aliases/beta", r#"{"version": "latest"}"#).await.json();
    assert_eq!(tagged, json!({"service": "app", "name": "beta", "version": "b001bee"}));
    assert_eq!(
        world.ask("GET /services/app/aliases", "").await.json()["aliases"],
        json!({"beta": "b001bee", "current": "4f2a91c", "latest": "b001bee", "previous": "b001bee"})
    );
    assert_eq!(world.ask("DELETE /services/app/aliases/beta", "").await.status, 204);
    assert_eq!(world.ask("GET /services/app/aliases/beta", "").await.status, 404);

    // A previous version that is not ready must not become current by accident.
    put(&registry, vec![version("app", "b001bee", VersionState::Failed)]);
    eventually("the failure shows", || async {
        (world.state_of("app", "b001bee").await? == VersionState::Failed).then_some(())
    })
    .await;
    assert_eq!(world.ask("POST /services/app/rollback", "").await.problem(), "refused");
    assert_eq!(world.ask("POST /services/app/rollback?force=1", "").await.status, 200);
    world.end().await;
}

#[tokio::test]
async fn rules_are_read_replaced_checked_and_explained() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    let beta = version("app", "b001bee", VersionState::Ready);
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready), beta]);
    shown(&world, "app", "b001bee").await;
    assert_eq!(world.ask("POST /services/app/versions/4f2a91c/promote", "").await.status, 200);

    let document = "routes:\n  - {name: qa, when: {header.x-qa: \"yes\"}, to: b001bee}\n";
    let set = world.ask("PUT /services/app/rules", document).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let etag = set.header("etag").unwrap().to_owned();
    let got = world.ask("GET /services/app/rules", "").await;
    assert_eq!(got.json()["document"], document);
    assert_eq!(got.header("etag"), Some(etag.as_str()));
    assert_eq!(format!("\"{}\"", got.json()["revision"]), etag);
    let text = world.ask_with("GET /services/app/rules", &["host: x", "accept: text/yaml"], "").await;
    assert_eq!(
        (text.body.as_str(), text.header("content-type")),
        (document, Some("text/yaml; charset=utf-8"))
    );
    assert_eq!(world.ask("GET /services/app/versions/b001bee", "").await.json()["routes"], json!(["qa"]));

    // Two people edit the same revision: the second is told.
    let guard = format!("if-match: {etag}");
    let edit = json!({ "document": document.replace("yes", "on") }).to_string();
    let first = world.ask_with("PUT /services/app/rules", &["host: x", &guard], &edit).await;
    assert_eq!(first.status, 200, "{}", first.body);
    let second = world.ask_with("PUT /services/app/rules", &["host: x", &guard], &edit).await;
    assert_eq!((second.status, second.problem().as_str()), (412, "revision-changed"));

    let checked = world.ask("POST /services/app/rules/check?name=my.yaml", "default: nightly\n").await.json();
    assert_eq!(checked["ok"], true);
    let warning = &checked["problems"][0];
    assert_eq!(warning["message"], "no version or alias is called `nightly`");
    assert_eq!((&warning["file"], &warning["line"]), (&json!("my.yaml"), &json!(1)));
    let checked = world.ask("POST /services/app/rules/check", "defualt: x\n").await.json();
    assert_eq!(checked["ok"], false);

    let asked = json!({"path": "/cart", "headers": {"x-qa": "on"}}).to_string();
    let explained = world.ask("POST /services/app/rules/explain", &asked).await.json();
    assert_eq!((&explained["route"], &explained["version"]), (&json!("qa"), &json!("b001bee")));
    assert_eq!((&explained["worker"], &explained["routes"][0]["decides"]), (&json!(0), &json!(true)));
    let asked = json!({"headers": {"x-qa": ["off"]}}).to_string();
    let explained = world.ask("POST /services/app/rules/explain", &asked).await.json();
    assert_eq!((&explained["route"], &explained["version"]), (&Value::Null, &json!("4f2a91c")));
    assert_eq!(explained["routes"][0]["failed"]["seen"], "off");
    assert_eq!(explained["why"], "no route took it, and the default is current (4f2a91c)");
    world.end().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let (world, _registry) = World::start(&["app"], Writer::Test).await;
    let again = |socket: &Path| {
        let admin = config::Admin { listen: None, socket: socket.to_owned() };
        async move { admin::bind(&admin, &mut Sockets::default()).await }
    };
    let error = again(&world.socket).await.unwrap_err();
    assert!(error.to_string().starts_with("another switchman runs here"), "{error}");
    let taken = config::Admin { listen: Some(world.address), socket: world.folder.path().join("s") };
    let error = admin::bind(&taken, &mut Sockets::default()).await.unwrap_err();
    assert!(error.hint().contains("ss -ltnp"), "{error}: {}", error.hint());

    // A socket without its process, as after a kill -9.
    let stale = world.folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let bound = again(&stale).await.unwrap();
    assert_eq!(bound.socket(), stale);
    UnixStream::connect(&stale).await.unwrap();

    let file = world.folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(again(&file).await.unwrap_err().to_string().ends_with("is no socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    world.end().await;
}
