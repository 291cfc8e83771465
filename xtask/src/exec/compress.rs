//! Compression of what is sent, a piece at a time: nothing is ever held whole.

use std::io::Write as _;

use anyhow::Result;
use libdeflater::{CompressionLvl, Compressor};

use crate::model::failure::Failure;
use crate::model::image::Compression;

/// A member of its own to so many bytes: every reader of gzip takes members that follow each other for one.
const MEMBER: usize = 256 << 10;

/// Of the levels of either, the fastest: the next ones gain a twentieth for up to twice the time.
const LEVEL: i32 = 1;

/// Takes what is ready.
type Out<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Compresses what it is given.
pub(crate) enum Packer {
    Gzip(Gzip),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// A member at a time.
pub(crate) struct Gzip {
    compressor: Compressor,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    /// # Errors
    /// The level that this was built for is not there.
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let missing = |why: String| Failure::environment(format!("compression of level {LEVEL}: {why}"));
        Ok(match compression {
            Compression::Gzip => {
                let level = CompressionLvl::new(LEVEL).map_err(|error| missing(format!("{error:?}")))?;
                let mut compressor = Compressor::new(level);
                let packed = vec![0; compressor.gzip_compress_bound(MEMBER)];
                Self::Gzip(Gzip { compressor, plain: Vec::with_capacity(MEMBER), packed })
            }
            Compression::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL);
                Self::Zstd(encoder.map_err(|error| missing(error.to_string()))?)
            }
        })
    }

    /// Takes `bytes` and hands on what is ready.
    ///
    /// # Errors
    /// What `out` says.
    pub(crate) fn push(&mut self, bytes: &[u8], out: Out<'_>) -> Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.push(bytes, out),
            Self::Zstd(encoder) => {
                encoder.write_all(bytes)?;
                out(encoder.get_ref())?;
                encoder.get_mut().clear();
                Ok(())
            }
        }
    }

    /// Hands on the rest.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(crate) fn finish(self, out: Out<'_>) -> Result<()> {
        match self {
            Self::Gzip(gzip) if gzip.plain.is_empty() => Ok(()),
            Self::Gzip(mut gzip) => gzip.member(out),
            Self::Zstd(encoder) => out(&encoder.finish()?),
        }
    }
}

impl Gzip {
    fn push(&mut self, mut bytes: &[u8], out: Out<'_>) -> Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(MEMBER - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = rest;
            if self.plain.len() == MEMBER {
                self.member(out)?;
            }
        }
        Ok(())
    }

    fn member(&mut self, out: Out<'_>) -> Result<()> {
        let length = self
            .compressor
            .gzip_compress(&self.plain, &mut self.packed)
            .map_err(|error| Failure::environment(format!("can't compress: {error}")))?;
        self.plain.clear();
        out(self.packed.get(..length).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn packed(plain: &[u8], compression: Compression) -> Vec<u8> {
        let mut small = Vec::new();
        let mut out = |bytes: &[u8]| {
            small.extend_from_slice(bytes);
            Ok(())
        };
        let mut packer = Packer::new(compression).unwrap();
        for piece in plain.chunks(100_000) {
            packer.push(piece, &mut out).unwrap();
        }
        packer.finish(&mut out).unwrap();
        small
    }

    #[test]
    fn any_reader_gets_back_what_went_in() {
        let plain: Vec<u8> = (0..3 * MEMBER + 7).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
        for length in [0, 1, MEMBER, plain.len()] {
            let plain = &plain[..length];
            let (gzip, zstd) = (packed(plain, Compression::Gzip), packed(plain, Compression::Zstd));
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap_or_default();
            assert!(back == plain && zstd::decode_all(&zstd[..]).unwrap() == plain);
            assert!(length < MEMBER || gzip.len().max(zstd.len()) < length);
        }
    }
}
