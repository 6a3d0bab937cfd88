//! One load: `wrk` with so many connections, one kind of request, and what it counted.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::Result;
use crate::proxies::Proxy;

/// A kind of request and how many connections send it without pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    connections: usize,
    /// Bytes of the answer's body; for POST also of the request's.
    size: usize,
    post: bool,
}

/// What `wrk` counted.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) requests_a_second: f64,
    pub(crate) p99_ms: f64,
    /// Answers that were no 2xx or 3xx, and connections that broke.
    pub(crate) failures: u64,
}

impl Load {
    /// All loads, in the order in which they are shown.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let connections = [1, 64, 512];
        let kinds = [(1024, false), (64 * 1024, false), (1024, true), (64 * 1024, true)];
        kinds.into_iter().flat_map(move |(size, post)| {
            connections.into_iter().map(move |connections| Self { connections, size, post })
        })
    }

    /// Drives `proxy` for `time`, with the headers that make it look at every rule.
    pub(crate) async fn run(
        &self,
        proxy: &Proxy,
        uid: &str,
        time: Duration,
        folder: &Path,
    ) -> Result<Counted> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--latency", "--timeout", "30s"])
            .args(["--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs())])
            .args([
                "--header",
                "x-qa: no",
                "--header",
                &format!("Cookie: session=0123456789abcdef; uid={uid}"),
            ])
            .kill_on_drop(true);
        if self.post {
            let script = folder.join(format!("post-{}.lua", self.size));
            let text = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n", self.size);
            tokio::fs::write(&script, text).await?;
            wrk.arg("--script").arg(script).arg(format!("http://{}/echo", proxy.address));
        } else {
            wrk.arg(format!("http://{}/bytes/{}", proxy.address, self.size));
        }
        let output = wrk.output().await.map_err(|e| format!("`wrk` does not run: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!("`wrk` failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Counted::read(&text).ok_or_else(|| format!("`wrk` printed what is not understood:\n{text}").into())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = if self.post { "POST" } else { "GET" };
        let s = if self.connections == 1 { "" } else { "s" };
        write!(f, "{method} {} KiB, {} connection{s}", self.size / 1024, self.connections)
    }
}

impl Counted {
    /// Reads what `wrk --latency` prints.
    fn read(text: &str) -> Option<Self> {
        let mut counted = Self { requests: 0, requests_a_second: 0.0, p99_ms: 0.0, failures: 0 };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [count, "requests", "in", ..] => counted.requests = count.parse().ok()?,
                ["Requests/sec:", rate] => counted.requests_a_second = rate.parse().ok()?,
                ["99%", time] => counted.p99_ms = milliseconds(time)?,
                ["Non-2xx", .., count] => counted.failures += count.parse::<u64>().ok()?,
                ["Socket", "errors:", counts @ ..] => {
                    let counts =
                        counts.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                    counted.failures += counts.sum::<u64>();
                }
                _ => {}
            }
        }
        (counted.requests > 0).then_some(counted)
    }
}

/// `1.25ms`, `830.00us`, `1.10s` in milliseconds.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s')?, 1000.0)
    };
    Some(number.parse::<f64>().ok()? * factor)
}
