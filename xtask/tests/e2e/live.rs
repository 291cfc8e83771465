//! `diff --live` with a kubectl that answers as a cluster would, and in every way that one can fail.

use std::time::{Duration, Instant};

use crate::checks::with_kustomize;
use crate::stage::{Done, Stage};

/// A stand-in for kubectl: `get` gives what is there, `apply` what would be.
fn with_kubectl(stage: &Stage, script: &str, args: &[&str]) -> Done {
    let path = stage.path("fake/kubectl");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/bash\necho \"$@\" >> {}\n{script}\n", stage.path("calls").display()))
        .unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = with_kustomize(stage, args);
    let search = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).unwrap().to_owned();
    command.env("PATH", format!("{}:{}", stage.path("fake").display(), search.to_string_lossy()));
    command.output().unwrap().into()
}

/// What an API server adds, and one field that differs.
const CLUSTER: &str = r#"
object() { echo '{"apiVersion":"v1","kind":"Service","metadata":{"name":"dex","namespace":"dex","uid":"'$RANDOM'","resourceVersion":"'$RANDOM'","managedFields":[{}],"labels":'$2',"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"'$RANDOM'"}},"spec":{"type":"ClusterIP","ports":[{"name":"http","port":'$1'}]},"status":{"x":'$RANDOM'}}'; }
secret() { echo '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"dex"},"data":{"key":"'$1'"}}'; }
case "$*" in
  *" get "*) object 80 '{"app":"dex","old":"1"}'; secret b25lLXNlY3JldA== ;;
  *" apply "*) object 81 '{"app":"dex"}'; secret YW5vdGhlci1vbmU= ;;
esac
"#;

#[test]
fn what_would_change_in_the_cluster_is_one_field_and_noise_is_none() {
    let stage = Stage::of_this_repository();
    let done = with_kubectl(&stage, CLUSTER, &["diff", "--live", "--app", "dex"]).expect(0, &[]);
    assert_eq!(
        done.stdout,
        "~ Secret dex/s in ringtail\n    ~ data.key: [secret] → [secret]\n~ Service dex/dex in ringtail\n    - metadata.labels.old: 1  (lost)\n    ~ spec.ports[http].port: 80 → 81\n"
    );
    assert!(!format!("{}{}", done.stdout, done.stderr).contains("b25lLXNlY3JldA"));
    let calls = std::fs::read_to_string(stage.path("calls")).unwrap();
    // Whether anybody is there is asked once, and of no namespace.
    assert_eq!(calls.lines().filter(|call| call.ends_with("get --raw /version")).count(), 1);
    for call in calls.lines().filter(|call| !call.contains("--raw")) {
        assert!(call.starts_with("--context=k3s-ringtail ") && call.contains("--namespace=dex"), "{call}");
        assert!(call.contains(" get ") || call.contains("--dry-run=server"), "{call}");
    }
}

#[test]
fn every_failure_of_the_cluster_has_its_reason_and_none_is_a_pass() {
    let stage = Stage::of_this_repository();
    for (script, words) in [
        ("echo 'error: context \"k3s-ringtail\" does not exist' >&2; exit 1", "the kubeconfig has no such context"),
        (
            "echo 'Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout' >&2; exit 1",
            "did not answer in time",
        ),
        (
            "echo 'error: You must be logged in to the server (Unauthorized)' >&2; exit 1",
            "does not know these credentials",
        ),
        ("echo '<html>502</html>'", "kubectl did not answer in JSON"),
        ("echo '{\"kind\": \"List\", \"it'", "kubectl did not answer in JSON"),
        ("exit 3", "gave no reason"),
        ("true", "nothing was compared"),
    ] {
        let started = Instant::now();
        with_kubectl(&stage, script, &["diff", "--live", "--app", "dex"]).expect(2, &[words]);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn only_contexts_that_the_repository_names_are_asked() {
    let stage = Stage::of_this_repository();
    let config = stage.read("xtask/blumeops.toml").replace("context = \"k3s-ringtail\"\n", "");
    stage.write("xtask/blumeops.toml", &config);
    with_kubectl(&stage, CLUSTER, &["diff", "--live", "--app", "dex"])
        .expect(2, &["names no context for the cluster ringtail"]);
    assert!(!stage.path("calls").exists());
    with_kubectl(&stage, CLUSTER, &["diff", "--live", "--app", "dax"]).expect(2, &["there is no Application dax"]);
}
