//! One layer on its way: hashed, compressed and sent while it is read, and never held whole.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use anyhow::Result;

use super::known::Placed;
use crate::exec::compress::Packer;
use crate::exec::signal;
use crate::model::digest::{Digest, Hasher};
use crate::model::failure::Failure;
use crate::model::image::Compression;
use crate::registry::{Beginning, Delivery, Registry, Upload};
use crate::report::bytes;

/// What is sent at once. A layer that is smaller is not sent before its digest is known and asked for.
const CHUNK: usize = 6 << 20;

/// How often a blob is begun.
pub(super) const TRIES: usize = 4;

/// How far a push is.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) layers: AtomicUsize,
    pub(super) layers_done: AtomicUsize,
    pub(super) bytes: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) sent: Arc<AtomicU64>,
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.bytes_read.load(Ordering::Relaxed);
        // The sum of the layers is an estimate.
        let all = self.bytes.load(Ordering::Relaxed).max(read);
        let (done, layers) = (self.layers_done.load(Ordering::Relaxed), self.layers.load(Ordering::Relaxed));
        let sent = bytes(self.sent.load(Ordering::Relaxed));
        write!(f, "{done} of {layers} layers, {} of {} read, {sent} sent", bytes(read), bytes(all))
    }
}

/// Where layers go.
pub(super) struct Target<'a> {
    pub(super) registry: &'a Registry,
    pub(super) repository: &'a str,
    pub(super) compression: Compression,
    pub(super) meter: Meter,
    /// The registry had a layer that no manifest told of: a push has been broken off.
    pub(super) resumes: AtomicBool,
}

/// The layer has to be read once more.
#[derive(Debug)]
pub(super) struct Again(String);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Again {}

enum State<'a> {
    /// Nothing has been sent, and all that there is of it is in the chunk.
    Kept,
    Sending(Upload<'a>),
    /// It is only hashed: the registry probably has it.
    Hashed,
}

/// Takes a layer.
pub(super) struct Sender<'a> {
    target: &'a Target<'a>,
    /// Sent even where the registry may have it.
    forced: bool,
    state: State<'a>,
    plain: Hasher,
    packed: Packed,
    packer: Packer,
}

/// What comes out of the compression.
#[derive(Default)]
struct Packed {
    hasher: Hasher,
    size: u64,
    chunk: Vec<u8>,
}

impl Packed {
    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.chunk.extend_from_slice(bytes);
    }
}

impl<'a> Sender<'a> {
    pub(super) fn new(target: &'a Target<'a>, forced: bool) -> Result<Self> {
        let (plain, packed) = (Hasher::default(), Packed::default());
        Ok(Self { target, forced, state: State::Kept, plain, packed, packer: Packer::new(target.compression)? })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The registry can't be reached or says no, [`Again`], or a signal came.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        signal::check()?;
        self.target.meter.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.plain.update(bytes);
        let packed = &mut self.packed;
        self.packer.push(bytes, &mut |bytes| {
            packed.take(bytes);
            Ok(())
        })?;
        if self.packed.chunk.len() >= CHUNK { self.send() } else { Ok(()) }
    }

    /// Sends a chunk, if it has to be sent.
    fn send(&mut self) -> Result<()> {
        let Target { registry, repository, meter, resumes, .. } = self.target;
        if matches!(self.state, State::Kept) {
            self.state = if !self.forced && resumes.load(Ordering::Relaxed) {
                State::Hashed
            } else {
                State::Sending(begin(registry, repository, meter)?)
            };
        }
        let mut delivery = Delivery::Arrived;
        if let State::Sending(upload) = &mut self.state {
            let chunk = Arc::new(std::mem::take(&mut self.packed.chunk));
            delivery = upload.append(&chunk)?;
            self.packed.chunk = Arc::try_unwrap(chunk).unwrap_or_default();
        }
        self.packed.chunk.clear();
        arrived(delivery)
    }

    /// The end of the layer: it is in the registry now.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn finish(self) -> Result<Placed> {
        let Self { target, state, plain, mut packed, packer, .. } = self;
        packer.finish(&mut |bytes| {
            packed.take(bytes);
            Ok(())
        })?;
        let Target { registry, repository, meter, resumes, .. } = target;
        let digest = packed.hasher.digest();
        let last = Arc::new(packed.chunk);
        match state {
            State::Sending(upload) => arrived(upload.finish(&last, &digest)?)?,
            State::Kept | State::Hashed if registry.has_blob(repository, &digest)? => {
                resumes.store(true, Ordering::Relaxed);
            }
            State::Kept => arrived(begin(registry, repository, meter)?.finish(&last, &digest)?)?,
            State::Hashed => return Err(Again("the registry does not have it after all".to_owned()).into()),
        }
        meter.layers_done.fetch_add(1, Ordering::Relaxed);
        Ok(Placed { diff_id: plain.digest(), compression: Some(target.compression), digest, size: packed.size })
    }
}

fn arrived(delivery: Delivery) -> Result<()> {
    match delivery {
        Delivery::Arrived => Ok(()),
        Delivery::Lost(why) => Err(Again(why).into()),
    }
}

fn begin<'a>(registry: &'a Registry, repository: &str, meter: &Meter) -> Result<Upload<'a>> {
    match registry.begin(repository, None, &meter.sent)? {
        Beginning::Upload(upload) => Ok(upload),
        Beginning::Mounted => {
            Err(Failure::environment(format!("{}: the registry claims a blob that was not named", registry.endpoint))
                .into())
        }
    }
}

/// Puts a few bytes into the registry; tells what they are called there.
///
/// # Errors
/// As [`Sender::write`].
pub(super) fn put(target: &Target<'_>, content: Vec<u8>) -> Result<Digest> {
    let Target { registry, repository, meter, .. } = target;
    let digest = Digest::of(&content);
    let content = Arc::new(content);
    let mut trouble = String::new();
    for _ in 0..TRIES {
        if registry.has_blob(repository, &digest)? {
            return Ok(digest);
        }
        match begin(registry, repository, meter)?.finish(&content, &digest)? {
            Delivery::Arrived => return Ok(digest),
            Delivery::Lost(why) => trouble = why,
        }
    }
    Err(lost(target, &trouble).into())
}

/// Why a blob is given up.
pub(super) fn lost(target: &Target<'_>, why: &str) -> Failure {
    let Target { registry, repository, .. } = target;
    Failure::environment(format!("{}/v2/{repository}: a blob does not arrive: {why}", registry.endpoint))
}
