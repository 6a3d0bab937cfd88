//! A gRPC service under switchman as a person runs it: `protocol: h2c`, rules that look at its metadata.

use std::path::Path;

use tokio::process::Command;

use super::super::support::switchman::{Setup, Switchman};

/// The version that answers a call with the metadata `x-pin: PIN`.
async fn version_of(switchman: &Switchman, pin: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(top.join("target/grpc/bin/python"))
        .arg(top.join("fixtures/grpc/client.py"))
        .args([&switchman.address.to_string(), pin])
        .kill_on_drop(true)
        .output()
        .await
        .expect("grpcio is missing: scripts/install-deps test");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn versions_of_a_grpc_service_are_routed_by_metadata() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let service = format!(
        "    protocol: h2c\n    run: \"exec {} server.py $PORT\"\n    ready: {{tcp: true, interval: 50ms}}\n",
        top.join("target/grpc/bin/python").display()
    );
    let rules = "routes:\n  - name: pin\n    when: {header.x-pin: {regex: \"^[0-9a-f]{7}$\"}}\n    \
                 to: \"{header.x-pin}\"\n    unavailable: error\n";
    let mut switchman =
        Switchman::start(Setup { service: &service, rules: Some(rules), ..Setup::default() }).await;
    for version in ["4f2a91c", "aaaaaa1"] {
        switchman.rsync(&top.join("fixtures/grpc"), version).await;
        switchman.wait_state(version, "ready").await;
    }
    switchman.done(&["promote", "4f2a91c"]).await;
    for (pin, expected) in [
        ("none", "4f2a91c"),
        ("aaaaaa1", "aaaaaa1"),
        ("4f2a91c", "4f2a91c"),
        ("bbbbbb2", "UNAVAILABLE no-version"),
    ] {
        assert_eq!(version_of(&switchman, pin).await, expected, "x-pin: {pin}");
    }
    switchman.terminate().await;
}
