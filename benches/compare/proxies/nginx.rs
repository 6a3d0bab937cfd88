//! nginx, which the others are compared with.

use std::path::Path;

use tokio::process::Command;

use super::{CONNECTIONS, Proxy, Workers, free_address, server_program, write};
use crate::{Result, rules};

pub(super) async fn start(threads: usize, folder: &Path, workers: &Workers) -> Result<Proxy> {
    let (address, http2) = (free_address()?, free_address()?);
    let upstream = |name: &str, worker: &str| {
        format!("upstream {name} {{ server {worker}; keepalive 512; keepalive_requests 100000000; }}")
    };
    // The body buffers hold 64 KiB: nothing is written to disk on either side.
    let config = format!(
        "daemon off;
{user}
worker_processes {threads};
pid nginx.pid;
error_log stderr;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_body_buffer_size 128k; proxy_buffers 32 4k; proxy_max_temp_file_size 0;
    keepalive_requests 100000000;
    {first}
    {second}
    {rules}
    server {{
        listen {address} backlog=4096;
        listen {http2} backlog=4096 http2;
        location / {{
            proxy_pass http://$chosen;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Request-Start \"t=$msec\";
            add_header x-version $chosen;
        }}
    }}
}}
",
        user = if rustix::process::geteuid().is_root() { "user root;" } else { "" },
        first = upstream("first", &workers[0]),
        second = upstream("second", &workers[1]),
        rules = rules::NGINX,
    );
    let config = write(folder, "nginx.conf", &config).await?;
    let mut command = Command::new(server_program("nginx"));
    command.arg("-p").arg(folder).arg("-c").arg(config).args(["-e", "stderr"]);
    let mut proxy = Proxy::spawn("nginx", command, address, folder).await?;
    proxy.children_serve = true;
    proxy.http2 = Some(http2);
    Ok(proxy)
}
