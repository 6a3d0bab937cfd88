//! `switchman demo --once` is the first thing that anyone tries.

use super::super::support::switchman::PROGRAM;

#[tokio::test]
async fn the_demo_shows_every_step_and_fails_no_request() {
    let output = tokio::process::Command::new(PROGRAM).args(["demo", "--once"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    for step in ["serve", "rsync", "load", "promote", "canary", "rule edit", "bad edit", "rollback", "end"] {
        assert!(
            said.lines().any(|line| line.trim_start().starts_with(step)),
            "no line for `{step}`:\n{said}"
        );
    }
    assert!(said.contains("failures: 0"), "{said}");
}
