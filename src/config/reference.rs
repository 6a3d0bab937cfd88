//! The reference of all keys, made from `keys`: `docs/configuration.md` is this text.

use std::fmt::Write;

use super::keys::{self, Key, KeyDefault, Section};

const INTRODUCTION: &str = "\
# The configuration file

<!-- Made from src/config/keys/mod.rs. To refresh it: SWITCHMAN_BLESS=1 cargo test --lib config::reference -->

`switchman serve` reads `./switchman.yaml`, else `/etc/switchman/switchman.yaml`, or the file after `--config`.
The smallest file:

```yaml
services:
  app:
    root: /srv/app
    run: node server.js --port $PORT
```

- A relative path begins at the folder of the file.
- A duration has a unit: `500ms`, `2s`, `1m30s`, `1h`. The longest is seven days.
- A key with nothing after it counts as left out.
- An unknown key is an error. All problems are reported at once, each with its line and what to write instead.

What a version runs as is looked up key by key: the `switchman.yaml` in the version's folder, its `Procfile`
(only `run`), the service, the default. `env` is merged, and the folder's values win.
";

/// All keys as Markdown.
pub fn reference() -> String {
    keys::ALL.iter().fold(INTRODUCTION.to_owned(), |text, section| text + &table(section))
}

fn table(section: &Section) -> String {
    let mut text = format!("\n## {}\n\n{}\n\n", section.title, section.doc);
    text.push_str("| key | value | default | example | meaning |\n|---|---|---|---|---|\n");
    for key in section.keys {
        text.push_str(&row(section.path, key));
    }
    text
}

fn row(path: &str, key: &Key) -> String {
    let default = match key.default {
        KeyDefault::Required => "required".to_owned(),
        KeyDefault::Value(value) => format!("`{value}`"),
        KeyDefault::Words(words) => words.to_owned(),
    };
    // A bar inside a cell would end it, in code too.
    let cell = |text: &str| text.replace('|', "\\|");
    let mut row = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        row,
        "| `{path}{}{}` | {} | {} | `{}` | {} |",
        if path.is_empty() { "" } else { "." },
        key.name,
        cell(key.takes),
        cell(&default),
        cell(key.example),
        cell(key.doc)
    );
    row
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::{self, Surroundings};
    use crate::config::tests::around;
    use crate::yaml::{Entry, Node, Place, Value, parse};

    /// The configuration that a key is added to.
    const BASE: &str = "
services:
  NAME: {root: /srv/app}
";
    /// The same, for keys that only mean something with etcd.
    const BASE_ETCD: &str = "
etcd: {endpoints: [\"http://10.0.0.9:2379\"], user: someone, password_file: secrets/other.password}
services:
  NAME: {root: /srv/app, rules: {etcd: /some/key}}
";
    /// The same, for keys that only mean something with TLS or with proxies in front.
    const BASE_FRONT: &str = "
trusted_proxies: 192.0.2.1
tls: {listen: \"127.0.0.1:9443\", certificates: {certificate: secrets/other.pem, key: secrets/other.key}}
services:
  NAME: {root: /srv/app}
";

    /// The same, for keys of a compression that is on.
    const BASE_COMPRESS: &str = "
services:
  NAME: {root: /srv/app, compress: {types: text/html}}
";
    /// The same, for `prune`, and for one hook.
    const BASE_KEEP: &str = "
services:
  NAME: {root: /srv/app, keep: 3, hooks: {before_start: {run: ./other}}}
";
    /// The same, for workers that follow the load.
    const BASE_SCALE: &str = "
services:
  NAME: {root: /srv/app, workers: {max: 9, target_in_flight: 9}}
";
    /// The same, for keys that only mean something with a limit.
    const BASE_LIMITED: &str = "
services:
  NAME: {root: /srv/app, max_in_flight: 5}
";

    /// The same, for keys of a warming request.
    const BASE_WARM: &str = "
services:
  NAME: {root: /srv/app, warm: {path: /}}
";

    /// Sets the value at `path`, making the maps on the way.
    fn set(node: &mut Node, path: &[&str], value: Node) {
        let [key, rest @ ..] = path else {
            *node = value;
            return;
        };
        if node.map().is_none() {
            node.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut node.value else { unreachable!() };
        let index = entries.iter().position(|e| e.key == *key).unwrap_or_else(|| {
            let value = Node { place: Place::default(), value: Value::Map(Vec::new()) };
            entries.push(Entry { key: key.to_string(), place: Place::default(), value });
            entries.len() - 1
        });
        set(&mut entries[index].value, rest, value);
    }

    /// What the configuration is with `value` under a key of a section; without, where there is none.
    fn with(section: &Section, key: &str, value: Option<&str>) -> String {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/configs/valid");
        let around = Surroundings { folder: fixtures, ..around() };
        let needs_etcd = [keys::ETCD.path, keys::RULES.path].contains(&section.path);
        let needs_front = [keys::front::FRONT, keys::front::TLS, keys::front::CERTIFICATE];
        let needs_front = needs_front.iter().any(|front| front.title == section.title);
        let base = match section.path {
            _ if needs_etcd => BASE_ETCD,
            _ if needs_front => BASE_FRONT,
            path if key == "queue" || path == keys::limits::QUEUE.path => BASE_LIMITED,
            path if path == keys::life::WARM.path => BASE_WARM,
            path if path == keys::bodies::COMPRESS.path => BASE_COMPRESS,
            path if key == "prune" || path == keys::keep::HOOK.path => BASE_KEEP,
            path if path == keys::keep::WORKERS.path => BASE_SCALE,
            _ => BASE,
        };
        let mut node = parse(base).unwrap();
        if let Some(value) = value {
            let path: Vec<_> = section.path.split('.').filter(|p| !p.is_empty()).chain([key]).collect();
            set(&mut node, &path, parse(value).unwrap());
        }
        let (config, problems) = read::config(&node, &around);
        assert!(problems.is_empty(), "{}.{key}: {value:?}: {problems}", section.path);
        let password = config.as_ref().and_then(|c| Some(&c.etcd.as_ref()?.user.as_ref()?.1.0));
        format!("{config:?} {password:?}")
    }

    fn each_key() -> impl Iterator<Item = (&'static Section, &'static Key)> {
        keys::ALL.into_iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
    }

    #[test]
    fn every_example_is_read_and_changes_the_configuration() {
        for (section, key) in each_key() {
            let what = format!("{}.{}", section.path, key.name);
            let (with, without) = (with(section, key.name, Some(key.example)), with(section, key.name, None));
            // `tcp: true` is the default and the only value.
            if what != "services.NAME.ready.tcp" {
                assert_ne!(with, without, "the example of {what} changes nothing: is the key read?");
            }
        }
    }

    #[test]
    fn every_default_is_what_holds_without_the_key() {
        for (section, key) in each_key() {
            if let KeyDefault::Value(value) = key.default {
                let what = format!("{}.{}", section.path, key.name);
                assert_eq!(with(section, key.name, Some(value)), with(section, key.name, None), "{what}");
            }
        }
    }

    #[test]
    fn the_written_reference_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        if std::env::var_os("SWITCHMAN_BLESS").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let refresh = "run: SWITCHMAN_BLESS=1 cargo test --lib config::reference";
        assert!(written == reference(), "docs/configuration.md is not what the keys say; {refresh}");
    }

    /// The blocks of YAML in the reference, and the example beside the README, load.
    #[test]
    fn examples_for_people_load() {
        let text = reference();
        let block = text.split("```yaml\n").nth(1).and_then(|t| t.split("```").next()).unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("switchman.example.yaml");
        for text in [block.to_owned(), std::fs::read_to_string(example).unwrap()] {
            let (config, problems) = read::config(&parse(&text).unwrap(), &around());
            assert!(config.is_some() && problems.is_empty(), "{problems}\n{text}");
        }
    }
}
