//! The admin listeners: a unix socket for the command line, and TCP.
//!
//! `bind` takes both before anything else starts, so that a second switchman or a port in use is known at
//! once; `serve` answers on them until it is cancelled. Sockets that are there already (an upgrade, systemd) are taken
//! instead.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::auth::{self, Access};
use crate::admin::{AdminState, api, problem};
use crate::config::{self, Secret};
use crate::control::ControlHandle;
use crate::handover::sockets::{Sockets, Unix};

/// How long requests may go on after the end was announced; followed logs never end by themselves.
const ENDING_GRACE: Duration = Duration::from_secs(2);

/// Why the admin API cannot be reached where the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers on the socket.
    #[error("another switchman runs here: it answers on {}", .0.display())]
    Running(PathBuf),
    /// Something else is in the socket's place.
    #[error("{} is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("the admin socket {} cannot be made: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The TCP address cannot be taken.
    #[error("the admin address {address} cannot be listened on: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl BindError {
    /// What to type next.
    pub fn hint(&self) -> String {
        match self {
            Self::Running(path) => {
                format!("see what it runs: switchman versions --admin {}", path.display())
            }
            Self::NoSocket(path) => format!("move it away, or set admin.socket: ls -l {}", path.display()),
            Self::Socket { .. } => {
                "set admin.socket to a path of at most 100 characters in a folder that this user may write"
                    .to_owned()
            }
            Self::Tcp { address, source } if source.kind() == io::ErrorKind::AddrInUse => format!(
                "see who has the port: ss -ltnp 'sport = :{}'; or set another one: admin.listen",
                address.port()
            ),
            Self::Tcp { .. } => "set admin.listen to an address of this machine".to_owned(),
        }
    }
}

/// Both listeners, taken and not yet answering.
#[derive(Debug)]
pub struct Bound {
    /// The TCP address as it was configured.
    asked: Option<SocketAddr>,
    tcp: Option<(TcpListener, SocketAddr)>,
    unix: UnixListener,
    file: SocketFile,
}

impl Bound {
    /// The TCP address, with the port that was really taken.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    /// The unix socket.
    pub fn socket(&self) -> &Path {
        &self.file.path
    }

    /// The same sockets once more, to be handed on. They listen until both are closed.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn share(&self) -> io::Result<Sockets> {
        let mut shared = Sockets::default();
        if let Some((socket, address)) = &self.tcp {
            shared.add_tcp(
                self.asked.unwrap_or(*address),
                *address,
                socket.as_fd().try_clone_to_owned()?.into(),
            );
        }
        let socket = self.unix.as_fd().try_clone_to_owned()?.into();
        shared.unix.push(Unix { path: self.file.path.clone(), ours: self.file.ours, socket });
        Ok(shared)
    }
}

/// Removes the socket's file when its owner ends.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Otherwise it is left alone: another process has it.
    ours: bool,
}

impl SocketFile {
    /// Leaves the file where it is: somebody else answers on the socket now.
    pub fn leave(mut self) {
        self.ours = false;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "the admin socket was gone already");
        }
    }
}

/// Takes the unix socket and the TCP address of the configuration, out of `given` where they are there already.
pub async fn bind(admin: &config::Admin, given: &mut Sockets) -> Result<Bound, BindError> {
    let (unix, file) = match given.take_unix(&admin.socket) {
        None => bind_socket(&admin.socket).await?,
        Some(Unix { path, ours, socket }) => {
            let failed = |source| BindError::Socket { path: path.clone(), source };
            socket.set_nonblocking(true).map_err(failed)?;
            let socket = UnixListener::from_std(socket).map_err(failed)?;
            (socket, SocketFile { path, ours })
        }
    };
    let tcp = match admin.listen {
        None => None,
        Some(address) => {
            let failed = |source| BindError::Tcp { address, source };
            let listener = match given.take_tcp(address).and_then(|mut tcp| tcp.sockets.pop()) {
                None => TcpListener::bind(address).await,
                Some(socket) => {
                    socket.set_nonblocking(true).map_err(failed)?;
                    TcpListener::from_std(socket)
                }
            };
            let listener = listener.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            Some((listener, address))
        }
    };
    Ok(Bound { asked: admin.listen, tcp, unix, file })
}

async fn bind_socket(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::Socket { path: path.to_owned(), source };
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(BindError::NoSocket(path.to_owned()));
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(BindError::Running(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tracing::info!(path = %path.display(), "replacing the admin socket of a switchman that is gone");
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Made in a folder that only we can enter and then moved: nobody can connect before the mode is set, and
    // a stale socket is replaced in one step.
    let private = tempfile::Builder::new().prefix(".").tempdir_in(folder).map_err(failed)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made).map_err(failed)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&made, path).map_err(failed)?;
    Ok((listener, SocketFile { path: path.to_owned(), ours: true }))
}

/// Answers on both listeners until `cancel`; requests that run then have two seconds to end. The file of the socket
/// is there as long as what the task answers with. Call within a tokio runtime.
pub fn serve(bound: Bound, state: AdminState, cancel: CancellationToken) -> JoinHandle<SocketFile> {
    tokio::spawn(async move {
        let Bound { tcp, unix, file, .. } = bound;
        let router = |access| guarded(api::router(state.clone()), access, &state);
        let socket = async {
            axum::serve(unix, router(Access::Socket))
                .with_graceful_shutdown(cancel.clone().cancelled_owned())
                .await
        };
        let tcp = async {
            let Some((listener, address)) = tcp else { return Ok(()) };
            axum::serve(listener, router(Access::of(address.ip())))
                .with_graceful_shutdown(cancel.clone().cancelled_owned())
                .await
        };
        let late = async {
            cancel.cancelled().await;
            tokio::time::sleep(ENDING_GRACE).await;
        };
        tokio::select! {
            (socket, tcp) = async { tokio::join!(socket, tcp) } => {
                for error in [socket, tcp].into_iter().filter_map(io::Result::err) {
                    tracing::error!(%error, "the admin API cannot be served");
                }
            }
            () = late => tracing::debug!("an admin request did not end in time"),
        }
        file
    })
}

/// The router behind the guard of one listener, every error in our form.
fn guarded(router: Router, access: Access, state: &AdminState) -> Router {
    let known = (access, state.token.clone(), state.control.clone());
    router.layer(from_fn(problem::as_problem)).layer(from_fn_with_state(known, guard))
}

/// No change may fall between two processes.
fn gives_way() -> problem::ApiError {
    problem::ApiError::new(problem::Kind::Refused, "a new process of switchman is taking over")
        .hint("it is there in a few seconds: try again")
}

/// Lets in what [`auth::check`] allows, and leaves a line in the log for every change.
async fn guard(
    State((access, token, control)): State<(Access, Secret, ControlHandle)>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(access);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let reading = auth::is_reading(&method, &path);
    let response = match auth::check(access, &token, &method, &path, request.headers()) {
        Ok(()) if !reading && control.gives_way() => gives_way().into_response(),
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let status = response.status().as_u16();
    if reading {
        tracing::debug!(%method, path, status, ?access, "admin request");
    } else {
        tracing::info!(%method, path, status, ?access, "admin change");
    }
    response
}
