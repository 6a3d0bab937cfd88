//! What a version folder says about how it runs: its own `switchman.yaml`, or a `Procfile` with a `web:` line.
//!
//! A folder is somebody's upload: files in it are read with a limit, links are not followed, and a key that is
//! not about running (`root`, `listen`) is refused.

use std::path::Path;

use super::keys::{RUN, names};
use super::run::run_spec;
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
            Some((line, "")) => {
                let problem = Problem::error("web", "there is no command after `web:`").at(line, 1);
                let problem = problem.hint("write it as in `web: ./server --port $PORT`");
                problems.0.extend(located(problem.into(), &file, &text).0);
            }
            Some((_, command)) => spec.run = Some(RunCommand::Shell(command.to_owned())),
            None => {}
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
            problems.push(*problem);
            None
        }
    }
}

fn located(mut problems: Problems, file: &str, text: &str) -> Problems {
    problems.locate(file, text);
    problems.0.sort_by_key(|p| (p.line, p.column));
    problems
}

/// The command of the `web` process type, from the first line `web: COMMAND`, and the line's number.
fn web(text: &str) -> Option<(usize, &str)> {
    (1..).zip(text.lines()).find_map(|(number, line)| Some((number, line.strip_prefix("web:")?.trim())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::config::ReadyCheck;

    /// Reads a folder with these files, for a service that says most things.
    fn check(files: &[(&str, &str)]) -> Result<RunSpec, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let name = folder.path().display().to_string();
        read(folder.path(), &service()).map_err(|problems| problems.to_string().replace(&name, "FOLDER"))
    }

    fn service() -> RunSpec {
        let mut spec = RunSpec { run: shell("service"), workers: 3, ..RunSpec::default() };
        spec.env = env(&[("A", "service"), ("B", "service")]);
        spec.ready.check = ReadyCheck::Http("/service".into());
        spec.ready.timeout = Duration::from_secs(9);
        spec
    }

    fn shell(text: &str) -> Option<RunCommand> {
        Some(RunCommand::Shell(text.to_owned()))
    }

    fn env(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_folder_that_says_nothing_runs_as_the_service_says() {
        assert_eq!(check(&[]), Ok(service()));
        assert_eq!(check(&[(FILE, "")]), Ok(service()));
        assert_eq!(check(&[(PROCFILE, "worker: x\n# web is elsewhere\n")]), Ok(service()));
    }

    #[test]
    fn the_folder_wins_key_by_key() {
        let text = "workers: 5\nenv: {B: folder, C: 01}\nready: {deadline: 2m}\nstop: {grace: 0s}";
        let spec = check(&[(FILE, text)]).unwrap();
        assert_eq!((spec.run, spec.workers), (shell("service"), 5));
        assert_eq!(spec.env, env(&[("A", "service"), ("B", "folder"), ("C", "01")]));
        assert_eq!(spec.ready.check, ReadyCheck::Http("/service".into()));
        assert_eq!(spec.ready.timeout, Duration::from_secs(9));
        assert_eq!(spec.ready.deadline, Duration::from_secs(120));
        assert_eq!((spec.stop.grace, spec.stop.drain), (Duration::ZERO, Duration::from_secs(30)));
    }

    #[test]
    fn the_command_is_the_folders_file_then_its_procfile_then_the_services() {
        let procfile = (PROCFILE, "worker: x\nweb:  ./web -p $PORT \nweb: second\n");
        let run = |files: &[_]| check(files).unwrap().run;
        assert_eq!(run(&[procfile]), shell("./web -p $PORT"));
        assert_eq!(run(&[procfile, (FILE, "workers: 2")]), shell("./web -p $PORT"));
        assert_eq!(run(&[procfile, (FILE, "run: ./own")]), shell("./own"));
    }

    #[test]
    fn a_warning_does_not_stand_in_the_way() {
        assert_eq!(check(&[(FILE, "env: {PORT: 80}")]).unwrap().env["PORT"], "80");
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let problems = check(&[(FILE, "root: /\nworkers: no"), (PROCFILE, "web:")]).unwrap_err();
        for part in [
            "FOLDER/switchman.yaml:1:1: root: the key `root` is not known",
            "FOLDER/switchman.yaml:2:10: workers: `no` is not a whole number",
            "FOLDER/Procfile:1:1: web: there is no command after `web:`",
        ] {
            assert!(problems.contains(part), "{problems}");
        }
    }

    #[test]
    fn a_command_must_stand_somewhere() {
        let folder = tempfile::tempdir().unwrap();
        let problems = read(folder.path(), &RunSpec::default()).unwrap_err().to_string();
        assert!(problems.contains("nothing says how to run the version in /"), "{problems}");
        assert!(problems.contains("hint: add `run:"), "{problems}");
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join(FILE)).unwrap();
        let problems = read(folder.path(), &service()).unwrap_err().to_string();
        assert!(problems.contains("symbolic link") && !problems.contains("root:"), "{problems}");
    }
}
