//! The fuzz functions over their seeds, and over seeds that were changed in a few places.

use std::path::{Path, PathBuf};

use super::TARGETS;

/// Changed copies of one seed.
const MUTATIONS: usize = 300;
/// Bytes that parsers stumble over more often than over others.
const TELLING: &[u8] = b"\r\n\t \0\x0b\x7f\xff:;,=_-+0123456789abcxX\"{}[]/?#@%";

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The seeds of a target, by file name.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz_folder().join("seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// One to four bytes exchanged, put in, taken out, or a stretch said twice.
fn mutate(seed: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=bytes.len());
        let byte = if random.bool() { TELLING[random.usize(..TELLING.len())] } else { random.u8(..) };
        match random.u8(..4) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => {
                let end = (at + random.usize(..40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            _ => bytes.insert(at, byte),
        }
    }
    bytes
}

#[test]
fn what_holds_for_all_bytes_holds_for_the_seeds_and_for_changes_of_them() {
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "fuzz/seeds/{name} has {} seeds", seeds.len());
        for (path, seed) in seeds {
            let mut random = fastrand::Rng::with_seed(seed.len() as u64);
            run(&seed);
            for _ in 0..MUTATIONS {
                let bytes = mutate(&seed, &mut random);
                let held = std::panic::catch_unwind(|| run(&bytes));
                assert!(held.is_ok(), "{name}, from {}: {}", path.display(), bytes.escape_ascii());
            }
        }
    }
}

#[test]
fn each_target_has_its_program() {
    let manifest = std::fs::read_to_string(fuzz_folder().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let program = std::fs::read_to_string(fuzz_folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("fuzzing::{name}(")), "{name}.rs calls another function");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not name {name}");
    }
}
