//! kustomize: what a folder of manifests renders to.

use std::time::Duration;

use super::{Invocation, line};

/// A render takes a moment; one that asks the network never ends here.
const RENDER: Duration = Duration::from_secs(60);

/// Renders `folder` with `program`, kustomize itself or kubectl, which has it built in.
pub(crate) fn build(program: &str, folder: &str) -> Invocation {
    let verb = if program == "kubectl" { "kustomize" } else { "build" };
    line!("{program} {verb} {folder}").limit(RENDER)
}

/// The line of its stderr that says what is wrong.
pub(crate) fn parse_error(stderr: &str) -> &str {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .next_back()
        .map_or("it gave no reason", |line| line.trim_start_matches("Error: ").trim_start_matches("error: "))
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
    }
}
