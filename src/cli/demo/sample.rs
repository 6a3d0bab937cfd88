//! The demo's sample application: a small HTTP server whose builds differ by one file.
//!
//! A hidden subcommand, so that the demo runs on a machine that has nothing but switchman. It behaves as an
//! application should: listens where it is told, answers a health check, ends its requests on TERM.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::failure::Failure;

/// The file that makes one build different from the next.
pub(super) const GREETING: &str = "greeting.txt";

/// Where the sample application listens.
#[derive(Debug, clap::Args)]
pub struct SampleArgs {
    /// The port, on loopback
    #[arg(long)]
    port: u16,
}

/// Serves the build in the current folder until TERM.
pub async fn serve(args: SampleArgs) -> ExitCode {
    match try_serve(args.port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::failed(format!("the sample application cannot serve: {error}")).report(),
    }
}

async fn try_serve(port: u16) -> std::io::Result<()> {
    let greeting = std::fs::read_to_string(GREETING)?;
    let mut term = signal(SignalKind::terminate())?;
    let app = Router::new().route("/healthz", get(async || "ok")).fallback(async move || greeting.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            term.recv().await;
        })
        .await
}
