//! What calls the tool: mise, workflows, documentation.

use std::path::{Path, PathBuf};

use crate::stage::{Done, Stage, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program from PATH, or from where `setup` puts those that Debian has no package of.
pub(crate) fn tool(program: &str) -> PathBuf {
    let home = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap()));
    let ours = Path::new(&home).join("blumeops-xtask/tools/bin").join(program);
    let found = which::which(program).or_else(|_| which::which(ours));
    found.unwrap_or_else(|_| panic!("{program} is missing: cargo xtask setup --yes --for tests"))
}

#[test]
fn actionlint_accepts_the_workflows() {
    let folder = root().join(".forgejo");
    let workflows = std::fs::read_dir(folder.join("workflows")).unwrap().flatten().map(|entry| entry.path());
    let workflows: Vec<PathBuf> = workflows.collect();
    assert!(workflows.len() >= 2);
    let mut actionlint = std::process::Command::new(tool("actionlint"));
    run(actionlint.arg("-config-file").arg(folder.join("actionlint.yaml")).args(workflows));
}

#[test]
fn mise_passes_arguments_through() {
    let stage = Stage::new();
    stage.write(".mise.toml", &std::fs::read_to_string(root().join(".mise.toml")).unwrap());
    stage.commit_and_push("the tasks");
    let bin = stage.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let cargo = format!("#!/bin/sh\nshift\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_xtask"));
    std::fs::write(bin.join("cargo"), cargo).unwrap();
    std::fs::set_permissions(bin.join("cargo"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mise = |args: &[&str]| {
        let mut mise = stage.command(tool("mise").to_str().unwrap());
        mise.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        mise.env("MISE_TRUSTED_CONFIG_PATHS", stage.path("clone")).args(args);
        Done::from(mise.output().unwrap()).expect(0, &[]).stdout
    };
    let tasks = mise(&["tasks"]);
    for task in [
        "container-list",
        "container-build",
        "container-tag-and-release",
        "container-pin",
        "rehearse",
        "report",
        "doctor",
    ] {
        assert!(tasks.contains(task), "{tasks}");
    }
    let before = stage.state();
    let commands = mise(&["run", "container-tag-and-release", "tiny", "v1.0.1", "--dry-run"]);
    assert!(commands.contains("git push --no-follow-tags origin refs/tags/tiny-v1.0.1"), "{commands}");
    assert_eq!(stage.state(), before);
}
