//! Content codings: gzip (RFC 1952), brotli (RFC 7932) and zstd (RFC 8878).

use std::io::{self, Write};

use bytes::BytesMut;
use flate2::write::{GzEncoder, MultiGzDecoder};

use crate::model::compression::{Coding, Library};

/// RFC 8878 section 3.1.1.1.2: decoders should take windows up to 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Inside of brotli.
const BROTLI_BUFFER: usize = 4096;

/// Compresses one body.
pub struct Encoder(Option<Encode>);

enum Encode {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// # Errors
    /// The library refuses its settings.
    pub fn new(library: &Library) -> io::Result<Self> {
        Ok(Self(Some(match library {
            Library::Gzip { level } => {
                let level = flate2::Compression::new(*level);
                Encode::Gzip(GzEncoder::new(Vec::new(), level))
            }
            Library::Brotli { quality, window_bits } => Encode::Brotli(Box::new(
                brotli::CompressorWriter::new(Vec::new(), BROTLI_BUFFER, *quality, *window_bits),
            )),
            Library::Zstd { level, checksum } => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), *level)?;
                encoder.include_checksum(*checksum)?;
                Encode::Zstd(encoder)
            }
        })))
    }

    /// Compresses a piece; `flush`: all of it comes out at once.
    ///
    /// # Errors
    /// The library fails.
    pub fn write(&mut self, piece: &[u8], flush: bool, out: &mut BytesMut) -> io::Result<()> {
        let Some(encode) = &mut self.0 else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let writer: &mut dyn Write = match encode {
            Encode::Gzip(encoder) => encoder,
            Encode::Brotli(encoder) => &mut **encoder,
            Encode::Zstd(encoder) => encoder,
        };
        writer.write_all(piece)?;
        if flush {
            writer.flush()?;
        }
        let made = match encode {
            Encode::Gzip(encoder) => encoder.get_mut(),
            Encode::Brotli(encoder) => encoder.get_mut(),
            Encode::Zstd(encoder) => encoder.get_mut(),
        };
        move_to(made, out);
        Ok(())
    }

    /// The end.
    ///
    /// # Errors
    /// The library fails.
    pub fn finish(&mut self, out: &mut BytesMut) -> io::Result<()> {
        let mut made = match self.0.take() {
            None => return Ok(()),
            Some(Encode::Gzip(encoder)) => encoder.finish()?,
            Some(Encode::Brotli(encoder)) => encoder.into_inner(),
            Some(Encode::Zstd(encoder)) => encoder.finish()?,
        };
        move_to(&mut made, out);
        Ok(())
    }
}

/// Decompresses one body.
pub struct Decoder(Decode);

enum Decode {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Brotli(Box<brotli::DecompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Decoder {
    /// # Errors
    /// The library fails.
    pub fn new(coding: Coding) -> io::Result<Self> {
        Ok(Self(match coding {
            Coding::Gzip => Decode::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Brotli => {
                Decode::Brotli(Box::new(brotli::DecompressorWriter::new(Vec::new(), BROTLI_BUFFER)))
            }
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(Vec::new())?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decode::Zstd(decoder)
            }
        }))
    }

    /// Decompresses a piece.
    ///
    /// # Errors
    /// It is no content of this coding.
    pub fn write(&mut self, piece: &[u8], out: &mut BytesMut) -> io::Result<()> {
        let writer: &mut dyn Write = match &mut self.0 {
            Decode::Gzip(decoder) => &mut **decoder,
            Decode::Brotli(decoder) => &mut **decoder,
            Decode::Zstd(decoder) => decoder,
        };
        writer.write_all(piece)?;
        writer.flush()?;
        let made = match &mut self.0 {
            Decode::Gzip(decoder) => decoder.get_mut(),
            Decode::Brotli(decoder) => decoder.get_mut(),
            Decode::Zstd(decoder) => decoder.get_mut(),
        };
        move_to(made, out);
        Ok(())
    }
}

fn move_to(made: &mut Vec<u8>, out: &mut BytesMut) {
    out.extend_from_slice(made);
    made.clear();
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARIES: [(Coding, Library); 3] = [
        (Coding::Gzip, Library::Gzip { level: 6 }),
        (Coding::Brotli, Library::Brotli { quality: 3, window_bits: 18 }),
        (Coding::Zstd, Library::Zstd { level: 3, checksum: true }),
    ];

    #[test]
    fn what_was_compressed_comes_back_and_a_flush_brings_all_so_far() {
        let text = b"Betty bought a bit of better butter. ".repeat(100);
        for (coding, library) in LIBRARIES {
            assert_eq!(library.coding(), coding);
            let mut encoder = Encoder::new(&library).unwrap();
            let mut packed = BytesMut::new();
            encoder.write(&text, true, &mut packed).unwrap();
            let mut decoder = Decoder::new(coding).unwrap();
            let mut out = BytesMut::new();
            decoder.write(&packed, &mut out).unwrap();
            assert_eq!(out, text, "{coding:?} after a flush");
            assert!(packed.len() < text.len() / 4, "{coding:?}: {} bytes", packed.len());
            let mut rest = BytesMut::new();
            encoder.finish(&mut rest).unwrap();
            decoder.write(&rest, &mut out).unwrap();
            assert_eq!(out, text, "{coding:?}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for (coding, _) in LIBRARIES {
            let mut decoder = Decoder::new(coding).unwrap();
            let garbage = [0xff_u8; 64];
            assert!(decoder.write(&garbage, &mut BytesMut::new()).is_err(), "{coding:?}");
        }
    }
}
