//! A real browser before the real program: a page with a hundred scripts over HTTP/2 and TLS.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::super::support::switchman::{Setup, Switchman, free_address};

/// Writes a key pair for `localhost` into `folder`.
fn write_certificate(folder: &Path) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("localhost.pem"), pair.cert.pem()).unwrap();
    std::fs::write(folder.join("localhost.key"), pair.signing_key.serialize_pem()).unwrap();
}

/// The page's HTML after everything was loaded.
async fn dump_dom(folder: &Path, url: &str) -> String {
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--ignore-certificate-errors", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("browser").display()))
        .arg(url)
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), chromium.output()).await;
    let output = output.expect("the browser ends").expect("chromium is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_browser_loads_a_page_with_a_hundred_scripts_over_http2() {
    let certificates = tempfile::tempdir().unwrap();
    write_certificate(certificates.path());
    let address = free_address();
    let folder = certificates.path().display();
    let top = format!(
        "tls:\n  listen: [\"{address}\"]\n  certificates: [{{certificate: {folder}/localhost.pem, key: \
         {folder}/localhost.key}}]\n"
    );
    let switchman = Switchman::start(Setup { top: &top, ..Setup::default() }).await;
    switchman.deploy_ready("aaaaaa1").await;
    let url = format!("https://localhost:{}/page/100", address.port());
    let page = dump_dom(switchman.folder.path(), &url).await;
    assert!(page.contains("<title>100 scripts over h2</title>"), "{page}");
    let version = switchman.version("aaaaaa1").await.unwrap();
    let traffic = &version["traffic"];
    assert!(traffic["requests"].as_u64() >= Some(101) && traffic["errors"] == 0, "{traffic}");
}
