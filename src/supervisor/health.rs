//! One check of one worker, for readiness and for liveness: is it there, and what does it say.

use std::time::Duration;

use super::get::{Failure, Get, connect, within};
use crate::config::Protocol;
use crate::registry::Address;

/// What the worker finds in its log.
const AGENT: &str = "switchman-check";

/// A connection is accepted within `timeout`; else why not.
pub(crate) async fn connects(address: &Address, timeout: Duration) -> Result<(), Failure> {
    within(timeout, "a connection", address, async { connect(address).await.map(drop) }).await
}

/// GET of `path` over a connection of its own answers 2xx or 3xx within `timeout`; else why not.
pub(crate) async fn http(
    address: &Address,
    protocol: Protocol,
    path: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let get = Get { path, headers: &[], agent: AGENT, whole: false };
    match within(timeout, &format!("GET {path}"), address, get.ask(address, protocol)).await? {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(Failure::Answered(format!("GET {path} answered {}", status.as_u16()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    /// Serves one connection with these bytes, then closes it.
    async fn answers(bytes: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
        });
        Address::Tcp(address)
    }

    #[tokio::test]
    async fn only_2xx_and_3xx_pass() {
        const SECOND: Duration = Duration::from_secs(1);
        for (answer, verdict) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
            ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", Ok(())),
            ("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", Err("GET /healthz answered 500")),
            ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", Err("GET /healthz answered 404")),
            ("SSH-2.0-OpenSSH_9.2\r\n", Err("GET /healthz was not answered with HTTP")),
            ("", Err("GET /healthz was not answered")),
        ] {
            let address = answers(answer).await;
            match (http(&address, Protocol::Http1, "/healthz", SECOND).await, verdict) {
                (Ok(()), Ok(())) => {}
                (Err(said), Err(words)) => {
                    assert!(said.to_string().starts_with(words), "{answer:?}: {said}");
                    assert_eq!(
                        matches!(said, Failure::Answered(_)),
                        words.contains("healthz answered"),
                        "{said:?}"
                    );
                }
                (said, _) => panic!("{answer:?}: {said:?}"),
            }
        }
    }

    #[tokio::test]
    async fn silence_and_a_closed_port_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let said =
            http(&address, Protocol::Http1, "/", Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(said.contains("was not answered on 127.0.0.1") && said.contains("within 50ms"), "{said}");
        assert_eq!(connects(&address, Duration::from_secs(1)).await, Ok(()));
        drop(listener);
        let said = connects(&address, Duration::from_secs(1)).await.unwrap_err().to_string();
        assert_eq!(said, format!("nothing listens on {address}"));
    }

    #[tokio::test]
    async fn a_socket_is_asked_like_a_port_and_one_that_is_not_there_is_closed() {
        const SECOND: Duration = Duration::from_secs(1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.sock");
        let address = Address::Unix(path.clone());
        let said = connects(&address, SECOND).await.unwrap_err().to_string();
        assert_eq!(said, format!("nothing listens on unix:{}", path.display()));
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(connects(&address, SECOND).await, Ok(()));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let n = stream.read(&mut head).await.unwrap();
                if n == 0 {
                    continue;
                }
                let is_good = head[..n].starts_with(b"GET /healthz HTTP/1.1\r\n")
                    && contains(&head[..n], "host: localhost");
                let status = if is_good { "204 No Content" } else { "400 Bad" };
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        assert_eq!(http(&address, Protocol::Http1, "/healthz", SECOND).await, Ok(()));
    }

    fn contains(bytes: &[u8], text: &str) -> bool {
        String::from_utf8_lossy(bytes).contains(text)
    }

    /// Serves HTTP/2 without TLS, always with this status.
    async fn speaks_h2c(status: u16) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        assert_eq!(request.uri().path(), "/healthz");
                        let head = http::Response::builder().status(status).body(()).unwrap();
                        respond.send_response(head, true).unwrap();
                    }
                });
            }
        });
        Address::Tcp(address)
    }

    #[tokio::test]
    async fn a_worker_that_speaks_http2_is_asked_in_http2() {
        const SECOND: Duration = Duration::from_secs(1);
        let good = speaks_h2c(200).await;
        assert_eq!(http(&good, Protocol::H2c, "/healthz", SECOND).await, Ok(()));
        let bad = speaks_h2c(503).await;
        let said = http(&bad, Protocol::H2c, "/healthz", SECOND).await.unwrap_err().to_string();
        assert_eq!(said, "GET /healthz answered 503");
        // Each taken for the other.
        let said = http(&good, Protocol::Http1, "/healthz", SECOND).await.unwrap_err().to_string();
        assert!(said.contains("was not answered with HTTP: ") && said.contains("protocol: h2c"), "{said}");
        let http1 = answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let said = http(&http1, Protocol::H2c, "/healthz", SECOND).await.unwrap_err().to_string();
        assert!(said.contains("was not answered with HTTP/2") && said.contains("protocol: http1"), "{said}");
    }
}
