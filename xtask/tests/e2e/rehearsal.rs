//! The rehearsal of this repository, and what the images that it leaves do when they run.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::stage::{Done, Registry, Stage, free_port, kill, run, wait_for_port};

#[test]
fn nothing_is_left_behind() {
    let stage = Stage::of_this_repository();
    let before = stage.state();
    let done = stage.run(&["rehearse", "redis", "--without-cluster"]).expect(0, &["nothing was done twice"]);
    assert!(done.stdout.contains("blumeops/redis:v1.0.0-nix"), "{}", done.stdout);
    assert_eq!((stage.state(), rehearsals(&stage)), (before, vec![]));
    stage.assert_nothing_runs();
}

#[test]
fn killed_it_leaves_no_process_and_the_next_removes_its_folder() {
    let stage = Stage::of_this_repository();
    for signal in ["KILL", "INT"] {
        let mut child = stage.xtask(&["rehearse", "redis", "--without-cluster"]).stderr(Stdio::null()).spawn().unwrap();
        until(|| rehearsals(&stage).pop());
        std::thread::sleep(Duration::from_millis(600));
        kill(signal, child.id());
        child.wait().unwrap();
        stage.assert_nothing_runs();
        // A signal leaves what there was no time to remove.
        assert!(rehearsals(&stage).len() == 1 || signal == "INT");
        stage.run(&["rehearse", "redis", "--without-cluster"]).expect(0, &[]);
        assert_eq!(rehearsals(&stage), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_build_that_fails_is_shown() {
    let stage = Stage::of_this_repository();
    stage
        .run(&["rehearse", "dex", "--without-cluster"])
        .expect(1, &["the runner's build failed", "the stand-in nixpkgs has no dex"]);
    assert_eq!(rehearsals(&stage), Vec::<PathBuf>::new());
}

#[test]
fn the_images_are_what_the_expressions_say_and_run() {
    let stage = Stage::of_this_repository();
    let done =
        stage.run(&["rehearse", "authentik", "--without-cluster", "--keep", "--format", "json"]).expect(0, &["kept: "]);
    let kept = rehearsals(&stage).pop().expect("it was kept");
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    let names: Vec<_> = value["result"]["released"]
        .as_array()
        .unwrap()
        .iter()
        .map(|released| released["image"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["authentik:v1.0.0-nix", "redis:v1.0.0-nix"]);
    let registry = Registry::serve(&kept.join("registry.yml"));
    for name in ["authentik", "redis"] {
        the_registry_says_what_the_expression_says(&stage, &registry, name);
    }
    let engine = Engine::new(&registry);
    let redis = redis_answers_from_another_network(&engine);
    authentik_is_ready_when_its_services_are(&engine, &redis);
    run(stage.command("chmod").args(["-R", "u+w"]).arg(kept));
}

/// The folders that rehearsals of `stage` have left.
fn rehearsals(stage: &Stage) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(stage.path("")).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("blumeops-rehearsal-")).collect()
}

fn the_registry_says_what_the_expression_says(stage: &Stage, registry: &Registry, name: &str) {
    let expression = format!(
        "let pkgs = import <nixpkgs> {{ }}; in import ./containers/{name} {{ pkgs = pkgs // {{ dockerTools = pkgs.dockerTools // {{ buildLayeredImage = image: image.config; }}; }}; }}"
    );
    let declared = run(stage.command("nix-instantiate").args(["--eval", "--strict", "--json", "-E", &expression]));
    let declared: Value = serde_json::from_str(&declared).unwrap();
    let reference = format!("docker://{}/blumeops/{name}:v1.0.0-nix", registry.url.trim_start_matches("http://"));
    let inspected = run(stage.command("skopeo").args(["inspect", "--config", "--tls-verify=false", &reference]));
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    for (key, value) in declared.as_object().unwrap() {
        assert_eq!(&inspected["config"][key], value, "{name}: {key}");
    }
    assert_eq!(inspected["config"]["User"], "65534");
}

/// podman with a storage of its own.
struct Engine {
    folder: TempDir,
    registry: String,
}

impl Engine {
    fn new(registry: &Registry) -> Self {
        let registry = registry.url.trim_start_matches("http://").to_owned();
        let engine = Self { folder: tempfile::tempdir().unwrap(), registry };
        std::fs::create_dir(engine.folder.path().join("networks")).unwrap();
        engine
    }

    fn podman(&self) -> Command {
        let mut podman = Command::new("podman");
        let folders =
            [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--network-config-dir", "networks")];
        for (flag, folder) in folders {
            podman.arg(flag).arg(self.folder.path().join(folder));
        }
        // What works without the right to raise limits, and with either kind of control groups.
        podman.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]).stdin(Stdio::null());
        podman
    }

    /// `podman run` with a read-only root, as the image's own user.
    fn run(&self, image: &str, options: &[&str], arguments: &[&str]) -> Command {
        let mut podman = self.podman();
        podman.args(["run", "--read-only", "--read-only-tmpfs=false", "--tls-verify=false"]);
        podman.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]).args(options);
        podman.arg(format!("{}/blumeops/{image}:v1.0.0-nix", self.registry)).args(arguments);
        podman
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for end in [
            &["rm", "--all", "--force", "--time", "0"][..],
            &["network", "prune", "--force"],
            &["system", "reset", "--force"],
        ] {
            drop(self.podman().args(end).output());
        }
    }
}

/// The address of a running redis.
fn redis_answers_from_another_network(engine: &Engine) -> String {
    run(engine.podman().args(["network", "create", "xtask-test"]));
    run(&mut engine.run(
        "redis",
        &["--detach", "--name", "redis", "--network", "xtask-test", "--volume", "/data"],
        &[],
    ));
    let inspected = run(engine.podman().args(["inspect", "redis"]));
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let address = inspected[0]["NetworkSettings"]["Networks"]["xtask-test"]["IPAddress"].as_str().unwrap().to_owned();
    assert_eq!(inspected[0]["Config"]["User"], "65534");
    // Its own container and with that its own network namespace.
    let client = ["--rm", "--network", "xtask-test", "--entrypoint", "redis-cli"];
    let answer = until(|| {
        let asked = engine.run("redis", &client, &["-h", &address, "ping"]).output().unwrap();
        let text = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        (text == "PONG").then_some(text)
    });
    assert_eq!(answer, "PONG");
    let written = run(&mut engine.run("redis", &client, &["-h", &address, "set", "key", "value"]));
    assert_eq!(written.trim(), "OK");
    address
}

fn authentik_is_ready_when_its_services_are(engine: &Engine, redis: &str) {
    let database = Postgres::start();
    let (http, https, metrics) = (free_port(), free_port(), free_port());
    let settings = [
        "AUTHENTIK_SECRET_KEY=key".to_owned(),
        "AUTHENTIK_POSTGRESQL__HOST=127.0.0.1".to_owned(),
        format!("AUTHENTIK_POSTGRESQL__PORT={}", database.port),
        "AUTHENTIK_POSTGRESQL__NAME=authentik".to_owned(),
        "AUTHENTIK_POSTGRESQL__USER=authentik".to_owned(),
        "AUTHENTIK_POSTGRESQL__PASSWORD=a password".to_owned(),
        format!("AUTHENTIK_REDIS__HOST={redis}"),
        format!("AUTHENTIK_LISTEN__HTTP=127.0.0.1:{http}"),
        format!("AUTHENTIK_LISTEN__HTTPS=127.0.0.1:{https}"),
        format!("AUTHENTIK_LISTEN__METRICS=127.0.0.1:{metrics}"),
    ];
    let mut options = vec!["--detach", "--name", "authentik", "--network", "host", "--tmpfs", "/tmp"];
    options.extend(settings.iter().flat_map(|setting| ["--env", setting.as_str()]));
    run(&mut engine.run("authentik", &options, &[]));
    wait_for_port(http);
    wait_for_port(metrics);
    let status = |path: &str| get(&format!("http://127.0.0.1:{http}{path}"));
    assert_eq!(status("/-/health/live/").0, 200);
    let (code, why) = status("/-/health/ready/");
    assert!(code == 503 && why.contains("database \"authentik\" does not exist"), "{code} {why}");
    assert!(!why.contains("a password"));
    database.sql("create database authentik");
    assert_eq!(status("/-/health/ready/"), (200, String::new()));
    assert_eq!(status("/if/flow/default-authentication-flow/").0, 200);
    let text = get(&format!("http://127.0.0.1:{metrics}/metrics")).1;
    assert!(text.contains("authentik_stand_in_database_ready 1"), "{text}");
    wait_for_port(https);
    run(engine.podman().args(["stop", "--time", "5", "redis"]));
    let (code, why) = status("/-/health/ready/");
    assert!(code == 503 && why.starts_with("redis:"), "{code} {why}");
    database.sql("alter role authentik password 'another'");
    let (code, why) = status("/-/health/ready/");
    assert!(code == 503 && why.contains("password authentication failed"), "{code} {why}");
    assert_eq!(status("/-/health/live/").0, 200);
    let stopping = Instant::now();
    run(engine.podman().args(["stop", "--time", "9", "authentik"]));
    assert!(stopping.elapsed() < Duration::from_secs(8), "it had to be killed");
    the_worker_wants_the_same_settings(engine);
}

fn the_worker_wants_the_same_settings(engine: &Engine) {
    let done: Done = engine.run("authentik", &["--rm", "--tmpfs", "/tmp"], &["worker"]).output().unwrap().into();
    done.expect(1, &["AUTHENTIK_SECRET_KEY", "AUTHENTIK_POSTGRESQL__PASSWORD"]);
}

fn get(url: &str) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut response = agent.get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// Tries until there is something, for half a minute.
fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A real PostgreSQL with a role `authentik` and without a database of that name.
pub(crate) struct Postgres {
    pub(crate) port: u16,
    _folder: TempDir,
    child: Child,
}

impl Postgres {
    fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// At an address; whoever reaches it and knows the password is let in.
    pub(crate) fn start_at(address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        std::fs::write(&password, "a password").unwrap();
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(folder.path()));
        }
        let pwfile = format!("--pwfile={}", password.display());
        run(server("initdb").args(["--auth=scram-sha-256", "--username=authentik", &pwfile, "--pgdata"]).arg(&data));
        let access = data.join("pg_hba.conf");
        let rules = std::fs::read_to_string(&access).unwrap() + "host all all all scram-sha-256\n";
        std::fs::write(access, rules).unwrap();
        let port = free_port();
        let mut postgres = server("postgres");
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", address, "-k"]).arg(folder.path());
        let child = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let database = Self { port, _folder: folder, child };
        until(|| database.try_sql("select 1").status.success().then_some(()));
        database
    }

    fn try_sql(&self, sql: &str) -> std::process::Output {
        let mut psql = Command::new("psql");
        psql.args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--username", "authentik"]);
        psql.args(["--dbname", "postgres", "--command", sql]).env("PGPASSWORD", "a password").output().unwrap()
    }

    pub(crate) fn sql(&self, sql: &str) {
        let done = Done::from(self.try_sql(sql));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        kill("QUIT", self.child.id());
        drop(self.child.wait());
    }
}

fn is_root() -> bool {
    run(Command::new("id").arg("--user")).trim() == "0"
}

/// A program of PostgreSQL's server, which refuses to run as root.
fn server(program: &str) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: cargo xtask setup");
    let newest = versions.flatten().map(|entry| entry.path()).max().expect("a version of PostgreSQL");
    let program = newest.join("bin").join(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}
