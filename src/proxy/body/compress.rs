//! Compresses one body piece by piece, into memory: what comes in and where it goes is the pump's business.

use std::io;
use std::rc::Rc;

use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::CParameter;
use compression_codecs::{BrotliEncoder, EncodeV2, GzipEncoder, ZstdEncoder};

use crate::config::Coding;

/// Levels at which the next one costs far more time than it saves bytes.
const GZIP_LEVEL: i32 = 5;
const BROTLI_LEVEL: i32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Log2 of how far back br and zstd look, in bytes: their defaults would take megabytes for each response.
const WINDOW_LOG: u8 = 18;
/// Room that is made for an encoder's output at a time, in bytes.
const STEP: usize = 8 * 1024;

/// Responses that one thread compresses at a time, as each encoder takes up to a megabyte; more leave as they are.
pub(crate) const AT_A_TIME: usize = 512;

/// The encoder of one body.
pub(crate) struct Compressor {
    encoder: Box<dyn EncodeV2>,
    /// What came out and was not taken yet.
    out: Vec<u8>,
    /// The encoder may hold bytes back.
    holds: bool,
    /// It failed; its output is worth nothing.
    failed: bool,
    /// Its thread counts these.
    _counted: Rc<()>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("holds", &self.holds).finish_non_exhaustive()
    }
}

impl Compressor {
    /// One that its thread counts by `counted`.
    pub(crate) fn new(coding: Coding, counted: Rc<()>) -> Self {
        let encoder: Box<dyn EncodeV2> = match coding {
            Coding::Gzip => Box::new(GzipEncoder::new(Level::Precise(GZIP_LEVEL).into())),
            Coding::Brotli => {
                let params = EncoderParams::default().quality(Level::Precise(BROTLI_LEVEL));
                Box::new(BrotliEncoder::new(params.window_size(WINDOW_LOG.into())))
            }
            Coding::Zstd => {
                let window = CParameter::window_log(WINDOW_LOG.into());
                Box::new(ZstdEncoder::new_with_params(ZSTD_LEVEL, &[window]))
            }
        };
        Self { encoder, out: Vec::new(), holds: false, failed: false, _counted: counted }
    }

    /// Takes a piece of the body.
    pub(crate) fn write(&mut self, data: &[u8]) {
        let mut input = PartialBuffer::new(data);
        while !input.unwritten().is_empty() && !self.failed {
            self.holds = true;
            self.step(|encoder, out| encoder.encode(&mut input, out).map(|()| true));
        }
    }

    /// Lets out everything that was taken, so that the client can read it; whether there was anything.
    pub(crate) fn flush(&mut self) -> bool {
        if !std::mem::take(&mut self.holds) {
            return false;
        }
        while !self.failed && !self.step(|encoder, out| encoder.flush(out)) {}
        true
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self) {
        while !self.failed && !self.step(|encoder, out| encoder.finish(out)) {}
        self.holds = false;
    }

    /// What has come out since the last call.
    ///
    /// # Errors
    /// The encoder failed.
    pub(crate) fn output(&self) -> Result<&[u8], Failed> {
        if self.failed { Err(Failed) } else { Ok(&self.out) }
    }

    /// Forgets what came out.
    pub(crate) fn clear(&mut self) {
        self.out.clear();
    }

    /// One call of the encoder with room for its output.
    fn step(
        &mut self,
        call: impl FnOnce(&mut dyn EncodeV2, &mut WriteBuffer<'_>) -> io::Result<bool>,
    ) -> bool {
        let before = self.out.len();
        self.out.resize(before + STEP, 0);
        let mut room = WriteBuffer::new_initialized(&mut self.out[before..]);
        let called = call(&mut *self.encoder, &mut room);
        let written = room.written_len();
        self.out.truncate(before + written);
        self.failed |= called.is_err();
        called.unwrap_or(true)
    }
}

/// An encoder failed: it has no memory.
#[derive(Debug)]
pub(crate) struct Failed;

#[cfg(test)]
mod tests {
    use super::*;
    use compression_codecs::{BrotliDecoder, DecodeV2, GzipDecoder, ZstdDecoder};

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Brotli, Coding::Zstd];

    fn decoder(coding: Coding) -> Box<dyn DecodeV2> {
        match coding {
            Coding::Gzip => Box::new(GzipDecoder::new()),
            Coding::Brotli => Box::new(BrotliDecoder::new()),
            Coding::Zstd => Box::new(ZstdDecoder::new()),
        }
    }

    /// Everything that can be read from `bytes`.
    fn decode(decoder: &mut dyn DecodeV2, bytes: &[u8]) -> Vec<u8> {
        let (mut input, mut text) = (PartialBuffer::new(bytes), Vec::new());
        loop {
            let mut room = vec![0; 64 * 1024];
            let mut out = WriteBuffer::new_initialized(&mut room);
            let ended = decoder.decode(&mut input, &mut out).unwrap();
            let n = out.written_len();
            text.extend_from_slice(&room[..n]);
            if ended || (input.unwritten().is_empty() && n < room.len()) {
                return text;
            }
        }
    }

    fn taken(compressor: &mut Compressor) -> Vec<u8> {
        let out = compressor.output().unwrap().to_vec();
        compressor.clear();
        out
    }

    #[test]
    fn what_was_flushed_can_be_read_at_once() {
        for coding in ALL {
            let (mut compressor, mut decoder) = (Compressor::new(coding, Rc::default()), decoder(coding));
            for piece in ["<p>one</p>", "<p>two</p>", "<p>three</p>"] {
                compressor.write(piece.as_bytes());
                assert!(compressor.flush() && !compressor.flush(), "{coding:?}: once is enough");
                let read = decode(&mut *decoder, &taken(&mut compressor));
                assert_eq!(String::from_utf8(read).unwrap(), piece, "{coding:?}");
            }
            compressor.finish();
            assert_eq!(decode(&mut *decoder, &taken(&mut compressor)), b"", "{coding:?}");
        }
    }

    #[test]
    fn text_becomes_much_smaller() {
        let text = include_str!("coding.rs");
        for coding in ALL {
            let mut compressor = Compressor::new(coding, Rc::default());
            compressor.write(text.as_bytes());
            compressor.finish();
            let length = taken(&mut compressor).len();
            assert!(length * 2 < text.len(), "{coding:?}: {length} of {}", text.len());
        }
    }

    proptest::proptest! {
        /// However a body is cut and whenever it is flushed, the client reads the same.
        #[test]
        fn a_body_comes_back(
            pieces in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..3000), 0..12),
            flushes in proptest::collection::vec(proptest::bool::ANY, 12),
            coding in proptest::sample::select(ALL.to_vec()),
        ) {
            let mut compressor = Compressor::new(coding, Rc::default());
            let mut wire = Vec::new();
            for (piece, flush) in pieces.iter().zip(flushes) {
                compressor.write(piece);
                if flush {
                    compressor.flush();
                }
                wire.extend(taken(&mut compressor));
            }
            compressor.finish();
            wire.extend(taken(&mut compressor));
            proptest::prop_assert_eq!(decode(&mut *decoder(coding), &wire), pieces.concat());
        }
    }
}
