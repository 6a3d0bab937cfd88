//! The reference of all keys, made from `keys`: `docs/configuration.md` is this text.

use std::fmt::Write;

use super::keys::{self, Key, KeyDefault, Section};

const INTRODUCTION: &str = "\
# The configuration file

<!-- Made from src/config/keys.rs. To refresh it: SWITCHMAN_BLESS=1 cargo test --lib config::reference -->

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
    let title = match section.path {
        "" => "Top of the file".to_owned(),
        path if path == keys::RUN.path && section.doc == keys::RUN.doc => "How a version runs".to_owned(),
        path => format!("`{path}`"),
    };
    let mut text = format!("\n## {title}\n\n{}\n\n", section.doc);
    text.push_str("| key | value | default | example | meaning |\n|---|---|---|---|---|\n");
    for key in section.keys {
        text.push_str(&row(key));
    }
    text
}

fn row(key: &Key) -> String {
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
        "| `{}` | {} | {} | `{}` | {} |",
        key.name,
        cell(key.takes),
        cell(&default),
        cell(key.example),
        cell(key.doc)
    );
    row
}
