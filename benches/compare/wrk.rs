//! Load by `wrk`: every connection sends the next request as soon as the last one is answered.

use tokio::process::Command;

use crate::Result;
use crate::load::{Circumstances, Counted, Load, Sent};
use crate::proxies::Proxy;

/// How much less than was read it may print.
const ROUNDING: f64 = 1.01;

/// Runs it and reads what it prints.
pub(crate) async fn run(load: &Load, proxy: &Proxy, with: Circumstances<'_>) -> Result<Counted> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "1", "--latency", "--timeout", "30s"])
        .args(["--connections", &load.connections.to_string()])
        .args(["--duration", &format!("{}s", with.time.as_secs())])
        .kill_on_drop(true);
    for line in with.headers() {
        wrk.args(["--header", &line]);
    }
    if load.sent == Sent::NewConnection {
        wrk.args(["--header", "Connection: close"]);
    }
    if load.post {
        let script = with.folder.join(format!("post-{}.lua", load.size));
        let text = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n", load.size);
        tokio::fs::write(&script, text).await?;
        wrk.arg("--script").arg(script);
    }
    wrk.arg(format!("http://{}{}", proxy.address, load.path()));
    let output = wrk.output().await.map_err(|e| format!("`wrk` does not run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("`wrk` failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    read(&text, load.size).ok_or_else(|| format!("`wrk` printed what is not understood:\n{text}").into())
}

/// Reads what `wrk --latency` prints. `size`: the least that each answer has.
fn read(text: &str, size: usize) -> Option<Counted> {
    let mut counted = Counted { requests: 0, requests_a_second: 0.0, p99_ms: 0.0, failures: 0 };
    let mut bytes = 0.0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [count, "requests", "in", _, read, "read"] => {
                counted.requests = count.parse().ok()?;
                bytes = number(
                    read,
                    &[("GB", 1_073_741_824.0), ("MB", 1_048_576.0), ("KB", 1024.0), ("B", 1.0)],
                )?;
            }
            ["Requests/sec:", rate] => counted.requests_a_second = rate.parse().ok()?,
            ["99%", time] => {
                counted.p99_ms = number(time, &[("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60e3)])?
            }
            ["Non-2xx", .., count] => counted.failures += count.parse::<u64>().ok()?,
            ["Socket", "errors:", counts @ ..] => {
                let counts = counts.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                counted.failures += counts.sum::<u64>();
            }
            _ => {}
        }
    }
    // It does not look into bodies; what was read in all, of which it prints three digits, tells whether they were
    // there.
    if bytes * ROUNDING < counted.requests as f64 * size as f64 {
        counted.failures += counted.requests;
    }
    (counted.requests > 0).then_some(counted)
}

/// `1.25ms` with `("ms", 1.0)` among the units is 1.25.
fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}
