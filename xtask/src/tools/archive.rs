//! The docker-archive that `nix-build` leaves: a tarball with `manifest.json`, a configuration and layers.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::image::{self, ImageConfig};

/// What an archive holds, as far as reports and comparisons need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// The digest of the configuration: the identity of the image, however its layers are compressed.
    pub(crate) image_id: String,
    pub(crate) config: ImageConfig,
    pub(crate) layers: usize,
    /// Bytes of all layers, uncompressed.
    pub(crate) size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    layers: Vec<String>,
}

/// The tarball in `file`, which may be compressed by gzip.
///
/// # Errors
/// What can't be read, as a fragment.
pub(crate) fn plain<'a>(mut file: impl Read + 'a) -> Result<Box<dyn Read + 'a>, String> {
    let mut magic = [0; 2];
    file.read_exact(&mut magic).map_err(|error| format!("not an archive: {error}"))?;
    let whole = io::Cursor::new(magic).chain(file);
    let is_gzip = magic == [0x1f, 0x8b];
    Ok(if is_gzip { Box::new(flate2::read::MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

/// What is to be pushed of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    /// The configuration as it is.
    pub(crate) config: Vec<u8>,
    /// Lowest first.
    pub(crate) layers: Vec<IndexedLayer>,
}

/// A layer of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexedLayer {
    /// What it is called in the archive.
    pub(crate) name: String,
    /// The digest of its bytes, uncompressed.
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
}

/// Reads what an archive holds; its layers are passed over.
///
/// # Errors
/// As [`read`].
pub(crate) fn index(file: impl Read) -> Result<Index, String> {
    let Found { config, item, sizes } = find(plain(file)?)?;
    let named = image::layers(&config).map_err(|why| format!("{}: {why}", item.config))?;
    if named.len() != item.layers.len() {
        return Err(format!("{} layers and {} digests of layers", item.layers.len(), named.len()));
    }
    let layer = |(name, named): (String, image::NamedLayer)| {
        let size = *sizes.get(&name).ok_or_else(|| format!("it has no {name}"))?;
        Ok(IndexedLayer { name, diff_id: named.diff_id, size })
    };
    let layers = item.layers.into_iter().zip(named).map(layer).collect::<Result<_, String>>()?;
    Ok(Index { config, layers })
}

/// Hands every file of an archive to `take`, with its name.
///
/// # Errors
/// What can't be read, and what `take` says.
pub(crate) fn each(
    file: impl Read,
    mut take: impl FnMut(&str, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let plain = plain(file).map_err(anyhow::Error::msg)?;
    for entry in tar::Archive::new(plain).entries()? {
        let mut entry = entry?;
        let name = name(&entry)?;
        take(&name, &mut entry)?;
    }
    Ok(())
}

fn name(entry: &tar::Entry<'_, impl Read>) -> io::Result<String> {
    Ok(entry.path()?.to_string_lossy().trim_start_matches("./").to_owned())
}

/// Reads an archive, compressed by gzip or not at all.
///
/// # Errors
/// What is missing or malformed, as a fragment.
pub(crate) fn read(file: impl Read) -> Result<Contents, String> {
    let Found { config, item, sizes } = find(plain(file)?)?;
    Ok(Contents {
        image_id: Digest::of(&config).to_string(),
        config: serde_json::from_slice(&config).map_err(|error| format!("{}: {error}", item.config))?,
        layers: item.layers.len(),
        size: item.layers.iter().filter_map(|layer| sizes.get(layer)).sum(),
    })
}

/// The one image of an archive.
struct Found {
    config: Vec<u8>,
    item: ManifestItem,
    /// Of every file.
    sizes: BTreeMap<String, u64>,
}

fn find(tarball: impl Read) -> Result<Found, String> {
    let broken = |error: io::Error| format!("not a readable tarball: {error}");
    let mut small = BTreeMap::<String, Vec<u8>>::new();
    let mut sizes = BTreeMap::<String, u64>::new();
    for entry in tar::Archive::new(tarball).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = name(&entry).map_err(broken)?;
        sizes.insert(path.clone(), entry.size());
        if path.rsplit_once('.').is_some_and(|(_, extension)| extension == "json") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            small.insert(path, bytes);
        }
    }
    let manifest = small.get("manifest.json").ok_or("it has no manifest.json: not a docker-archive")?;
    let mut items: Vec<ManifestItem> =
        serde_json::from_slice(manifest).map_err(|error| format!("manifest.json: {error}"))?;
    let (Some(item), true) = (items.pop(), items.is_empty()) else {
        return Err("it does not hold one image".to_owned());
    };
    let config = small.remove(&item.config).ok_or_else(|| format!("it has no {}", item.config))?;
    Ok(Found { config, item, sizes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn an_archive_is_read_and_anything_else_is_refused() {
        let config = r#"{"architecture":"amd64","os":"linux","config":{"User":"65534"}}"#;
        let good = tarball(&[
            ("manifest.json", r#"[{"Config":"c.json","Layers":["a/layer.tar"]}]"#),
            ("c.json", config),
            ("a/layer.tar", "12345"),
        ]);
        let contents = read(&good[..]).unwrap();
        assert_eq!((contents.layers, contents.size, contents.config.config.user.as_str()), (1, 5, "65534"));
        assert_eq!(contents.image_id, Digest::of(config.as_bytes()).to_string());
        assert!(index(&good[..]).unwrap_err().contains("rootfs"));
        let id = Digest::of(b"12345");
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{id}"]}}}}"#);
        let files = [
            ("./a.tar", "12345"),
            ("c.json", &config),
            ("manifest.json", r#"[{"Config":"c.json","Layers":["a.tar"]}]"#),
        ];
        let layer = IndexedLayer { name: "a.tar".to_owned(), diff_id: id, size: 5 };
        let whole = tarball(&files);
        assert_eq!(index(&whole[..]).unwrap(), Index { config: config.into_bytes(), layers: vec![layer] });
        let mut names = Vec::new();
        each(&whole[..], |name, content| {
            names.push(format!("{name} {}", io::read_to_string(content)?.len()));
            Ok(())
        })
        .unwrap();
        assert_eq!(names[0], "a.tar 5");
        for bad in [&b""[..], b"xy", &good[..700], &tarball(&[("manifest.json", "[]")]), &tarball(&[])] {
            assert!(read(bad).is_err());
        }
    }
}
