//! A body as HTTP/1 frames it: by a length, in chunks, by the end of the connection; what is left of one, and how
//! it leaves. [`super::pump`] moves it.

use crate::proxy::h1::chunked::{BadChunk, Chunked};

/// The body has more bytes than are allowed.
pub(crate) const TOO_LARGE: BadChunk = BadChunk("the body is larger than allowed");

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// This many bytes.
    Length(u64),
    /// Chunks up to the last one.
    Chunked(Chunked),
    /// Everything until the sender closes its side.
    UntilClose,
}

impl Body {
    /// Whether nothing more belongs to it.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Takes from `bytes` what belongs to the body; returns how many bytes that was.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
        trailer: impl FnMut(&[u8]),
    ) -> Result<usize, BadChunk> {
        match self {
            Self::Chunked(chunked) => chunked.advance(bytes, data, trailer),
            Self::Length(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                data(&bytes[..n]);
                Ok(n)
            }
            Self::UntilClose => {
                data(bytes);
                Ok(bytes.len())
            }
        }
    }
}

/// How the body leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encode {
    /// As it came; chunks were checked and are passed on byte by byte.
    AsIs,
    /// As chunks: it came without a length.
    Chunk,
    /// Without its chunks: the receiver knows the end otherwise.
    Plain,
}

/// Writes `data` as one chunk.
pub(crate) fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    write_size(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the size line of a chunk.
pub(crate) fn write_size(size: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(HEX[(size >> (digit * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_its_size_in_hex() {
        for (length, size) in [(1, "1"), (15, "f"), (16, "10"), (4096, "1000"), (32768, "8000")] {
            let mut out = Vec::new();
            write_chunk(&vec![b'x'; length], &mut out);
            assert!(out.starts_with(format!("{size}\r\nx").as_bytes()), "{length}");
            assert_eq!(out.len(), size.len() + 2 + length + 2);
        }
    }
}
