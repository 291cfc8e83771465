//! Every external program: the least version, why, who needs it, and how it is installed.

mod cluster;

use std::fmt;

use Source::{Go, Nowhere, Npm, Packages};

use super::{Invocation, line};
use crate::model::failure::Failure;

/// A program the commands rely on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// Least version, with what came with it.
    pub(crate) minimum: &'static [u32],
    pub(crate) reason: &'static str,
    /// The arguments that print the version, without asking any server.
    pub(crate) version: &'static str,
    pub(crate) needed_by: &'static [&'static str],
    pub(crate) debian: Source,
    pub(crate) nixos: &'static str,
    pub(crate) macos: &'static str,
    pub(crate) mise: &'static str,
}

/// Where Debian has a program from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Debian packages, separated by blanks.
    Packages(&'static str),
    /// A package of npm, which Debian's package of that name brings.
    Npm(&'static str),
    /// It has none; where it is got from instead.
    Nowhere(&'static str),
    /// A Go package at a version.
    Go(&'static str),
    /// A program of the Go module in `xtask/kubernetes`, which pins it.
    Module(&'static str),
    /// A package of Python's index that brings a program of another language.
    Pip(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(names) | Self::Nowhere(names) => f.write_str(names),
            Self::Npm(name) => write!(f, "{name} (npm)"),
            Self::Go(package) | Self::Module(package) => {
                write!(f, "{} (Go)", package.rsplit('/').next().unwrap_or(package))
            }
            Self::Pip(package) => write!(f, "{package} (pip)"),
        }
    }
}

/// Asked by `mise` where it has nothing to offer.
const NOT_IN_MISE: &str = "-";

/// Every program.
pub(crate) fn tools() -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().chain(cluster::TOOLS)
}

/// The table of what more than the rehearsal's cluster needs.
const TOOLS: &[Tool] = &[
    Tool {
        program: "git",
        minimum: &[2, 31],
        reason: "GIT_CONFIG_COUNT and --path-format",
        version: "--version",
        needed_by: &["release", "publish", "rehearse", "tests"],
        debian: Packages("git"),
        nixos: "git",
        macos: "git",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "nix-build",
        minimum: &[2, 4],
        reason: "stores below a root",
        version: "--version",
        needed_by: &["build", "release", "publish", "smoke", "rehearse", "tests"],
        debian: Packages("nix-bin"),
        nixos: "nix",
        macos: "nix (nixos.org installer)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "nix-instantiate",
        minimum: &[2, 4],
        reason: "evaluation to JSON",
        version: "--version",
        needed_by: &["build", "release", "publish", "smoke", "rehearse", "tests"],
        debian: Packages("nix-bin"),
        nixos: "nix",
        macos: "nix (nixos.org installer)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "nix-store",
        minimum: &[2, 4],
        reason: "the hash of what was built",
        version: "--version",
        needed_by: &["build", "release", "publish", "smoke", "rehearse", "tests"],
        debian: Packages("nix-bin"),
        nixos: "nix",
        macos: "nix (nixos.org installer)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "c++",
        minimum: &[8],
        reason: "libFuzzer, which fuzz/run builds",
        version: "--version",
        needed_by: &["tests"],
        debian: Packages("g++"),
        nixos: "gcc",
        macos: "(xcode-select --install)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "strace",
        minimum: &[5],
        reason: "inject= with when=",
        version: "--version",
        needed_by: &["tests"],
        debian: Packages("strace"),
        nixos: "strace",
        macos: NOT_IN_MISE,
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "skopeo",
        minimum: &[1, 9],
        reason: "--retry-times",
        version: "--version",
        needed_by: &["publish", "release --here", "smoke", "rehearse", "tests"],
        debian: Packages("skopeo"),
        nixos: "skopeo",
        macos: "skopeo",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "kustomize",
        // A build by Go does not say its version.
        minimum: &[],
        reason: "renders manifests; kubectl does too",
        version: "version",
        needed_by: &["rehearse", "render", "check", "smoke", "tests"],
        debian: Go("sigs.k8s.io/kustomize/kustomize/v5@v5.1.1"),
        nixos: "kustomize",
        macos: "kustomize",
        mise: "kustomize",
    },
    Tool {
        program: "helm",
        // A build by Go says only its first two numbers.
        minimum: &[3, 14],
        reason: "renders upstream charts",
        version: "version --short",
        needed_by: &["parity", "rehearse", "tests"],
        debian: Go("helm.sh/helm/v3/cmd/helm@v3.19.0"),
        nixos: "kubernetes-helm",
        macos: "helm",
        mise: "helm",
    },
    Tool {
        program: "chromium",
        minimum: &[121],
        reason: "looks at the page of a report: :has() and its debugging pipe",
        version: "--version",
        needed_by: &["tests"],
        debian: Packages("chromium"),
        nixos: "chromium",
        macos: "(chromium, as a cask)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "jsonschema",
        minimum: &[4],
        reason: "holds SARIF against its schema",
        version: "--version",
        needed_by: &["tests"],
        debian: Packages("python3-jsonschema"),
        nixos: "python3Packages.jsonschema",
        macos: "(pipx install jsonschema)",
        mise: "pipx:jsonschema",
    },
    Tool {
        program: "xmllint",
        // Its version is one number of five digits, on stderr.
        minimum: &[],
        reason: "holds JUnit against its schema",
        version: "--version",
        needed_by: &["tests"],
        debian: Packages("libxml2-utils"),
        nixos: "libxml2",
        macos: "libxml2",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "ssh",
        minimum: &[8],
        reason: "asks the hosts; ControlPersist and ServerAliveInterval",
        version: "-V",
        needed_by: &["services-check", "verify"],
        debian: Packages("openssh-client"),
        nixos: "openssh",
        macos: "(comes with it)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "docker-registry",
        minimum: &[2, 8],
        reason: "the rehearsal's registry",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("docker-registry"),
        nixos: "docker-distribution",
        macos: "(Linux only)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "setpriv",
        minimum: &[2, 33],
        reason: "--pdeathsig: nothing outlives a rehearsal",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("util-linux"),
        nixos: "util-linux",
        macos: "(Linux only)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "python3",
        minimum: &[3, 9],
        reason: "writes the stand-in's layers",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("python3"),
        nixos: "python3",
        macos: "python3",
        mise: "python",
    },
    Tool {
        program: "patchelf",
        minimum: &[0, 14],
        reason: "moves real programs into the store",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("patchelf"),
        nixos: "patchelf",
        macos: "(Linux only)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "redis-server",
        minimum: &[7],
        reason: "what the redis image holds",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("redis-server"),
        nixos: "redis",
        macos: "redis",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "psql",
        minimum: &[13],
        reason: "logs in as a service does; asks the database for the stand-in ak",
        version: "--version",
        needed_by: &["verify", "rehearse", "tests"],
        debian: Packages("postgresql-client"),
        nixos: "postgresql",
        macos: "postgresql",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "socat",
        minimum: &[1, 7],
        reason: "listens for the stand-in ak",
        version: "-V",
        needed_by: &["rehearse", "tests"],
        debian: Packages("socat"),
        nixos: "socat",
        macos: "socat",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "openssl",
        minimum: &[3],
        reason: "certificates of the stand-ins",
        version: "version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("openssl"),
        nixos: "openssl",
        macos: "openssl",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "fakeroot",
        minimum: &[1, 25],
        reason: "ownership inside the stand-in's layers",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("fakeroot"),
        nixos: "fakeroot",
        macos: "(Linux only)",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "podman",
        minimum: &[4, 3],
        reason: "runs the images that were built",
        version: "--version",
        needed_by: &["smoke", "tests"],
        debian: Packages("podman runc netavark aardvark-dns iptables"),
        nixos: "podman runc",
        macos: "podman",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "postgres",
        minimum: &[13],
        reason: "the database of the images that were built",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("postgresql"),
        nixos: "postgresql",
        macos: "postgresql",
        mise: "postgres",
    },
    Tool {
        program: "actionlint",
        minimum: &[1, 7],
        reason: "reads the workflows",
        version: "--version",
        needed_by: &["tests"],
        debian: Go("github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"),
        nixos: "actionlint",
        macos: "actionlint",
        mise: "actionlint",
    },
    Tool {
        program: "mise",
        minimum: &[2024],
        reason: "runs the tasks by the names that people type",
        version: "--version",
        needed_by: &["tests"],
        debian: Npm("@jdxcode/mise"),
        nixos: "mise",
        macos: "mise",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "ansible-playbook",
        minimum: &[2, 14],
        reason: "the callback's events",
        version: "--version",
        needed_by: &["provision", "rehearse", "tests"],
        debian: Packages("ansible-core openssh-client"),
        nixos: "ansible",
        macos: "ansible",
        mise: NOT_IN_MISE,
    },
    Tool {
        program: "argocd",
        minimum: &[2, 6],
        reason: "Applications with several sources",
        version: "version --client",
        needed_by: &["deploy", "branches"],
        debian: Nowhere("(github.com/argoproj/argo-cd/releases)"),
        nixos: "argocd",
        macos: "argocd",
        mise: "argocd",
    },
    Tool {
        program: "op",
        minimum: &[2],
        reason: "item get --format json",
        version: "--version",
        needed_by: &["secrets", "provision"],
        debian: Nowhere("(developer.1password.com/docs/cli)"),
        nixos: "_1password-cli",
        macos: "1password-cli",
        mise: "1password-cli",
    },
    Tool {
        program: "dumb-init",
        minimum: &[1, 2],
        reason: "process 1 of the authentik image",
        version: "--version",
        needed_by: &["rehearse", "tests"],
        debian: Packages("dumb-init"),
        nixos: "dumb-init",
        macos: "(Linux only)",
        mise: NOT_IN_MISE,
    },
];

/// The tool that `program` is.
pub(crate) fn find(program: &str) -> Option<&'static Tool> {
    tools().find(|tool| tool.program == program)
}

/// The tools that `purpose` needs, or all; none where nothing is known of it.
pub(crate) fn needed_by(purpose: Option<&str>) -> Vec<&'static Tool> {
    tools().filter(|tool| purpose.is_none_or(|purpose| tool.needed_by.contains(&purpose))).collect()
}

/// Everything that needs a tool, for who names something else.
pub(crate) fn purposes() -> Vec<&'static str> {
    let all: std::collections::BTreeSet<&str> = tools().flat_map(|tool| tool.needed_by).copied().collect();
    all.into_iter().collect()
}

/// Asks the program at a path for its version.
pub(crate) fn version_of(tool: &Tool, program: &str) -> Invocation {
    let arguments = tool.version.split(' ');
    line!("{program} {arguments...}").env(&super::ansible::UTF8).limit(std::time::Duration::from_secs(10))
}

/// The first thing in `output` that looks like a version.
pub(crate) fn parse_version(output: &str) -> Option<Vec<u32>> {
    let candidates = output.split(|c: char| !c.is_ascii_digit() && c != '.');
    let numbers =
        |word: &str| word.trim_matches('.').split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>();
    candidates.filter(|word| word.trim_matches('.').contains('.')).find_map(numbers)
}

/// How to install it, in one line.
pub(crate) fn install_hint(program: &str) -> String {
    match find(program) {
        Some(tool) => format!(
            "Debian: {}; NixOS: {}; macOS: {}; `cargo xtask setup` installs it",
            tool.debian, tool.nixos, tool.macos
        ),
        None => "install it and put it on PATH".to_owned(),
    }
}

/// The failure of a command whose program is not there.
pub(crate) fn missing(program: &str) -> Failure {
    Failure::environment(format!("{program} is not installed (not on PATH)")).next(install_hint(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ansible answers in no other: a fresh Debian has no `LANG`, and what it has is not handed on.
    #[test]
    fn a_version_is_asked_for_where_text_is_utf8() {
        let env = version_of(&TOOLS[0], "x").quiet_env;
        assert_eq!(env, super::super::ansible::UTF8);
    }

    #[test]
    fn versions_are_found_in_what_the_programs_print() {
        let cases: [(&str, &[u32]); 5] = [
            ("git version 2.39.5\n", &[2, 39, 5]),
            ("nix-build (Nix) 2.8.0", &[2, 8, 0]),
            ("Redis server v=7.0.15 sha=0:0", &[7, 0, 15]),
            ("psql (PostgreSQL) 15.18 (Debian)", &[15, 18]),
            ("docker-registry github.com/x/y 2.8.2+ds1", &[2, 8, 2]),
        ];
        for (output, version) in cases {
            assert_eq!(parse_version(output).as_deref(), Some(version), "{output}");
        }
        assert_eq!(parse_version("no version"), None);
    }
}
