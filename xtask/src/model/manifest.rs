//! Rendered text as the manifests it consists of, and the way ArgoCD applies each.

use super::source::Source;
use super::yaml::{self, Node};

/// How what is there is compared with what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apply {
    /// By what was applied the last time, which is kept in an annotation. ArgoCD's default.
    Client,
    /// By who has set each field.
    Server,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) way: Apply,
    text: String,
}

const SERVER: &str = "ServerSideApply=true";

/// The way in which an Application's objects are applied, unless they say otherwise.
pub(crate) fn way_of(application: &Node) -> Apply {
    let options = application.path(&["spec", "syncPolicy", "syncOptions"]).map_or(&[][..], Node::items);
    if options.iter().any(|option| option.text() == Some(SERVER)) { Apply::Server } else { Apply::Client }
}

/// The documents of `text` that are objects.
pub(crate) fn split(text: &str, way: Apply) -> Vec<Manifest> {
    let mut parts = vec![String::new()];
    for line in text.split_inclusive('\n') {
        // At the start of a line, three dashes begin a document wherever they stand.
        if line.trim_end() == "---" || line.starts_with("--- ") {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts.into_iter().filter_map(|part| manifest(part, way)).collect()
}

fn manifest(text: String, way: Apply) -> Option<Manifest> {
    let node = yaml::parse(&Source::new("manifest", &text)).ok()?.into_iter().next()?;
    let field = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    let options = node.path(&["metadata", "annotations", "argocd.argoproj.io/sync-options"]).and_then(Node::text);
    let is_server = options.is_some_and(|options| options.split(',').any(|option| option.trim() == SERVER));
    let way = if is_server { Apply::Server } else { way };
    Some(Manifest { version: field("apiVersion")?, kind: field("kind")?, way, text })
}

/// One text of all of them.
pub(crate) fn joined(manifests: &[Manifest]) -> String {
    let mut text = String::new();
    for manifest in manifests {
        let mark = if manifest.text.starts_with("---") { "" } else { "---\n" };
        let end = if manifest.text.ends_with('\n') { "" } else { "\n" };
        text.extend([mark, &manifest.text, end]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_taken_apart_and_put_together() {
        let text = "apiVersion: v1\nkind: A\ndata:\n  x: |\n    ---\n    kind: no\n---\n# nothing\n--- # two\napiVersion: v2\nkind: B\nmetadata:\n  annotations:\n    argocd.argoproj.io/sync-options: Prune=false, ServerSideApply=true\n---\r\napiVersion: v3\r\nkind: C";
        let manifests = split(text, Apply::Client);
        let shown: Vec<(&str, Apply)> = manifests.iter().map(|m| (m.kind.as_str(), m.way)).collect();
        assert_eq!(shown, [("A", Apply::Client), ("B", Apply::Server), ("C", Apply::Client)]);
        assert_eq!(split(&joined(&manifests), Apply::Client), {
            let mut again = manifests;
            again[0].text.insert_str(0, "---\n");
            again[2].text.push('\n');
            again
        });
    }

    #[test]
    fn an_application_says_how_it_is_applied() {
        let node = |text: &str| yaml::parse(&Source::new("a.yaml", text)).unwrap().remove(0);
        assert_eq!(way_of(&node("spec: {syncPolicy: {syncOptions: [ServerSideApply=true]}}")), Apply::Server);
        assert_eq!(way_of(&node("spec: {syncPolicy: {syncOptions: [CreateNamespace=true]}}")), Apply::Client);
    }
}
