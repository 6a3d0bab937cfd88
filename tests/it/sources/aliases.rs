//! promote, rollback, tag: the same on both sources, each with its history.

use super::*;

async fn aliases_move(running: &Running) {
    let first = |version: &str| Change::First { version: version.to_owned() };
    let tag = |name: &str, version: &str| Change::Tag { name: name.to_owned(), version: version.to_owned() };
    let refused = running.change(Change::Rollback).await.unwrap_err();
    assert!(matches!(&refused, ChangeError::Refused { .. }), "{refused:?}");

    assert_eq!(running.change(first("aaaaaaa")).await.unwrap()["current"], "aaaaaaa");
    assert_eq!(running.change(first("bbbbbbb")).await.unwrap()["current"], "aaaaaaa");
    running.promote("bbbbbbb").await.unwrap();
    assert_eq!(running.now().aliases["current"], "bbbbbbb", "in force when it is answered");
    assert_eq!(running.now().aliases["previous"], "aaaaaaa");
    let before = running.now().generation;
    running.promote("bbbbbbb").await.unwrap();
    assert_eq!(running.now().generation, before, "what is so already changes nothing");

    let back = running.change(Change::Rollback).await.unwrap();
    assert_eq!((back["current"].as_str(), back["previous"].as_str()), ("aaaaaaa", "bbbbbbb"));
    running.change(tag("beta", "ccccccc")).await.unwrap();
    assert_eq!(running.now().aliases["beta"], "ccccccc");
    running.change(Change::Untag { name: "beta".to_owned() }).await.unwrap();
    assert!(!running.now().aliases.contains_key("beta"));
    assert!(running.change(tag("current", "ccccccc")).await.is_err());
}

#[tokio::test]
async fn aliases_in_files_move_and_outlive_a_restart() {
    let site = Site::new();
    let running = Running::start(site.spec());
    aliases_move(&running).await;
    running.stop().await;
    let running = Running::start(site.spec());
    assert_eq!(running.now().aliases["current"], "aaaaaaa");
    let history = fs::read_to_string(site.state().join("app/history.jsonl")).unwrap();
    let what: Vec<_> = history
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["what"].clone())
        .collect();
    assert_eq!(
        what,
        [
            "promote aaaaaaa (the first version)",
            "promote bbbbbbb",
            "rollback",
            "tag beta ccccccc",
            "untag beta"
        ]
    );
}

#[tokio::test]
async fn aliases_in_etcd_move_with_a_history_beside_a_document_in_a_file() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    fs::write(site.file(), TO_A).unwrap();
    let mut running = Running::start(SourceSpec { etcd: Some(cluster(&etcd.url())), ..site.spec() });
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    assert_eq!(&*running.now().document, TO_A);
    aliases_move(&running).await;

    let mut client = etcd.client().await;
    let options = || Some(etcd_client::GetOptions::new().with_prefix());
    let history = client.get("/switchman/app/history/", options()).await.unwrap();
    assert_eq!(history.kvs().len(), 5);
    let entry: serde_json::Value = serde_json::from_slice(history.kvs()[1].value()).unwrap();
    assert_eq!((&entry["who"], &entry["what"]), (&"alice".into(), &"promote bbbbbbb".into()));
    let current = client.get("/switchman/app/aliases/current", None).await.unwrap();
    assert_eq!(current.kvs()[0].value(), b"aaaaaaa");

    running.change(document(TO_B, None)).await.unwrap();
    assert_eq!(fs::read_to_string(site.file()).unwrap(), TO_B, "the document stays a file");
    put(&mut client, "aliases/beta", "ddddddd").await;
    running.until("another node's tag", |published| published.aliases.contains_key("beta")).await;
}
