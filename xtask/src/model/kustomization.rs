//! The `images:` list of a kustomization: reading it, and moving a pin without touching anything else.

use super::digest::Digest;
use super::finding::Finding;
use super::source::{Place, Source};
use super::tag::ImageTag;
use super::yaml::{self, Node};

/// The file names kustomize accepts.
pub(crate) const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The lists that name other manifests.
const LISTS: [&str; 3] = ["resources", "bases", "components"];

/// One kustomization file.
#[derive(Clone, Debug)]
pub(crate) struct Kustomization {
    pub(crate) source: Source,
    pub(crate) images: Vec<ImageEntry>,
    /// Folders this one includes, relative to the root.
    pub(crate) includes: Vec<String>,
    /// Whatever in it may be a path, relative to the root.
    pub(crate) names: Vec<String>,
    /// It needs something from elsewhere: a remote base or a chart; which, and where that is written.
    pub(crate) remote: Option<Place>,
}

/// One entry of `images:`.
#[derive(Clone, Debug)]
pub(crate) struct ImageEntry {
    pub(crate) name: Pair,
    pub(crate) new_name: Option<Pair>,
    pub(crate) new_tag: Option<Pair>,
    pub(crate) digest: Option<Pair>,
    /// Written as `{name: …}`.
    flow: bool,
}

/// A key with its scalar.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) text: String,
    key_start: usize,
    key_end: usize,
    start: usize,
    end: usize,
}

impl ImageEntry {
    /// The image that ends up in the manifests, without tag.
    pub(crate) fn image(&self) -> &str {
        self.new_name.as_ref().map_or(&self.name.text, |pair| &pair.text)
    }

    /// The tag, if there is one to speak of.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.new_tag.as_ref().map(|pair| pair.text.as_str()).filter(|text| !text.is_empty())
    }

    /// The digest, if there is one to speak of.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_ref().map(|pair| pair.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Where to look for the pin.
    pub(crate) fn place(&self, source: &Source) -> Place {
        let pair = self.new_tag.as_ref().or(self.digest.as_ref()).unwrap_or(&self.name);
        source.place(pair.start, pair.end)
    }

    /// All of it.
    pub(crate) fn span(&self, source: &Source) -> Place {
        let pairs = [Some(&self.name), self.new_name.as_ref(), self.new_tag.as_ref(), self.digest.as_ref()];
        let pairs = || pairs.into_iter().flatten();
        let start = pairs().map(|pair| pair.key_start).min().unwrap_or_default();
        source.place(start, pairs().map(|pair| pair.end).max().unwrap_or(start))
    }
}

impl Kustomization {
    /// Reads `source`.
    ///
    /// # Errors
    /// A finding where the file is no YAML or an `images:` entry has no name.
    pub(crate) fn parse(source: Source) -> Result<Self, Box<Finding>> {
        let documents = yaml::parse(&source)?;
        let Some(root) = documents.first() else {
            return Ok(Self { source, images: vec![], includes: vec![], names: vec![], remote: None });
        };
        let items = root.get("images").map_or(&[][..], Node::items);
        let images = items.iter().map(|item| image_entry(item, &source)).collect::<Result<_, _>>()?;
        let includes = LISTS
            .iter()
            .filter_map(|key| root.get(key))
            .flat_map(Node::items)
            .filter_map(Node::text)
            .filter_map(|path| join(source.folder(), path))
            .collect();
        let mut scalars = Vec::new();
        root.scalars(&mut |node, text| scalars.push((node, text)));
        let given = scalars.iter().filter(|(_, text)| !matches!(*text, "" | "~" | "." | "./"));
        let names = given.filter_map(|(_, text)| join(source.folder(), text)).collect();
        let hosts = ["git@", "github.com/", "gitlab.com/", "bitbucket.org/"];
        let is_remote = |text: &str| {
            text.contains("://") || text.contains("?ref=") || hosts.iter().any(|host| text.starts_with(host))
        };
        let listed = LISTS.iter().filter_map(|key| root.get(key)).flat_map(Node::items);
        let patched = ["patches", "patchesStrategicMerge", "patchesJson6902", "transformers", "generators", "crds"];
        let patched = patched.iter().filter_map(|key| root.get(key)).flat_map(Node::items);
        let patched = patched.map(|item| item.get("path").unwrap_or(item));
        let charts = ["helmCharts", "helmChartInflationGenerator"].into_iter().find_map(|key| root.get(key));
        let remote = listed.chain(patched).find(|node| {
            let text = node.text().filter(|text| !text.contains('\n'));
            text.is_some_and(is_remote)
        });
        let remote = remote.or(charts);
        let remote = remote.map(|node| node.place(&source));
        Ok(Self { source, images, includes, names, remote })
    }

    /// The entries that decide the tag of `image`.
    pub(crate) fn entries<'a>(&'a self, image: &'a str) -> impl Iterator<Item = &'a ImageEntry> {
        self.images.iter().filter(move |entry| entry.image() == image)
    }

    /// The file's text with every entry of `image` at `tag` and `digest`, all other bytes as they were.
    ///
    /// # Errors
    /// A finding where an entry is written in a way that can't be edited safely, as an alias.
    pub(crate) fn pinned(&self, image: &str, tag: &ImageTag, digest: &Digest) -> Result<String, Box<Finding>> {
        let mut edits = Vec::new();
        for entry in self.entries(image) {
            edits.extend(self.entry_edits(entry, &tag.to_string(), digest.as_str())?);
        }
        edits.sort_by_key(|edit: &Edit| std::cmp::Reverse(edit.start));
        let mut text = self.source.text.to_string();
        for edit in edits {
            text.replace_range(edit.start..edit.end, &edit.text);
        }
        self.confirm(&text, image, tag, digest)?;
        Ok(text)
    }

    fn entry_edits(&self, entry: &ImageEntry, tag: &str, digest: &str) -> Result<Vec<Edit>, Box<Finding>> {
        let anchor = entry.new_name.as_ref().unwrap_or(&entry.name);
        let mut edits = Vec::new();
        let mut appended = String::new();
        for (pair, key, value) in [(&entry.new_tag, "newTag", tag), (&entry.digest, "digest", digest)] {
            match pair {
                Some(pair) => edits.push(self.replacement(pair, value)?),
                None => appended.push_str(&self.new_line(entry, key, value)),
            }
        }
        if !appended.is_empty() {
            // A missing digest goes behind the tag, a missing tag behind the name.
            let behind = if entry.digest.is_none() { entry.new_tag.as_ref().unwrap_or(anchor) } else { anchor };
            let at = if entry.flow { behind.end } else { self.line_end(behind.end) };
            // First, because edits at one place are made in this order and the later one ends up in front.
            edits.insert(0, Edit { start: at, end: at, text: appended });
        }
        Ok(edits)
    }

    fn replacement(&self, pair: &Pair, value: &str) -> Result<Edit, Box<Finding>> {
        let text = &self.source.text;
        if pair.start < pair.key_end {
            let place = self.source.place(pair.key_start, pair.key_end);
            return Err(Box::new(
                Finding::error("pin-not-editable", "the value is an alias of another line; pinning it would move both")
                    .at(place)
                    .help("write the value out here"),
            ));
        }
        if pair.start == pair.end {
            return Ok(Edit { start: pair.start, end: pair.end, text: format!(" {value}") });
        }
        let quote = text[pair.start..].chars().next().filter(|c| matches!(c, '\'' | '"'));
        let quoted = quote.map_or_else(|| value.to_owned(), |quote| format!("{quote}{value}{quote}"));
        Ok(Edit { start: pair.start, end: pair.end, text: quoted })
    }

    fn new_line(&self, entry: &ImageEntry, key: &str, value: &str) -> String {
        if entry.flow {
            return format!(", {key}: {value}");
        }
        let text = &self.source.text;
        let line_start = text[..entry.name.key_start].rfind('\n').map_or(0, |newline| newline + 1);
        let indent = text[line_start..entry.name.key_start].chars().count();
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        format!("{newline}{:indent$}{key}: {value}", "")
    }

    /// The end of the line that `at` is on, before its line break.
    fn line_end(&self, at: usize) -> usize {
        let rest = &self.source.text[at..];
        let line = rest.split('\n').next().unwrap_or(rest);
        at + line.strip_suffix('\r').unwrap_or(line).len()
    }

    /// Reads the new text back: the pins are what was asked for and nothing else has moved.
    fn confirm(&self, text: &str, image: &str, tag: &ImageTag, digest: &Digest) -> Result<(), Box<Finding>> {
        let after = Self::parse(Source::new(&self.source.path, text))?;
        let same = |(before, after): (&ImageEntry, &ImageEntry)| {
            if before.image() == image {
                after.tag() == Some(&tag.to_string()) && after.digest() == Some(digest.as_str())
            } else {
                (before.tag(), before.digest(), before.image()) == (after.tag(), after.digest(), after.image())
            }
        };
        let kept = after.images.len() == self.images.len() && after.includes == self.includes;
        if kept && self.images.iter().zip(&after.images).all(same) {
            return Ok(());
        }
        let place =
            self.entries(image).next().map_or_else(|| self.source.place(0, 0), |entry| entry.place(&self.source));
        Err(Box::new(
            Finding::error("pin-not-editable", "this entry is written in a way that can't be edited safely")
                .at(place)
                .help("write it as a plain mapping with name, newTag and digest on lines of their own"),
        ))
    }
}

struct Edit {
    start: usize,
    end: usize,
    text: String,
}

fn image_entry(item: &Node, source: &Source) -> Result<ImageEntry, Box<Finding>> {
    let pair = |key: &str| {
        item.entry(key).and_then(|(key, value)| {
            let text = value.text()?;
            // A key without a value: saphyr calls it null and places it on what follows.
            let written = &source.text[value.start..];
            let empty = matches!(text, "" | "~") && !written.starts_with(['~', '\'', '"']);
            let colon = source.text[key.end..].find(':').map_or(key.end, |at| key.end + at + 1);
            let (start, end) = if empty { (colon, colon) } else { (value.start, value.end) };
            let text = if empty { String::new() } else { text.to_owned() };
            Some(Pair { text, key_start: key.start, key_end: key.end, start, end })
        })
    };
    let Some(name) = pair("name") else {
        let finding = Finding::error("kustomization-image-name", "an entry of images has no name");
        return Err(Box::new(finding.at(item.place(source))));
    };
    let flow = source.text[item.start..].starts_with('{');
    Ok(ImageEntry { name, new_name: pair("newName"), new_tag: pair("newTag"), digest: pair("digest"), flow })
}

/// `path` seen from `folder`, or nothing where it leaves the repository or is remote.
fn join(folder: &str, path: &str) -> Option<String> {
    if path.contains("://") || path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGE: &str = "registry.ops.eblu.me/blumeops/authentik";

    fn pin(text: &str) -> Result<String, String> {
        let kustomization = Kustomization::parse(Source::new("k/kustomization.yaml", text)).map_err(|f| f.message)?;
        let tag = "v1.2.3-nix".parse().unwrap();
        kustomization.pinned(IMAGE, &tag, &Digest::of(b"x")).map_err(|f| f.message)
    }

    fn digest() -> String {
        Digest::of(b"x").to_string()
    }

    #[test]
    fn pins_move_and_all_else_stays() {
        let d = digest();
        let cases = [
            (
                format!("images:\n  - name: {IMAGE}\n"),
                format!("images:\n  - name: {IMAGE}\n    newTag: v1.2.3-nix\n    digest: {d}\n"),
            ),
            (
                format!("images:\n- name: {IMAGE} # ours\n  newTag: \"v1.0.0-nix\"   # pinned\n\n# end"),
                format!("images:\n- name: {IMAGE} # ours\n  newTag: \"v1.2.3-nix\"   # pinned\n  digest: {d}\n\n# end"),
            ),
            (
                format!("images: [{{name: {IMAGE}, newTag: v1}}]\n"),
                format!("images: [{{name: {IMAGE}, newTag: v1.2.3-nix, digest: {d}}}]\n"),
            ),
            (
                format!("images:\r\n  - digest: sha256:0\r\n    name: {IMAGE}\r\n"),
                format!("images:\r\n  - digest: {d}\r\n    name: {IMAGE}\r\n    newTag: v1.2.3-nix\r\n"),
            ),
            (
                format!("images:\n  - name: a\n    newName: '{IMAGE}'\n    newTag:\n  - name: b\n    newTag: z"),
                format!(
                    "images:\n  - name: a\n    newName: '{IMAGE}'\n    newTag: v1.2.3-nix\n    digest: {d}\n  - name: b\n    newTag: z"
                ),
            ),
            (
                format!("images:\n  - name: {IMAGE}"),
                format!("images:\n  - name: {IMAGE}\n    newTag: v1.2.3-nix\n    digest: {d}"),
            ),
        ];
        for (before, after) in cases {
            assert_eq!(pin(&before).as_deref(), Ok(after.as_str()), "{before}");
            assert_eq!(pin(&after).as_deref(), Ok(after.as_str()), "pinning twice: {before}");
        }
    }

    #[test]
    fn an_alias_gives_way_to_the_value_and_its_anchor_stays() {
        let text = format!("x: &tag v1.0.0\nimages:\n  - name: {IMAGE}\n    newTag: *tag\n");
        let after = pin(&text).unwrap();
        assert!(after.starts_with("x: &tag v1.0.0\n") && after.contains("newTag: v1.2.3-nix\n"));
    }

    #[test]
    fn folders_are_joined_inside_the_repository_only() {
        assert_eq!(join("a/b", "../c").as_deref(), Some("a/c"));
        assert_eq!(join("a", "./d.yaml").as_deref(), Some("a/d.yaml"));
        assert_eq!(join("a", "../../c"), None);
        assert_eq!(join("a", "https://x/y"), None);
    }

    proptest! {
        /// Any layout of comments, order and neighbours: what is not a pin keeps its bytes.
        #[test]
        fn only_the_pin_changes(
            order in Just(vec!["name", "newTag", "digest", "other"]).prop_shuffle(),
            keep in proptest::collection::vec(any::<bool>(), 4),
            comment in "( # [a-zé ]{0,8})?", indent in 0..4usize, neighbours in 0..3usize,
        ) {
            let mut lines = vec!["# head é".to_owned(), "images:".to_owned()];
            for n in 0..neighbours { lines.push(format!("{:indent$}- name: n{n}\n{:indent$}  newTag: t{n}", "", "")); }
            let mut first = true;
            for (key, keep) in order.iter().zip(&keep) {
                let value = match *key { "name" => IMAGE, "newTag" => "v0.0.1-nix", "digest" => "sha256:1", _ => "x" };
                if *key != "name" && !keep || *key == "other" { continue; }
                lines.push(format!("{:indent$}{} {key}: {value}{comment}", "", if first { "-" } else { " " }));
                first = false;
            }
            lines.push("resources: [a.yaml]".to_owned());
            let before = lines.join("\n");
            let after = pin(&before).unwrap();
            let strip = |text: &str| text.lines().filter(|l| !l.contains("newTag: v") && !l.contains("digest:")).map(str::to_owned).collect::<Vec<_>>();
            // A pin that is the item's first key keeps the item's dash on its line.
            prop_assert_eq!(strip(&before), strip(&after));
            let digest = format!("digest: {}", digest());
            prop_assert_eq!(after.matches("newTag: v1.2.3-nix").count(), 1);
            prop_assert_eq!(after.matches(digest.as_str()).count(), 1);
        }
    }
}
