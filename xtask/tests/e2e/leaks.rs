//! Nothing that `op`, a Secret or a login prints reaches an output, an argument or a file, however the command ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::stage::{Done, Stage};
use crate::tls::{Authority, Flaw, answer};

/// It is in no file of the stage and in no variable of the program: stand-ins read it from outside.
fn marker() -> String {
    format!("never-seen-{:08x}", std::process::id().wrapping_mul(2_654_435_761))
}

/// Clusters in which all that is asked for by name is well, and what is secret is the marker.
const KUBECTL: &str = r#"
echo "$0 $*" >> "$SPY"
secret=$(cat "$VAULT")
case "$*" in
  *" get secret "*) echo "$secret" >&2; [ -f "$STATE/no-secret" ] && { echo "$secret"; exit 1; }
    echo "{\"data\":{\"AUTHENTIK_POSTGRESQL__PASSWORD\":\"$(printf %s "$secret" | base64)\"}}" ;;
  *" exec "*) printf 'role\ndatabase of authentik\n' ;;
  *" get pods "*--namespace=databases*) echo '{"items":[{"metadata":{"name":"blumeops-pg-1","namespace":"databases","labels":{"cnpg.io/cluster":"blumeops-pg","cnpg.io/instanceRole":"primary"}}}]}' ;;
  *" get "*) for word in "$@"; do [ -f "$STATE/$word" ] && exec cat "$STATE/$word"; done; echo '{"items":[]}' ;;
esac
"#;

const PSQL: &str = r#"
echo "$0 $*" >> "$SPY"
[ "$PGPASSWORD" = "$(cat "$VAULT")" ] || { echo "another password came: $PGPASSWORD" >&2; exit 3; }
[ -f "$STATE/no-login" ] && { echo "FATAL: password authentication failed for $PGPASSWORD, $(cat "$VAULT" | base64)" >&2; exit 2; }
echo authentik
"#;

/// As it is told: well, ill in every way, and always with the marker on stderr.
const OP: &str = r#"
echo "$0 $*" >> "$SPY"
secret=$(cat "$VAULT")
echo "$secret" >&2
case $(cat "$STATE/op" 2>/dev/null) in
  fails) echo "$secret"; exit 1 ;;
  raw) echo "$secret" ;;
  half) printf '{"fields":[{"label":"%s' "$secret" ;;
  *) printf '{"fields":['; for label in secret-key db-password bootstrap-password password "$secret"; do printf '{"label":"%s","value":"%s"},' "$label" "$secret"; done; echo '{"label":"empty"}]}' ;;
esac
"#;

struct Vault {
    stage: Stage,
    outside: tempfile::TempDir,
    authority: Authority,
}

impl Vault {
    fn new() -> Self {
        let vault = Self {
            stage: Stage::of_this_repository(),
            outside: tempfile::tempdir().unwrap(),
            authority: Authority::new(),
        };
        std::fs::create_dir(vault.stage.path("state")).unwrap();
        std::fs::write(vault.outside.path().join("vault"), marker()).unwrap();
        std::fs::write(vault.stage.path("ca.pem"), vault.authority.pem()).unwrap();
        for (program, script) in [("kubectl", KUBECTL), ("psql", PSQL), ("op", OP)] {
            vault.stage.program(program, script);
        }
        vault.stage.program("ssh", "echo \"$0 $*\" >> \"$SPY\"; exit 255");
        let ready = |name: &str| {
            json!({"metadata": {"name": name, "namespace": "authentik", "generation": 1},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}},
                "status": {"observedGeneration": 1, "readyReplicas": 1, "updatedReplicas": 1}})
        };
        let all = ["authentik-server", "authentik-worker", "redis"].map(ready);
        let all = json!({"items": all});
        std::fs::write(vault.stage.path("state/deployments.apps"), all.to_string()).unwrap();
        vault
    }

    fn state(&self, name: &str, text: Option<&str>) {
        let path = self.stage.path("state").join(name);
        match text {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap_or_default(),
        }
    }

    /// Runs it while every process's arguments are looked at.
    fn run(&self, args: &[&str], proxy: u16) -> Done {
        let over = Arc::new(AtomicBool::new(false));
        let seen = watch_arguments(Arc::clone(&over));
        let mut command = self.stage.xtask(args);
        command.env("PATH", self.stage.shadowed_path()).env("VAULT", self.outside.path().join("vault"));
        command.env("SPY", self.stage.path("spy")).env("STATE", self.stage.path("state"));
        command.env("SSL_CERT_FILE", self.stage.path("ca.pem"));
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{proxy}"));
        command.env("GITHUB_STEP_SUMMARY", self.stage.path("summary.md"));
        let done = Done::from(command.output().unwrap());
        over.store(true, Ordering::SeqCst);
        let found = seen.join().unwrap();
        for (what, text) in [("stdout", &done.stdout), ("stderr", &done.stderr), ("arguments", &found)] {
            for secret in forms() {
                assert!(!text.contains(&secret), "{args:?}: {secret} in {what}: {text}");
            }
        }
        done
    }

    fn assert_no_file(&self) {
        for secret in forms() {
            let mut grep = self.stage.command("grep");
            grep.args(["--recursive", "--files-with-matches", "--fixed-strings", "--text", "--"]);
            let files = Done::from(grep.arg(&secret).arg(self.stage.path("")).output().unwrap());
            assert_eq!(files.stdout, "", "{secret}");
        }
    }
}

fn forms() -> [String; 2] {
    [marker(), STANDARD.encode(marker())]
}

/// Every argument list of this machine that has a form of the marker.
fn watch_arguments(over: Arc<AtomicBool>) -> std::thread::JoinHandle<String> {
    let own = std::process::id().to_string();
    std::thread::spawn(move || {
        let mut found = String::new();
        while !over.load(Ordering::SeqCst) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| entry.file_name() != *own) {
                let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).replace('\0', " ");
                // The stand-in's own `printf` is of its shell and no process.
                if forms().iter().any(|secret| text.contains(secret)) {
                    found += &text;
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        found
    })
}

/// Authentik's flow: a name, a password, in. An answer that refuses says the password back.
fn authentik(vault: &Vault, refuses: bool, posted: &Arc<Mutex<Vec<String>>>) -> u16 {
    let posted = Arc::clone(posted);
    let handler = move |method: &str, _: &str, path: &str, body: &str| {
        let component = |name: &str| answer(200, &json!({"component": name}).to_string());
        if method == "POST" {
            posted.lock().unwrap().push(body.to_owned());
        }
        let error = json!({"component": "ak-stage-password",
            "response_errors": {"password": [{"string": format!("{} is wrong", marker())}]}});
        match (method, path) {
            (_, path) if path.starts_with("/if/flow/") => answer(200, "<ak-flow-executor>"),
            (_, path) if path.starts_with("/api/v3/core/users/me") => {
                answer(200, r#"{"user":{"username":"akadmin","is_superuser":true}}"#)
            }
            ("POST", _) if body.contains("uid_field") => component("ak-stage-password"),
            ("POST", _) if refuses => answer(200, &error.to_string()),
            ("POST", _) => component("xak-flow-redirect"),
            (_, path) if path.starts_with("/api/v3/flows/") => component("ak-stage-identification"),
            (_, path) if path.starts_with("/api/v1/query") => {
                answer(200, r#"{"status":"success","data":{"result":[]}}"#)
            }
            _ => answer(200, "well"),
        }
    };
    let names = ["authentik.tail8d86e.ts.net", "authentik.ops.eblu.me", "prometheus.ops.eblu.me"];
    vault.authority.serve(&names, Flaw::Nothing, Arc::new(handler))
}

#[test]
fn nothing_that_is_secret_is_seen_however_a_command_ends() {
    let vault = Vault::new();
    let posted = Arc::new(Mutex::new(Vec::new()));
    let (lets_in, refuses) = (authentik(&vault, false, &posted), authentik(&vault, true, &posted));
    let verify = ["verify", "authentik", "-vv", "--services", "forgejo", "--record=evidence.md"];
    let point = |done: &Done, number: u64| {
        let value: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
        let points = value["result"]["points"].as_array().unwrap().clone();
        let point = points.into_iter().find(|point| point["number"] == number).unwrap();
        (point["state"].as_str().unwrap().to_owned(), point["seen"].as_str().unwrap().to_owned())
    };
    let json = [&verify[..], &["--format", "json"]].concat();
    let done = vault.run(&json, lets_in);
    assert_eq!(point(&done, 2).0, "passed", "{:?}", point(&done, 2));
    assert_eq!(point(&done, 6).0, "passed", "{:?}", point(&done, 6));
    assert!(posted.lock().unwrap().iter().any(|body| body.contains(&marker())), "the password never came");
    // What is refused is said without what was refused.
    let done = vault.run(&json, refuses);
    assert_eq!(point(&done, 6), ("failed".to_owned(), "[secret] is wrong".to_owned()));
    vault.state("no-login", Some(""));
    let done = vault.run(&json, lets_in);
    let (state, said) = point(&done, 2);
    assert!(state == "failed" && said.contains("failed for [secret], [secret]"), "{said}");
    vault.state("no-login", None);
    for format in ["human", "junit", "markdown"] {
        vault.run(&[&verify[..], &["--format", format]].concat(), refuses);
    }
    vault.state("no-secret", Some(""));
    assert_eq!(point(&vault.run(&json, lets_in), 2).0, "failed");
    vault.state("no-secret", None);
    for (ill, words) in [("fails", "op failed"), ("raw", "is not what"), ("half", "is not what")] {
        vault.state("op", Some(ill));
        let (state, said) = point(&vault.run(&json, lets_in), 6);
        assert!(state == "failed" && said.contains(words), "{said}");
        for format in ["human", "json"] {
            let done = vault.run(&["secrets", "check", "-vv", "--format", format], lets_in);
            assert_eq!(done.code, Some(1), "{}", done.stderr);
        }
    }
    vault.state("op", None);
    for format in ["human", "json"] {
        vault.run(&["secrets", "check", "authentik", "-vv", "--format", format], lets_in);
        vault.run(&["services-check", "authentik", "-vv", "--format", format, "--timeout", "2s"], lets_in);
        vault.run(&["diff", "--live", "-vv", "--format", format], lets_in);
    }
    let spied = std::fs::read_to_string(vault.stage.path("spy")).unwrap();
    for program in ["/op item get", "/psql", "get secret"] {
        assert!(spied.contains(program), "{program} was never asked");
    }
    assert!(vault.stage.clone_folder().join("evidence.md").is_file() && vault.stage.path("summary.md").is_file());
    vault.assert_no_file();
}
