//! A command that checks on a worker: run beside it, with its environment and rights; exit status 0 is good.
//!
//! It is no member of the worker's tree (so that its end is nobody else's to see) and in a process group of its own,
//! which is ended with it at the timeout.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};

use super::{Identity, beside, explain_exit, explain_spawn};
use crate::config::{RunCommand, RunSpec};
use crate::registry::Address;
use crate::supervisor::get::Failure;

/// Of what it prints to standard error, so much is quoted.
const QUOTED: usize = 300;

/// A running check, whose whole group is ended if it is dropped before its end was seen.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // While it was not waited for, its number is nobody else's.
        if let Some(group) = self.0.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may just have ended.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs the command; it must exit with 0 within `timeout`, else why it is not good.
pub(crate) async fn check(
    run: &RunCommand,
    spec: &RunSpec,
    who: &Identity,
    address: &Address,
    timeout: Duration,
) -> Result<(), Failure> {
    let name = match run {
        RunCommand::Shell(text) => text.as_str(),
        RunCommand::Exec(words) => words.first().map_or("", String::as_str),
    };
    let mut command =
        beside(run, spec, who, Some(address)).map_err(|e| Failure::Unasked(format!("`{name}`: {e}")))?;
    command.env_remove("PIDFILE").stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| Failure::Unasked(explain_spawn(&e, run, &who.folder)))?;
    let stderr = child.stderr.take();
    let mut running = Running(child);
    let ended = async {
        let (status, said) = tokio::join!(running.0.wait(), said(stderr));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                Err(Failure::Answered(format!("`{name}` {}{said}", explain_exit(Some(status), run))))
            }
            Err(error) => {
                Err(Failure::Unasked(format!("`{name}` ended, and its status cannot be read: {error}")))
            }
        }
    };
    tokio::time::timeout(timeout, ended).await.unwrap_or_else(|_| {
        Err(Failure::Silent(format!("`{name}` did not end within {timeout:?}, and was ended")))
    })
}

/// The beginning of what it says, for a sentence; all of it is read, so that it never waits.
async fn said(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let room = QUOTED.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    let text = String::from_utf8_lossy(&kept);
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
