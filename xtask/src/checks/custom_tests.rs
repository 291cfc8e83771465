//! Decoding against schemas, and where the schemas that come with the program are from.

use serde_json::json;

use super::*;
use crate::model::source::Source;
use crate::model::yaml;

fn mistakes(version: &str, kind: &str, object: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(bundled(version, kind).unwrap()).unwrap();
    decode(&schema, object).iter().map(|mistake| format!("{}: {}", mistake.path.join("."), mistake.what)).collect()
}

#[test]
fn fields_types_values_and_what_must_be_there() {
    let secret = |item: Value| {
        json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"},
        "spec": {"refreshInterval": "1h", "secretStoreRef": {"kind": "ClusterSecretStore", "name": "a"}, "data": [item]}})
    };
    let check = |item| mistakes("external-secrets.io/v1", "ExternalSecret", &secret(item));
    assert_eq!(check(json!({"secretKey": "a", "remoteRef": {"key": "b", "property": "c"}})), Vec::<String>::new());
    assert_eq!(
        check(json!({"secretKey": "a", "remoteRef": {"key": "b", "propertyy": "c"}})),
        ["spec.data.0.remoteRef.propertyy: there is no such field, but property"]
    );
    assert_eq!(check(json!({"secretKey": "a"})), ["spec.data.0: remoteRef is missing"]);
    assert_eq!(
        check(json!({"secretKey": 1, "remoteRef": {"key": "b", "conversionStrategy": "x"}})),
        [
            "spec.data.0.remoteRef.conversionStrategy: \"x\" is none of \"Default\", \"Unicode\"",
            "spec.data.0.secretKey: invalid type: 1, expected string"
        ]
    );
}

#[test]
fn what_a_schema_leaves_open_is_open() {
    let schema = json!({"type": "object", "properties": {
        "any": {"x-kubernetes-preserve-unknown-fields": true, "type": "object"},
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "given": {"type": "string", "default": "x"}}, "required": ["given"]});
    let of = |object: Value| decode(&schema, &object).iter().map(|mistake| mistake.path.join(".")).collect::<Vec<_>>();
    assert!(of(json!({"any": {"x": {"y": 1}}, "port": "http", "labels": {"a": "b"}, "given": null})).is_empty());
    assert_eq!(of(json!({"port": true, "labels": {"a": 1}})), ["labels.a", "port"]);
}

#[test]
fn every_schema_is_structural() {
    for (file, _, _, text) in BUNDLED {
        let schema: Value = serde_json::from_str(text).unwrap();
        assert_eq!(schema["type"], "object", "{file}");
        assert!(!text.contains("\"description\":\""), "{file}");
    }
}

/// Modules of the Go proxy, and the definitions in them. They come with the release they are of.
const MODULES: &[(&str, &[&str])] = &[
    ("github.com/argoproj/argo-cd/v3@v3.6.1", &["manifests/crds/*-crd.yaml"]),
    ("github.com/external-secrets/external-secrets@v1.3.2", &["config/crds/bases/external-secrets.io_*.yaml"]),
    ("github.com/cloudnative-pg/cloudnative-pg@v1.28.1", &["config/crd/bases/*.yaml"]),
    ("tailscale.com@v1.104.5", &["cmd/k8s-operator/deploy/crds/*.yaml"]),
];

/// What makes a definition of kustomize's own Go type.
const KUSTOMIZATION: &str = "// +groupName=kustomize.config.k8s.io
package v1beta1

import (
\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"
\t\"sigs.k8s.io/kustomize/api/types\"
)

// +kubebuilder:object:root=true
type Kustomization struct {
\tmetav1.TypeMeta   `json:\",inline\"`
\tmetav1.ObjectMeta `json:\"metadata,omitempty\"`
\tSpec types.Kustomization `json:\"spec\"`
}
";

/// `UPDATE_SCHEMAS=1 cargo test --bin xtask the_schemas` writes them; needs Go and its module proxy.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test writes the schemas")]
fn the_schemas_are_those_of_the_definitions() {
    if std::env::var("UPDATE_SCHEMAS").is_err() {
        return every_schema_is_structural();
    }
    let mut definitions = Vec::new();
    for (module, patterns) in MODULES {
        let download = go(std::path::Path::new("."), &["mod", "download", "-json", module]);
        let value: Value = serde_json::from_str(&download).unwrap();
        for pattern in *patterns {
            let (folder, name) = pattern.rsplit_once('/').unwrap();
            let (start, end) = name.split_once('*').unwrap();
            let folder = std::path::Path::new(value["Dir"].as_str().unwrap()).join(folder);
            let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let named = |path: &std::path::PathBuf| {
                path.file_name().unwrap().to_str().is_some_and(|name| name.starts_with(start) && name.ends_with(end))
            };
            definitions.extend(files.filter(named).map(|path| std::fs::read_to_string(path).unwrap()));
        }
    }
    let own = tempfile::tempdir().unwrap();
    std::fs::create_dir(own.path().join("v1beta1")).unwrap();
    std::fs::write(own.path().join("v1beta1/types.go"), KUSTOMIZATION).unwrap();
    std::fs::write(own.path().join("go.mod"), "module kustomization\n\ngo 1.24.0\n\nrequire (\n\tk8s.io/apimachinery v0.34.2\n\tsigs.k8s.io/kustomize/api v0.21.0\n)\n").unwrap();
    go(own.path(), &["mod", "tidy"]);
    let generate = "sigs.k8s.io/controller-tools/cmd/controller-gen@v0.19.0";
    let options = ["crd:allowDangerousTypes=true,maxDescLen=0", "paths=./...", "output:crd:stdout"];
    definitions.push(go(own.path(), &[&["run", generate][..], &options].concat()));
    let mut written = 0;
    for text in definitions {
        let source = Source::new("definition", &text);
        for node in yaml::parse(&source).unwrap() {
            written += write(&node.typed());
        }
    }
    assert_eq!(written, BUNDLED.len());
}

#[expect(clippy::disallowed_methods, reason = "the test runs Go")]
fn go(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .env("GOTOOLCHAIN", "auto")
        .output()
        .expect("Go is installed");
    // The generator complains of two fields that may hold anything, and leaves them open.
    let is_fine = output.status.success() || arguments[0] == "run" && !output.stdout.is_empty();
    assert!(is_fine, "go {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Writes the schemas of a definition that are in the table.
#[expect(clippy::disallowed_methods, reason = "the test writes the schemas")]
fn write(definition: &Value) -> usize {
    let mut written = 0;
    let spec = &definition["spec"];
    for version in spec["versions"].as_array().into_iter().flatten() {
        let kind = spec["names"]["kind"].as_str().unwrap();
        let name = format!(
            "{}/{}_{}.json",
            spec["group"].as_str().unwrap(),
            kind.to_lowercase(),
            version["name"].as_str().unwrap()
        );
        if BUNDLED.iter().any(|(file, ..)| *file == name) {
            let mut schema = &version["schema"]["openAPIV3Schema"];
            // kustomize has the fields at the top.
            if kind == "Kustomization" {
                schema = &schema["properties"]["spec"];
            }
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{}\n", without_prose(schema, false))).unwrap();
            written += 1;
        }
    }
    written
}

/// A schema without its descriptions; a property may be called that and stays.
fn without_prose(schema: &Value, are_names: bool) -> Value {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| are_names || !["description", "example", "externalDocs"].contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), without_prose(value, !are_names && key == "properties")))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(|item| without_prose(item, false)).collect(),
        scalar => scalar.clone(),
    }
}
