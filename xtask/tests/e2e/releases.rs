//! Releases that go well.

use std::process::Stdio;

use crate::stage::Stage;

#[test]
fn a_release_on_this_machine_and_the_same_again() {
    let stage = Stage::new();
    let first = stage.run(&["release", "tiny", "--here", "--commit"]).expect(0, &["tiny-v1.0.0 pushed to origin"]);
    assert!(first.stdout.contains("tiny-v1.0.0"), "{}", first.stdout);
    stage.assert_released("v1.0.0");
    let before = stage.state();
    stage.run(&["release", "tiny", "v1.0.0", "--here", "--commit"]).expect(0, &["is on origin already"]);
    stage.run(&["release", "tiny", "--here", "--commit"]).expect(0, &["is in the registry already"]);
    assert_eq!(stage.state(), before);
}

#[test]
fn the_forge_builds_and_the_release_waits() {
    let stage = Stage::new();
    let mut release = stage.xtask(&["release", "tiny", "--commit", "--wait", "1m", "--format", "json"]);
    let waiting = std::thread::spawn(move || release.output().unwrap());
    while stage.forge(&["tag", "--list"]).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let published = stage.publish("tiny-v1.0.0").expect(0, &[]);
    let done = crate::stage::Done::from(waiting.join().unwrap()).expect(0, &[]);
    let value: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let reference = value["result"]["reference"].as_str().unwrap();
    assert_eq!(published.stdout.trim(), reference);
    stage.assert_released("v1.0.0");
    // A second runner finds the image there.
    stage.publish("tiny-v1.0.0").expect(0, &["is in the registry already"]);
}

#[test]
fn step_outputs_and_summary_are_written() {
    let stage = Stage::new();
    stage.run(&["release", "tiny", "--wait", "0s"]).expect(1, &["in the registry after"]);
    let (outputs, summary) = (stage.path("outputs"), stage.path("summary"));
    let mut publish = stage.xtask(&["publish", "tiny-v1.0.0"]);
    publish.env("GITHUB_OUTPUT", &outputs).env("GITHUB_STEP_SUMMARY", &summary);
    crate::stage::run(&mut publish);
    let digest = stage.registry.digest("blumeops/tiny", "v1.0.0-nix");
    let text = std::fs::read_to_string(outputs).unwrap();
    assert_eq!(text, format!("image=registry.example/blumeops/tiny:v1.0.0-nix\ndigest={digest}\n"));
    assert!(std::fs::read_to_string(summary).unwrap().contains(&digest));
}

#[test]
fn the_next_version_moves_every_pin_and_nothing_else() {
    let stage = Stage::new();
    stage.run(&["release", "tiny", "v1.0.0", "--here", "--commit"]).expect(0, &[]);
    stage.git(&["push", "--quiet", "origin", "HEAD:main"]);
    let before = stage.read("argocd/manifests/one/kustomization.yaml");
    let expression = stage.read("containers/tiny/default.nix").replace("8000/tcp", "9000/tcp");
    stage.write("containers/tiny/default.nix", &expression);
    stage.commit_and_push("another port");
    stage.run(&["release", "tiny", "--bump", "minor", "--here"]).expect(0, &["tiny-v1.1.0 pushed"]);
    let after = stage.read("argocd/manifests/one/kustomization.yaml");
    let digest = |version: &str| stage.registry.digest("blumeops/tiny", version);
    let moved = before.replace("v1.0.0-nix", "v1.1.0-nix").replace(&digest("v1.0.0-nix"), &digest("v1.1.0-nix"));
    assert_eq!(after, moved);
    stage.run(&["pin", "tiny", "v1.0.0"]).expect(0, &[]);
    assert_eq!(stage.read("argocd/manifests/one/kustomization.yaml"), before);
}

#[test]
fn unchanged_input_is_not_built_again() {
    let stage = Stage::new();
    stage.run(&["build", "tiny"]).expect(0, &[]);
    let again = stage.run(&["build", "tiny", "-vv", "--format", "json"]).expect(0, &[]);
    assert!(!again.stderr.contains("building '"), "{}", again.stderr);
    let value: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    let built = &value["result"]["built"][0];
    assert_eq!(built["config"]["config"]["User"], "65534");
    assert!(built["layers"].as_u64().unwrap() >= 1 && built["size"].as_u64().unwrap() > 0);
}

/// The pin of the release before is not pushed yet; that must not keep the next one.
#[test]
fn main_is_tagged_when_only_other_things_are_ahead() {
    let stage = Stage::new();
    let main = stage.git(&["rev-parse", "origin/main"]);
    stage.write("README.md", "unrelated");
    stage.commit("a commit that is nowhere else");
    stage.run(&["release", "tiny", "--here", "--no-pin"]).expect(0, &["tiny-v1.0.0 at origin's main"]);
    assert_eq!(stage.forge(&["rev-parse", "tiny-v1.0.0^{commit}"]), main);
    assert_eq!(stage.forge(&["rev-parse", "main"]), main);
}

#[test]
fn the_list_names_what_is_where() {
    let stage = Stage::new();
    stage.run(&["release", "tiny", "v1.2.3", "--here", "--commit"]).expect(0, &[]);
    let list = stage.run(&["containers"]);
    for word in ["tiny", "lonely", "v1.2.3"] {
        assert!(list.stdout.contains(word), "{}", list.stdout);
    }
}

#[test]
fn two_clones_at_once_make_one_release() {
    let stage = Stage::new();
    let other = stage.path("other");
    crate::stage::run(stage.command("git").arg("clone").arg("--quiet").arg(stage.path("forge.git")).arg(&other));
    let arguments = ["release", "tiny", "v1.0.0", "--here", "--commit"];
    let (mut here, mut there) = (stage.xtask(&arguments), stage.xtask(&arguments));
    there.current_dir(&other);
    let started = [&mut here, &mut there].map(|release| {
        release.stdout(Stdio::null()).stderr(Stdio::null());
        release.spawn().unwrap()
    });
    let both = started.map(|child| child.wait_with_output().unwrap().status.code());
    assert!(both.contains(&Some(0)) && both.iter().all(|code| matches!(code, Some(0 | 1))), "{both:?}");
    stage.run(&arguments).expect(0, &[]);
    stage.assert_released("v1.0.0");
}

#[test]
fn a_second_release_in_one_clone_is_told() {
    let stage = Stage::new();
    let mut first = stage.xtask(&["release", "tiny", "--wait", "1m"]).stderr(Stdio::piped()).spawn().unwrap();
    while stage.forge(&["tag", "--list"]).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    stage.run(&["release", "tiny"]).expect(1, &["another release of tiny is running in this clone"]);
    first.kill().unwrap();
    first.wait().unwrap();
}
