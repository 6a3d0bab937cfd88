//! Rule documents and aliases from files and from a real etcd.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use etcd_client::{Client, CompactionOptions};
use switchman::config::{self, RulesAt};
use switchman::rules::publisher::{Aliases, Published};
use switchman::rules::source::{self, Change, ChangeError, ServiceRules, SourceSpec, Who, etcd::Cluster};
use switchman::version::ServiceName;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::etcd::Etcd;
use crate::support::relay::Relay;
use crate::support::{eventually, patience};

const TO_A: &str = "routes:\n  - {name: a, when: {header.x-a: \"yes\"}, to: aaaaaaa}\n";
const TO_B: &str = "routes:\n  - {name: b, when: {header.x-b: \"yes\"}, to: bbbbbbb}\n";
const BROKEN: &str = "routes: [\n";

/// The rules of one service at work, and where they come from.
struct Running {
    rules: ServiceRules,
    _stop: DropGuard,
}

impl Running {
    fn start(spec: SourceSpec) -> Self {
        let cancel = CancellationToken::new();
        let rules = source::spawn(spec, cancel.clone()).expect("a source");
        Self { rules, _stop: cancel.drop_guard() }
    }

    fn now(&self) -> Arc<Published> {
        self.rules.reader.borrow().clone()
    }

    /// Waits until what is published is as asked.
    async fn until(&mut self, what: &str, is: impl FnMut(&Arc<Published>) -> bool) -> Arc<Published> {
        let found = tokio::time::timeout(patience(), self.rules.reader.wait_for(is)).await;
        match found.map(|published| published.expect("the publisher runs").clone()) {
            Ok(published) => published,
            Err(_) => panic!("waited in vain: {what}; published is {:#?}", self.now()),
        }
    }

    async fn until_document(&mut self, text: &str) -> Arc<Published> {
        self.until(text, |published| &*published.document == text).await
    }

    async fn change(&self, change: Change) -> Result<Aliases, ChangeError> {
        self.rules.handle.apply(change, Who("alice".to_owned())).await
    }

    async fn promote(&self, version: &str) -> Result<Aliases, ChangeError> {
        self.change(Change::Promote { version: version.to_owned() }).await
    }

    async fn stop(self) {
        let Self { rules, _stop: stop } = self;
        drop(stop);
        rules.task.await.expect("it ends in peace");
    }
}

/// A folder with a rule file and a state folder.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("rules")).expect("a folder");
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("rules/app.yaml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn spec(&self) -> SourceSpec {
        SourceSpec {
            service: ServiceName::from("app"),
            rules: RulesAt::File(self.file()),
            state: self.state(),
            etcd: None,
        }
    }

    fn with_etcd(&self, url: &str) -> SourceSpec {
        let rules = RulesAt::Etcd("/switchman/app/rules".to_owned());
        SourceSpec { rules, etcd: Some(cluster(url)), ..self.spec() }
    }
}

fn cluster(url: &str) -> Cluster {
    Cluster::new(config::Etcd {
        endpoints: vec![url.to_owned()],
        prefix: "/switchman".to_owned(),
        user: None,
    })
}

async fn put(client: &mut Client, key: &str, value: &str) {
    client.put(format!("/switchman/app/{key}"), value, None).await.expect("etcd takes it");
}

fn document(text: &str, if_revision: Option<u64>) -> Change {
    Change::Document { text: Arc::from(text), if_revision }
}

/// Milliseconds from before an edit until it is in force.
async fn measured(running: &mut Running, text: &str, edit: impl Future<Output = ()>) -> f64 {
    let begin = Instant::now();
    edit.await;
    running.until_document(text).await;
    begin.elapsed().as_secs_f64() * 1e3
}

// --- files ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_rule_file_is_in_force_at_once_and_after_each_kind_of_edit() {
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    let mut running = Running::start(site.spec());
    assert_eq!(&*running.now().document, TO_A, "there before anything is awaited");

    // The first edit may come before the watch is in place; the later ones are measured.
    fs::write(site.file(), TO_B).unwrap();
    running.until_document(TO_B).await;
    let in_place = measured(&mut running, TO_A, async { fs::write(site.file(), TO_A).unwrap() }).await;
    let by_rename = measured(&mut running, TO_B, async {
        let new = site.folder.path().join("rules/.app.yaml.swp");
        fs::write(&new, TO_B).unwrap();
        fs::rename(new, site.file()).unwrap();
    })
    .await;
    println!("edit to in force: file in place {in_place:.1} ms, by rename {by_rename:.1} ms");
    // Watched, not only polled: the look at the stamp comes once a second.
    assert!(in_place.min(by_rename) < 500.0, "{in_place} {by_rename}");
    assert!(running.now().generation >= 4);
}

#[tokio::test]
async fn a_swapped_symlink_is_followed_as_kubernetes_does_it() {
    let site = Site::new();
    let folder = site.folder.path().join("rules");
    let mount = |name: &str, text: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("app.yaml"), text).unwrap();
        std::os::unix::fs::symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    mount("..2026_1", TO_A);
    std::os::unix::fs::symlink("..data/app.yaml", site.file()).unwrap();
    let mut running = Running::start(site.spec());
    running.until_document(TO_A).await;
    mount("..2026_2", TO_B);
    running.until_document(TO_B).await;
}

#[tokio::test]
async fn a_broken_rule_file_changes_nothing_and_is_named() {
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    let mut running = Running::start(site.spec());
    fs::write(site.file(), BROKEN).unwrap();
    let refused = running.until("refused", |published| published.rejected).await;
    assert_eq!(&*refused.document, TO_A);
    let told = refused.problems.to_string();
    assert!(told.contains("app.yaml"), "{told}");

    fs::write(site.file(), TO_B).unwrap();
    let mended = running.until_document(TO_B).await;
    assert!(!mended.rejected && mended.problems.is_empty(), "{mended:?}");
    assert!(mended.generation > refused.generation);
}

#[tokio::test]
async fn a_rule_file_that_disappears_or_is_emptied_keeps_the_last_good_rules() {
    let site = Site::new();
    let mut running = Running::start(site.spec());
    let none = running.now();
    assert!(none.document.is_empty() && none.problems.is_empty(), "no file is no problem at first");

    fs::write(site.file(), TO_A).unwrap();
    running.until_document(TO_A).await;
    for (what, act) in [
        ("is gone", Box::new(|path: &Path| fs::remove_file(path).unwrap()) as Box<dyn Fn(&Path)>),
        ("is empty", Box::new(|path: &Path| fs::write(path, "").unwrap())),
        ("is gone", Box::new(|path: &Path| fs::remove_dir_all(path.parent().unwrap()).unwrap())),
    ] {
        act(&site.file());
        let kept = running.until(what, |published| published.problems.to_string().contains(what)).await;
        assert_eq!(&*kept.document, TO_A, "{what}");
        assert!(kept.rejected);
    }
    fs::create_dir(site.folder.path().join("rules")).unwrap();
    fs::write(site.file(), TO_B).unwrap();
    assert!(!running.until_document(TO_B).await.rejected);
}

#[tokio::test]
async fn a_restart_with_a_broken_or_missing_rule_file_routes_as_before() {
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    let running = Running::start(site.spec());
    running.promote("aaaaaaa").await.unwrap();
    running.stop().await;

    fs::write(site.file(), BROKEN).unwrap();
    let running = Running::start(site.spec());
    let published = running.now();
    assert_eq!(&*published.document, TO_A, "in force before anything is awaited");
    assert_eq!(published.aliases["current"], "aaaaaaa");
    assert!(published.rejected);
    running.stop().await;

    fs::remove_file(site.file()).unwrap();
    let running = Running::start(site.spec());
    assert_eq!(&*running.now().document, TO_A);
    assert!(running.now().problems.to_string().contains("gone"), "{}", running.now().problems);
    running.stop().await;

    fs::write(site.state().join("app/last-good.json"), "{").unwrap();
    let running = Running::start(site.spec());
    assert!(running.now().document.is_empty());
    assert!(running.now().problems.to_string().contains("last-good.json"), "{}", running.now().problems);
    assert_eq!(running.now().aliases["current"], "aaaaaaa", "the aliases have a file of their own");
}

#[tokio::test]
async fn rules_set_writes_the_file_with_its_mode_and_guards_it_against_edits_by_hand() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    fs::set_permissions(site.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let running = Running::start(site.spec());
    let read = running.now().revision;

    for bad in [BROKEN, "", " \n"] {
        let refused = running.change(document(bad, None)).await.unwrap_err();
        assert!(matches!(refused, ChangeError::Invalid(_)), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(site.file()).unwrap(), TO_A, "what is refused is not written");

    running.change(document(TO_B, Some(read))).await.unwrap();
    assert_eq!(&*running.now().document, TO_B, "in force when it is answered");
    assert_eq!(fs::read_to_string(site.file()).unwrap(), TO_B);
    assert_eq!(fs::metadata(site.file()).unwrap().permissions().mode() & 0o777, 0o640);
    let conflict = running.change(document(TO_A, Some(read))).await.unwrap_err();
    assert!(matches!(conflict, ChangeError::Conflict { expected, .. } if expected == read), "{conflict:?}");

    let read = running.now().revision;
    fs::write(site.file(), TO_A).unwrap();
    let conflict = running.change(document(TO_B, Some(read))).await.unwrap_err();
    assert!(matches!(conflict, ChangeError::Conflict { .. }), "an edit by hand counts at once: {conflict:?}");
}

// --- aliases, on both sources --------------------------------------------------------------------------------

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

// --- etcd ----------------------------------------------------------------------------------------------------

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
