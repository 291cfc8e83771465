//! `check`, `render`, `refs` and `explain` on this repository and on broken ones, with real kustomize.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::stage::{Done, Stage};

/// Runs with the programs that `setup` has installed in reach.
pub(crate) fn check(stage: &Stage, args: &[&str]) -> Done {
    with_kustomize(stage, args).output().unwrap().into()
}

/// The same, not started yet.
pub(crate) fn with_kustomize(stage: &Stage, args: &[&str]) -> std::process::Command {
    let mut command = stage.xtask(args);
    let tools = crate::around::tool("kustomize");
    let path = format!("{}:{}", tools.parent().unwrap().display(), std::env::var("PATH").unwrap());
    command.env("PATH", path);
    command
}

/// Code, file, and the file of the other end.
pub(crate) fn findings(stage: &Stage) -> Vec<(String, String, String)> {
    let list = placed(stage).into_iter();
    list.map(|Placed { code, here, other }| (code, here.0, other.0)).collect()
}

/// A finding with the file and line of both ends.
#[derive(Debug)]
struct Placed {
    code: String,
    here: (String, u64),
    other: (String, u64),
}

fn placed(stage: &Stage) -> Vec<Placed> {
    let done = check(stage, &["check", "--format", "json"]);
    let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    let list = value["result"]["findings"].as_array().unwrap_or_else(|| panic!("{value}")).clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let end = |value: &Value| (text(&value["path"]), value["line"].as_u64().unwrap_or_default());
    let list = list.iter();
    list.map(|finding| Placed {
        code: text(&finding["code"]),
        here: end(&finding["place"]),
        other: end(&finding["other"]),
    })
    .collect()
}

#[test]
fn this_repository_agrees_with_itself() {
    let stage = Stage::of_this_repository();
    let done = check(&stage, &["check"]).expect(0, &[]);
    assert!(done.stdout.contains(" objects of 9 Applications, 3 containers,"), "{}", done.stdout);
    assert!(done.stdout.contains("0 findings"), "{}", done.stdout);
    let resolved = |text: &str| -> usize {
        let before = text.split(" references resolved").next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let count = resolved(&done.stdout);
    assert!(count > 100, "{}", done.stdout);
    let index = stage.read("docs/how-to/how-to.md");
    stage.write("docs/how-to/how-to.md", &format!("{index}- [[dex]]: one more.\n"));
    assert_eq!(resolved(&check(&stage, &["check"]).stdout), count + 1);
}

/// One way of breaking a line: what it contains, what is changed in it, and which rules may find that.
struct Mutation {
    files: &'static str,
    marker: &'static str,
    change: fn(&str) -> String,
    rules: &'static [&'static str],
}

/// The word behind the marker gets another letter.
fn misspell(line: &str, marker: &str) -> String {
    let at = line.find(marker).unwrap() + marker.len();
    let start = at + line[at..].find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
    format!("{}q{}", &line[..start], &line[start..])
}

fn drop_line(_: &str) -> String {
    String::new()
}

macro_rules! misspelling {
    ($files:literal, $marker:literal, $rules:expr) => {
        Mutation { files: $files, marker: $marker, change: |line| misspell(line, $marker), rules: &$rules }
    };
}

/// A text in place of another.
macro_rules! changed {
    ($files:literal, $from:literal, $to:literal, $rules:expr) => {
        Mutation { files: $files, marker: $from, change: |line| line.replacen($from, $to, 1), rules: &$rules }
    };
}

/// A field or a value that Kubernetes does not have.
macro_rules! mistyped {
    ($from:literal, $to:literal) => {
        Mutation {
            files: "argocd/manifests",
            marker: $from,
            change: |line| line.replace($from, $to),
            rules: &["object-schema"],
        }
    };
}

/// Every kind of slip; each is made wherever this repository has such a line.
const MUTATIONS: &[Mutation] = &[
    misspelling!("argocd/manifests", "targetPort: ", ["service-port"]),
    misspelling!("argocd/manifests", "claimName: ", ["volume-source", "claim-unused"]),
    misspelling!("argocd/manifests", "serviceAccountName: ", ["service-account"]),
    misspelling!("argocd/manifests", "  port: http", ["probe-port"]),
    misspelling!("argocd/manifests", "  port: redis", ["probe-port", "network-policy"]),
    misspelling!("argocd/manifests", "secretKey: ", ["secret-template", "secret-key"]),
    misspelling!("argocd/manifests", "{{ .", ["secret-template"]),
    misspelling!("argocd/manifests", "image: registry.ops.eblu.me/blumeops/", ["image-unknown"]),
    misspelling!("argocd/manifests", "- name: registry.ops.eblu.me/blumeops/", ["image-unknown", "image-unpinned"]),
    misspelling!("argocd/manifests", "component: ", ["selector-labels", "service-pods", "network-policy"]),
    misspelling!("argocd/manifests", "app: ", ["selector-labels", "service-pods", "service-port", "network-policy"]),
    misspelling!("argocd/manifests", "containerPort: ", ["port-number"]),
    misspelling!("argocd/manifests", "owner: authentik", ["database-owner"]),
    misspelling!("argocd/manifests", "username: ", ["database-role-secret"]),
    misspelling!("argocd/manifests", "type: kubernetes.io/", ["database-role-secret"]),
    misspelling!("argocd/manifests", "POSTGRESQL__USER: ", ["database-login"]),
    misspelling!("argocd/manifests", "POSTGRESQL__NAME: ", ["database-login"]),
    misspelling!("argocd/manifests", "http://", ["dns-name"]),
    misspelling!("argocd/manifests", "REDIS__HOST: ", ["dns-name"]),
    misspelling!("argocd/manifests", "- hosts: [", ["caddy-backend", "ingress-published"]),
    misspelling!("argocd/manifests", "tailscale.com/hostname: pg", ["database-login", "caddy-backend"]),
    misspelling!("argocd/manifests", "newTag: v1.0.0", ["image-tag"]),
    misspelling!("argocd/apps", "    path: ", ["app-path"]),
    misspelling!("argocd/apps", "targetRevision: ", ["app-revision"]),
    misspelling!("argocd/apps", "server: https://", ["app-cluster"]),
    misspelling!("argocd/apps", "    namespace: ", ["app-namespace"]),
    misspelling!("ansible/roles/caddy", "backend: \"https://", ["caddy-backend"]),
    Mutation {
        files: "ansible/roles/caddy",
        marker: ".{{ caddy_domain }}\"",
        change: |line| line.replace(".{{ caddy_domain }}", ""),
        rules: &["caddy-host"],
    },
    misspelling!("ansible/roles/borgmatic", "{name: ", ["database-backup"]),
    misspelling!("ansible/playbooks", "- role: ", ["playbook-role"]),
    misspelling!("ansible/playbooks", "hosts: ", ["playbook-host"]),
    misspelling!("argocd/manifests", "__address__\" = \"", ["dns-name", "metrics-scraped"]),
    misspelling!("argocd/manifests", "up{job=", ["dashboard-job"]),
    misspelling!("docs/", "mise run ", ["mise-task"]),
    misspelling!("docs/", "[[", ["doc-link"]),
    misspelling!("docs/", "`argocd/", ["doc-path"]),
    misspelling!("docs/", "`containers/", ["doc-path"]),
    misspelling!("docs/", "| **Cluster** | ", ["doc-card"]),
    misspelling!("docs/", "| **Namespace** | `", ["doc-card"]),
    misspelling!("docs/", "| **Image** | `", ["doc-card"]),
    Mutation { files: "docs/how-to/how-to.md", marker: "- [[", change: drop_line, rules: &["doc-unlisted"] },
    Mutation { files: "docs/reference/services/", marker: "| [[", change: drop_line, rules: &["doc-unlisted"] },
    Mutation { files: "docs/", marker: "modified: 20", change: drop_line, rules: &["doc-frontmatter"] },
    Mutation { files: "docs/", marker: "tags: [", change: drop_line, rules: &["doc-frontmatter"] },
    misspelling!("argocd/manifests", "property: ", ["secret-plan"]),
    misspelling!("argocd/manifests", "        key: ", ["secret-plan"]),
    misspelling!("argocd/manifests", "name: onepassword-", ["secret-store"]),
    misspelling!("docs/reference/services/authentik", "| `db-", ["secret-plan"]),
    misspelling!("docs/reference/services/authentik", "| `secret-", ["secret-plan"]),
    misspelling!("docs/reference/secrets", "\": `", ["secret-plan"]),
    misspelling!("ansible/playbooks", "op://blumeops/gandi/", ["secret-plan"]),
    changed!("ansible/playbooks", "op://blumeops/gandi/", "op://blumeops/gandi (dns)/", ["op-reference"]),
    changed!("ansible/playbooks", "op://blumeops/borgmatic/db-password", "op://blumeops/borgmatic", ["op-reference"]),
    misspelling!("argocd/apps", "repoURL: ssh://", ["app-repository"]),
    changed!("argocd/manifests", "value: 0.0.0.0:", "value: 0.0.0.0:1", ["image-ports"]),
    changed!("argocd/manifests/authentik", "containerPort: ", "containerPort: 1", ["image-ports"]),
    changed!("argocd/manifests/dex", "containerPort: ", "containerPort: 1", ["image-ports"]),
    changed!("argocd/manifests/authentik", "runAsUser: 65534", "runAsUser: 1000", ["image-user"]),
    changed!("argocd/manifests/authentik", "runAsUser: 65534", "runAsUser: 0", ["image-user"]),
    changed!("argocd/manifests", "args: [server]", "args: [ak, server]", ["image-args"]),
    changed!("argocd/manifests", "args: [worker]", "args: [ak, worker]", ["image-args"]),
    changed!("argocd/manifests", "\"--dir\", \"/data\"", "\"--dir\", \"/\"", ["data-folder"]),
    changed!("containers/", "User = \"65534\"", "User = \"nobody\"", ["image-user"]),
    changed!("containers/", "User = \"65534\"", "User = \"1000\"", ["image-user"]),
    changed!("containers/", "/tcp\" = { };", "1/tcp\" = { };", ["image-ports"]),
    misspelling!("docs/", "| **URL** | https://", ["doc-card"]),
    misspelling!("docs/", "| **Tailscale URL** | https://", ["doc-card"]),
    misspelling!("docs/how-to", "cargo xtask ", ["xtask-call"]),
    misspelling!("README.md", "cargo xtask ", ["xtask-call"]),
    misspelling!(".forgejo", "cargo xtask ", ["xtask-call"]),
    misspelling!(".mise.toml", "cargo xtask ", ["xtask-call"]),
    misspelling!("docs/how-to", " --", ["xtask-call", "playbook-tag"]),
    misspelling!("ansible/roles", "{{ caddy_", ["ansible-variable", "caddy-host", "caddy-backend"]),
    misspelling!("ansible/roles", "{{ borgmatic_", ["ansible-variable"]),
    mistyped!("secretStoreRef:", "secretStore:"),
    mistyped!("remoteRef:", "remoteref:"),
    mistyped!("refreshInterval: 1h", "refreshIntervall: 1h"),
    mistyped!("creationPolicy: Owner", "creationPolicy: Own"),
    mistyped!("connectionLimit: -1", "connectionLimit: none"),
    mistyped!("databaseReclaimPolicy: retain", "databaseReclaimPolicy: keep"),
    mistyped!("passwordSecret:", "passwordsecret:"),
    changed!("kustomization.yaml", "newTag: ", "newtag: ", ["object-schema"]),
    changed!("argocd/apps", "targetRevision: ", "targetRevison: ", ["object-schema"]),
    changed!("argocd/apps", "project: default", "projekt: default", ["object-schema"]),
    mistyped!("readinessProbe:", "readinesProbe:"),
    mistyped!("volumeMounts:", "volumesMounts:"),
    mistyped!("securityContext:", "securitycontext:"),
    mistyped!("accessModes:", "accessMode:"),
    mistyped!("ingressClassName:", "ingressClass:"),
    mistyped!("replicas: 1", "replicas: one"),
    mistyped!("containerPort: ", "containerPort: x"),
    mistyped!("automountServiceAccountToken: false", "automountServiceAccountToken: never"),
    Mutation {
        files: "kustomization.yaml",
        marker: "  - ",
        change: drop_line,
        rules: &["kustomization-complete", "image-unpinned", "image-floating", "app-render"],
    },
];

/// File, line and its new text, with the rules that may find it.
fn mutants(stage: &Stage) -> Vec<(String, usize, String, &'static [&'static str])> {
    let mut mutants = Vec::new();
    for path in stage
        .git(&["ls-files", "argocd", "ansible", "docs", "containers", ".forgejo", ".mise.toml", "README.md"])
        .lines()
    {
        let text = stage.read(path);
        let mut in_code = false;
        for (number, line) in text.lines().enumerate() {
            in_code ^= path.rsplit('.').next() == Some("md") && line.starts_with("```");
            // Plans speak of what is not there yet; the reference is generated.
            let exempt = in_code
                || path.contains("/plans/")
                || path.contains("cargo-xtask")
                || line.trim_start().starts_with('#');
            for mutation in MUTATIONS.iter().filter(|_| !exempt) {
                let applies = path.contains(mutation.files) && line.contains(mutation.marker);
                if applies && !is_no_slip(path, line) {
                    mutants.push((path.to_owned(), number, (mutation.change)(line), mutation.rules));
                }
            }
        }
    }
    mutants
}

/// Changes after which the repository means the same, or may be right.
fn is_no_slip(path: &str, line: &str) -> bool {
    let third_party = ["grafana/", "prom/", "kiwigrid/"].iter().any(|name| line.contains(name));
    // Any tag or name of a third party may exist.
    (path.ends_with("kustomization.yaml") && third_party)
        // Labels of a workload itself, at this depth, are read by nobody.
        || (line.starts_with("    app: ") || line.starts_with("    component: ")) && path.contains("deployment")
        // The slip went into the sentence and not into the path.
        || line.contains("`containers/`")
        || line.contains("`[[")
}

/// What survives, with the reason.
const SURVIVORS: &[(&str, &str)] = &[
    ("databases/service-", "the pods are made by an operator, and so are their ports"),
    ("{name: teslamate,", "its app makes the database; no file declares it"),
    ("{name: authentik, hostname: pg", "the finding stands at the database and names the list"),
    ("tailscale.com/hostname: pg", "a name in the tailnet may be used from outside of the repository"),
    ("- hosts: [", "the finding stands at the backend, which nothing is called like any more"),
    ("- name: registry.ops.eblu.me/", "an entry that matches no image is found at the images that nothing pins now"),
    ("containers/authentik/default.nix:4", "the image's own environment names the port"),
];

#[test]
fn slips_in_this_repository_are_found_where_they_are() {
    let first = Stage::of_this_repository();
    let mutants = mutants(&first);
    assert!(mutants.len() >= 200, "only {} mutants", mutants.len());
    let (next, exact) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let survivors = std::sync::Mutex::new(Vec::new());
    let work = || {
        let stage = Stage::of_this_repository();
        assert_eq!(findings(&stage), []);
        while let Some((path, number, changed, rules)) = mutants.get(next.fetch_add(1, Ordering::SeqCst)) {
            let before = stage.read(path);
            let mut lines: Vec<&str> = before.lines().collect();
            let original = lines[*number].to_owned();
            if changed.is_empty() {
                lines.remove(*number);
            } else {
                lines[*number] = changed;
            }
            stage.write(path, &(lines.join("\n") + "\n"));
            let all = placed(&stage);
            // Where both ends are in question the finding may stand at the other one. Of a lost line its file is asked.
            let is_here = |(file, line): &(String, u64)| {
                file == path && (changed.is_empty() || usize::try_from(*line).unwrap() == *number + 1)
            };
            let mut ours = all.iter().filter(|found| rules.contains(&found.code.as_str())).peekable();
            let is_found = ours.peek().is_some();
            if ours.any(|found| is_here(&found.here) || is_here(&found.other)) {
                exact.fetch_add(1, Ordering::SeqCst);
            } else {
                let what = if is_found { "is found elsewhere" } else { "survives" };
                let line = format!("{path}:{}: {} {what}: {all:?}", number + 1, original.trim());
                survivors.lock().unwrap().push(line);
            }
            stage.write(path, &before);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut survivors = survivors.into_inner().unwrap();
    survivors.sort();
    let exact = exact.into_inner();
    println!("{exact} of {} slips were found by their rule at their file and line", mutants.len());
    let reason = |line: &str| SURVIVORS.iter().find(|(part, _)| line.contains(part)).map(|(_, reason)| *reason);
    for survivor in &survivors {
        println!("{survivor}\n    {}", reason(survivor).unwrap_or("no reason is known"));
    }
    assert!(survivors.iter().all(|survivor| reason(survivor).is_some()), "a slip is lost without a reason");
    assert!(exact * 100 >= mutants.len() * 95, "{exact} of {}", mutants.len());
}

#[test]
fn an_unchanged_folder_is_not_rendered_again() {
    let stage = Stage::of_this_repository();
    let started = Instant::now();
    check(&stage, &["render"]).expect(0, &[]);
    let cold = started.elapsed();
    let log = check(&stage, &["render", "-v"]).expect(0, &[]).stderr;
    assert!(!log.contains("kustomize build"), "{log}");
    let one = stage.read("argocd/manifests/dex/service.yaml").replace("5556", "5557");
    stage.write("argocd/manifests/dex/service.yaml", &one);
    let log = check(&stage, &["render", "-v"]).expect(0, &[]).stderr;
    assert_eq!(log.matches("kustomize build").count(), 1, "{log}");
    assert!(cold.as_secs() < 60);
}

#[test]
fn what_is_broken_is_named_and_the_rest_is_checked() {
    let stage = Stage::of_this_repository();
    stage.write("argocd/manifests/dex/service.yaml", "a: [\n");
    stage.write("argocd/manifests/loki/kustomization.yaml", "resources:\n  - https://example.org/base?ref=v1\n");
    std::fs::write(stage.path("clone/docs/odd.md"), b"\xff\xfe not text").unwrap();
    std::fs::write(stage.path("clone/docs/large.md"), vec![b'x'; 50 << 20]).unwrap();
    std::os::unix::fs::symlink("..", stage.path("clone/argocd/loop")).unwrap();
    let service =
        stage.read("argocd/manifests/authentik/service-redis.yaml").replace("targetPort: redis", "targetPort: reddis");
    stage.write("argocd/manifests/authentik/service-redis.yaml", &service);
    let done = check(&stage, &["check"]).expect(1, &[]);
    for words in [
        "error[yaml-syntax]",
        "argocd/manifests/dex/service.yaml:",
        "error[app-render]",
        "error[service-port]",
        "did you mean `redis`?",
        "argocd/manifests/loki/kustomization.yaml:2:5",
        "docs/odd.md: it is larger",
        "docs/large.md: it is larger",
    ] {
        assert!(done.stdout.contains(words), "no {words} in\n{}", done.stdout);
    }
    // What is not known is not said to be missing.
    assert!(!done.stdout.contains("caddy-backend") && !done.stdout.contains("dns-name"), "{}", done.stdout);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

#[test]
fn duplicate_keys_and_a_missing_kustomize_are_told() {
    let stage = Stage::of_this_repository();
    let bin = stage.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(which::which("git").unwrap(), bin.join("git")).unwrap();
    let done = Done::from(stage.xtask(&["check"]).env("PATH", &bin).output().unwrap());
    assert_eq!(done.code, Some(2), "{}", done.stdout);
    assert!(done.stdout.contains("kustomize is not installed"), "{}", done.stdout);
    stage.write("argocd/apps/dex.yaml", "kind: Application\nkind: Application\n");
    let all = findings(&stage);
    assert!(all.iter().any(|(code, path, _)| code == "yaml-syntax" && path == "argocd/apps/dex.yaml"), "{all:?}");
}

#[test]
fn only_what_is_asked_for() {
    let stage = Stage::of_this_repository();
    let app = stage.read("argocd/apps/dex.yaml").replace("targetRevision: main", "targetRevision: topic");
    stage.write("argocd/apps/dex.yaml", &app);
    for (args, code) in
        [(["check", "dex"], 1), (["check", "authentik"], 0), (["check", "app-revision"], 1), (["check", "docs"], 0)]
    {
        check(&stage, &args).expect(code, &[]);
    }
    check(&stage, &["check", "nonsense"]).expect(2, &["no rule, Application or path"]);
    check(&stage, &["check", "--since", "HEAD"]).expect(1, &[]);
    stage.commit("known from here on");
    check(&stage, &["check", "--since", "HEAD"]).expect(0, &[]);
    check(&stage, &["check", "--since", "HEAD~1"]).expect(1, &[]);
    let github = check(&stage, &["check", "--format", "github"]).expect(1, &[]).stdout;
    assert!(github.starts_with("::error file=argocd/apps/dex.yaml,line=11,col="), "{github}");
    let sarif = check(&stage, &["check", "--format", "sarif"]).expect(1, &[]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&sarif).unwrap()["version"], "2.1.0");
    check(&stage, &["containers", "--format", "sarif"]).expect(2, &["does not have this format"]);
}

#[test]
fn references_and_explanations() {
    let stage = Stage::of_this_repository();
    let refs = check(&stage, &["refs", "pg.ops.eblu.me"]).expect(0, &[]).stdout;
    for words in ["manifest\n", "provisioning\n", "documentation\n", "argocd/manifests/authentik/external-secret.yaml:"]
    {
        assert!(refs.contains(words), "{refs}");
    }
    let port = check(&stage, &["refs", "8000"]).expect(0, &[]).stdout;
    for words in ["port: http", "targetPort: http", "ingress-tailscale.yaml", "(as authentik.ops.eblu.me)"] {
        assert!(port.contains(words), "no {words} in {port}");
    }
    let path = check(&stage, &["refs", "argocd/manifests/authentik/service-redis.yaml"]).expect(0, &[]).stdout;
    assert!(path.contains("argocd/manifests/authentik/kustomization.yaml:"), "{path}");
    let page = check(&stage, &["refs", "docs/reference/services/authentik.md"]).expect(0, &[]).stdout;
    assert!(page.contains("docs/reference/services/services.md:"), "{page}");
    check(&stage, &["refs", &["nothing-has", "-this-name"].concat()]).expect(1, &["nothing mentions"]);
    let text = check(&stage, &["explain", "service-port"]).expect(0, &[]).stdout;
    assert!(text.contains("-  ports: ") || text.contains("-targetPort: http"), "{text}");
    check(&stage, &["explain", "service-prot"]).expect(2, &["did you mean `service-port`?"]);
}

/// Another repository of this layout, without any configuration, and with much that can't be known from its files.
const OTHER: &str = r#"
//- argocd/apps/chart.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: chart}
spec:
  project: default
  source: {repoURL: "https://charts.example", chart: cert-manager, targetRevision: v1.16.2}
  destination: {server: "https://kubernetes.default.svc", namespace: cert-manager}
//- argocd/apps/multi.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: multi}
spec:
  project: default
  sources:
    - {repoURL: "https://charts.example", chart: grafana, targetRevision: 8.0.0, helm: {valueFiles: [$values/argocd/values/grafana.yaml]}}
    - {repoURL: "https://git.example/ops.git", targetRevision: main, ref: values}
    - {repoURL: "https://git.example/ops.git", targetRevision: main, path: argocd/manifests/plain}
  destination: {name: in-cluster, namespace: monitoring}
//- argocd/apps/elsewhere.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: elsewhere}
spec:
  project: default
  source: {repoURL: "https://git.example/other.git", targetRevision: main, path: deploy}
  destination: {server: "https://other:6443", namespace: elsewhere}
//- argocd/apps/set.yaml
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: set}
spec: {generators: [{git: {directories: [{path: "argocd/manifests/*"}]}}]}
//- argocd/apps/plain.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: plain}
spec:
  project: default
  source: {repoURL: "https://git.example/ops.git", targetRevision: main, path: argocd/manifests/plain}
  destination: {server: "https://kubernetes.default.svc", namespace: plain}
//- argocd/apps/overlay.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: overlay}
spec:
  project: default
  source: {repoURL: "https://git.example/ops.git", targetRevision: HEAD, path: argocd/manifests/overlay}
  destination: {server: "https://kubernetes.default.svc", namespace: overlay}
//- argocd/manifests/plain/all.yaml
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app.kubernetes.io/name: somebody-elses}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain}
spec:
  selector: {matchLabels: {app: plain}}
  template:
    metadata: {labels: {app: plain, extra: "1"}}
    spec:
      containers:
        - name: plain
          image: nginx:1.27
          envFrom: [{secretRef: {name: made-by-hand}}]
          env: [{name: URL, value: "http://vault.vault.svc.cluster.local:8200"}, {name: UI, value: "http://grafana.monitoring.svc"}]
          livenessProbe: {httpGet: {path: /, port: 80}}
          volumeMounts: [{name: ca, mountPath: /ca}]
      volumes: [{name: ca, configMap: {name: kube-root-ca.crt}}]
//- argocd/manifests/base/kustomization.yaml
resources: [deployment.yaml]
//- argocd/manifests/base/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers: [{name: app, image: "ghcr.io/someone/app:1.0", ports: [{name: http, containerPort: 80}]}]
//- argocd/manifests/overlay/kustomization.yaml
namespace: overlay
namePrefix: my-
resources: [../base]
patches:
  - path: patch.yaml
  - target: {kind: Deployment}
    patch: |-
      - {op: add, path: /spec/template/spec/containers/0/readinessProbe, value: {httpGet: {path: /, port: http}}}
//- argocd/manifests/overlay/patch.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec: {replicas: 2}
//- argocd/values/grafana.yaml
adminPassword: {{ not: yaml
//- docs/notes.md
No frontmatter here, and a `path/of/no/concern`.
"#;

#[test]
fn nothing_is_invented_in_another_repository() {
    let stage = Stage::new();
    for folder in ["argocd", "containers", "xtask"] {
        std::fs::remove_dir_all(stage.clone_folder().join(folder)).unwrap();
    }
    stage.write_files(OTHER);
    stage.commit("another repository");
    let all = findings(&stage);
    let only_the_broken_file = all.iter().all(|(code, path, _)| code == "yaml-syntax" && path.contains("values"));
    assert!(only_the_broken_file, "{all:?}");
    let done = check(&stage, &["check"]);
    for words in
        ["chart: a Helm chart", "elsewhere: comes from another repository", "an ApplicationSet is not expanded"]
    {
        assert!(done.stdout.contains(words), "no {words} in {}", done.stdout);
    }
}

#[test]
fn the_diff_of_a_field_is_that_field_and_of_a_comment_nothing() {
    let stage = Stage::of_this_repository();
    let path = "argocd/manifests/dex/deployment.yaml";
    let before = stage.read(path);
    let empty = check(&stage, &["diff"]).expect(0, &[]).stdout;
    assert_eq!(empty.trim(), "nothing changes in any cluster");
    let reordered =
        before.replace("  replicas: 1\n", "").replace("spec:\n  selector", "# one\nspec:\n  replicas: 1\n  selector");
    assert_ne!(reordered, before);
    stage.write(path, &reordered);
    assert_eq!(check(&stage, &["diff"]).expect(0, &[]).stdout, empty);
    stage.write(path, &before.replace("memory: 128Mi", "memory: 256Mi"));
    assert_eq!(
        check(&stage, &["diff"]).expect(0, &[]).stdout,
        "~ Deployment dex/dex in ringtail\n    ~ spec.template.spec.containers[dex].resources.limits.memory: 128Mi → 256Mi\n"
    );
    let config = stage.read("argocd/manifests/grafana/datasources.yaml").replace("3100", "3101");
    stage.write("argocd/manifests/grafana/datasources.yaml", &config);
    stage.write(
        path,
        &before.replace(
            "            - name: http\n              containerPort: 5556\n",
            "            - name: web\n              containerPort: 5556\n",
        ),
    );
    let text = check(&stage, &["diff", "HEAD", "--markdown"]).expect(0, &[]).stdout;
    assert!(
        text.contains("ports[http]: ") && text.contains("(lost)") && text.contains("### 2 objects change"),
        "{text}"
    );
    check(&stage, &["diff", "no-such-revision"]).expect(1, &["no-such-revision is no commit here"]);
}

#[test]
fn the_picture_of_authentik_is_the_one_in_the_docs() {
    let stage = Stage::of_this_repository();
    let svg = check(&stage, &["graph", "authentik", "--svg"]).expect(0, &[]).stdout;
    let page = stage.read("docs/reference/services/authentik.svg");
    assert_eq!(svg, page, "cargo xtask graph authentik --svg > docs/reference/services/authentik.svg");
    let text = check(&stage, &["graph", "authentik"]).expect(0, &[]).stdout;
    for words in [
        "Deployment authentik-server",
        "Ingress authentik-tailscale",
        "1Password Authentik (blumeops)",
        "containers/redis",
        "Database authentik",
        "Cluster blumeops-pg",
        "authentik.ops.eblu.me",
        " --> ",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    check(&stage, &["graph", "nonsense"]).expect(1, &["there are: "]);
}
