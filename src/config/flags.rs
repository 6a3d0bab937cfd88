//! A run without a file: the flags are read as though they stood in one, so that they mean the same.

use std::path::Path;

use super::Config;
use super::read::{self, Surroundings};
use crate::hint::{Problem, Problems};
use crate::yaml::{Entry, Node, Place, Scalar, Value};

/// The name of the only service of a run without a file.
const SERVICE: &str = "app";

/// Which flag says what stands under a key of a file.
const FLAGS: [(&str, &str); 7] = [
    ("services.app.root", "--root"),
    ("services.app.run", "--run"),
    ("services.app.rules", "--rules"),
    ("listen", "--listen"),
    ("admin.listen", "--admin-listen"),
    ("admin.socket", "--state"),
    ("state", "--state"),
];

impl Config {
    /// The configuration of a run without a file: one service, `app`. Relative paths begin at the current
    /// folder; `admin` is an address or `off`; what is left out has the default that it has in a file.
    ///
    /// # Errors
    /// Every flag that cannot be used, under the flag's name. (No flag can give rise to a warning.)
    pub fn from_flags(
        root: &Path,
        run: Option<&str>,
        listen: Option<&str>,
        admin: Option<&str>,
        state: Option<&Path>,
        rules: Option<&Path>,
    ) -> Result<Self, Problems> {
        let folder = std::env::current_dir()
            .map_err(|error| Problem::error("", format!("the current folder cannot be told: {error}")))?;
        from_flags(Surroundings::here(folder), [Some(root), state, rules], [run, listen, admin])
    }
}

fn from_flags(
    around: Surroundings,
    [root, state, rules]: [Option<&Path>; 3],
    [run, listen, admin]: [Option<&str>; 3],
) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let service = map([
        ("root", utf8("--root", root, &mut problems)),
        ("run", run),
        ("rules", utf8("--rules", rules, &mut problems)),
    ]);
    let mut document = map([("listen", listen), ("state", utf8("--state", state, &mut problems))]);
    for (key, value) in [("admin", map([("listen", admin)])), ("services", nest(SERVICE, service))] {
        document.push(entry(key, Value::Map(value)));
    }
    let (config, read) = read::config(&node(Value::Map(document)), &around);
    problems.0.extend(read.0);
    for problem in &mut problems.0 {
        (problem.line, problem.column) = (None, None);
        if let Some((_, flag)) = FLAGS.iter().find(|(key, _)| *key == problem.key) {
            (*flag).clone_into(&mut problem.key);
        }
    }
    config.filter(|_| !problems.has_errors()).ok_or(problems)
}

fn utf8<'a>(flag: &str, path: Option<&'a Path>, problems: &mut Problems) -> Option<&'a str> {
    let text = path?.to_str();
    if text.is_none() {
        problems.push(Problem::error(flag, "the path is not UTF-8 text").hint("rename the folder"));
    }
    text
}

fn map<const N: usize>(values: [(&str, Option<&str>); N]) -> Vec<Entry> {
    let scalar = |text: &str| Value::Scalar(Scalar { text: text.to_owned(), plain: false });
    values.into_iter().filter_map(|(key, text)| Some(entry(key, scalar(text?)))).collect()
}

fn nest(key: &str, entries: Vec<Entry>) -> Vec<Entry> {
    vec![entry(key, Value::Map(entries))]
}

fn entry(key: &str, value: Value) -> Entry {
    Entry { key: key.to_owned(), place: Place::default(), value: node(value) }
}

fn node(value: Value) -> Node {
    Node { place: Place::default(), value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::around;
    use crate::config::{RulesAt, RunCommand};

    #[test]
    fn flags_mean_what_they_mean_in_a_file() {
        let paths = ["app", "/state", "rules.yaml"].map(|p| Some(Path::new(p)));
        let config = from_flags(around(), paths, [Some("./app"), Some("localhost:80"), Some("off")]).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!((config.admin.listen, config.state.to_str()), (None, Some("/state")));
        assert_eq!(config.admin.socket, Path::new("/state/admin.sock"));
        let app = &config.services["app"];
        assert_eq!(app.root, Path::new("/etc/switchman/app"));
        assert_eq!(app.run.run, Some(RunCommand::Shell("./app".into())));
        assert_eq!(app.rules, RulesAt::File("/etc/switchman/rules.yaml".into()));
    }

    #[test]
    fn only_the_root_is_needed() {
        let config = Config::from_flags(Path::new("/srv/app"), None, None, None, None, None).unwrap();
        assert_eq!(config.services["app"].root, Path::new("/srv/app"));
        assert_eq!(config.listen, ["127.0.0.1:7000".parse().unwrap()]);
    }

    #[test]
    fn problems_name_the_flag() {
        let long = "/".to_owned() + &"x".repeat(200);
        let paths = [Some(Path::new("~/app")), Some(Path::new(&long)), None];
        let problems = from_flags(around(), paths, [Some(""), Some("7000"), Some("x")]).unwrap_err();
        let mut keys: Vec<_> = problems.0.iter().map(|p| p.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["--admin-listen", "--listen", "--root", "--run", "--state"]);
        let text = problems.to_string();
        assert!(text.contains("error: --listen: `7000` is a port without an address\n  hint:"), "{text}");
    }
}
