//! Side by side: switchman, nginx and HAProxy with equal rules before the same two workers.
//!
//! ```text
//! for each number of threads:
//!   switchman runs the workers -> nginx and HAProxy are pointed at them (proxies) -> all are asked whether their rules
//!   agree (rules) -> memory with idle connections (idle) -> each round, each load, each proxy: one right answer, a
//!   warm-up, wrk or h2load (load), CPU from /proc -> medians and ratios (report)
//! ```
//!
//! `cargo bench --bench compare` prints the tables; with `-- --write` they also go into docs/benchmarks.md.
//! Options, from the environment: `BENCH_SECONDS` a run (3), `BENCH_ROUNDS` (3), `BENCH_THREADS` of each proxy, more
//! than one number for more than one table (`1,2`; all loads are run with the first, a few with the others),
//! `BENCH_ONLY` a text that a load's name must contain (`64 connections`; `idle`), `BENCH_SWITCHMAN` another binary.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to the person who runs it")]

mod h2load;
mod idle;
mod load;
mod proxies;
mod report;
mod rules;
mod wrk;

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use load::{Circumstances, Load, Sent};
use proxies::Proxy;
use report::{Report, Run, Section};

/// What a benchmark may end in; the message is for a person.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long each load is run before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What the person who runs it may choose.
#[derive(Debug)]
struct Options {
    seconds: u64,
    rounds: usize,
    threads: Vec<usize>,
    only: String,
    switchman: PathBuf,
    write: bool,
}

impl Options {
    fn read() -> Result<Self> {
        fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T> {
            text.trim().parse().map_err(|_| format!("{name}: `{text}` is not a number").into())
        }
        let text = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let threads = text("BENCH_THREADS", "1,2");
        Ok(Self {
            seconds: number("BENCH_SECONDS", &text("BENCH_SECONDS", "3"))?,
            rounds: number("BENCH_ROUNDS", &text("BENCH_ROUNDS", "3"))?,
            threads: threads.split(',').map(|text| number("BENCH_THREADS", text)).collect::<Result<_>>()?,
            only: text("BENCH_ONLY", ""),
            switchman: env::var_os("BENCH_SWITCHMAN")
                .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_switchman")), PathBuf::from),
            write: env::args().any(|arg| arg == "--write"),
        })
    }

    /// The loads that are asked for, with the first number of threads or with another.
    fn loads(&self, is_first: bool) -> Vec<Load> {
        let all = if is_first { Load::all() } else { Load::few() };
        all.into_iter().filter(|load| load.to_string().contains(&self.only)).collect()
    }

    /// Whether idle connections are asked for.
    fn idle(&self, is_first: bool) -> bool {
        is_first && "idle".contains(&self.only)
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
    if options.loads(true).is_empty() && !options.idle(true) {
        return Err(format!("BENCH_ONLY: no load is called like `{}`", options.only).into());
    }
    // For the idle connections; the proxies, which are started from here, get the same limit.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let mut report = Report::default();
    for (nth, threads) in options.threads.iter().enumerate() {
        let (loads, idle) = (options.loads(nth == 0), options.idle(nth == 0));
        if loads.is_empty() && !idle {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let mut proxies = proxies::start(&options, *threads, folder.path()).await?;
        let mut section = Section::new(*threads);
        let measured = measure(&options, &loads, idle, &mut proxies, folder.path(), &mut section).await;
        for proxy in proxies {
            proxy.stop().await?;
        }
        measured?;
        report.sections.push(section);
    }
    println!("\n{report}");
    if options.write {
        report.write(&options).await?;
    }
    Ok(())
}

/// Everything that one number of threads is measured with.
async fn measure(
    options: &Options,
    loads: &[Load],
    idle: bool,
    proxies: &mut [Proxy],
    folder: &Path,
    section: &mut Section,
) -> Result<()> {
    let uid = rules::agree(proxies).await?;
    if idle {
        // First, while no load has made them grow.
        measure_idle(proxies, section).await?;
    }
    if loads.iter().any(|load| matches!(load.sent, Sent::Http2 { .. })) {
        leave_out_http2(proxies, section).await?;
    }
    let mut with = Circumstances { uid: &uid, time: Duration::from_secs(options.seconds), half: 0.0, folder };
    if loads.iter().any(|load| load.sent == Sent::AtHalf) {
        with.half = half_of_nginx(proxies, with).await?;
        section.note(format!("Half of nginx's maximum was {:.0} requests/s in this run.", with.half));
    }
    let warm_up = Circumstances { time: WARM_UP, ..with };
    for round in 0..options.rounds {
        for load in loads {
            // Another one goes first each round.
            for proxy in proxies.iter().cycle().skip(round % proxies.len()).take(proxies.len()) {
                if !load.takes(proxy) {
                    continue;
                }
                load.check(proxy).await?;
                load.run(proxy, warm_up).await?;
                let before = proxy.cpu()?;
                let counted = load.run(proxy, with).await?;
                let run = Run::new(proxy.cpu()? - before, &counted);
                eprintln!("round {}: {load}, {}: {run}", round + 1, proxy.name);
                section.add(load, proxy.name, run);
            }
        }
    }
    Ok(())
}

async fn measure_idle(proxies: &[Proxy], section: &mut Section) -> Result<()> {
    if let Err(why) = idle::is_possible() {
        section.note(format!("Idle connections were not measured: {why}."));
        return Ok(());
    }
    for proxy in proxies.iter().filter(|proxy| proxy.name != proxies::UNIX) {
        let idle =
            idle::measure(proxy).await.map_err(|e| format!("{}, idle connections: {e}", proxy.name))?;
        eprintln!("idle connections, {}: {} KiB", proxy.name, idle.after.own / 1024);
        section.idle.push((proxy.name, idle));
    }
    Ok(())
}

/// A proxy that does not answer in HTTP/2 is not measured with it, and the report says so.
async fn leave_out_http2(proxies: &mut [Proxy], section: &mut Section) -> Result<()> {
    for proxy in proxies {
        if let Some(address) = &proxy.http2
            && !h2load::answers(address).await?
        {
            section.note(format!(
                "{} does not answer HTTP/2 by prior knowledge and was left out there.",
                proxy.name
            ));
            proxy.http2 = None;
        }
    }
    Ok(())
}

/// Half of the requests a second that nginx carries with 64 connections: one rate for all.
async fn half_of_nginx(proxies: &[Proxy], with: Circumstances<'_>) -> Result<f64> {
    let nginx = proxies.iter().find(|proxy| proxy.name == report::BASE).ok_or("there is no nginx")?;
    Load::maximum().run(nginx, Circumstances { time: WARM_UP, ..with }).await?;
    Ok(Load::maximum().run(nginx, with).await?.requests_a_second / 2.0)
}
