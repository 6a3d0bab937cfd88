//! `GET /versions` is a contract: exactly these keys, in this order, with these types.

use super::super::support::http::get;
use super::super::support::switchman::{Setup, Switchman};

fn keys(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn versions_is_the_json_of_the_contract() {
    let switchman = Switchman::start(Setup::default()).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    for _ in 0..3 {
        get(&switchman.url("/")).await.unwrap();
    }
    switchman.wait_version("4f2a91c", "has counted", |v| v["traffic"]["requests"] == 3).await;
    let all = switchman.versions().await;
    assert_eq!(keys(&all), ["node", "generation", "versions"]);
    assert_eq!(all["node"], "host-a");
    assert!(all["generation"].as_u64().unwrap() > 0);

    let version = &all["versions"][0];
    assert_eq!(
        keys(version),
        [
            "service", "version", "state", "dark", "aliases", "routes", "path", "since", "reason", "workers",
            "traffic"
        ]
    );
    assert_eq!(version["service"], "app");
    assert_eq!(version["path"], switchman.root().join("4f2a91c").to_str().unwrap());
    assert_eq!(version["reason"], serde_json::Value::Null);
    assert_eq!(version["routes"], serde_json::json!([]));
    let since = version["since"].as_str().unwrap();
    assert!(since.len() == "2026-11-21T07:30:00Z".len() && since.ends_with('Z'), "{since}");

    let worker = &version["workers"][0];
    assert_eq!(keys(worker), ["id", "pid", "address", "state", "in_flight", "restarts"]);
    assert_eq!(
        (&worker["id"], &worker["state"], &worker["restarts"]),
        (&0.into(), &"ready".into(), &0.into())
    );

    let traffic = &version["traffic"];
    assert_eq!(keys(traffic), ["requests", "in_flight", "rps", "errors", "p50_ms", "p99_ms", "last_hit"]);
    assert!(traffic["p50_ms"].is_f64() && traffic["p99_ms"].is_f64() && traffic["rps"].is_f64(), "{traffic}");
    assert!(traffic["last_hit"].as_str().unwrap().ends_with('Z'));

    let by_service = get(&format!("http://{}/versions?service=app", switchman.admin)).await.unwrap().json();
    assert_eq!(by_service["versions"].as_array().unwrap().len(), 1);
    let none = get(&format!("http://{}/versions?service=nope", switchman.admin)).await.unwrap();
    assert_eq!(none.status, 404, "{}", none.text());
    let one = get(&format!("http://{}/services/app/versions/current", switchman.admin)).await.unwrap().json();
    assert_eq!(one["version"], "4f2a91c");
    let cli: serde_json::Value =
        serde_json::from_str(&switchman.done(&["versions", "--json"]).await).unwrap();
    assert_eq!(keys(&cli), ["node", "generation", "versions"]);
}
