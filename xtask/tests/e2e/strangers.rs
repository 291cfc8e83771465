//! Repositories unlike ours, without any configuration: no crash, and no finding where nothing is wrong.

use std::process::Command;

use crate::checks::{check, findings};
use crate::stage::{Stage, run};

/// An Application as people write them, in one of the usual ways.
fn application(number: usize) -> String {
    let name = format!("app-{number}");
    let cluster = if number.is_multiple_of(3) { "https://10.0.0.7:6443" } else { "https://kubernetes.default.svc" };
    let source = match number % 6 {
        0 => format!("  source: {{repoURL: \"https://charts.example.org\", chart: {name}, targetRevision: 1.{number}.x}}"),
        1 => format!(
            "  sources:\n    - repoURL: https://charts.example.org\n      chart: {name}\n      targetRevision: \"*\"\n      helm:\n        valueFiles:\n          - $values/argocd/{name}/values.yaml\n    - repoURL: https://git.example.org/ops.git\n      targetRevision: HEAD\n      ref: values"
        ),
        2 => "  source:\n    repoURL: https://git.example.org/elsewhere.git\n    path: deploy/overlays/prod\n    targetRevision: v2".to_owned(),
        _ => format!(
            "  source:\n    repoURL: https://git.example.org/ops.git\n    path: argocd/{name}\n    targetRevision: HEAD"
        ),
    };
    format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata:\n  name: {name}\n  namespace: argocd\nspec:\n  project: default\n{source}\n  destination:\n    server: {cluster}\n    namespace: {name}\n  syncPolicy: {{automated: {{prune: yes, selfHeal: on}}}}\n"
    )
}

/// A workload, a Service and more, with the habits of several people.
fn manifests(number: usize) -> String {
    let name = format!("app-{number}");
    let workload = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  \"name\": {name}\n  labels: &labels\n    app.kubernetes.io/name: {name}\nspec:\n  replicas: {number}\n  selector:\n    matchLabels: *labels\n  template:\n    metadata:\n      labels:\n        <<: *labels\n        version: \"1\"\n    spec:\n      automountServiceAccountToken: no\n      containers:\n        - name: main\n          image: ghcr.io/someone/{name}:1.{number}@sha256:{digest}\n          ports:\n            - {{containerPort: 8080, name: http}}\n          env:\n            - {{name: LONG, value: \"{long}\"}}\n            - {{name: SHARED, valueFrom: {{secretKeyRef: {{name: sealed, key: token}}}}}}\n            - {{name: OTHER, valueFrom: {{configMapKeyRef: {{name: made-by-hand, key: x, optional: true}}}}}}\n          volumeMounts:\n            - {{name: files, mountPath: /etc/files}}\n      volumes:\n        - name: files\n          projected:\n            defaultMode: 0644\n            sources:\n              - secret: {{name: sealed}}\n",
        digest = "0".repeat(64),
        long = "x".repeat(5000),
    );
    let service = format!(
        "# only a comment\n---\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector:\n    app.kubernetes.io/name: {name}\n  ports:\n    - {{name: http, port: 80, targetPort: http}}\n---\n# the end\n"
    );
    let sealed = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: sealed}\nspec:\n  encryptedData: {token: AgBy8hC}\n  template: {metadata: {name: sealed}}\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: listed}\n    data: {on: \"yes\"}\n";
    let text = format!("{workload}---\n{service}---\n{sealed}---\n{list}");
    if number.is_multiple_of(2) { text.replace('\n', "\r\n") } else { text }
}

/// Folders without kustomizations, with Helm beside them, on two clusters that no configuration names.
fn plain_repository() -> Stage {
    let stage = bare();
    for number in 0..42 {
        stage.write(&format!("argocd/apps/group-{}/app-{number}.yaml", number % 4), &application(number));
        if number % 6 > 2 {
            stage.write(&format!("argocd/app-{number}/all.yaml"), &manifests(number));
            stage.write(&format!("argocd/app-{number}/empty.yaml"), "");
            stage.write(&format!("argocd/app-{number}/.sops.yaml"), "creation_rules: [{age: age1x}]\n");
        } else if number % 6 == 1 {
            stage.write(&format!("argocd/app-{number}/values.yaml"), "image:\n\ttag: x\n".replace('\t', "  ").as_str());
        }
    }
    stage.write(
        "argocd/apps/root.yaml",
        &application(3).replace("app-3", "root").replace("path: argocd/root", "path: argocd/apps"),
    );
    stage.write("docs/a.md", "Just text, `argocd/` and `make x`.\r\n\r\n# A heading\r\n");
    stage.write("docs/deep/b.md", "---\r\ntitle: B\r\nmodified: 2025-01-01\r\ntags: [b]\r\n---\r\n\r\n# B\r\n");
    stage.write("ansible/inventory.ini", "[web]\nhost-a\n");
    stage.write(
        "ansible/site.yml",
        "- hosts: web\n  roles: [geerlingguy.docker, {role: community.general.x}]\n  vars_files: [vault.yml]\n  tasks:\n    - ansible.builtin.debug: {msg: \"{{ secret }}\"}\n",
    );
    stage.write("ansible/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n3961623834\n6266\n");
    stage.write("ansible/group_vars/all.yml", "password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3961\nyes: on\n");
    stage
}

/// Bases, overlays, components and every kind of patch, generators and custom resources.
const OVERLAYS: &str = r#"
//- argocd/apps/all.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: staging}
spec:
  project: default
  source: {repoURL: "git@git.example.org:ops.git", path: argocd/apps-src/overlays/staging, targetRevision: main}
  destination: {name: staging-cluster, namespace: shop}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: production}
spec:
  project: default
  source: {repoURL: "git@git.example.org:ops.git", path: ./argocd/apps-src/overlays/production/, targetRevision: main}
  destination: {name: in-cluster, namespace: shop}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: remote}
spec:
  project: default
  source: {repoURL: "git@git.example.org:ops.git", path: argocd/apps-src/remote, targetRevision: main}
  destination: {name: in-cluster, namespace: remote}
---
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: everything}
spec:
  project: default
  source: {repoURL: "git@git.example.org:ops.git", path: ., targetRevision: main}
  destination: {name: in-cluster, namespace: argocd}
//- argocd/bootstrap/kustomization.yaml
resources: [root.yaml]
//- argocd/bootstrap/root.yaml
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: ops, namespace: argocd}
spec: {sourceRepos: ["*"], destinations: [{name: "*", namespace: "*"}]}
---
apiVersion: v1
kind: Secret
metadata: {name: ops, namespace: argocd, labels: {argocd.argoproj.io/secret-type: repository}}
stringData: {type: git, url: "https://git.example.org/ops.git"}
//- argocd/install/kustomization.yaml
namespace: argocd
resources: ["https://raw.example.org/argoproj/argo-cd/v3.2.6/manifests/install.yaml"]
//- argocd/apps-src/base/secret.sops.yaml
apiVersion: v1
kind: Secret
metadata: {name: sealed}
stringData: {password: "ENC[AES256_GCM,data:abc=,iv:abc=,tag:abc=,type:str]"}
sops: {age: [{recipient: age1x, enc: x}], mac: "ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]", version: 3.8.1}
//- argocd/apps-src/remote/kustomization.yaml
resources: ["github.com/argoproj/argo-cd//manifests/ha?ref=v2.9.0", "git@github.com:x/y.git"]
//- argocd/apps-src/base/kustomization.yaml
resources: [shop.yaml, crd.yaml, secret.sops.yaml]
configMapGenerator:
  - name: settings
    files: [settings.ini]
    literals: [MODE=base]
//- argocd/apps-src/base/settings.ini
[a]
b = 1
//- argocd/apps-src/base/crd.yaml
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  names: {kind: Widget, plural: widgets, singular: widget}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: example.org/v1
kind: Widget
metadata: {name: one}
spec: {anything: [goes]}
//- argocd/apps-src/base/shop.yaml
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shop}
spec:
  serviceName: shop
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: shop
          image: docker.io/library/shop:1
          envFrom: [{configMapRef: {name: settings}}]
          ports: [{name: web, containerPort: 80}]
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: None, selector: {app: shop}, ports: [{name: web, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: database}
spec: {type: ExternalName, externalName: db.example.org}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, annotations: {cert-manager.io/cluster-issuer: x}}
spec:
  tls: [{hosts: [shop.example.org, www.shop.example.org], secretName: shop-tls}]
  rules:
    - host: shop.example.org
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: web}}}}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers: [{name: nightly, image: "busybox:1.36", command: ["true"]}]
//- argocd/apps-src/components/metrics/kustomization.yaml
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {kind: StatefulSet}
    patch: |
      - op: add
        path: /spec/template/spec/containers/0/ports/-
        value: {name: metrics, containerPort: 9100}
//- argocd/apps-src/overlays/staging/kustomization.yaml
namespace: shop
nameSuffix: -staging
commonLabels: {stage: staging}
resources: [../../base]
components: [../../components/metrics]
patchesStrategicMerge:
  - |-
    apiVersion: apps/v1
    kind: StatefulSet
    metadata: {name: shop}
    spec: {replicas: 1}
//- argocd/apps-src/overlays/production/kustomization.yaml
namespace: shop
resources: [../../base]
replicas: [{name: shop, count: 3}]
images: [{name: docker.io/library/shop, newName: registry.example.org/shop, newTag: "2"}]
patchesJson6902:
  - target: {group: apps, version: v1, kind: StatefulSet, name: shop}
    path: patch.json
configMapGenerator:
  - {name: settings, behavior: merge, literals: [MODE=production]}
//- argocd/apps-src/overlays/production/patch.json
[{"op": "replace", "path": "/spec/template/spec/containers/0/ports/0/containerPort", "value": 8080}]
"#;

/// A stage whose clone holds nothing but what a test writes.
fn bare() -> Stage {
    let stage = Stage::new();
    for folder in ["argocd", "containers", "xtask", ".forgejo"] {
        std::fs::remove_dir_all(stage.clone_folder().join(folder)).unwrap();
    }
    stage
}

#[test]
fn forty_apps_of_several_hands() {
    let stage = plain_repository();
    stage.commit("another repository");
    assert_eq!(findings(&stage), []);
    let done = check(&stage, &["check"]).expect(0, &[]);
    assert!(done.stdout.contains(" of 43 Applications"), "{}", done.stdout);
    for args in [
        &["render"][..],
        &["diff", "HEAD"],
        &["graph"],
        &["refs", "app-3"],
        &["containers"],
        &["check", "--since", "HEAD~1"],
    ] {
        let done = check(&stage, args);
        assert!(matches!(done.code, Some(0 | 1)) && !done.stderr.contains("panicked"), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn bases_overlays_components_and_generators() {
    let stage = bare();
    stage.write_files(OVERLAYS);
    stage.commit("another repository");
    assert_eq!(findings(&stage), []);
    let text = check(&stage, &["check"]).expect(0, &[]).stdout;
    assert!(text.contains("remote: needs something from elsewhere"), "{text}");
    assert!(check(&stage, &["diff"]).expect(0, &[]).stdout.contains("nothing changes"));
}

#[test]
fn without_git_in_a_worktree_in_a_submodule_and_shallow() {
    let stage = bare();
    stage.write_files(OVERLAYS);
    stage.commit("another repository");
    stage.git(&["push", "--quiet", "origin", "HEAD:main"]);
    let forge = format!("file://{}", stage.path("forge.git").display());
    let git = |args: &[&str]| run(stage.command("git").args(["-c", "protocol.file.allow=always"]).args(args));
    let text = |path: &str| stage.path(path).to_str().unwrap().to_owned();
    git(&["worktree", "add", "--quiet", "--detach", &text("tree")]);
    git(&["clone", "--quiet", "--depth", "1", &forge, &text("shallow")]);
    git(&["init", "--quiet", &text("super")]);
    git(&["-C", &text("super"), "submodule", "--quiet", "add", &forge, "ops"]);
    run(Command::new("cp").arg("-r").arg(stage.clone_folder().join("argocd")).arg({
        std::fs::create_dir(stage.path("plain")).unwrap();
        stage.path("plain")
    }));
    for folder in ["tree", "shallow", "super/ops", "plain"] {
        let done = check(&stage, &["check", "--root", &text(folder)]).expect(0, &[]);
        assert!(done.stdout.contains("0 findings"), "{folder}: {}", done.stdout);
    }
    check(&stage, &["diff", "--root", &text("plain")]).expect(1, &["no commit here"]);
    check(&stage, &["check", "--since", "HEAD~1", "--root", &text("shallow")]).expect(1, &["git fetch --unshallow"]);
}

/// Codes of findings, and how often each.
type Codes<'a> = &'a [(&'a str, usize)];

#[test]
fn a_copy_without_one_part_has_only_what_follows_from_it_and_says_what_it_can_not_know() {
    // Without the configuration nothing waives the placeholders; without the manifests their Applications lead nowhere.
    let (placeholders, nowhere): (Codes<'_>, Codes<'_>) = (&[("image-floating", 3)], &[("app-path", 8)]);
    let parts: [(&str, Codes<'_>, &str); 10] = [
        ("xtask/blumeops.toml", placeholders, "there is no xtask/blumeops.toml"),
        ("xtask", placeholders, "calls of cargo xtask: what it can is not here"),
        ("docs", &[], "there is no docs/"),
        ("ansible", &[], "there is no ansible/"),
        ("argocd/apps", &[], "no Application is here"),
        ("argocd/manifests", nowhere, "whether 1 waivers are needed"),
        ("argocd", &[], "no Application is here"),
        ("containers", &[], "what 3 images of ours are built from"),
        (".forgejo", &[], "there is no .forgejo/workflows/"),
        (".mise.toml", &[], "there is no .mise.toml"),
    ];
    let stage = Stage::of_this_repository();
    for (part, expected, unknown) in parts {
        for is_committed in [false, true] {
            let gone = stage.path("clone").join(part);
            let removed = if gone.is_dir() { std::fs::remove_dir_all(gone) } else { std::fs::remove_file(gone) };
            removed.unwrap();
            if is_committed {
                stage.git(&["rm", "-r", "--quiet", "--cached", part]);
            }
            let done = check(&stage, &["check", "--format", "json"]);
            let value: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
            let mut codes = std::collections::BTreeMap::new();
            for finding in value["result"]["findings"].as_array().unwrap() {
                *codes.entry(finding["code"].as_str().unwrap()).or_insert(0usize) += 1;
            }
            let codes: Vec<(&str, usize)> = codes.into_iter().collect();
            assert_eq!(codes, expected, "without {part}: {}", done.stdout);
            assert_eq!(done.code, Some(i32::from(!expected.is_empty())), "{}", done.stderr);
            assert!(value["result"]["not_checked"].to_string().contains(unknown), "without {part}: {}", done.stdout);
            for args in [&["render"][..], &["diff"], &["refs", "authentik"], &["graph", "authentik"]] {
                let done = check(&stage, args);
                assert!(matches!(done.code, Some(0 | 1)), "{args:?} without {part}: {}{}", done.stdout, done.stderr);
            }
            stage.git(&["reset", "--quiet", "--hard"]);
        }
    }
}
