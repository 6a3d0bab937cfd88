//! The three proxies as real processes in a temporary folder, before the same two workers.
//!
//! switchman starts the workers, as it would anywhere; nginx and HAProxy are given their addresses. Access logs
//! are off in all three; switchman counts its metrics, which the others have none of.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::rules::{self, FIRST, SECOND};
use crate::{Options, Result};

/// How long a process may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that each proxy must be able to hold, on both sides.
const CONNECTIONS: usize = 4096;

/// One running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    /// Its public address.
    pub(crate) address: String,
    process: Child,
    /// Its child processes serve requests (nginx); switchman's are the workers and do not count.
    children_serve: bool,
}

/// Starts all three; nginx first, since the others are compared with it.
pub(crate) async fn start(options: &Options, folder: &Path) -> Result<[Proxy; 3]> {
    let (switchman, workers) = start_switchman(options, folder).await?;
    Ok([
        start_nginx(options, folder, &workers).await?,
        start_haproxy(options, folder, &workers).await?,
        switchman,
    ])
}

/// The addresses of the first and the second version's worker.
type Workers = [String; 2];

async fn start_switchman(options: &Options, folder: &Path) -> Result<(Proxy, Workers)> {
    let built = Path::new(env!("CARGO_BIN_EXE_switchman")).with_file_name("examples").join("worker");
    let root = folder.join("root");
    for version in [FIRST, SECOND] {
        let target = root.join(version);
        tokio::fs::create_dir_all(&target).await?;
        tokio::fs::copy(&built, target.join("worker"))
            .await
            .map_err(|e| format!("{}: {e}\nhint: cargo build --release --example worker", built.display()))?;
    }
    let rules = write(folder, "rules.yaml", &rules::switchman()).await?;
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
    ready: {{http: /healthz}}
    rules: {rules}
",
        state = folder.join("state").display(),
        threads = options.threads,
        root = root.display(),
        rules = rules.display(),
    );
    let config = write(folder, "switchman.yaml", &config).await?;
    let mut command = Command::new(&options.switchman);
    command.arg("serve").arg("--config").arg(config);
    let proxy = Proxy::spawn("switchman", command, address, folder).await?;
    let workers = eventually("both versions are ready in /versions", async || {
        let versions: Value = serde_json::from_str(&rules::get(&admin, "/versions", "").await.ok()?).ok()?;
        Some([worker_address(&versions, FIRST)?, worker_address(&versions, SECOND)?])
    })
    .await
    .map_err(|e| format!("{e}\n{}", proxy.log(folder)))?;
    Ok((proxy, workers))
}

/// Where the ready worker of a version listens, from `GET /versions`.
fn worker_address(versions: &Value, version: &str) -> Option<String> {
    let version = versions["versions"].as_array()?.iter().find(|v| v["version"] == version)?;
    let worker = version["workers"].as_array()?.iter().find(|w| w["state"] == "ready")?;
    Some(worker["address"].as_str()?.to_owned())
}

async fn start_nginx(options: &Options, folder: &Path, workers: &Workers) -> Result<Proxy> {
    let address = free_address()?;
    let upstream = |name: &str, worker: &str| {
        format!("upstream {name} {{ server {worker}; keepalive 512; keepalive_requests 100000000; }}")
    };
    // The body buffers hold 64 KiB: nothing is written to disk on either side.
    let config = format!(
        "daemon off;
{user}
worker_processes {threads};
pid nginx.pid;
error_log stderr;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_body_buffer_size 128k; proxy_buffers 32 4k; proxy_max_temp_file_size 0;
    keepalive_requests 100000000;
    {first}
    {second}
    {rules}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://$chosen;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            add_header x-version $chosen;
        }}
    }}
}}
",
        user = if rustix::process::geteuid().is_root() { "user root;" } else { "" },
        threads = options.threads,
        first = upstream("first", &workers[0]),
        second = upstream("second", &workers[1]),
        rules = rules::NGINX,
    );
    let config = write(folder, "nginx.conf", &config).await?;
    let mut command = Command::new(server_program("nginx"));
    command.arg("-p").arg(folder).arg("-c").arg(config).args(["-e", "stderr"]);
    let mut proxy = Proxy::spawn("nginx", command, address, folder).await?;
    proxy.children_serve = true;
    Ok(proxy)
}

async fn start_haproxy(options: &Options, folder: &Path, workers: &Workers) -> Result<Proxy> {
    let address = free_address()?;
    let config = format!(
        "global
    nbthread {threads}
    maxconn {CONNECTIONS}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always
frontend public
    bind {address}
    option forwardfor
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto http
    http-response set-header x-version %[be_name]
    {rules}
backend first
    server worker {first}
backend second
    server worker {second}
",
        threads = options.threads,
        rules = rules::HAPROXY,
        first = workers[0],
        second = workers[1],
    );
    let config = write(folder, "haproxy.cfg", &config).await?;
    let mut command = Command::new(server_program("haproxy"));
    command.arg("-db").arg("-f").arg(config);
    Proxy::spawn("HAProxy", command, address, folder).await
}

/// Debian keeps servers in /usr/sbin, which is not in every PATH.
pub(crate) fn server_program(name: &str) -> PathBuf {
    let debian = Path::new("/usr/sbin").join(name);
    if debian.exists() { debian } else { name.into() }
}

impl Proxy {
    /// Starts it with its output in `NAME.log`, and waits until it takes connections.
    async fn spawn(name: &'static str, mut command: Command, address: String, folder: &Path) -> Result<Self> {
        let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{name} does not start: {e}\nhint: scripts/install-deps bench"))?;
        let mut proxy = Self { name, address, process, children_serve: false };
        let ended =
            eventually(&format!("{name} takes connections"), async || match proxy.process.try_wait() {
                Ok(None) => tokio::net::TcpStream::connect(&proxy.address).await.ok().map(|_| None),
                Ok(Some(status)) => Some(Some(format!("{name} ended with {status}"))),
                Err(error) => Some(Some(format!("{name}: {error}"))),
            })
            .await
            .unwrap_or_else(|error| Some(error.to_string()));
        if let Some(error) = ended {
            return Err(format!("{error}\n{}", proxy.log(folder)).into());
        }
        Ok(proxy)
    }

    /// What it printed.
    fn log(&self, folder: &Path) -> String {
        std::fs::read_to_string(folder.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// CPU time that it has used so far, in user and system mode, over all its threads and serving processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let pid = self.process.id().ok_or_else(|| format!("{} has ended", self.name))?;
        let process = Process::new(pid.try_into()?)?;
        let mut processes = Vec::new();
        if self.children_serve {
            for child in process.task_main_thread()?.children()? {
                processes.push(Process::new(child.try_into()?)?);
            }
        }
        processes.push(process);
        let mut ticks = 0;
        for process in processes {
            let stat = process.stat()?;
            ticks += stat.utime + stat.stime;
        }
        Ok(Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
    }

    /// TERM, and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.terminate()?;
        tokio::time::timeout(PATIENCE, self.process.wait())
            .await
            .map_err(|_| format!("{} does not end within {PATIENCE:?} of TERM", self.name))??;
        Ok(())
    }

    fn terminate(&self) -> Result<()> {
        let pid = self.process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        kill_process(pid.ok_or_else(|| format!("{} has ended", self.name))?, Signal::TERM)?;
        Ok(())
    }
}

impl Drop for Proxy {
    /// Where the benchmark fails half-way: KILL would leave nginx's children and the workers behind.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.terminate();
        }
    }
}

/// An address on loopback that nothing listens on.
fn free_address() -> Result<String> {
    let port = portpicker::pick_unused_port().ok_or("there is no free port")?;
    Ok(format!("127.0.0.1:{port}"))
}

async fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    tokio::fs::write(&path, text).await?;
    Ok(path)
}

/// Asks until there is an answer or patience ends.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} in vain: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
