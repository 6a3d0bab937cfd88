//! The README's commands, as they stand there: the blocks that begin with `# tested`, in one shell.

use std::path::Path;
use std::process::Stdio;

use super::super::support::switchman::PROGRAM;

/// The ports that the README's commands use.
const PORTS: [u16; 2] = [7000, 7001];

#[tokio::test]
async fn the_commands_of_the_readme_work_as_they_stand() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(repository.join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```")
        .filter_map(|block| block.strip_prefix("sh\n"))
        .filter(|block| block.starts_with("# tested\n"))
        .collect();
    assert!(blocks.len() >= 6, "the README's blocks are marked `# tested`: {}", blocks.len());
    for port in PORTS {
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|e| {
            panic!("the README's port {port} is taken ({e}): ss -ltnp 'sport = :{port}'")
        });
    }

    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository.join("fixtures"), folder.path().join("fixtures")).unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    // A command that hangs is a failure of the documentation, not of the test.
    let script = format!("set -euo pipefail\n{}", blocks.join("\n"));
    let output = tokio::process::Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    for seen in ["version=4f2a91c", "version=b001bee", "x-switchman-version"] {
        assert!(said.contains(seen), "`{seen}` was not seen:\n{said}\n{errors}");
    }
}
