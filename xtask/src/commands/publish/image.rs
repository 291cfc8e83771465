//! An image as it is pushed: its layers, each with where its bytes are, and its configuration.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::exec::env;
use crate::exec::tarball::{self, StorePath, Take};
use crate::model::digest::Digest;
use crate::model::failure::Failure;
use crate::tools::docker_tools::Layered;
use crate::tools::{archive, nix};

/// What a build leaves for a push.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) store_path: String,
    pub(crate) layers: Vec<Layer>,
    pub(super) source: Source,
}

/// How the configuration comes about, and what the layers are read from.
#[derive(Debug)]
pub(super) enum Source {
    /// The store; the configuration is made when the digest of every layer is known.
    Store(Box<Layered>),
    /// A docker-archive, which has one.
    Archive { path: PathBuf, config: Vec<u8> },
}

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// What the configuration says of it: the paths that it is made of.
    pub(super) comment: Option<String>,
    /// The digest of its bytes, uncompressed, where the build has left it.
    pub(super) diff_id: Option<Digest>,
    pub(super) content: Content,
}

/// Where a layer's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Paths(Vec<StorePath>),
    /// A finished tarball.
    Tarball(PathBuf),
    /// In the archive, by this name.
    Entry {
        name: String,
        size: u64,
    },
}

impl Image {
    /// Reads what a build has left: a list of layers or an archive. Nothing where the list does not say it all, as of
    /// an image on top of another one.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn read(store_path: &str) -> Result<Option<Self>> {
        let path = real(store_path);
        let unreadable = |why: String| Failure::refused(format!("{}: {why}", path.display()));
        let mut file = File::open(&path).with_context(|| format!("can't read {}", path.display()))?;
        let mut first = [0];
        file.read_exact(&mut first).map_err(|error| unreadable(error.to_string()))?;
        file.rewind()?;
        let (source, layers) = if first == *b"{" {
            let text = std::io::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
            let Some(layered) = Layered::parse(&text).map_err(unreadable)? else { return Ok(None) };
            let layers = of_store(&layered)?;
            (Source::Store(Box::new(layered)), layers)
        } else {
            let index = archive::index(BufReader::new(file)).map_err(unreadable)?;
            let layers = index.layers.into_iter().map(|layer| Layer {
                comment: None,
                diff_id: Some(layer.diff_id),
                content: Content::Entry { name: layer.name, size: layer.size },
            });
            let layers = layers.collect();
            (Source::Archive { path, config: index.config }, layers)
        };
        Ok(Some(Self { store_path: store_path.to_owned(), layers, source }))
    }

    /// The configuration, once the digest of every layer is known.
    pub(super) fn configuration(&self, diff_ids: &[Digest]) -> Result<Vec<u8>> {
        match &self.source {
            Source::Store(layered) => Ok(layered.configuration(diff_ids).map_err(Failure::refused)?),
            Source::Archive { config, .. } => Ok(config.clone()),
        }
    }
}

fn real(store_path: &str) -> PathBuf {
    nix::real_path(store_path, env::var("NIX_REMOTE").as_deref())
}

fn of_store(layered: &Layered) -> Result<Vec<Layer>> {
    let place = |name: &String| StorePath { name: name.clone(), place: real(name) };
    let paths = |paths: &Vec<String>| Content::Paths(paths.iter().map(place).collect());
    let folder = real(&layered.customisation_layer);
    let checksum = folder.join("checksum");
    let digest = std::fs::read_to_string(&checksum).with_context(|| format!("can't read {}", checksum.display()))?;
    let digest: Digest = format!("sha256:{}", digest.trim())
        .parse()
        .map_err(|why| Failure::refused(format!("{}: {why}", checksum.display())))?;
    let own = (Some(digest), Content::Tarball(folder.join("layer.tar")));
    let all = layered.store_layers.iter().map(|list| (None, paths(list))).chain([own]);
    let layers = layered.comments().into_iter().zip(all);
    Ok(layers.map(|(comment, (diff_id, content))| Layer { comment: Some(comment), diff_id, content }).collect())
}

impl Layer {
    /// About how many bytes it has.
    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::Paths(paths) => tarball::size(paths),
            Content::Tarball(path) => path.metadata().map_or(0, |metadata| metadata.len()),
            Content::Entry { size, .. } => *size,
        }
    }
}

impl Image {
    /// Hands a layer's bytes to `take`.
    ///
    /// # Errors
    /// What can't be read, and what `take` says.
    pub(super) fn pour(&self, layer: &Layer, take: Take<'_>) -> Result<()> {
        match (&layer.content, &self.source) {
            (Content::Paths(paths), Source::Store(layered)) => tarball::write(paths, &layered.stamp, take),
            (Content::Tarball(path), _) => tarball::copy(path, take),
            _ => Err(Failure::refused(format!("{}: a layer in it is read with all others", self.store_path)).into()),
        }
    }
}
