//! Everything that can be wrong with a server, a name or a host is its own verdict: never a pass, never a hang.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::health::{Health, list};
use crate::stage::Done;
use crate::tls::{Authority, Flaw, Handler, answer};

fn well() -> Handler {
    std::sync::Arc::new(|_, _, _, _| answer(200, "well"))
}

/// A listener that takes connections and does no more, or hangs up at once.
fn mute(hangs_up: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let kept: Vec<_> = listener.incoming().flatten().filter(|_| !hangs_up).collect();
        drop(kept);
    });
    port
}

/// State and what was seen, of each check by name.
fn seen(done: &Done) -> impl Fn(&str) -> (String, String) {
    let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    move |name| {
        let checks = value["result"]["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {value}"));
        (check["state"].as_str().unwrap().to_owned(), check["seen"].as_str().unwrap().to_owned())
    }
}

#[test]
fn every_flaw_of_a_certificate_is_its_own_verdict() {
    let health = Health::new();
    let authority = Authority::new();
    std::fs::write(health.stage.path("ca.pem"), authority.pem()).unwrap();
    let served = |flaw| authority.serve(&["localhost"], flaw, well());
    let plain = crate::health::server(Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"));
    let plain = plain.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    // Name, port, and what is seen of the page and of the certificate.
    let cases: [(&str, u16, &str, &str); 10] = [
        ("good", served(Flaw::Nothing), "200", "verified, 88 days left"),
        ("ending", served(Flaw::Ending), "200", "it was not renewed"),
        ("expired", served(Flaw::Expired), "the certificate has expired", "the certificate has expired"),
        ("early", served(Flaw::NotYet), "the certificate is not valid yet", "the certificate is not valid yet"),
        (
            "other",
            served(Flaw::OtherName),
            "the certificate is for another name",
            "the certificate is for another name",
        ),
        ("self", served(Flaw::SelfSigned), "the certificate is self-signed", "the certificate is self-signed"),
        ("stranger", served(Flaw::Stranger), "an authority that this machine does not", "that this machine does not"),
        ("plain", plain, "it does not speak TLS", "it does not speak TLS"),
        ("mute", mute(false), "no answer within", "no answer in time"),
        ("rude", mute(true), "it hung up", "it hung up"),
    ];
    let mut config = health.stage.read("xtask/blumeops.toml");
    for (name, port, ..) in cases {
        config += &format!("[[checks]]\nname = \"{name}\"\nurl = \"https://localhost:{port}/{name}\"\n");
    }
    config += "[[checks]]\nname = \"nowhere\"\nurl = \"https://no-such-host.invalid/\"\n";
    config += "[[checks]]\nname = \"closed\"\ntcp = \"localhost:1\"\n";
    config += &format!("[[checks]]\nname = \"pg\"\ntcp = \"localhost:{}\"\n", mute(true));
    health.stage.write("xtask/blumeops.toml", &config);
    let mut names: Vec<&str> = cases.iter().map(|case| case.0).collect();
    names.extend(["localhost", "nowhere", "no-such-host.invalid", "closed"]);
    let arguments = [&["services-check"][..], &names, &["--format", "json", "--timeout", "3s"]].concat();
    let started = Instant::now();
    let done: Done =
        health.command(&arguments).env("SSL_CERT_FILE", health.stage.path("ca.pem")).output().unwrap().into();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    let of = seen(&done);
    for (name, port, page, certificate) in cases {
        for (check, words) in [(format!("public/{name}"), page), (format!("tls/localhost:{port}"), certificate)] {
            let check = if check.starts_with("public/") { name.to_owned() } else { check };
            let (state, said) = of(&check);
            assert!(said.contains(words), "{name}, {check}: {said}");
            let fine = name == "good" || (name == "ending" && check == name);
            assert_eq!(state, if fine { "fine" } else { "failed" }, "{name}, {check}: {said}");
        }
    }
    for (check, words) in [
        ("nowhere", "the name does not resolve"),
        ("tls/no-such-host.invalid", "the name does not resolve"),
        ("port/localhost:1", "connection refused"),
    ] {
        let (state, said) = of(check);
        assert!(state == "failed" && said.contains(words), "{check}: {said}");
    }
}

/// An Application that is published in the tailnet, and a Caddy that leads to it.
pub(crate) const PUBLISHED: &str = r#"
//- argocd/manifests/one/kustomization.yaml
namespace: one
resources: [deployment.yaml, ingress.yaml]
//- argocd/manifests/one/ingress.yaml
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: tailscale
  defaultBackend: {service: {name: web, port: {name: http}}}
  tls: [{hosts: [one]}]
//- ansible/roles/caddy/defaults/main.yml
caddy_domain: ops.example
caddy_tailnet: tail.example
caddy_services:
  - {name: one, host: "one.{{ caddy_domain }}", backend: "https://one.{{ caddy_tailnet }}"}
"#;

#[test]
fn a_service_is_verified_as_far_as_its_certificate_is_good() {
    let health = Health::new();
    health.stage.write_files(PUBLISHED);
    let ingress = json!({"kind": "Ingress", "metadata": {"name": "web", "namespace": "one"},
        "status": {"loadBalancer": {"ingress": [{"hostname": "one.tail.example"}]}}});
    health.answer("ingresses.networking.k8s.io", &list(&[ingress]));
    let authority = Authority::new();
    std::fs::write(health.stage.path("ca.pem"), authority.pem()).unwrap();
    let verify = |flaw| {
        let port = authority.serve(&["one.tail.example", "one.ops.example"], flaw, well());
        let mut command =
            health.command(&["verify", "one", "--format", "json", "--services", "runner", "--wait", "1s"]);
        command.env("SSL_CERT_FILE", health.stage.path("ca.pem"));
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
        let done: Done = command.output().unwrap().into();
        let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
        let points = value["result"]["points"].as_array().unwrap().clone();
        let point = |number: u64| points.iter().find(|point| point["number"] == number).unwrap().clone();
        let (ingress, page) = (point(4), point(5));
        (done.code, ingress["state"].clone(), ingress["seen"].as_str().unwrap().to_owned(), page["state"].clone())
    };
    let (code, ingress, said, page) = verify(Flaw::Nothing);
    assert_eq!((code, ingress, page), (Some(0), "passed".into(), "passed".into()), "{said}");
    for (flaw, words) in [
        (Flaw::Expired, "has expired"),
        (Flaw::NotYet, "not valid yet"),
        (Flaw::OtherName, "for another name"),
        (Flaw::SelfSigned, "self-signed"),
    ] {
        let (code, ingress, said, page) = verify(flaw);
        assert_eq!((code, ingress, page), (Some(1), "failed".into(), "not asked".into()), "{said}");
        assert!(said.contains(words), "{flaw:?}: {said}");
    }
}

#[test]
fn a_host_that_nobody_can_log_in_to_says_why() {
    let health = Health::new();
    for (script, words) in [
        ("echo 'me@box.example: Permission denied (publickey,password).' >&2; exit 255", "Permission denied"),
        ("echo 'Host key verification failed.' >&2; exit 255", "Host key verification failed"),
        ("echo 'ssh: Could not resolve hostname box.example: Name or service not known' >&2; exit 255", "not resolve"),
        ("echo 'Connection timed out during banner exchange' >&2; exit 255", "timed out"),
        ("exit 255", "it gave no reason"),
        ("exit 0", "ends before it"),
        ("printf '@@ systemd runner.service\\nLoadState=lo'", "LoadState=lo"),
        ("kill -9 $$", "ends before it"),
        ("head -c 300000 /dev/urandom", "ends before it"),
    ] {
        health.answer("ssh.sh", script);
        let said = health.failing("runner.service");
        assert!(said.contains(words), "{script}: {said}");
    }
    let argv = std::fs::read_to_string(health.stage.path("answers/argv")).unwrap();
    // Nobody is asked for a password, and no key is taken on trust.
    let asked = argv.lines().filter(|line| line.contains("box.example"));
    assert!(
        asked.clone().all(|line| line.contains("BatchMode=yes") && !line.contains("StrictHostKeyChecking")),
        "{argv}"
    );
    assert!(asked.count() > 5);
}

/// The real ssh, and a host that takes the connection and says nothing.
#[test]
fn a_host_that_hangs_after_connecting_is_given_up() {
    let health = Health::new();
    std::fs::remove_file(health.stage.path("shadow/ssh")).unwrap();
    let host = format!("all: {{hosts: {{box: {{ansible_host: 127.0.0.1, ansible_port: {}}}}}}}\n", mute(false));
    health.stage.write("ansible/inventory/hosts.yml", &host);
    let started = Instant::now();
    let said = health.failing("runner.service");
    assert!(said.contains("did not end within") || said.contains("timed out"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    health.stage.assert_nothing_runs();
}

#[test]
fn a_program_that_floods_is_stopped() {
    let health = Health::new();
    for (script, words) in [
        ("exec head -c 1000000000 /dev/zero", "wrote more than 64 MB"),
        ("yes 'a line of talk' | head -c 5000000 >&2; exit 1", "a lin"),
        ("head -c 100000 /dev/urandom", "half an answer"),
        ("kill -9 $$", "it gave no reason"),
    ] {
        health.answer("deployments.apps.sh", script);
        let mut command = health.command(&["services-check", "one", "--format", "json"]);
        command.env("ANSWERS", health.stage.path("answers"));
        let started = Instant::now();
        let done: Done = command.output().unwrap().into();
        let said = seen(&done)("ringtail/one/deployment/web");
        assert!(said.0 == "failed" && said.1.contains(words), "{script}: {said:?}");
        assert!(started.elapsed() < Duration::from_secs(25), "{script}: {:?}", started.elapsed());
    }
}

#[test]
fn jobs_that_failed_and_runs_that_never_were_are_seen() {
    let health = Health::new();
    health.stage.write_files(
        r#"
//- argocd/manifests/one/kustomization.yaml
namespace: one
resources: [deployment.yaml, jobs.yaml]
//- argocd/manifests/one/jobs.yaml
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: example/web:1}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: dump}
spec: {schedule: "0 3 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: example/web:1}]}}}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: asleep}
spec: {suspend: true, schedule: "0 3 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: example/web:1}]}}}}}
"#,
    );
    let job =
        |status: Value| json!({"metadata": {"name": "migrate", "namespace": "one"}, "spec": {}, "status": status});
    let cron = |suspend: bool, status: Value| {
        let metadata = json!({"name": "dump", "namespace": "one", "creationTimestamp": "2026-01-01T00:00:00Z"});
        json!({"metadata": metadata, "spec": {"schedule": "0 3 * * *", "suspend": suspend}, "status": status})
    };
    let failed =
        json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]});
    for (jobs, crons, name, words) in [
        (vec![job(failed)], vec![], "job/migrate", "it failed: BackoffLimitExceeded: m"),
        (vec![], vec![], "job/migrate", "there is none"),
        (vec![], vec![cron(false, json!({}))], "cronjob/dump", "it has never run, and was due"),
        (vec![], vec![cron(true, json!({}))], "cronjob/dump", "it is suspended"),
        (
            vec![],
            vec![cron(false, json!({"lastScheduleTime": "2026-01-02T03:00:00Z"}))],
            "cronjob/dump",
            "did not succeed",
        ),
    ] {
        health.answer("jobs.batch", &list(&jobs));
        health.answer("cronjobs.batch", &list(&crons));
        let said = health.failing(name);
        assert!(said.contains(words), "{said}");
    }
    let listed = health.run(&["services-check", "--list"]).expect(0, &[]).stdout;
    assert!(listed.contains("cronjob/dump") && !listed.contains("asleep"), "{listed}");
}
