//! plan and apply: states that move as things are done, and back when one is undone.

use std::process::Command;

use serde_json::Value;

use crate::reports::assert_documented;
use crate::stage::{Done, Stage};
use crate::stand_ins::StandIn;

const PAGE: &str = "docs/how-to/plans/deploy-authentik.md";

/// What a plan says of each of its steps: name and state.
fn states(stage: &Stage, args: &[&str]) -> Vec<(String, String)> {
    steps(&stage.run(&[&["plan", "authentik", "--format", "json"], args].concat()))
}

fn steps(done: &Done) -> Vec<(String, String)> {
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

/// Everything of Authentik, phase by phase. A whole folder or file of the repository is enough: it stands for its phase.
const FILES: [(&str, &[&str]); 6] = [
    ("the chart is compared", &["xtask/parity"]),
    (
        "the database is in the manifests",
        &["argocd/apps/databases.yaml", "argocd/manifests/databases", "ansible/roles/borgmatic"],
    ),
    ("the images have expressions", &["containers/authentik", "containers/redis"]),
    ("an Application deploys it", &["argocd/apps/authentik.yaml", "argocd/manifests/authentik"]),
    (
        "Caddy leads to it, and it is scraped",
        &["ansible/roles/caddy", "argocd/manifests/alloy-ringtail", "argocd/manifests/grafana-config"],
    ),
    (
        "the pages speak of it",
        &["docs/reference/services", "docs/explanation", "docs/how-to/plans/plans.md", "docs/changelog.d"],
    ),
];

/// The repository, where nothing has the name of anything real, with a forge that mirrors and a vault.
struct Planned {
    stage: Stage,
    forge: StandIn,
}

impl Planned {
    fn new() -> Self {
        let stage = Stage::of_this_repository();
        for name in
            stage.git(&["ls-files"]).lines().filter(|name| !name.starts_with("xtask/s") && !name.starts_with("xtask/t"))
        {
            let Ok(text) = std::fs::read_to_string(stage.clone_folder().join(name)) else { continue };
            stage.write(
                name,
                &text.replace("ops.eblu.me", "ops.invalid").replace("tail8d86e.ts.net", "tailnet.invalid"),
            );
        }
        stage.commit_and_push("names that nobody has");
        stage.vault(&["bootstrap-password", "db-password", "secret-key"]);
        stage.program("helm", "echo 'no network' >&2; exit 1");
        stage.program("kubectl", "echo 'error: no cluster here' >&2; exit 1");
        let forge = StandIn::serve(|path| {
            let mirror = r#"{"mirror":true,"mirror_interval":"8h0m0s","mirror_updated":"2999-01-01T00:00:00Z"}"#;
            if path.contains("/actions/runs") {
                return (200, r#"{"workflow_runs":[]}"#.to_owned());
            }
            if path.starts_with("/api/v1/repos/eblume/") { (200, mirror.to_owned()) } else { (404, String::new()) }
        });
        Self { stage, forge }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stage.xtask(args);
        command.env("PATH", self.stage.shadowed_path()).env("BLUMEOPS_FORGE_URL", &self.forge.url);
        command
    }

    /// Every step with its state.
    fn states(&self) -> Vec<(String, String)> {
        steps(&self.command(&["plan", "authentik", "--format", "json"]).output().unwrap().into())
    }

    fn apply(&self, args: &[&str]) -> Done {
        self.command(&[&["apply"], args].concat()).output().unwrap().into()
    }

    /// `apply`, while the forge's runner builds what is tagged.
    fn apply_with_runner(&self, args: &[&str]) -> Done {
        let mut apply = self.command(&[&["apply"], args].concat());
        let waiting = std::thread::spawn(move || apply.output().unwrap());
        let mut built = Vec::new();
        while !waiting.is_finished() {
            for tag in self.stage.forge(&["tag", "--list"]).lines().map(str::to_owned) {
                if !built.contains(&tag) {
                    self.stage.publish(&tag).expect(0, &[]);
                    built.push(tag);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        waiting.join().unwrap().into()
    }
}

fn done(states: &[(String, String)]) -> Vec<&str> {
    states.iter().filter(|(_, state)| state == "done").map(|(step, _)| step.as_str()).collect()
}

#[test]
fn a_plan_goes_from_nothing_done_to_done_and_back_when_one_thing_is_undone() {
    let planned = Planned::new();
    let stage = &planned.stage;
    let whole = stage.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let paths: Vec<&str> = FILES.iter().flat_map(|(_, paths)| paths.iter().copied()).collect();
    stage.git(&[&["rm", "-r", "--quiet"], paths.as_slice()].concat());
    stage.commit_and_push("nothing of it is there yet");
    let mut before = planned.states();
    // That nothing differs from main is as true of nothing.
    assert_eq!(done(&before), ["merged"]);
    for (what, paths) in FILES {
        stage.git(&[&["checkout", "--quiet", &whole, "--"], paths].concat());
        stage.commit_and_push(what);
        let after = planned.states();
        let more: Vec<&str> = done(&after).into_iter().filter(|step| !done(&before).contains(step)).collect();
        let lost: Vec<&str> = done(&before).into_iter().filter(|step| !done(&after).contains(step)).collect();
        assert!(!more.is_empty() && lost.is_empty(), "{what}: {more:?} {lost:?}");
        before = after;
    }
    released_and_merged(&planned);
    undone(&planned);
}

/// What apply may do it does, and then it stops at what is a person's.
fn released_and_merged(planned: &Planned) {
    let stage = &planned.stage;
    let before = stage.state();
    let dry = planned.apply(&["--dry-run"]).expect(0, &[]).stdout;
    assert!(dry.contains("cargo xtask release authentik --commit\ncargo xtask release redis --commit"), "{dry}");
    assert!(!dry.contains("deploy"), "{dry}");
    planned.apply(&["networking"]).expect(1, &[]);
    planned.apply(&["--accept", "nonsense"]).expect(2, &["has no step nonsense"]);
    assert_eq!(stage.state(), before);
    let json = planned.apply_with_runner(&["--next", "--format", "json"]).expect(0, &["→ tag-authentik: "]).stdout;
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_documented("apply", &value["result"]);
    assert_eq!(value["result"]["did"][0], "tag-authentik");
    let rest = planned.apply_with_runner(&[]).expect(1, &["cargo xtask release redis --commit"]).stdout;
    assert!(
        rest.starts_with("done: tag-redis\n") && rest.contains("yours: merged: commit, push and merge it"),
        "{rest}"
    );
    stage.assert_nothing_runs();
    stage.git(&["push", "--quiet", "origin", "HEAD:main"]);
    let states = planned.states();
    let open: Vec<&str> = states.iter().filter(|(_, state)| state != "done").map(|(step, _)| step.as_str()).collect();
    // No cluster, no tailnet and no chart is here, and Grafana still logs in through Dex.
    let outside =
        ["parity", "database-there", "synced", "secrets", "pods", "in-tailnet", "through-caddy", "scraped", "verified"];
    assert_eq!(open, [&outside[..], &["clients", "replaced"]].concat());
    assert!(
        states.iter().filter(|(step, _)| outside.contains(&step.as_str())).all(|(_, state)| state == "cannot tell")
    );
}

/// One thing at a time is undone: its step is to do again, and all is as it was once it is mended.
fn undone(planned: &Planned) {
    let stage = &planned.stage;
    let whole = planned.states();
    let back = |undo: &dyn Fn(), mend: &dyn Fn()| {
        undo();
        let seen = moved(&whole, &planned.states());
        mend();
        assert_eq!(planned.states(), whole);
        seen
    };
    let tag = "refs/tags/authentik-v1.0.0";
    let no_tag = back(&|| drop(stage.forge(&["update-ref", "-d", tag])), &|| {
        drop(stage.git(&["push", "--quiet", "origin", tag]));
    });
    assert_eq!(no_tag, ["tag-authentik: to do"]);
    let unpinned = "argocd/manifests/authentik/kustomization.yaml";
    let pinned = stage.read(unpinned);
    let no_pin = back(
        &|| stage.write(unpinned, &pinned.replacen("newTag", "# newTag", 1).replacen("digest", "# digest", 1)),
        &|| stage.write(unpinned, &pinned),
    );
    assert_eq!(no_pin, ["pin-authentik: to do", "merged: blocked"]);
    let no_field = back(&|| stage.vault(&["bootstrap-password", "secret-key"]), &|| {
        stage.vault(&["bootstrap-password", "db-password", "secret-key"]);
    });
    assert_eq!(no_field, ["item-authentik-blumeops: to do"]);
    let caddy = "ansible/roles/caddy/defaults/main.yml";
    let (all, entry) = (stage.read(caddy), stage.read(caddy));
    let entry = entry.lines().find(|line| line.contains("name: authentik,")).unwrap();
    let no_entry = back(&|| stage.write(caddy, &all.replace(&format!("{entry}\n"), "")), &|| {
        // What is missing is added by apply, as it was.
        planned.apply(&["--next"]).expect(0, &["→ caddy: Caddy leads to it", "+  - {name: authentik, "]);
    });
    assert_eq!(
        no_entry,
        ["merged: blocked", "caddy: to do", "through-caddy: blocked", "verified: blocked", "clients: blocked"]
    );
    assert_eq!(stage.read(caddy), all);
}
