//! What a new worker is asked before it takes requests.

use http::{HeaderName, HeaderValue};
use switchman::config::Warm;

use super::*;

/// Writes down what it is asked, with the header `x-warm`; `/bad` answers 500, `/never` nothing.
const NOTES: &str = r#"
cat > notes.py <<'END'
import http.server, os, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/never": threading.Event().wait()
        with open("asked", "a") as file:
            file.write(f"{self.path} {self.headers.get('x-warm')} {self.headers.get('host', '').split(':')[0]}\n")
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
END
exec python3 notes.py"#;

fn warm(path: &str, times: u32) -> Warm {
    Warm { path: path.to_owned(), headers: Vec::new(), times }
}

fn warmed(requests: Vec<Warm>) -> RunSpec {
    let mut spec = spec();
    spec.life.warm = requests;
    spec
}

fn asked(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(world.folder("4f2a91c").join("asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_request_is_sent_in_order_before_the_worker_is_ready() {
    let header = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let mut with_headers = warm("/b?x=1", 3);
    with_headers.headers = vec![header("x-warm", "yes"), header("host", "app.example.com")];
    let mut world = World::new(warmed(vec![warm("/a", 1), warm("/bad", 2), with_headers]));
    world.deploy("4f2a91c", NOTES).await;
    let version = loop {
        world.registry.changed().await.unwrap();
        let Some(version) = world.version("4f2a91c") else { continue };
        if version.state == VersionState::Ready {
            break version;
        }
    };
    let b = "/b?x=1 yes app.example.com";
    let bad = "/bad None 127.0.0.1";
    let expected = ["/healthz None 127.0.0.1", "/a None 127.0.0.1", bad, bad, b, b, b];
    assert_eq!(asked(&world), expected, "one that fails holds up nobody");
    assert_eq!(version.reason, None);
    world.end().await;
}

#[tokio::test]
async fn one_that_is_never_answered_is_given_up_at_the_deadline_and_named_before() {
    let mut spec = warmed(vec![warm("/bad", 1), warm("/never", 1), warm("/a", 1)]);
    spec.ready.deadline = Duration::from_secs(3);
    let world = World::new(spec);
    world.deploy("4f2a91c", NOTES).await;
    let noted = world.until("4f2a91c", "the failure is noted", |v| v.reason.is_some()).await;
    assert_eq!(noted.reason.as_deref(), Some("warming worker 0: GET /bad answered 500"));
    assert_eq!(noted.state, VersionState::Starting);
    world.until_state("4f2a91c", VersionState::Ready).await;
    assert!(!asked(&world).iter().any(|line| line.starts_with("/a ")), "there was no time left for it");
    world.end().await;
}
