//! Rule documents and aliases from files and from a real etcd.

mod aliases;
mod etcd;
mod etcd_away;
mod files;

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, CompactionOptions};
use switchman::config::{self, RulesAt};
use switchman::etcd::Cluster;
use switchman::rules::publisher::{Aliases, Published};
use switchman::rules::source::{self, Change, ChangeError, ServiceRules, SourceSpec, Who};
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
