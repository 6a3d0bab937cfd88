//! Applications as people have them: Node.js, Python (both with the standard library), and the Rust worker.

use std::path::Path;

use super::super::support::http::get;
use super::super::support::switchman::{Setup, Switchman};

#[tokio::test]
async fn node_python_and_rust_run_as_versions_of_one_service() {
    let switchman = Switchman::start(Setup::default()).await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    switchman.rsync(&fixtures.join("node-app"), "aaaaaa1").await;
    switchman.rsync(&fixtures.join("python-app"), "bbbbbb2").await;
    switchman.deploy("cccccc3").await;
    for version in ["aaaaaa1", "bbbbbb2", "cccccc3"] {
        switchman.wait_state(version, "ready").await;
        switchman.done(&["promote", version]).await;
        let answer = get(&switchman.url("/")).await.unwrap();
        assert_eq!((answer.status, answer.version()), (200, version), "{}", answer.text());
        assert!(answer.text().contains(version), "{}", answer.text());
    }
}
