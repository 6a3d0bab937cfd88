//! What a service says of bodies and error pages: buffering, compression, the folder of pages.

use std::path::{Path, PathBuf};

use super::keys::bodies::COMPRESS;
use super::keys::names;
use super::read::path;
use super::size::size;
use super::value;
use super::{Coding, Compress, Delivery};
use crate::yaml::{Fields, Reader};

/// The most that may be held of one body, in bytes.
const BUFFER_MAX: u64 = 1 << 30;

const CODINGS: [(&str, Coding); 3] = [("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];

/// Content types that become much smaller: text in many forms, and what is not compressed by itself.
const TYPES: [&str; 15] = [
    "text/*",
    "application/atom+xml",
    "application/geo+json",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/rss+xml",
    "application/wasm",
    "application/xhtml+xml",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/svg+xml",
    "image/x-icon",
];

impl Default for Compress {
    fn default() -> Self {
        let codings = CODINGS.map(|(_, coding)| coding).to_vec();
        Self { codings, types: TYPES.map(str::to_owned).to_vec(), min: 1024 }
    }
}

/// Reads the keys of one service into `delivery`.
pub(super) fn of_service(fields: &Fields<'_>, folder: &Path, delivery: &mut Delivery) {
    let bytes = |key: &str| fields.get(key)?.value(|text| size(text, 0..=BUFFER_MAX));
    delivery.buffer = bytes("buffer").unwrap_or(delivery.buffer);
    delivery.buffer_requests = bytes("buffer_requests").unwrap_or(delivery.buffer_requests);
    delivery.compress = fields.get("compress").and_then(compress);
    delivery.errors = fields.get("errors").and_then(|r| errors(&r, folder));
}

/// A folder of pages. It must be there: a misspelt path would be noticed on the worst of days.
pub(super) fn errors(reader: &Reader<'_>, folder: &Path) -> Option<PathBuf> {
    let path = path(reader, folder)?;
    if !path.is_dir() {
        let message = format!("{} is not a folder", path.display());
        reader.error(
            message,
            format!("make it and put pages such as 5xx.html into it: mkdir {}", path.display()),
        );
    }
    Some(path)
}

fn compress(reader: Reader<'_>) -> Option<Compress> {
    match reader.node().text() {
        Some("on" | "true") => return Some(Compress::default()),
        Some("off" | "false") => return None,
        Some(text) => {
            let message = format!("`{text}` is neither on nor off, nor a map");
            reader.error(message, "write `compress: on`, or which as in `compress: {codings: [br, gzip]}`");
            return None;
        }
        None => {}
    }
    let fields = reader.fields(&names(&[&COMPRESS]))?;
    let usual = Compress::default();
    Some(Compress {
        codings: fields.get("codings").map_or(usual.codings, |r| codings(&r)),
        types: fields.get("types").map_or(usual.types, |r| types(&r)),
        min: fields.get("min").and_then(|r| r.value(|t| size(t, 0..=BUFFER_MAX))).unwrap_or(usual.min),
    })
}

fn codings(reader: &Reader<'_>) -> Vec<Coding> {
    let mut codings = Vec::new();
    for item in not_empty(reader, "write `compress: off`, or name one of zstd, br, gzip") {
        let Some(coding) = item.value(|text| value::one_of(text, &CODINGS)) else { continue };
        if codings.contains(&coding) {
            item.error("the coding stands twice", "remove one of the two");
        }
        codings.push(coding);
    }
    codings
}

fn types(reader: &Reader<'_>) -> Vec<String> {
    let kind = |item: &Reader<'_>| {
        let text = item.text()?;
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        let fits =
            text.split_once('/').is_some_and(|(kind, sub)| is_name(kind) && (sub == "*" || is_name(sub)));
        if !fits {
            item.error(format!("`{text}` is not a content type"), "write it as in `text/html`, or `text/*`");
        }
        Some(text.to_ascii_lowercase())
    };
    not_empty(reader, "write `compress: off`, or name a type as in `text/*`")
        .iter()
        .filter_map(kind)
        .collect()
}

/// The items of a list that must have some.
fn not_empty<'a>(reader: &Reader<'a>, hint: &str) -> Vec<Reader<'a>> {
    let items = reader.one_or_more();
    if items.is_empty() {
        reader.error("the list is empty, so nothing would be compressed", hint);
    }
    items
}
