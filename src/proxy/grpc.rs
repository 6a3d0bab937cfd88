//! What is special about gRPC: its deadlines, and how its clients are told that something failed.
//!
//! To routing a gRPC request is a request like any other.

use std::borrow::Cow;
use std::time::Duration;

use httparse::Header;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::proxy::clock::ticks;
use crate::proxy::error::{Answer, Cause, Refusal};

/// Bytes that stand for themselves in `grpc-message` are the others (space to `~` without `%`).
const MESSAGE: AsciiSet = CONTROLS.add(b'%');

/// The trailers of a call that ends because its worker stops: UNAVAILABLE, after which clients call again.
pub(crate) const STOPPED: &[u8] =
    b"grpc-status: 14\r\ngrpc-message: switchman: the worker of this call stops; hint: call again\r\n";

/// Whether a content type is gRPC's: `application/grpc`, alone or with `+proto` and the like. gRPC-Web is not
/// meant: it is ordinary HTTP.
pub(crate) fn is_content_type(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    value.get(..TYPE.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(TYPE))
        && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// The duration that a `grpc-timeout` says: up to eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// How long a gRPC request may stand still, in ticks: until its deadline, which its client and its worker keep
/// too; without one as long as any stream, `unlimited`.
pub(crate) fn silence_max(headers: &[Header<'_>], unlimited: u64) -> u32 {
    let named = headers.iter().find(|header| header.name.eq_ignore_ascii_case("grpc-timeout"));
    let ticks = named.and_then(|header| timeout(header.value)).map_or(unlimited, ticks);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// gRPC's status for a cause: its own table for HTTP statuses, and what that knows no word for.
fn status(cause: Cause) -> u8 {
    match cause.status() {
        // DEADLINE_EXCEEDED
        408 | 504 => 4,
        // PERMISSION_DENIED
        403 => 7,
        // RESOURCE_EXHAUSTED
        413 | 414 | 431 => 8,
        // UNIMPLEMENTED
        404 | 421 | 501 | 505 => 12,
        // INTERNAL
        400..=499 if cause.status() != 429 => 13,
        // UNAVAILABLE: the client may try again
        429 | 502 | 503 => 14,
        // UNKNOWN
        _ => 2,
    }
}

/// The answer for `refusal` as gRPC clients expect it: 200, no body, and what failed in headers that stand where
/// trailers would.
pub(crate) fn answer(refusal: &Refusal, version: Option<&str>) -> Answer {
    let cause = refusal.cause;
    let message = format!("{}; hint: {}", refusal.detail, cause.hint());
    let mut headers: Vec<(&'static str, Cow<'static, str>)> = vec![
        ("content-type", "application/grpc".into()),
        ("grpc-status", status(cause).to_string().into()),
        ("grpc-message", utf8_percent_encode(&message, &MESSAGE).to_string().into()),
        ("x-switchman-error", cause.as_str().into()),
    ];
    if let Some(version) = version {
        headers.push(("x-switchman-version", version.to_owned().into()));
    }
    Answer { status: 200, title: "OK", headers, body: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::error::Manner;

    #[test]
    fn content_types_of_grpc_are_known() {
        for (text, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_content_type(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("1H", Some(ms(3_600_000))),
            ("2M", Some(ms(120_000))),
            ("3S", Some(ms(3000))),
            ("99999999m", Some(ms(99_999_999))),
            ("1000u", Some(ms(1))),
            ("1000000n", Some(ms(1))),
            ("123456789m", None),
            ("m", None),
            ("5", None),
            ("-5m", None),
            ("5s", None),
            ("", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn every_cause_has_a_status_that_is_an_error() {
        for (cause, expected) in [
            (Cause::UpstreamTimeout, 4),
            (Cause::HeadTooLarge, 8),
            (Cause::UnknownHost, 12),
            (Cause::BadRequest, 13),
            (Cause::NotReady, 14),
            (Cause::ConnectFailed, 14),
        ] {
            assert_eq!(status(cause), expected, "{cause:?}");
        }
        assert!(Cause::ALL.iter().all(|cause| (1..=16).contains(&status(*cause))));
    }

    #[test]
    fn an_answer_of_ours_is_trailers_only() {
        let refusal = Refusal::new(Cause::ConnectFailed, "100 % of it\u{e9}");
        let mut out = Vec::new();
        let manner = Manner { head_only: false, close: false, http11: true };
        answer(&refusal, Some("4f2a91c")).write(manner, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains("grpc-status: 14\r\ngrpc-message: 100 %25 of it%C3%A9; hint: "), "{text}");
        assert!(text.contains("x-switchman-error: connect-failed\r\nx-switchman-version: 4f2a91c"), "{text}");
    }
}
