//! What became of the version folders between two listings of a root. Pure.

use std::collections::BTreeMap;

use super::scan::Folder;
use crate::version::VersionId;

/// What became of one version folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is not there any more, or another folder stands in its place (a [`Difference::Came`] follows).
    Gone(VersionId),
    /// It was not there before.
    Came {
        /// Its name.
        version: VersionId,
        /// The folder.
        folder: Folder,
        /// The name under which the same folder was there before.
        renamed_from: Option<VersionId>,
    },
}

/// Everything that is different in `new`: first what is gone, then what came, each by name.
pub fn diff(old: &BTreeMap<VersionId, Folder>, new: &BTreeMap<VersionId, Folder>) -> Vec<Difference> {
    let same =
        |a: Option<&Folder>, b: &Folder| a.is_some_and(|a| a.identity == b.identity && a.link == b.link);
    let gone: Vec<(&VersionId, &Folder)> =
        old.iter().filter(|(version, folder)| !same(new.get(*version), folder)).collect();
    let came = new.iter().filter(|(version, folder)| !same(old.get(*version), folder));
    let came = came.map(|(version, folder)| Difference::Came {
        version: version.clone(),
        folder: folder.clone(),
        renamed_from: gone
            .iter()
            .find(|(name, was)| *name != version && same(Some(was), folder))
            .map(|(name, _)| (*name).clone()),
    });
    gone.iter().map(|(version, _)| Difference::Gone((*version).clone())).chain(came).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Folders = BTreeMap<VersionId, Folder>;

    fn folders(list: &[(&str, u64)]) -> Folders {
        let folder = |name: &str, ino| Folder { path: name.into(), identity: (1, ino), link: false };
        list.iter().map(|(name, ino)| (VersionId::from(*name), folder(name, *ino))).collect()
    }

    #[test]
    fn differences_between_two_listings() {
        let told = |old: &[(&str, u64)], new: &[(&str, u64)]| -> Vec<String> {
            let told = diff(&folders(old), &folders(new)).into_iter();
            told.map(|d| match d {
                Difference::Gone(version) => format!("-{version}"),
                Difference::Came { version, renamed_from: Some(from), .. } => {
                    format!("+{version} was {from}")
                }
                Difference::Came { version, .. } => format!("+{version}"),
            })
            .collect()
        };
        assert_eq!(told(&[("a", 1)], &[("a", 1)]), [""; 0]);
        assert_eq!(told(&[("a", 1)], &[("a", 1), ("b", 2)]), ["+b"]);
        assert_eq!(told(&[("a", 1), ("b", 2)], &[("b", 2)]), ["-a"]);
        assert_eq!(told(&[("a", 1)], &[("b", 1)]), ["-a", "+b was a"], "renamed");
        assert_eq!(told(&[("a", 1)], &[("a", 2)]), ["-a", "+a"], "replaced");
        assert_eq!(told(&[("a", 1), ("b", 2)], &[("a", 2)]), ["-a", "-b", "+a was b"], "moved over");
        assert_eq!(
            told(&[("a", 1), ("b", 2)], &[("a", 2), ("b", 1)]),
            ["-a", "-b", "+a was b", "+b was a"],
            "exchanged"
        );
    }

    fn any_folders() -> impl Strategy<Value = Folders> {
        prop::collection::vec(("[a-e]", 0u64..4), 0..5)
            .prop_map(|list| folders(&list.iter().map(|(n, i)| (n.as_str(), *i)).collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn applying_the_differences_makes_old_into_new(old in any_folders(), new in any_folders()) {
            let mut applied = old.clone();
            for difference in diff(&old, &new) {
                match difference {
                    Difference::Gone(version) => prop_assert!(applied.remove(&version).is_some()),
                    Difference::Came { version, folder, renamed_from } => {
                        if let Some(from) = renamed_from {
                            prop_assert_eq!(old[&from].identity, folder.identity);
                        }
                        prop_assert!(applied.insert(version, folder).is_none());
                    }
                }
            }
            prop_assert_eq!(applied, new);
        }
    }
}
