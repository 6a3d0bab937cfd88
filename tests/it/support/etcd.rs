//! A real etcd for one test: Debian's `/usr/bin/etcd` on free ports of loopback, with a data folder of its own.
//!
//! `SWITCHMAN_TEST_ETCD=PATH` runs another one, to test against other releases of etcd.

use std::fs::File;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use etcd_client::Client;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::eventually;

const PROGRAM: &str = "/usr/bin/etcd";
/// Starts that may fail because another process took a port first.
const TRIES_MAX: usize = 5;

/// One member that is a cluster by itself; killed when dropped.
pub(crate) struct Etcd {
    data: TempDir,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Etcd {
    /// A new one, once it answers.
    pub(crate) async fn start() -> Self {
        for _ in 0..TRIES_MAX {
            let mut etcd = Self::absent();
            if etcd.run().await {
                return etcd;
            }
        }
        panic!("etcd did not start in {TRIES_MAX} tries");
    }

    /// One that is not there yet: ports and a data folder. [`Etcd::restart`] starts it.
    pub(crate) fn absent() -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        Self { data, client_port: free_port(), peer_port: free_port(), process: None }
    }

    /// Where clients reach it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// The port of [`Etcd::url`].
    pub(crate) fn port(&self) -> u16 {
        self.client_port
    }

    /// Another program's client.
    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.url()], None).await.expect("an address")
    }

    /// A key's value, as another program reads it.
    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let answer = self.client().await.get(key, None).await.expect("etcd answers");
        answer.kvs().first().map(|kv| kv.value_str().expect("text").to_owned())
    }

    /// Writes a key, as another program does.
    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.client().await.put(key, value, None).await.expect("etcd answers");
    }

    /// Ends it as an operator does, and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = process.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
            if let Some(pid) = pid {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
            }
            process.wait().await.expect("our own child");
        }
    }

    /// kill -9, and waits until it has ended.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.expect("our own child");
        }
    }

    /// Starts it on the same ports and data, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        assert!(self.run().await, "etcd did not start again; its log: {}", self.log());
    }

    /// Ends it and throws its data away, as after a lost disk.
    pub(crate) async fn lose_data(&mut self) {
        self.kill().await;
        std::fs::remove_dir_all(self.data.path().join("data")).expect("its data folder");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Starts the process; true once it answers, false where it ended instead.
    async fn run(&mut self) -> bool {
        let program = std::env::var("SWITCHMAN_TEST_ETCD").unwrap_or_else(|_| PROGRAM.to_owned());
        assert!(
            std::path::Path::new(&program).exists(),
            "{program} is missing, which these tests need: apt-get install etcd-server"
        );
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("log"))
            .expect("a log in our own folder");
        let mut process = Command::new(program)
            .arg("--data-dir")
            .arg(self.data.path().join("data"))
            .args(["--name", "test"])
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("etcd runs");
        let client = self.client().await;
        let up = eventually("etcd answers or ends", || {
            let ended = process.try_wait().expect("our own child").is_some();
            let mut client = client.clone();
            async move {
                if ended {
                    return Some(false);
                }
                let answer = tokio::time::timeout(Duration::from_secs(1), client.get("health", None)).await;
                matches!(answer, Ok(Ok(_))).then_some(true)
            }
        })
        .await;
        self.process = Some(process);
        up
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("a bound socket").port()
}
