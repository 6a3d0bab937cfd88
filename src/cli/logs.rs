//! `switchman logs`: what the workers of a version printed, and with `-f` what they print from then on.

use http::Method;
use jiff::{SignedDuration, Timestamp};

use crate::admin::client::{Call, Client};
use crate::admin::types;
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::follow::{self, Followed};
use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The version: its name, at least 7 characters of it, or an alias; also one that is gone
    version: String,
    /// Go on with the lines that come, also over a restart of switchman; ends with Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Not those before this: `10m` ago, or a time as in `2026-11-21T18:05:00Z`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those of this worker
    #[arg(long, value_name = "N")]
    worker: Option<u32>,
    /// Only those that this regular expression matches
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// So many of the last ones; 1000 where neither this nor --since is given
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<usize>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let mut lines = Lines { service, version: args.version.clone(), last: None, args };
    if lines.args.follow {
        lines.settle_what_is_meant(&client).await?;
        return follow::follow(&client, &mut lines).await;
    }
    let mut printed = false;
    client
        .follow(lines.call(), |bytes| {
            printed = true;
            output::printed(bytes)
        })
        .await?;
    if !printed {
        output::note("its workers have printed nothing, or no such line");
    }
    Ok(())
}

/// What is printed of one version.
struct Lines {
    args: Args,
    service: String,
    version: String,
    /// When the last line was printed.
    last: Option<Timestamp>,
}

impl Lines {
    fn path(&self, end: &[&str]) -> Call {
        Call::new(Method::GET, &[&["services", &self.service, "versions", &self.version], end].concat())
    }

    /// Finds out what is wrong with the question, and which version is meant: an alias may move while switchman is
    /// away.
    async fn settle_what_is_meant(&mut self, client: &Client) -> Result<(), Failure> {
        let none = self.asked(self.path(&["logs"]).query("lines", "0"));
        client.send(none).await?;
        if let Ok(version) = client.json::<types::Version>(self.path(&[])).await {
            self.version = version.version;
        }
        Ok(())
    }

    fn asked(&self, call: Call) -> Call {
        let Args { worker, grep, reach, .. } = &self.args;
        let worker = worker.map(|worker| worker.to_string());
        let json = reach.json.then(|| "1".to_owned());
        [("worker", worker.as_ref()), ("grep", grep.as_ref()), ("json", json.as_ref())]
            .into_iter()
            .fold(call, |call, (name, value)| value.map_or(call.clone(), |value| call.query(name, value)))
    }
}

impl Followed for Lines {
    fn call(&self) -> Call {
        let mut call = self.asked(self.path(&["logs"]));
        if self.args.follow {
            call = call.query("follow", "1");
        }
        if let Some(last) = self.last {
            let next = last.saturating_add(SignedDuration::from_micros(1)).unwrap_or(last);
            return call.query("since", &next.to_string());
        }
        if let Some(since) = &self.args.since {
            call = call.query("since", since);
        }
        match self.args.lines {
            Some(lines) => call.query("lines", &lines.to_string()),
            None => call,
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.last = at(line, self.args.reach.json).or(self.last);
        output::printed(line)
    }
}

/// When a line was printed, in either form.
fn at(line: &[u8], json: bool) -> Option<Timestamp> {
    if json {
        return serde_json::from_slice::<types::LogLine>(line).ok().map(|line| line.at);
    }
    let end = line.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&line[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_read_in_both_forms() {
        let time = "2026-11-21T18:05:10.123456Z";
        let expected: Option<Timestamp> = time.parse().ok();
        assert_eq!(at(format!("{time} 0 out text\n").as_bytes(), false), expected);
        let json = format!(r#"{{"at":"{time}","worker":0,"pid":1,"stream":"stdout","text":"x"}}"#);
        assert_eq!(at(json.as_bytes(), true), expected);
        assert_eq!(at(b"something else", false), None);
    }
}
