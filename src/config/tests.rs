//! Tests of the whole way from text to a `Config`: tables, the files under `fixtures/configs`, any text at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::load::read_text;
use super::read::Surroundings;
use super::*;
use crate::hint::{Problems, Severity};

/// A machine that is the same everywhere.
pub(super) fn around() -> Surroundings {
    Surroundings {
        folder: PathBuf::from("/etc/switchman"),
        state: Some(PathBuf::from("/var/lib/switchman")),
        node: "this-host".to_owned(),
        threads: 4,
        is_root: true,
    }
}

fn read(text: &str) -> (Option<Config>, Problems) {
    read_text(text, "switchman.yaml", &around())
}

fn good(text: &str) -> Config {
    let (config, problems) = read(text);
    assert!(problems.is_empty(), "{problems}");
    config.unwrap()
}

/// A service `app` with more lines under it.
fn app(lines: &str) -> String {
    format!("services:\n  app:\n    root: /srv/app\n    {lines}\n")
}

fn app_of(lines: &str) -> Service {
    good(&app(lines)).services["app"].clone()
}

/// The fixtures of one kind, in the order of their names.
fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/configs").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(files.len() > 3, "the fixtures are there");
    files
}

#[test]
fn defaults_are_filled_in() {
    let config = good("services: {app: {root: app}}");
    assert_eq!(config.listen, ["127.0.0.1:7000".parse().unwrap()]);
    assert_eq!(config.admin.listen, "127.0.0.1:7001".parse().ok());
    assert_eq!(config.admin.socket, Path::new("/var/lib/switchman/admin.sock"));
    assert_eq!((config.node.as_str(), config.threads), ("this-host", 4));
    assert_eq!(config.drain, Duration::from_secs(30));
    let app = &config.services["app"];
    assert_eq!(app.root, Path::new("/etc/switchman/app"), "relative to the file");
    assert_eq!(app.rules, RulesAt::File("/var/lib/switchman/app/rules.yaml".into()));
    assert_eq!(app.versions.as_str(), "^[0-9a-f]{7,64}$");
    assert_eq!((app.settle, app.promote), (Duration::from_secs(1), Promote::Manual));
    assert_eq!(app.run, RunSpec::default());
    assert!(app.hosts.is_empty() && config.etcd.is_none());
}

#[test]
fn addresses_may_be_one_or_many_and_admin_may_be_off() {
    let config = good("listen: ':80'\nadmin: {listen: off}\nstate: s/\nservices: {app: {root: /a}}");
    assert_eq!(config.listen, ["0.0.0.0:80".parse().unwrap()]);
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.admin.socket, Path::new("/etc/switchman/s/admin.sock"));
    let config = good("listen: [localhost:0, '[::1]:0']\nservices: {app: {root: /a}}");
    assert_eq!(config.listen, ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()]);
}

#[test]
fn a_command_is_text_for_the_shell_or_a_list() {
    assert_eq!(app_of("run: ./app -p $PORT").run.run, Some(RunCommand::Shell("./app -p $PORT".into())));
    let list = ["./app", "007", "a b"].map(str::to_owned).into();
    assert_eq!(app_of("run: [./app, 007, 'a b']").run.run, Some(RunCommand::Exec(list)));
}

#[test]
fn text_stays_as_it_is_written() {
    let env = app_of("env: {A: 0123, B: 1e7, C: true, D: '', E: 12345e7, F: 'null'}").run.env;
    let values: Vec<_> = env.values().map(String::as_str).collect();
    assert_eq!(values, ["0123", "1e7", "true", "", "12345e7", "null"]);
}

#[test]
fn readiness() {
    let ready = |text: &str| app_of(&format!("ready: {text}")).run.ready;
    assert_eq!(ready("{http: /up}").check, ReadyCheck::Http("/up".into()));
    assert_eq!(ready("{tcp: true}").check, ReadyCheck::Tcp);
    assert_eq!(ready("{log: up}").check, ReadyCheck::Log(Pattern::parse("up").unwrap()));
    assert_eq!(ready("{after: 5s}").check, ReadyCheck::After(Duration::from_secs(5)));
    let times = ready("{interval: 1s, timeout: 2s, deadline: 1m30s}");
    assert_eq!(
        (times.interval, times.timeout, times.deadline),
        (Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(90))
    );
}

#[test]
fn rules_lie_in_a_file_or_in_etcd() {
    let etcd = "etcd: {endpoints: http://127.0.0.1:2379, prefix: /fleet/}\n";
    let at = |text: &str| good(text).services["app"].rules.clone();
    assert_eq!(at(&app("rules: r/app.yaml")), RulesAt::File("/etc/switchman/r/app.yaml".into()));
    assert_eq!(at(&(etcd.to_owned() + &app(""))), RulesAt::Etcd("/fleet/app/rules".into()));
    assert_eq!(at(&(etcd.to_owned() + &app("rules: {etcd: /x}"))), RulesAt::Etcd("/x".into()));
    assert_eq!(
        at(&(etcd.to_owned() + &app("rules: app.yaml"))),
        RulesAt::File("/etc/switchman/app.yaml".into())
    );
}

#[test]
fn one_wrong_value_is_one_problem_with_what_to_write() {
    for (text, key, message, hint) in [
        ("admin: off\n", "admin", "`off` is not a map", "listen, socket"),
        ("admin: {listen: no}\n", "admin.listen", "`no` is not an address", "127.0.0.1:7000"),
        ("drain: 5\n", "drain", "`5` has no unit", "`5s`"),
        ("threads: 0\n", "threads", "0 is not from 1 to 1024", "from 1"),
        ("threads: 1.5\n", "threads", "`1.5` is not a whole number", "from 1"),
        ("listen: []\n", "listen", "the list is empty", "127.0.0.1:7000"),
        ("listen: [a, ':2']\n", "listen[0]", "`a` is not an address", "port"),
        ("listen: [':1', '127.0.0.1:1']\n", "listen", "127.0.0.1:1 overlaps with 0.0.0.0:1", "keep one"),
        ("listen: ':7001'\n", "admin.listen", "overlaps with the public address 0.0.0.0:7001", "of its own"),
        ("etcd: {}\n", "etcd", "the key `endpoints` is missing", "http://127.0.0.1:2379"),
        ("etcd: {endpoints: [http://a], prefix: /}\n", "etcd.prefix", "nothing to begin a key", "/switchman"),
        ("etcd: {endpoints: [http://a], user: u}\n", "etcd", "`password_file` is missing", "password_file:"),
        (
            "etcd: {endpoints: [http://a], user: u, password_file: nowhere}\n",
            "etcd.password_file",
            "/etc/switchman/nowhere: the file cannot be read: it is not there",
            "look at the path",
        ),
        ("state: ~/state\n", "state", "neither `~` nor variables are expanded", "whole path"),
        ("node: a/b\n", "node", "`a/b` cannot be a name", "letters"),
    ] {
        let text = format!("{text}services: {{app: {{root: /srv/app}}}}\n");
        let (config, problems) = read(&text);
        let found = &problems.0[0];
        assert!(config.is_none(), "{text}");
        assert_eq!(found.key, key, "{problems}");
        assert!(found.message.contains(message), "{problems}");
        assert!(found.hint.as_deref().unwrap_or_default().contains(hint), "{problems}");
        assert!(found.line == Some(1), "{problems}");
    }
}

#[test]
fn one_wrong_value_of_a_service_is_one_problem() {
    for (lines, key, message) in [
        ("workers: 1001", "workers", "1001 is not from 1 to 1000"),
        ("workers: -1", "workers", "`-1` is not a whole number"),
        ("hosts: []", "hosts", "the service would answer nobody"),
        ("hosts: [a, A]", "hosts[1]", "`A` stands twice"),
        ("promote: autp", "promote", "`autp` is none of manual, auto"),
        ("run: ''", "run", "the command is empty"),
        ("run: []", "run", "the command is empty"),
        ("run: [[a]]", "run[0]", "a list is not text"),
        ("run: {a: b}", "run", "a map is not text"),
        ("env: [A=1]", "env", "a list is not a map"),
        ("env: {A: {b: c}}", "env.A", "a map is not text"),
        ("env: {A: }", "env.A", "nothing is not text"),
        ("ready: /healthz", "ready", "`/healthz` is not a map"),
        ("ready: {http: /a, after: 1s}", "ready.after", "`http` and `after` cannot both be the check"),
        ("ready: {tcp: false}", "ready.tcp", "says nothing"),
        ("ready: {tcp: yes}", "ready.tcp", "`yes` is neither true nor false"),
        ("ready: {log: '['}", "ready.log", "not a regular expression"),
        ("ready: {log: x, tcp: true}", "ready.log", "`tcp` and `log` cannot both be the check"),
        ("ready: {notify: false}", "ready.notify", "`notify: false` says nothing"),
        ("ready: {command: ''}", "ready.command", "the command is empty"),
        ("user: no-such-user", "user", "there is no user `no-such-user`"),
        ("ready: {after: 1m}", "ready.after", "ready after 1m, but given up at the deadline of 1m"),
        ("ready: {interval: 0s}", "ready.interval", "`0s` is out of range"),
        ("stop: {grace: 5}", "stop.grace", "`5` has no unit"),
        ("stop: {gracee: 5s}", "stop.gracee", "the key `gracee` is not known"),
        ("rules: {etcd: /x}", "rules", "no etcd is configured"),
        ("rules: {}", "rules", "no etcd is configured"),
        ("versions: '['", "versions", "`[` is not a regular expression: unclosed character class"),
        ("bogus: 1", "bogus", "the key `bogus` is not known"),
    ] {
        let (config, problems) = read(&app(lines));
        assert!(config.is_none(), "{lines}");
        assert_eq!(problems.0[0].key, format!("services.app.{key}"), "{problems}");
        assert!(problems.0[0].message.contains(message), "{problems}");
        assert!(problems.0[0].hint.is_some(), "{problems}");
        assert_eq!(problems.0[0].line, Some(4), "{problems}");
    }
}

#[test]
fn what_is_likely_not_meant_is_a_warning_and_loads() {
    for (text, key, message) in [
        (app("versions: '[0-9]{7}'"), "services.app.versions", "matches any name"),
        (app("run: [app, --port, $PORT]"), "services.app.run[2]", "without a shell"),
        (app("env: {PORT: 80}"), "services.app.env.PORT", "is not used"),
        (
            "services: {a: {root: /a}, b: {root: /b}}".into(),
            "services.b",
            "`a` and `b` answer every host: `a` gets",
        ),
    ] {
        let (config, problems) = read(&text);
        assert!(config.is_some(), "{problems}");
        assert_eq!((problems.0.len(), problems.0[0].severity), (1, Severity::Warning), "{problems}");
        assert_eq!(problems.0[0].key, key);
        assert!(problems.0[0].message.contains(message), "{problems}");
    }
}

#[test]
fn the_socket_path_must_fit() {
    let (_, problems) = read(&format!("state: /{}\nservices: {{app: {{root: /a}}}}", "x".repeat(107)));
    assert!(problems.to_string().contains("admin.socket: the path /xxx"), "{problems}");
    assert_eq!(problems.0[0].line, Some(1));
}

#[test]
fn without_a_home_the_state_folder_must_be_named() {
    let around = Surroundings { state: None, ..around() };
    let (_, problems) = read_text("services: {app: {root: /a}}", "f", &around);
    assert!(problems.to_string().contains("state: there is no home folder"), "{problems}");
    assert!(read_text("state: s\nservices: {app: {root: /a}}", "f", &around).0.is_some());
}

#[test]
fn valid_fixtures_load() {
    for path in fixtures("valid") {
        let (config, warnings) = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(warnings.is_empty(), "{warnings}");
        assert_eq!(config.file.as_deref(), Some(&*path));
    }
}

#[test]
fn invalid_fixtures_say_what_is_wrong() {
    let bless = std::env::var_os("SWITCHMAN_BLESS").is_some();
    for path in fixtures("invalid") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (config, problems) = read_text(&text, &name, &around());
        assert!(config.is_none(), "{name} is invalid");
        let expected = path.with_extension("txt");
        if bless {
            std::fs::write(&expected, format!("{problems}\n")).unwrap();
        }
        assert_eq!(
            format!("{problems}\n"),
            std::fs::read_to_string(&expected).unwrap_or_default(),
            "{name}: if that is meant, run: SWITCHMAN_BLESS=1 cargo test --lib config::tests::invalid"
        );
    }
}

#[test]
fn a_password_is_read_and_never_shown() {
    let full = fixtures("valid").into_iter().find(|p| p.ends_with("full.yaml")).unwrap();
    let (config, _) = load(&full).unwrap();
    assert_eq!(config.etcd.as_ref().unwrap().user.as_ref().unwrap().1.0, "not-a-real-password");
    assert!(!format!("{config:?}").contains("not-a-real-password"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        read(&text);
    }

    /// Lines that are nearly right reach deeper than arbitrary text does.
    #[test]
    fn any_values_are_read_or_refused(
        values in prop::collection::vec((0..40_usize, "[-\\[\\]{}:~a-z0-9.\"'/ $é\\\\]{0,12}"), 1..6)
    ) {
        let keys: Vec<_> = keys::ALL.iter().flat_map(|s| s.keys.iter().map(|k| k.name)).collect();
        let lines: String =
            values.iter().map(|(i, value)| format!("{}: {value}\n", keys[i % keys.len()])).collect();
        let indented = lines.replace('\n', "\n    ");
        read(&format!("{lines}services:\n  app:\n    {indented}\n    ready:\n    "));
        read(&lines);
    }
}

#[test]
fn what_is_done_to_bodies() {
    let of = app_of("").delivery;
    assert_eq!((of.buffer, of.buffer_requests, &of.compress, &of.errors), (256 * 1024, 0, &None, &None));
    let of = app_of("buffer: 0\n    buffer_requests: 1MiB\n    compress: on").delivery;
    assert_eq!((of.buffer, of.buffer_requests), (0, 1024 * 1024));
    assert_eq!(of.compress, Some(Compress::default()));
    assert_eq!(app_of("compress: off").delivery.compress, None);
    let compress =
        app_of("compress: {codings: [gzip, br], types: TEXT/Html, min: 0}").delivery.compress.clone();
    let codings = vec![Coding::Gzip, Coding::Brotli];
    assert_eq!(compress, Some(Compress { codings, types: vec!["text/html".to_owned()], min: 0 }));
    for (lines, part) in [
        ("buffer: 1MB", "the unit `MB` is not known"),
        ("buffer: 2GiB", "out of range"),
        ("compress: maybe", "`maybe` is neither on nor off"),
        ("compress: {codings: [gz]}", "`gz` is none of zstd, br, gzip"),
        ("compress: {codings: []}", "the list is empty"),
        ("compress: {codings: [br, br]}", "stands twice"),
        ("compress: {types: html}", "`html` is not a content type"),
        ("compress: {level: 9}", "the key `level` is not known"),
        ("errors: nowhere", "/etc/switchman/nowhere is not a folder"),
    ] {
        let (config, problems) = read(&app(lines));
        assert!(config.is_none() && problems.to_string().contains(part), "{lines}: {problems}");
    }
}

/// Every block of YAML in the pages for people is a configuration, or the part of one that is talked about: no key of
/// it is unknown, no value wrong. What it leaves out, and files of another machine, are its own affair.
#[test]
fn what_the_documentation_writes_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (page, least) in [("README.md", 1), ("docs/operations.md", 6)] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        let blocks: Vec<&str> = text.split("```").filter_map(|block| block.strip_prefix("yaml\n")).collect();
        assert!(blocks.len() >= least, "{page}: {} blocks", blocks.len());
        for block in blocks {
            let mut problems = read(block).1;
            problems.0.retain(|problem| {
                let elsewhere = ["is missing", "No such file", "is not a folder"];
                !elsewhere.iter().any(|part| problem.message.contains(part))
            });
            assert!(problems.is_empty(), "{page}:\n{block}\n{problems}");
        }
    }
}
