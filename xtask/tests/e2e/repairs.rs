//! `check --fix` and `check --online`: what is repaired, what is left alone, and what a registry says.

use serde_json::Value;

use crate::checks::{check, findings, with_kustomize};
use crate::stage::{Done, Stage, run};

/// Five slips, each with one way to put it right.
fn break_it(stage: &Stage) {
    for (path, from, to) in [
        ("argocd/apps/dex.yaml", "targetRevision: main", "targetRevision: topic"),
        ("argocd/manifests/authentik/service-redis.yaml", "targetPort: redis", "targetPort: reddis"),
        ("argocd/manifests/authentik/kustomization.yaml", "  - service-worker.yaml\n", ""),
        ("docs/reference/services/dex.md", "| **Cluster** | ringtail", "| **Cluster** | indri"),
        ("argocd/apps/loki.yaml", "spec:\n", "# waive app-path: for no reason\nspec:\n"),
    ] {
        let text = stage.read(path);
        assert!(text.contains(from), "{path} does not contain {from}");
        stage.write(path, &text.replacen(from, to, 1));
    }
}

#[test]
fn what_needs_no_judgement_is_repaired_once_shown_and_checked_again() {
    let stage = Stage::of_this_repository();
    break_it(&stage);
    let broken = stage.git(&["diff"]);
    let dry = check(&stage, &["check", "--fix", "--dry-run"]).expect(1, &[]);
    assert_eq!(stage.git(&["diff"]), broken, "a dry run wrote something");
    assert!(dry.stdout.starts_with("--- a/argocd/apps/dex.yaml"), "{}", dry.stdout);
    // What a dry run prints is a patch that git takes.
    stage.write("../fix.patch", &dry.stdout);
    stage.git(&["apply", "--check", "../fix.patch"]);
    let done = check(&stage, &["check", "--fix"]).expect(0, &["5 fixes in 5 files", "+    targetRevision: main"]);
    assert!(done.stdout.contains(" 0 findings"), "{}", done.stdout);
    assert_eq!(stage.git(&["diff", "--stat", "--", "docs", "argocd/apps"]), "");
    let after = stage.git(&["diff"]);
    check(&stage, &["check", "--fix"]).expect(0, &[]);
    assert_eq!(stage.git(&["diff"]), after, "a second run changed something");
}

#[test]
fn only_what_was_asked_for_is_repaired_and_links_are_left_alone() {
    let stage = Stage::of_this_repository();
    break_it(&stage);
    check(&stage, &["check", "--fix", "app-revision"]).expect(0, &["1 fixes in 1 files"]);
    assert!(stage.read("argocd/manifests/authentik/service-redis.yaml").contains("reddis"));
    check(&stage, &["check", "--dry-run"]).expect(2, &["--fix"]);
}

#[test]
fn a_registry_is_asked_for_what_is_pinned() {
    let stage = Stage::new();
    stage.git(&["tag", "-a", "tiny-v1.0.0", "-m", "tiny"]);
    stage.git(&["push", "--quiet", "origin", "tiny-v1.0.0"]);
    stage.publish("tiny-v1.0.0").expect(0, &[]);
    let digest = stage.registry.digest("blumeops/tiny", "v1.0.0-nix");
    for user in ["one", "two"] {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  selector: {matchLabels: {app: a}}\n  template:\n    metadata: {labels: {app: a}}\n    spec: {containers: [{name: a, image: registry.example/blumeops/tiny}]}\n";
        stage.write(&format!("argocd/manifests/{user}/deployment.yaml"), text);
    }
    let pin = |tag: &str, digest: &str| {
        let text = format!(
            "resources: [deployment.yaml]\nimages:\n  - name: registry.example/blumeops/tiny\n    newTag: {tag}\n    digest: {digest}\n"
        );
        stage.write("argocd/manifests/one/kustomization.yaml", &text);
        stage.write("argocd/manifests/two/kustomization.yaml", &text);
    };
    pin("v1.0.0-nix", &digest);
    let online = |code| check(&stage, &["check", "--online", "image-published"]).expect(code, &[]).stdout;
    online(0);
    pin("v1.0.0-nix", &digest.replace(|c: char| c.is_ascii_digit(), "0"));
    let text = online(1);
    assert!(text.contains("argocd/manifests/one/kustomization.yaml:4:13") && text.contains("is pinned"), "{text}");
    pin("v9.9.9-nix", &digest);
    assert!(online(1).contains("the registry has no registry.example/blumeops/tiny:v9.9.9-nix"));
    // Nobody listens there.
    let mut silent = with_kustomize(&stage, &["check", "--online", "image-published"]);
    let done = Done::from(silent.env("BLUMEOPS_REGISTRY_URL", "http://127.0.0.1:1").output().unwrap());
    assert_eq!(done.code, Some(2), "{}", done.stdout);
    assert!(
        done.stdout.contains("error[registry-silent]") && done.stdout.contains("one pinned image"),
        "{}",
        done.stdout
    );
}

#[test]
fn a_change_is_told_from_what_was_there_before_also_when_files_move() {
    let stage = Stage::of_this_repository();
    let path = "argocd/manifests/dex/service.yaml";
    stage.write(path, &stage.read(path).replace("targetPort: http", "targetPort: nowhere"));
    stage.commit("a slip");
    let folder = stage.clone_folder();
    run(std::process::Command::new("git").current_dir(&folder).args(["mv", path, "argocd/manifests/dex/svc.yaml"]));
    let list = stage.read("argocd/manifests/dex/kustomization.yaml").replace("service.yaml", "svc.yaml");
    stage.write("argocd/manifests/dex/kustomization.yaml", &list);
    assert!(findings(&stage).iter().any(|(code, ..)| code == "service-port"));
    let since: Value =
        serde_json::from_str(&check(&stage, &["check", "--since", "HEAD", "--format", "json"]).stdout).unwrap();
    assert_eq!(since["result"]["findings"], serde_json::json!([]), "{since}");
}
