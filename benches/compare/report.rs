//! Medians and ratios, as a table on the terminal and in docs/benchmarks.md.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use procfs::Current;
use tokio::process::Command;

use crate::load::{Counted, Load};
use crate::proxies::server_program;
use crate::{Options, Result};

/// What the others are compared with.
const BASE: &str = "nginx";
/// Where `--write` puts the table; what stands before and after it in the file stays.
const FILE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- compare: begin -->\n";
const END: &str = "<!-- compare: end -->\n";

/// One run of one load on one proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// CPU time of the proxy divided by the requests, in microseconds.
    cpu_us: f64,
    requests_a_second: f64,
    p99_ms: f64,
    failures: u64,
}

impl Run {
    pub(crate) fn new(cpu: Duration, counted: &Counted) -> Self {
        Self {
            cpu_us: cpu.as_secs_f64() * 1e6 / counted.requests as f64,
            requests_a_second: counted.requests_a_second,
            p99_ms: counted.p99_ms,
            failures: counted.failures,
        }
    }

    /// Each figure's median; failures are added up.
    fn median_of(runs: &[Self]) -> Self {
        let median = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = runs.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            let middle = figures.len() / 2;
            if figures.len() % 2 == 1 {
                figures[middle]
            } else {
                (figures[middle - 1] + figures[middle]) / 2.0
            }
        };
        Self {
            cpu_us: median(|run| run.cpu_us),
            requests_a_second: median(|run| run.requests_a_second),
            p99_ms: median(|run| run.p99_ms),
            failures: runs.iter().map(|run| run.failures).sum(),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} us a request, {:.0} requests/s", self.cpu_us, self.requests_a_second)?;
        if self.failures > 0 {
            write!(f, ", {} FAILED", self.failures)?;
        }
        Ok(())
    }
}

/// All runs, by load and proxy in the order in which they came first.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(Load, &'static str, Vec<Run>)>,
}

impl Report {
    pub(crate) fn add(&mut self, load: &Load, proxy: &'static str, run: Run) {
        match self.rows.iter_mut().find(|(l, p, _)| l == load && *p == proxy) {
            Some((_, _, runs)) => runs.push(run),
            None => self.rows.push((*load, proxy, vec![run])),
        }
    }

    /// Puts the table, the machine, the versions and the command into docs/benchmarks.md.
    pub(crate) async fn write(&self, options: &Options) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        let old = match tokio::fs::read_to_string(&path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                format!("# Benchmarks\n\n{BEGIN}{END}")
            }
            other => other?,
        };
        let places = old.find(BEGIN).zip(old.find(END)).filter(|(begin, end)| begin < end);
        let (begin, end) = places.ok_or_else(|| format!("{FILE} lacks the lines `{BEGIN}` and `{END}`"))?;
        let text = format!("{}\n{self}", self.circumstances(options).await?);
        let new = format!("{}{BEGIN}{text}{}", &old[..begin], &old[end..]);
        tokio::fs::write(&path, new).await?;
        println!("written to {FILE}");
        Ok(())
    }

    async fn circumstances(&self, options: &Options) -> Result<String> {
        let Options { seconds, rounds, threads, only, .. } = options;
        let only = if only.is_empty() { String::new() } else { format!("BENCH_ONLY='{only}' ") };
        let cpus = procfs::CpuInfo::current()?;
        let model = cpus.model_name(0).unwrap_or("unknown processor");
        let uname = rustix::system::uname();
        let mut text = String::new();
        let t = &mut text;
        writeln!(t, "Side by side, {}.\n", jiff::Zoned::now().date())?;
        writeln!(
            t,
            "- Command: `{only}BENCH_SECONDS={seconds} BENCH_ROUNDS={rounds} BENCH_THREADS={threads} \
             make bench ARGS=--write`"
        )?;
        let kernel = uname.release().to_string_lossy();
        writeln!(
            t,
            "- Machine: {model}, {} cores, Linux {kernel}. Load and workers share it.",
            cpus.num_cores()
        )?;
        writeln!(t, "- {}.", first_line(&options.switchman, "--version").await?)?;
        writeln!(t, "- {}.", first_line(&server_program("nginx"), "-v").await?)?;
        writeln!(t, "- {}.", first_line(&server_program("haproxy"), "-v").await?)?;
        writeln!(t, "- {}.", first_line(Path::new("wrk"), "-v").await?)?;
        writeln!(
            t,
            "- Each proxy has {threads} thread(s), three rules (a header, a cookie, a percentage), the same"
        )?;
        writeln!(
            t,
            "  two workers behind it over TCP, and connections kept on both sides. No access logs; switchman"
        )?;
        writeln!(
            t,
            "  counts its metrics. CPU is the proxy's own, user and system, divided by the requests."
        )?;
        writeln!(t, "- Medians of {rounds} rounds of {seconds} s; failures are added up.")?;
        Ok(text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| load | proxy | CPU a request, us | x {BASE} | requests/s | x {BASE} | p99, ms | failures |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|")?;
        for (load, proxy, runs) in &self.rows {
            let run = Run::median_of(runs);
            let base = self.rows.iter().find(|(l, p, _)| l == load && *p == BASE);
            let base = base.map_or(run, |(_, _, runs)| Run::median_of(runs));
            writeln!(
                f,
                "| {load} | {proxy} | {:.1} | {:.2} | {:.0} | {:.2} | {:.2} | {} |",
                run.cpu_us,
                run.cpu_us / base.cpu_us,
                run.requests_a_second,
                run.requests_a_second / base.requests_a_second,
                run.p99_ms,
                run.failures
            )?;
        }
        Ok(())
    }
}

/// The first line that a program prints of itself, on either output.
async fn first_line(program: &Path, flag: &str) -> Result<String> {
    let output = Command::new(program).arg(flag).output().await?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned())
}
