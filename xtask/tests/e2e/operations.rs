//! deploy, branches, secrets, mirrors and logs against stand-ins that log what they are asked, lie, hang and die.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::stage::{Done, SECRET, Stage, kill};
use crate::stand_ins::StandIn;

const REPOSITORY: &str = r#"
//- xtask/blumeops.toml
[registry]
host = "registry.example"
namespace = "blumeops"
[forge]
url = "https://forge.example"
repository = "eblume/blumeops"
[argocd]
server = "argocd.example"
[clusters.ringtail]
server = "https://ringtail.example:6443"
architecture = "amd64"
context = "k3s-ringtail"
//- argocd/apps/apps.yaml
kind: Application
metadata:
  name: apps
spec: {source: {path: argocd/apps, targetRevision: main}, destination: {server: "https://ringtail.example:6443", namespace: argocd}}
//- argocd/apps/web.yaml
kind: Application
metadata: {name: web}
spec: {source: {path: argocd/manifests/web, targetRevision: main}, destination: {server: "https://ringtail.example:6443", namespace: web}}
//- argocd/apps/lost.yaml
kind: Application
metadata: {name: lost}
spec: {source: {path: argocd/manifests/web, targetRevision: main}, destination: {server: "https://elsewhere.example", namespace: web}}
//- argocd/manifests/web/all.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: main, image: x}]}}}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: web}
spec: {secretStoreRef: {name: onepassword-blumeops}, data: [{secretKey: a, remoteRef: {key: Web (blumeops), property: password}}], dataFrom: [{extract: {key: All (blumeops)}}, {find: {name: {regexp: x}}}]}
//- docs/reference/services/web.md
| **Upstream** | https://github.com/web/web |
"#;

/// Keeps each Application's revision in a file; `state-NAME` is what it says of its health.
const ARGOCD: &str = r#"
echo "$*" >> "$STAND_IN/argocd.log"
[ "$(cat "$STAND_IN/hang" 2>/dev/null)" = "$2" ] && sleep 100
app() {
  rev=$(cat "$STAND_IN/rev-$1" 2>/dev/null || echo main)
  state=$(cat "$STAND_IN/state-$1" 2>/dev/null || echo '"sync":{"status":"Synced"},"health":{"status":"Healthy"}')
  echo "{\"metadata\":{\"name\":\"$1\"},\"spec\":{\"source\":{\"path\":\"x\",\"targetRevision\":\"$rev\"}},\"status\":{$state}}"
}
case "$2" in
  get) app "$3" ;;
  list) echo "[$(app apps),$(app web),$(app stranger)]" ;;
  set) echo "$5" > "$STAND_IN/rev-$3" ;;
  diff) echo "+ a line"; exit 1 ;;
esac
"#;

pub(crate) struct Ops {
    pub(crate) stage: Stage,
}

impl Ops {
    pub(crate) fn new() -> Self {
        let stage = Stage::new();
        stage.write_files(REPOSITORY);
        stage.commit_and_push("applications");
        std::fs::create_dir(stage.path("stand-in")).unwrap();
        stage.program("argocd", ARGOCD);
        let ops = Self { stage };
        ops.kubectl(r#"{"items":[]}"#, "");
        ops
    }

    /// Answers every `get` with `list`; `log` runs for `logs`.
    pub(crate) fn kubectl(&self, list: &str, log: &str) {
        self.put("list.json", list);
        self.stage.program("kubectl", &format!(
            "echo \"$*\" >> \"$STAND_IN/kubectl.log\"\ncase \"$*\" in *\" logs \"*) {log} :;; *) cat \"$STAND_IN/list.json\";; esac"
        ));
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.stage.path("stand-in").join(name), text).unwrap();
    }

    pub(crate) fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.stage.path("stand-in").join(name)).unwrap_or_default()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stage.xtask(args);
        command.env("PATH", self.stage.shadowed_path()).env("STAND_IN", self.stage.path("stand-in"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    /// Ctrl-C once the line has come: over within a second.
    fn interrupted(&self, args: &[&str], line: &str) -> String {
        let mut child = self.command(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|said| said.contains(line)), "«{line}» never came");
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        kill("INT", child.id());
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        self.stage.assert_nothing_runs();
        rest.join("\n")
    }
}

const CRASHING: &str = r#"{"items":[{"metadata":{"name":"web-1","labels":{"app":"web"}},"spec":{"containers":[{"name":"main"}]},
  "status":{"containerStatuses":[{"name":"main","state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}}]}}]}"#;

#[test]
fn a_branch_is_deployed_once_and_put_back() {
    let ops = Ops::new();
    ops.stage.git(&["push", "--quiet", "origin", "HEAD:refs/heads/topic"]);
    let dry = ops.run(&["deploy", "web", "--branch", "topic", "--dry-run"]).expect(0, &[]);
    let lines: Vec<&str> = dry.stdout.lines().collect();
    assert_eq!(lines[0], "argocd app set web --revision topic --server argocd.example --grpc-web", "{lines:?}");
    assert!(
        lines[1].starts_with("argocd app sync web --async") && lines[2].starts_with("argocd app wait web"),
        "{lines:?}"
    );
    assert!(!ops.said("argocd.log").contains("app set"));
    let done = ops.run(&["deploy", "web", "--branch", "topic"]).expect(0, &["+ a line", "Synced, Healthy"]);
    assert!(done.stdout.contains("deployed web"), "{}", done.stdout);
    let again = ops.run(&["deploy", "web", "--branch", "topic"]).expect(0, &[]);
    assert!(again.stdout.contains("everything was there already"), "{}", again.stdout);
    let strays = ops.run(&["branches"]).expect(1, &[]);
    assert!(
        strays.stdout.contains("web") && strays.stdout.contains("merged") && !strays.stdout.contains("stranger"),
        "{}",
        strays.stdout
    );
    ops.run(&["branches", "--restore"]).expect(0, &["web follows main again"]);
    let none = ops.run(&["branches"]).expect(0, &[]);
    assert!(none.stdout.contains("all 2 Applications"), "{}", none.stdout);
    ops.run(&["deploy", "web", "--branch", "nowhere"]).expect(1, &["origin has no branch nowhere"]);
    ops.run(&["deploy", "wep"]).expect(1, &["no Application wep", "did you mean `web`?"]);
}

#[test]
fn a_branch_that_was_squashed_or_rebased_is_merged() {
    let ops = Ops::new();
    let git = |args: &[&str]| ops.stage.git(args);
    ops.stage.write("docs/long.md", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    ops.stage.commit_and_push("a long file");
    let base = git(&["rev-parse", "HEAD"]);
    let branch = |name: &str, files: &[(&str, &str)]| {
        git(&["checkout", "--quiet", "-b", name, base.trim()]);
        for (file, text) in files {
            ops.stage.write(file, text);
            ops.stage.commit(&format!("{name}: {file}"));
        }
        git(&["push", "--quiet", "origin", name]);
    };
    branch(
        "squashed",
        &[("docs/long.md", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"), ("docs/x.md", "x\n"), ("docs/x.md", "y\n")],
    );
    branch("rebased", &[("docs/r.md", "r\n"), ("docs/s.md", "s\n")]);
    branch("open", &[("docs/o.md", "o\n")]);
    git(&["checkout", "--quiet", "main"]);
    // Main has gone on in a file that the branch changes too.
    ops.stage.write("docs/long.md", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    ops.stage.commit("main goes on");
    git(&["merge", "--quiet", "--squash", "squashed"]);
    ops.stage.commit("everything of squashed in one");
    git(&["cherry-pick", &format!("{}..rebased", base.trim())]);
    ops.stage.commit_and_push("main goes on again");
    for (name, fate) in [("squashed", "merged, squashed"), ("rebased", "merged, rebased"), ("open", "not merged")] {
        ops.put("rev-web", name);
        let listed = ops.run(&["branches"]).expect(1, &[]).stdout;
        assert!(listed.contains(fate), "{name}: {listed}");
    }
}

#[test]
fn what_does_not_get_healthy_is_given_up_with_its_reason() {
    let ops = Ops::new();
    ops.put("state-web", r#""sync":{"status":"Synced"},"health":{"status":"Progressing"}"#);
    ops.kubectl(CRASHING, "echo no such table;");
    ops.run(&["deploy", "web"])
        .expect(1, &["main of pod web-1 is in CrashLoopBackOff", "no such table", "under way: web"]);
    // Rendering asks no cluster.
    let log = ops.said("kubectl.log");
    let asked: Vec<&str> = log.lines().filter(|line| !line.starts_with("kustomize ")).collect();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.starts_with("--context=k3s-ringtail ")), "{asked:?}");
    ops.kubectl(r#"{"items":[]}"#, "");
    ops.run(&["deploy", "web", "--wait", "3s"]).expect(1, &["it took too long"]);
    ops.put(
        "state-web",
        r#""sync":{"status":"OutOfSync"},"operationState":{"phase":"Failed","message":"namespace is forbidden"}"#,
    );
    ops.run(&["deploy", "web"]).expect(1, &["the sync of web failed", "namespace is forbidden"]);
    ops.put("state-web", r#""sync":{"status":"OutOfSync"},"health":{"status":"Progressing"}"#);
    let rest = ops.interrupted(&["deploy", "web"], "Progressing");
    assert!(rest.contains("under way: web; the same command goes on"), "{rest}");
    ops.put("hang", "get");
    ops.interrupted(&["deploy", "web", "-v"], "argocd app get");
}

#[test]
fn secrets_are_asked_for_by_name_and_never_shown() {
    let ops = Ops::new();
    let synced = |status: &str| {
        format!(
            r#"{{"items":[{{"metadata":{{"name":"web","namespace":"web"}},"status":{{"conditions":[{{"type":"Ready","status":"{status}","reason":"SecretSynced","message":"m"}}]}}}}]}}"#
        )
    };
    let check = |code: i32, word: &str| {
        let done = ops.run(&["secrets", "check", "web", "-vv"]);
        assert_eq!(done.code, Some(code), "{}{}", done.stdout, done.stderr);
        assert!(done.stdout.contains(word), "no «{word}» in {}", done.stdout);
        assert!(!(done.stdout + &done.stderr).contains(SECRET));
    };
    ops.stage.vault(&["password"]);
    ops.kubectl(&synced("True"), "");
    check(0, "blumeops/Web (blumeops)/password");
    assert_eq!(
        ops.stage.asked_of_op(),
        "item get All (blumeops) --vault blumeops --format json\nitem get Web (blumeops) --vault blumeops --format json\n"
    );
    ops.kubectl(&synced("False"), "");
    check(1, "ringtail: SecretSynced: m");
    ops.kubectl("{\"items\":", "");
    check(1, "can't be asked");
    ops.kubectl(r#"{"items":[]}"#, "");
    check(1, "ringtail: there is none in namespace web");
    ops.kubectl(&synced("True"), "");
    ops.stage.vault(&["pasword"]);
    check(1, "did you mean `pasword`?");
    ops.stage.vault(&[]);
    check(1, "no field of it is set");
    ops.stage.op(&format!("echo {SECRET}; echo '[ERROR] account is not signed in {SECRET}' >&2; exit 1"));
    check(1, "op is not signed in");
    ops.stage.op(&format!("echo {SECRET}"));
    check(1, "what op printed is not what");
    ops.stage.op("sleep 100");
    ops.interrupted(&["secrets", "check"], "fields in 1Password");
    let lost = ops.run(&["logs", "lost"]).expect(2, &["names no cluster https://elsewhere.example"]);
    assert!(lost.stdout.is_empty());
}

#[test]
fn logs_come_together_from_the_cluster_that_is_named() {
    let ops = Ops::new();
    let pod = |name: &str, app: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","labels":{{"app":"{app}","x":"y"}}}},"spec":{{"containers":[{{"name":"main"}},{{"name":"side"}}]}}}}"#
        )
    };
    let list = format!(r#"{{"items":[{},{},{}]}}"#, pod("web-1", "web"), pod("web-2", "web"), pod("other", "other"));
    ops.kubectl(&list, "echo \"line of $4\"; case \"$*\" in *--follow*) echo waiting >&2; sleep 100;; esac;");
    let done = ops.run(&["logs", "web", "--since", "5m"]).expect(0, &[]);
    assert_eq!(done.stdout.lines().count(), 4, "{}", done.stdout);
    assert!(done.stdout.contains("web-1/main │ line of web-1") && !done.stdout.contains("other"), "{}", done.stdout);
    assert!(ops.said("kubectl.log").contains("--namespace web --container main --since=300s"));
    let one = ops.run(&["logs", "web", "--container", "side"]).expect(0, &[]);
    assert_eq!(one.stdout.lines().count(), 2, "{}", one.stdout);
    ops.run(&["logs", "web", "--container", "no"]).expect(1, &["no container no", "there are: main, side"]);
    ops.interrupted(&["logs", "web", "--follow", "-vv"], "waiting");
    ops.kubectl(r#"{"items":[]}"#, "");
    ops.run(&["logs", "web"]).expect(1, &["no pod of web is in web of ringtail"]);
}

#[test]
fn mirrors_are_there_full_and_fresh_or_can_be_made() {
    let ops = Ops::new();
    let check = |status: u16, body: &'static str| {
        let forge = StandIn::serve(move |path| match path {
            "/api/v1/repos/eblume/web" => (status, body.to_owned()),
            _ => (500, String::new()),
        });
        Done::from(ops.command(&["mirrors", "check"]).env("BLUMEOPS_FORGE_URL", &forge.url).output().unwrap())
    };
    let done = check(404, "").expect(1, &[]);
    assert!(
        done.stdout.contains("there is none") && done.stdout.contains("curl --fail --netrc --json"),
        "{}",
        done.stdout
    );
    let old = r#"{"mirror":true,"empty":false,"mirror_interval":"8h0m0s","mirror_updated":"2020-01-01T00:00:00Z"}"#;
    assert!(check(200, old).expect(1, &[]).stdout.contains("last fetched"));
    let fresh = r#"{"mirror":true,"mirror_interval":"8h0m0s","mirror_updated":"2999-01-01T00:00:00Z"}"#;
    check(200, fresh).expect(0, &[]);
    check(200, "{").expect(2, &["gave what is no repository"]);
    check(403, "").expect(2, &["answered 403", "BLUMEOPS_FORGE_TOKEN"]);
}
