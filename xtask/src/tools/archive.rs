//! The docker-archive that `nix-build` leaves: a tarball with `manifest.json`, a configuration and layers.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::image::ImageConfig;

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

/// Reads an archive, compressed by gzip or not at all.
///
/// # Errors
/// What is missing or malformed, as a fragment.
pub(crate) fn read(file: impl Read) -> Result<Contents, String> {
    read_tar(plain(file)?)
}

fn read_tar(tarball: impl Read) -> Result<Contents, String> {
    let broken = |error: io::Error| format!("not a readable tarball: {error}");
    let mut small = BTreeMap::<String, Vec<u8>>::new();
    let mut sizes = BTreeMap::<String, u64>::new();
    for entry in tar::Archive::new(tarball).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.to_string_lossy().trim_start_matches("./").to_owned();
        sizes.insert(path.clone(), entry.size());
        if path.rsplit_once('.').is_some_and(|(_, extension)| extension == "json") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            small.insert(path, bytes);
        }
    }
    let manifest = small.get("manifest.json").ok_or("it has no manifest.json: not a docker-archive")?;
    let items: Vec<ManifestItem> =
        serde_json::from_slice(manifest).map_err(|error| format!("manifest.json: {error}"))?;
    let [item] = &items[..] else { return Err(format!("it holds {} images, not one", items.len())) };
    let config = small.get(&item.config).ok_or_else(|| format!("it has no {}", item.config))?;
    Ok(Contents {
        image_id: Digest::of(config).to_string(),
        config: serde_json::from_slice(config).map_err(|error| format!("{}: {error}", item.config))?,
        layers: item.layers.len(),
        size: item.layers.iter().filter_map(|layer| sizes.get(layer)).sum(),
    })
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
        for bad in [&b""[..], b"xy", &good[..700], &tarball(&[("manifest.json", "[]")]), &tarball(&[])] {
            assert!(read(bad).is_err());
        }
    }
}
