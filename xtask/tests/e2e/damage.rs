//! Bad input of every kind: a finding or a clear word at its place, and the rest is still checked.

use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use crate::checks::{check, findings, with_kustomize};
use crate::stage::{Done, Stage};

/// A slip elsewhere, which must be found whatever else is broken.
fn slip(stage: &Stage) {
    let path = "argocd/manifests/authentik/service-redis.yaml";
    stage.write(path, &stage.read(path).replace("targetPort: redis", "targetPort: reddis"));
}

/// Runs with a kustomize of our own, which the script stands for; `$real` is the real one.
fn with_fake(stage: &Stage, script: &str, args: &[&str]) -> Done {
    let real = crate::around::tool("kustomize");
    let path = stage.path("fake/kustomize");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/bash\nreal={}\n{script}\n", real.display())).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", stage.path("fake").display(), std::env::var("PATH").unwrap());
    let mut command = stage.xtask(args);
    command.env("PATH", search).env("BLUMEOPS_KUSTOMIZE_LIMIT", "20").output().unwrap().into()
}

#[test]
fn a_kustomize_that_lies_hangs_or_dies_is_told_and_the_rest_is_checked() {
    let scripts = [
        ("[[ $2 == */dex ]] && { echo hello; exit 0; }; exec $real \"$@\"", "what it printed is not an object: hello"),
        ("[[ $2 == */dex ]] && { echo 'a: ['; exit 0; }; exec $real \"$@\"", "what it printed is not YAML"),
        ("[[ $2 == */dex ]] && exit 0; exec $real \"$@\"", "it printed nothing, and there are objects to print"),
        ("[[ $2 == */dex ]] && { echo 'Error: no such thing' >&2; exit 1; }; exec $real \"$@\"", "no such thing"),
        ("[[ $2 == */dex ]] && kill -9 $$; exec $real \"$@\"", "it was killed"),
        ("[[ $2 == */dex ]] && { $real \"$@\" | head -c -30; exit 0; }; exec $real \"$@\"", "in the middle of a line"),
        (
            "[[ $2 == */dex ]] && { $real \"$@\" | sed '/^---/,$d'; exit 0; }; exec $real \"$@\"",
            "it printed 1 objects, and",
        ),
        ("[[ $2 == */dex ]] && sleep 99; exec $real \"$@\"", "did not end within 20 s"),
    ];
    for (script, words) in scripts {
        let stage = Stage::of_this_repository();
        slip(&stage);
        let started = Instant::now();
        let done = with_fake(&stage, script, &["check"]);
        assert!(started.elapsed() < Duration::from_secs(80), "{script} took {:?}", started.elapsed());
        assert_eq!(done.code, Some(1), "{script}\n{}{}", done.stdout, done.stderr);
        for words in [words, "error[app-render]", "argocd/manifests/dex/kustomization.yaml:1:1", "error[service-port]"]
        {
            assert!(done.stdout.contains(words), "{script}: no {words} in\n{}", done.stdout);
        }
        // What was a lie is not kept.
        assert!(!check(&stage, &["check"]).stdout.contains("app-render"), "{script}");
        stage.assert_nothing_runs();
    }
}

#[test]
fn a_plugin_and_a_patch_from_elsewhere_are_not_checked_and_no_fault() {
    let stage = Stage::of_this_repository();
    slip(&stage);
    let list = stage.read("argocd/manifests/dex/kustomization.yaml") + "generators:\n  - secrets.yaml\n";
    stage.write("argocd/manifests/dex/kustomization.yaml", &list);
    stage.write(
        "argocd/manifests/dex/secrets.yaml",
        "apiVersion: viaduct.ai/v1\nkind: ksops\nmetadata: {name: s}\nfiles: []\n",
    );
    let list = stage.read("argocd/manifests/loki/kustomization.yaml");
    stage.write(
        "argocd/manifests/loki/kustomization.yaml",
        &format!("{list}patches:\n  - path: https://raw.example.org/patch.yaml\n    target: {{kind: Deployment}}\n"),
    );
    let done = check(&stage, &["check"]).expect(1, &[]);
    for words in ["dex: it needs a plugin", "loki: needs something from elsewhere", "error[service-port]", "1 findings"]
    {
        assert!(done.stdout.contains(words), "no {words} in\n{}", done.stdout);
    }
}

#[test]
fn files_that_are_no_text_and_names_that_are_none_are_told() {
    let stage = Stage::of_this_repository();
    slip(&stage);
    let odd = std::ffi::OsStr::from_bytes(b"odd-\xff.yaml");
    std::fs::write(stage.path("clone/argocd/manifests/dex").join(odd), "kind: A\n").unwrap();
    std::fs::write(stage.path("clone/argocd/manifests/dex/latin.yaml"), b"name: \xe9\n").unwrap();
    std::fs::write(stage.path("clone/argocd/manifests/dex/large.yaml"), vec![b'#'; 50 << 20]).unwrap();
    std::os::unix::fs::symlink("loop", stage.path("clone/argocd/manifests/dex/loop")).unwrap();
    std::os::unix::fs::symlink("..", stage.path("clone/docs/up")).unwrap();
    stage.write("argocd/manifests/dex/empty.yaml", "");
    stage.write("argocd/manifests/dex/dashes.yaml", "---\n---\n# nothing\n");
    let started = Instant::now();
    let done = check(&stage, &["check"]).expect(1, &[]);
    assert!(started.elapsed() < Duration::from_secs(60));
    for words in ["latin.yaml: it is larger", "large.yaml: it is larger", "error[service-port]", "1 findings"] {
        assert!(done.stdout.contains(words), "no {words} in\n{}", done.stdout);
    }
}

#[test]
fn every_broken_file_is_told_at_its_place() {
    let stage = Stage::of_this_repository();
    slip(&stage);
    for (path, whole, broken) in [
        ("ansible/roles/caddy/defaults/main.yml", "caddy_domain:", "caddy_domain: ["),
        (".mise.toml", "[tasks.", "[[tasks."),
        ("argocd/manifests/grafana-config/dashboards/authentik.yaml", "\"panels\": [", "\"panels\": [,"),
        ("docs/reference/services/dex.md", "tags:", "tags: }"),
    ] {
        let text = stage.read(path);
        assert!(text.contains(whole), "{path}");
        stage.write(path, &text.replacen(whole, broken, 1));
    }
    // Nobody writes into it: whoever opens it waits.
    std::fs::remove_file(stage.path("clone/README.md")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(stage.path("clone/README.md")).status().unwrap().success());
    stage.write("containers/dex/default.nix", "{ pkgs }: (");
    let done = check(&stage, &["check"]).expect(1, &[]);
    for words in [
        "error[yaml-syntax]",
        " ansible/roles/caddy/defaults/main.yml:",
        "error[toml-syntax]",
        " .mise.toml:",
        "authentik.json is not JSON",
        " argocd/manifests/grafana-config/dashboards/authentik.yaml:",
        "the frontmatter is not YAML",
        "containers/dex/default.nix: it can't be read as Nix",
        "README.md: it is larger",
        "error[service-port]",
        ": 5 findings",
    ] {
        assert!(done.stdout.contains(words), "no {words} in\n{}", done.stdout);
    }
}

#[test]
fn what_is_rendered_follows_files_that_are_no_text() {
    let stage = Stage::of_this_repository();
    let list = stage.read("argocd/manifests/dex/kustomization.yaml");
    let list = list + "configMapGenerator:\n  - name: logo\n    files: [logo.bin]\n";
    stage.write("argocd/manifests/dex/kustomization.yaml", &list);
    let rendered = |bytes: &[u8]| {
        std::fs::write(stage.path("clone/argocd/manifests/dex/logo.bin"), bytes).unwrap();
        check(&stage, &["render", "dex"]).expect(0, &[]).stdout
    };
    let (before, after) = (rendered(b"\xff\x00"), rendered(b"\xff\x00\x01"));
    assert!(before != after && after.contains("binaryData"), "{after}");
}

#[test]
fn yaml_of_every_kind_is_read_as_it_is_meant_or_told() {
    let stage = Stage::of_this_repository();
    let deployment = stage.read("argocd/manifests/dex/deployment.yaml");
    // The same, with an anchor, an alias and a merge key.
    let anchored =
        deployment.replace("    app: dex\nspec:", "    app: &name dex\nspec:").replacen("app: dex", "app: *name", 9);
    stage
        .write("argocd/manifests/dex/deployment.yaml", &anchored.replace("app: *name\nspec:", "app: &name dex\nspec:"));
    assert_eq!(findings(&stage), []);
    stage.write("argocd/manifests/dex/deployment.yaml", &deployment.replace('\n', "\r\n"));
    assert_eq!(findings(&stage), []);
    for (text, words) in [
        ("a: 1\na: 2\n", "the key a is there twice"),
        ("a: \t- [\n", "not valid YAML"),
        (&"[".repeat(100_000), "recursion limit exceeded"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n",
            "unfold to more",
        ),
    ] {
        stage.write("argocd/apps/odd.yaml", text);
        let done = with_kustomize(&stage, &["check"]).output().unwrap();
        let done = Done::from(done).expect(1, &[]);
        assert!(
            done.stdout.contains(words) && done.stdout.contains("argocd/apps/odd.yaml:"),
            "{words}: {}",
            done.stdout
        );
    }
}
