//! What a process was started with, in one short text: a worker that is adopted is restarted only if that has changed.
//!
//! Only what makes the process another one counts: not how many there are, how they are checked or how they are
//! stopped. The text must stay the same over versions of switchman, or the upgrade to a new one would restart
//! every worker: a key that is new here counts only where it is not at its default.

use xxhash_rust::xxh3::Xxh3;

use crate::config::{Isolation, Protocol, RunCommand, RunSpec, UpstreamAt};

/// The fingerprint of a process that is started with `run` and `spec`.
pub(crate) fn of(run: &RunCommand, spec: &RunSpec) -> String {
    let mut said = Said(Xxh3::new());
    match run {
        RunCommand::Shell(text) => said.that("shell", text),
        RunCommand::Exec(words) => words.iter().for_each(|word| said.that("exec", word)),
    }
    for (name, value) in &spec.env {
        said.that("env", name);
        said.that("value", value);
    }
    match spec.upstream {
        UpstreamAt::Port => {}
        UpstreamAt::Unix => said.that("upstream", "unix"),
        UpstreamAt::Inherit => said.that("upstream", "inherit"),
    }
    match spec.protocol {
        Protocol::Http1 => {}
        Protocol::H2c => said.that("protocol", "h2c"),
    }
    said.isolation(&spec.isolation);
    format!("{:016x}", said.0.digest())
}

/// What was said so far. A part's length goes before it, so that no two sequences of parts look alike.
struct Said(Xxh3);

impl Said {
    fn that(&mut self, name: &str, value: &str) {
        for part in [name, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part.as_bytes());
        }
    }

    fn number(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.that(name, &value.to_string());
        }
    }

    fn isolation(&mut self, isolation: &Isolation) {
        let Isolation { account, umask, rlimits, nice, oom_score_adj, no_new_privs, cgroup } = isolation;
        if let Some(account) = account {
            self.number("user", Some(account.uid));
            self.number("group", Some(account.gid));
            account.groups.iter().for_each(|group| self.number("groups", Some(group)));
        }
        self.number("umask", *umask);
        for limit in rlimits {
            self.that("rlimit", limit.resource.name());
            self.number("soft", limit.soft);
            self.number("hard", limit.hard);
        }
        self.number("nice", *nice);
        self.number("oom_score_adj", *oom_score_adj);
        if *no_new_privs {
            self.that("no_new_privs", "true");
        }
        self.number("cgroup.memory_max", cgroup.memory_max);
        self.number("cgroup.cpu_max", cgroup.cpu_max);
        self.number("cgroup.pids_max", cgroup.pids_max);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_changes_with_the_process_alone_and_stays_as_it_is_over_versions() {
        let run = RunCommand::Shell("node server.js --port $PORT".to_owned());
        let spec = RunSpec { run: Some(run.clone()), ..RunSpec::default() };
        let first = of(&run, &spec);
        assert_eq!(first, "9b3914cc88a7e3d0", "workers would be restarted by an upgrade of switchman");

        let mut same = RunSpec { workers: 7, ..spec.clone() };
        same.stop.grace = Duration::from_secs(77);
        same.ready.interval = Duration::from_secs(7);
        assert_eq!(of(&run, &same), first);

        let env = |pairs: &[(&str, &str)]| RunSpec {
            env: pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..spec.clone()
        };
        let isolated = |change: fn(&mut Isolation)| {
            let mut spec = spec.clone();
            change(&mut spec.isolation);
            spec
        };
        let words = |words: &[&str]| RunCommand::Exec(words.iter().map(|word| word.to_string()).collect());
        let mut all = vec![
            first,
            of(&RunCommand::Shell("node other.js".to_owned()), &spec),
            of(&words(&["node", "server.js"]), &spec),
            of(&words(&["node server.js"]), &spec),
            of(&run, &RunSpec { upstream: UpstreamAt::Unix, ..spec.clone() }),
            of(&run, &RunSpec { protocol: Protocol::H2c, ..spec.clone() }),
            of(&run, &RunSpec { upstream: UpstreamAt::Inherit, ..spec.clone() }),
            of(&run, &isolated(|i| i.nice = Some(5))),
            of(&run, &isolated(|i| i.oom_score_adj = Some(5))),
            of(&run, &isolated(|i| i.no_new_privs = true)),
            of(&run, &isolated(|i| i.cgroup.pids_max = Some(5))),
            of(&run, &env(&[("A", "b")])),
            of(&run, &env(&[("A", ""), ("b", "")])),
        ];
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "each has its own");
    }
}
