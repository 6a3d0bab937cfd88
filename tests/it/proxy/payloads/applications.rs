//! The payloads that mean something, before real applications: Node's and Python's HTTP parsers read what they mean.

use std::net::SocketAddr;
use std::process::Stdio;

use switchman::proxy::Settings;
use switchman::registry::Address;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::literature::payloads;
use crate::proxy::Rig;
use crate::proxy::rig::Response;

/// Answers with method, target and body in hex; says its port first.
const NODE: &str = r#"
const server = require("http").createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => response.end(`${request.method} ${request.url} ${Buffer.concat(parts).toString("hex")}`));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"#;

/// Likewise.
const PYTHON: &str = r#"
import http.server

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline() != b"\r\n":
            pass
        return b"".join(parts)

    def answer(self):
        said = f"{self.command} {self.path} {self.body().hex()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Methods that both applications take.
const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "OPTIONS"];

/// Starts an application and waits until it says its port.
async fn start(program: &str, arguments: [&str; 2]) -> (Child, Address) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("{program} does not start: {e}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.next_line().await.unwrap().expect("it says its port").parse().unwrap();
    (child, Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port))))
}

/// What an application must say of a request.
fn said(method: &str, target: &str, body: &str) -> String {
    let hex: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{method} {target} {hex}")
}

async fn reads_what_is_meant(program: &str, arguments: [&str; 2]) {
    let (_application, address) = start(program, arguments).await;
    let rig = Rig::start(Settings::default(), &[address]).await;
    let mut tried = 0;
    for payload in payloads().filter(|p| p.meant.iter().all(|(method, ..)| METHODS.contains(method))) {
        let mut client = rig.connect().await;
        client.send(payload.bytes).await;
        for (method, target, body) in payload.meant {
            let answer: Option<Response> = client.response().await;
            let answer = answer.unwrap_or_else(|| panic!("{}: no answer", payload.what));
            assert_eq!(
                (answer.status, answer.text()),
                (200, said(method, target, body).as_str()),
                "{}",
                payload.what
            );
        }
        for _ in 0..2 {
            let answer = rig.ask(format!("GET /innocent-{tried} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let expected = said("GET", &format!("/innocent-{tried}"), "");
            assert_eq!(answer.text(), expected, "after {}", payload.what);
        }
        tried += usize::from(!payload.meant.is_empty());
    }
    assert!(tried >= 40, "{tried} payloads mean something");
}

#[tokio::test]
async fn node_reads_each_payload_as_it_is_meant() {
    reads_what_is_meant("node", ["-e", NODE]).await;
}

#[tokio::test]
async fn python_reads_each_payload_as_it_is_meant() {
    reads_what_is_meant("python3", ["-c", PYTHON]).await;
}
