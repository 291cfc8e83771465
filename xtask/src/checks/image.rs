//! Is the image in the registry the one that the expression declares?

use crate::model::finding::Finding;
use crate::model::image::{Declared, ImageConfig, RunConfig};

/// Every difference that decides how the image runs.
pub(crate) fn compare(declared: &Declared, actual: &ImageConfig, architectures: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (what, declared, actual) in
        traits(&declared.config).into_iter().zip(traits(&actual.config)).map(|(d, a)| (d.0, d.1, a.1))
    {
        if declared == actual {
            continue;
        }
        if without_hashes(&declared) == without_hashes(&actual) {
            findings.push(Finding::note(
                "image-other-nixpkgs",
                format!("{what} is from another revision of nixpkgs: {actual} instead of {declared}"),
            ));
        } else {
            findings
                .push(Finding::error("image-differs", format!("{what} is {actual}, the expression says {declared}")));
        }
    }
    if actual.os != "linux" {
        findings.push(Finding::error("image-differs", format!("the image is for {:?}, not linux", actual.os)));
    }
    for architecture in architectures.iter().filter(|architecture| **architecture != actual.architecture) {
        findings.push(Finding::error(
            "image-architecture",
            format!("the image is for {}, a cluster that runs it is {architecture}", actual.architecture),
        ));
    }
    findings
}

fn traits(config: &RunConfig) -> [(&'static str, String); 6] {
    [
        ("entrypoint", config.entrypoint.join(" ")),
        ("command", config.cmd.join(" ")),
        ("user", config.user.clone()),
        ("working directory", config.working_dir.clone()),
        ("ports", config.ports().join(" ")),
        ("environment", config.env.join(" ")),
    ]
}

/// Store paths without their hash, which changes with every input.
fn without_hashes(text: &str) -> String {
    const HASH: usize = 32;
    let mut parts = text.split("/nix/store/");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "/nix/store/" + part.get(HASH..).unwrap_or(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entrypoint: &str, user: &str) -> RunConfig {
        RunConfig { entrypoint: vec![entrypoint.to_owned()], user: user.to_owned(), ..RunConfig::default() }
    }

    fn codes(declared: RunConfig, actual: RunConfig, architecture: &str) -> Vec<&'static str> {
        let declared = Declared { name: "x".into(), config: declared, nixpkgs: "n".into() };
        let actual = ImageConfig { architecture: architecture.into(), os: "linux".into(), config: actual };
        compare(&declared, &actual, &["amd64"]).into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn each_difference_is_told_apart() {
        let path = |hash: char| format!("/nix/store/{}-redis-7/bin/redis-server", hash.to_string().repeat(32));
        assert!(codes(config(&path('a'), "1"), config(&path('a'), "1"), "amd64").is_empty());
        assert_eq!(codes(config(&path('a'), "1"), config(&path('b'), "1"), "amd64"), ["image-other-nixpkgs"]);
        assert_eq!(
            codes(config("a", "1"), config("b", "0"), "arm64"),
            ["image-differs", "image-differs", "image-architecture"]
        );
    }
}
