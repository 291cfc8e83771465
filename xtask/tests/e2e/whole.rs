//! The whole plan on a real Kubernetes: green, red where something is broken, and nothing left of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::around::tool;
use crate::checks::with_kustomize;
use crate::stage::{Done, Stage, kill, run};

/// One at a time: each looks for what a rehearsal leaves on the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Links, rules, mounts and control groups of this machine that can only be a cluster rehearsal's.
fn traces() -> Vec<String> {
    let lines = |text: String, marks: &[&str]| -> Vec<String> {
        text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
    };
    let mut traces = lines(run(Command::new("ip").args(["-brief", "link"])), &["node0", "pods0"]);
    traces
        .extend(lines(run(Command::new("iptables").args(["--table", "nat", "--list-rules"])), &["KUBE", "100.99.0."]));
    traces.extend(lines(std::fs::read_to_string("/proc/mounts").unwrap(), &["/kubelet/", "/sysctl/"]));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for entry in std::fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            traces.extend(name.starts_with("blumeops-rehearsal-").then_some(name));
        }
    }
    traces
}

fn rehearsals(stage: &Stage) -> usize {
    let entries = std::fs::read_dir(stage.path("")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("blumeops-rehearsal-")).count()
}

#[test]
fn eight_points_are_green_a_dropped_role_is_red_and_nothing_is_left() {
    let stage = Stage::of_this_repository();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output =
        stage.xtask(&["rehearse", "authentik", "--only", "role-dropped", "--format", "json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let points = value["result"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 8);
    for point in points {
        assert_eq!(point["state"], "passed", "{point}");
    }
    let broken = &value["result"]["breakages"][0];
    assert_eq!((broken["breakage"].as_str(), broken["red"][0].as_u64()), (Some("role-dropped"), Some(2)));
    assert!(said.contains("--kubeconfig="), "{said}");
    // Nothing of the plan is left open, or out of what a stage has.
    let plan = value["result"]["plan"].as_array().unwrap();
    let ends: Vec<&Value> = plan.iter().filter(|asked| asked["at"] == "end").collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| end["done"] == end["count"]), "{plan:?}");
    assert!(plan[0]["done"].as_u64() < plan[1]["done"].as_u64() && plan[1]["done"] != plan[1]["count"], "{plan:?}");
    assert_eq!((traces(), rehearsals(&stage)), (vec![], 0));
    stage.assert_nothing_runs();
}

#[test]
fn killed_with_a_cluster_nothing_runs_on_and_the_next_removes_the_rest() {
    let stage = Stage::of_this_repository();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for signal in ["KILL", "INT"] {
        let log = stage.path("rehearsal.log");
        let mut rehearse = stage.xtask(&["rehearse", "authentik", "--only", "none"]);
        rehearse.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null());
        let mut child = rehearse.spawn().unwrap();
        wait_for(&log, "one node ready");
        let killed = Instant::now();
        kill(signal, child.id());
        child.wait().unwrap();
        assert!(signal == "KILL" || killed.elapsed() < Duration::from_secs(5), "it took {:?}", killed.elapsed());
        stage.assert_nothing_runs();
        stage.run(&["rehearse", "redis", "--without-cluster"]).expect(0, &[]);
        assert_eq!((traces(), rehearsals(&stage)), (vec![], 0), "{signal}");
    }
}

#[test]
fn a_real_api_server_says_what_applying_would_change() {
    let stage = Stage::of_this_repository();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let log = stage.path("rehearsal.log");
    let mut rehearse = stage.xtask(&["rehearse", "authentik", "--only", "none", "--hold"]);
    rehearse.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null());
    let mut child = rehearse.spawn().unwrap();
    wait_for(&log, "held until Ctrl-C");
    let folder = shown_folder(&log);
    let result = std::panic::catch_unwind(|| live(&stage, &folder));
    kill("INT", child.id());
    let status = child.wait().unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(status.code(), Some(130));
    assert_eq!((traces(), rehearsals(&stage)), (vec![], 0));
    stage.assert_nothing_runs();
}

/// Where the printed kubeconfig is.
fn shown_folder(log: &Path) -> PathBuf {
    let said = std::fs::read_to_string(log).unwrap();
    let config = said.split("--kubeconfig=").nth(1).expect("it is printed").split(' ').next().unwrap();
    Path::new(config).parent().unwrap().to_owned()
}

/// Asks the cluster of the rehearsal in `folder`, with the clone that was applied to it.
fn live(stage: &Stage, folder: &Path) {
    let config = folder.join("kubeconfig-outside");
    let clone = stage.path("applied");
    run(Command::new("cp").arg("-a").arg(folder.join("clone")).arg(&clone));
    let service = clone.join("argocd/manifests/authentik/service-server.yaml");
    let original = std::fs::read_to_string(&service).unwrap();
    let diff = |config: &Path, args: &[&str]| -> Done {
        let mut command =
            with_kustomize(stage, &[&["diff", "--live", "--root", clone.to_str().unwrap()][..], args].concat());
        command.env("KUBECONFIG", config).output().unwrap().into()
    };
    let authentik = |code: i32, words: &[&str]| diff(&config, &["--app", "authentik"]).expect(code, words);
    let kubectl = |args: &[&str]| {
        run(Command::new(tool("kubectl")).arg("--kubeconfig").arg(&config).args(["--context=k3s-ringtail"]).args(args))
    };
    assert_eq!(authentik(0, &[]).stdout, "nothing changes in any cluster\n");

    // What ArgoCD's own way of applying has set is seen to go, and nothing is applied by asking.
    kubectl(&["--namespace=authentik", "delete", "service", "authentik"]);
    kubectl(&["--namespace=authentik", "apply", "--field-manager=argocd-controller", "-f", service.to_str().unwrap()]);
    let metrics = "    - name: metrics\n      port: 9300\n      targetPort: metrics\n";
    assert!(original.contains(metrics));
    std::fs::write(&service, original.replace(metrics, "")).unwrap();
    let lost = authentik(0, &[]).stdout;
    let has = |text: &str, words: &[&str]| words.iter().all(|word| text.contains(word));
    assert!(lost.lines().count() == 2 && has(&lost, &["spec.ports[metrics]", "(lost)"]), "{lost}");
    assert_eq!(authentik(0, &[]).stdout, lost);

    // One that is refused and one of a kind that nobody knows leave the others compared.
    kubectl(&["--namespace=authentik", "scale", "deployment/redis", "--replicas=0"]);
    std::fs::write(&service, original.replace("port: 80\n", "port: 99999\n")).unwrap();
    let kustomization = clone.join("argocd/manifests/authentik/kustomization.yaml");
    let text = std::fs::read_to_string(&kustomization).unwrap();
    std::fs::write(&kustomization, text.replacen("resources:\n", "resources:\n  - foo.yaml\n", 1)).unwrap();
    std::fs::write(
        kustomization.with_file_name("foo.yaml"),
        "apiVersion: foo.example/v1\nkind: Foo\nmetadata: {name: a}\n",
    )
    .unwrap();
    let done = authentik(2, &["refuses it", "Invalid value: 99999", "1 of kind Foo"]);
    assert!(done.stdout.contains("spec.replicas: 0 → 1"), "{}", done.stdout);
    std::fs::write(&kustomization, text).unwrap();
    std::fs::write(&service, original).unwrap();

    // A namespace that is not there, and credentials that may see Services alone.
    diff(&config, &["--app", "dex"]).expect(2, &["the namespace is not there yet", "nothing was compared"]);
    kubectl(&["create", "serviceaccount", "weak", "--namespace=default"]);
    let may = ["--verb=get,list,patch,create", "--resource=services"];
    kubectl(&[&["create", "clusterrole", "weak"], &may[..]].concat());
    kubectl(&["create", "clusterrolebinding", "weak", "--clusterrole=weak", "--serviceaccount=default:weak"]);
    let token = kubectl(&["create", "token", "weak", "--namespace=default"]);
    let weak = stage.path("weak");
    std::fs::copy(&config, &weak).unwrap();
    let mut set = Command::new(tool("kubectl"));
    run(set.arg("--kubeconfig").arg(&weak).args(["config", "set-credentials", "admin", "--token", token.trim()]));
    let done = diff(&weak, &["--app", "authentik", "--format", "json"]).expect(2, &["may not do that", "more)"]);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["result"]["objects"], 3, "{}", done.stdout);
}

fn wait_for(log: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !std::fs::read_to_string(log).unwrap_or_default().contains(text) {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline && !said.contains("error:"), "{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
