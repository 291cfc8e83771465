//! plan and apply: states that move as things are done, and back when one is undone.

use serde_json::Value;

use crate::stage::Stage;

const PAGE: &str = "docs/how-to/plans/deploy-authentik.md";

/// What a plan says of each of its steps: name and state.
fn states(stage: &Stage, args: &[&str]) -> Vec<(String, String)> {
    let done = stage.run(&[&["plan", "authentik", "--format", "json"], args].concat());
    let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    let plan = &value["result"]["plans"][0];
    let phases = plan["phases"].as_array().unwrap().iter();
    let steps = phases.flat_map(|phase| phase["steps"].as_array().unwrap());
    steps.map(|step| (step["step"].as_str().unwrap().to_owned(), step["state"].as_str().unwrap().to_owned())).collect()
}

/// The steps whose state is another than it was, with what it is now.
fn moved(before: &[(String, String)], after: &[(String, String)]) -> Vec<String> {
    let steps = after.iter().filter(|step| !before.contains(step));
    steps.map(|(step, state)| format!("{step}: {state}")).collect()
}

/// The page in the repository is the one that the command writes: `cargo xtask plan authentik --write`.
#[test]
fn the_page_of_the_plan_is_up_to_date() {
    let stage = Stage::of_this_repository();
    let written = stage.read(PAGE);
    let done = stage.run(&["plan", "authentik", "--write", "--dry-run"]);
    assert_eq!(
        done.code,
        Some(0),
        "{PAGE} is stale: cargo xtask plan authentik --write\n{}{}",
        done.stdout,
        done.stderr
    );
    assert!(written.matches("| done |").count() > 10, "{written}");
    let index = "docs/reference/services/services.md";
    stage.write(index, &stage.read(index).replace("[[authentik]]", "Authentik"));
    let old = stage.run(&["plan", "authentik", "--write", "--dry-run"]).expect(1, &[]);
    assert!(old.stdout.contains("+| page-services | services speaks of it | to do: "), "{}", old.stdout);
    assert_eq!(stage.read(PAGE), written);
    stage.run(&["plan", "authentik", "--write"]).expect(0, &[]);
    assert_ne!(stage.read(PAGE), written);
    stage.run(&["plan", "authentik", "--write", "--dry-run"]).expect(0, &[]);
}

#[test]
fn what_the_checkout_tells_moves_with_its_files() {
    let stage = Stage::of_this_repository();
    let whole = states(&stage, &["--offline"]);
    let without = |path: &str, from: &str, to: &str| {
        let text = stage.read(path);
        assert!(text.contains(from), "{path} has no {from}");
        stage.write(path, &text.replace(from, to));
        let seen = moved(&whole, &states(&stage, &["--offline"]));
        stage.write(path, &text);
        seen
    };
    let pg = "argocd/manifests/databases/blumeops-pg.yaml";
    assert_eq!(without(pg, "- name: authentik", "- name: authentic"), ["role: to do"]);
    let caddy = "ansible/roles/caddy/defaults/main.yml";
    let entry = stage.read(caddy).lines().find(|line| line.contains("name: authentik,")).unwrap().to_owned();
    assert_eq!(without(caddy, &entry, ""), ["caddy: to do"]);
    let alloy = "argocd/manifests/alloy-ringtail/config.alloy";
    assert_eq!(without(alloy, "authentik.svc.cluster.local:9300", "nowhere.svc.cluster.local:9300"), ["scrape: to do"]);
    let board = "argocd/manifests/grafana-config/dashboards/authentik.yaml";
    assert_eq!(without(board, "grafana_dashboard", "grafana_board"), ["dashboard: to do"]);
    assert_eq!(states(&stage, &["--offline"]), whole);
}
