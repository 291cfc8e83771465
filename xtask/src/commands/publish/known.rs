//! What a registry has of an image already, as the manifests and configurations of earlier ones tell.

use anyhow::Result;

use super::image::{Image, Layer};
use crate::model::digest::{Digest, Hasher};
use crate::model::failure::Failure;
use crate::model::image::{self, NamedLayer};
use crate::model::tag::ImageTag;
use crate::registry::{Blob, Manifest, Registry};

/// A layer that need not be read: its digest, and what it is in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) diff_id: Digest,
    pub(super) blob: Blob,
}

/// The layers of one image in a registry.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) repository: String,
    layers: Vec<(NamedLayer, Blob)>,
}

impl Known {
    /// The layers of what `manifest` names; nothing where it is no image, or one whose layers are not all gzip.
    ///
    /// # Errors
    /// The registry can't be asked, or does not have what it names.
    pub(super) fn of(registry: &Registry, repository: &str, manifest: &Manifest) -> Result<Option<Self>> {
        let Some(config) = &manifest.config else { return Ok(None) };
        let bytes = registry.config_bytes(repository, config)?;
        let named = image::layers(&bytes).map_err(|why| {
            Failure::environment(format!("{}/{repository} has a configuration {config}: {why}", registry.endpoint))
        })?;
        let gzip = manifest
            .layers
            .iter()
            .all(|blob| blob.media_type.ends_with("tar.gzip") || blob.media_type.ends_with("tar+gzip"));
        if named.len() != manifest.layers.len() || !gzip {
            return Ok(None);
        }
        let layers = named.into_iter().zip(manifest.layers.iter().cloned()).collect();
        Ok(Some(Self { repository: repository.to_owned(), layers }))
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
        let found: Vec<Option<&(NamedLayer, Blob)>> = image.layers.iter().map(|layer| self.find(layer)).collect();
        let by_paths = image.layers.iter().zip(&found).filter(|(layer, _)| layer.diff_id.is_none());
        let smallest =
            by_paths.filter_map(|(layer, found)| Some((layer, (*found)?))).min_by_key(|(_, (_, blob))| blob.size);
        // The owner or the time that all files get may have changed, or the way in which tarballs are written: the
        // smallest of those layers tells for all.
        let paths_tell = match smallest {
            Some((layer, (named, _))) => hash(image, layer)? == named.diff_id,
            None => true,
        };
        let placed = image.layers.iter().zip(found).map(|(layer, found)| {
            let (named, blob) = found.filter(|_| paths_tell || layer.diff_id.is_some())?;
            Some(Placed { diff_id: named.diff_id.clone(), blob: blob.clone() })
        });
        Ok(placed.collect())
    }

    fn find(&self, layer: &Layer) -> Option<&(NamedLayer, Blob)> {
        self.layers.iter().find(|(named, _)| match (&layer.diff_id, &layer.comment) {
            (Some(diff_id), _) => named.diff_id == *diff_id,
            (None, Some(comment)) => named.comment == *comment,
            (None, None) => false,
        })
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
    fn the_newest_is_the_highest_version() {
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        assert_eq!(newest(&tags(&["v1.9.0-nix", "v1.10.0-nix", "zebra"])).map(String::as_str), Some("v1.10.0-nix"));
        assert_eq!(newest(&tags(&["a", "b"])).map(String::as_str), Some("b"));
        assert_eq!(newest(&[]), None);
    }
}
