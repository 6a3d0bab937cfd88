//! The PROXY protocol, versions 1 and 2, as it comes in: the first bytes of a connection that say who is at the
//! other side of the load balancer (the HAProxy project's proxy-protocol.txt).
//!
//! Written here and not taken from a crate: the framing has to be found before a parser could be asked, as not
//! one byte behind the header may be taken from the socket, and with it most of the parser is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const PREFIX: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its CRLF.
const V1_MAX: usize = 107;
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// The longest header of version 2; what comes with the addresses (names of certificates above all) is skipped.
const V2_MAX: usize = 4096;

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection's bytes.
    #[error("the connection does not begin with a valid PROXY header: {0}")]
    Header(&'static str),
    /// The connection.
    #[error("the connection broke before its PROXY header had ended: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header and nothing behind it. None: the header says that the connection is the peer's own, or
/// nothing that can be written as an IP address.
pub(super) async fn read(stream: &TcpStream) -> Result<Option<IpAddr>, Broken> {
    let mut bytes = vec![0; V2_FIXED + V2_MAX];
    let mut taken = 0;
    loop {
        // What is only looked at stays in the socket, for whoever reads next.
        let seen = taken + stream.peek(&mut bytes[taken..]).await?;
        if seen == taken {
            return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let length = length(&bytes[..seen])?;
        let upto = length.unwrap_or(seen);
        taken += stream.try_read(&mut bytes[taken..upto])?;
        if length == Some(taken) {
            return parse(&bytes[..taken]);
        }
    }
}

/// How long the header at the start of `bytes` is; none where that cannot be told yet.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(PREFIX) {
        let line = &bytes[..bytes.len().min(V1_MAX)];
        return match line.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => Ok(Some(end + 2)),
            None if line.len() == V1_MAX => Err(Broken::Header("its line is longer than 107 bytes")),
            None => Ok(None),
        };
    }
    if !begins(SIGNATURE) {
        return Err(Broken::Header("it begins with other bytes"));
    }
    let Some(&[high, low]) = bytes.get(14..V2_FIXED) else { return Ok(None) };
    match usize::from(u16::from_be_bytes([high, low])) {
        length @ 0..=V2_MAX => Ok(Some(V2_FIXED + length)),
        _ => Err(Broken::Header("it is longer than 4096 bytes")),
    }
}

/// The address in a whole header.
pub(crate) fn parse(header: &[u8]) -> Result<Option<IpAddr>, Broken> {
    match header.strip_prefix(PREFIX) {
        Some(line) => parse_v1(line),
        None => parse_v2(header),
    }
}

fn parse_v1(line: &[u8]) -> Result<Option<IpAddr>, Broken> {
    let bad = || Broken::Header("its line is not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`");
    let line = std::str::from_utf8(line).map_err(|_| bad())?;
    let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    match *words.as_slice() {
        ["UNKNOWN", ..] => Ok(None),
        [family @ ("TCP4" | "TCP6"), source, destination, from, to] if port(from) && port(to) => {
            let fits = |text: &str| {
                text.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == (family == "TCP4")).ok_or_else(bad)
            };
            fits(destination)?;
            fits(source).map(Some)
        }
        _ => Err(bad()),
    }
}

fn parse_v2(header: &[u8]) -> Result<Option<IpAddr>, Broken> {
    let (command, family, rest) = (header[12], header[13], &header[V2_FIXED..]);
    match command {
        // LOCAL: the load balancer asks for itself, as its health checks do.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(Broken::Header("its version is not 2, or its command is not known")),
    }
    let short = || Broken::Header("it is shorter than its addresses");
    match family {
        0x11 => {
            let source: [u8; 4] = *rest.get(..12).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
            Ok(Some(Ipv4Addr::from(source).into()))
        }
        0x21 => {
            let source: [u8; 16] = *rest.get(..36).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
            Ok(Some(Ipv6Addr::from(source).into()))
        }
        // Nothing said, or a unix socket: neither is an address.
        0x00 | 0x31 | 0x32 => Ok(None),
        _ => Err(Broken::Header("its address family or protocol is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    /// What a header at the start of `bytes` says, with how many bytes are not its own.
    fn read(bytes: &[u8]) -> Option<(Option<String>, usize)> {
        let length = length(bytes).ok()??;
        let ip = parse(bytes.get(..length)?).ok()?;
        Some((ip.map(|ip| ip.to_string()), bytes.len() - length))
    }

    const V6: [u8; 36] = {
        let mut bytes = [0; 36];
        (bytes[0], bytes[1], bytes[15]) = (0x20, 0x01, 7);
        bytes
    };

    #[test]
    fn good_headers_are_read_to_their_last_byte() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0, 80, 0, 81];
        for (bytes, ip) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001::7 ::1 5000 80\r\n".to_vec(), Some("2001::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("192.0.2.7")),
            (v2(0x21, 0x11, &[v4.as_slice(), &[0x20, 0, 1, 9]].concat()), Some("192.0.2.7")),
            (v2(0x21, 0x21, &V6), Some("2001::7")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x31, &[b'a'; 216]), None),
            (v2(0x21, 0x11, &[v4.as_slice(), &[0; 4084]].concat()), Some("192.0.2.7")),
        ] {
            let whole = [bytes.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&whole), Some((ip.map(str::to_owned), 16)), "{}", bytes.escape_ascii());
            for cut in 1..bytes.len() {
                let found = length(&bytes[..cut]).unwrap();
                assert!(found.is_none_or(|l| l == bytes.len()), "{}", bytes[..cut].escape_ascii());
            }
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0, 80, 0, 81];
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
            b"proxy TCP4 192.0.2.7 10.0.0.1 5000 80\r\n".to_vec(),
            b"PROXY\r\n".to_vec(),
            b"PROXY TCP4\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 5000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80 1\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.7 10.0.0.1 5000 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +5000 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 65536\r\n".to_vec(),
            b"PROXY TCP4 2001::7 ::1 5000 80\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 10.0.0.1 5000 80\r\n".to_vec(),
            b"PROXY TCP4 localhost 10.0.0.1 5000 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 10.0.0.1 5000 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.\xff 10.0.0.1 5000 80\r\n".to_vec(),
            long.into_bytes(),
            v2(0x11, 0x11, &v4),
            v2(0x22, 0x11, &v4),
            v2(0x21, 0x11, &v4[..11]),
            v2(0x21, 0x21, &V6[..35]),
            v2(0x21, 0x41, &v4),
            v2(0x21, 0x12, &v4),
            v2(0x21, 0x11, &[0; 4097]),
        ] {
            assert_eq!(read(&bytes), None, "{}", bytes.escape_ascii());
        }
        let endless = "PROXY UNKNOWN ".to_owned() + &"x".repeat(100);
        assert!(length(endless.as_bytes()).is_err(), "more of it is not waited for");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            start in proptest::sample::select(vec![PREFIX.as_slice(), SIGNATURE, b""]),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Some(length)) = length(&bytes)
                && let Some(header) = bytes.get(..length)
            {
                let _ = parse(header);
            }
        }
    }
}
