//! What kubectl is asked about the health of a cluster.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::in_cluster;
use crate::model::config::KubeContext;
use crate::model::secret::Secret;
use crate::tools::Invocation;

/// Every object of a kind, of all namespaces or of one.
pub(crate) fn list(context: &KubeContext, limit: Duration, resource: &str, namespace: Option<&str>) -> Invocation {
    let scope = namespace.map_or_else(|| "--all-namespaces".to_owned(), |namespace| format!("--namespace={namespace}"));
    in_cluster(context, limit, &["get", resource, &scope, "--output=json"])
}

/// The end of a container's log.
pub(crate) fn logs(
    context: &KubeContext,
    (namespace, pod, container): (&str, &str, &str),
    previous: bool,
) -> Invocation {
    let (namespace, container) = (format!("--namespace={namespace}"), format!("--container={container}"));
    let mut args = vec!["logs", &namespace, pod, &container, "--tail=20"];
    args.extend(previous.then_some("--previous"));
    in_cluster(context, Duration::from_secs(8), &args)
}

/// A Secret, whose output is for [`parse_secret`] alone.
pub(crate) fn secret(context: &KubeContext, limit: Duration, namespace: &str, name: &str) -> Invocation {
    let namespace = format!("--namespace={namespace}");
    in_cluster(context, limit, &["get", "secret", name, &namespace, "--output=json"]).hidden()
}

/// The value under `key` of a Secret.
///
/// # Errors
/// It is no Secret or has no such key; the text itself is in no message.
pub(crate) fn parse_secret(json: &str, key: &str) -> Result<Secret, &'static str> {
    let value: Value = serde_json::from_str(json).map_err(|_| "is not a Secret")?;
    let encoded = value["data"][key].as_str().ok_or("has no such key")?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "holds what is not base64")?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| "holds what is not text")
}

/// Runs `words` in a container.
pub(crate) fn exec(
    context: &KubeContext,
    (namespace, pod, container): (&str, &str, &str),
    words: &[&str],
) -> Invocation {
    let (namespace, container) = (format!("--namespace={namespace}"), format!("--container={container}"));
    let mut args = vec!["exec", "-i", &namespace, pod, &container, "--"];
    args.extend(words);
    in_cluster(context, Duration::from_secs(20), &args)
}

/// The items of a list.
///
/// # Errors
/// It is not a whole list.
pub(crate) fn parse_list(json: &str) -> Result<Vec<Value>, String> {
    if json.trim().is_empty() {
        return Err("kubectl ended well and said nothing".to_owned());
    }
    let mut value: Value = serde_json::from_str(json)
        .map_err(|error| format!("half an answer: what kubectl said is not JSON ({error})"))?;
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err("the answer has no list of items".to_owned()),
    }
}

/// The line of its stderr that says what is wrong.
pub(crate) fn reason(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    // What it prints with a time in front is its own retries.
    let own = |line: &&str| {
        !line.starts_with(['E', 'I', 'W', 'F']) || !line.as_bytes().get(1).is_some_and(u8::is_ascii_digit)
    };
    let line = lines.clone().rfind(own).or_else(|| lines.clone().next_back());
    line.map_or_else(|| "it gave no reason".to_owned(), |line| line.trim_start_matches("error: ").to_owned())
}

/// May the same call work a moment later?
pub(crate) fn is_transient(reason: &str) -> bool {
    let lasting =
        ["Forbidden", "NotFound", "Unauthorized", "does not exist", "doesn't have a resource type", "no configuration"];
    !lasting.iter().any(|word| reason.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> KubeContext {
        "k3s-ringtail".parse().unwrap()
    }

    #[test]
    fn the_context_is_always_named() {
        let shown = exec(&context(), ("databases", "pg-1", "postgres"), &["psql", "-Atc", "select 1"]).to_string();
        assert!(shown.ends_with("exec -i '--namespace=databases' pg-1 '--container=postgres' -- psql -Atc 'select 1'"));
    }

    #[test]
    fn half_answers_are_no_lists() {
        assert_eq!(parse_list(r#"{"items":[{"a":1}]}"#).unwrap().len(), 1);
        for (text, why) in [("", "nothing"), (r#"{"items":[{"#, "half"), ("{}", "no list"), ("[1]", "no list")] {
            assert!(parse_list(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn reasons_are_found_among_retries() {
        let said = "E0220 10:00:00.1 1 memcache.go:265] couldn't get current server API group list\nUnable to connect to the server: dial tcp: lookup x: no such host\n";
        assert!(reason(said).starts_with("Unable to connect") && is_transient(&reason(said)));
        let said = "Error from server (Forbidden): pods is forbidden: User \"x\" cannot list\n";
        assert!(!is_transient(&reason(said)));
    }

    #[test]
    fn secrets_are_read_by_key() {
        let json = r#"{"data":{"A":"aHVudGVyMg==","B":"!"}}"#;
        assert_eq!(parse_secret(json, "A").map_err(drop).unwrap().reveal(), "hunter2");
        assert!(
            parse_secret(json, "B").is_err() && parse_secret(json, "C").is_err() && parse_secret("x", "A").is_err()
        );
    }
}
