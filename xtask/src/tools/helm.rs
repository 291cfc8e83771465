//! helm: what a chart renders to. It only renders; no cluster is asked and nothing is installed.

use std::time::Duration;

use super::{Invocation, line};
use crate::model::parity::{ChartName, ChartRepository, ChartVersion};

/// The Kubernetes that charts are rendered for where nothing else is said: what the rehearsal runs.
/// A helm that was built by Go would say 1.20.
pub(crate) const KUBE_VERSION: &str = "1.34";

const RENDER: Duration = Duration::from_secs(60);
const NETWORK: Duration = Duration::from_secs(120);

/// What `helm template` is told.
pub(crate) struct Template<'a> {
    pub(crate) release: &'a str,
    pub(crate) chart: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) kube_version: &'a str,
    pub(crate) values: Option<&'a str>,
}

/// Renders a chart as a release that is not there yet. Definitions count as objects, tests don't.
pub(crate) fn template(template: &Template<'_>) -> Invocation {
    let Template { release, chart, namespace, kube_version, values } = template;
    let values: Vec<&str> = values.iter().flat_map(|values| ["--values", *values]).collect();
    let fixed = ["--include-crds", "--skip-tests"];
    line!(
        "helm template {release} {chart} --namespace {namespace} --kube-version {kube_version} {fixed...} {values...}"
    )
    .limit(RENDER)
}

/// Brings a packed chart into `folder`. helm's own list of repositories stays as it is.
pub(crate) fn pull(
    name: &ChartName,
    version: Option<&ChartVersion>,
    repository: &ChartRepository,
    folder: &str,
) -> Invocation {
    let name = name.to_string();
    let version: Vec<String> =
        version.iter().flat_map(|version| ["--version".to_owned(), version.to_string()]).collect();
    let invocation = match repository {
        ChartRepository::Http(url) => {
            line!("helm pull {name} --repo {url} {version...} --destination {folder}")
        }
        ChartRepository::Oci(url) => {
            // A registry on this machine has no certificate.
            let host = url.trim_start_matches("oci://").split(['/', ':']).next().unwrap_or_default();
            let plain = matches!(host, "127.0.0.1" | "localhost").then_some("--plain-http");
            let chart = format!("{url}/{name}");
            line!("helm pull {chart} {version...} {plain...} --destination {folder}")
        }
    };
    invocation.limit(NETWORK)
}

/// Packs the chart in a folder into another, which is then a repository of charts.
pub(crate) fn repository(chart: &str, folder: &str) -> [Invocation; 2] {
    [
        line!("helm package {chart} --destination {folder}").limit(RENDER),
        line!("helm repo index {folder}").limit(RENDER),
    ]
}

/// What to do about a failure that helm's words tell.
pub(crate) fn remedy(stderr: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if says(&["chart requires kubeVersion"]) {
        Some("--kube-version names another Kubernetes, as does kube_version in the service's file")
    } else if says(&["missing in charts/", "helm dependency build", "missing dependencies"]) {
        Some("helm dependency build CHART brings its subcharts; a packed chart has them")
    } else if says(&["no chart version found", "no chart name found", "not found in", ": not found", "404 Not Found"]) {
        Some("look whether the repository has that chart in that version; --chart names another")
    } else if says(&["cannot be reached", "dial tcp", "no such host", "connection refused", "i/o timeout"]) {
        Some("the repository can't be reached; --chart FILE compares with a chart that is here")
    } else if says(&["401", "403", "unauthorized", "denied"]) {
        Some("helm registry login, or --chart FILE")
    } else {
        None
    }
}

/// The template that each document of its output says it comes from: the last such line before `at`.
pub(crate) fn source_of(output: &str, at: usize) -> Option<&str> {
    let before = output.get(..at)?;
    let mut lines = before.lines().rev().take_while(|line| !line.starts_with("---") && !line.is_empty());
    let own = lines.find_map(|line| line.strip_prefix("# Source: "));
    own.or_else(|| before.lines().rev().find_map(|line| line.strip_prefix("# Source: "))).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let template = template(&Template {
            release: "authentik",
            chart: "/w/authentik-1.0.0.tgz",
            namespace: "authentik",
            kube_version: "1.34",
            values: Some("/r/values.yaml"),
        });
        assert_eq!(
            template.to_string(),
            "helm template authentik /w/authentik-1.0.0.tgz --namespace authentik --kube-version 1.34 --include-crds --skip-tests --values /r/values.yaml"
        );
        let (name, version) = ("authentik".parse().unwrap(), "2025.12.4".parse().unwrap());
        let pulled = |url: &str| pull(&name, Some(&version), &url.parse().unwrap(), "/w").to_string();
        assert!(
            pulled("https://charts.example")
                .starts_with("helm pull authentik --repo https://charts.example --version 2025.12.4 --destination /w")
        );
        assert!(pulled("oci://r.example/charts").starts_with("helm pull oci://r.example/charts/authentik --version"));
        assert!(pulled("oci://127.0.0.1:5000/charts").contains("--plain-http"));
    }

    /// As recorded from helm 3.19.
    #[test]
    fn every_failure_has_its_remedy() {
        for (said, remedy_has) in [
            (
                "Error: chart requires kubeVersion: >=1.21.0-0 which is incompatible with Kubernetes v1.20.0",
                "--kube-version",
            ),
            (
                "Error: looks like \"http://127.0.0.1:1\" is not a valid chart repository or cannot be reached: Get \"http://127.0.0.1:1/index.yaml\": dial tcp 127.0.0.1:1: connect: connection refused",
                "can't be reached",
            ),
            (
                "Error: An error occurred while checking for chart dependencies. You may need to run `helm dependency build` to fetch missing dependencies: found in Chart.yaml, but missing in charts/ directory: x",
                "dependency build",
            ),
        ] {
            assert!(remedy(said).unwrap().contains(remedy_has), "{said}");
        }
        assert_eq!(remedy("Error: template: x:1: function \"y\" not defined"), None);
    }

    #[test]
    fn a_document_knows_its_template() {
        let output = "---\n# Source: a/templates/x.yaml\nkind: A\n---\n# Source: a/templates/y.yaml\n# more\nkind: B\n";
        assert_eq!(source_of(output, output.find("kind: A").unwrap()), Some("a/templates/x.yaml"));
        assert_eq!(source_of(output, output.find("kind: B").unwrap()), Some("a/templates/y.yaml"));
        assert_eq!(source_of("kind: A", 0), None);
    }
}
