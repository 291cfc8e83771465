//! kustomize: what a folder of manifests renders to.

use std::time::Duration;

use super::{Invocation, line};

/// A render takes a moment; one that asks the network never ends here.
pub(crate) const RENDER: Duration = Duration::from_secs(30);

/// Renders `folder` with `program`, kustomize itself or kubectl, which has it built in.
pub(crate) fn build(program: &str, folder: &str) -> Invocation {
    let verb = if program == "kubectl" { "kustomize" } else { "build" };
    line!("{program} {verb} {folder}").limit(RENDER)
}

/// Why it can't be rendered here although nothing may be wrong with it: it wants a plugin, or the network.
pub(crate) fn cannot(stderr: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if says(&["plugins disabled", "unable to find plugin", "fails configuration: plugin", "must specify --enable-helm"])
    {
        Some("it needs a plugin of kustomize that is not run here")
    } else if says(&[
        "no such host",
        "dial tcp",
        "git fetch",
        "'git fetch",
        "failed to run '/",
        "git cmd =",
        "unable to clone",
    ]) {
        Some("it needs something from elsewhere that can't be reached")
    } else {
        None
    }
}

/// The line of its stderr that says what is wrong.
pub(crate) fn parse_error(stderr: &str) -> &str {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    // What follows is what it was reading.
    let reason = lines().rev().find_map(|line| line.strip_prefix("Error: ").or(line.strip_prefix("error: ")));
    reason.or(lines().next_back()).unwrap_or("it gave no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_and_reasons() {
        assert_eq!(build("kustomize", "argocd/manifests/a").to_string(), "kustomize build argocd/manifests/a");
        assert_eq!(build("kubectl", "a").to_string(), "kubectl kustomize a");
        let said = "# Warning: 'bases' is deprecated.\nError: accumulating resources: no such file\n";
        assert_eq!(parse_error(said), "accumulating resources: no such file");
        assert_eq!(cannot(said), None);
        assert_eq!(parse_error("Error: wrong node kind: node contents:\n1\n\n"), "wrong node kind: node contents:");
        assert_eq!((parse_error("it broke\n"), parse_error("")), ("it broke", "it gave no reason"));
        let ksops =
            "Error: loading generator plugins: external plugins disabled; unable to load external plugin 'ksops'";
        assert!(cannot(ksops).unwrap().contains("plugin"));
        assert!(cannot("Get \"https://raw.example/x\": dial tcp: lookup raw.example: no such host").is_some());
    }
}
