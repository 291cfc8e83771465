//! Compression of what is sent, a piece at a time: nothing is ever held whole.

use anyhow::Result;
use libdeflater::{CompressionLvl, Compressor};

use crate::model::failure::Failure;

/// A member of its own to so many bytes: every reader of gzip takes members that follow each other for one.
const MEMBER: usize = 256 << 10;

/// Of the levels, the fastest: the others gain a twentieth for twice the time.
const LEVEL: i32 = 1;

/// Compresses what it is given.
pub(crate) struct Packer {
    compressor: Compressor,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    /// # Errors
    /// The level that this was built for is not there.
    pub(crate) fn new() -> Result<Self> {
        let level =
            CompressionLvl::new(LEVEL).map_err(|_| Failure::environment(format!("gzip has no level {LEVEL}")))?;
        let mut compressor = Compressor::new(level);
        let packed = vec![0; compressor.gzip_compress_bound(MEMBER)];
        Ok(Self { compressor, plain: Vec::with_capacity(MEMBER), packed })
    }

    /// Takes `bytes` and hands on what is ready.
    ///
    /// # Errors
    /// What `out` says.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
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

    /// Hands on the rest.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(crate) fn finish(mut self, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.plain.is_empty() { Ok(()) } else { self.member(out) }
    }

    fn member(&mut self, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
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

    #[test]
    fn any_reader_of_gzip_gets_back_what_went_in() {
        let plain: Vec<u8> = (0..3 * MEMBER + 7).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
        let mut small = Vec::new();
        let mut out = |bytes: &[u8]| {
            small.extend_from_slice(bytes);
            Ok(())
        };
        let mut packer = Packer::new().unwrap();
        for piece in plain.chunks(100_000) {
            packer.push(piece, &mut out).unwrap();
        }
        packer.finish(&mut out).unwrap();
        let mut back = Vec::new();
        flate2::read::MultiGzDecoder::new(&small[..]).read_to_end(&mut back).unwrap();
        assert!(back == plain && small.len() < plain.len());
    }
}
