//! The versions as a table for people. Pure: what the API says and `now` in, text out.

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

use crate::admin::types::{Version, Versions};
use crate::version::{VersionState, WorkerState};

/// Characters of a version's name that are shown: enough to tell commits apart, short enough for a line.
const HASH_SHOWN: usize = 12;
const HEADER: [&str; 9] =
    ["SERVICE", "VERSION", "STATE", "ALIASES", "ROUTES", "WORKERS", "REQUESTS", "RPS", "LAST HIT"];

/// The table; below it why versions failed, and with `--all` what is ignored and what is wrong.
pub(super) fn render(versions: &Versions, now: Timestamp) -> String {
    let mut text = String::new();
    if !versions.versions.is_empty() {
        let mut table = plain(&HEADER);
        for version in &versions.versions {
            table.add_row(row(version, now));
        }
        for column in 5..=7 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        text.push_str(&trimmed(&table));
    }
    for version in &versions.versions {
        if let Some(reason) = &version.reason {
            text.push_str(&format!(
                "\n{} {}: {}\n",
                short(&version.version),
                version.state,
                indented(reason)
            ));
        }
    }
    if let Some(ignored) = versions.ignored.as_ref().filter(|i| !i.is_empty()) {
        text.push_str("\nignored:\n");
        for entry in ignored {
            text.push_str(&format!("  {}: {}\n", entry.path, indented(&entry.reason)));
        }
    }
    if let Some(problems) = versions.problems.as_ref().filter(|p| !p.is_empty()) {
        text.push_str("\nproblems:\n");
        for problem in problems {
            text.push_str(&format!("  {}: {}\n", problem.service, indented(&problem.problem.to_string())));
        }
    }
    text
}

/// A table without lines.
pub(super) fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// The table's text, without the blanks that pad the last column.
pub(super) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim())).collect()
}

fn row(version: &Version, now: Timestamp) -> [String; 9] {
    let ready = version.workers.iter().filter(|w| w.state == WorkerState::Ready).count();
    let notes = [(version.dark, "dark"), (version.modified, "modified")];
    let notes: Vec<&str> = notes.into_iter().filter_map(|(is_so, note)| is_so.then_some(note)).collect();
    let state = version.state;
    let state = if notes.is_empty() { state.to_string() } else { format!("{state} ({})", notes.join(", ")) };
    [
        version.service.clone(),
        short(&version.version).to_owned(),
        state,
        list(&version.aliases),
        list(&version.routes),
        match version.state {
            VersionState::Stopped | VersionState::Asleep | VersionState::Arriving
                if version.workers.is_empty() =>
            {
                "-".to_owned()
            }
            _ => format!("{ready}/{}", version.workers.len()),
        },
        version.traffic.requests.to_string(),
        format!("{:.1}", version.traffic.rps),
        version.traffic.last_hit.map_or_else(|| "never".to_owned(), |at| ago(at, now)),
    ]
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// The beginning of a version's name.
pub(super) fn short(version: &str) -> &str {
    version.char_indices().nth(HASH_SHOWN).map_or(version, |(end, _)| &version[..end])
}

/// Later lines of a text, moved in under the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

/// How long ago, in the largest unit that fits.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{Ignored, ServiceProblem, Traffic, Worker};
    use crate::hint::Problem;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn version(id: &str, state: VersionState) -> Version {
        Version {
            service: "app".into(),
            version: id.into(),
            state,
            dark: false,
            aliases: Vec::new(),
            routes: Vec::new(),
            path: format!("/srv/app/{id}"),
            since: at("2026-11-21T07:30:00Z"),
            reason: None,
            modified: false,
            workers: Vec::new(),
            traffic: Traffic {
                requests: 0,
                in_flight: 0,
                rps: 0.0,
                errors: 0,
                p50_ms: None,
                p99_ms: None,
                last_hit: None,
            },
        }
    }

    fn worker(state: WorkerState) -> Worker {
        Worker { id: 0, pid: Some(1), address: None, state, in_flight: 0, restarts: 0 }
    }

    #[test]
    fn the_table_tells_what_runs_and_what_is_wrong() {
        let mut current = version("4f2a91cdd0b1c2d3e4f5", VersionState::Ready);
        current.aliases = vec!["current".into(), "latest".into()];
        current.routes = vec!["qa".into()];
        current.workers = vec![worker(WorkerState::Ready), worker(WorkerState::Starting)];
        current.traffic.requests = 1234;
        current.traffic.rps = 12.34;
        current.traffic.last_hit = Some(at("2026-11-21T07:30:57Z"));
        let mut dark = version("b001bee", VersionState::Ready);
        dark.dark = true;
        dark.modified = true;
        dark.workers = vec![worker(WorkerState::Ready)];
        let mut failed = version("bad0bad", VersionState::Failed);
        failed.reason = Some("exit status 1\nno such module\n".into());
        let versions = Versions {
            node: "host-a".into(),
            generation: 7,
            versions: vec![current, dark, failed, version("c001cafe", VersionState::Stopped)],
            ignored: Some(vec![Ignored {
                service: "app".into(),
                name: "tmp".into(),
                path: "/srv/app/tmp".into(),
                reason: "its name is no hash".into(),
            }]),
            problems: Some(vec![ServiceProblem {
                service: "app".into(),
                problem: Problem::error("services.app.root", "/srv/app is gone"),
            }]),
        };
        let expected = "\
SERVICE  VERSION       STATE                   ALIASES         ROUTES  WORKERS  REQUESTS   RPS  LAST HIT
app      4f2a91cdd0b1  ready                   current,latest  qa          1/2      1234  12.3  3s ago
app      b001bee       ready (dark, modified)  -               -           1/1         0   0.0  never
app      bad0bad       failed                  -               -           0/0         0   0.0  never
app      c001cafe      stopped                 -               -             -         0   0.0  never

bad0bad failed: exit status 1
    no such module

ignored:
  /srv/app/tmp: its name is no hash

problems:
  app: error: services.app.root: /srv/app is gone
";
        assert_eq!(render(&versions, at("2026-11-21T07:31:00Z")), expected);
    }

    #[test]
    fn time_is_told_in_the_largest_unit() {
        let ago = |seconds| ago(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        assert_eq!(
            [ago(0), ago(59), ago(60), ago(3600), ago(200_000)],
            ["0s ago", "59s ago", "1m ago", "1h ago", "2d ago"]
        );
    }
}
