//! `scripts/install-deps`: silent where nothing is missing, and plain about what is where it cannot install.

use std::path::Path;
use std::process::{Command, Output};

/// Runs it with only `path` as PATH. Without an `apt-get` in it nothing is ever installed.
fn install_deps(set: &str, path: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-deps");
    Command::new("/bin/bash").arg(script).arg(set).env("PATH", path).output().unwrap()
}

#[test]
fn what_cannot_be_installed_is_named_with_the_command_to_type() {
    let empty = tempfile::tempdir().unwrap();
    let output = install_deps("test", empty.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for package in ["protobuf-compiler", "etcd-server", "rsync", "nodejs", "python3", "curl", "procps"] {
        assert!(said.contains(package), "{package} is not named: {said}");
    }
    assert!(said.contains("hint: apt-get install --no-install-recommends protobuf-compiler"), "{said}");
    assert!(!said.contains("wrk"), "that is for benchmarks only: {said}");
}

#[test]
fn a_program_that_is_there_is_not_asked_for() {
    let some = tempfile::tempdir().unwrap();
    for program in ["protoc", "etcd", "rsync", "node"] {
        std::os::unix::fs::symlink("/bin/true", some.path().join(program)).unwrap();
    }
    let output = install_deps("test", some.path());
    let said = String::from_utf8_lossy(&output.stderr);
    let missing: Vec<&str> = said.lines().next().unwrap().split(": ").last().unwrap().split(' ').collect();
    for (package, is_missing) in [
        ("protobuf-compiler", false),
        ("etcd-server", false),
        ("rsync", false),
        ("nodejs", false),
        ("python3", true),
        ("curl", true),
        ("procps", true),
    ] {
        assert_eq!(missing.contains(&package), is_missing, "{package}: {said}");
    }
}

#[test]
fn an_unknown_set_is_wrong_usage() {
    let output = install_deps("everything", Path::new("/usr/bin"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("build|test|bench"));
}
