//! Who uses which image: what is said of it in files, pins and pods.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::digest::Digest;
use super::image::{Home, split_reference};
use super::repo::Repo;
use super::source::Source;

/// Tags and digests in use, each with one of its users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// By repository and tag.
    tags: BTreeMap<(String, String), String>,
    digests: BTreeMap<Digest, String>,
}

impl Uses {
    pub(crate) fn add_tag(&mut self, repository: &str, tag: &str, user: &str) {
        self.tags.entry((repository.to_owned(), tag.to_owned())).or_insert_with(|| user.to_owned());
    }

    pub(crate) fn add_digest(&mut self, digest: Digest, user: &str) {
        self.digests.entry(digest).or_insert_with(|| user.to_owned());
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (tag, user) in other.tags {
            self.tags.entry(tag).or_insert(user);
        }
        for (digest, user) in other.digests {
            self.digests.entry(digest).or_insert(user);
        }
    }

    pub(crate) fn of_tag(&self, repository: &str, tag: &str) -> Option<&str> {
        self.tags.get(&(repository.to_owned(), tag.to_owned())).map(String::as_str)
    }

    pub(crate) fn of_digest(&self, digest: &Digest) -> Option<&str> {
        self.digests.get(digest).map(String::as_str)
    }

    pub(crate) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.digests.keys()
    }

    /// `host/namespace/name:tag@digest`, or any part of it that says what is used. The host may be another door to
    /// the same registry, so it does not count.
    pub(crate) fn add_reference(&mut self, reference: &str, user: &str) {
        for digest in digests(reference) {
            self.add_digest(digest, user);
        }
        let (image, tag) = split_reference(reference);
        if let Some(tag) = tag {
            // With a host before it or without: what it is not is no name of a repository.
            let paths = [Some(image), image.split_once('/').map(|(_, path)| path)];
            paths.into_iter().flatten().for_each(|path| self.add_tag(path, tag, user));
        }
    }
}

/// The folders whose files run or build something; a page only speaks of it.
const FOLDERS: [&str; 5] = ["argocd/", "ansible/", "containers/", ".forgejo/", "xtask/"];

/// Everything that the files of a checkout name; `of` says which checkout.
pub(crate) fn of_repository(repo: &Repo, home: &Home, of: &str) -> Uses {
    let mut found = Uses::default();
    for file in repo.files.iter().filter(|file| FOLDERS.iter().any(|folder| file.path.starts_with(folder))) {
        mentioned(file, home, of, &mut found);
    }
    for kustomization in &repo.kustomizations {
        for entry in &kustomization.images {
            let user = format!("{}{of}", entry.place(&kustomization.source));
            if let Some(tag) = entry.tag() {
                found.add_reference(&format!("{}:{tag}", entry.image()), &user);
            }
        }
    }
    found
}

/// Digests, and references below our namespace, wherever they stand in a file.
fn mentioned(file: &Source, home: &Home, of: &str, found: &mut Uses) {
    for digest in digests(&file.text) {
        found.add_digest(digest.clone(), &format!("{}{of}", file.find(digest.as_str())));
    }
    let start = format!("{}/", home.namespace);
    for (at, _) in file.text.match_indices(&start) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':' | '@');
        let rest = &file.text[at..];
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        let reference = rest[..end].trim_end_matches(['.', ':', '/']);
        found.add_reference(reference, &format!("{}{of}", file.place(at, at + end)));
    }
}

/// Every digest in a text.
fn digests(text: &str) -> BTreeSet<Digest> {
    const LENGTH: usize = "sha256:".len() + 64;
    text.match_indices("sha256:").filter_map(|(at, _)| text.get(at..at + LENGTH)?.parse().ok()).collect()
}

/// What the objects of a cluster run, or would: `image` and `imageID` wherever they stand.
pub(crate) fn of_objects(objects: &[Value], cluster: &str) -> Uses {
    let mut found = Uses::default();
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let (kind, namespace, name) = (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
        images(object, &format!("{kind} {namespace}/{name} in {cluster}"), &mut found);
    }
    found
}

fn images(value: &Value, user: &str, found: &mut Uses) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value.as_str().filter(|_| matches!(key.as_str(), "image" | "imageID")) {
                    Some(reference) => {
                        // `docker-pullable://` and what else engines put in front.
                        found.add_reference(reference.rsplit("://").next().unwrap_or(reference), user);
                    }
                    None => images(value, user, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| images(item, user, found)),
        _ => {}
    }
}

/// A pin as history has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) image: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
}

/// The last `keep` pins of each image, the newest first in `pins`.
pub(crate) fn of_history(pins: &[Pin], keep: usize) -> Uses {
    let mut found = Uses::default();
    let mut seen = BTreeMap::<&str, Vec<&Pin>>::new();
    for pin in pins {
        let own = seen.entry(&pin.image).or_default();
        if own.len() == keep || own.contains(&pin) {
            continue;
        }
        let user = match own.len() {
            0 => "the last pin of main".to_owned(),
            count => format!("the pin of main {count} before its last"),
        };
        own.push(pin);
        if let Some(tag) = &pin.tag {
            found.add_reference(&format!("{}:{tag}", pin.image), &user);
        }
        if let Some(digest) = &pin.digest {
            found.add_digest(digest.clone(), &user);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;
    use serde_json::json;

    #[test]
    fn files_pins_and_bare_digests_are_uses_and_pages_are_none() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let repo = repo(&format!(
            "
//- argocd/manifests/a/kustomization.yaml
images:
  - name: reg.example/ops/a
    newTag: v1.0.0-nix
    digest: {one}
//- argocd/manifests/a/job.yaml
image: 'other.example:5000/ops/b:v2.0.0'
//- ansible/roles/x/tasks/main.yml
- command: podman run reg.example/ops/c:v3.0.0@{two} now
//- docs/page.md
reg.example/ops/d:v4.0.0
"
        ));
        let home = Home { host: "reg.example".to_owned(), namespace: "ops".to_owned() };
        let found = of_repository(&repo, &home, " of main");
        let user = |repository, tag| found.of_tag(repository, tag).map(str::to_owned);
        assert_eq!(user("ops/a", "v1.0.0-nix").as_deref(), Some("argocd/manifests/a/kustomization.yaml:3:13 of main"));
        assert!(user("ops/b", "v2.0.0").is_some() && user("ops/c", "v3.0.0").is_some());
        assert_eq!(user("ops/d", "v4.0.0"), None);
        assert!(found.of_digest(&one).is_some() && found.of_digest(&two).is_some());
    }

    #[test]
    fn pods_use_what_they_name_and_what_their_engine_says() {
        let (pulled, config) = (Digest::of(b"pulled"), Digest::of(b"config"));
        let pod = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"initContainers": [{"image": "reg/ops/i:v1"}], "containers": [{"image": "reg.example/ops/a:v1.0.0"}]},
        "status": {"containerStatuses": [
            {"image": "x", "imageID": format!("docker-pullable://reg.example/ops/a@{pulled}")}, {"imageID": config.as_str()},
        ]}});
        let found = of_objects(&[pod], "ringtail");
        assert_eq!(found.of_tag("ops/a", "v1.0.0"), Some("Pod n/p in ringtail"));
        assert!(found.of_digest(&pulled).is_some() && found.of_digest(&config).is_some());
    }

    #[test]
    fn history_keeps_the_last_different_pins_of_each_image() {
        let pin = |image: &str, n: u8| Pin {
            image: format!("reg.example/ops/{image}"),
            tag: Some(format!("v{n}.0.0")),
            digest: Some(Digest::of(&[n])),
        };
        let found = of_history(&[pin("a", 3), pin("a", 3), pin("b", 9), pin("a", 2), pin("a", 1)], 2);
        let used = |image: &str, tag: &str| found.of_tag(&format!("ops/{image}"), tag).is_some();
        assert!(used("a", "v3.0.0") && used("a", "v2.0.0") && !used("a", "v1.0.0") && used("b", "v9.0.0"));
        assert!(found.of_digest(&Digest::of(&[1])).is_none());
    }
}
