//! The demo's stage: a temporary folder with a configuration, a deploy root and a rule file, and the real
//! `switchman serve` running on it as a process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::sample::GREETING;
use crate::cli::failure::Failure;

/// How long a step may take to come true.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A step that did not come true.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StepError(String);

impl StepError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::failed(error.0)
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The running example.
pub(super) struct Stage {
    folder: TempDir,
    program: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    server: Child,
}

impl Stage {
    /// Makes the folder, starts switchman in it and waits until it answers.
    pub(super) async fn set() -> Result<Self, StepError> {
        let folder = tempfile::Builder::new().prefix("switchman-demo-").tempdir()?;
        let program = std::env::current_exe()?;
        let [address, admin] = free_addresses()?;
        std::fs::create_dir(folder.path().join("app"))?;
        std::fs::write(folder.path().join("rules.yaml"), "")?;
        // Quoted for the shell, then for YAML (a JSON string is one).
        let quoted = program.display().to_string().replace('\'', r"'\''");
        let run = serde_json::json!(format!("exec '{quoted}' demo-app --port $PORT"));
        std::fs::write(
            folder.path().join("switchman.yaml"),
            format!(
                "listen: [\"{address}\"]\nadmin: {{listen: \"{admin}\"}}\nstate: state\nservices:\n  demo:\n    \
                 root: app\n    settle: 300ms\n    run: {run}\n    workers: 2\n    ready: {{http: /healthz}}\n    rules: rules.yaml\n",
            ),
        )?;
        let log = std::fs::File::create(folder.path().join("switchman.log"))?;
        let server = Command::new(&program)
            .args(["serve", "--config"])
            .arg(folder.path().join("switchman.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            // Ctrl-C on the terminal is the demo's: it ends switchman in order.
            .process_group(0)
            .spawn()?;
        let mut stage = Self { folder, program, address, admin, server };
        stage.wait_serving().await?;
        Ok(stage)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn versions_url(&self) -> String {
        format!("http://{}/versions", self.admin)
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// Copies a build in as rsync does: each file under a temporary name first, then renamed.
    pub(super) fn deploy(&self, version: &str) -> Result<(), StepError> {
        let folder = self.root().join(version);
        std::fs::create_dir(&folder)?;
        let files = [(GREETING, format!("hello from {version}\n")), ("COMMIT", format!("{version}\n"))];
        for (name, content) in files {
            let unfinished = folder.join(format!(".{name}.Xy12Zw"));
            std::fs::write(&unfinished, content)?;
            std::fs::rename(unfinished, folder.join(name))?;
        }
        Ok(())
    }

    /// Types a switchman command; answers with what it printed.
    pub(super) async fn command(&self, args: &[&str]) -> Result<String, StepError> {
        let output = Command::new(&self.program)
            .args(args)
            .arg("--config")
            .arg(self.folder.path().join("switchman.yaml"))
            .stdin(Stdio::null())
            .output()
            .await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(StepError::new(format!("`switchman {}` ended with {}: {said}", args.join(" "), output.status)))
    }

    /// Waits until a field of a version has this value.
    pub(super) async fn wait(&mut self, version: &str, field: &str, value: &str) -> Result<(), StepError> {
        self.look(&format!("{version} has {field} {value}"), version, |v| v[field] == *value).await
    }

    /// Waits until a version has this alias.
    pub(super) async fn wait_alias(&mut self, version: &str, alias: &str) -> Result<(), StepError> {
        let has = |v: &Value| v["aliases"].as_array().is_some_and(|a| a.iter().any(|x| x == alias));
        self.look(&format!("{version} is {alias}"), version, has).await
    }

    /// Fails unless the version is dark.
    pub(super) async fn expect_dark(&mut self, version: &str) -> Result<(), StepError> {
        self.look(&format!("{version} is dark"), version, |v| v["dark"] == true).await
    }

    async fn look(
        &mut self,
        what: &str,
        version: &str,
        held: impl Fn(&Value) -> bool,
    ) -> Result<(), StepError> {
        let began = Instant::now();
        loop {
            self.still_runs()?;
            let said = self.command(&["versions", "--json"]).await?;
            let json: Value = serde_json::from_str(&said)
                .map_err(|e| StepError::new(format!("`switchman versions --json` is no JSON: {e}")))?;
            let seen =
                json["versions"].as_array().and_then(|all| all.iter().find(|v| v["version"] == version));
            if seen.is_some_and(&held) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(StepError::new(format!(
                    "waited {PATIENCE:?} until {what}; seen: {}\n{}",
                    json,
                    self.log()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes the rule file as an editor does (a new file renamed over the old one).
    pub(super) fn write_rules(&self, document: &str) -> Result<(), StepError> {
        let path = self.folder.path().join("rules.yaml");
        let unfinished = self.folder.path().join("rules.yaml~");
        std::fs::write(&unfinished, document)?;
        Ok(std::fs::rename(unfinished, path)?)
    }

    /// Waits until switchman says that it refused the rule document.
    pub(super) async fn wait_refused(&mut self) -> Result<(), StepError> {
        let began = Instant::now();
        loop {
            let said = self.command(&["rules", "get", "--json"]).await?;
            if serde_json::from_str::<Value>(&said).is_ok_and(|json| json["rejected"] == true) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(StepError::new(format!("the broken rule document was not refused: {said}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What to try by hand.
    pub(super) fn by_hand(&self) -> String {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        format!(
            "\n  Try it by hand, Ctrl-C ends it:\n    curl -i {}/\n    curl -s {}\n    {} versions --config {}\n    \
             $EDITOR {}\n    log: {}\n",
            self.url(),
            self.versions_url(),
            self.program.display(),
            file("switchman.yaml"),
            file("rules.yaml"),
            file("switchman.log"),
        )
    }

    /// Ends switchman as a service manager does and waits until it has ended.
    pub(super) async fn strike(mut self) -> Result<(), StepError> {
        let pid = self.server.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        let pid = pid.ok_or_else(|| StepError::new(format!("switchman ended by itself\n{}", self.log())))?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(std::io::Error::from)?;
        let status = tokio::time::timeout(PATIENCE, self.server.wait()).await.map_err(|_| {
            StepError::new(format!("switchman did not end within {PATIENCE:?}\n{}", self.log()))
        })??;
        if status.success() {
            Ok(())
        } else {
            Err(StepError::new(format!("switchman ended with {status}\n{}", self.log())))
        }
    }

    async fn wait_serving(&mut self) -> Result<(), StepError> {
        let began = Instant::now();
        while self.command(&["versions", "--json"]).await.is_err() {
            self.still_runs()?;
            if began.elapsed() > PATIENCE {
                return Err(StepError::new(format!("switchman does not answer\n{}", self.log())));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn still_runs(&mut self) -> Result<(), StepError> {
        match self.server.try_wait()? {
            None => Ok(()),
            Some(status) => Err(StepError::new(format!("switchman ended with {status}\n{}", self.log()))),
        }
    }

    /// The end of switchman's own log.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("switchman.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Two addresses on loopback that are free now; held until both are known, so that they differ.
fn free_addresses() -> Result<[SocketAddr; 2], StepError> {
    let pick = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [pick()?, pick()?];
    Ok([held[0].local_addr()?, held[1].local_addr()?])
}
