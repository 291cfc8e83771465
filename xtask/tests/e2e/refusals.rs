//! Everything that ends a command early: its own message, the right exit code, and nothing changed.

use std::sync::atomic::Ordering;

use crate::stage::{Done, Stage, run};
use crate::stand_ins::StandIn;

/// Runs, wants code and words, and that nothing has changed.
#[track_caller]
fn refused(stage: &Stage, args: &[&str], code: i32, words: &[&str]) -> Done {
    let before = stage.state();
    let done = stage.run(args).expect(code, words);
    assert_eq!(stage.state(), before);
    done
}

#[test]
fn nix_is_missing() {
    let stage = Stage::new();
    let bin = stage.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for program in ["git", "cat"] {
        std::os::unix::fs::symlink(which::which(program).unwrap(), bin.join(program)).unwrap();
    }
    let before = stage.state();
    for args in [vec!["release", "tiny"], vec!["build", "tiny"], vec!["publish", "tiny-v1.0.0"]] {
        let done = Done::from(stage.xtask(&args).env("PATH", &bin).output().unwrap());
        done.expect(2, &["is not installed", "nix-bin", "cargo xtask setup"]);
    }
    assert_eq!(stage.state(), before);
}

#[test]
fn the_expression_does_not_evaluate() {
    let stage = Stage::new();
    stage.write("containers/tiny/default.nix", "{ pkgs ? import <nixpkgs> { } }: pkgs.nothingOfThatName");
    stage.commit_and_push("broken");
    for args in [vec!["release", "tiny", "--here"], vec!["build", "tiny"]] {
        refused(&stage, &args, 1, &["containers/tiny/default.nix", "nothingOfThatName"]);
    }
}

#[test]
fn the_build_fails() {
    let stage = Stage::new();
    let broken = stage
        .read("containers/tiny/default.nix")
        .replace("  config =", "  extraCommands = ''\n    echo the last words >&2\n    exit 3\n  '';\n  config =");
    stage.write("containers/tiny/default.nix", &broken);
    stage.commit_and_push("broken");
    for args in [vec!["release", "tiny", "--here"], vec!["build", "tiny"]] {
        refused(&stage, &args, 1, &["building tiny failed in /nix/store/", ".drv", "the last words"]);
    }
}

#[test]
fn the_registry_can_not_be_reached() {
    let stage = Stage::new();
    let before = stage.state();
    let url = format!("http://127.0.0.1:{}", crate::stage::free_port());
    let done: Done = stage.xtask(&["release", "tiny"]).env("BLUMEOPS_REGISTRY_URL", &url).output().unwrap().into();
    done.expect(2, &["can't reach", &url, "nothing was tagged"]);
    assert_eq!(stage.state(), before);
}

#[test]
fn the_registry_lets_nobody_in() {
    let stage = Stage::new();
    let before = stage.state();
    let closed = StandIn::serve(|_| (401, String::new()));
    let mut release = stage.xtask(&["release", "tiny"]);
    release.env("BLUMEOPS_REGISTRY_URL", &closed.url);
    let words = ["answered 401: it wants credentials and none are set", "BLUMEOPS_REGISTRY_USERNAME"];
    Done::from(release.output().unwrap()).expect(2, &words);
    release.env("BLUMEOPS_REGISTRY_USERNAME", "me").env("BLUMEOPS_REGISTRY_PASSWORD", "wrong-password");
    Done::from(release.output().unwrap()).expect(2, &["the credentials are not accepted"]);
    assert_eq!(stage.state(), before);
}

#[test]
fn the_registry_is_ill_twice_and_then_well() {
    let stage = Stage::new();
    stage.run(&["release", "tiny", "v1.0.0", "--here", "--commit"]).expect(0, &[]);
    let (flaky, asked) = StandIn::flaky(stage.registry.url.clone(), 2);
    let mut again = stage.xtask(&["release", "tiny", "v1.0.0", "--commit"]);
    again.env("BLUMEOPS_REGISTRY_URL", &flaky.url);
    Done::from(again.output().unwrap()).expect(0, &["is in the registry already"]);
    assert!(asked.load(Ordering::SeqCst) >= 3);
    stage.assert_released("v1.0.0");
}

#[test]
fn the_registry_stays_ill() {
    let stage = Stage::new();
    let before = stage.state();
    let ill = StandIn::serve(|_| (500, "ill".to_owned()));
    let mut release = stage.xtask(&["release", "tiny"]);
    Done::from(release.env("BLUMEOPS_REGISTRY_URL", &ill.url).output().unwrap()).expect(2, &["answered 500"]);
    assert_eq!(stage.state(), before);
}

#[test]
fn the_registry_answers_with_something_else() {
    let stage = Stage::new();
    let before = stage.state();
    for body in ["", "<html>sign in</html>", "{\"tags\": 7}", "[1, 2"] {
        let lying = StandIn::serve(move |_| (200, body.to_owned()));
        let mut release = stage.xtask(&["release", "tiny"]);
        let done = Done::from(release.env("BLUMEOPS_REGISTRY_URL", &lying.url).output().unwrap());
        done.expect(2, &["the registry's answer is not what it should be"]);
    }
    assert_eq!(stage.state(), before);
}

#[test]
fn the_tag_names_another_commit() {
    let stage = Stage::new();
    stage.git(&["tag", "-a", "tiny-v1.0.0", "-m", "old"]);
    stage.git(&["push", "--quiet", "origin", "tiny-v1.0.0"]);
    let changed = stage.read("containers/tiny/default.nix").replace("8000", "8001");
    stage.write("containers/tiny/default.nix", &changed);
    stage.commit_and_push("newer");
    refused(&stage, &["release", "tiny", "v1.0.0"], 1, &["tag-elsewhere", "tiny-v1.0.0"]);
    refused(&stage, &["release", "tiny", "v0.9.9"], 1, &["version-not-newer", "v1.0.0"]);
}

#[test]
fn the_container_is_dirty() {
    let stage = Stage::new();
    stage.write("containers/tiny/notes.txt", "not committed");
    let changed = stage.read("containers/tiny/default.nix").replace("8000", "8001");
    stage.write("containers/tiny/default.nix", &changed);
    let words = ["containers/tiny/default.nix is not as committed", "containers/tiny/notes.txt is not as committed"];
    refused(&stage, &["release", "tiny"], 1, &words);
}

#[test]
fn the_commit_is_not_on_main() {
    let stage = Stage::new();
    stage.git(&["switch", "--quiet", "-c", "topic"]);
    let changed = stage.read("containers/tiny/default.nix").replace("8000", "8001");
    stage.write("containers/tiny/default.nix", &changed);
    stage.commit("a change that is nowhere else");
    refused(&stage, &["release", "tiny"], 1, &["not-on-main", "--allow-branch"]);
    stage.run(&["release", "tiny", "--allow-branch", "--here"]).expect(0, &[]);
    let message = stage.forge(&["for-each-ref", "--format=%(contents)", "refs/tags/tiny-v1.0.0"]);
    assert!(message.contains("released from topic with --allow-branch"), "{message}");
}

#[test]
fn main_has_moved_on() {
    let stage = Stage::new();
    let head = stage.git(&["rev-parse", "HEAD"]);
    let changed = stage.read("containers/tiny/default.nix").replace("8000", "8001");
    stage.write("containers/tiny/default.nix", &changed);
    stage.commit_and_push("newer");
    stage.git(&["reset", "--quiet", "--hard", head.trim()]);
    refused(&stage, &["release", "tiny"], 1, &["behind-main", "git pull"]);
}

#[test]
fn the_remote_rejects_the_push() {
    let stage = Stage::new();
    let hook = stage.path("forge.git/hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho tags are closed tonight >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    refused(&stage, &["release", "tiny"], 1, &["tags are closed tonight", "the local tag was removed"]);
    refused(&stage, &["release", "tiny", "--here"], 1, &["origin did not take tiny-v1.0.0"]);
}

#[test]
fn the_remote_is_gone() {
    let stage = Stage::new();
    stage.git(&["remote", "set-url", "origin", "/nowhere/at/all"]);
    refused(&stage, &["release", "tiny"], 1, &["asking the remote", "nothing was tagged"]);
}

#[test]
fn the_wait_times_out() {
    let stage = Stage::new();
    let words = ["no blumeops/tiny:v1.0.0-nix in the registry after 1 s", "--here builds on this machine"];
    stage.run(&["release", "tiny", "--wait", "1s"]).expect(1, &words);
    assert_eq!(stage.git(&["status", "--porcelain=v1"]), "");
    assert_eq!(stage.forge(&["tag", "--list"]).trim(), "tiny-v1.0.0");
}

#[test]
fn the_forge_says_that_the_build_failed() {
    let stage = Stage::new();
    let log = "fetching\nerror: no space left\n  ❌  Failure - Main Publish\n";
    let forge = StandIn::forge("failure", stage.git(&["rev-parse", "HEAD"]).trim(), "tiny-v1.0.0", log);
    let mut release = stage.xtask(&["release", "tiny", "--wait", "1m"]);
    let done = Done::from(release.env("BLUMEOPS_FORGE_URL", &forge.url).output().unwrap());
    done.expect(1, &["ended with failure in step «Publish»", "no space left", "--here"]);
    assert_eq!(stage.git(&["status", "--porcelain=v1"]), "");
}

#[test]
fn the_wait_shows_what_the_forge_says() {
    let stage = Stage::new();
    let forge = StandIn::forge("waiting", stage.git(&["rev-parse", "HEAD"]).trim(), "tiny-v1.0.0", "");
    let mut release = stage.xtask(&["release", "tiny", "--wait", "1s"]);
    let done = Done::from(release.env("BLUMEOPS_FORGE_URL", &forge.url).output().unwrap());
    done.expect(1, &["the build is waiting"]);
}

#[test]
fn the_image_is_another_one() {
    let stage = Stage::new();
    stage.run(&["release", "tiny", "v1.0.0", "--wait", "0s"]).expect(1, &[]);
    let other = stage.read("containers/tiny/default.nix").replace("65534", "0").replace("8000", "8001");
    stage.write("containers/tiny/default.nix", &other);
    let archive = run(stage.command("nix-build").args(["--no-out-link", "containers/tiny/default.nix"]));
    // skopeo 1.9 misreads gzip.
    let unpack = format!("gzip -dc {}{} > ../plain.tar", crate::stage::nix_root().display(), archive.trim());
    run(stage.command("sh").args(["-c", &unpack]));
    let archive = format!("docker-archive:{}", stage.path("plain.tar").display());
    let target = format!("docker://{}/blumeops/tiny:v1.0.0-nix", stage.registry.url.trim_start_matches("http://"));
    let push = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &archive, &target];
    run(stage.command("skopeo").args(push));
    stage.git(&["checkout", "--quiet", "--", "."]);
    let words = ["is not what containers/tiny/default.nix declares", "65534", "8001/tcp"];
    refused(&stage, &["release", "tiny", "v1.0.0"], 1, &words);
    stage.git(&["checkout", "--quiet", "tiny-v1.0.0"]);
    refused(&stage, &["publish", "tiny-v1.0.0"], 1, &["exists and is another image", "not overwritten"]);
}

#[test]
fn no_kustomization_has_an_entry() {
    let stage = Stage::new();
    refused(&stage, &["release", "lonely"], 1, &["registry.example/blumeops/lonely"]);
    stage.write("argocd/manifests/two/kustomization.yaml", "resources: [deployment.yaml]\n");
    stage.commit_and_push("no entry");
    refused(&stage, &["release", "tiny"], 1, &["argocd/manifests/two/deployment.yaml:2:"]);
    refused(&stage, &["pin", "tiny", "v1.0.0"], 1, &["nothing was changed"]);
}

#[test]
fn a_broken_kustomization_is_shown_at_its_line() {
    let stage = Stage::new();
    stage.write("argocd/manifests/two/kustomization.yaml", "resources: [deployment.yaml]\nimages:\n  - [\n");
    stage.commit_and_push("broken");
    refused(&stage, &["release", "tiny"], 1, &["argocd/manifests/two/kustomization.yaml:"]);
}

#[test]
fn the_configuration_is_wrong() {
    let stage = Stage::new();
    stage.write("xtask/blumeops.toml", "[forge]\nremot = \"origin\"\n");
    stage.commit_and_push("wrong");
    refused(&stage, &["release", "tiny"], 2, &["xtask/blumeops.toml:2:1", "remot"]);
}

#[test]
fn names_and_versions_are_checked_before_anything_else() {
    let stage = Stage::new();
    let long = "x".repeat(300);
    for name in ["../x", "a;b", "", &long, "a b", "Ä", "a/b", "$(id)", "a\nb"] {
        for command in ["build", "release", "rehearse"] {
            refused(&stage, &[command, name], 2, &["invalid value"]);
        }
        refused(&stage, &["pin", name, "v1.0.0"], 2, &["invalid value"]);
    }
    for command in ["build", "release", "rehearse", "publish"] {
        refused(&stage, &[command, "-rf"], 2, &["unexpected argument"]);
    }
    for version in ["v1", "1.0.0", "v01.2.3", "v1.0.0-rc1", "", "v1.0.0.0", "v1.0", "v99999999999999999999.0.0"] {
        refused(&stage, &["release", "tiny", version], 2, &["invalid value", "--help"]);
        refused(&stage, &["publish", &format!("tiny-{version}")], 2, &["invalid value"]);
    }
    refused(&stage, &["release", "tinny"], 1, &["did you mean `tiny`?"]);
    refused(&stage, &["release", "tiny", "v1.0.0", "--bump", "minor"], 2, &["cannot be used with"]);
    refused(&stage, &["release", "tiny", "--wait", "soon"], 2, &["as in 30m"]);
}

#[test]
fn a_rehearsal_in_a_cluster_that_may_be_productions_or_is_not_there() {
    let stage = Stage::of_this_repository();
    let servers = [
        ("k3s-ringtail", "https://127.0.0.1:1"),
        ("alias", "https://ringtail:6443"),
        ("tailnet", "https://100.90.0.1:6443"),
        ("away", "https://127.0.0.1:1"),
    ];
    let cluster = |(name, server): &(&str, &str)| format!("- {{name: {name}, cluster: {{server: '{server}'}}}}\n");
    let context = |(name, _): &(&str, &str)| format!("- {{name: {name}, context: {{cluster: {name}, user: u}}}}\n");
    let lines = |line: &dyn Fn(&(&str, &str)) -> String| servers.iter().map(line).collect::<String>();
    let (clusters, contexts) = (lines(&cluster), lines(&context));
    let config = format!("clusters:\n{clusters}contexts:\n{contexts}users: [{{name: u, user: {{token: x}}}}]\n");
    std::fs::create_dir_all(stage.path("home/.kube")).unwrap();
    std::fs::write(stage.path("home/.kube/config"), config).unwrap();
    for (context, code, word) in [
        ("k3s-ringtail", 1, "is the context of [clusters.ringtail]"),
        ("away", 1, "so does production's k3s-ringtail"),
        ("alias", 1, "where production's cluster ringtail is"),
        ("tailnet", 1, "which is in a tailnet"),
        ("gone", 1, "it has: alias, away, k3s-ringtail, tailnet"),
        ("--yes", 2, "a value is required"),
    ] {
        refused(&stage, &["rehearse", "authentik", "--cluster", context], code, &[word]);
    }
    let config = stage.path("home/.kube/config");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("name: k3s-ringtail", "name: other")).unwrap();
    let words = ["away can't be asked", "kubectl '--context=away'", "nothing was done"];
    refused(&stage, &["rehearse", "authentik", "--cluster", "away", "--yes"], 2, &words);
}

#[test]
fn programs_that_lie_hang_or_die() {
    let stage = Stage::new();
    let path = stage.shadowed_path();
    for (program, script, code, word) in [
        ("nix-instantiate", "echo '{\"name\": 7}'", 1, "declares no image"),
        ("nix-instantiate", "echo nonsense", 1, "declares no image"),
        ("nix-build", "exit 0", 1, "nix-build named no store path"),
        ("nix-build", "kill -SEGV $$", 1, "was killed by a signal"),
    ] {
        let stage = Stage::new();
        stage.shadow(program, script);
        let path = path.replace(path.split(':').next().unwrap(), stage.path("shadow").to_str().unwrap());
        let mut release = stage.xtask(&["release", "tiny", "--here"]);
        Done::from(release.env("PATH", path).output().unwrap()).expect(code, &[word]);
        assert_eq!(stage.git(&["status", "--porcelain=v1"]), "", "{program} {script}");
        stage.run(&["release", "tiny", "--here", "--commit"]).expect(0, &[]);
        stage.assert_released("v1.0.0");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let stage = Stage::new();
    let mut list = stage.xtask(&["containers"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(list.stdout.take());
    let code = list.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
}

#[test]
fn outside_of_any_checkout() {
    let stage = Stage::new();
    let done = Done::from(stage.xtask(&["containers"]).current_dir("/").output().unwrap());
    done.expect(2, &["not inside a checkout", "--root"]);
}
