//! What a version folder says about how it runs: its own `switchman.yaml`, or a `Procfile` with a `web:` line.
//!
//! A folder is somebody's upload: files in it are read with a limit, links are not followed, and a key that is
//! not about running (`root`, `listen`) is refused.

use std::path::Path;

use super::keys::{RUN, names};
use super::service::run_spec;
use super::text::{Links, read_if_there};
use super::{RunCommand, RunSpec};
use crate::hint::{Problem, Problems};
use crate::yaml::{self, Collector, Reader};

/// The file with the settings of one version.
const FILE: &str = "switchman.yaml";
/// The file that other tools read too.
const PROCFILE: &str = "Procfile";

/// How the version in `folder` runs. Precedence, key by key: its `switchman.yaml`, its `Procfile`, `service`;
/// `env` is merged. Warnings are logged.
///
/// # Errors
/// Every problem of the two files; a run command that nobody says.
pub fn read(folder: &Path, service: &RunSpec) -> Result<RunSpec, Problems> {
    let mut problems = Problems::default();
    let mut spec = service.clone();
    if let Some((text, file)) = text_of(folder, PROCFILE, &mut problems) {
        match web(&text) {
            Ok(run) => spec.run = run.map(RunCommand::Shell).or(spec.run),
            Err(problem) => problems.0.extend(located(problem.into(), &file, &text).0),
        }
    }
    if let Some((text, file)) = text_of(folder, FILE, &mut problems) {
        let (node, mut found) = yaml::parse_all(&text);
        if let Some(node) = node {
            let collector = Collector::default();
            if let Some(fields) = Reader::new(&node, &collector).fields(&names(&[&RUN])) {
                spec = run_spec(&fields, spec);
            }
            found.0.extend(collector.into_inner().0);
        }
        problems.0.extend(located(found, &file, &text).0);
    }
    if spec.run.is_none() && !problems.has_errors() {
        let message = format!("nothing says how to run the version in {}", folder.display());
        problems.push(Problem::error("run", message).hint(
            "add `run: ./server --port $PORT` to the service or to the folder's switchman.yaml, or a Procfile \
             with a line `web: ./server --port $PORT`",
        ));
    }
    if problems.has_errors() {
        return Err(problems);
    }
    for warning in problems.0 {
        tracing::warn!(folder = %folder.display(), "{warning}");
    }
    Ok(spec)
}

/// The text of a file in the folder, if it is there, and the file's whole name.
fn text_of(folder: &Path, name: &str, problems: &mut Problems) -> Option<(String, String)> {
    let path = folder.join(name);
    match read_if_there(&path, Links::Refuse) {
        Ok(text) => Some((text?, path.display().to_string())),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

fn located(mut problems: Problems, file: &str, text: &str) -> Problems {
    problems.locate(file, text);
    problems.0.sort_by_key(|p| (p.line, p.column));
    problems
}

/// The command of the `web` process type: the first line `web: COMMAND`.
fn web(text: &str) -> Result<Option<String>, Problem> {
    let lines = (1..).zip(text.lines());
    let web =
        lines.filter_map(|(number, line)| Some((number, line.trim_start().strip_prefix("web:")?.trim())));
    match web.take(1).next() {
        None => Ok(None),
        Some((number, "")) => Err(Problem::error("web", "there is no command after `web:`")
            .hint("write it as in `web: ./server --port $PORT`")
            .at(number, 1)),
        Some((_, command)) => Ok(Some(command.to_owned())),
    }
}
