//! Images in a real container engine: green for ours, red with the right reason for each thing that can be wrong.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rehearsal::Postgres;
use crate::stage::{Done, Stage, free_port, kill, run};

/// One image and one workload; what differs stands in capitals.
const REPOSITORY: &str = r#"
//- containers/tiny/default.nix
{ pkgs ? import <nixpkgs> { } }:
let
  setpriv = derivation {
    name = "setpriv-stand-in";
    system = builtins.currentSystem;
    builder = "/bin/bash";
    PATH = "/usr/bin:/bin";
    files = "/usr/bin/setpriv";
    patchelf = "/usr/bin/patchelf";
    args = [ "-euo" "pipefail" "-c" (builtins.readFile <nixpkgs/import.sh>) ];
  };
in
pkgs.dockerTools.buildLayeredImage {
  name = "blumeops/tiny";
  tag = "latest";
  contents = [ pkgs.redis pkgs.bash pkgs.coreutils setpriv pkgs.dockerTools.fakeNss ];
  extraCommands = "mkdir data";
  config = { Env = [ "PATH=/bin" ]; IMAGE; };
}
//- argocd/apps/one.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: one, namespace: argocd}
spec:
  source: {repoURL: x, path: argocd/manifests/one, targetRevision: main}
  destination: {server: "https://ringtail.example:6443", namespace: one}
//- argocd/manifests/one/kustomization.yaml
resources: [deployment.yaml]
images: [{name: registry.example/blumeops/tiny}]
//- argocd/manifests/one/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: tiny}
spec:
  selector: {matchLabels: {app: tiny}}
  template:
    metadata: {labels: {app: tiny}}
    spec:
      POD
      containers:
        - name: it
          image: registry.example/blumeops/tiny:kustomized
          CONTAINER
//- xtask/blumeops.toml
[registry]
host = "registry.example"
namespace = "blumeops"
"#;

const REDIS: &str =
    r#"Entrypoint = [ "/bin/redis-server" "--save" "" ]; User = "65534"; ExposedPorts = { "6379/tcp" = { }; }"#;

/// A stage with an engine of its own.
struct Smoke {
    stage: Stage,
}

impl Smoke {
    fn new(stage: Stage) -> Self {
        let folder = |name: &str| stage.path(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            folder("engine"),
            folder("engine-run")
        );
        std::fs::write(stage.path("storage.conf"), storage).unwrap();
        // What engines share else, one that is reset takes from the others: they think that the machine was restarted.
        let engine = format!("[engine]\ntmp_dir = \"{}\"\ncgroup_manager = \"cgroupfs\"\n", folder("engine-tmp"));
        std::fs::write(stage.path("containers.conf"), engine).unwrap();
        Self { stage }
    }

    fn of(image: &str, pod: &str, container: &str) -> Self {
        let files = REPOSITORY.replace("IMAGE", image).replace("POD", pod).replace("CONTAINER", container);
        Self::new(Stage::of(&files))
    }

    fn command(&self, args: &[&str]) -> Command {
        self.with_engine(self.stage.xtask(args))
    }

    fn with_engine(&self, mut command: Command) -> Command {
        for (name, file) in [("CONTAINERS_STORAGE_CONF", "storage.conf"), ("CONTAINERS_CONF", "containers.conf")] {
            command.env(name, self.stage.path(file));
        }
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    fn podman(&self, args: &[&str]) -> String {
        run(self.with_engine(self.stage.command("podman")).args(args))
    }

    /// Neither container nor image nor folder of a run is left.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        assert_eq!(self.podman(&["ps", "--all", "--quiet"]), "");
        assert_eq!(self.podman(&["images", "--quiet"]), "");
        assert_eq!(self.folders(), Vec::<String>::new());
    }

    fn folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.stage.path("")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("blumeops-smoke-")).collect()
    }

    /// The names of the checks that fail, each with what was seen.
    #[track_caller]
    fn failures(&self, args: &[&str]) -> Vec<(String, String)> {
        let done = self.run(&[&["smoke", "--format", "json"], args].concat());
        assert!(matches!(done.code, Some(0 | 1)), "{}", done.stderr);
        self.assert_nothing_is_left();
        let value: Value = serde_json::from_str(&done.stdout).unwrap();
        let checks = value["result"]["checks"].as_array().unwrap();
        let failed = checks.iter().filter(|check| check["state"] == "failed");
        let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
        let failed: Vec<_> = failed.map(|check| (text(check, "name"), text(check, "seen"))).collect();
        assert_eq!(done.code, Some(i32::from(!failed.is_empty())));
        failed
    }

    /// Exactly one check fails, for this reason.
    #[track_caller]
    fn fails(&self, args: &[&str], name: &str, why: &str) {
        let failed = self.failures(args);
        assert!(failed.len() == 1 && failed[0].0 == name && failed[0].1.contains(why), "{failed:?}");
    }
}

impl Drop for Smoke {
    fn drop(&mut self) {
        let mut podman = self.with_engine(self.stage.command("podman"));
        drop(podman.args(["rm", "--all", "--force", "--time", "0"]).output());
    }
}

#[test]
fn our_images_start_as_their_manifests_say() {
    let smoke = Smoke::new(Stage::of_this_repository());
    let done = smoke.run(&["smoke", "redis"]).expect(0, &[]);
    assert!(done.stdout.contains("8 checks passed in"), "{}", done.stdout);
    smoke.assert_nothing_is_left();
    // PostgreSQL and Redis are not there: what waits for them is said, and does not count as failed.
    let done =
        smoke.run(&["smoke", "authentik"]).expect(0, &["pg.ops.eblu.me (AUTHENTIK_POSTGRESQL__HOST) is not here"]);
    for words in ["deployment/authentik-server  11", "deployment/authentik-worker  11", "18 checks passed, 4 waived"] {
        assert!(done.stdout.contains(words), "{words} in {}", done.stdout);
    }
    smoke.assert_nothing_is_left();
    let done = smoke.run(&["smoke", "authentik", "--workload", "authentik-worker", "--format", "junit"]).expect(0, &[]);
    assert!(
        done.stdout.contains("name=\"worker writes /media\"") && done.stdout.contains("skipped=\"3\""),
        "{}",
        done.stdout
    );
    smoke.run(&["smoke", "redis", "--workload", "deployment/rediss"]).expect(1, &["did you mean `deployment/redis`?"]);
}

/// A program that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn with_its_services_all_of_authentik_is_green() {
    let smoke = Smoke::new(Stage::of_this_repository());
    let database = Postgres::start_at("0.0.0.0");
    database.sql("create database authentik");
    let port = free_port().to_string();
    let mut redis = Command::new("redis-server");
    redis.args(["--port", &port, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]).stdout(Stdio::null());
    let _redis = Running(redis.current_dir(smoke.stage.path("")).spawn().expect("redis-server: cargo xtask setup"));
    let gateway = smoke.podman(&["network", "inspect", "podman", "--format", "{{range .Subnets}}{{.Gateway}}{{end}}"]);
    let settings = [
        format!("AUTHENTIK_POSTGRESQL__HOST={}", gateway.trim()),
        format!("AUTHENTIK_POSTGRESQL__PORT={}", database.port),
        "AUTHENTIK_POSTGRESQL__SSLMODE=disable".to_owned(),
        "AUTHENTIK_POSTGRESQL__PASSWORD".to_owned(),
        format!("AUTHENTIK_REDIS__HOST={}", gateway.trim()),
        format!("AUTHENTIK_REDIS__PORT={port}"),
    ];
    let mut args = vec!["smoke", "authentik"];
    args.extend(settings.iter().flat_map(|setting| ["--env", setting.as_str()]));
    let mut command = smoke.command(&args);
    let done = Done::from(command.env("AUTHENTIK_POSTGRESQL__PASSWORD", "a password").output().unwrap()).expect(0, &[]);
    assert!(done.stdout.contains("22 checks passed in"), "{}", done.stdout);
    // What is there and refuses is no excuse any more.
    args.extend(["--wait", "4s"]);
    let mut command = smoke.command(&args);
    let done = Done::from(command.env("AUTHENTIK_POSTGRESQL__PASSWORD", "another").output().unwrap()).expect(1, &[]);
    assert!(done.stdout.contains("password authentication failed"), "{}", done.stdout);
    smoke.assert_nothing_is_left();
}

#[test]
fn the_commands_of_a_dry_run_do_the_same() {
    let smoke = Smoke::new(Stage::of_this_repository());
    let done = smoke.run(&["smoke", "redis", "--dry-run"]).expect(0, &[]);
    assert_eq!(smoke.folders(), Vec::<String>::new());
    let folder = smoke.stage.path("dry").display().to_string();
    let script =
        done.stdout.replace("/tmp/blumeops-smoke-dry-run", &folder).replace("podman logs", "sleep 2; podman logs");
    let said = run(smoke.with_engine(smoke.stage.command("bash")).args(["-euc", &script]));
    assert!(said.contains("Ready to accept connections"), "{said}\n{script}");
    assert!(!smoke.stage.path("dry").exists());
    smoke.assert_nothing_is_left();
}

#[test]
fn a_probe_at_a_wrong_path_is_red() {
    let smoke = Smoke::new(Stage::of_this_repository());
    let path = "argocd/manifests/authentik/deployment-server.yaml";
    let text = smoke.stage.read(path);
    smoke.stage.write(path, &text.replacen("path: /-/health/live/", "path: /-/health/lively/", 1));
    let args = ["authentik", "--workload", "deployment/authentik-server", "--wait", "5s"];
    smoke.fails(&args, "server startup probe", "404: not found");
}

#[test]
fn an_entrypoint_that_is_not_there_or_can_not_be_run_is_red() {
    let smoke = Smoke::of(r#"Entrypoint = [ "/bin/nope" ]; User = "65534""#, "", "");
    smoke.fails(&["tiny"], "it entrypoint", "the entrypoint is not there: exec: \"/bin/nope\"");
    let smoke = Smoke::of(r#"Entrypoint = [ "/etc/passwd" ]; User = "65534""#, "", "");
    smoke.fails(&["tiny"], "it entrypoint", "the entrypoint is not executable: exec: \"/etc/passwd\"");
}

#[test]
fn ports_that_differ_from_what_is_declared_are_red() {
    let more = REDIS.replace("{ \"6379/tcp\"", "{ \"7000/tcp\" = { }; \"6379/tcp\"");
    let smoke = Smoke::of(&more, "", "");
    smoke.fails(&["tiny", "--wait", "3s"], "it ports", "7000 is declared and listened to by nobody");
    let smoke = Smoke::of(&REDIS.replace("\"6379/tcp\" = { };", ""), "", "");
    smoke.fails(&["tiny"], "it ports", "6379 is listened on and not declared by the image");
    let loopback = "args: [--bind, 127.0.0.1]\n          ports: [{containerPort: 6379}]";
    let smoke = Smoke::of(REDIS, "", loopback);
    smoke.fails(&["tiny", "--wait", "3s"], "it ports", "6379 is declared and listened to on loopback only");
}

#[test]
fn a_path_that_can_not_be_written_is_red() {
    let pod = "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]";
    let container = "volumeMounts: [{name: data, mountPath: /data}]";
    let smoke = Smoke::of(REDIS, pod, container);
    smoke.fails(&["tiny"], "it writes /data", "user 65534 can't write it");
    // With a group for it all is well.
    let smoke = Smoke::of(REDIS, &format!("securityContext: {{fsGroup: 65534}}\n      {pod}"), container);
    assert_eq!(smoke.failures(&["tiny"]), []);
    // A program that needs the path says so by itself, and its last words are shown.
    let args = format!("args: [--dir, /data, --appendonly, \"yes\"]\n          {container}");
    let smoke = Smoke::of(REDIS, pod, &args);
    let done = smoke.run(&["smoke", "tiny"]).expect(1, &[]);
    for words in ["it ended with 1", "Can't open or create append-only dir", "user 65534 can't write it"] {
        assert!(done.stdout.contains(words), "{words} in {}{}", done.stdout, done.stderr);
    }
}

#[test]
fn another_user_than_the_declared_one_is_red() {
    let other = r#"Entrypoint = [ "/bin/setpriv" "--reuid=1000" "/bin/sleep" "60" ]; User = "0""#;
    let smoke = Smoke::of(other, "", "");
    smoke.fails(&["tiny"], "it user", "sleep runs as user 1000");
    let smoke = Smoke::of(&REDIS.replace("65534", "0"), "securityContext: {runAsNonRoot: true}", "");
    smoke.fails(&["tiny"], "it user", "runAsNonRoot has the kubelet refuse it");
}

#[test]
fn a_memory_limit_that_is_too_small_is_red() {
    let smoke = Smoke::of(REDIS, "", "resources: {limits: {memory: 1Mi}}");
    smoke.fails(&["tiny"], "it entrypoint", "its memory limit is too small to start");
    let greedy =
        r#"Entrypoint = [ "/bin/bash" "-c" "x=$(head -c 80000000 /dev/zero | tr '\\0' a); sleep 60" ]; User = "65534""#;
    let smoke = Smoke::of(greedy, "", "resources: {limits: {memory: 24Mi}}");
    smoke.fails(&["tiny", "--wait", "20s"], "it end", "memory limit of 25165824 bytes is too small");
}

#[test]
fn no_signal_leaves_a_container() {
    let smoke = Smoke::of(
        REDIS,
        "",
        "readinessProbe: {httpGet: {path: /, port: 7000}, periodSeconds: 1, failureThreshold: 60}",
    );
    for signal in ["INT", "TERM", "KILL"] {
        let mut child = smoke.command(&["smoke", "tiny"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while smoke.podman(&["ps", "--quiet"]).is_empty() {
            assert!(Instant::now() < deadline, "it was never started");
            std::thread::sleep(Duration::from_millis(100));
        }
        kill(signal, child.id());
        let killed = Instant::now();
        let status = child.wait().unwrap();
        if signal == "KILL" {
            assert_ne!(smoke.podman(&["ps", "--quiet"]), "");
            smoke.run(&["smoke", "tiny", "--wait", "1s"]).expect(1, &["which a killed run has left"]);
        } else {
            assert_eq!(status.code(), Some(130));
            // A second is meant; the machine may be busy.
            println!("{signal}: {:?}", killed.elapsed());
            assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
        }
        smoke.assert_nothing_is_left();
    }
}

#[test]
fn secrets_are_in_no_argument_and_no_output() {
    const SECRET: &str = "correct-horse-battery";
    let container = "env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: PLAIN, value: seen}]\n          args: [\"trap exit TERM; while :; do echo $PASSWORD $PLAIN; sleep 0.2; done\"]\n          startupProbe: {exec: {command: [nope]}, failureThreshold: 1}";
    let smoke = Smoke::of(r#"Entrypoint = [ "/bin/bash" "-c" ]; User = "65534""#, "", container);
    let log = smoke.stage.path("argv");
    smoke.stage.shadow("podman", "echo \"$*\" >> \"$SPY_LOG\"\ncat \"${SPY_LOG%/*}\"/blumeops-smoke-*/environment-0 >> \"$SPY_LOG.env\" 2>/dev/null\nexec \"$real\" \"$@\"");
    for extra in [&[][..], &["--env", "PASSWORD"]] {
        let mut command = smoke.command(&[&["smoke", "tiny", "-vv", "--wait", "2s"], extra].concat());
        command.env("PATH", smoke.stage.shadowed_path()).env("SPY_LOG", &log).env("PASSWORD", SECRET);
        let done = Done::from(command.output().unwrap()).expect(1, &[]);
        let argv = std::fs::read_to_string(&log).unwrap();
        assert!(argv.contains("--env-file") && !argv.contains("seen"), "{argv}");
        let given = std::fs::read_to_string(smoke.stage.path("argv.env")).unwrap();
        let value = given.lines().rev().find_map(|line| line.strip_prefix("PASSWORD=")).unwrap();
        assert_eq!(value == SECRET, !extra.is_empty());
        for text in [&argv, &done.stdout, &done.stderr] {
            assert!(!text.contains(value), "{value} in {text}");
        }
        smoke.assert_nothing_is_left();
    }
    let mut command = smoke.command(&["smoke", "tiny", "--dry-run", "--env", "PASSWORD"]);
    let done = Done::from(command.env("PASSWORD", SECRET).output().unwrap()).expect(0, &[]);
    assert!(done.stdout.contains("PASSWORD=[secret]") && !done.stdout.contains(SECRET), "{}", done.stdout);
}

#[test]
fn an_archive_a_published_tag_and_an_image_of_no_manifest_are_run() {
    let smoke = Smoke::of(REDIS, "", "");
    let built = smoke.run(&["build", "tiny", "--format", "json"]).expect(0, &[]);
    let value: Value = serde_json::from_str(&built.stdout).unwrap();
    let path = value["result"]["built"][0]["store_path"].as_str().unwrap();
    let archive = format!("{}{path}", crate::stage::nix_root().display());
    assert_eq!(smoke.failures(&["tiny", "--image", &archive]), []);
    run(&mut smoke.stage.xtask(&["release", "tiny", "v1.0.0", "--here", "--no-pin"]));
    assert_eq!(smoke.failures(&["tiny", "--image", "v1.0.0-nix"]), []);
    smoke
        .stage
        .write("argocd/manifests/one/deployment.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tiny}\n");
    let done = smoke.run(&["smoke", "tiny", "--image", "v1.0.0-nix"]).expect(0, &["no manifest uses tiny"]);
    assert!(done.stdout.contains("5 checks passed in"), "{}", done.stdout);
    smoke.run(&["smoke", "tiny", "--image", "nonsense"]).expect(2, &["no such file"]);
}
