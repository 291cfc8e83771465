//! The whole plan on a real Kubernetes: green, red where something is broken, and nothing left of it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{Stage, kill, run};

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

fn wait_for(log: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !std::fs::read_to_string(log).unwrap_or_default().contains(text) {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline && !said.contains("error:"), "{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
