//! kubectl: one cluster at a time, by the context that the repository names.

mod ask;

use std::time::Duration;

use serde_json::Value;

use super::{Invocation, line};
use crate::model::config::KubeContext;

pub(crate) use ask::{exec, is_transient, list, logs, parse_list, parse_secret, reason, secret};

/// `args` in the cluster of `context`, each request ended by kubectl itself after `limit`.
pub(crate) fn in_cluster(context: &KubeContext, limit: Duration, args: &[&str]) -> Invocation {
    let context = format!("--context={context}");
    let timeout = format!("--request-timeout={}s", limit.as_secs().max(1));
    // Its own limit covers a request; ours covers a name that does not resolve or a plugin that hangs.
    line!("kubectl {context} {timeout} {args...}").limit(limit + Duration::from_secs(2))
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
pub(crate) fn would_be(context: &KubeContext, namespace: &str, file: &str) -> Invocation {
    let dry = ["apply", "--server-side", "--dry-run=server", "--force-conflicts", MANAGER];
    asked_in(context, namespace, &[&dry[..], &["--filename", file, "--output=json"]].concat())
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
const REASONS: [(&str, &str); 17] = [
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
    ("(NotFound): namespaces", "the namespace is not there yet, and a dry run does not make it"),
    ("(Invalid)", "the API server refuses it"),
    ("is not supported", "the API server can't make a dry run of it"),
    ("unexpected EOF", "the API server's answer broke off"),
];

/// What kubectl says is wrong, each once, with its own words behind what they mean.
pub(crate) fn reasons(stderr: &str) -> Vec<String> {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Warning:"));
    let mut reasons: Vec<String> = Vec::new();
    // Its log repeats an error that its last line says again.
    for line in
        lines.filter(|line| !line.starts_with(['E', 'W', 'I']) || !line[1..].starts_with(|c: char| c.is_ascii_digit()))
    {
        let known = REASONS.iter().find(|(words, _)| line.contains(words));
        let reason = known.map_or_else(|| line.to_owned(), |(_, meaning)| format!("{meaning} ({line})"));
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if reasons.is_empty() {
        reasons.push("kubectl failed and gave no reason".to_owned());
    }
    reasons
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
        let line = would_be(&context, "dex", "/tmp/dex.yaml").to_string();
        assert!(
            line.contains("apply --server-side '--dry-run=server'") && line.ends_with("'--namespace=dex'"),
            "{line}"
        );
        assert!(!there(&context, "", "x").to_string().contains("namespace"));
    }

    #[test]
    fn objects_come_alone_in_a_row_or_in_a_list() {
        let count = |text| parse_objects(text).map(|objects| objects.len());
        assert_eq!(count(""), Ok(0));
        assert_eq!(count(r#"{"kind":"A"}{"kind":"B"}"#), Ok(2));
        assert_eq!(count(r#"{"kind":"List","items":[{"kind":"A"},{"kind":"B"}]}"#), Ok(2));
        assert!(count("<html>").is_err());
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
            ("Error from server (Invalid): Service \"a\" is invalid: spec.ports: Required value", "refuses it"),
            ("", "no reason"),
        ] {
            let all = reasons(said);
            assert!(all.len() == 1 && all[0].contains(meaning), "{said}: {all:?}");
        }
    }
}
