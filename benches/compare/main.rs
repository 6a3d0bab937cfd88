//! Side by side: switchman, nginx and HAProxy with equal rules before the same two workers, driven by `wrk`.
//!
//! ```text
//! switchman runs the workers -> nginx and HAProxy are pointed at them -> all are asked whether their rules
//! agree (rules.rs) -> each load, each proxy, each round: wrk (load.rs), CPU from /proc (proxies.rs) -> medians
//! and ratios (report.rs)
//! ```
//!
//! `cargo bench --bench compare` prints the table; with `-- --write` it also goes into docs/benchmarks.md.
//! Options, from the environment: `BENCH_SECONDS` a run (5), `BENCH_ROUNDS` (3), `BENCH_THREADS` of each proxy
//! (1), `BENCH_ONLY` a word that the loads must contain (`64 connections`), `BENCH_SWITCHMAN` another binary.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to the person who runs it")]

mod load;
mod proxies;
mod report;
mod rules;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use load::Load;
use proxies::Proxy;
use report::{Report, Run};

/// What a benchmark may end in; the message is for a person.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the person who runs it may choose.
#[derive(Debug)]
struct Options {
    seconds: u64,
    rounds: usize,
    threads: usize,
    only: String,
    switchman: PathBuf,
    write: bool,
}

impl Options {
    fn read() -> Result<Self> {
        fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
            match env::var(name) {
                Ok(text) => text.parse().map_err(|_| format!("{name}: `{text}` is not a number").into()),
                Err(_) => Ok(default),
            }
        }
        Ok(Self {
            seconds: number("BENCH_SECONDS", 5)?,
            rounds: number("BENCH_ROUNDS", 3)?,
            threads: number("BENCH_THREADS", 1)?,
            only: env::var("BENCH_ONLY").unwrap_or_default(),
            switchman: env::var_os("BENCH_SWITCHMAN")
                .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_switchman")), PathBuf::from),
            write: env::args().any(|arg| arg == "--write"),
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs benchmarks too, without this flag: minutes that nobody asked for.
    if !env::args().any(|arg| arg == "--bench") {
        println!("nothing measured; type `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    match compare().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare() -> Result<()> {
    let options = Options::read()?;
    let loads: Vec<Load> = Load::all().filter(|load| load.to_string().contains(&options.only)).collect();
    if loads.is_empty() {
        return Err(format!("BENCH_ONLY: no load is called like `{}`", options.only).into());
    }
    let folder = tempfile::tempdir()?;
    let proxies = proxies::start(&options, folder.path()).await?;
    let uid = rules::agree(&proxies).await?;
    let report = measure(&options, &loads, &proxies, &uid, folder.path()).await;
    for proxy in proxies {
        proxy.stop().await?;
    }
    let report = report?;
    println!("\n{report}");
    if options.write {
        report.write(&options).await?;
    }
    Ok(())
}

/// Every load on every proxy, round by round, so that what else the machine does hits all of them.
async fn measure(
    options: &Options,
    loads: &[Load],
    proxies: &[Proxy],
    uid: &str,
    folder: &std::path::Path,
) -> Result<Report> {
    let mut report = Report::default();
    let warm_up = Duration::from_secs(1);
    let run_time = Duration::from_secs(options.seconds);
    for proxy in proxies {
        Load::all().next().ok_or("there is no load")?.run(proxy, uid, warm_up, folder).await?;
    }
    for round in 0..options.rounds {
        for load in loads {
            // Another one goes first each round.
            for proxy in proxies.iter().cycle().skip(round).take(proxies.len()) {
                let before = proxy.cpu()?;
                let counted = load.run(proxy, uid, run_time, folder).await?;
                let run = Run::new(proxy.cpu()? - before, &counted);
                eprintln!("round {}: {load}, {}: {run}", round + 1, proxy.name);
                report.add(load, proxy.name, run);
            }
        }
    }
    Ok(report)
}
