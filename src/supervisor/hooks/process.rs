//! One run of one hook, as a task: start it, read what it prints, and end it with everything it has started.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Kind;
use crate::config::{Hook, RunCommand, RunSpec};
use crate::etcd::once::Unfinished;
use crate::supervisor::output::{Ears, LogStore, Printer, Stream};
use crate::supervisor::readiness::{SharedTree, ask};
use crate::supervisor::tree::Tree;
use crate::supervisor::{ending, launch};
use crate::version::{ServiceName, VersionId, WorkerId};

/// Time between TERM and KILL for a hook whose time is over, and for what it has left behind.
const GRACE: Duration = Duration::from_secs(5);
/// How long what is left in its pipes is read after it has ended.
const OUTPUT_AFTER_END: Duration = Duration::from_secs(1);
/// Lines of its output that the reason of a failure quotes, and characters of each.
const QUOTED: (usize, usize) = (10, 300);
/// A hook belongs to no worker; its lines stand among those of the first.
const WORKER: WorkerId = WorkerId(0);

/// Everything that a run needs.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) hook: Hook,
    pub(crate) service: ServiceName,
    pub(crate) version: VersionId,
    /// The version's folder.
    pub(crate) folder: PathBuf,
    /// Tells its processes from all others: it is in their environment.
    pub(crate) pidfile: PathBuf,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) logs: LogStore,
}

impl Job {
    /// Runs it until nothing of it is left. `told` tells it to end.
    pub(crate) async fn run(&self, told: &CancellationToken) -> Result<(), Unfinished> {
        let kind = self.kind;
        let failed = |why: String| Unfinished::Failed(format!("{kind} {why}"));
        let mut child = self.command().and_then(|mut command| command.spawn()).map_err(|error| {
            failed(format!(
                "could not be started: {}",
                launch::explain_spawn(&error, &self.hook.run, &self.folder)
            ))
        })?;
        // A child that was not waited for has its number.
        let pid = child.id().unwrap_or_default();
        self.say(pid, format!("switchman runs {kind}: {}", words(&self.hook.run))).await;
        let tree: SharedTree = Arc::new(Mutex::new(Tree::new(pid, &self.pidfile)));
        let mut readers = JoinSet::new();
        self.read(child.stdout.take(), Stream::Stdout, pid, &mut readers);
        self.read(child.stderr.take(), Stream::Stderr, pid, &mut readers);
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.hook.timeout, child.wait()) => Some(ended),
            () = told.cancelled() => None,
        };
        end(&tree, &mut child).await;
        // Somebody outside the tree may have been handed a pipe; then the rest is not read.
        let _ = tokio::time::timeout(OUTPUT_AFTER_END, readers.join_all()).await;
        let why = match ended {
            None => {
                self.say(pid, format!("switchman has ended {kind}")).await;
                return Err(Unfinished::Told);
            }
            Some(Ok(Ok(status))) if status.success() => {
                self.say(pid, format!("{kind} has ended well")).await;
                return Ok(());
            }
            Some(Ok(Ok(status))) => how(status),
            Some(Ok(Err(error))) => format!("ended, and its status cannot be read: {error}"),
            Some(Err(_)) => format!("did not end within {:?} and was ended", self.hook.timeout),
        };
        let why = self.quote(why, pid);
        self.say(pid, format!("{kind} {}", why.lines().next().unwrap_or_default())).await;
        Err(failed(why))
    }

    /// It runs as whom the workers run: what it starts may have been uploaded.
    fn command(&self) -> io::Result<Command> {
        let mut command = match &self.hook.run {
            RunCommand::Shell(text) => {
                let mut command = Command::new("sh");
                command.args(["-c", text, "sh"]);
                command
            }
            RunCommand::Exec(words) => {
                let mut command = Command::new(words.first().map_or("", String::as_str));
                command.args(words.iter().skip(1));
                command
            }
        };
        launch::environment::basis(&mut command, &self.spec);
        command
            .current_dir(&self.folder)
            // It is no worker: it must not take switchman's own for its.
            .env_remove("PORT")
            .env_remove("SOCKET")
            .env_remove("SWITCHMAN_WORKER")
            .env("COMMIT", self.version.as_str())
            .env("SWITCHMAN_SERVICE", self.service.as_str())
            .env("SWITCHMAN_VERSION", self.version.as_str())
            .env("SWITCHMAN_HOOK", self.kind.as_str())
            .env("PIDFILE", &self.pidfile)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            // The last resort, should this task die; it ends the whole tree itself.
            .kill_on_drop(true);
        launch::confine(&mut command, &self.spec.isolation)?;
        Ok(command)
    }

    fn printer(&self, pid: u32, stream: Stream) -> Printer {
        let (service, version) = (self.service.clone(), self.version.clone());
        Printer { service, version, worker: WORKER, pid, stream, ears: Ears::default() }
    }

    fn read(
        &self,
        output: Option<impl AsyncRead + Unpin + Send + 'static>,
        stream: Stream,
        pid: u32,
        readers: &mut JoinSet<()>,
    ) {
        if let Some(output) = output {
            readers.spawn(self.printer(pid, stream).read(output, self.logs.clone()));
        }
    }

    /// A line of ours in the version's logs.
    async fn say(&self, pid: u32, text: String) {
        self.printer(pid, Stream::Stderr).read(text.as_bytes(), self.logs.clone()).await;
    }

    fn quote(&self, why: String, pid: u32) -> String {
        let (lines, chars) = QUOTED;
        // The first one is ours.
        let printed = self.logs.tail(&self.service, &self.version, (WORKER, pid), lines + 1);
        let printed = printed.get(1..).unwrap_or_default();
        if printed.is_empty() {
            return format!("{why}; it printed nothing");
        }
        let mut text = format!("{why}; it printed last:");
        for line in printed {
            text.push_str("\n  ");
            text.extend(line.chars().take(chars));
        }
        text
    }
}

/// The command, for people.
fn words(run: &RunCommand) -> String {
    match run {
        RunCommand::Shell(text) => text.lines().next().unwrap_or_default().to_owned(),
        RunCommand::Exec(words) => words.join(" "),
    }
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exited with status {code}"),
        None => format!("was ended: {status}"),
    }
}

/// Ends what is left of it: TERM, a short grace, KILL.
async fn end(tree: &SharedTree, child: &mut Child) {
    ask(tree, |tree| tree.signal(Signal::TERM)).await;
    let ends = async {
        // How it ends is known, or does not matter to who told it to.
        let _ = child.wait().await;
        ending::until_empty(tree, None).await;
    };
    if tokio::time::timeout(GRACE, ends).await.is_err() {
        ending::kill(tree).await;
        let _ = tokio::time::timeout(ending::KILL_MAX, child.wait()).await;
    }
}
