//! An etcd that is there: read, watched, written, by one and by two.

use super::*;

#[tokio::test]
async fn etcd_is_read_and_then_watched() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    put(&mut client, "aliases/current", "aaaaaaa\n").await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    let first = running.until_document(TO_A).await;
    assert_eq!(first.aliases["current"], "aaaaaaa");
    assert_eq!(&*first.origin, "/switchman/app/rules");
    assert_eq!(first.stale_since, None);

    let mut took = Vec::new();
    for text in [TO_B, TO_A, TO_B] {
        took.push(measured(&mut running, text, put(&mut client, "rules", text)).await);
    }
    println!("edit to in force: etcd {took:.1?} ms");

    put(&mut client, "rules", BROKEN).await;
    let refused = running.until("refused", |published| published.rejected).await;
    assert_eq!(&*refused.document, TO_B);
    assert!(refused.problems.to_string().contains("/switchman/app/rules"), "{}", refused.problems);
    // The revision is that of the broken document: whoever mends it has seen it.
    running.change(document(TO_A, Some(refused.revision))).await.unwrap();
    assert!(!running.now().rejected);
    let conflict = running.change(document(TO_B, Some(refused.revision))).await.unwrap_err();
    assert!(matches!(conflict, ChangeError::Conflict { .. }), "{conflict:?}");

    client.delete("/switchman/app/rules", None).await.unwrap();
    let none = running.until_document("").await;
    assert!(!none.rejected, "a key that is removed is meant: {none:?}");
}

#[tokio::test]
async fn the_document_may_be_at_any_key() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut client = etcd.client().await;
    let rules = RulesAt::Etcd("/elsewhere/rules.json".to_owned());
    let mut running = Running::start(SourceSpec { rules, ..site.with_etcd(&etcd.url()) });
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    client.put("/elsewhere/rules.json", TO_A, None).await.unwrap();
    running.until_document(TO_A).await;
    running.change(document(TO_B, None)).await.unwrap();
    let stored = client.get("/elsewhere/rules.json", None).await.unwrap();
    assert_eq!(stored.kvs()[0].value(), TO_B.as_bytes());
}

#[tokio::test]
async fn routes_with_a_key_each_come_in_key_order() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    put(&mut client, "routes/20-late", "{when: {header.x-late: \"yes\"}, to: bbbbbbb}").await;
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until_document(TO_A).await;
    put(&mut client, "routes/10-early", "{when: {header.x-early: \"yes\"}, to: ccccccc}").await;
    let names =
        |published: &Published| published.table.routes().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    running.until("both", |published| names(published) == ["10-early", "20-late", "a"]).await;
    put(&mut client, "routes/10-early", BROKEN).await;
    let refused = running.until("refused", |published| published.rejected).await;
    assert_eq!(names(&refused).len(), 3, "the last good table stays");
    client.delete("/switchman/app/routes/10-early", None).await.unwrap();
    running.until("one left", |published| names(published) == ["20-late", "a"]).await;
}

#[tokio::test]
async fn an_etcd_that_wants_a_password_gets_it() {
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut client = etcd.client().await;
    put(&mut client, "rules", TO_A).await;
    client.user_add("root", "s3cret", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    let with = |password: &str| {
        let user = Some(("root".to_owned(), config::Secret(password.to_owned())));
        let etcd = config::Etcd { endpoints: vec![etcd.url()], prefix: "/switchman".to_owned(), user };
        SourceSpec { etcd: Some(Cluster::new(etcd)), ..site.with_etcd("") }
    };
    let mut wrong = Running::start(with("guess"));
    let told = wrong.until("told", |published| !published.problems.is_empty()).await;
    let text = told.problems.to_string();
    assert!(text.contains("authentication failed") && !text.contains("guess"), "{text}");
    wrong.stop().await;

    let mut running = Running::start(with("s3cret"));
    running.until_document(TO_A).await;
    running.promote("aaaaaaa").await.unwrap();
}

#[tokio::test]
async fn the_history_in_etcd_is_bounded() {
    use etcd_client::{GetOptions, Txn, TxnOp};
    let (etcd, site) = (Etcd::start().await, Site::new());
    let mut client = etcd.client().await;
    for hundred in 0..12 {
        let entry = |n| TxnOp::put(format!("/switchman/app/history/0{hundred}{n:02}"), "{}", None);
        client.txn(Txn::new().and_then((0..100).map(entry).collect::<Vec<_>>())).await.unwrap();
    }
    let mut running = Running::start(site.with_etcd(&etcd.url()));
    running.until("etcd is read", |published| published.stale_since.is_none()).await;
    running.promote("aaaaaaa").await.unwrap();
    eventually("the oldest are gone", || {
        let mut client = client.clone();
        async move {
            let under = GetOptions::new().with_prefix().with_keys_only();
            let left = client.get("/switchman/app/history/", Some(under)).await.unwrap();
            let oldest_left = left.kvs().iter().any(|kv| kv.key().ends_with(b"/0000"));
            (left.count() == 1101 && !oldest_left).then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn of_two_writers_at_once_one_wins_and_the_other_is_told() {
    let etcd = Etcd::start().await;
    let (left, right) = (Site::new(), Site::new());
    let mut left = Running::start(left.with_etcd(&etcd.url()));
    let mut right = Running::start(right.with_etcd(&etcd.url()));
    left.promote("aaaaaaa").await.unwrap();
    let see = |published: &Arc<Published>| published.aliases.contains_key("current");
    right.until("the other's promote", see).await;

    let mut conflicts = 0;
    for n in 0..20 {
        let (one, two) = (format!("b{n:06}"), format!("c{n:06}"));
        let (a, b) = tokio::join!(left.promote(&one), right.promote(&two));
        let lost = [&a, &b].into_iter().filter(|r| matches!(r, Err(ChangeError::Conflict { .. }))).count();
        assert!(lost < 2 && (a.is_ok() || b.is_ok()), "one wins: {a:?} {b:?}");
        conflicts += lost;
        // Whatever the order was, both see the same in the end.
        let stored = etcd.client().await.get("/switchman/app/aliases/current", None).await.unwrap();
        let current = stored.kvs()[0].value_str().unwrap().to_owned();
        let same = |published: &Arc<Published>| published.aliases["current"] == current;
        left.until("the same", same).await;
        right.until("the same", same).await;
    }
    assert!(conflicts > 0, "twenty times at once and never a conflict");

    // Tags of different names do not stand in each other's way.
    let tag = |name: &str| Change::Tag { name: name.to_owned(), version: "aaaaaaa".to_owned() };
    let (a, b) = tokio::join!(left.change(tag("one")), right.change(tag("two")));
    a.unwrap();
    b.unwrap();
    // Who sets the first version second is content.
    let first = || Change::First { version: "ddddddd".to_owned() };
    etcd.client().await.delete("/switchman/app/aliases/current", None).await.unwrap();
    let gone = |published: &Arc<Published>| !published.aliases.contains_key("current");
    left.until("gone", gone).await;
    right.until("gone", gone).await;
    let (a, b) = tokio::join!(left.change(first()), right.change(first()));
    assert_eq!((a.unwrap()["current"].as_str(), b.unwrap()["current"].as_str()), ("ddddddd", "ddddddd"));
}

#[tokio::test]
async fn a_document_in_etcd_needs_an_etcd() {
    let site = Site::new();
    let rules = RulesAt::Etcd("/switchman/app/rules".to_owned());
    let error = source::spawn(SourceSpec { rules, ..site.spec() }, CancellationToken::new()).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("no etcd is configured") && told.contains("/switchman/app/rules"), "{told}");
}
