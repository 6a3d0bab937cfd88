//! Which running switchman a command means, and which of its services.
//!
//! In this order: `--admin` (or `SWITCHMAN_ADMIN`), the configuration file's `admin.socket` or `state`, the
//! default state folder. Of the configuration only these two keys are read: a rollback at night must not fail
//! because somebody left another part of the file broken.

use std::path::{Path, PathBuf};

use http::Method;

use crate::admin::client::{self, Call, Client, Endpoint};
use crate::admin::types;
use crate::cli::failure::Failure;
use crate::config;
use crate::yaml::{self, Node};

/// The environment variable with the admin token, for TCP.
const TOKEN_VARIABLE: &str = "SWITCHMAN_TOKEN";
/// The socket's name in the state folder.
const SOCKET_FILE: &str = "admin.sock";

/// What every command takes that asks a running switchman.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Reach {
    /// The service, where more than one is configured
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
    /// Where the switchman answers: a URL, or the path of its admin socket
    #[arg(long, env = "SWITCHMAN_ADMIN", value_name = "URL|PATH")]
    pub(super) admin: Option<String>,
    /// The configuration file, to find the admin socket
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the admin API's JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Reach {
    /// A client for the switchman that is meant; does not connect yet.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let place = || place(self.config.as_deref());
        let endpoint = match &self.admin {
            Some(text) => Endpoint::parse(text)?,
            None => Endpoint::Socket(place()?.socket),
        };
        // The token of this machine is for this machine: it is not sent to whatever `--admin` names.
        let state = if is_loopback(&endpoint) { Some(place()?.state) } else { None };
        let token = client::token(std::env::var(TOKEN_VARIABLE).ok(), state.as_deref());
        Ok(Client::new(endpoint, token, who()))
    }

    /// The service that is meant: the one that was named, else the only one.
    pub(super) async fn service(&self, client: &Client) -> Result<String, Failure> {
        if let Some(name) = &self.service {
            return Ok(name.clone());
        }
        let services: types::Services = client.json(Call::new(Method::GET, &["services"])).await?;
        only(services.services.into_iter().map(|s| s.service).collect())
    }
}

/// The only service, or what to type.
fn only(mut names: Vec<String>) -> Result<String, Failure> {
    match names.len() {
        0 => Err(Failure::failed("this switchman has no services")),
        1 => Ok(names.remove(0)),
        _ => Err(Failure::usage(format!("there are several services: {}", names.join(", ")))
            .hint(format!("say which: --service {}", names[0]))),
    }
}

/// Where a configuration puts the admin socket and the state.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    socket: PathBuf,
    state: PathBuf,
}

fn place(config: Option<&Path>) -> Result<Place, Failure> {
    let hint = "say where it runs: --admin URL|PATH";
    let file = match (config::find(config), config) {
        (Ok(file), _) => file,
        (Err(_), None) => return place_of(None, Path::new("/")),
        (Err(_), Some(file)) => {
            return Err(
                Failure::failed(format!("there is no configuration file at {}", file.display())).hint(hint)
            );
        }
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::failed(format!("{} cannot be read: {error}", file.display())).hint(hint))?;
    let (node, mut problems) = yaml::parse_all(&text);
    if node.is_none() {
        problems.locate(&file.display().to_string(), &text);
        return Err(Failure::failed(format!("the admin socket cannot be looked up\n{problems}")).hint(hint));
    }
    let folder = std::path::absolute(&file).ok().and_then(|f| f.parent().map(Path::to_owned));
    place_of(node.as_ref(), &folder.unwrap_or_default())
}

/// Relative paths are taken from the file's folder, as `serve` takes them.
fn place_of(config: Option<&Node>, folder: &Path) -> Result<Place, Failure> {
    let path = |node: Option<&Node>| node.and_then(Node::text).map(|text| folder.join(text));
    let state = path(config.and_then(|c| c.get("state")))
        .or_else(config::default_state)
        .ok_or_else(|| Failure::failed("there is no home folder in which switchman could keep its state"))?;
    let socket = path(config.and_then(|c| c.get("admin")?.get("socket")));
    Ok(Place { socket: socket.unwrap_or_else(|| state.join(SOCKET_FILE)), state })
}

/// Whether an endpoint is a TCP listener of this machine.
fn is_loopback(endpoint: &Endpoint) -> bool {
    let Endpoint::Tcp(authority) = endpoint else { return false };
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Who types, for the history: the person behind sudo, if there is one.
fn who() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|v| std::env::var(v).ok());
    name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_from_two_keys() {
        let place =
            |text: &str| place_of(Some(&yaml::parse(text).unwrap()), Path::new("/etc/switchman")).unwrap();
        let both = |socket: &str, state: &str| Place { socket: socket.into(), state: state.into() };
        assert_eq!(
            place("state: /var/lib/s\nadmin: {socket: /run/s.sock}"),
            both("/run/s.sock", "/var/lib/s")
        );
        assert_eq!(
            place("state: st\nservices: 7"),
            both("/etc/switchman/st/admin.sock", "/etc/switchman/st")
        );
        let state = config::default_state().unwrap();
        assert_eq!(place("listen: x"), Place { socket: state.join("admin.sock"), state });
    }

    #[test]
    fn the_only_service_is_meant_and_of_several_none() {
        assert_eq!(only(vec!["app".into()]).unwrap(), "app");
        assert!(only(vec!["app".into(), "web".into()]).is_err());
        assert!(only(Vec::new()).is_err());
    }

    #[test]
    fn the_token_file_is_for_this_machine_only() {
        let here = |text: &str| is_loopback(&Endpoint::parse(text).unwrap());
        assert!(here("http://127.0.0.1:7001") && here("http://[::1]:7001") && here("http://localhost"));
        assert!(!here("http://10.0.0.1:7001") && !here("http://127.0.0.1.example.com"));
    }
}
