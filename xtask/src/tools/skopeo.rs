//! skopeo: bringing an image to an engine, and looking whether a registry has one.

use std::time::Duration;

use super::{Invocation, line};
use crate::model::config::Endpoint;

/// A large image over the tailnet.
const COPY: Duration = Duration::from_secs(3600);

/// Copies an image, from an archive or a registry, into an archive that an engine loads as `reference`.
///
/// A policy is given up on purpose: Debian's skopeo refuses to start without a policy file, and an image that was built
/// here a moment ago carries no signature to check.
pub(crate) fn to_archive(source: &str, secure: bool, archive: &str, reference: &str) -> Invocation {
    let target = format!("docker-archive:{archive}:{reference}");
    let tls = if secure { None } else { Some("--src-tls-verify=false") };
    line!("skopeo --insecure-policy copy --quiet {tls...} {source} {target}").limit(COPY)
}

/// A shell line that ends when the registry has the tag; printed by dry runs in place of our own wait.
pub(crate) fn wait_line(endpoint: &Endpoint, repository: &str, tag: &str) -> String {
    let target = format!("docker://{}/{repository}:{tag}", endpoint.authority);
    let tls = if endpoint.secure { None } else { Some("--tls-verify=false") };
    let inspect = line!("skopeo inspect --raw {tls...} {target}");
    format!("until {inspect} > /dev/null 2>&1; do sleep 5; done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let here: Endpoint = "http://127.0.0.1:5000".parse().unwrap();
        assert_eq!(
            wait_line(&here, "b", "c"),
            "until skopeo inspect --raw '--tls-verify=false' docker://127.0.0.1:5000/b:c > /dev/null 2>&1; do sleep 5; done"
        );
    }
}
