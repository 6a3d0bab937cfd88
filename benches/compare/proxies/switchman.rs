//! switchman under test, with the two workers that all proxies are put before.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use super::{Proxy, Workers, eventually, free_address, write};
use crate::rules::{self, FIRST, SECOND};
use crate::{Options, Result};

/// How switchman reaches its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    Port,
    Unix,
}

/// Starts it with the sample worker as both versions; answers with where the workers listen.
pub(super) async fn start(
    options: &Options,
    threads: usize,
    upstream: Upstream,
    folder: &Path,
) -> Result<(Proxy, Workers)> {
    let (name, key) = match upstream {
        Upstream::Port => ("switchman", "port"),
        Upstream::Unix => (super::UNIX, "unix"),
    };
    let folder = folder.join(key);
    let built = Path::new(env!("CARGO_BIN_EXE_switchman")).with_file_name("examples").join("worker");
    let root = folder.join("root");
    for version in [FIRST, SECOND] {
        let target = root.join(version);
        tokio::fs::create_dir_all(&target).await?;
        tokio::fs::copy(&built, target.join("worker"))
            .await
            .map_err(|e| format!("{}: {e}\nhint: cargo build --release --example worker", built.display()))?;
    }
    let rules = write(&folder, "rules.yaml", &rules::switchman()).await?;
    let (address, admin) = (free_address()?, free_address()?);
    let config = format!(
        "listen: [\"{address}\"]
admin: {{listen: \"{admin}\"}}
state: {state}
threads: {threads}
services:
  app:
    root: {root}
    run: [./worker]
    upstream: {key}
    ready: {{http: /healthz}}
    rules: {rules}
",
        state = folder.join("state").display(),
        root = root.display(),
        rules = rules.display(),
    );
    let config = write(&folder, "switchman.yaml", &config).await?;
    let mut command = Command::new(&options.switchman);
    command.arg("serve").arg("--config").arg(config);
    let mut proxy = Proxy::spawn(name, command, address.clone(), &folder).await?;
    proxy.http2 = Some(address);
    let workers = eventually("both versions are ready in /versions", async || {
        let versions: Value = serde_json::from_str(&rules::get(&admin, "/versions", "").await.ok()?).ok()?;
        Some([worker_address(&versions, FIRST)?, worker_address(&versions, SECOND)?])
    })
    .await
    .map_err(|e| format!("{e}\n{}", proxy.log(&folder)))?;
    Ok((proxy, workers))
}

/// Where the ready worker of a version listens, from `GET /versions`.
fn worker_address(versions: &Value, version: &str) -> Option<String> {
    let version = versions["versions"].as_array()?.iter().find(|v| v["version"] == version)?;
    let worker = version["workers"].as_array()?.iter().find(|w| w["state"] == "ready")?;
    Some(worker["address"].as_str()?.to_owned())
}
