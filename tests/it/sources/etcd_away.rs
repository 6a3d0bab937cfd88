//! An etcd that is cut off, killed, hung, compacted, late, or empty: routing goes on and catches up.

use super::*;

#[tokio::test]
async fn a_cut_connection_and_a_compaction_meanwhile_lose_nothing() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut relay = Relay::to(etcd.port()).await;
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    put(&mut client, "aliases/gone", "aaaaaaa").await;
    let mut running = Running::start(site.with_etcd(&relay.url()));
    running.until_document(TO_A).await;

    relay.cut().await;
    let stale = running.until("stale", |published| published.stale_since.is_some()).await;
    assert_eq!(&*stale.document, TO_A, "routing goes on");
    let mut last = 0;
    for n in 0..200 {
        let answer = client.put("/switchman/app/aliases/beta", format!("{n:07}"), None).await.unwrap();
        last = answer.header().unwrap().revision();
    }
    client.delete("/switchman/app/aliases/gone", None).await.unwrap();
    put(&mut client, "rules", TO_B).await;
    client.compact(last, Some(CompactionOptions::new().with_physical())).await.unwrap();
    let away = running.promote("bbbbbbb").await.unwrap_err();
    assert!(matches!(&away, ChangeError::Unavailable(why) if why.contains("etcd")), "{away:?}");

    relay.mend().await;
    let caught_up = running.until_document(TO_B).await;
    assert_eq!(caught_up.stale_since, None);
    assert_eq!(caught_up.aliases["beta"], "0000199");
    assert!(!caught_up.aliases.contains_key("gone"), "what was removed meanwhile is gone");
    running.promote("bbbbbbb").await.unwrap();
}

#[tokio::test]
async fn a_watch_that_a_compaction_overtakes_is_begun_anew() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut relay = Relay::to(etcd.port()).await;
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    let mut running = Running::start(site.with_etcd(&relay.url()));
    running.until_document(TO_A).await;

    // More than all buffers on the way can hold, so that etcd has to put the watch back.
    relay.freeze();
    let padding = "#".repeat(1 << 20);
    let mut last = 0;
    for n in 0..30 {
        let text = format!("routes: [] {padding} {n}");
        let answer = client.put("/switchman/app/rules", text, None).await.unwrap();
        last = answer.header().unwrap().revision();
    }
    client.compact(last, Some(CompactionOptions::new().with_physical())).await.unwrap();
    put(&mut client, "rules", TO_B).await;
    relay.mend().await;
    running.until_document(TO_B).await;
    put(&mut client, "rules", TO_A).await;
    running.until_document(TO_A).await;
}

#[tokio::test]
async fn a_killed_etcd_is_caught_up_with_after_its_restart() {
    let (mut etcd, site) = (Etcd::start().await, Site::new());
    put(&mut etcd.client().await, "rules", TO_A).await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until_document(TO_A).await;
    running.promote("aaaaaaa").await.unwrap();

    etcd.kill().await;
    let stale = running.until("stale", |published| published.stale_since.is_some()).await;
    assert_eq!((&*stale.document, stale.aliases["current"].as_str()), (TO_A, "aaaaaaa"));
    assert!(stale.problems.to_string().contains("etcd cannot be reached"), "{}", stale.problems);

    etcd.restart().await;
    let well = running.until("not stale", |published| published.stale_since.is_none()).await;
    assert!(well.problems.is_empty(), "{}", well.problems);
    put(&mut etcd.client().await, "rules", TO_B).await;
    running.until_document(TO_B).await;
    running.change(Change::Rollback).await.unwrap_err();
    running.promote("bbbbbbb").await.unwrap();
}

#[tokio::test]
async fn a_hung_etcd_is_noticed() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut relay = Relay::to(etcd.port()).await;
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    let mut running = Running::start(site.with_etcd(&relay.url()));
    running.until_document(TO_A).await;
    relay.freeze();
    put(&mut client, "rules", TO_B).await;
    let stale = running.until("stale", |published| published.stale_since.is_some()).await;
    assert_eq!(&*stale.document, TO_A);
    relay.mend().await;
    running.until_document(TO_B).await;
}

#[tokio::test]
async fn an_etcd_that_is_not_there_at_the_start_is_caught_up_with_when_it_comes() {
    let (mut etcd, site) = (Etcd::absent(), Site::new());
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    let empty = running.now();
    assert!(empty.stale_since.is_some() && empty.document.is_empty() && empty.aliases.is_empty());
    let away = running.promote("aaaaaaa").await.unwrap_err();
    assert!(matches!(away, ChangeError::Unavailable(_)), "{away:?}");

    etcd.restart().await;
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    put(&mut etcd.client().await, "rules", TO_A).await;
    running.until_document(TO_A).await;
    running.promote("aaaaaaa").await.unwrap();
}

#[tokio::test]
async fn a_restart_with_etcd_away_routes_by_the_last_good_rules() {
    let (mut etcd, site) = (Etcd::start().await, Site::new());
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    put(&mut client, "routes/10-early", "{when: {header.x-early: \"yes\"}, to: ccccccc}").await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until_document(TO_A).await;
    running.promote("aaaaaaa").await.unwrap();
    let routes = running.now().table.routes().count();
    running.stop().await;

    etcd.stop().await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    let kept = running.now();
    assert_eq!((&*kept.document, kept.aliases["current"].as_str()), (TO_A, "aaaaaaa"));
    assert_eq!(kept.table.routes().count(), routes);
    assert!(kept.stale_since.is_some());

    etcd.restart().await;
    put(&mut etcd.client().await, "rules", TO_B).await;
    let caught_up = running.until_document(TO_B).await;
    assert_eq!(caught_up.stale_since, None);
}

#[tokio::test]
async fn an_etcd_that_lost_its_data_resets_nothing_and_gets_it_back_with_the_next_change() {
    let (mut etcd, site) = (Etcd::start().await, Site::new());
    put(&mut etcd.client().await, "rules", TO_A).await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until_document(TO_A).await;
    running.promote("aaaaaaa").await.unwrap();

    etcd.lose_data().await;
    etcd.restart().await;
    let told = |published: &Arc<Published>| published.problems.to_string().contains("etcd holds nothing");
    let kept = running.until("told", told).await;
    assert_eq!((&*kept.document, kept.aliases["current"].as_str()), (TO_A, "aaaaaaa"));
    running.stop().await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until("told after a restart too", told).await;

    let aliases = running.promote("bbbbbbb").await.unwrap();
    assert_eq!((aliases["current"].as_str(), aliases["previous"].as_str()), ("bbbbbbb", "aaaaaaa"));
    assert_eq!(&*running.now().document, TO_A);
    assert!(running.now().problems.is_empty(), "{}", running.now().problems);
    let stored = etcd.client().await.get("/switchman/app/rules", None).await.unwrap();
    assert_eq!(stored.kvs()[0].value(), TO_A.as_bytes());
}

#[tokio::test]
async fn moving_from_files_to_an_empty_etcd_keeps_everything_and_writes_it_there() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    fs::write(site.file(), TO_A).unwrap();
    let running = Running::start(site.spec());
    running.promote("aaaaaaa").await.unwrap();
    running.stop().await;

    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    let kept = running.now();
    assert_eq!((&*kept.document, kept.aliases["current"].as_str()), (TO_A, "aaaaaaa"));
    running.promote("bbbbbbb").await.unwrap();

    let elsewhere = Site::new();
    let mut other = Running::start(elsewhere.with_etcd(&etcd.url()));
    let there = other.until_document(TO_A).await;
    assert_eq!(
        (there.aliases["current"].as_str(), there.aliases["previous"].as_str()),
        ("bbbbbbb", "aaaaaaa")
    );
}

#[tokio::test]
async fn what_is_answered_with_ok_over_a_bad_network_was_made_exactly_once() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut relay = Relay::to(etcd.port()).await;
    let mut running = Running::start(site.with_etcd(&relay.url()));
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    let weather = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(15)).await;
            relay.cut().await;
            relay.mend().await;
        }
    });
    let mut ok = Vec::new();
    for n in 0..150 {
        let version = format!("{n:07}");
        match running.promote(&version).await {
            Ok(aliases) => {
                assert_eq!(aliases["current"], version);
                ok.push(format!("promote {version}"));
            }
            Err(ChangeError::Unavailable(_) | ChangeError::Conflict { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    weather.abort();
    let options = etcd_client::GetOptions::new().with_prefix();
    let history = etcd.client().await.get("/switchman/app/history/", Some(options)).await.unwrap();
    let made: Vec<String> = history
        .kvs()
        .iter()
        .map(|kv| serde_json::from_slice::<serde_json::Value>(kv.value()).unwrap())
        .map(|entry| entry["what"].as_str().unwrap().to_owned())
        .collect();
    for what in &ok {
        assert_eq!(made.iter().filter(|made| *made == what).count(), 1, "{what}");
    }
    println!("over a bad network: {} of 150 answered with ok, {} made", ok.len(), made.len());
    assert!(!ok.is_empty());
}

#[tokio::test]
async fn a_rule_file_is_followed_also_while_etcd_is_away() {
    let (mut etcd, site) = (Etcd::absent(), Site::new());
    fs::write(site.file(), TO_A).unwrap();
    let mut running = Running::start(SourceSpec { etcd: Some(cluster(&etcd.url())), ..site.spec() });
    assert_eq!(&*running.now().document, TO_A, "there before anything is awaited");
    fs::write(site.file(), TO_B).unwrap();
    let edited = running.until_document(TO_B).await;
    assert!(edited.stale_since.is_some() && !edited.rejected);
    etcd.restart().await;
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    running.promote("aaaaaaa").await.unwrap();
    assert_eq!(&*running.now().document, TO_B);
}
