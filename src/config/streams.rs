//! Reads `drain` and `upgrade` of a service.

use std::time::Duration;

use super::Delivery;
use super::keys::names;
use super::keys::streams::DRAIN;
use super::read::duration;
use crate::hint::Problem;
use crate::yaml::{Fields, Reader};

/// Takes what the service's `fields` say of streams into `delivery`.
pub(super) fn read(service: &Fields<'_>, delivery: &mut Delivery) {
    if let Some(fields) = service.get("drain").and_then(|reader| reader.fields(&names(&[&DRAIN]))) {
        let streams = fields.get("streams").and_then(|reader| duration(&reader, Duration::ZERO));
        delivery.streams = streams.unwrap_or(delivery.streams);
    }
    if let Some(reader) = service.get("upgrade") {
        delivery.upgrade = protocols(&reader);
    }
}

fn protocols(reader: &Reader<'_>) -> Vec<String> {
    reader.one_or_more().iter().filter_map(|reader| reader.value(protocol)).collect()
}

/// A protocol as it stands in `Upgrade`: a name, perhaps with a version behind a slash (RFC 9110 section 7.8).
fn protocol(text: &str) -> Result<String, Box<Problem>> {
    let is_token = |part: &str| {
        let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !part.is_empty() && part.bytes().all(may_stand)
    };
    let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
    let wrong = |message: String, hint: &str| Err(Box::new(Problem::error("", message).hint(hint)));
    if !is_token(name) || !version.is_none_or(is_token) {
        return wrong(format!("`{text}` is not a protocol"), "write its name, as in `upgrade: [websocket]`");
    }
    if name.eq_ignore_ascii_case("h2c")
        || name.eq_ignore_ascii_case("http")
        || name.eq_ignore_ascii_case("tls")
    {
        // Behind such an upgrade are requests that no rule would see.
        let hint = "remove it: requests inside it would pass by the rules";
        return wrong(format!("`{text}` cannot be allowed"), hint);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_a_token_that_hides_no_requests() {
        for (text, good) in [
            ("websocket", true),
            ("my-protocol", true),
            ("tcp", true),
            ("IRC/6.9", true),
            ("", false),
            ("a b", false),
            ("a,b", false),
            ("a/", false),
            ("/1", false),
            ("a/b/c", false),
            ("h2c", false),
            ("H2C", false),
            ("HTTP/2.0", false),
            ("TLS/1.3", false),
        ] {
            let read = protocol(text);
            assert_eq!(read.is_ok(), good, "{text:?}: {read:?}");
        }
    }
}
