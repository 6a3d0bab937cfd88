//! The house rules that a compiler cannot hold: layers, who may use what, words, sizes, paths.
//!
//! It reads the text of the sources; what it knows of Rust is that tests come last in a file, behind
//! `#[cfg(test)]`. Each failure says file, line and what to do. An exception is an entry with its reason in one
//! of the tables below, never a comment in the source.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The layers, from the top (docs/architecture.md draws them). A module is in the row of its longest prefix
/// here, and uses its own row and those below.
const ROWS: [&[&str]; 6] = [
    &["main", "cli", "app", "fuzzing"],
    &["proxy", "admin"],
    // `routing` joins what the registry and `rules::publisher` publish.
    &["deploy::watcher", "supervisor", "promoter", "routing", "journal"],
    &["rules::source", "rules::publisher", "rules::offer", "rules::last_good"],
    &["config", "etcd", "registry", "deploy", "rules"],
    &[
        "certificates",
        "version",
        "metrics",
        "drain",
        "backoff",
        "hint",
        "fs_watch",
        "yaml",
        "telemetry",
        "state_lock",
        "control",
        "handover",
        "systemd",
    ],
];

/// What the rows do not say: the first never uses the others.
const NEVER: [(&str, &[&str]); 7] = [
    ("proxy", &["admin", "supervisor", "deploy", "rules::source"]),
    ("admin", &["proxy"]),
    ("rules", &["registry", "routing", "deploy", "supervisor"]),
    ("deploy", &["rules", "routing", "supervisor"]),
    ("routing", &["rules::source", "deploy", "supervisor"]),
    ("supervisor", &["rules::source", "deploy::watcher"]),
    ("config", &["registry", "rules", "deploy"]),
];

/// What only these modules may use: a pattern, the modules, and what to do instead.
const ONLY: [(&str, &[&str], &str); 6] = [
    (r"\betcd_client\b", &["etcd", "rules::source::etcd"], "go through etcd or rules::source"),
    (r"\bnotify::", &["fs_watch"], "go through fs_watch"),
    (r"\bsuper::super::", &[], "write the path from `crate::`, which the layers are checked by"),
    (
        r"\btokio::process\b|\bCommand::new\(|\bprocess::Command\b",
        &[
            "supervisor::worker",
            "supervisor::launch",
            "supervisor::hooks",
            "supervisor::main_process", // waits for one that `worker` has started
            "cli::demo",                // switchman itself, and rsync: what a person would type
            "handover::heir",           // switchman itself: the next one
        ],
        "only the supervisor starts processes",
    ),
    (
        r"\bSerialize\b",
        &[
            "admin::types",           // what goes outward, all of it
            "version",                // names and states: words that every JSON shows alike
            "hint",                   // a problem is shown as it is
            "rules::last_good",       // kept on disk
            "etcd::once",             // kept in etcd
            "rules::source::history", // kept on disk and in etcd
            "rules::source::file",    // kept on disk
            "supervisor::memory",     // kept on disk
            "handover::channel",      // what one switchman says to the next
            "supervisor::record",     // kept on disk
        ],
        "only admin::types is serialised outward; what is kept on disk is listed in tests/tidy.rs",
    ),
    (
        r"\bsleep\(",
        &[
            "proxy::thread",       // the coarse clock of a data-plane thread
            "proxy::listener",     // pause after accept has failed (no file descriptors)
            "proxy::upstream",     // a unix socket with a full queue tells nobody when it has room
            "rules::source::etcd", // back-off between connections
            "etcd::once",          // back-off, and the beat of a lease
            "rules::source::file", // quiet time after an edit
            "deploy::watcher",     // settle, and the rescan that heals a missed event
            "fs_watch",            // polling where the watch limit is reached
            "state_lock",          // the lock of one that was killed
            "supervisor",          // back-off, grace, interval between two checks
            "admin::server",       // how long a request may still run at shutdown
            "cli",                 // refreshing what is shown
            "app",                 // the sampler's second
        ],
        "await the condition itself; where time is what is waited for, say so in tests/tidy.rs",
    ),
];

/// Words that DESIGN-level language has one name for, as a pattern, and that name.
const WORDS: [(&str, &str); 3] = [
    (r"(?i)\bback-?ends?\b", "upstream, or worker"),
    (r"(?i)\binstances?\b", "worker, version or switchman"),
    (r"(?i)\b(?:a|an|the|new|old|each|every|previous|next|deployed) releases?\b", "version"),
];

/// Lines of a source file.
const LINES_MAX: usize = 500;

/// A source file of `src/`.
struct Source {
    /// From the repository's top, with `/`.
    file: String,
    /// As in `rules::source::etcd`.
    module: String,
    /// Its lines without tests and without comments, so that numbers stay those of the file.
    code: Vec<String>,
    text: String,
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder`, without what is generated or hidden.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let skip = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name == "target" || name == "node_modules" || name == "__pycache__" || name == ".git"
    };
    paths
        .into_iter()
        .filter(|path| !skip(path))
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(top()).unwrap().to_string_lossy().into_owned()
}

fn rust_files(folders: &[&str]) -> Vec<(String, String)> {
    folders
        .iter()
        .flat_map(|folder| files(&top().join(folder)))
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| (name_of(&path), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn sources() -> Vec<Source> {
    rust_files(&["src"])
        .into_iter()
        .filter(|(file, _)| file != "src/lib.rs" && !file.ends_with("/tests.rs") && !file.contains("/tests/"))
        .map(|(file, text)| {
            let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
            Source { module: path.replace('/', "::"), code: code_of(&text), file, text }
        })
        .collect()
}

/// Without comments, and up to the tests.
fn code_of(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_module =
        |line: &&str| line.trim_start_matches("pub(crate) ").starts_with("mod ") && line.ends_with('{');
    let begins_tests = |i: usize| lines[i] == "#[cfg(test)]" && lines.get(i + 1).is_some_and(is_module);
    let end = (0..lines.len()).find(|i| begins_tests(*i)).unwrap_or(lines.len());
    let comment = |line: &str| line.trim_start().starts_with("//");
    lines[..end]
        .iter()
        .map(|line| if comment(line) { "" } else { line.split(" // ").next().unwrap_or("") }.to_owned())
        .collect()
}

fn is_in(module: &str, prefix: &str) -> bool {
    module.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The row of the longest prefix that the table has.
fn row_of(module: &str) -> Option<usize> {
    let entries = ROWS.iter().enumerate().flat_map(|(row, modules)| modules.iter().map(move |m| (row, *m)));
    entries.filter(|(_, m)| is_in(module, m)).max_by_key(|(_, m)| m.len()).map(|(row, _)| row)
}

/// Every path into the crate in `line`s of code, as `(line number, module path)`; groups are taken apart.
fn crate_paths(code: &[String]) -> Vec<(usize, String)> {
    let start = Regex::new(r"\b(?:crate|switchman)::").unwrap();
    let text = code.join("\n");
    let mut found = Vec::new();
    for place in start.find_iter(&text) {
        let line = text[..place.start()].matches('\n').count() + 1;
        for path in expand(&text[place.end()..]) {
            found.push((line, path));
        }
    }
    found
}

/// `a::{b, c::D}` to `a::b` and `a::c::D`; reads to the path's end.
fn expand(text: &str) -> Vec<String> {
    let path_end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (prefix, rest) = text.split_at(path_end);
    if !rest.starts_with('{') {
        return vec![prefix.trim_end_matches(':').to_owned()];
    }
    let (mut depth, mut begin, mut parts) = (0, 1, Vec::new());
    for (at, c) in rest.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if (c == ',' && depth == 1) || depth == 0 {
            parts.push(rest[begin..at].trim());
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.flat_map(expand).map(|path| format!("{prefix}{path}")).collect()
}

/// Fails with all of them at once.
fn hold(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} broken:\n  {}\n", broken.len(), broken.join("\n  "));
}

#[test]
fn a_group_of_paths_is_taken_apart() {
    let code = ["use crate::{a, b::{c, D},".to_owned(), "  e};".to_owned(), "x(crate::f::g());".to_owned()];
    let paths: Vec<String> =
        crate_paths(&code).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    assert_eq!(paths, ["1 a", "1 b::c", "1 b::D", "1 e", "3 f::g"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    let files = rust_files(&["src", "tests", "benches", "fixtures"]);
    let silent = files.iter().filter(|(_, text)| !text.starts_with("//!"));
    hold(silent.map(|(file, _)| format!("{file}:1: begin with `//!`: what this file is for")).collect());
}

#[test]
fn no_file_is_too_long() {
    let long = rust_files(&["src", "tests", "benches", "fixtures"]).into_iter().filter_map(|(file, text)| {
        let lines = text.lines().count();
        (lines > LINES_MAX && !file.starts_with("tests/"))
            .then(|| format!("{file}:{LINES_MAX}: {lines} lines; split it, each part doing one thing"))
    });
    hold(long.collect());
}

#[test]
fn a_module_with_parts_is_a_folder() {
    let broken = files(&top().join("src")).into_iter().filter(|path| path.with_extension("").is_dir());
    hold(
        broken
            .map(|path| format!("{}:1: move it to mod.rs in the folder of its name", name_of(&path)))
            .collect(),
    );
}

#[test]
fn modules_use_what_is_below_them() {
    let mut broken = Vec::new();
    for Source { file, module, code, .. } in sources() {
        let Some(row) = row_of(&module) else {
            broken.push(format!(
                "{file}:1: `{module}` is in no row of ROWS in tests/tidy.rs; put it where it belongs"
            ));
            continue;
        };
        for (line, path) in crate_paths(&code) {
            if row_of(&path).is_some_and(|used| used < row) {
                broken.push(format!(
                    "{file}:{line}: `{module}` uses `{path}`, which is above it; turn it round"
                ));
            }
            let forbidden = NEVER.iter().filter(|(from, _)| is_in(&module, from)).flat_map(|(_, to)| *to);
            for never in forbidden.filter(|never| is_in(&path, never)) {
                broken.push(format!(
                    "{file}:{line}: `{module}` must not use `{never}`; pass it a value or a handle"
                ));
            }
        }
    }
    hold(broken);
}

#[test]
fn the_code_map_names_every_module_and_nothing_that_is_gone() {
    let map = fs::read_to_string(top().join("docs/architecture.md")).unwrap();
    let named =
        |module: &str| [format!("`{module}`"), format!("`{module}::")].iter().any(|n| map.contains(n));
    let mut broken = Vec::new();
    for folder in ["src", "src/proxy"] {
        for entry in fs::read_dir(top().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_module = path.is_dir() || path.extension().is_some_and(|e| e == "rs");
            let module = path.file_stem().unwrap().to_str().unwrap();
            if is_module && !["main", "lib", "mod"].contains(&module) && !named(module) {
                broken.push(format!("docs/architecture.md does not name `{module}` of {folder}"));
            }
        }
    }
    let paths = Regex::new("`((?:src|tests|docs)/[a-z0-9_/.]+)`").unwrap();
    for found in paths.captures_iter(&map).filter(|found| !top().join(&found[1]).exists()) {
        broken.push(format!("docs/architecture.md names {}, which is gone", &found[1]));
    }
    hold(broken);
}

#[test]
fn what_few_may_use_is_used_by_them_only() {
    let mut broken = Vec::new();
    for (pattern, modules, instead) in ONLY {
        let pattern = Regex::new(pattern).unwrap();
        for Source { file, module, code, .. } in sources() {
            if modules.iter().any(|allowed| is_in(&module, allowed)) {
                continue;
            }
            for (number, line) in code.iter().enumerate().filter(|(_, line)| pattern.is_match(line)) {
                broken.push(format!("{file}:{}: `{}`: {instead}", number + 1, line.trim()));
            }
        }
    }
    hold(broken);
}

#[test]
fn nothing_from_outside_can_make_it_panic() {
    let panics = Regex::new(r"\.unwrap\(\)|\.expect\(|\b(?:panic|unreachable|todo|unimplemented)!").unwrap();
    let mut broken = Vec::new();
    for Source { file, code, .. } in sources() {
        // clippy finds these too; it is switched off, with a reason, where the value is a constant.
        let excepted = code.iter().any(|line| line.contains("clippy::expect_used, reason"));
        for (number, line) in code.iter().enumerate().filter(|(_, line)| panics.is_match(line)) {
            if !(excepted && line.contains(".expect(")) {
                broken.push(format!("{file}:{}: `{}`: return an error instead", number + 1, line.trim()));
            }
        }
    }
    hold(broken);
}

#[test]
fn every_lint_that_is_switched_off_has_its_reason() {
    let allow = Regex::new(r"(?s)#!?\[(?:allow|expect)\((.*?)\]").unwrap();
    let mut broken = Vec::new();
    for (file, text) in rust_files(&["src", "tests", "benches", "fixtures"]) {
        for found in allow.captures_iter(&text).filter(|found| !found[1].contains("reason = \"")) {
            let line = text[..found.get(0).unwrap().start()].matches('\n').count() + 1;
            broken.push(format!("{file}:{line}: add `reason = \"...\"`"));
        }
    }
    hold(broken);
}

#[test]
fn no_test_is_switched_off() {
    let ignored = concat!("#[", "ignore");
    let mut broken = Vec::new();
    for (file, text) in rust_files(&["src", "tests"]) {
        for (number, _) in text.lines().enumerate().filter(|(_, line)| line.trim().starts_with(ignored)) {
            broken.push(format!(
                "{file}:{}: a test that does not run proves nothing; mend or delete it",
                number + 1
            ));
        }
    }
    hold(broken);
}

#[test]
fn one_word_for_one_thing() {
    let mut broken = Vec::new();
    let mut texts: Vec<(String, String)> = sources().into_iter().map(|s| (s.file, s.text)).collect();
    for path in files(&top().join("docs"))
        .into_iter()
        .chain(files(&top().join("rules")))
        .chain([top().join("README.md")])
    {
        texts.extend(fs::read_to_string(&path).ok().map(|text| (name_of(&path), text)));
    }
    let idiom = Regex::new(r"(?i)\bfor instance\b").unwrap();
    for (word, name) in WORDS {
        let word = Regex::new(word).unwrap();
        for (file, text) in &texts {
            for (number, line) in text.lines().enumerate() {
                if let Some(found) = word.find(&idiom.replace_all(line, "")) {
                    broken.push(format!("{file}:{}: say {name}, not `{}`", number + 1, found.as_str()));
                }
            }
        }
    }
    hold(broken);
}

#[test]
fn no_path_of_somebodys_machine() {
    let paths = Regex::new(concat!(r"(?:^|[^\w.~-])/(?:ro", r"ot|wo", r"rk|home/\w+|Users/\w+)/")).unwrap();
    let mut broken = Vec::new();
    for path in files(top()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| paths.is_match(line)) {
            broken.push(format!(
                "{}:{}: `{}`: a path that others do not have",
                name_of(&path),
                number + 1,
                line.trim()
            ));
        }
    }
    hold(broken);
}

#[test]
fn every_example_and_fixture_is_used() {
    let users = ["src", "tests", "benches", "docs"].iter().flat_map(|folder| files(&top().join(folder)));
    let users = users.chain(["README.md", "Cargo.toml", "Makefile"].map(|file| top().join(file)));
    let text: String = users.filter_map(|path| fs::read_to_string(path).ok()).collect();
    let fixtures = files(&top().join("fixtures")).into_iter().filter_map(|path| {
        let mut parts = path.strip_prefix(top()).unwrap().components();
        let (_, first) = (parts.next(), parts.next()?);
        Some(first.as_os_str().to_string_lossy().into_owned())
    });
    let fixtures = fixtures.map(|name| format!("fixtures/{name}"));
    // The examples are loaded by a test that reads the whole folder.
    let all_rules = text.contains("join(\"rules\")");
    let rules = files(&top().join("rules")).into_iter().map(|path| name_of(&path)).filter(|_| !all_rules);
    let unused = fixtures
        .chain(rules)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|name| !text.contains(name.as_str()));
    hold(
        unused.map(|name| format!("{name}: no test and no document names it; use it or delete it")).collect(),
    );
}
