//! What a process prints: on its way from its pipes into the logs, and in the reason of its failure.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::launch::Identity;
use super::output::{self, Ears, Heard, Listening, Printer, Stream};
use super::pipes::{self, Output};
use super::worker::{Launch, Report, Reporter};

/// Lines of its output that the reason of a failure quotes.
pub(super) const QUOTED_LINES: usize = 10;
/// Of a quoted line, so many characters.
const QUOTED_CHARS: usize = 300;

impl Launch {
    /// Reads what a process prints, and tells of alarms; also answers whether the line comes that shows that it is ready.
    pub(super) fn read_output(&self, pid: u32, reporter: &Reporter) -> (Vec<JoinHandle<()>>, Listening) {
        let (ears, Heard { ready, alarms }) = Ears::new(&self.spec.ready.check, self.alarm.clone());
        let [out, err] = pipes::paths(&self.who.pidfile);
        let read = |path: &Path, stream| {
            let output = match Output::open(path, self.leaving.clone()) {
                Ok(output) => output,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "what a worker prints cannot be read");
                    return None;
                }
            };
            let Identity { service, version, worker, .. } = &self.who;
            let (service, version, worker) = (service.clone(), version.clone(), *worker);
            let printer = Printer { service, version, worker, pid, stream, ears: ears.clone() };
            Some(tokio::spawn(printer.read(output, self.logs.clone())))
        };
        let read = [read(&out, Stream::Stdout), read(&err, Stream::Stderr)];
        let told = alarms.map(|alarms| {
            let reporter = reporter.clone();
            let tell = async move |alarms| reporter.send(Report::Alarms(alarms)).await;
            tokio::spawn(output::report(alarms, tell))
        });
        (read.into_iter().flatten().chain(told).collect(), ready)
    }
}

/// How runtimes say that a port is taken: C and Python, Node.js, Go, Rust, the JVM.
pub(super) fn says_in_use(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("eaddrinuse") || line.contains("address already in use")
}

/// How it ended, with the last lines that it printed.
pub(super) fn quote(how: &str, lines: &[Arc<str>]) -> String {
    if lines.is_empty() {
        return format!("{how}; it printed nothing");
    }
    let mut text = format!("{how}; it printed last:");
    for line in lines {
        text.push_str("\n  ");
        text.extend(line.chars().take(QUOTED_CHARS));
    }
    text
}
