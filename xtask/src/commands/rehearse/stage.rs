//! What the rehearsal puts in place of the forge, the registry and the Nix store.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::commands::Context;
use crate::exec::run::System;
use crate::exec::service::Service;
use crate::exec::workspace::Workspace;
use crate::exec::{env, fs, signal};
use crate::model::failure::Failure;
use crate::model::finding::Finding;
use crate::model::name::ContainerName;
use crate::model::repo::Repo;
use crate::registry::Registry;
use crate::tools::{docker_registry, git, nix, own};

/// What a kept workspace is entered with.
pub(super) const ENVIRONMENT: &str = "environment";

/// Hands every release tag that is pushed to the runner, as the forge does.
const HOOK: &str = "#!/bin/sh
# The tags that the workflow builds for wait here until the runner takes them.
while read -r _ _ ref; do
  case $ref in
    refs/tags/*-v[0-9]*) mkdir -p queue && : > \"queue/${ref#refs/tags/}\" ;;
  esac
done
";

/// Tags and commits of the rehearsal have an author of their own, and its forge takes what a shallow clone pushes.
const GIT_CONFIG: &str = "[user]\n\tname = rehearsal\n\temail = rehearsal@localhost\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n[receive]\n\tshallowUpdate = true\n";

/// Everything that stands while the rehearsal runs.
pub(super) struct Stage<'a> {
    workspace: &'a Workspace,
    /// Into the clone, with the overlay that is the only difference from production.
    pub(super) system: System,
    pub(super) repo: Repo,
    pub(super) registry: Registry,
    /// Where the registry listens on loopback.
    pub(super) port: u16,
    _service: Service,
}

impl<'a> Stage<'a> {
    pub(super) fn set_up(cx: &Context, workspace: &'a Workspace) -> Result<Self> {
        workspace.write("home/.gitconfig", GIT_CONFIG)?;
        let forge = cx.report.stage("forge");
        let head = set_up_forge(cx, workspace)?;
        forge.done(&format!("a bare repository with {head}, and a clone of it"));
        let registry = cx.report.stage("registry");
        let (service, port) = start_registry(cx, workspace)?;
        registry.done(&format!("docker-registry on 127.0.0.1:{port}"));
        let overlay = overlay(workspace, port);
        workspace.write(ENVIRONMENT, &environment_file(workspace, &overlay))?;
        let clone = workspace.path("clone");
        let repo = load(&clone)?;
        let endpoint = format!("http://127.0.0.1:{port}").parse().map_err(Failure::environment)?;
        let system = cx.system.at(clone, overlay);
        Ok(Self { workspace, system, repo, port, registry: Registry::new(endpoint, None), _service: service })
    }

    /// Reads the clone again: the releases have pinned their images.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.repo = load(&self.system.root)?;
        Ok(())
    }

    /// Everything that a release may change, as text to compare.
    pub(super) fn state(&self) -> Result<String> {
        let refs = self.system.stdout(&git::all_refs(), "git for-each-ref")?;
        let forge = self.system.at(self.workspace.path("forge.git"), self.system.overlay.clone());
        let there = forge.stdout(&git::all_refs(), "git for-each-ref")?;
        let dirty = self.system.stdout(&git::status(&[".".to_owned()]), "git status")?;
        Ok(format!("{refs}{there}{dirty}"))
    }
}

fn load(clone: &Path) -> Result<Repo> {
    let unread = |finding: Box<Finding>| Failure::of_findings("the configuration can't be read", vec![*finding]);
    Ok(Repo::load(fs::sources(clone)).map_err(unread)?)
}

/// The forge knows HEAD as its main, and no tag: a rehearsal starts from nothing released.
fn set_up_forge(cx: &Context, workspace: &Workspace) -> Result<String> {
    let (forge, clone) = (workspace.text("forge.git"), workspace.text("clone"));
    let head = cx.system.stdout(&git::commit_of("HEAD"), "this is not a git checkout with a commit")?;
    let dirty = git::parse_status(&cx.system.stdout(&git::status(&[".".to_owned()]), "git status")?);
    if !dirty.is_empty() {
        cx.report.say(&format!("  note: HEAD is rehearsed; {} uncommitted files are not in it", dirty.len()));
    }
    let system = cx.system.at(cx.system.root.clone(), isolation(workspace));
    system.stdout(&git::init_bare(&forge), "making the forge")?;
    system.stdout(&git::push_head(&forge), "filling the forge")?;
    // Only now: what is pushed from here on is a release.
    workspace.write_executable("forge.git/hooks/post-receive", HOOK)?;
    system.stdout(&git::clone(&forge, &clone), "cloning the forge")?;
    Ok(head.trim().chars().take(12).collect())
}

fn start_registry(cx: &Context, workspace: &Workspace) -> Result<(Service, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("no free port")?;
    let port = port.port();
    workspace.write("registry.yml", &docker_registry::configuration(&workspace.path("registry"), port))?;
    let invocation = own::tether(docker_registry::serve(&workspace.text("registry.yml")));
    let service = Service::start(&cx.system, &invocation, &workspace.path("registry.log"))?;
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if !service.is_alive() || started.elapsed() > Duration::from_secs(20) {
            return Err(Failure::environment("docker-registry did not start").tail(service.tail()).into());
        }
        signal::sleep(Duration::from_millis(20))?;
    }
    Ok((service, port))
}

/// Takes the operator's own settings and credentials out of reach.
fn isolation(workspace: &Workspace) -> Vec<(String, Option<String>)> {
    let gone = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "NIX_STATE_DIR"];
    let files = env::CREDENTIALS.iter().map(|name| (format!("{name}_FILE"), None));
    let mut all: Vec<(String, Option<String>)> =
        gone.iter().map(|name| ((*name).to_owned(), None)).chain(files).collect();
    all.push(("HOME".to_owned(), Some(workspace.text("home"))));
    all.push(("GIT_CONFIG_NOSYSTEM".to_owned(), Some("1".to_owned())));
    all.push(("GIT_CONFIG_GLOBAL".to_owned(), Some(workspace.text("home/.gitconfig"))));
    all
}

/// The endpoints: the whole difference between the rehearsal and production.
fn overlay(workspace: &Workspace, port: u16) -> Vec<(String, Option<String>)> {
    let set = [
        ("BLUMEOPS_REGISTRY_URL", format!("http://127.0.0.1:{port}")),
        ("BLUMEOPS_FORGE_URL", "none".to_owned()),
        ("XDG_CACHE_HOME", workspace.text("cache")),
        ("NIX_REMOTE", nix::store_below(&workspace.text("nix"))),
        ("NIX_PATH", format!("nixpkgs={}", workspace.text("clone/xtask/stand-ins/nixpkgs"))),
        ("NIX_CONFIG", nix::SEALED.to_owned()),
    ];
    let set = set.into_iter().map(|(name, value)| (name.to_owned(), Some(value)));
    isolation(workspace).into_iter().chain(set).collect()
}

/// What is sourced to go on by hand in a kept workspace.
fn environment_file(workspace: &Workspace, overlay: &[(String, Option<String>)]) -> String {
    let mut lines = vec!["# Enters a kept rehearsal: sets the endpoints and starts its registry.".to_owned()];
    lines.extend(overlay.iter().map(|(name, value)| match value {
        Some(value) => format!("export {name}={}", shell_words::quote(value)),
        None => format!("unset {name}"),
    }));
    lines.push(format!("{} > /dev/null 2>&1 &", docker_registry::serve(&workspace.text("registry.yml"))));
    lines.push(format!("cd {}\n", shell_words::quote(&workspace.text("clone"))));
    lines.join("\n")
}

/// The rehearsal of `names` as commands, with `outline` of what follows the releases.
pub(super) fn command_lines(names: &[ContainerName], outline: Vec<String>) -> Vec<String> {
    let mut lines = vec!["workspace=$(mktemp -d)".to_owned()];
    let inside = |path: &str| format!("\"$workspace\"/{path}");
    lines.push(format!("git init --quiet --bare --initial-branch=main {}", inside("forge.git")));
    lines.push(format!("git push --quiet {} HEAD:refs/heads/main", inside("forge.git")));
    lines.push(format!("git clone --quiet {} {}", inside("forge.git"), inside("clone")));
    lines.push(format!("cat > {} <<'YAML'", inside("registry.yml")));
    lines.push(format!("{}YAML", docker_registry::configuration("WORKSPACE/registry".as_ref(), 5999)));
    lines.push(format!("sed -i \"s|WORKSPACE|$workspace|\" {}", inside("registry.yml")));
    lines.push(format!("docker-registry serve {} > /dev/null 2>&1 &", inside("registry.yml")));
    lines.push("export BLUMEOPS_REGISTRY_URL=http://127.0.0.1:5999 BLUMEOPS_FORGE_URL=none".to_owned());
    lines.push(format!("export NIX_REMOTE='{}'\"$workspace\"/nix", nix::store_below("")));
    lines.push(format!("export NIX_PATH=nixpkgs={}", inside("clone/xtask/stand-ins/nixpkgs")));
    lines.push(format!("export NIX_CONFIG='{}'", nix::SEALED));
    // No runner waits for tags here, so this machine builds.
    lines.extend(
        names.iter().map(|name| format!("cargo xtask --root {} release {name} --here --commit", inside("clone"))),
    );
    lines.extend(outline);
    lines.push("kill %%; chmod -R u+w \"$workspace\"; rm -rf \"$workspace\"".to_owned());
    lines
}
