//! A signal at any moment of any command: back within a second, no child left, and what had been done is said.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::health::Health;
use crate::operations::Ops;
use crate::stage::{Stage, kill};

/// A second, and what a machine takes that has more to do.
const SECOND: Duration = Duration::from_millis(1200);

/// Hangs, and so does its child; both ignore what can be ignored.
const STUBBORN: &str = "trap '' INT TERM HUP; touch \"$HANGS\"; while :; do sleep 1; done";

/// As a terminal sends it, as a person does, and as a service manager does.
#[derive(Clone, Copy, Debug)]
enum Way {
    CtrlC,
    Int,
    Term,
}

const WAYS: [Way; 3] = [Way::CtrlC, Way::Int, Way::Term];

/// Runs until `is_there`, is interrupted, and has to end as it should; what it said on both streams.
fn interrupted(stage: &Stage, mut command: Command, way: Way, is_there: impl Fn() -> bool) -> String {
    let hangs = stage.path("hangs");
    command.env("HANGS", &hangs).process_group(0);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_there() {
        assert!(Instant::now() < deadline, "it never got there: {command:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Whoever has just been started has not trapped anything yet.
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    match way {
        Way::CtrlC => kill("INT", format!("-{}", child.id())),
        Way::Int => kill("INT", child.id()),
        Way::Term => kill("TERM", child.id()),
    }
    let output = child.wait_with_output().unwrap();
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{way:?}: {command:?}: {said}");
    assert!(took < SECOND, "{way:?}: {took:?}: {command:?}: {said}");
    stage.assert_nothing_runs();
    std::fs::remove_file(hangs).unwrap_or_default();
    said
}

fn says(said: &str, words: &str) {
    assert!(said.contains(words), "no «{words}» in {said}");
}

#[test]
fn services_check_and_verify() {
    let health = Health::new();
    let hangs = health.stage.path("hangs");
    for way in WAYS {
        for kind in ["deployments.apps", "nodes"] {
            health.answer(&format!("{kind}.sh"), STUBBORN);
            let said = interrupted(&health.stage, health.command(&["services-check"]), way, || hangs.exists());
            says(&said, "had answered");
            let watch = health.command(&["services-check", "--watch", "--interval", "1s"]);
            says(&interrupted(&health.stage, watch, way, || hangs.exists()), "interrupted");
            std::fs::remove_file(health.stage.path("answers").join(format!("{kind}.sh"))).unwrap();
        }
        health.answer("deployments.apps.sh", STUBBORN);
        let verify = ["verify", "one", "--wait", "1m", "--services", "runner"];
        says(&interrupted(&health.stage, health.command(&verify), way, || hangs.exists()), "passed by then: no point");
        std::fs::remove_file(health.stage.path("answers/deployments.apps.sh")).unwrap();
        health.answer("ssh.sh", STUBBORN);
        says(
            &interrupted(&health.stage, health.command(&verify), way, || hangs.exists()),
            "passed by then: Pods running",
        );
        std::fs::remove_file(health.stage.path("answers/ssh.sh")).unwrap();
    }
}

/// Between two looks, when nothing runs.
#[test]
fn while_it_waits() {
    let health = Health::new();
    let log = health.stage.path("answers/argv");
    let quiet = |calls: usize| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().count() >= calls
    };
    let watch = health.command(&["services-check", "--watch", "--interval", "1h"]);
    says(&interrupted(&health.stage, watch, Way::CtrlC, || quiet(4)), "interrupted");
    health.answer("deployments.apps", r#"{"items": []}"#);
    std::fs::remove_file(&log).unwrap();
    let verify = health.command(&["verify", "one", "--wait", "10m", "--services", "runner"]);
    says(&interrupted(&health.stage, verify, Way::Term, || quiet(3)), "passed by then: services-check passes");
}

/// A web server that never answers holds nobody.
#[test]
fn while_the_network_hangs() {
    let health = Health::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut first = [0];
            drop(stream.read(&mut first));
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            kept.push(stream);
        }
    });
    let connected = || asked.swap(0, std::sync::atomic::Ordering::SeqCst) > 0;
    health.stage.write_files(crate::troubles::PUBLISHED);
    for way in WAYS {
        let mut verify = health.command(&["verify", "one", "--services", "runner"]);
        verify.env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
        says(&interrupted(&health.stage, verify, way, connected), "passed by then: Pods running");
    }
    let ops = Ops::new();
    for way in WAYS {
        let mut mirrors = ops.command(&["mirrors", "check"]);
        mirrors.env("BLUMEOPS_FORGE_URL", format!("http://127.0.0.1:{port}"));
        says(&interrupted(&ops.stage, mirrors, way, connected), "interrupted");
    }
}

#[test]
fn what_goes_through_argocd_op_and_kubectl() {
    let ops = Ops::new();
    let hangs = ops.stage.path("hangs");
    let there = || hangs.exists();
    ops.stage.git(&["push", "--quiet", "origin", "HEAD:refs/heads/topic"]);
    let kubectl = |verb: &str| {
        ops.kubectl("", "");
        let list = r#"{"items":[{"metadata":{"name":"web-1","labels":{"app":"web"}},"spec":{"containers":[{"name":"main"}]}}]}"#;
        ops.put("list.json", list);
        let script = format!("case \"$*\" in *\" {verb} \"*) {STUBBORN} ;; *) cat \"$STAND_IN/list.json\" ;; esac");
        ops.stage.program("kubectl", &script);
    };
    for way in WAYS {
        let run = |args: &[&str]| interrupted(&ops.stage, ops.command(args), way, there);
        ops.stage.op(STUBBORN);
        says(&run(&["secrets", "check"]), "interrupted");
        ops.stage.vault(&["password"]);
        kubectl("get");
        says(&run(&["secrets", "check"]), "interrupted");
        says(&run(&["logs", "web"]), "interrupted");
        kubectl("logs");
        says(&run(&["logs", "web"]), "interrupted");
        says(&run(&["logs", "web", "--follow"]), "interrupted");
        let argocd = std::fs::read_to_string(ops.stage.path("shadow/argocd")).unwrap();
        for verb in ["get", "set", "diff", "sync"] {
            let script = argocd.replacen("#!/bin/bash", &format!("[ \"$2\" = {verb} ] && {{ {STUBBORN}; }}"), 1);
            ops.stage.program("argocd", &script);
            let said = run(&["deploy", "web", "--branch", "topic"]);
            says(
                &said,
                if verb == "get" { "interrupted" } else { "under way: web; the same command goes on from there" },
            );
            ops.put("rev-web", "main");
        }
        ops.stage
            .program("argocd", &argocd.replacen("#!/bin/bash", &format!("[ \"$2\" = list ] && {{ {STUBBORN}; }}"), 1));
        says(&run(&["branches"]), "interrupted");
        ops.put("rev-web", "topic");
        ops.stage
            .program("argocd", &argocd.replacen("#!/bin/bash", &format!("[ \"$2\" = set ] && {{ {STUBBORN}; }}"), 1));
        says(&run(&["branches", "--restore"]), "put back:");
        ops.put("rev-web", "main");
        std::fs::write(ops.stage.path("shadow/argocd"), &argocd).unwrap();
    }
}

/// What renders hangs too, and Ansible before a play.
#[test]
fn what_reads_the_repository_and_what_asks_a_host() {
    let stage = Stage::of_this_repository();
    let hangs = stage.path("hangs");
    for program in ["kustomize", "kubectl", "ansible", "ansible-playbook", "ansible-inventory"] {
        stage.program(program, STUBBORN);
    }
    for way in WAYS {
        for args in
            [&["check"][..], &["render"], &["services-check"], &["diff", "--live"], &["provision", "indri", "--check"]]
        {
            let mut command = stage.xtask(args);
            command.env("PATH", stage.shadowed_path());
            says(&interrupted(&stage, command, way, || hangs.exists()), "interrupted");
        }
    }
}

/// Nobody reads any more: who would go on for ever ends, and nobody complains.
#[test]
fn a_reader_that_has_gone_ends_what_has_no_end() {
    let health = Health::new();
    let ops = Ops::new();
    ops.put(
        "list.json",
        r#"{"items":[{"metadata":{"name":"web-1","labels":{"app":"web"}},"spec":{"containers":[{"name":"main"}]}}]}"#,
    );
    ops.stage.program("kubectl", "case \"$*\" in *\" logs \"*) yes a line ;; *) cat \"$STAND_IN/list.json\" ;; esac");
    let watch = health.command(&["services-check", "--watch", "--interval", "1s", "--format", "json"]);
    for (stage, mut command) in [(&health.stage, watch), (&ops.stage, ops.command(&["logs", "web", "--follow"]))] {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let left = Instant::now();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(left.elapsed() < Duration::from_secs(5) && !said.contains("panicked"), "{:?} {said}", left.elapsed());
        stage.assert_nothing_runs();
    }
    // stderr that nobody reads is no reason to panic either.
    let mut command = health.command(&["services-check", "-vv"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
