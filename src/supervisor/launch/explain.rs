//! In words: why a process could not be started, and how it ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use super::child::{Step, failed_step};
use crate::config::RunCommand;

/// Why the process could not be started.
pub(crate) fn explain_spawn(error: &io::Error, run: &RunCommand, folder: &Path) -> String {
    if !folder.is_dir() {
        return format!("its folder {} is not there", folder.display());
    }
    if let Some((step, error)) = failed_step(error) {
        return explain_step(step, &error);
    }
    let program = match run {
        RunCommand::Shell(_) => "sh",
        RunCommand::Exec(words) => words.first().map_or("", String::as_str),
    };
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => format!(
            "`{program}` was not found in {}; hint: correct `run`, or upload the file (a script \
             whose `#!` interpreter is missing looks the same)",
            folder.display()
        ),
        io::ErrorKind::NotFound => {
            format!("`{program}` was not found in PATH; hint: install it, or write its whole path in `run`")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "`{program}` may not be executed; hint: chmod +x {program}, and with `user` let that user through \
                 every folder above it"
            )
        }
        _ => format!("`{program}`: {error}"),
    }
}

/// Why a process could not be made what the service says.
fn explain_step(step: Step, error: &io::Error) -> String {
    let (key, hint) = match step {
        Step::Cgroup => {
            ("its cgroup", "see who owns it: ls -l /sys/fs/cgroup; under systemd: `Delegate=yes`")
        }
        Step::OomScoreAdj => ("`oom_score_adj`", "a lower value than switchman's own wants root"),
        Step::Nice => ("`nice`", "a lower value than switchman's own wants root"),
        Step::Rlimit(_) => {
            ("`rlimits`", "the hard limit can be raised by root only; see what holds: ulimit -H -a")
        }
        Step::Groups | Step::Group | Step::User => ("`user` or `group`", "start switchman as root"),
        Step::NoNewPrivs => ("`no_new_privs`", "remove it; this kernel does not know it"),
        Step::Listener => ("its socket", "use `upstream: port`"),
    };
    format!("{key} cannot be set: {error}; hint: {hint}")
}

/// How a process ended; without a status it was not our child.
pub(crate) fn explain_exit(status: Option<ExitStatus>, run: &RunCommand) -> String {
    let Some(status) = status else {
        return "ended; its exit status went to whoever had adopted it".to_owned();
    };
    let shell = matches!(run, RunCommand::Shell(_));
    match (status.code(), status.signal()) {
        (Some(127), _) if shell => {
            "exited with status 127: the shell did not find a command of `run`; hint: install it, or write its whole path"
                .to_owned()
        }
        (Some(126), _) if shell => {
            "exited with status 126: a command of `run` may not be executed; hint: chmod +x it".to_owned()
        }
        (Some(0), _) => {
            "exited with status 0; hint: `run` must stay in the foreground (no `&` at its end), or, if it is a daemon, \
             write its number to the file $PIDFILE"
                .to_owned()
        }
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("was ended by signal {signal} ({name})"),
            None => format!("was ended by signal {signal}"),
        },
        (None, None) => format!("ended: {status}"),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL: somebody or the kernel's out-of-memory killer",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_told_in_words_with_a_hint_where_there_is_one() {
        let shell = RunCommand::Shell("x".into());
        let exec = RunCommand::Exec(vec!["x".into()]);
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        for (status, run, words) in [
            (Some(code(1)), &shell, "exited with status 1"),
            (Some(code(0)), &shell, "must stay in the foreground"),
            (Some(code(127)), &shell, "the shell did not find a command"),
            (Some(code(126)), &shell, "chmod +x"),
            (Some(code(127)), &exec, "exited with status 127"),
            (Some(ExitStatus::from_raw(9)), &shell, "signal 9 (KILL"),
            (Some(ExitStatus::from_raw(11)), &exec, "signal 11 (SEGV)"),
            (Some(ExitStatus::from_raw(34)), &exec, "signal 34"),
            (None, &shell, "its exit status went to whoever had adopted it"),
        ] {
            let said = explain_exit(status, run);
            assert!(said.contains(words), "{said}");
        }
        assert!(!explain_exit(Some(code(127)), &exec).contains("shell"));
    }

    #[test]
    fn a_start_that_fails_names_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let exec = |word: &str| RunCommand::Exec(vec![word.to_owned()]);
        let not_found = io::Error::from(io::ErrorKind::NotFound);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let gone = folder.path().join("gone");
        for (error, run, folder, words) in [
            (&not_found, exec("nodee"), folder.path(), "`nodee` was not found in PATH; hint"),
            (&not_found, exec("./server"), folder.path(), "`./server` was not found in /"),
            (&denied, exec("./server"), folder.path(), "hint: chmod +x ./server"),
            (&not_found, exec("node"), gone.as_path(), "is not there"),
        ] {
            let said = explain_spawn(error, &run, folder);
            assert!(said.contains(words), "{said}");
        }
    }
}
