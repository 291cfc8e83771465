//! What other programs read: SARIF, JUnit, annotations and JSON, each held against what says how it has to look.

use std::process::Command;

use serde_json::Value;

use crate::checks::{check, with_kustomize};
use crate::stage::{Done, Stage, run};

fn schema(name: &str) -> String {
    format!("{}/tests/schemas/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn broken() -> Stage {
    let stage = Stage::of_this_repository();
    let app = stage.read("argocd/apps/dex.yaml").replace("targetRevision: main", "targetRevision: \"a<b>&'|é\"");
    stage.write("argocd/apps/dex.yaml", &app);
    let accepted = stage.read("xtask/parity/authentik.toml").replace("redis: none -> Deployment", "redis: none -> Job");
    stage.write("xtask/parity/authentik.toml", &accepted);
    stage.write("docs/how-to/a page.md", "no frontmatter, and [[nowhere]]\n");
    stage
}

#[test]
fn sarif_and_junit_are_what_their_schemas_say() {
    let stages = [Stage::of_this_repository(), broken()];
    for (stage, code) in stages.iter().zip([0, 1]) {
        let sarif = check(stage, &["check", "--format", "sarif"]).expect(code, &[]).stdout;
        std::fs::write(stage.path("check.sarif"), &sarif).unwrap();
        run(Command::new("jsonschema").arg("-i").arg(stage.path("check.sarif")).arg(schema("sarif-2.1.0.json")));
        let value: Value = serde_json::from_str(&sarif).unwrap();
        let rules = value["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        assert!(
            rules.iter().all(|rule| rule["shortDescription"]["text"].is_string() && rule["help"]["text"].is_string())
        );
        let junit = check(stage, &["check", "--format", "junit"]).expect(code, &[]).stdout;
        std::fs::write(stage.path("check.xml"), junit).unwrap();
        run(Command::new("xmllint")
            .args(["--noout", "--schema", &schema("junit-10.xsd")])
            .arg(stage.path("check.xml")));
    }
}

#[test]
fn a_workflow_run_shows_annotations_and_a_summary() {
    let stage = broken();
    let mut command = with_kustomize(&stage, &["check", "--format", "github"]);
    let done =
        Done::from(command.env("GITHUB_STEP_SUMMARY", stage.path("summary.md")).output().unwrap()).expect(1, &[]);
    assert!(done.stdout.lines().all(|line| line.starts_with("::error ")), "{}", done.stdout);
    let summary = std::fs::read_to_string(stage.path("summary.md")).unwrap();
    assert!(summary.starts_with("### ✗ cargo xtask check\n"), "{summary}");
    assert!(summary.contains("| app-revision | `argocd/apps/dex.yaml:11:21` |"), "{summary}");
}

/// A verification in CI: a document that readers of JUnit take, and the points in the summary of the step.
#[test]
fn a_verification_is_shown_in_a_workflow() {
    let health = crate::health::Health::new();
    for (deployments, code) in [(None, 0), (Some("{\"items\": []}"), 1)] {
        if let Some(deployments) = deployments {
            health.answer("deployments.apps", deployments);
        }
        let mut command = health.command(&["verify", "one", "--services", "runner", "--format", "junit"]);
        let summary = health.stage.path(&format!("summary-{code}.md"));
        let done = Done::from(command.env("GITHUB_STEP_SUMMARY", &summary).output().unwrap()).expect(code, &[]);
        let file = health.stage.path("verify.xml");
        std::fs::write(&file, &done.stdout).unwrap();
        run(Command::new("xmllint").args(["--noout", "--schema", &schema("junit-10.xsd")]).arg(&file));
        assert_eq!(done.stdout.contains("<failure"), code == 1, "{}", done.stdout);
        let summary = std::fs::read_to_string(summary).unwrap();
        let tick = if code == 0 { "x" } else { " " };
        assert!(summary.contains(&format!("- [{tick}] **3. Pods running and ready**")), "{summary}");
    }
    let workflow = Stage::of_this_repository().read(".forgejo/workflows/verify.yaml");
    assert!(workflow.contains("on: workflow_dispatch") && workflow.contains("cargo xtask verify authentik"));
}

/// A disk without room takes the evidence, not the verdict.
#[test]
fn what_cannot_be_kept_is_shown_all_the_same() {
    let health = crate::health::Health::new();
    let program = health.command(&[]).get_program().to_str().unwrap().to_owned();
    let mut command = health.stage.command("sh");
    // No file may grow: what a full disk says of a write, this says too.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" verify one --services runner --record=evidence.md 2>&1";
    command.args(["-c", script, &program]).env("ANSWERS", health.stage.path("answers"));
    // Where the stand-ins would write down how they were called.
    health.stage.program(
        "ssh",
        "printf '@@ systemd runner.service\\nLoadState=loaded\\nActiveState=active\\nSubState=running\\n@@ end -\\n'",
    );
    health.stage.program(
        "kubectl",
        "for word in \"$@\"; do [ -f \"$ANSWERS/$word\" ] && exec cat \"$ANSWERS/$word\"; done; echo '{\"items\": []}'",
    );
    let done = Done::from(command.env("PATH", health.stage.shadowed_path()).output().unwrap());
    assert_eq!(done.code, Some(2), "{}", done.stdout);
    for words in ["the evidence is not kept", "✓ 3. Pods running and ready", "points passed"] {
        assert!(done.stdout.contains(words), "no «{words}» in {}", done.stdout);
    }
    assert!(!health.stage.clone_folder().join("evidence.md").exists());
}

/// The keys of a value, each with the path to it; the items of a list are one.
fn keys(value: &Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.insert(path.clone());
                keys(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

/// What a command gives is what the page tells of it, key by key.
pub(crate) fn assert_documented(command: &str, result: &Value) {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/json.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut given = std::collections::BTreeSet::new();
    keys(result, "", &mut given);
    let section = page.split("\n## ").find(|part| part.starts_with(&format!("`{command}`\n")));
    let section = section.unwrap_or_else(|| panic!("docs/reference/json.md has no section `{command}`"));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: std::collections::BTreeSet<String> = rows.map(str::to_owned).collect();
    // Values of objects and what may be null can hold more than this run has.
    let extra = ["other.", "place."];
    let optional = |key: &&String| extra.iter().any(|part| key.contains(part));
    let missing: Vec<_> = given.difference(&told).collect();
    let invented: Vec<_> = told.difference(&given).filter(|key| !optional(key)).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{command}: not documented {missing:?}, not there {invented:?}");
}

#[test]
fn every_key_of_the_json_is_documented_and_the_other_way_round() {
    let stage = broken();
    let path = "argocd/manifests/dex/deployment.yaml";
    stage.write(path, &stage.read(path).replace("memory: 128Mi", "memory: 256Mi"));
    let path = "argocd/manifests/authentik/service-redis.yaml";
    stage.write(path, &stage.read(path).replace("targetPort: redis", "targetPort: reddis"));
    for (command, args) in [
        ("check", &["check"][..]),
        ("check --fix --dry-run", &["check", "--fix", "--dry-run"]),
        ("diff", &["diff"]),
        ("render", &["render", "dex"]),
        ("refs", &["refs", "ringtail"]),
        ("graph", &["graph", "dex"]),
        ("parity", &["parity", "authentik", "--chart", "xtask/stand-ins/chart/authentik"]),
        ("plan", &["plan", "authentik", "--offline"]),
        ("report", &["report"]),
    ] {
        let output = check(&stage, &[args, &["--format", "json"]].concat()).stdout;
        let value: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{command}: {output}"));
        assert_documented(command, &value["result"]);
    }
}
