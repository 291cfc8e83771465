//! A dry run changes nothing, and what it prints does the job when pasted.

use crate::stage::{Done, Stage, run};

/// The commands that a dry run prints; it has changed nothing.
#[track_caller]
fn dry(stage: &Stage, args: &[&str]) -> String {
    let before = stage.state();
    let cache = stage.path("cache").exists();
    let args = [args, &["--dry-run"]].concat();
    let done = stage.run(&args).expect(0, &[]);
    assert_eq!(stage.state(), before);
    assert_eq!(stage.path("cache").exists(), cache);
    done.stdout
}

/// Pastes into a shell; `cargo xtask` is the program under test.
#[track_caller]
fn paste(stage: &Stage, commands: &str) {
    let bin = stage.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let cargo = format!("#!/bin/sh\nshift\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_xtask"));
    std::fs::write(bin.join("cargo"), cargo).unwrap();
    std::fs::set_permissions(bin.join("cargo"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = stage.command("timeout");
    shell.env("PATH", path).args(["120", "bash", "-e", "-c", commands]);
    Done::from(shell.output().unwrap()).expect(0, &[]);
}

#[test]
fn of_a_release_here() {
    let stage = Stage::new();
    let commands = dry(&stage, &["release", "tiny", "v1.0.0", "--here", "--commit"]);
    paste(&stage, &commands);
    stage.assert_released("v1.0.0");
    // What is done already is not printed.
    let rest = dry(&stage, &["release", "tiny", "v1.0.0", "--here"]);
    assert!(!rest.contains("git tag") && !rest.contains("skopeo"), "{rest}");
}

#[test]
fn of_a_release_that_waits() {
    let stage = Stage::new();
    let commands = dry(&stage, &["release", "tiny", "v1.0.0", "--commit"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while stage.forge(&["tag", "--list"]).is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            stage.publish("tiny-v1.0.0").expect(0, &[]);
        });
        paste(&stage, &commands);
    });
    stage.assert_released("v1.0.0");
}

#[test]
fn of_build_publish_and_pin() {
    let stage = Stage::new();
    paste(&stage, &dry(&stage, &["build", "tiny", "lonely"]));
    stage.run(&["release", "tiny", "v1.0.0", "--wait", "0s"]).expect(1, &[]);
    paste(&stage, &dry(&stage, &["publish", "tiny-v1.0.0"]));
    assert_eq!(stage.registry.tags("blumeops/tiny"), ["v1.0.0-nix"]);
    paste(&stage, &dry(&stage, &["pin", "tiny", "v1.0.0"]));
    stage.run(&["release", "tiny", "v1.0.0", "--commit"]).expect(0, &[]);
    stage.assert_released("v1.0.0");
}

#[test]
fn of_setup_and_rehearse() {
    let stage = Stage::new();
    dry(&stage, &["setup", "--for", "build"]);
    let stage = Stage::of_this_repository();
    let commands = dry(&stage, &["rehearse", "redis"]);
    // What no paste can do is shown beside: the part with a cluster, stage by stage.
    for part in
        ["# network", "#   kube-apiserver ", "#   cargo xtask render authentik ", "# verify", "#   redis-stopped: "]
    {
        assert_eq!(commands.lines().filter(|line| line.starts_with(part)).count(), 1, "{part}: {commands}");
    }
    let none = dry(&stage, &["rehearse", "redis", "--only", "none", "--hold"]);
    assert!(none.contains("# hold") && !none.contains("# break"), "{none}");
    let without = dry(&stage, &["rehearse", "redis", "--without-cluster"]);
    assert!(!without.contains('#') && commands.starts_with(without.rsplit_once("\nkill").unwrap().0), "{without}");
    let before = stage.state();
    paste(&stage, &commands);
    assert_eq!(stage.state(), before);
    stage.assert_nothing_runs();
}

#[test]
fn of_a_path_with_blanks() {
    let stage = Stage::new();
    let odd = stage.path("a folder's name");
    run(stage.command("git").arg("clone").arg("--quiet").arg(stage.path("forge.git")).arg(&odd));
    let done = Done::from(stage.xtask(&["build", "tiny", "--dry-run"]).current_dir(&odd).output().unwrap());
    paste(&stage, &done.expect(0, &[]).stdout);
}

/// Nothing of production is in reach, and no package set: the commands are shown all the same.
#[test]
fn of_a_release_that_can_not_be_checked() {
    let stage = Stage::new();
    let before = stage.state();
    let mut release = stage.xtask(&["release", "tiny", "v1.0.1", "--dry-run"]);
    release.env("BLUMEOPS_REGISTRY_URL", "http://127.0.0.1:1").env("NIX_PATH", "");
    let done = Done::from(release.output().unwrap()).expect(0, &["not checked: can't reach", "does not evaluate"]);
    assert!(done.stdout.contains("git tag -a tiny-v1.0.1"), "{}", done.stdout);
    assert_eq!(stage.state(), before);
}
