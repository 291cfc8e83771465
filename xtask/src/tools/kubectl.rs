//! kubectl: one cluster at a time, by the context that the repository names.

use std::time::Duration;

use super::{Invocation, line};
use crate::model::config::KubeContext;

#[allow(dead_code, reason = "the commands that ask clusters come next")]
/// `args` in the cluster of `context`, each request ended by kubectl itself after `limit`.
pub(crate) fn in_cluster(context: &KubeContext, limit: Duration, args: &[&str]) -> Invocation {
    let context = format!("--context={context}");
    let timeout = format!("--request-timeout={}s", limit.as_secs().max(1));
    // Its own limit covers a request; ours covers a name that does not resolve or a plugin that hangs.
    line!("kubectl {context} {timeout} {args...}").limit(limit + Duration::from_secs(2))
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
}
