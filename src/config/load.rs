//! From a file to a [`Config`]: finding it, reading it, and what the machine adds.

use std::path::{Path, PathBuf};

use super::Config;
use super::read::{self, Surroundings};
use super::text::{self, Links};
use crate::hint::{Problem, Problems};
use crate::yaml;

/// Where a configuration is looked for when nobody names one.
const PLACES: [&str; 2] = ["switchman.yaml", "/etc/switchman/switchman.yaml"];

/// The configuration file: the one that was named, else `./switchman.yaml`, else
/// `/etc/switchman/switchman.yaml`.
///
/// # Errors
/// None of them is there.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, Problems> {
    match explicit {
        Some(path) => first_of(&[path]),
        None => first_of(&PLACES.map(Path::new)),
    }
}

fn first_of(places: &[&Path]) -> Result<PathBuf, Problems> {
    if let Some(found) = places.iter().find(|place| place.exists()) {
        return Ok(found.to_path_buf());
    }
    let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    let message = format!("there is no configuration file at {}", places.join(" or "));
    let hint = "name one: switchman serve --config FILE; or go without: \
                switchman serve --root /srv/app --run 'node server.js --port $PORT'";
    Err(Problem::error("", message).hint(hint).into())
}

/// Reads a configuration file, with all defaults filled in and all paths absolute, and its warnings.
///
/// # Errors
/// Every problem of the file, warnings included, in the order of their lines.
pub fn load(path: &Path) -> Result<(Config, Problems), Problems> {
    let text = text::read(path, Links::Follow).map_err(|problem| *problem)?;
    let file = std::path::absolute(path)
        .map_err(|error| Problem::error("", format!("{} leads nowhere: {error}", path.display())))?;
    let around = Surroundings::here(file.parent().unwrap_or(&file).to_path_buf());
    let (config, problems) = read_text(&text, &path.display().to_string(), &around);
    match config {
        Some(config) => Ok((Config { file: Some(file), text: text.into(), ..config }, problems)),
        None => Err(problems),
    }
}

/// Reads a configuration's text; there is one only where no problem is an error. `file` is its name in problems.
pub(super) fn read_text(text: &str, file: &str, around: &Surroundings) -> (Option<Config>, Problems) {
    let (node, mut problems) = yaml::parse_all(text);
    let mut config = None;
    if let Some(node) = node {
        let (read, more) = read::config(&node, around);
        config = read.filter(|_| !problems.has_errors());
        problems.0.extend(more.0);
    }
    problems.locate(file, text);
    problems.0.sort_by_key(|p| (p.line, p.column));
    (config, problems)
}

/// Where the state is kept if nobody says; none where there is no home folder either.
pub fn default_state() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/switchman"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("switchman"))
}

impl Surroundings {
    /// What this machine, user and environment say.
    pub(super) fn here(folder: PathBuf) -> Self {
        Self {
            folder,
            state: default_state(),
            node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_with_a_file_wins_and_none_says_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let (there, nowhere) = (folder.path().join("there"), folder.path().join("nowhere"));
        std::fs::write(&there, "").unwrap();
        assert_eq!(first_of(&[&nowhere, &there]).as_ref(), Ok(&there));
        assert_eq!(find(Some(&there)).as_ref(), Ok(&there));
        let problem = find(Some(&nowhere)).unwrap_err().0.remove(0);
        assert_eq!(problem.message, format!("there is no configuration file at {}", nowhere.display()));
        assert!(problem.hint.unwrap().contains("--config FILE"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_one_problem() {
        let problems = load(Path::new("/proc/self")).unwrap_err();
        assert!(problems.to_string().starts_with("error: /proc/self: the file cannot be read"), "{problems}");
    }
}
