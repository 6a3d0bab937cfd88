//! The rules that all proxies get, each in its own language, and the proof that they mean the same.
//!
//! `x-qa: yes` and the users 1234 and 5678 go to the second version, so do 5 % of all `uid`s; the rest goes to
//! the first.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;
use crate::proxies::Proxy;

/// Gets what no rule takes.
pub(crate) const FIRST: &str = "4f2a91c";
/// Gets what a rule takes.
pub(crate) const SECOND: &str = "b001bee";

/// For switchman: a rule document.
pub(crate) fn switchman() -> String {
    format!(
        "default: {FIRST}
routes:
  - {{name: qa, when: {{header.x-qa: \"yes\"}}, to: {SECOND}}}
  - {{name: insiders, when: {{cookie.user_id: [1234, 5678]}}, to: {SECOND}}}
  - {{name: canary, by: cookie.uid, split: {{{SECOND}: 5%}}}}
"
    )
}

/// For nginx: within `http`; `$chosen` is the upstream. Who has no `uid` takes no part in the percentage.
pub(crate) const NGINX: &str = r#"
    split_clients $cookie_uid $by_hash { 5% second; * first; }
    map $cookie_uid $by_share { "" first; default $by_hash; }
    map $cookie_user_id $by_user { 1234 second; 5678 second; default $by_share; }
    map $http_x_qa $chosen { yes second; default $by_user; }
"#;

/// For HAProxy: within `frontend`.
pub(crate) const HAPROXY: &str = "
    use_backend second if { req.hdr(x-qa) yes }
    use_backend second if { req.cook(user_id) 1234 5678 }
    use_backend second if { req.cook(uid),xxh32,mod(10000) lt 500 }
    default_backend first
";

/// `uid`s that are tried.
const UIDS: usize = 1000;

/// Asks every proxy for the same things; answers with a `uid` that all of them send to the first version.
pub(crate) async fn agree(proxies: &[Proxy]) -> Result<String> {
    let mut everywhere_first = vec![true; UIDS];
    for proxy in proxies {
        for (headers, expected) in [
            ("", FIRST),
            ("x-qa: yes\r\n", SECOND),
            ("x-qa: no\r\n", FIRST),
            ("Cookie: a=b; user_id=5678\r\n", SECOND),
            ("Cookie: user_id=56789\r\n", FIRST),
        ] {
            let version = version_for(proxy, headers).await?;
            if version != expected {
                return Err(format!("{} sends {headers:?} to `{version}`, not {expected}", proxy.name).into());
            }
        }
        let mut second = 0;
        for (number, first) in everywhere_first.iter_mut().enumerate() {
            if version_for(proxy, &format!("Cookie: uid={}\r\n", uid(number))).await? == SECOND {
                *first = false;
                second += 1;
            }
        }
        // Four standard deviations around 5 %.
        if !(22..=78).contains(&second) {
            return Err(format!("{} sends {second} of {UIDS} users to {SECOND}, not 5 %", proxy.name).into());
        }
    }
    let number = everywhere_first.iter().position(|first| *first);
    Ok(uid(number.ok_or("there is no user whom every proxy sends to the first version")?))
}

fn uid(number: usize) -> String {
    format!("reader-{number:04}")
}

/// The version that answers a request with these header lines.
async fn version_for(proxy: &Proxy, headers: &str) -> Result<String> {
    let body = get(&proxy.address, "/", headers).await?;
    let version = body.split_whitespace().find_map(|word| word.strip_prefix("version="));
    Ok(version.ok_or_else(|| format!("{} answered {body:?}", proxy.name))?.to_owned())
}

/// The body of a 200 answer to GET; each call is a connection of its own.
pub(crate) async fn get(address: &str, path: &str, headers: &str) -> Result<String> {
    ask(address, "GET", path, headers, "").await
}

/// The body of a 200 answer; each call is a connection of its own.
pub(crate) async fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}{length}\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(format!("http://{address}{path} answered {answer:?}").into()),
    }
}
