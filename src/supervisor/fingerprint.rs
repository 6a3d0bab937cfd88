//! What a process was started with, in one short text: a worker that is adopted is restarted only if that has changed.
//!
//! Only what makes the process another one counts: not how many there are, how they are checked or how they are
//! stopped. The text must stay the same over versions of switchman, or the upgrade to a new one would restart
//! every worker: a key that is new here counts only where it is not at its default.

use xxhash_rust::xxh3::Xxh3;

use crate::config::{Protocol, RunCommand, RunSpec, UpstreamAt};

/// The fingerprint of a process that is started with `run` and `spec`.
pub(crate) fn of(run: &RunCommand, spec: &RunSpec) -> String {
    let mut said: Vec<(&str, &str)> = Vec::new();
    match run {
        RunCommand::Shell(text) => said.push(("shell", text)),
        RunCommand::Exec(words) => said.extend(words.iter().map(|word| ("exec", word.as_str()))),
    }
    for (name, value) in &spec.env {
        said.extend([("env", name.as_str()), ("value", value)]);
    }
    match spec.upstream {
        UpstreamAt::Port => {}
        UpstreamAt::Unix => said.push(("upstream", "unix")),
        UpstreamAt::Inherit => said.push(("upstream", "inherit")),
    }
    match spec.protocol {
        Protocol::Http1 => {}
        Protocol::H2c => said.push(("protocol", "h2c")),
    }
    let mut hash = Xxh3::new();
    for part in said.iter().flat_map(|(key, value)| [key, value]) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("{:016x}", hash.digest())
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
        let words = |words: &[&str]| RunCommand::Exec(words.iter().map(|word| word.to_string()).collect());
        let mut all = vec![
            first,
            of(&RunCommand::Shell("node other.js".to_owned()), &spec),
            of(&words(&["node", "server.js"]), &spec),
            of(&words(&["node server.js"]), &spec),
            of(&run, &RunSpec { upstream: UpstreamAt::Unix, ..spec.clone() }),
            of(&run, &RunSpec { protocol: Protocol::H2c, ..spec.clone() }),
            of(&run, &env(&[("A", "b")])),
            of(&run, &env(&[("A", ""), ("b", "")])),
        ];
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "each has its own");
    }
}
