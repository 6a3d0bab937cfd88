//! HAProxy.

use std::path::Path;

use tokio::process::Command;

use super::{CONNECTIONS, Proxy, Workers, free_address, server_program, write};
use crate::{Result, rules};

pub(super) async fn start(threads: usize, folder: &Path, workers: &Workers) -> Result<Proxy> {
    let (address, http2) = (free_address()?, free_address()?);
    // It wants two files a connection before it needs them; where the limit is lower, that is a warning.
    let config = format!(
        "global
    nbthread {threads}
    maxconn {CONNECTIONS}
    no strict-limits
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always
frontend public
    bind {address}
    bind {http2} proto h2
    option forwardfor
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Request-Id %[uuid()]
    http-request set-header X-Request-Start t=%[date(0,ms)]
    http-response set-header x-version %[be_name]
    {rules}
backend first
    server worker {first}
backend second
    server worker {second}
",
        rules = rules::HAPROXY,
        first = workers[0],
        second = workers[1],
    );
    let config = write(folder, "haproxy.cfg", &config).await?;
    let mut command = Command::new(server_program("haproxy"));
    command.arg("-db").arg("-f").arg(config);
    let mut proxy = Proxy::spawn("HAProxy", command, address, folder).await?;
    proxy.http2 = Some(http2);
    Ok(proxy)
}
