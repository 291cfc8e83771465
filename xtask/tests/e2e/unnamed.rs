//! No command touches a cluster, a server or a host that the repository does not name.

use crate::operations::Ops;
use crate::stage::{Done, Stage};

/// Commands that ask a cluster, each with what says that it was refused.
const OF_CLUSTERS: [&[&str]; 6] = [
    &["services-check", "web"],
    &["verify", "web", "--services", "web"],
    &["logs", "web"],
    &["secrets", "check", "web"],
    &["diff", "--live", "--app", "web"],
    &["deploy", "web"],
];

/// Contexts of kubectl as this machine has them.
pub(crate) fn kubeconfig(stage: &Stage, server: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: somewhere\nclusters:\n  - {{name: k, cluster: {{server: \"{server}\"}}}}\ncontexts:\n  - {{name: k3s-ringtail, context: {{cluster: k, user: u}}}}\n  - {{name: somewhere, context: {{cluster: k, user: u}}}}\n"
    );
    std::fs::create_dir_all(stage.path("home/.kube")).unwrap();
    std::fs::write(stage.path("home/.kube/config"), text).unwrap();
}

fn asked(ops: &Ops) -> Vec<String> {
    let log = ops.said("kubectl.log");
    log.lines().filter(|line| !line.starts_with("kustomize ")).map(str::to_owned).collect()
}

#[test]
fn only_clusters_that_are_named_and_are_where_they_should_be() {
    let ops = Ops::new();
    // Its manifests are too small to be rendered.
    std::fs::remove_file(ops.stage.clone_folder().join("argocd/apps/one.yaml")).unwrap();
    ops.stage.vault(&["password"]);
    ops.put("state-web", r#""sync":{"status":"OutOfSync"},"health":{"status":"Progressing"}"#);
    let refused = |why: &str| {
        ops.put("kubectl.log", "");
        for args in OF_CLUSTERS {
            let args = if args[0] == "deploy" { &["deploy", "web", "--wait", "1s"][..] } else { args };
            let done = ops.run(args);
            assert!(matches!(done.code, Some(1 | 2)), "{args:?}: {}{}", done.stdout, done.stderr);
            // ArgoCD is asked by deploy, and only it.
            let said = done.stdout + &done.stderr;
            assert!(args[0] == "deploy" || said.contains(why), "{args:?}: {said}");
        }
        assert!(asked(&ops).is_empty(), "{:?}", asked(&ops));
    };
    kubeconfig(&ops.stage, "https://another.example:6443");
    refused("leads to https://another.example:6443");
    kubeconfig(&ops.stage, "https://ringtail.example:6443");
    let config = ops.stage.read("xtask/blumeops.toml");
    ops.stage.write("xtask/blumeops.toml", &config.replace("context = \"k3s-ringtail\"\n", ""));
    refused("names no context for the cluster ringtail");
    // Where it is named, it is asked, and nothing else; what the machine has chosen for itself is of no matter.
    ops.stage.write("xtask/blumeops.toml", &config);
    for args in OF_CLUSTERS {
        ops.run(if args[0] == "deploy" { &["deploy", "web", "--wait", "1s"] } else { args });
    }
    assert!(asked(&ops).len() > 5 && asked(&ops).iter().all(|call| call.starts_with("--context=k3s-ringtail ")));
    kubeconfig(&ops.stage, "https://100.64.0.7:6443");
    let elsewhere =
        config.replace("context = \"k3s-ringtail\"", "context = \"k3s-ringtail\"\napi = \"https://100.64.0.7:6443\"");
    ops.stage.write("xtask/blumeops.toml", &elsewhere);
    ops.put("kubectl.log", "");
    ops.run(&["logs", "web"]);
    assert!(!asked(&ops).is_empty());
}

#[test]
fn only_the_argocd_and_the_forge_that_are_named() {
    let ops = Ops::new();
    let config = ops.stage.read("xtask/blumeops.toml");
    ops.stage.write("xtask/blumeops.toml", &config.replace("[argocd]\nserver = \"argocd.example\"\n", ""));
    for args in [&["deploy", "web"][..], &["branches"], &["branches", "--restore"]] {
        ops.run(args).expect(2, &["it is not known which ArgoCD to speak to"]);
    }
    assert_eq!(ops.said("argocd.log"), "");
    ops.stage.write("xtask/blumeops.toml", &config.replace("url = \"https://forge.example\"\n", ""));
    let done: Done = ops.command(&["mirrors", "check"]).env_remove("BLUMEOPS_FORGE_URL").output().unwrap().into();
    done.expect(2, &["there is no forge to ask"]);
}
