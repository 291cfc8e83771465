//! Images: where they live, what an expression declares of them, what a registry says they are.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::name::ContainerName;

/// Host and namespace under which our images are named: `registry.ops.eblu.me/blumeops`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Home {
    pub(crate) host: String,
    pub(crate) namespace: String,
}

impl Home {
    /// The image of `container`, without a tag, as manifests name it.
    pub(crate) fn image(&self, container: &ContainerName) -> String {
        format!("{self}/{container}")
    }

    /// The image's repository as its registry knows it.
    pub(crate) fn repository(&self, container: &ContainerName) -> String {
        format!("{}/{container}", self.namespace)
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.namespace)
    }
}

/// Splits `host/namespace/name:tag@digest` into the image and its tag.
pub(crate) fn split_reference(reference: &str) -> (&str, Option<&str>) {
    let without_digest = reference.split('@').next().unwrap_or(reference);
    match without_digest.rsplit_once(':') {
        // A colon before the last slash belongs to the host's port.
        Some((image, tag)) if !tag.contains('/') => (image, Some(tag)),
        _ => (without_digest, None),
    }
}

/// The part of an image's configuration that decides how it runs. Field names as in the image specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RunConfig {
    #[serde(deserialize_with = "null_as_default")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub(crate) exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(crate) working_dir: String,
}

impl RunConfig {
    /// `6379/tcp, …`
    pub(crate) fn ports(&self) -> Vec<&str> {
        self.exposed_ports.keys().map(String::as_str).collect()
    }
}

/// Registries write `null` where a list is empty.
fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What a Nix expression declares, as far as evaluation tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) config: RunConfig,
    /// The version of the package set it was evaluated with.
    pub(crate) nixpkgs: String,
}

/// An image's configuration file: what the digest `config` of a manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: RunConfig,
}

/// A layer as an image's configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedLayer {
    /// The digest of its bytes, uncompressed.
    pub(crate) diff_id: Digest,
    /// What whoever made it says of it; may be empty.
    pub(crate) comment: String,
}

/// The layers of a configuration, lowest first.
///
/// # Errors
/// What is malformed, as a fragment.
pub(crate) fn layers(config: &[u8]) -> Result<Vec<NamedLayer>, String> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: Root,
        #[serde(default)]
        history: Vec<History>,
    }
    #[derive(Deserialize)]
    struct Root {
        diff_ids: Vec<String>,
    }
    #[derive(Deserialize)]
    struct History {
        #[serde(default)]
        comment: String,
        #[serde(default)]
        empty_layer: bool,
    }
    let config: Config = serde_json::from_slice(config).map_err(|error| format!("not a configuration: {error}"))?;
    let comments: Vec<String> =
        config.history.into_iter().filter(|entry| !entry.empty_layer).map(|entry| entry.comment).collect();
    let complete = comments.len() == config.rootfs.diff_ids.len();
    let named = |(number, diff_id): (usize, String)| {
        let comment = comments.get(number).filter(|_| complete).cloned().unwrap_or_default();
        Ok(NamedLayer { diff_id: diff_id.parse().map_err(|why| format!("{diff_id}: {why}"))?, comment })
    };
    config.rootfs.diff_ids.into_iter().enumerate().map(named).collect()
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Which every engine reads.
    #[default]
    Gzip,
    /// Which takes less time; containerd 1.5, Docker 23, CRI-O and Podman read it, and what is newer.
    Zstd,
}

/// Of which processor an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// Of the machine that this runs on.
    pub(crate) fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// As images and Kubernetes name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Nix names the Linux system of that processor.
    pub(crate) fn nix_system(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux",
            Self::Arm64 => "aarch64-linux",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_at_the_tag() {
        assert_eq!(split_reference("h:5000/a/b:v1@sha256:0"), ("h:5000/a/b", Some("v1")));
        assert_eq!(split_reference("h:5000/a/b"), ("h:5000/a/b", None));
        assert_eq!(split_reference("redis"), ("redis", None));
    }

    #[test]
    fn layers_are_told_apart_from_steps_without_one() {
        let id = Digest::of(b"");
        let config = format!(
            r#"{{"rootfs":{{"diff_ids":["{id}"]}},"history":[{{"comment":"x","empty_layer":true}},{{"comment":"y"}}]}}"#
        );
        let expected = [NamedLayer { diff_id: id.clone(), comment: "y".to_owned() }];
        assert_eq!(layers(config.as_bytes()).unwrap(), expected);
        assert_eq!(layers(config.replace(",\"empty_layer\":true", "").as_bytes()).unwrap()[0].comment, "");
        assert!(layers(config.replace(id.as_str(), "x").as_bytes()).is_err() && layers(b"[").is_err());
    }

    #[test]
    fn null_lists_are_empty() {
        let config: RunConfig =
            serde_json::from_str(r#"{"Entrypoint":null,"Cmd":["a"],"ExposedPorts":{"1/tcp":{}}}"#).unwrap();
        assert_eq!((config.entrypoint.len(), config.cmd.len(), config.ports()), (0, 1, vec!["1/tcp"]));
    }
}
