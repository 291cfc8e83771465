//! `parity`: this repository against the stand-in of upstream's chart, rendered by real helm, and against what it
//! becomes when one thing in it changes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::around::tool;
use crate::checks::with_kustomize;
use crate::stage::{Done, Registry, Stage, run};
use crate::stand_ins::StandIn;

const CHART: &str = "xtask/stand-ins/chart/authentik";
const SERVER: &str = "templates/server/deployment.yaml";
const WORKER: &str = "templates/worker/deployment.yaml";
const RBAC: &str = "charts/authentik-remote-cluster/templates/rbac.yaml";

fn parity(stage: &Stage, args: &[&str]) -> Done {
    tool("helm");
    with_kustomize(stage, &[&["parity"], args].concat()).output().unwrap().into()
}

fn findings(stage: &Stage) -> Vec<Value> {
    let done = parity(stage, &["authentik", "--chart", CHART, "--format", "json"]);
    let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    let findings = value["result"]["findings"].as_array().unwrap_or_else(|| panic!("{value}")).clone();
    assert_eq!(done.code, Some(i32::from(!findings.is_empty())), "{}", done.stdout);
    findings
}

/// One change to the chart: where, what stands there, what comes instead, and the one finding of it.
struct Mutation {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    code: &'static str,
    message: &'static str,
}

macro_rules! mutation {
    ($file:expr, $from:expr => $to:expr, $code:literal, $message:literal) => {
        Mutation { file: $file, from: $from, to: $to, code: $code, message: $message }
    };
}

/// A new file of the chart has this in place of what stood there.
const NEW: &str = "";

const MUTATIONS: &[Mutation] = &[
    mutation!(WORKER, "kind: Deployment" => "kind: StatefulSet", "parity-workload",
        "worker: the chart has `StatefulSet`, here it is `Deployment`"),
    mutation!("templates/ldap.yaml", NEW => "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: authentik-ldap}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: ldap, image: x, args: [ldap]}]}\n",
        "parity-workload", "ldap: only the chart has it: `Deployment`"),
    mutation!(SERVER, "replicas: {{ .Values.server.replicas }}" => "replicas: 2", "parity-workload",
        "server/replicas: the chart has `2`, here it is `1`"),
    mutation!(SERVER, "      containers:" => "      initContainers: [{name: wait, image: x}]\n      containers:", "parity-workload",
        "server/init/wait: only the chart has it: `a container`"),
    mutation!(WORKER, "            - worker\n" => "            - worker\n            - --processes=2\n", "parity-command",
        "worker/args: the chart has `worker '--processes=2'`, here it is `worker`"),
    mutation!(SERVER, "containerPort: {{ .Values.server.containerPorts.metrics }}" => "containerPort: 9301", "parity-port",
        "server/port/metrics: the chart has `9301/TCP`, here it is `9300/TCP`"),
    mutation!(WORKER, "          ports:\n" => "          ports:\n            - {name: debug, containerPort: 9901}\n", "parity-port",
        "worker/port/debug: only the chart has it: `9901/TCP`"),
    mutation!(SERVER, "          env:\n" => "          env:\n            - {name: AUTHENTIK_NEW, value: \"1\"}\n", "parity-env",
        "server/env/AUTHENTIK_NEW: only the chart has it: `1`"),
    mutation!(SERVER, "\"0.0.0.0:{{ .Values.server.containerPorts.https }}\"" => "\"[::]:9443\"", "parity-env",
        "server/env/AUTHENTIK_LISTEN__HTTPS: the chart has `[::]:9443`, here it is `0.0.0.0:8443`"),
    mutation!(WORKER, "            - name: AUTHENTIK_LISTEN__METRICS\n              value: \"0.0.0.0:{{ .Values.worker.containerPorts.metrics }}\"\n" => "",
        "parity-env", "worker/env/AUTHENTIK_LISTEN__METRICS: only here: `0.0.0.0:9300`"),
    mutation!(WORKER, "          env:\n" => "          env:\n            - {name: AUTHENTIK_POSTGRESQL__PASSWORD, value: hunter2}\n", "parity-env",
        "worker/env/AUTHENTIK_POSTGRESQL__PASSWORD: the chart has `(plain, not shown)`, here it is `(secret)`"),
    mutation!(SERVER, "{{- with .Values.server.startupProbe }}" => "{{- with false }}", "parity-probe",
        "server/probe/startup: only here: `GET /-/health/live/ on http, delay 5, period 10, timeout 3, success 1, failure 60`"),
    mutation!("values.yaml", "path: /-/health/ready/" => "path: /-/health/started/", "parity-probe",
        "server/probe/readiness: the chart has `GET /-/health/started/ on http, delay 5, period 10, timeout 3, success 1, failure 3`, here it is `GET /-/health/ready/ on http, delay 0, period 10, timeout 3, success 1, failure 3`"),
    mutation!("values.yaml", "  resources: {}" => "  resources: {requests: {memory: 1Gi}}", "parity-resources",
        "server/resources/requests/memory: the chart has `1Gi`, here it is `512Mi`"),
    mutation!("values.yaml", "  volumes: []\n  volumeMounts: []" => "  volumes: [{name: certs, secret: {secretName: certs}}]\n  volumeMounts: [{name: certs, mountPath: /certs, readOnly: true}]",
        "parity-volume", "server/volume/certs: only the chart has it: `secret, read only`"),
    mutation!("templates/server/service.yaml", "targetPort: https" => "targetPort: http", "parity-service",
        "server/service/443: the chart has `to http`, here it is `to https`"),
    mutation!("templates/worker/metrics.yaml", "      targetPort: metrics\n" => "      targetPort: metrics\n    - {name: http, port: 80, targetPort: http}\n",
        "parity-service", "worker/service/80: only the chart has it: `to http`"),
    mutation!("values.yaml", "  containerSecurityContext: {}" => "  containerSecurityContext: {privileged: true}", "parity-security",
        "server/security/privileged: the chart has `true`, here it is `false`"),
    mutation!(RBAC, "resources: [httproutes]\n    verbs: [get, " => "resources: [httproutes]\n    verbs: [watch, get, ", "parity-permission",
        "worker/permission/namespace/gateway.networking.k8s.io/httproutes: only the chart has it: `create, delete, get, list, patch, watch`"),
    mutation!(RBAC, "    resources: [customresourcedefinitions]\n" => "    resources: [customresourcedefinitions, crds]\n", "parity-permission",
        "worker/permission/cluster/apiextensions.k8s.io/crds: only the chart has it: `list`"),
    mutation!(SERVER, "terminationGracePeriodSeconds: 30" => "terminationGracePeriodSeconds: 60", "parity-pod",
        "server/pod/terminationGracePeriodSeconds: the chart has `60`, here it is `30`"),
    mutation!("templates/blueprints.yaml", NEW => "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: authentik-blueprints}\ndata: {a.yaml: x}\n", "parity-object",
        "ConfigMap/blueprints: only the chart has it: `ConfigMap`"),
    mutation!(SERVER, "enableServiceLinks: true" => "enableServiceLinks: false", "parity-accepted-unused",
        "server/pod/enableServiceLinks no longer differs, and is accepted as \"server/pod/enableServiceLinks: true -> false\""),
];

#[test]
fn each_changed_trait_of_the_chart_is_that_finding_and_no_other() {
    let stage = Stage::of_this_repository();
    assert_eq!(findings(&stage), Vec::<Value>::new(), "all that differs is accepted");
    for mutation in MUTATIONS {
        let path = format!("{CHART}/{}", mutation.file);
        let before = (mutation.from != NEW).then(|| stage.read(&path));
        let text = before.as_deref().unwrap_or_default();
        assert!(text.contains(mutation.from), "{path} has no {}", mutation.from);
        let after =
            if before.is_some() { text.replacen(mutation.from, mutation.to, 1) } else { mutation.to.to_owned() };
        stage.write(&path, &after);
        let found = findings(&stage);
        let shown: Vec<_> =
            found.iter().map(|finding| (finding["code"].as_str(), finding["message"].as_str())).collect();
        assert_eq!(shown, [(Some(mutation.code), Some(mutation.message))], "{}: {}", mutation.file, mutation.to);
        let place = found[0]["place"]["path"].as_str().unwrap();
        let is_accepted = mutation.code == "parity-accepted-unused";
        let home = if is_accepted { "xtask/parity/authentik.toml" } else { "argocd/manifests/authentik/" };
        assert!(place.starts_with(home), "{}: {place}", mutation.message);
        if mutation.message.contains("the chart has") {
            let other = found[0]["other"]["path"].as_str().unwrap();
            assert!(other.starts_with(&format!("{CHART}/")) && Path::new(other).extension().is_some(), "{other}");
            assert!(mutation.file == "values.yaml" || other == path, "{other} is not {path}");
        }
        match before {
            Some(text) => stage.write(&path, &text),
            None => std::fs::remove_file(stage.clone_folder().join(&path)).unwrap(),
        }
    }
}

#[test]
fn a_finding_stands_at_both_ends_and_says_what_was_accepted() {
    let stage = Stage::of_this_repository();
    let path = format!("{CHART}/{SERVER}");
    stage.write(
        &path,
        &stage.read(&path).replace("\"0.0.0.0:{{ .Values.server.containerPorts.https }}\"", "\"[::]:9443\""),
    );
    let done = parity(&stage, &["authentik", "--chart", CHART]).expect(1, &[]);
    for words in [
        "--> argocd/manifests/authentik/deployment-server.yaml:",
        &format!("--> {path}:"),
        "accepts it as \"server/env/AUTHENTIK_LISTEN__HTTPS: 0.0.0.0:9443 -> 0.0.0.0:8443\"",
        "as \"server/env/AUTHENTIK_LISTEN__HTTPS: [::]:9443 -> 0.0.0.0:8443\"",
        "1 findings, 98 differences accepted",
    ] {
        assert!(done.stdout.contains(words), "no «{words}» in {}", done.stdout);
    }
    let markdown = parity(&stage, &["authentik", "--chart", CHART, "--format", "markdown"]).expect(1, &[]).stdout;
    assert!(
        markdown.starts_with("### ✗ cargo xtask parity authentik\n") && markdown.contains("| parity-env |"),
        "{markdown}"
    );
    let sarif = parity(&stage, &["authentik", "--chart", CHART, "--format", "sarif"]).expect(1, &[]).stdout;
    std::fs::write(stage.path("parity.sarif"), &sarif).unwrap();
    let schema = format!("{}/tests/schemas/sarif-2.1.0.json", env!("CARGO_MANIFEST_DIR"));
    run(Command::new("jsonschema").arg("-i").arg(stage.path("parity.sarif")).arg(schema));
}

#[test]
fn names_and_labels_alone_are_no_difference() {
    let stage = Stage::of_this_repository();
    for (from, to) in [("nameOverride: \"\"", "nameOverride: auth"), ("name: server\n", "name: core\n")] {
        let path = format!("{CHART}/values.yaml");
        let before = stage.read(&path);
        stage.write(&path, &before.replacen(from, to, 1));
        let found = findings(&stage);
        // The affinity names the labels that have changed.
        let others = found.iter().filter(|finding| !finding["message"].as_str().unwrap().contains("/pod/affinity"));
        assert_eq!(others.count(), 0, "{found:?}");
        stage.write(&path, &before);
    }
}

#[test]
fn a_reason_has_to_be_given() {
    let stage = Stage::of_this_repository();
    let path = "xtask/parity/authentik.toml";
    stage.write(path, &stage.read(path).replace("reason = \"There is one node.\"", "reason = \" \""));
    let done = parity(&stage, &["authentik", "--chart", CHART]).expect(1, &[]);
    assert!(done.stdout.contains("error[parity-accepted-reason]"), "{}", done.stdout);
    stage.write(path, "[chart]\nnam = \"x\"\n");
    parity(&stage, &["authentik", "--chart", CHART])
        .expect(2, &["unknown field `nam`", "xtask/parity/authentik.toml:2:1"]);
}

#[test]
fn a_chart_comes_from_a_file_a_repository_or_a_registry() {
    let stage = Stage::of_this_repository();
    // With a home of its own: what the program leaves in the stage's is seen.
    let helm = |args: &[&str]| {
        let mut helm = stage.command(tool("helm").to_str().unwrap());
        run(helm.env("HOME", stage.path("helm")).env("XDG_CACHE_HOME", stage.path("helm")).args(args))
    };
    std::fs::create_dir(stage.path("charts")).unwrap();
    let charts = stage.path("charts").to_str().unwrap().to_owned();
    helm(&["package", CHART, "--destination", &charts]);
    let packed = format!("{charts}/authentik-2025.12.4.tgz");
    let done = parity(&stage, &["authentik", "--chart", &packed]).expect(0, &[]);
    assert!(done.stdout.starts_with("chart authentik 2025.12.4: 11 objects, 2 workloads"), "{}", done.stdout);
    helm(&["repo", "index", &charts]);
    let server = StandIn::files(stage.path("charts"));
    parity(&stage, &["authentik", "--repo", &server.url]).expect(0, &["authentik-2025.12.4"]);
    parity(&stage, &["authentik", "--repo", &server.url, "--chart", "9.9.9"])
        .expect(1, &["chart authentik 9.9.9 can't be had from", "look whether the repository has that chart"]);
    let registry = Registry::start();
    let url = registry.url.replace("http://", "oci://") + "/charts";
    helm(&["push", &packed, &url, "--plain-http"]);
    parity(&stage, &["authentik", "--repo", &url, "--chart", "2025.12.4"]).expect(0, &["authentik-2025.12.4"]);
    parity(&stage, &["authentik", "--repo", &url, "--chart", "9.9.9"]).expect(1, &["can't be had from"]);
    parity(&stage, &["authentik", "--repo", "http://127.0.0.1:1"])
        .expect(1, &["the repository can't be reached; --chart FILE"]);
    assert!(!stage.path("home/.config/helm").exists());
}

#[test]
fn every_way_of_failing_says_what_to_do() {
    let stage = Stage::of_this_repository();
    let values = "xtask/parity/authentik.values.yaml";
    for (args, code, words) in [
        (&["authentic", "--chart", CHART][..], 1, &["did you mean `authentik`?"][..]),
        (&["authentik", "--chart", "nowhere.tgz"], 2, &["there is no chart at nowhere.tgz"]),
        (&["authentik", "--chart", "docs"], 2, &["docs is no chart: no Chart.yaml in it"]),
        (&["authentik", "--chart", values], 2, &["is no packed chart"]),
        (&["dex"], 2, &["it is not known where the chart of dex is got from", "xtask/parity/dex.toml"]),
        (
            &["dex", "--chart", CHART],
            1,
            &["nothing was compared: no workload of chart authentik 2025.12.4 is one of dex"],
        ),
        (
            &["authentik", "--chart", CHART, "--kube-version", "1.20.0"],
            1,
            &[
                "chart authentik 2025.12.4 does not render",
                "chart requires kubeVersion",
                "--kube-version names another",
            ],
        ),
    ] {
        parity(&stage, args).expect(code, words);
    }
    let path = format!("{CHART}/{SERVER}");
    let before = stage.read(&path);
    stage.write(&path, &format!("{{{{ fail \"not today\" }}}}\n{before}"));
    parity(&stage, &["authentik", "--chart", CHART])
        .expect(1, &["does not render", "not today", "command: helm template"]);
    stage.write(&path, &before);
    std::fs::remove_dir_all(stage.clone_folder().join(CHART).join("charts/postgresql")).unwrap();
    parity(&stage, &["authentik", "--chart", CHART]).expect(1, &["missing in charts/", "helm dependency build CHART"]);
    std::fs::remove_file(stage.clone_folder().join(values)).unwrap();
    parity(&stage, &["authentik", "--chart", CHART])
        .expect(2, &["xtask/parity/authentik.values.yaml, which is not there"]);
    let mut without = stage.xtask(&["parity", "authentik", "--chart", CHART]);
    Done::from(without.env("PATH", "/nowhere").output().unwrap())
        .expect(2, &["helm is not installed", "helm@v3.19.0 (Go)"]);
}
