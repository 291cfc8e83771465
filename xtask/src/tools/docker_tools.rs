//! nixpkgs' dockerTools: the list of layers that an image is made of, and the configuration that its stream writes.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tarfile::Stamp;
use crate::model::digest::Digest;

/// What `buildLayeredImage` was told, resolved: the file that its stream is made from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layered {
    /// Lowest first, each a list of store paths.
    pub(crate) store_layers: Vec<Vec<String>>,
    /// A store path with a finished tarball, `layer.tar`, and its digest, `checksum`.
    pub(crate) customisation_layer: String,
    pub(crate) stamp: Stamp,
    architecture: String,
    created: String,
    config: Value,
}

#[derive(Deserialize)]
struct Raw {
    architecture: String,
    config: Value,
    created: String,
    /// Older ones take `created`.
    mtime: Option<String>,
    from_image: Option<Value>,
    store_layers: Vec<Vec<String>>,
    customisation_layer: String,
    #[serde(default = "zero")]
    uid: Value,
    #[serde(default = "zero")]
    gid: Value,
    uname: Option<String>,
    gname: Option<String>,
}

/// A number, which is a string where a shell wrote it.
fn number(value: &Value) -> Result<u64, String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn zero() -> Value {
    Value::from(0)
}

/// The configuration in the order in which the stream writes it.
#[derive(Serialize)]
struct Configuration<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    config: &'a Value,
    rootfs: Root<'a>,
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
struct Root<'a> {
    diff_ids: Vec<&'a str>,
    r#type: &'a str,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    comment: String,
}

impl Layered {
    /// Reads the file; nothing for an image that only its own stream can write: one on top of another image, or one
    /// that takes the time at which it is written.
    ///
    /// # Errors
    /// What is missing or malformed, as a fragment.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let raw: Raw = serde_json::from_str(text).map_err(|error| format!("not a list of layers: {error}"))?;
        let mtime = seconds(raw.mtime.as_deref().unwrap_or(&raw.created));
        let (Some(mtime), Some(_), None) = (mtime, seconds(&raw.created), &raw.from_image) else { return Ok(None) };
        let root = || "root".to_owned();
        let stamp = Stamp {
            mtime,
            uid: number(&raw.uid)?,
            gid: number(&raw.gid)?,
            uname: raw.uname.unwrap_or_else(root),
            gname: raw.gname.unwrap_or_else(root),
        };
        Ok(Some(Self {
            store_layers: raw.store_layers,
            customisation_layer: raw.customisation_layer,
            stamp,
            architecture: raw.architecture,
            created: raw.created,
            config: raw.config,
        }))
    }

    /// The bytes of the image's configuration, once the digest of each layer is known.
    ///
    /// # Errors
    /// As many digests as layers are needed.
    pub(crate) fn configuration(&self, diff_ids: &[Digest]) -> Result<Vec<u8>, String> {
        let comments = self.comments();
        if diff_ids.len() != comments.len() {
            return Err(format!("{} digests for {} layers", diff_ids.len(), comments.len()));
        }
        let created = &self.created;
        let configuration = Configuration {
            created,
            architecture: &self.architecture,
            os: "linux",
            config: &self.config,
            rootfs: Root { diff_ids: diff_ids.iter().map(Digest::as_str).collect(), r#type: "layers" },
            history: comments.into_iter().map(|comment| History { created, comment }).collect(),
        };
        let mut bytes = Vec::new();
        let style = Python(serde_json::ser::PrettyFormatter::with_indent(b"    "));
        configuration
            .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, style))
            .map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    /// What the configuration says of each layer: the paths that it is made of.
    pub(crate) fn comments(&self) -> Vec<String> {
        let custom = std::slice::from_ref(&self.customisation_layer);
        let all = self.store_layers.iter().map(Vec::as_slice).chain([custom]);
        all.map(|paths| {
            let quoted: Vec<String> = paths.iter().map(|path| format!("'{path}'")).collect();
            format!("store paths: [{}]", quoted.join(", "))
        })
        .collect()
    }
}

/// A moment in the one form that Python writes as it has read it.
fn seconds(text: &str) -> Option<u64> {
    let shape = text.len() == "1970-01-01T00:00:01+00:00".len() && matches!(text.as_bytes().get(19), Some(b'+' | b'-'));
    let time: jiff::Timestamp = text.parse().ok().filter(|_| shape)?;
    u64::try_from(time.as_second()).ok()
}

/// JSON as Python indents and escapes it.
struct Python<'a>(serde_json::ser::PrettyFormatter<'a>);

/// Hands a call on to the formatter inside.
macro_rules! as_inside {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: $kind)*) -> io::Result<()> {
            self.0.$name(writer $(, $argument)*)
        })*
    };
}

impl serde_json::ser::Formatter for Python<'_> {
    as_inside! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            if matches!(c, ' '..='~') {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"{"architecture":"amd64","config":{"Cmd":[],"Env":["A=ä\u007f😀","B=\"\\\n"],"User":"1"},
        "created":"1970-01-01T00:00:01+00:00","customisation_layer":"/nix/store/c","from_image":null,"gid":"0","uid":0,
        "store_layers":[["/nix/store/a","/nix/store/b"]]}"#;

    /// What Python's `json.dumps(…, indent=4)` makes of it.
    const CONFIGURATION: &str = r#"{
    "created": "1970-01-01T00:00:01+00:00",
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Cmd": [],
        "Env": [
            "A=\u00e4\u007f\ud83d\ude00",
            "B=\"\\\n"
        ],
        "User": "1"
    },
    "rootfs": {
        "diff_ids": [
            "ID",
            "ID"
        ],
        "type": "layers"
    },
    "history": [
        {
            "created": "1970-01-01T00:00:01+00:00",
            "comment": "store paths: ['/nix/store/a', '/nix/store/b']"
        },
        {
            "created": "1970-01-01T00:00:01+00:00",
            "comment": "store paths: ['/nix/store/c']"
        }
    ]
}"#;

    #[test]
    fn the_configuration_is_the_one_that_the_stream_writes() {
        let layered = Layered::parse(CONF).unwrap().unwrap();
        let id = Digest::of(b"");
        let bytes = layered.configuration(&[id.clone(), id.clone()]).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), CONFIGURATION.replace("ID", id.as_str()));
        assert!(layered.configuration(&[id]).is_err());
        assert_eq!((layered.stamp.mtime, layered.stamp.uname.as_str()), (1, "root"));
    }

    #[test]
    fn what_only_the_stream_can_write_is_left_to_it() {
        for (from, to) in [
            ("\"from_image\":null", "\"from_image\":\"/nix/store/base.tar\""),
            ("1970-01-01T00:00:01+00:00", "now"),
            ("1970-01-01T00:00:01+00:00", "1970-01-01T00:00:01Z"),
        ] {
            assert_eq!(Layered::parse(&CONF.replace(from, to)), Ok(None), "{to}");
        }
        assert!(Layered::parse("{}").is_err() && Layered::parse("no").is_err());
        assert!(Layered::parse(&CONF.replace("\"gid\":\"0\"", "\"gid\":\"x\"")).is_err());
    }
}
