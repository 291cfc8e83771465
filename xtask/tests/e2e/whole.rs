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
fn in_a_cluster_that_somebody_has_all_is_green_or_red_as_it_should_be_and_nothing_is_left() {
    let stage = Stage::of_this_repository();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    held(&stage, &["--empty"], |folder, _| somebodys(&stage, folder));
}

/// Uses the empty cluster that another rehearsal in `folder` holds.
fn somebodys(stage: &Stage, folder: &Path) {
    let config = stage.path("home/.kube/config");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    let text = std::fs::read_to_string(folder.join("kubeconfig-outside")).unwrap().replace("k3s-ringtail", "mine");
    std::fs::write(&config, &text).unwrap();
    let mine = |more: &[&str]| stage.xtask(&[&["rehearse", "authentik", "--cluster", "mine"], more].concat());
    let tried = |more: &[&str]| -> Done { mine(more).output().unwrap().into() };
    tried(&[]).expect(1, &["so does production's minikube-indri", "nothing was asked"]);
    let own = text.lines().filter(|line| !line.contains("{name: minikube-indri"));
    let own: String = own.flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&config, own.replace("current-context: minikube-indri", "current-context: mine")).unwrap();
    let kubectl = |args: &[&str]| run(Command::new(tool("kubectl")).arg("--kubeconfig").arg(&config).args(args));
    let all = || kubectl(&["get", "namespaces,customresourcedefinitions", "--output=name"]);
    let before = all();

    // Everything that is in the way is said, and nothing is made before somebody agrees.
    kubectl(&["create", "namespace", "databases"]);
    tried(&["--yes"]).expect(1, &["namespace databases already", "no default StorageClass"]);
    kubectl(&["delete", "namespace", "databases"]);
    join(stage, folder, &kubectl);
    tried(&[]).expect(2, &["nobody is there to be asked", "the namespaces argocd, authentik,"]);
    let dry = tried(&["--dry-run"]).expect(0, &[]).stdout;
    assert!(["# borrowed", "# database", "# removed"].iter().all(|part| dry.contains(part)), "{dry}");
    assert_eq!(all(), before);

    // Ctrl-C has it all removed, and what a killed one left is removed by the next.
    let log = stage.path("somebodys.log");
    for (signal, code) in [("INT", Some(130)), ("KILL", None)] {
        let mut child = mine(&["--yes"]).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        wait_for(&log, "its nodes fetch images at 127.0.0.1:");
        kill(signal, child.id());
        assert_eq!(child.wait().unwrap().code(), code);
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(signal == "KILL" || said.contains("removes by itself what was made in it"), "{said}");
    }
    let done = tried(&["--yes", "--only", "role-dropped", "--format", "json"]);
    let done = done.expect(0, &["of a rehearsal that was killed are gone", "nothing of the rehearsal is left in mine"]);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    let points = value["result"]["points"].as_array().unwrap();
    assert!(points.len() == 8 && points.iter().all(|point| point["state"] == "passed"), "{points:?}");
    let broken = &value["result"]["breakages"][0];
    assert_eq!((broken["breakage"].as_str(), broken["red"][0].as_u64()), (Some("role-dropped"), Some(2)));
    // Nothing of the plan is left open, or out of what a stage has.
    let plan = value["result"]["plan"].as_array().unwrap();
    let ends: Vec<&Value> = plan.iter().filter(|asked| asked["at"] == "end").collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| end["done"] == end["count"]), "{plan:?}");
    assert!(plan[0]["done"].as_u64() < plan[1]["done"].as_u64() && plan[1]["done"] != plan[1]["count"], "{plan:?}");
    assert_eq!(all(), before);
}

/// As with kind or minikube: a link of this machine's leads to the node, and claims get volumes.
fn join(stage: &Stage, folder: &Path, kubectl: &dyn Fn(&[&str]) -> String) {
    let has = |path: PathBuf, text: &str| std::fs::read_to_string(path).unwrap_or_default().contains(text);
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut servers = entries.filter(|entry| {
        has(entry.path().join("comm"), "kube-apiserver") && has(entry.path().join("cmdline"), folder.to_str().unwrap())
    });
    let server = servers.next().expect("the API server runs").file_name().into_string().unwrap();
    for line in [
        format!("ip link add rehearsal-out type veth peer name rehearsal-in netns {server}"),
        "ip address add 172.31.255.1/30 dev rehearsal-out".to_owned(),
        "ip link set rehearsal-out up".to_owned(),
        format!("nsenter --target {server} --net ip address add 172.31.255.2/30 dev rehearsal-in"),
        format!("nsenter --target {server} --net ip link set rehearsal-in up"),
        "ip route add 100.99.0.2/32 via 172.31.255.2".to_owned(),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        run(Command::new(words[0]).args(&words[1..]));
    }
    let volume = stage.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let objects = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
            "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "one"},
            "spec": {
                "storageClassName": "standard", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": volume},
            },
        },
    ]});
    std::fs::write(stage.path("volume.json"), objects.to_string()).unwrap();
    kubectl(&["apply", "--filename", stage.path("volume.json").to_str().unwrap()]);
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
    held(&stage, &["--only", "role-dropped"], |folder, said| {
        assert!(said.contains(" 8 points passed") && said.contains("role-dropped: points 2, "), "{said}");
        live(&stage, folder);
    });
}

/// Does something while a rehearsal holds its cluster, and ends that.
fn held(stage: &Stage, how: &[&str], work: impl FnOnce(&Path, &str) + std::panic::UnwindSafe) {
    let log = stage.path("rehearsal.log");
    let mut rehearse = stage.xtask(&[&["rehearse", "authentik", "--hold"], how].concat());
    rehearse.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null());
    let mut child = rehearse.spawn().unwrap();
    wait_for(&log, "held until Ctrl-C");
    let said = std::fs::read_to_string(&log).unwrap();
    let folder = shown_folder(&log);
    let result = std::panic::catch_unwind(|| work(&folder, &said));
    let interrupted = Instant::now();
    kill("INT", child.id());
    let status = child.wait().unwrap();
    let took = interrupted.elapsed();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    // Within a second on a machine that is not busy.
    assert!(status.code() == Some(130) && took < Duration::from_secs(5), "{status} after {took:?}");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(rehearsals(stage) == 0 || said.contains("the next rehearsal removes it"), "{said}");
    assert_eq!(traces(), Vec::<String>::new());
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
