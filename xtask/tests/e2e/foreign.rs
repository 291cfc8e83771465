//! Repositories of other owners, each with habits that this one has not: what is found is what the owner would repair.

use crate::checks::{check, findings};
use crate::stage::Stage;

/// Charts of its own, an `ApplicationSet`, JSON, folders in folders, and changes that Applications make themselves.
const CHARTS: &str = r#"
//- argocd/bootstrap/Chart.yaml
apiVersion: v2
name: root
version: 0.0.0
//- argocd/bootstrap/templates/stack.yaml
apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: {{ .Values.stack }}, namespace: {{ .Release.Namespace }}}
{{- if .Values.on }}
spec: {generators: [{git: {directories: [{path: {{ .Values.stack }}/*}]}}]}
{{- end }}
//- argocd/apps/root.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: root, namespace: argocd}
spec:
  project: default
  source: {repoURL: "git@github.com:me/homelab.git", path: argocd/bootstrap, targetRevision: master, helm: {valueFiles: [values.yaml]}}
  destination: {server: "https://kubernetes.default.svc", namespace: argocd}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: deep, namespace: argocd}
spec:
  project: default
  source: {repoURL: "git@github.com:me/homelab.git", path: argocd/manifests/deep, targetRevision: master, directory: {recurse: true}}
  destination: {server: "https://kubernetes.default.svc", namespace: deep}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: part, namespace: argocd}
spec:
  project: default
  source: {repoURL: "git@github.com:me/homelab.git", path: argocd/manifests/part, targetRevision: master, directory: {exclude: "{draft*,*.md}"}}
  destination: {server: "https://kubernetes.default.svc", namespace: part}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: changed, namespace: argocd}
spec:
  project: default
  source:
    repoURL: git@github.com:me/homelab.git
    path: argocd/manifests/changed
    targetRevision: master
    kustomize: {images: ["nginx=docker.io/library/nginx:1.27"], namePrefix: my-}
  destination: {server: "https://kubernetes.default.svc", namespace: changed}
//- argocd/apps/json.json
{"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "json", "namespace": "argocd"},
 "spec": {"project": "default", "destination": {"server": "https://kubernetes.default.svc", "namespace": "json"},
  "source": {"repoURL": "git@github.com:me/homelab.git", "path": "argocd/manifests/json", "targetRevision": "master"}}}
//- argocd/manifests/json/service.json
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": {"type": "ExternalName", "externalName": "api.example"}}
//- argocd/manifests/json/renovate.json
{"extends": ["config:base"], "apiVersion": 3
//- argocd/manifests/deep/one/config.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
data: {api: "http://api.json.svc.cluster.local"}
//- argocd/manifests/deep/two/pod.yml
apiVersion: v1
kind: Pod
metadata: {generateName: two-, annotations: {argocd.argoproj.io/hook: PreSync}}
spec: {containers: [{name: a, image: "busybox:1", envFrom: [{configMapRef: {name: one}}]}]}
//- argocd/manifests/part/draft.yaml
apiVersion: v1
kind: Pod
metadata: {name: draft}
spec: {containers: [{name: a, image: busybox}]}
//- argocd/manifests/changed/kustomization.yaml
resources: [deployment.yaml]
//- argocd/manifests/changed/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx}
spec:
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec: {containers: [{name: nginx, image: nginx, readinessProbe: {tcpSocket: {port: 80}}}]}
"#;

/// Images with a numbering of their own, and pages that link as Obsidian does.
const NUMBERED: &str = r#"
//- containers/web/Dockerfile
FROM scratch
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["/web"]
//- argocd/apps/web.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: web, namespace: argocd}
spec:
  project: default
  source: {repoURL: "https://git.home.lan/ops.git", path: argocd/manifests/web, targetRevision: HEAD}
  destination: {server: "https://kubernetes.default.svc", namespace: web}
//- argocd/manifests/web/kustomization.yaml
namespace: web
resources: [deployment.yaml]
images:
  - {name: registry.home.lan/ops/web, newTag: "2024.11.3"}
//- argocd/manifests/web/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsUser: 1000, runAsNonRoot: true}
      containers:
        - {name: web, image: registry.home.lan/ops/web, args: [serve], ports: [{containerPort: 8080}]}
//- docs/Home Page.md
# Home
[[web]] [[deep/web#part|it]] [[web.md]] ![[plan.png]] [[home-page]] [[the-web]]
//- docs/plan.png
not really
//- docs/deep/web.md
---
aliases: [The Web]
---
# Web
[[Home Page]]
"#;

/// Another one, with nothing but what a text says.
fn foreign(files: &str) -> Stage {
    let stage = Stage::new();
    for folder in ["argocd", "containers", "xtask", ".forgejo"] {
        std::fs::remove_dir_all(stage.clone_folder().join(folder)).unwrap();
    }
    stage.write_files(files);
    stage.commit("another repository");
    stage
}

#[test]
fn charts_json_folders_in_folders_and_changes_by_applications() {
    let stage = foreign(CHARTS);
    assert_eq!(findings(&stage), []);
    let text = check(&stage, &["check"]).expect(0, &[]).stdout;
    for words in [
        " of 5 Applications",
        "not checked: root: it is a Helm chart",
        "not checked: part: its Application does not take the files as they are",
        "not checked: changed: what its Application itself changes in its objects",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    let rendered = check(&stage, &["render"]).expect(0, &[]).stdout;
    assert!(rendered.contains("name: one") && rendered.contains("generateName: two-"), "{rendered}");
    // What is read is judged: a name in another folder that no Service has any more.
    let path = "argocd/manifests/json/service.json";
    stage.write(path, &stage.read(path).replace("\"api\"}", "\"apy\"}"));
    let all = findings(&stage);
    assert!(all.iter().any(|(code, path, _)| code == "dns-name" && path.ends_with("deep/one/config.yaml")), "{all:?}");
}

#[test]
fn numbers_and_links_of_other_kinds() {
    let stage = foreign(NUMBERED);
    assert_eq!(findings(&stage), []);
    // With a configuration it has taken up the tool, and with it the tags that releases make.
    stage.write("xtask/blumeops.toml", "[registry]\nhost = \"registry.home.lan\"\nnamespace = \"ops\"\n");
    let all = findings(&stage);
    assert!(all.iter().any(|(code, ..)| code == "image-tag"), "{all:?}");
}

#[test]
fn a_page_that_no_index_links_to_is_listed() {
    let stage = Stage::of_this_repository();
    let index = "docs/how-to/how-to.md";
    let line = "- [[read-a-report]]: what was found, as one page for a phone.\n";
    let before = stage.read(index);
    stage.write(index, &before.replace(line, ""));
    let all = findings(&stage);
    assert_eq!(all, [("doc-unlisted".to_owned(), "docs/how-to/read-a-report.md".to_owned(), index.to_owned())]);
    check(&stage, &["check", "--fix"]).expect(0, &["1 fixes in 1 files", "+- [[read-a-report]]: Read a report"]);
    assert_eq!(stage.read(index).lines().count(), before.lines().count());
}
