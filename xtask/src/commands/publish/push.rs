//! Pushes an image: asks the registry what it has, sends what is missing, and names the whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::image::{Content, Image, Source};
use super::known::{Known, Placed};
use super::sender::{self, Again, Meter, Sender, Target};
use crate::commands::Context;
use crate::exec::{parallel, signal};
use crate::model::digest::Digest;
use crate::model::failure::{Failure, Kind};
use crate::model::image::Compression;
use crate::registry::{Beginning, Manifest, Registry, Taken};
use crate::report::{Reporter, Stage, bytes};
use crate::tools::archive;

/// So many layers at once: enough for both the processors and the way to the registry.
const AT_ONCE: usize = 4;

/// So many requests at once, where each is small.
const ASK_AT_ONCE: usize = 8;

/// What is read at once.
const PIECE: usize = 256 << 10;

/// What a manifest is called, its configuration, and a layer of gzip and of zstd.
struct Words {
    manifest: &'static str,
    config: &'static str,
    gzip: &'static str,
    zstd: &'static str,
}

/// Docker's second schema, which everything reads.
const DOCKER: Words = Words {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    // It has no word of its own for this, and none is needed.
    zstd: OCI.zstd,
};

const OCI: Words = Words {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
    zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
};

/// What a push came to.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    pub(crate) manifest: Manifest,
    /// The digest of the configuration.
    pub(crate) image_id: Digest,
    /// Bytes that were sent for it.
    pub(crate) sent: u64,
}

/// A push under way.
struct Push<'a> {
    image: &'a Image,
    target: Target<'a>,
    placed: Vec<Option<Placed>>,
}

/// Pushes what was built and reads it back. A tag that names the same image is left alone, a tag that
/// names another one is never moved.
///
/// # Errors
/// The tag names another image, the registry can't be reached or says no, or a signal came.
pub(crate) fn push(cx: &Context, registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<Pushed> {
    let mut stage = cx.report.stage("push");
    if let Some((manifest, image_id)) = there(registry, repository, tag, image)? {
        stage.skipped(&format!("{repository}:{tag} is in the registry already"));
        return Ok(Pushed { manifest, image_id, sent: 0 });
    }
    let compression = compression(cx, repository)?;
    let (meter, resumes) = (Meter::default(), AtomicBool::new(false));
    let target = Target { registry, repository, compression, meter, resumes };
    let mut push = Push { image, target, placed: vec![None; image.layers.len()] };
    let (image_id, digest) = push.run(cx, tag, &mut stage).map_err(half_done)?;
    let manifest = registry.manifest(repository, tag)?.filter(|manifest| manifest.digest == digest).ok_or_else(|| {
        Failure::refused(format!(
            "{repository}:{tag} is not what was pushed when read back: somebody else pushed it, or the registry lies"
        ))
    })?;
    let sent = push.target.meter.sent.load(Ordering::Relaxed);
    let layers = push.target.meter.layers_done.load(Ordering::Relaxed);
    let what = format!("{layers} of {} layers, {} sent", image.layers.len(), bytes(sent));
    stage.done(&format!("{repository}:{tag} {} ({what})", manifest.digest.short()));
    Ok(Pushed { manifest, image_id, sent })
}

/// What is to be read and sent of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) layers: usize,
    /// About how many bytes, uncompressed.
    pub(crate) size: u64,
}

/// What [`push`] would read and send, or take over from another repository.
///
/// # Errors
/// As [`push`].
pub(crate) fn missing(
    cx: &Context,
    registry: &Registry,
    repository: &str,
    tag: &str,
    image: &Image,
) -> Result<Missing> {
    if there(registry, repository, tag, image)?.is_some() {
        return Ok(Missing { layers: 0, size: 0 });
    }
    let known = Known::newest(registry, repository)?;
    let placed = known.map_or_else(|| Ok(vec![None; image.layers.len()]), |known| known.place(image))?;
    let placed = suitable(placed, compression(cx, repository)?);
    let missing = image.layers.iter().zip(placed).filter(|(_, placed)| placed.is_none());
    let sizes: Vec<u64> = missing.map(|(layer, _)| layer.size()).collect();
    Ok(Missing { layers: sizes.len(), size: sizes.iter().sum() })
}

/// What all who run the image read.
fn compression(cx: &Context, repository: &str) -> Result<Compression> {
    Ok(cx.repo.compression(&format!("{}/{repository}", cx.home()?.host)))
}

/// Those that can be part of an image for those who read `most`.
fn suitable(placed: Vec<Option<Placed>>, most: Compression) -> Vec<Option<Placed>> {
    placed.into_iter().map(|placed| placed.filter(|placed| placed.suits(most))).collect()
}

/// The same image, where `tag` names it already.
fn there(registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<Option<(Manifest, Digest)>> {
    let Some(manifest) = registry.manifest(repository, tag)? else { return Ok(None) };
    let image_id = same(registry, repository, &manifest, image)?.ok_or_else(|| {
        let what = format!("{repository}:{tag} exists and is another image ({})", manifest.digest);
        Failure::refused(format!("{what}, so it was not overwritten"))
            .left(format!("what was built is {}", image.store_path))
            .next("release the next version")
    })?;
    Ok(Some((manifest, image_id)))
}

/// The digest of the configuration, where `manifest` names the same image.
fn same(registry: &Registry, repository: &str, manifest: &Manifest, image: &Image) -> Result<Option<Digest>> {
    let Some(known) = Known::of(registry, repository, manifest)? else { return Ok(None) };
    let placed: Option<Vec<Placed>> = known.place(image)?.into_iter().collect();
    let Some(placed) = placed else { return Ok(None) };
    let diff_ids: Vec<Digest> = placed.into_iter().map(|placed| placed.diff_id).collect();
    let image_id = Digest::of(&image.configuration(&diff_ids)?);
    Ok(Some(image_id).filter(|id| manifest.config.as_ref() == Some(id)))
}

/// Says what an interruption has left.
fn half_done(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) if failure.kind == Kind::Interrupted || failure.kind == Kind::Environment => failure
            .left("the layers that have arrived stay in the registry, which no tag names yet")
            .next("the same command again sends what is missing")
            .into(),
        Ok(failure) => failure.into(),
        Err(error) => error,
    }
}

impl Push<'_> {
    /// The digests of the configuration and of the manifest, which the registry has under `tag` then.
    fn run(&mut self, cx: &Context, tag: &str, stage: &mut Stage<'_>) -> Result<(Digest, Digest)> {
        let Target { registry, repository, .. } = self.target;
        if let Some(known) = Known::newest(registry, repository)? {
            self.placed = suitable(known.place(self.image)?, self.target.compression);
        }
        if !self.missing().is_empty() {
            self.take_over(cx)?;
        }
        let mut incomplete = String::new();
        for _ in 0..2 {
            let missing = self.missing();
            let found = watched(stage, &self.target.meter, || self.send(&missing))?;
            for (number, placed) in found {
                if let Some(slot) = self.placed.get_mut(number) {
                    *slot = Some(placed);
                }
            }
            let placed: Vec<&Placed> = self.placed.iter().flatten().collect();
            let diff_ids: Vec<Digest> = placed.iter().map(|placed| placed.diff_id.clone()).collect();
            let configuration = self.image.configuration(&diff_ids)?;
            let size = configuration.len();
            let image_id = sender::put(&self.target, configuration)?;
            let (words, manifest) = manifest(&image_id, size, &placed);
            let digest = Digest::of(&manifest);
            match registry.put_manifest(repository, tag, words.manifest, manifest)? {
                Taken::Yes => return Ok((image_id, digest)),
                Taken::Incomplete(why) => incomplete = why,
            }
            self.forget_lost()?;
        }
        let failure = Failure::environment(format!("{}/v2/{repository}: the manifest is not taken", registry.endpoint));
        Err(failure.tail(incomplete.lines().map(str::to_owned).collect()).into())
    }

    fn missing(&self) -> Vec<usize> {
        let slots = self.placed.iter().enumerate();
        slots.filter(|(_, placed)| placed.is_none()).map(|(number, _)| number).collect()
    }

    /// A registry may have lost what its manifests name.
    fn forget_lost(&mut self) -> Result<()> {
        let Target { registry, repository, .. } = self.target;
        for slot in &mut self.placed {
            if let Some(placed) = slot
                && !registry.has_blob(repository, &placed.digest)?
            {
                *slot = None;
            }
        }
        Ok(())
    }

    /// Has the registry take over what is in other repositories of ours.
    fn take_over(&mut self, cx: &Context) -> Result<()> {
        let Target { registry, repository, .. } = self.target;
        let home = cx.home()?;
        let others: BTreeSet<String> =
            cx.repo.containers.iter().map(|container| home.repository(&container.name)).collect();
        let others: Vec<String> = others.into_iter().filter(|other| other != repository).collect();
        let known = parallel::map(&others, ASK_AT_ONCE, |other| Known::newest(registry, other));
        for known in known {
            // What can't be asked there is sent from here.
            let Ok(Some(known)) = known else {
                signal::check()?;
                continue;
            };
            let found = suitable(known.place(self.image)?, self.target.compression);
            let wanted: Vec<(usize, Placed)> =
                self.missing().into_iter().filter_map(|number| Some((number, found.get(number)?.clone()?))).collect();
            let mounted = parallel::map(&wanted, ASK_AT_ONCE, |(_, placed)| self.mount(placed, &known.repository));
            for ((number, placed), mounted) in wanted.into_iter().zip(mounted) {
                if let Some(slot) = self.placed.get_mut(number).filter(|_| matches!(mounted, Ok(true))) {
                    *slot = Some(placed);
                }
            }
            signal::check()?;
        }
        Ok(())
    }

    fn mount(&self, placed: &Placed, from: &str) -> Result<bool> {
        let Target { registry, repository, meter, .. } = &self.target;
        match registry.begin(repository, Some((&placed.digest, from)), &meter.sent)? {
            Beginning::Mounted => Ok(true),
            Beginning::Upload(upload) => upload.cancel().map(|()| false),
        }
    }

    /// Sends these layers; tells what each has become.
    fn send(&self, missing: &[usize]) -> Result<Vec<(usize, Placed)>> {
        let layers = missing.iter().filter_map(|number| Some((*number, self.image.layers.get(*number)?)));
        let mut sized: Vec<(u64, usize)> = layers.map(|(number, layer)| (layer.size(), number)).collect();
        let Meter { layers, bytes, .. } = &self.target.meter;
        layers.fetch_add(sized.len(), Ordering::Relaxed);
        bytes.fetch_add(sized.iter().map(|(size, _)| size).sum(), Ordering::Relaxed);
        if let Source::Archive { path, .. } = &self.image.source {
            return self.send_archive(path, missing);
        }
        // The smallest tells whether an earlier push was broken off; of the others the largest first, so that no large
        // one is alone at the end.
        sized.sort_unstable();
        sized.get_mut(1..).unwrap_or_default().reverse();
        let (first, rest) = sized.split_at(sized.len().min(1));
        let failed = AtomicBool::new(false);
        let one = |(_, number): &(u64, usize)| {
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let sent = self.send_layer(*number);
            failed.fetch_or(sent.is_err(), Ordering::Relaxed);
            sent.map(|placed| Some((*number, placed)))
        };
        let mut results = parallel::map(first, 1, one);
        results.extend(parallel::map(rest, AT_ONCE, one));
        let sent: Vec<Option<(usize, Placed)>> = results.into_iter().collect::<Result<_>>()?;
        Ok(sent.into_iter().flatten().collect())
    }

    fn send_layer(&self, number: usize) -> Result<Placed> {
        let layer = self.image.layers.get(number).context("a layer that is not there")?;
        let mut trouble = String::new();
        for attempt in 0..sender::TRIES {
            let mut sender = Sender::new(&self.target, attempt > 0)?;
            let sent = self.image.pour(layer, &mut |bytes| sender.write(bytes)).and_then(|()| sender.finish());
            match sent.and_then(|placed| self.checked(number, placed)) {
                Ok(placed) => return Ok(placed),
                Err(error) => trouble = error.downcast::<Again>()?.to_string(),
            }
        }
        Err(sender::lost(&self.target, &trouble).into())
    }

    /// In one pass over the archive, and as many more as are needed for what is lost on the way.
    fn send_archive(&self, path: &Path, missing: &[usize]) -> Result<Vec<(usize, Placed)>> {
        let name_of = |number: &usize| match &self.image.layers.get(*number)?.content {
            Content::Entry { name, .. } => Some((name.as_str(), *number)),
            _ => None,
        };
        let mut wanted: Vec<(&str, usize)> = missing.iter().filter_map(name_of).collect();
        let mut sent = Vec::new();
        let mut trouble = "it is not in the archive".to_owned();
        for attempt in 0..sender::TRIES {
            if wanted.is_empty() {
                return Ok(sent);
            }
            let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
            archive::each(BufReader::with_capacity(PIECE, file), |name, content| {
                let numbers: Vec<usize> =
                    wanted.iter().filter(|(wanted, _)| *wanted == name).map(|(_, number)| *number).collect();
                let Some(first) = numbers.first() else { return signal::check() };
                match self.send_entry(content, attempt > 0).and_then(|placed| self.checked(*first, placed)) {
                    Ok(placed) => {
                        wanted.retain(|(wanted, _)| *wanted != name);
                        sent.extend(numbers.iter().map(|number| (*number, placed.clone())));
                    }
                    Err(error) => trouble = error.downcast::<Again>()?.to_string(),
                }
                Ok(())
            })?;
        }
        if wanted.is_empty() { Ok(sent) } else { Err(sender::lost(&self.target, &trouble).into()) }
    }

    fn send_entry(&self, content: &mut dyn std::io::Read, forced: bool) -> Result<Placed> {
        let mut sender = Sender::new(&self.target, forced)?;
        let mut piece = vec![0; PIECE];
        loop {
            let count = content.read(&mut piece)?;
            if count == 0 {
                return sender.finish();
            }
            sender.write(piece.get(..count).unwrap_or_default())?;
        }
    }

    /// What has been sent must be what the build says it is.
    fn checked(&self, number: usize, placed: Placed) -> Result<Placed> {
        let said = self.image.layers.get(number).and_then(|layer| layer.diff_id.as_ref());
        match said.filter(|said| **said != placed.diff_id) {
            None => Ok(placed),
            Some(said) => Err(Failure::refused(format!(
                "{}: layer {} is {}, and the image says {said}",
                self.image.store_path,
                number + 1,
                placed.diff_id
            ))
            .into()),
        }
    }
}

/// The manifest: Docker's, unless a layer is of zstd.
fn manifest(image_id: &Digest, size: usize, placed: &[&Placed]) -> (Words, Vec<u8>) {
    let zstd = placed.iter().any(|placed| placed.compression == Some(Compression::Zstd));
    let words = if zstd { OCI } else { DOCKER };
    let layer = |placed: &&Placed| {
        let media_type = if placed.compression == Some(Compression::Zstd) { words.zstd } else { words.gzip };
        json!({"mediaType": media_type, "size": placed.size, "digest": placed.digest.as_str()})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": words.manifest,
        "config": {"mediaType": words.config, "size": size, "digest": image_id.as_str()},
        "layers": placed.iter().map(layer).collect::<Vec<_>>(),
    });
    let bytes = manifest.to_string().into_bytes();
    (words, bytes)
}

/// Works, and says how far it is: all the time to somebody who watches, now and then to a log.
fn watched<T>(stage: &mut Stage<'_>, meter: &Meter, work: impl FnOnce() -> T) -> T {
    let every = if Reporter::is_live() { Duration::from_millis(120) } else { Duration::from_secs(10) };
    let (working, ended) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                stage.update(&meter.to_string());
            }
        });
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_dockers_unless_a_layer_is_of_zstd() {
        let (id, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let layer = |compression| Placed {
            diff_id: id.clone(),
            compression: Some(compression),
            digest: other.clone(),
            size: 9,
        };
        let (gzip, zstd) = (layer(Compression::Gzip), layer(Compression::Zstd));
        let (words, bytes) = manifest(&id, 7, &[&gzip]);
        let expected = format!(
            r#"{{"config":{{"digest":"{id}","mediaType":"application/vnd.docker.container.image.v1+json","size":7}},"layers":[{{"digest":"{other}","mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":9}}],"mediaType":"{}","schemaVersion":2}}"#,
            words.manifest
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        let (words, bytes) = manifest(&id, 7, &[&gzip, &zstd]);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(words.manifest, "application/vnd.oci.image.manifest.v1+json");
        assert!(text.contains("layer.v1.tar+gzip") && text.contains("layer.v1.tar+zstd") && !text.contains("docker"));
        assert!(zstd.suits(Compression::Zstd) && gzip.suits(Compression::Zstd) && !zstd.suits(Compression::Gzip));
    }
}
