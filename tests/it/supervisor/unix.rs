//! Workers on unix sockets, and workers that speak HTTP/2.

use std::os::unix::fs::PermissionsExt as _;

use switchman::config::{Protocol, UpstreamAt};

use super::*;

/// Like [`SERVER`], on the socket that its first argument or `SOCKET` names.
const SOCKET_SERVER: &str = r#"
import http.server, os, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{k}={v}\n" for k, v in os.environ.items())
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass
path = sys.argv[1] if len(sys.argv) > 1 else os.environ["SOCKET"]
socketserver.ThreadingUnixStreamServer(path, Handler).serve_forever()
"#;

fn on_socket() -> RunSpec {
    RunSpec { upstream: UpstreamAt::Unix, ..spec() }
}

async fn deploy(world: &World, version: &str, run: &str) {
    world.write(version, run);
    std::fs::write(world.folder(version).join("server.py"), SOCKET_SERVER).unwrap();
    world.settle(version).await;
}

fn path(upstream: &registry::Upstream) -> PathBuf {
    let Address::Unix(path) = &upstream.address else { panic!("{} is no socket", upstream.address) };
    path.clone()
}

#[tokio::test]
async fn a_worker_gets_a_socket_of_its_own_that_is_gone_when_it_has_ended() {
    let mut two = on_socket();
    two.workers = 2;
    // What a person says is not listened to: it would lead the worker astray.
    two.env.insert("PORT".to_owned(), "8080".to_owned());
    let world = World::new(two);
    deploy(&world, "4f2a91c", "echo \"first $1\"; exec python3 server.py \"$1\"").await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let paths: Vec<PathBuf> = version.ready.iter().map(|upstream| path(upstream)).collect();
    assert_ne!(paths[0], paths[1]);
    let folder = paths[0].parent().unwrap();
    assert_eq!(folder, world.state.path().join("run/@sockets"));
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(version.ready[0].address.to_string(), format!("unix:{}", paths[0].display()));
    assert_eq!(version.workers[0].address.as_ref(), Some(&version.ready[0].address));

    let environment = get(&version.ready[1].address, "/env").await;
    assert!(environment.contains(" 200 OK\r\n"), "{environment}");
    let socket = format!("SOCKET={}", paths[1].display());
    for line in [socket.as_str(), "HOST=127.0.0.1", "SWITCHMAN_WORKER=1"] {
        assert!(environment.lines().any(|l| l == line), "{line} in {environment}");
    }
    assert!(!environment.lines().any(|l| l.starts_with("PORT=")), "{environment}");
    assert!(world.lines("4f2a91c").contains(&format!("first {}", paths[1].display())), "$1 is the path");

    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let after = world
        .until("4f2a91c", "two other workers are ready", |v| {
            v.workers.len() == 2 && v.ready.len() == 2 && v.ready.iter().all(|u| !paths.contains(&path(u)))
        })
        .await;
    eventually("the old ones' sockets are gone", async || {
        paths.iter().all(|path| !path.exists()).then_some(())
    })
    .await;
    // It did not remove its socket itself.
    kill(pids(&after)[0]);
    world
        .until("4f2a91c", "it was started again", |v| v.workers[0].restarts == 1 && v.ready.len() == 2)
        .await;
    assert!(!path(&after.ready[0]).exists());
    world.end().await;
    let left: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_worker_that_opens_a_port_instead_is_told_what_it_was_given() {
    let mut late = on_socket();
    late.ready.deadline = Duration::from_secs(2);
    let world = World::new(late);
    let port = portpicker::pick_unused_port().unwrap();
    // The server of the other tests, which knows ports only.
    world.deploy("4f2a91c", &format!("exec python3 server.py {port}")).await;
    let failed = world.until("4f2a91c", "it is said", |v| v.reason.is_some()).await;
    let reason = failed.reason.as_deref().unwrap();
    let said = format!("the worker listens on 127.0.0.1:{port}, not on the socket it was given (SOCKET=");
    assert!(reason.contains(&said) && reason.contains("$SOCKET"), "{reason}");
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_speaks_http2_is_checked_in_http2() {
    let program = "const http2 = require('node:http2');\n\
                   const server = http2.createServer((request, response) => response.end('ok'));\n\
                   server.listen(process.env.SOCKET ?? process.env.PORT, '127.0.0.1');\n";
    for upstream in [UpstreamAt::Port, UpstreamAt::Unix] {
        let world = World::new(RunSpec { upstream, protocol: Protocol::H2c, ..spec() });
        world.write("4f2a91c", "exec node server.js");
        std::fs::write(world.folder("4f2a91c").join("server.js"), program).unwrap();
        world.settle("4f2a91c").await;
        let version = world.until_state("4f2a91c", VersionState::Ready).await;
        assert_eq!(version.ready[0].protocol, Protocol::H2c);
        world.end().await;
    }
}
