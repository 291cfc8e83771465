//! What a registry has of an image already, as the manifests and configurations of earlier ones tell.

use anyhow::Result;

use super::image::{Image, Layer};
use crate::model::digest::{Digest, Hasher};
use crate::model::failure::Failure;
use crate::model::image::{self, Compression, NamedLayer};
use crate::model::tag::ImageTag;
use crate::registry::{Manifest, Registry};

/// A layer that need not be read: its digest, and what it is in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) diff_id: Digest,
    /// Nothing where it is compressed in a way that is not ours.
    pub(super) compression: Option<Compression>,
    pub(super) digest: Digest,
    /// Bytes, compressed.
    pub(super) size: u64,
}

impl Placed {
    /// Can it be part of an image for those who read `most`?
    pub(super) fn suits(&self, most: Compression) -> bool {
        self.compression.is_some_and(|own| own == Compression::Gzip || own == most)
    }
}

/// The layers of one image in a registry.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) repository: String,
    /// Each with what is said of it.
    layers: Vec<(Placed, String)>,
}

impl Known {
    /// The layers of what `manifest` names; nothing where it is no image.
    ///
    /// # Errors
    /// The registry can't be asked, or does not have what it names.
    pub(super) fn of(registry: &Registry, repository: &str, manifest: &Manifest) -> Result<Option<Self>> {
        let Some(config) = &manifest.config else { return Ok(None) };
        let bytes = registry.config_bytes(repository, config)?;
        let named = image::layers(&bytes).map_err(|why| {
            Failure::environment(format!("{}/{repository} has a configuration {config}: {why}", registry.endpoint))
        })?;
        if named.len() != manifest.layers.len() {
            return Ok(None);
        }
        let layers = named.into_iter().zip(&manifest.layers).map(|(NamedLayer { diff_id, comment }, blob)| {
            let compression = compression(&blob.media_type);
            (Placed { diff_id, compression, digest: blob.digest.clone(), size: blob.size }, comment)
        });
        Ok(Some(Self { repository: repository.to_owned(), layers: layers.collect() }))
    }

    /// The layers of the newest image in `repository`.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(super) fn newest(registry: &Registry, repository: &str) -> Result<Option<Self>> {
        let tags = registry.tags(repository)?;
        let Some(tag) = newest(&tags) else { return Ok(None) };
        match registry.manifest(repository, tag)? {
            Some(manifest) => Self::of(registry, repository, &manifest),
            None => Ok(None),
        }
    }

    /// What is known of each layer of `image`. A layer is the same when its bytes have the same digest, or when it is
    /// made of the same store paths: what is in those never changes.
    ///
    /// # Errors
    /// A layer can't be read.
    pub(super) fn place(&self, image: &Image) -> Result<Vec<Option<Placed>>> {
        let found: Vec<Option<&Placed>> = image.layers.iter().map(|layer| self.find(layer)).collect();
        let by_paths = image.layers.iter().zip(&found).filter(|(layer, _)| layer.diff_id.is_none());
        let smallest =
            by_paths.filter_map(|(layer, found)| Some((layer, (*found)?))).min_by_key(|(_, placed)| placed.size);
        // The owner or the time that all files get may have changed, or the way in which tarballs are written: the
        // smallest of those layers tells for all.
        let paths_tell = match smallest {
            Some((layer, placed)) => hash(image, layer)? == placed.diff_id,
            None => true,
        };
        let told = |(layer, found): (&Layer, Option<&Placed>)| {
            found.filter(|_| paths_tell || layer.diff_id.is_some()).cloned()
        };
        Ok(image.layers.iter().zip(found).map(told).collect())
    }

    fn find(&self, layer: &Layer) -> Option<&Placed> {
        let same = |(placed, comment): &&(Placed, String)| match (&layer.diff_id, &layer.comment) {
            (Some(diff_id), _) => placed.diff_id == *diff_id,
            (None, Some(own)) => comment == own,
            (None, None) => false,
        };
        self.layers.iter().find(same).map(|(placed, _)| placed)
    }
}

/// Docker's and OCI's words for it.
fn compression(media_type: &str) -> Option<Compression> {
    match media_type.rsplit(['.', '+']).next() {
        Some("gzip") => Some(Compression::Gzip),
        Some("zstd") => Some(Compression::Zstd),
        _ => None,
    }
}

fn hash(image: &Image, layer: &Layer) -> Result<Digest> {
    let mut hasher = Hasher::default();
    image.pour(layer, &mut |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.digest())
}

/// The tag of the highest version; where none has one, the last.
fn newest(tags: &[String]) -> Option<&String> {
    let version = |tag: &&String| tag.parse::<ImageTag>().ok();
    tags.iter().filter(|tag| version(tag).is_some()).max_by_key(version).or_else(|| tags.iter().max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_taken_for_what_they_are_called() {
        for (media_type, expected) in [
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.oci.image.layer.v1.tar", None),
            ("", None),
        ] {
            assert_eq!(compression(media_type), expected, "{media_type}");
        }
    }

    #[test]
    fn the_newest_is_the_highest_version() {
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        assert_eq!(newest(&tags(&["v1.9.0-nix", "v1.10.0-nix", "zebra"])).map(String::as_str), Some("v1.10.0-nix"));
        assert_eq!(newest(&tags(&["a", "b"])).map(String::as_str), Some("b"));
        assert_eq!(newest(&[]), None);
    }
}
