//! HTTPS as a person sets it up: YAML, curl, a redirect, a renewed certificate.

use std::net::SocketAddr;

use tokio::process::Command;

use super::super::proxy::tls::pair;
use super::super::support::eventually;
use super::super::support::switchman::{Setup, Switchman, free_address};

/// What curl prints; none where it fails.
async fn curl(ca: &str, to: SocketAddr, args: &[&str], url: &str) -> Option<String> {
    let resolve = format!("app.example:{}:{}", to.port(), to.ip());
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--cacert", ca, "--resolve", &resolve])
        .args(args)
        .arg(url)
        .output()
        .await
        .expect("curl is missing: apt-get install curl");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn https_is_served_plain_http_is_redirected_and_certificates_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let old = pair(folder.path(), "app", &["app.example"]);
    let (certificate, key) = (old.certificate.to_str().unwrap(), old.key.to_str().unwrap());
    let https = free_address();
    let top = format!(
        "tls:\n  listen: \"{https}\"\n  redirect: true\n  certificates:\n    - {{certificate: {certificate}, key: {key}}}\n"
    );
    let switchman = Switchman::start(Setup { top: &top, ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    let old_ca = folder.path().join("old.pem");
    std::fs::copy(&old.certificate, &old_ca).unwrap();
    let old_ca = old_ca.to_str().unwrap();

    let url = format!("https://app.example:{}/", https.port());
    let said = curl(old_ca, https, &["--include"], &url).await.expect("https works");
    assert!(said.contains("x-switchman-version: 4f2a91c"), "{said}");
    let plain = format!("http://app.example:{}/a?b", switchman.address.port());
    let args = ["--resolve", &format!("app.example:{}:127.0.0.1", switchman.address.port()), "--head"];
    let said = curl(old_ca, https, &args, &plain).await.unwrap();
    assert!(said.contains("308") && said.contains(&format!("location: {url}a?b")), "{said}");

    std::fs::write(&old.key, "no key").unwrap();
    eventually("the broken key is told", || async {
        switchman.log().contains("the old one stays in force").then_some(())
    })
    .await;
    assert!(switchman.log().contains(key), "the log names the file: {}", switchman.log());
    assert!(curl(old_ca, https, &[], &url).await.is_some(), "the old pair stays in force");

    let new = pair(folder.path(), "app", &["app.example"]);
    let new_ca = new.certificate.to_str().unwrap();
    eventually("the new certificate is in force", || curl(new_ca, https, &[], &url)).await;
    assert!(curl(old_ca, https, &[], &url).await.is_none(), "the old one is no longer");
}
