//! kubectl: one cluster at a time, by the context that the repository names.

mod ask;
pub(crate) mod borrow;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Invocation, line};
use crate::model::config::KubeContext;
use crate::model::manifest::Apply;
use crate::model::source::Source;
use crate::model::yaml::{self, Node};

pub(crate) use ask::{exec, is_transient, list, logs, parse_list, parse_secret, reason, secret};

/// `args` in the cluster of `context`, each request ended by kubectl itself after `limit`.
pub(crate) fn in_cluster(context: &KubeContext, limit: Duration, args: &[&str]) -> Invocation {
    let context = format!("--context={context}");
    let timeout = format!("--request-timeout={}s", limit.as_secs().max(1));
    // Its own limit covers a request; ours covers a name that does not resolve or a plugin that hangs.
    line!("kubectl {context} {timeout} {args...}").limit(limit + Duration::from_secs(2))
}

/// Reads kubeconfigs: where each context leads. Of two of the same name the first counts, as for kubectl.
pub(crate) fn servers(files: &[Source]) -> BTreeMap<String, String> {
    let documents: Vec<Node> = files.iter().flat_map(|file| yaml::parse(file).unwrap_or_default()).collect();
    let entries = |list: &str, keys: [&str; 2]| {
        let items = documents.iter().filter_map(|document| document.get(list)).flat_map(Node::items);
        let entry = |item: &Node| {
            let text = |value: Option<&Node>| value.and_then(Node::text).map(str::to_owned);
            Some((text(item.get("name"))?, text(item.path(&keys))?))
        };
        let mut entries = BTreeMap::new();
        for (name, value) in items.filter_map(entry) {
            entries.entry(name).or_insert(value);
        }
        entries
    };
    let servers = entries("clusters", ["cluster", "server"]);
    let contexts = entries("contexts", ["context", "cluster"]).into_iter();
    contexts.filter_map(|(name, cluster)| Some((name, servers.get(&cluster)?.clone()))).collect()
}

/// How long one request about a file of manifests may take.
const MANIFESTS: Duration = Duration::from_secs(20);

/// ArgoCD's own field manager: what it set and the manifests no longer say is seen to go.
const MANAGER: &str = "--field-manager=argocd-controller";

/// The objects of `file` as they are in the cluster; those that are not there are left out.
pub(crate) fn there(context: &KubeContext, namespace: &str, file: &str) -> Invocation {
    asked_in(context, namespace, &["get", "--filename", file, "--output=json", "--ignore-not-found"])
}

/// The objects of `file` as they would be once applied. Nothing is changed: the server only says what it would store.
///
/// In ArgoCD's own way: what its client-side apply has set, a server-side one would not see go.
pub(crate) fn would_be(context: &KubeContext, namespace: &str, file: &str, way: Apply) -> Invocation {
    let ways: &[&str] = match way {
        Apply::Client => &[],
        Apply::Server => &["--server-side", "--force-conflicts"],
    };
    let dry = ["apply", "--dry-run=server", MANAGER, "--filename", file, "--output=json"];
    asked_in(context, namespace, &[&dry[..], ways].concat())
}

/// Is anybody there? Whoever may log in may ask this.
pub(crate) fn version(context: &KubeContext) -> Invocation {
    in_cluster(context, Duration::from_secs(10), &["get", "--raw", "/version"])
}

/// The kinds that kubectl says the cluster does not know: version and kind.
pub(crate) fn unknown_kinds(stderr: &str) -> Vec<(String, String)> {
    let mut kinds: Vec<(String, String)> = Vec::new();
    for part in stderr.split("no matches for kind ").skip(1) {
        let mut words = part.split('"').skip(1).step_by(2).map(str::to_owned);
        if let (Some(kind), Some(version)) = (words.next(), words.next())
            && !kinds.contains(&(version.clone(), kind.clone()))
        {
            kinds.push((version, kind));
        }
    }
    kinds
}

fn asked_in(context: &KubeContext, namespace: &str, args: &[&str]) -> Invocation {
    let namespace = format!("--namespace={namespace}");
    let named: &[&str] = if namespace == "--namespace=" { &[] } else { &[&namespace] };
    // A file of many objects is as many requests, each with the limit.
    in_cluster(context, MANIFESTS, &[args, named].concat()).limit(MANIFESTS * 6)
}

/// Reads `--output=json`: one object, a list, or one object after another.
///
/// # Errors
/// It is no JSON.
pub(crate) fn parse_objects(output: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for value in serde_json::Deserializer::from_str(output).into_iter::<Value>() {
        let mut value = value.map_err(|error| format!("kubectl did not answer in JSON: {error}"))?;
        match value.get_mut("items").and_then(Value::as_array_mut) {
            Some(items) => objects.append(items),
            None => objects.push(value),
        }
    }
    Ok(objects)
}

/// Words of its stderr and what they mean, the more particular first.
const REASONS: [(&str, &str); 18] = [
    ("does not exist", "the kubeconfig has no such context"),
    ("connection refused", "the API server does not listen"),
    ("no such host", "the API server's name does not resolve"),
    ("Client.Timeout", "the API server did not answer in time"),
    ("i/o timeout", "the API server did not answer in time"),
    ("context deadline exceeded", "the API server did not answer in time"),
    ("no route to host", "the API server can't be reached"),
    ("network is unreachable", "the API server can't be reached"),
    ("x509", "the API server's certificate is not trusted"),
    ("Unauthorized", "the API server does not know these credentials"),
    ("must be logged in", "the API server does not know these credentials"),
    ("Forbidden", "these credentials may not do that"),
    ("no matches for kind", "the cluster does not know the kind; its CustomResourceDefinition is not installed"),
    ("namespaces \"", "the namespace is not there yet, and a dry run does not make it"),
    ("(Invalid)", "the API server refuses it"),
    (" is invalid: ", "the API server refuses it"),
    ("is not supported", "the API server can't make a dry run of it"),
    ("unexpected EOF", "the API server's answer broke off"),
];

/// Does the reason hold for every object, so that asking for each alone is in vain?
pub(crate) fn concerns_all(reason: &str) -> bool {
    let one = ["these credentials may not", "the API server refuses it", "can't make a dry run"];
    let is_known = REASONS.iter().any(|(_, meaning)| reason.starts_with(meaning));
    is_known && !one.iter().any(|words| reason.starts_with(words))
}

/// What kubectl says is wrong, each once, with its own words behind what they mean; of many that mean the same the first.
pub(crate) fn reasons(stderr: &str) -> Vec<String> {
    let is_beside = |line: &str| line.starts_with("Warning:") || line == "ensure CRDs are installed first";
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !is_beside(line));
    // Its log repeats an error that its last line says again.
    let is_log = |line: &str| line.starts_with(['E', 'W', 'I']) && line[1..].starts_with(|c: char| c.is_ascii_digit());
    let mut reasons: Vec<(Option<&str>, Vec<&str>)> = Vec::new();
    for line in lines.filter(|line| !is_log(line)) {
        let meaning = REASONS.iter().find(|(words, _)| line.contains(words)).map(|(_, meaning)| *meaning);
        match reasons.iter_mut().find(|(known, said)| *known == meaning && (meaning.is_some() || said.contains(&line)))
        {
            Some((_, said)) if said.contains(&line) => {}
            Some((_, said)) => said.push(line),
            None => reasons.push((meaning, vec![line])),
        }
    }
    if reasons.is_empty() {
        return vec!["kubectl failed and gave no reason".to_owned()];
    }
    let shown = |(meaning, said): (Option<&str>, Vec<&str>)| match (meaning, &said[..]) {
        (None, _) => said.join(" "),
        (Some(meaning), [line]) => format!("{meaning} ({line})"),
        (Some(meaning), _) => format!("{meaning} ({}; and {} more)", said[0], said.len() - 1),
    };
    reasons.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_always_named() {
        let context = "k3s-ringtail".parse().unwrap();
        assert_eq!(
            in_cluster(&context, Duration::from_secs(5), &["get", "pods", "--output=json"]).to_string(),
            "kubectl '--context=k3s-ringtail' '--request-timeout=5s' get pods '--output=json'"
        );
    }

    #[test]
    fn a_dry_run_is_made_by_the_server_and_changes_nothing() {
        let context = "k3s-ringtail".parse().unwrap();
        for (way, is_server) in [(Apply::Client, false), (Apply::Server, true)] {
            let line = would_be(&context, "dex", "/tmp/dex.yaml", way).to_string();
            assert!(line.contains("apply '--dry-run=server'") && line.ends_with("'--namespace=dex'"), "{line}");
            assert_eq!(line.contains("--server-side"), is_server, "{line}");
        }
        assert!(!there(&context, "", "x").to_string().contains("namespace"));
    }

    #[test]
    fn the_first_context_of_a_name_counts() {
        let one = "clusters: [{name: k, cluster: {server: 'https://a:1'}}]\ncontexts: [{name: x, context: {cluster: k, user: u}}, {name: y, context: {cluster: gone}}]\n";
        let two = r#"{"clusters": [{"name": "other", "cluster": {"server": "https://b:2"}}], "contexts": [{"name": "x", "context": {"cluster": "other"}}, {"name": "z", "context": {"cluster": "other"}}]}"#;
        let servers = servers(&[Source::new("a", one), Source::new("b", two), Source::new("c", "{")]);
        let shown: Vec<String> = servers.iter().map(|(name, server)| format!("{name} {server}")).collect();
        assert_eq!(shown, ["x https://a:1", "z https://b:2"]);
    }

    #[test]
    fn objects_come_alone_in_a_row_or_in_a_list() {
        let count = |text| parse_objects(text).map(|objects| objects.len());
        assert_eq!(count(""), Ok(0));
        assert_eq!(count(r#"{"kind":"A"}{"kind":"B"}"#), Ok(2));
        assert_eq!(count(r#"{"kind":"List","items":[{"kind":"A"},{"kind":"B"}]}"#), Ok(2));
        assert!(count("<html>").is_err());
    }

    /// As recorded from kubectl 1.34.
    #[test]
    fn kinds_that_are_not_known_are_read_each_once() {
        let said = "error: resource mapping not found for name: \"a\" namespace: \"b\" from \"c.yaml\": no matches for kind \"Foo\" in version \"foo.example/v1\"\nensure CRDs are installed first";
        assert_eq!(unknown_kinds(&format!("[{said}, {said}]")), [("foo.example/v1".to_owned(), "Foo".to_owned())]);
        assert!(unknown_kinds("Error from server (Forbidden)").is_empty());
        assert_eq!(reasons(said).len(), 1);
    }

    /// As recorded from kubectl 1.2x.
    #[test]
    fn every_kind_of_failure_has_its_own_reason() {
        for (said, meaning) in [
            ("error: context \"k3s-ringtail\" does not exist", "no such context"),
            (
                "E1125 02:00:00.0 1 memcache.go:265] x\nThe connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?",
                "refused",
            ),
            ("Unable to connect to the server: dial tcp: lookup r.example: no such host", "does not resolve"),
            ("Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout", "in time"),
            ("Unable to connect to the server: x509: certificate signed by unknown authority", "not trusted"),
            ("error: You must be logged in to the server (Unauthorized)", "these credentials"),
            ("Error from server (Forbidden): deployments.apps \"a\" is forbidden", "may not"),
            (
                "error: resource mapping not found for name: \"a\": no matches for kind \"Cluster\"",
                "CustomResourceDefinition",
            ),
            ("Error from server (NotFound): namespaces \"a\" not found", "not there yet"),
            (
                "Error from server (NotFound): error when creating \"x.yaml\": namespaces \"a\" not found",
                "not there yet",
            ),
            (
                "Error from server (Forbidden): services \"a\" is forbidden: cannot get in the namespace \"b\"",
                "may not do that",
            ),
            ("Error from server (Invalid): Service \"a\" is invalid: spec.ports: Required value", "refuses it"),
            ("The Service \"a\" is invalid: spec.ports[0].port: Invalid value: 99999", "refuses it"),
            (
                "Error from server (Forbidden): a\nError from server (Forbidden): b\nError from server (Forbidden): a",
                "(Error from server (Forbidden): a; and 1 more)",
            ),
            ("", "no reason"),
        ] {
            let all = reasons(said);
            assert!(all.len() == 1 && all[0].contains(meaning), "{said}: {all:?}");
        }
    }
}
