//! Reads when an upload is complete, and what follows from a later one: `complete_when`, `restart_on_change`.

use std::path::{Component, Path, PathBuf};

use crate::hint::Problem;
use crate::yaml::{Fields, Reader};

/// What a service says of uploads, beside `settle`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upload {
    /// The file, below the version's folder, without which no version is complete.
    pub complete_when: Option<PathBuf>,
    /// Whether a version whose files have changed is restarted once its folder is complete again.
    pub restart_on_change: bool,
}

/// What the service's `fields` say of uploads.
pub(super) fn read(service: &Fields<'_>) -> Upload {
    Upload {
        complete_when: service.get("complete_when").and_then(|reader| reader.value(marker)),
        restart_on_change: service.get("restart_on_change").and_then(|r: Reader<'_>| r.boolean())
            == Some(true),
    }
}

/// A file below a folder.
fn marker(text: &str) -> Result<PathBuf, Box<Problem>> {
    let path = Path::new(text);
    let wrong = |message: String, hint: &str| Err(Box::new(Problem::error("", message).hint(hint)));
    let parts = || path.components().filter(|part| *part != Component::CurDir);
    if !parts().all(|part| matches!(part, Component::Normal(_))) {
        let hint = "write its path below the version's folder, as in `complete_when: .ready`";
        return wrong(format!("`{text}` is not below the version's folder"), hint);
    }
    if parts().next().is_none() || text.ends_with('/') {
        let hint = "write the name of the file that is uploaded last, as in `complete_when: manifest.sha256`";
        return wrong(format!("`{text}` is not the name of a file"), hint);
    }
    Ok(parts().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_a_file_below_the_folder() {
        for (text, expected) in [
            (".ready", Some(".ready")),
            ("meta/manifest.sha256", Some("meta/manifest.sha256")),
            ("./.ready", Some(".ready")),
            ("", None),
            (".", None),
            ("meta/", None),
            ("/srv/app/.ready", None),
            ("../.ready", None),
            ("a/../.ready", None),
        ] {
            assert_eq!(marker(text).ok(), expected.map(PathBuf::from), "{text:?}");
        }
    }
}
