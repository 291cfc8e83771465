//! Health: stand-ins for kubectl, ssh and op that lie, hang and die; web servers with good and bad certificates.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::{Done, Stage, kill};

/// An Application with a Deployment, and no Caddy, no hosts.
const REPOSITORY: &str = r#"
//- argocd/apps/one.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: one, namespace: argocd}
spec:
  project: default
  source: {repoURL: x, path: argocd/manifests/one, targetRevision: main}
  destination: {server: "https://ringtail.example:6443", namespace: one}
//- argocd/manifests/one/kustomization.yaml
namespace: one
resources: [deployment.yaml]
//- argocd/manifests/one/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example/web:1}]}
//- argocd/manifests/two/kustomization.yaml
resources: []
//- ansible/inventory/hosts.yml
all: {hosts: {box: {ansible_host: box.example, ansible_user: me}}}
//- xtask/blumeops.toml
[clusters.indri]
server = "https://kubernetes.default.svc"
architecture = "arm64"
context = "minikube-indri"
[clusters.ringtail]
server = "https://ringtail.example:6443"
architecture = "amd64"
context = "k3s-ringtail"
[[checks]]
name = "runner"
host = "box"
systemd = "runner.service"
"#;

/// Answers from files: `answers/<resource>` is what kubectl prints, `answers/<resource>.sh` is run instead.
const KUBECTL: &str = r#"
echo "$*" >> "$ANSWERS/argv"
case $1 in --context=minikube-indri | --context=k3s-ringtail) ;; *) echo "wrong context $1" >&2; exit 1 ;; esac
[ "$3" = logs ] && { echo "the last words of $5"; exit 0; }
for word in "$@"; do
  if [ -f "$ANSWERS/$word.sh" ]; then . "$ANSWERS/$word.sh"; exit; fi
  if [ -f "$ANSWERS/$word" ]; then exec cat "$ANSWERS/$word"; fi
done
echo '{"items": []}'
"#;

const SSH: &str = r#"
echo "$*" >> "$ANSWERS/argv"
if [ -f "$ANSWERS/ssh.sh" ]; then . "$ANSWERS/ssh.sh"; exit; fi
printf '@@ systemd runner.service\nLoadState=loaded\nActiveState=active\nSubState=running\n@@ end -\n'
"#;

fn application(sync: &str, health: &str, revision: &str) -> Value {
    json!({"kind": "Application", "metadata": {"name": "one", "namespace": "argocd"},
        "spec": {"source": {"targetRevision": revision}},
        "status": {"sync": {"status": sync}, "health": {"status": health, "message": "because"}}})
}

fn deployment(ready: u64) -> Value {
    json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "one", "generation": 1},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": 1, "readyReplicas": ready, "updatedReplicas": 1}})
}

fn pod(status: &Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "web-1", "namespace": "one", "labels": {"app": "web"}}, "status": status})
}

pub(crate) fn list(items: &[Value]) -> String {
    json!({"items": items}).to_string()
}

pub(crate) struct Health {
    pub(crate) stage: Stage,
}

impl Health {
    /// Everything well.
    pub(crate) fn new() -> Self {
        let stage = Stage::of(REPOSITORY);
        let health = Self { stage };
        std::fs::create_dir_all(health.stage.path("answers")).unwrap();
        health.stage.program("kubectl", KUBECTL);
        health.stage.program("ssh", SSH);
        health.answer("applications.argoproj.io", &list(&[application("Synced", "Healthy", "main")]));
        health.answer("deployments.apps", &list(&[deployment(1)]));
        health.answer("pods", &list(&[pod(&json!({"phase": "Running"}))]));
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        health.answer("nodes", &list(&[node]));
        health
    }

    pub(crate) fn answer(&self, what: &str, text: &str) {
        std::fs::write(self.stage.path("answers").join(what), text).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.stage.xtask(args);
        command.env("PATH", self.stage.shadowed_path()).env("ANSWERS", self.stage.path("answers"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    /// What was seen of the one check whose name ends like this; it must fail.
    #[track_caller]
    pub(crate) fn failing(&self, name: &str) -> String {
        let done = self.run(&["services-check", "--format", "json", "--timeout", "2s"]);
        assert_eq!(done.code, Some(1), "{}\n{}", done.stdout, done.stderr);
        let value: Value = serde_json::from_str(&done.stdout).unwrap();
        let checks = value["result"]["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"].as_str().unwrap().ends_with(name));
        let check = check.unwrap_or_else(|| panic!("no {name} in {}", done.stdout));
        assert_eq!(check["state"], "failed", "{check}");
        check["seen"].as_str().unwrap().to_owned()
    }
}

#[test]
fn all_is_well_and_one_call_goes_to_a_cluster_and_kind() {
    let health = Health::new();
    let done = health.run(&["services-check"]).expect(0, &[]);
    assert!(done.stdout.contains("checks passed"), "{}", done.stdout);
    let argv = std::fs::read_to_string(health.stage.path("answers/argv")).unwrap();
    let mut calls: Vec<&str> = argv.lines().collect();
    calls.sort_unstable();
    let count = calls.len();
    calls.dedup();
    assert_eq!(calls.len(), count, "{argv}");
    assert_eq!(calls.iter().filter(|call| call.contains("box.example")).count(), 1, "{argv}");
    let done = health.run(&["services-check", "one", "--format", "tap"]).expect(0, &[]);
    assert!(done.stdout.contains("1..3\n") && !done.stdout.contains("runner"), "{}", done.stdout);
    health.run(&["services-check", "on"]).expect(1, &["did you mean `one`?"]);
    health.run(&["services-check", "--format", "sarif"]).expect(2, &["does not have this format"]);
}

#[test]
fn every_trouble_of_a_cluster_is_its_own_verdict() {
    let health = Health::new();
    let cases = [
        ("echo 'The connection to the server x:6443 was refused' >&2; exit 1", "was refused"),
        ("exec sleep 60", "did not end within"),
        ("echo 'Error from server (Forbidden): deployments.apps is forbidden' >&2; exit 1", "Forbidden"),
        ("echo 'Error from server (InternalError): an error on the server' >&2; exit 1", "InternalError"),
        (r#"printf '{"items": [{"kind"'"#, "half an answer"),
        ("exit 0", "said nothing"),
        (r#"echo '{"items": []}'"#, "there is none"),
        (r#"echo '{"kind": "Status"}'"#, "no list"),
        (r#"echo '{"items": [{"metadata": {"name": "web", "namespace": "one"}, "spec": {}}]}'"#, "no status"),
    ];
    for (script, reason) in cases {
        health.answer("deployments.apps.sh", script);
        let seen = health.failing("deployment/web");
        assert!(seen.contains(reason), "{script}: {seen}");
    }
}

#[test]
fn every_state_of_an_application_is_its_own_verdict() {
    let health = Health::new();
    let cases = [
        (application("Unknown", "Healthy", "main"), "sync Unknown"),
        (application("OutOfSync", "Healthy", "main"), "sync OutOfSync"),
        (application("Synced", "Degraded", "main"), "Degraded: because"),
        (application("Synced", "Progressing", "main"), "Progressing: because"),
        (application("Synced", "Healthy", "deploy/one"), "on deploy/one instead of main"),
    ];
    for (application, reason) in cases {
        health.answer("applications.argoproj.io", &list(&[application]));
        assert_eq!(health.failing("application/one"), reason);
    }
}

#[test]
fn a_crashing_pod_shows_its_last_words() {
    let health = Health::new();
    health.answer("deployments.apps", &list(&[deployment(0)]));
    let status = json!({"phase": "Running", "containerStatuses": [{"name": "web", "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:00Z"}}}]});
    health.answer("pods", &list(&[pod(&status)]));
    let done = health.run(&["services-check", "--only-failed"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for part in [
        "0 of 1 ready; web-1/web: CrashLoopBackOff, ended with 137 (OOMKilled)",
        "| the last words of web-1",
        "see       kubectl --context=k3s-ringtail",
    ] {
        assert!(done.stdout.contains(part), "no «{part}» in {}", done.stdout);
    }
}

#[test]
fn a_host_that_hangs_or_refuses_is_no_pass() {
    let health = Health::new();
    health.answer("ssh.sh", "exec sleep 60");
    let started = Instant::now();
    assert!(health.failing("runner.service").contains("did not end within"));
    assert!(started.elapsed() < Duration::from_secs(10));
    health.answer("ssh.sh", "echo 'ssh: connect to host box.example port 22: No route to host' >&2; exit 255");
    assert!(health.failing("runner.service").contains("No route to host"));
    health.answer("ssh.sh", "printf '@@ systemd runner.service\\nLoadState=not-found\\nActiveState=inactive\\n'");
    assert_eq!(health.failing("runner.service"), "there is no such unit");
}

#[test]
fn an_interruption_ends_it_within_a_second_and_leaves_nothing() {
    let health = Health::new();
    health.answer("deployments.apps.sh", "echo hangs > \"$ANSWERS/hangs\"; trap '' TERM; sleep 60; sleep 60");
    let child = health.command(&["services-check"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !health.stage.path("answers/hangs").is_file() {
        assert!(Instant::now() < deadline, "it never asked");
        std::thread::sleep(Duration::from_millis(10));
    }
    let started = Instant::now();
    kill("INT", child.id());
    let done = Done::from(child.wait_with_output().unwrap()).expect(130, &["had answered"]);
    assert!(started.elapsed() < Duration::from_millis(1300), "{:?}: {}", started.elapsed(), done.stderr);
    health.stage.assert_nothing_runs();
}

/// An address on which each connection is taken and `answer` is sent; nothing where it hangs.
pub(crate) fn server(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut request = [0; 2048];
                drop(stream.read(&mut request));
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => std::thread::sleep(Duration::from_secs(60)),
                }
            });
        }
    });
    url
}

#[test]
fn web_answers_are_judged_and_a_waiver_is_shown() {
    let health = Health::new();
    let good = server(Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"));
    let ill = server(Some("HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    let half = server(Some("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nhalf"));
    let silent = server(None);
    let names = [
        ("good", good),
        ("ill", ill),
        ("half", half),
        ("silent", silent),
        ("lost", "https://no.such.invalid/".to_owned()),
    ];
    let mut config = health.stage.read("xtask/blumeops.toml");
    for (name, url) in names {
        config += &format!("[[checks]]\nname = \"{name}\"\nurl = \"{url}\"\n");
    }
    config += "[[waived_checks]]\ncheck = \"ill\"\nreason = \"being moved\"\n";
    health.stage.write("xtask/blumeops.toml", &config);
    for (name, reason) in [("half", "half an answer"), ("silent", "no answer within"), ("lost", "does not resolve")] {
        let seen = health.failing(name);
        assert!(seen.contains(reason), "{name}: {seen}");
    }
    let done = health.run(&["services-check", "good", "ill"]).expect(0, &[]);
    assert!(done.stdout.contains("waived    being moved") && done.stdout.contains("1 waived"), "{}", done.stdout);
}

#[test]
fn what_the_repository_does_not_name_is_refused() {
    let health = Health::new();
    let config = health.stage.read("xtask/blumeops.toml");
    health.stage.write("xtask/blumeops.toml", &config.replace("host = \"box\"", "host = \"bix\""));
    health.run(&["services-check"]).expect(1, &["the inventory has no host bix", "box"]);
    health.stage.write("xtask/blumeops.toml", &config.replace("context = \"k3s-ringtail\"\n", ""));
    assert!(health.failing("deployment/web").contains("names no context for the cluster ringtail"));
    let argv = std::fs::read_to_string(health.stage.path("answers/argv")).unwrap();
    assert!(!argv.contains("ringtail"), "{argv}");
}

#[test]
fn a_crashing_service_is_verified_no_further() {
    let health = Health::new();
    health.answer("deployments.apps", &list(&[deployment(0)]));
    let status = json!({"phase": "Pending", "containerStatuses": [{"name": "web", "restartCount": 0,
        "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]});
    health.answer("pods", &list(&[pod(&status)]));
    let started = Instant::now();
    let done = health.run(&["verify", "one", "--wait", "10m", "--format", "markdown", "--services", "runner"]);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("- [ ] **3. Pods running and ready**"), "{}", done.stdout);
    assert!(done.stdout.contains("ErrImagePull: not found") && done.stdout.contains("- [x] **8."), "{}", done.stdout);
    health.run(&["verify", "on"]).expect(1, &["did you mean `one`?"]);
}
