//! The part of a pump that makes a body smaller on its way: through the encoder, and out of it in chunks.

use crate::proxy::h1::body::{Encode, write_chunk};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::chunked::BadChunk;
use crate::proxy::h1::pump::Pump;

impl Pump {
    /// Compresses what `buf` holds of the body.
    pub(super) fn compress_buffered(&mut self, buf: &mut Buf, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        let Some(compressor) = &mut self.compressor else { return Ok(()) };
        let taken = self.body.advance(buf.filled(), |data| compressor.write(data), |_| {})?;
        buf.consume(taken);
        self.take_compressed(out)?;
        if self.is_read() { self.finish(out) } else { Ok(()) }
    }

    /// Lets out what the compressor holds back; whether that was anything.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> Result<bool, BadChunk> {
        let flushed = self.compressor.as_mut().is_some_and(|compressor| compressor.flush());
        if flushed {
            self.take_compressed(out)?;
        }
        Ok(flushed)
    }

    /// Ends a compressed body that was read to its end.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        if let Some(compressor) = &mut self.compressor {
            compressor.finish();
            self.take_compressed(out)?;
            self.compressor = None;
            if self.encode == Encode::Chunk {
                out.extend_from_slice(b"0\r\n\r\n");
            }
            self.trailers.clear();
        }
        Ok(())
    }

    /// Moves what came out of the compressor to `out`.
    fn take_compressed(&mut self, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        self.drop_sent(out);
        let Some(compressor) = &mut self.compressor else { return Ok(()) };
        let bytes = compressor.output().map_err(|_| BadChunk("it cannot be compressed"))?;
        match self.encode {
            _ if bytes.is_empty() => {}
            Encode::Chunk => write_chunk(bytes, out),
            Encode::AsIs | Encode::Plain => out.extend_from_slice(bytes),
        }
        compressor.clear();
        Ok(())
    }
}
