//! Load by nghttp2's `h2load`: HTTP/2, and HTTP/1.1 at a rate that does not depend on the answers.
//!
//! It prints no percentiles, so they are taken from its log of every request.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::Result;
use crate::load::{Circumstances, Counted, Load, Sent};
use crate::proxies::Proxy;

/// Runs it and reads what it prints and logs.
pub(crate) async fn run(load: &Load, proxy: &Proxy, with: Circumstances<'_>) -> Result<Counted> {
    let log = with.folder.join("h2load.log");
    // It appends.
    let _ = tokio::fs::remove_file(&log).await;
    let mut h2load = Command::new("h2load");
    h2load
        .args(["--threads=1", &format!("--clients={}", load.connections)])
        .arg(format!("--duration={}", with.time.as_secs()))
        .arg("--log-file")
        .arg(&log)
        .kill_on_drop(true);
    for line in with.headers() {
        h2load.args(["--header", &line]);
    }
    let address = match load.sent {
        Sent::Http2 { streams } => {
            h2load.arg(format!("--max-concurrent-streams={streams}"));
            proxy.http2.as_ref().ok_or("the proxy does not speak HTTP/2")?
        }
        _ => {
            h2load.args(["--h1", &format!("--rps={:.1}", with.half / load.connections as f64)]);
            &proxy.address
        }
    };
    h2load.arg(format!("http://{address}{}", load.path()));
    let output = h2load.output().await.map_err(|e| format!("`h2load` does not run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let misunderstood = || format!("`h2load` printed what is not understood:\n{text}");
    let mut counted = read(&text, with.time, load.size).ok_or_else(misunderstood)?;
    counted.p99_ms = p99_ms(&log).await?;
    Ok(counted)
}

/// Whether `address` answers a request in HTTP/2.
pub(crate) async fn answers(address: &str) -> Result<bool> {
    let output =
        Command::new("h2load").args(["-n1", "-c1"]).arg(format!("http://{address}/healthz")).output();
    let output = output.await.map_err(|e| format!("`h2load` does not run: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("1 succeeded"))
}

/// Reads what `h2load` prints about requests and bytes.
fn read(text: &str, time: Duration, size: usize) -> Option<Counted> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    // `10868 total, 10932 started, 10868 done, 10868 succeeded, 0 failed, 0 errored, 0 timeout`
    let count = |what: &str| -> Option<u64> {
        let part = line("requests: ")?.split(", ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse().ok()
    };
    // `1.71MB (1793220) total, 1.14MB (1191588) headers (..), 181.49KB (185844) data`
    let data = line("traffic: ")?.rsplit('(').next()?.split(')').next()?.parse::<u64>().ok()?;
    let requests = count("succeeded")?;
    let short = (requests * size as u64).saturating_sub(data).div_ceil(size as u64);
    Some(Counted {
        requests,
        requests_a_second: requests as f64 / time.as_secs_f64(),
        p99_ms: 0.0,
        failures: count("failed")? + count("errored")? + count("timeout")? + short,
    })
    .filter(|counted| counted.requests > 0)
}

/// From lines of start time, status and duration in microseconds.
async fn p99_ms(log: &Path) -> Result<f64> {
    let text = tokio::fs::read_to_string(log).await?;
    let mut times: Vec<u64> =
        text.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).collect();
    let rank = (times.len() * 99).div_ceil(100).saturating_sub(1);
    if rank >= times.len() {
        return Err("`h2load` logged no request".into());
    }
    let (_, p99, _) = times.select_nth_unstable(rank);
    Ok(*p99 as f64 / 1000.0)
}
