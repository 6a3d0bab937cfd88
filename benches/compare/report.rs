//! Medians and ratios, as tables on the terminal and in docs/benchmarks.md.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use procfs::Current;
use tokio::process::Command;

use crate::idle::{self, Idle};
use crate::load::{Counted, Load};
use crate::proxies::Memory;
use crate::proxies::server_program;
use crate::{Options, Result};

/// What the others are compared with.
pub(crate) const BASE: &str = "nginx";
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

/// What was measured with one number of threads.
#[derive(Debug)]
pub(crate) struct Section {
    threads: usize,
    /// All runs, by load and proxy in the order in which they came first.
    rows: Vec<(Load, &'static str, Vec<Run>)>,
    /// Memory with idle connections, by proxy.
    pub(crate) idle: Vec<(&'static str, Idle)>,
    /// What a reader must know.
    notes: Vec<String>,
}

impl Section {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, rows: Vec::new(), idle: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, load: &Load, proxy: &'static str, run: Run) {
        match self.rows.iter_mut().find(|(l, p, _)| l == load && *p == proxy) {
            Some((_, _, runs)) => runs.push(run),
            None => self.rows.push((*load, proxy, vec![run])),
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    fn loads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| load | proxy | CPU a request, us | x {BASE} | requests/s | x {BASE} | p99, ms | x {BASE} | failures |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|--:|")?;
        for (load, proxy, runs) in &self.rows {
            let run = Run::median_of(runs);
            let base = self.rows.iter().find(|(l, p, _)| l == load && *p == BASE);
            let base = base.map_or(run, |(_, _, runs)| Run::median_of(runs));
            writeln!(
                f,
                "| {load} | {proxy} | {:.1} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {} |",
                run.cpu_us,
                run.cpu_us / base.cpu_us,
                run.requests_a_second,
                run.requests_a_second / base.requests_a_second,
                run.p99_ms,
                run.p99_ms / base.p99_ms,
                run.failures
            )?;
        }
        Ok(())
    }

    fn idle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = idle::CONNECTIONS;
        writeln!(
            f,
            "| {connections} idle connections | before, MiB: RSS | without files | with them, MiB: RSS | x {BASE} | \
             without files | x {BASE} | a connection, KiB | x {BASE} |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        let each = |idle: &Idle| idle.after.own.saturating_sub(idle.before.own) as f64 / connections as f64;
        let base = self.idle.iter().find(|(proxy, _)| *proxy == BASE).map(|(_, idle)| idle);
        for (proxy, idle) in &self.idle {
            let base = base.unwrap_or(idle);
            let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
            let [before, after] = [idle.before, idle.after].map(|Memory { rss, own }| (mib(rss), mib(own)));
            writeln!(
                f,
                "| {proxy} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1} | {:.2} | {:.2} | {:.2} |",
                before.0,
                before.1,
                after.0,
                after.0 / mib(base.after.rss),
                after.1,
                after.1 / mib(base.after.own),
                each(idle) / 1024.0,
                each(idle) / each(base)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.threads == 1 { "" } else { "s" };
        writeln!(f, "### {} thread{s} a proxy\n", self.threads)?;
        for note in &self.notes {
            writeln!(f, "{note}\n")?;
        }
        if !self.rows.is_empty() {
            self.loads(f)?;
        }
        if !self.idle.is_empty() {
            writeln!(f)?;
            self.idle(f)?;
        }
        Ok(())
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
}

impl Report {
    /// Puts the tables, the machine, the versions and the command into docs/benchmarks.md.
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
        let threads: Vec<String> = threads.iter().map(ToString::to_string).collect();
        let threads = threads.join(",");
        let cpus = procfs::CpuInfo::current()?;
        let model = cpus.model_name(0).unwrap_or("unknown processor");
        let uname = rustix::system::uname();
        let kernel = uname.release().to_string_lossy();
        let mut text = format!(
            "Side by side, {}.

- Command: `{only}BENCH_SECONDS={seconds} BENCH_ROUNDS={rounds} BENCH_THREADS={threads} make bench ARGS=--write`
- Machine: {model}, {} cores, Linux {kernel}. Load and workers share it.
",
            jiff::Zoned::now().date(),
            cpus.num_cores()
        );
        for (program, flag) in [
            (options.switchman.clone(), "--version"),
            (server_program("nginx"), "-v"),
            (server_program("haproxy"), "-v"),
            ("wrk".into(), "-v"),
            ("h2load".into(), "--version"),
        ] {
            writeln!(text, "- {}.", first_line(&program, flag).await?)?;
        }
        writeln!(
            text,
            "- Each proxy has three rules (a header, a cookie, a percentage) and two workers behind it, over TCP unless \
             unix sockets are named, and tells them the same (client, host, scheme, an id, a start time); connections to the workers are kept. No access logs; switchman counts its metrics.
- CPU is the proxy's own, user and system, divided by the requests. wrk sends without pause; h2load sends the loads \
             at half of nginx's maximum, and HTTP/2.
- Medians of {rounds} rounds of {seconds} s, each after a warm-up of {} s, the proxies in turn; failures, wrong answers \
             among them, are added up.",
            crate::WARM_UP.as_secs()
        )?;
        Ok(text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, section) in self.sections.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            write!(f, "{section}")?;
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
