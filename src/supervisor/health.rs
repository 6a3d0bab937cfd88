//! One readiness check of one worker: is it there, and what does it say.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection is accepted within `timeout`; else why not.
pub(crate) async fn tcp(address: SocketAddr, timeout: Duration) -> Result<(), String> {
    within(timeout, "a connection", address, async {
        TcpStream::connect(address).await.map(drop).map_err(|e| refused(address, &e))
    })
    .await
}

/// GET of `path` over a connection of its own answers 2xx or 3xx within `timeout`; else why not.
pub(crate) async fn http(address: SocketAddr, path: &str, timeout: Duration) -> Result<(), String> {
    let asked = format!("GET {path}");
    within(timeout, &asked, address, async {
        let stream = TcpStream::connect(address).await.map_err(|e| refused(address, &e))?;
        let broken = |e: &dyn std::error::Error| format!("GET {path} was not answered with HTTP: {e}");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let request = hyper::Request::get(path)
            .header("host", address.to_string())
            .header("user-agent", "switchman-ready-check")
            .header("connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| {
                format!("GET {path} cannot be asked: {e}; hint: correct `ready: {{http: {path}}}`")
            })?;
        // The connection moves only while it is polled; when this ends, both are dropped and it is closed.
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // It ended, perhaps with the answer in its last bytes.
            _ = connection => answer.await,
        };
        let status = answer.map_err(|e| broken(&e))?.status();
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(format!("GET {path} answered {}", status.as_u16()))
        }
    })
    .await
}

async fn within(
    timeout: Duration,
    asked: &str,
    address: SocketAddr,
    check: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    tokio::time::timeout(timeout, check)
        .await
        .unwrap_or_else(|_| Err(format!("{asked} was not answered on {address} within {timeout:?}")))
}

fn refused(address: SocketAddr, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("nothing listens on {address}"),
        _ => format!("connecting to {address} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Serves one connection with these bytes, then closes it.
    async fn answers(bytes: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
        });
        address
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
            match (http(address, "/healthz", SECOND).await, verdict) {
                (Ok(()), Ok(())) => {}
                (Err(said), Err(words)) => assert!(said.starts_with(words), "{answer:?}: {said}"),
                (said, _) => panic!("{answer:?}: {said:?}"),
            }
        }
    }

    #[tokio::test]
    async fn silence_and_a_closed_port_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let said = http(address, "/", Duration::from_millis(50)).await.unwrap_err();
        assert!(said.contains("was not answered on 127.0.0.1") && said.contains("within 50ms"), "{said}");
        assert_eq!(tcp(address, Duration::from_secs(1)).await, Ok(()));
        drop(listener);
        let said = tcp(address, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(said, format!("nothing listens on {address}"));
    }
}
