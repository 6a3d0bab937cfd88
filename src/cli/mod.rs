//! The command line: one file a command. Every command but `serve` and `demo` asks a running switchman through
//! its admin API and uses nothing else.
//!
//! Data goes to stdout, the rest to stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the
//! running switchman.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::telemetry;

/// start, stop, restart, drain, scale.
mod act;
/// Shell completions.
mod completions;
/// Which switchman, which service.
mod connect;
/// A whole running example.
pub mod demo;
/// How a command ends when it does not succeed.
mod failure;
/// The last lines of a version.
mod logs;
/// stdout and stderr.
mod output;
/// promote, rollback.
mod promote;
/// The rule document.
mod rules;
/// TERM and INT.
mod signals;
/// The server itself.
pub mod serve;
/// versions as a table.
mod table;
/// tag, untag.
mod tag;
/// versions.
mod versions;

use failure::Failure;

/// Watches a deploy folder, runs every version dark, and routes each request to a version by rules.
#[derive(Debug, Parser)]
#[command(name = "switchman", version, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the running switchman.")]
struct Cli {
    /// What to log to stderr: error, warn, info, debug, trace, or per module as in `info,worker=off`
    #[arg(long, env = "SWITCHMAN_LOG", value_name = "FILTER", global = true)]
    log: Option<String>,
    /// The form of the log
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: telemetry::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the deploy roots, run the versions, answer requests
    Serve(serve::ServeArgs),
    /// List the versions: state, aliases, routes, workers, traffic
    Versions(versions::Args),
    /// Turn `current` to a version that is ready; what was current becomes `previous`
    Promote(promote::PromoteArgs),
    /// Swap `current` and `previous`
    Rollback(promote::RollbackArgs),
    /// Start a version that is stopped or failed
    Start(act::StartArgs),
    /// Let the running requests of a version end, then stop its workers
    Stop(act::StopArgs),
    /// Replace the workers of a version, or of all, one at a time
    Restart(act::RestartArgs),
    /// Like stop: take no new requests, let the running ones end, then stop
    Drain(act::DrainArgs),
    /// Change how many workers a version has
    Scale(act::ScaleArgs),
    /// Point an alias to a version
    Tag(tag::TagArgs),
    /// Remove an alias
    Untag(tag::UntagArgs),
    /// Read, replace, check and explain the rule document
    #[command(subcommand)]
    Rules(rules::Command),
    /// Print the last lines that the workers of a version wrote
    Logs(logs::Args),
    /// Run a whole example in a temporary folder
    Demo(demo::DemoArgs),
    /// The sample application of the demo
    #[command(hide = true)]
    DemoApp(demo::SampleArgs),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let long_running = matches!(cli.command, Command::Serve(_));
    let filter = cli.log.as_deref().unwrap_or(if long_running { "info" } else { "warn" });
    if let Err(error) = telemetry::start(filter, cli.log_format) {
        return Failure::usage(format!("--log `{filter}` is no filter: {error}"))
            .hint("write a level, or: --log info,worker=off")
            .report();
    }
    let runtime = if matches!(cli.command, Command::Serve(_) | Command::Demo(_)) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    };
    match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => Failure::failed(format!("the runtime cannot start: {error}")).report(),
    }
}

async fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Serve(args) => return serve::run(args).await,
        Command::Demo(args) => return demo::run(args).await,
        Command::DemoApp(args) => return demo::serve_sample(args).await,
        Command::Versions(args) => versions::run(args).await,
        Command::Promote(args) => promote::promote(args).await,
        Command::Rollback(args) => promote::rollback(args).await,
        Command::Start(args) => act::start(args).await,
        Command::Stop(args) => act::stop(args).await,
        Command::Restart(args) => act::restart(args).await,
        Command::Drain(args) => act::drain(args).await,
        Command::Scale(args) => act::scale(args).await,
        Command::Tag(args) => tag::tag(args).await,
        Command::Untag(args) => tag::untag(args).await,
        Command::Rules(command) => rules::run(command).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command).map_err(|e| e.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_line_of_the_manual_is_understood() {
        for line in [
            "switchman serve",
            "switchman serve --config switchman.yaml --log debug --log-format json",
            "switchman serve --root /srv/app --run server --listen 127.0.0.1:7000",
            "switchman versions",
            "switchman versions --json --watch --all --service app --admin /run/s.sock",
            "switchman promote 4f2a91c",
            "switchman rollback --admin http://127.0.0.1:7001",
            "switchman start 4f2a91c --no-wait",
            "switchman stop 4f2a91c --force --timeout 2m",
            "switchman restart 4f2a91c",
            "switchman restart --all",
            "switchman restart --all --service app --no-wait",
            "switchman drain 4f2a91c --config /etc/switchman/switchman.yaml",
            "switchman scale 4f2a91c --workers 4",
            "switchman tag beta 4f2a91c",
            "switchman untag beta",
            "switchman rules get --json",
            "switchman rules set rules.yaml --if-revision 4",
            "switchman rules check -",
            "switchman rules explain -H x-qa:yes -b uid=77 -X POST --host app.example.com --client-ip ::1 /cart",
            "switchman logs 4f2a91c -f",
            "switchman demo --once",
            "switchman demo-app --port 4000",
            "switchman completions fish",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        use clap::error::ErrorKind as Kind;
        for (line, kind) in [
            ("switchman promote", Kind::MissingRequiredArgument),
            ("switchman restart", Kind::MissingRequiredArgument),
            ("switchman restart 4f2a91c --all", Kind::ArgumentConflict),
            ("switchman scale 4f2a91c", Kind::MissingRequiredArgument),
            ("switchman scale 4f2a91c --workers 0", Kind::ValueValidation),
            ("switchman stop 4f2a91c --timeout 5", Kind::ValueValidation),
            ("switchman rules explain -H nocolon /", Kind::ValueValidation),
            ("switchman rules explain -b noequals /", Kind::ValueValidation),
            ("switchman frobnicate", Kind::InvalidSubcommand),
            ("switchman serve --root /srv/app --config x.yaml", Kind::ArgumentConflict),
        ] {
            assert_eq!(parse(line).map(|_| ()), Err(kind), "{line}");
        }
    }
}
