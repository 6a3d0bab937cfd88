//! Who listens to what a process prints: its readiness, where that is a line, and alarms.
//!
//! Each line is matched once, where it is read; with neither configured nothing is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Alarm, Pattern, ReadyCheck};

/// At most one report of alarms in this time: a worker may print them faster than anybody reads.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Of the line of an alarm, so many characters are shown.
const SHOWN_CHARS: usize = 200;

/// The printing side; shared by both outputs of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ears {
    ready: Option<(Pattern, Arc<watch::Sender<bool>>)>,
    alarm: Option<(Arc<Alarm>, Arc<watch::Sender<Alarms>>)>,
}

/// The listening side.
#[derive(Debug)]
pub(crate) struct Heard {
    /// For [`ReadyCheck::Log`].
    pub(crate) ready: Listening,
    /// The alarms, where there can be any.
    pub(crate) alarms: Option<watch::Receiver<Alarms>>,
}

/// Whether the line was printed that shows that a process is ready. By default it never is.
#[derive(Debug, Clone, Default)]
pub(crate) enum Listening {
    /// No line is waited for.
    #[default]
    No,
    /// It may come.
    Yes(watch::Receiver<bool>),
    /// It was printed before.
    Heard,
}

/// The alarms of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    /// How many lines were an alarm.
    pub(crate) count: u64,
    /// The last of them, shortened.
    pub(crate) last: String,
}

impl Ears {
    /// For a process that is about to be started.
    pub(crate) fn new(check: &ReadyCheck, alarm: Option<Arc<Alarm>>) -> (Self, Heard) {
        let (ready, line) = match check {
            ReadyCheck::Log(pattern) => {
                let (said, line) = watch::channel(false);
                (Some((pattern.clone(), Arc::new(said))), Listening::Yes(line))
            }
            _ => (None, Listening::No),
        };
        let (alarm, alarms) = match alarm {
            Some(alarm) => {
                let (raised, alarms) = watch::channel(Alarms::default());
                (Some((alarm, Arc::new(raised))), Some(alarms))
            }
            None => (None, None),
        };
        (Self { ready, alarm }, Heard { ready: line, alarms })
    }

    /// A line, as it was printed.
    pub(super) fn hear(&mut self, line: &[u8]) {
        if let Some((pattern, said)) = &self.ready {
            // Once is enough, on either output.
            if *said.borrow() || pattern.matches(line) {
                said.send_replace(true);
                self.ready = None;
            }
        }
        if let Some((alarm, raised)) = &self.alarm
            && alarm.lines.is_match(line)
        {
            raised.send_modify(|alarms| {
                alarms.count += 1;
                alarms.last = shown(line);
            });
        }
    }
}

/// What is shown of a line: its first characters, without control characters.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

impl Listening {
    /// Returns when the line was printed; never where no line is waited for.
    pub(crate) async fn line(&mut self) {
        let said = match self {
            Self::Yes(line) => line.wait_for(|said| *said).await.is_ok(),
            Self::Heard => true,
            Self::No => false,
        };
        if !said {
            // Its outputs are closed, and nothing comes any more.
            std::future::pending().await
        }
    }
}

/// Tells of alarms, at most once a second, until the outputs of the process are closed.
pub(crate) async fn report(mut alarms: watch::Receiver<Alarms>, mut tell: impl AsyncFnMut(Alarms)) {
    let mut told = 0;
    loop {
        let Ok(now) = alarms.wait_for(|now| now.count > told).await.map(|now| now.clone()) else { return };
        told = now.count;
        tell(now).await;
        // The time, or the end of the outputs: then what came meanwhile is told at once.
        let _ = tokio::time::timeout(REPORT_EVERY, alarms.wait_for(|_| false)).await;
    }
}

#[cfg(test)]
mod tests {
    use regex::bytes::RegexSet;

    use super::*;

    #[tokio::test]
    async fn the_line_of_readiness_may_come_on_either_output() {
        let check = ReadyCheck::Log(Pattern::parse("^listening").unwrap());
        let (mut out, mut heard) = Ears::new(&check, None);
        let mut err = out.clone();
        out.hear(b"not listening yet");
        assert!(tokio::time::timeout(Duration::from_millis(20), heard.ready.line()).await.is_err());
        err.hear(b"listening on \xff");
        heard.ready.line().await;
        out.hear(b"more");
        assert!(out.ready.is_none(), "it costs nothing any more");
        assert!(heard.alarms.is_none());
    }

    #[tokio::test]
    async fn alarms_are_counted_and_told_once_a_second_and_at_the_end() {
        let lines = RegexSet::new(["^FATAL", "out of memory"]).unwrap();
        let (mut ears, heard) = Ears::new(&ReadyCheck::Tcp, Some(Arc::new(Alarm { lines, restart: false })));
        let (told, mut tellings) = tokio::sync::mpsc::unbounded_channel();
        let telling = tokio::spawn(report(heard.alarms.unwrap(), async move |alarms: Alarms| {
            told.send((alarms.count, alarms.last)).unwrap();
        }));
        ears.hear(b"all is well");
        ears.hear(b"FATAL: \x1b[31mone\x1b[0m");
        assert_eq!(tellings.recv().await.unwrap(), (1, "FATAL: [31mone[0m".to_owned()));
        for _ in 0..10_000 {
            ears.hear(b"out of memory");
        }
        ears.hear(format!("FATAL {}", "x".repeat(1_000)).as_bytes());
        drop(ears);
        let (count, last) = tellings.recv().await.unwrap();
        assert_eq!((count, last.len()), (10_002, SHOWN_CHARS + 3));
        telling.await.unwrap();
        assert_eq!(tellings.recv().await, None);
    }
}
