//! Which keys of a file have other values than before: what a reload tells a person.

use std::path::Path;

use super::Config;
use crate::hint::{Problem, Problems};
use crate::yaml::{self, Node};

/// The keys whose values differ between two texts, in the order of the new one, those that are gone last: as in
/// `services.app.hosts`. A map that is there in one of them only is one key.
pub fn changed_keys(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (yaml::parse_all(old).0, yaml::parse_all(new).0);
    let mut keys = Vec::new();
    if let (Some(old), Some(new)) = (&old, &new) {
        compare("", old, new, &mut keys);
    }
    keys
}

fn compare(at: &str, old: &Node, new: &Node, keys: &mut Vec<String>) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    if let (Some(before), Some(now)) = (old.map(), new.map()) {
        for entry in now {
            match old.get(&entry.key) {
                Some(before) => compare(&below(&entry.key), before, &entry.value, keys),
                None => keys.push(below(&entry.key)),
            }
        }
        keys.extend(before.iter().filter(|e| new.get(&e.key).is_none()).map(|e| below(&e.key)));
    } else if !same(old, new) {
        keys.push(at.to_owned());
    }
}

/// Whether both hold the same, wherever it stands.
fn same(old: &Node, new: &Node) -> bool {
    match (old.map(), new.map(), old.list(), new.list()) {
        (Some(old), Some(new), ..) => {
            old.len() == new.len()
                && old.iter().zip(new).all(|(o, n)| o.key == n.key && same(&o.value, &n.value))
        }
        (.., Some(old), Some(new)) => old.len() == new.len() && old.iter().zip(new).all(|(o, n)| same(o, n)),
        _ => old.scalar().is_some() && old.scalar() == new.scalar(),
    }
}

/// What differs and cannot change while switchman runs.
pub fn fixed(old: &Config, new: &Config) -> Problems {
    let etcd = |config: &Config| {
        config.etcd.as_ref().map(|etcd| {
            let user = etcd.user.as_ref().map(|(user, password)| (user.clone(), password.0.clone()));
            (etcd.endpoints.clone(), etcd.prefix.clone(), user)
        })
    };
    let admin = |config: &Config| (config.admin.listen, config.admin.socket.clone());
    let keys = [
        ("threads", old.threads != new.threads),
        ("node", old.node != new.node),
        ("etcd", etcd(old) != etcd(new)),
        ("admin", admin(old) != admin(new)),
        ("max_workers_starting", old.max_workers_starting != new.max_workers_starting),
    ];
    let problem = |key: &str| {
        Problem::error(key, format!("`{key}` cannot change while switchman runs"))
            .hint("a new process takes it, and nobody is cut: switchman upgrade")
    };
    let mut problems: Vec<Problem> = keys.iter().filter(|(_, is)| *is).map(|(key, _)| problem(key)).collect();
    if old.state != new.state {
        problems.push(state_moved(&old.state, &new.state));
    }
    Problems(problems)
}

/// Workers are recorded in the state folder: who does not know it cannot take them over.
pub fn state_moved(from: &Path, to: &Path) -> Problem {
    let (from, to) = (from.display(), to.display());
    Problem::error("state", format!("`state` cannot move from {from} to {to} while workers run"))
        .hint("stop switchman, move the folder, start it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::read_text;
    use crate::config::tests::around;

    #[test]
    fn only_what_differs_is_named() {
        let old = "listen: [\"127.0.0.1:7000\"]\nlimits: {body: 1MiB}\nservices:\n  app: {root: /srv/app, workers: 2}\n  \
                   old: {root: /srv/old}\n";
        for (new, keys) in [
            (old, vec![]),
            (
                "services:\n  app: {workers: 2, root: /srv/app}\n  old: {root: /srv/old}\n# x\nlimits: {body: 1MiB}\n\
                 listen:\n- \"127.0.0.1:7000\"\n",
                vec![],
            ),
            (
                "listen: [\"127.0.0.1:7000\", \":7002\"]\nlimits: {body: 2MiB, head: 8KiB}\nservices:\n  \
                 app: {root: /srv/app}\n  new: {root: /srv/new}\n",
                vec![
                    "listen",
                    "limits.body",
                    "limits.head",
                    "services.new",
                    "services.app.workers",
                    "services.old",
                ],
            ),
        ] {
            let mut keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
            let mut found = changed_keys(old, new);
            keys.sort();
            found.sort();
            assert_eq!(found, keys, "{new}");
        }
    }

    #[test]
    fn what_only_a_new_process_can_take_is_refused_by_name() {
        let read = |more: &str| {
            let text = format!("{more}\nservices: {{app: {{root: /srv/app}}}}\n");
            read_text(&text, "switchman.yaml", &around()).0.unwrap()
        };
        let old = read("threads: 2");
        let keys = |new: &str| fixed(&old, &read(new)).0.into_iter().map(|p| p.key).collect::<Vec<_>>();
        assert_eq!(keys("threads: 2\nlisten: \":7009\""), Vec::<String>::new());
        assert_eq!(
            keys(
                "threads: 3\nmax_workers_starting: 3\nstate: other\nnode: b\nadmin: {listen: off}\netcd: {endpoints: \"http://a:1\"}"
            ),
            ["threads", "node", "etcd", "admin", "max_workers_starting", "state"]
        );
    }
}
