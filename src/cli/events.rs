//! `switchman events`: what has happened, and with `-f` what happens from then on.

use http::Method;
use http::header::HeaderName;

use crate::admin::client::Call;
use crate::admin::types::{Event, Events};
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::follow::{self, Followed};
use crate::cli::output;

/// Events that are shown where nobody says how many; those before what is followed.
const LINES: usize = 100;
const LINES_BEFORE: usize = 10;
/// Says which event was seen last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What a line with an event begins with, among those of `text/event-stream`.
const DATA: &[u8] = b"data: ";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what happens, also over a restart of switchman; ends with Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Not those before this: `10m` ago, or a time as in `2026-11-21T18:05:00Z`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// So many of the last ones; 100 (10 with --follow) where neither this nor --since is given
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<usize>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let answer = client.send(args.call(0).query("follow", "0")).await?;
    if !args.follow {
        if args.reach.json {
            return output::data(&answer.text());
        }
        let events: Events = answer.json()?;
        if events.events.is_empty() {
            output::note("nothing has happened since switchman was started, or nothing of that");
        }
        return events.events.iter().try_for_each(|event| output::data(&line(event)));
    }
    follow::follow(&client, &mut Following { args, last: 0 }).await
}

impl Args {
    /// Asks for what is wanted after the event `last`; 0: none was seen.
    fn call(&self, last: u64) -> Call {
        let mut call = Call::new(Method::GET, &["events"]);
        if let Some(service) = &self.reach.service {
            call = call.query("service", service);
        }
        if last > 0 {
            return call.header(LAST_EVENT_ID, last.to_string());
        }
        let usual = if self.follow { LINES_BEFORE } else { LINES };
        match (&self.since, self.lines) {
            (None, lines) => call.query("lines", &lines.unwrap_or(usual).to_string()),
            (Some(since), None) => call.query("since", since),
            (Some(since), Some(lines)) => call.query("since", since).query("lines", &lines.to_string()),
        }
    }
}

struct Following {
    args: Args,
    /// The number of the last event that was seen.
    last: u64,
}

impl Followed for Following {
    fn call(&self) -> Call {
        self.args.call(self.last)
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(data) = bytes.strip_prefix(DATA) else { return Ok(()) };
        let event: Event = serde_json::from_slice(data)
            .map_err(|error| Failure::failed(format!("an event cannot be read: {error}")))?;
        self.last = event.id;
        if self.args.reach.json { output::raw(data) } else { output::data(&line(&event)) }
    }
}

/// One event, for people.
fn line(event: &Event) -> String {
    let Event { at, service, version, text, .. } = event;
    let version = version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
    format!("{at:.3} {service}{version}: {text}")
}
