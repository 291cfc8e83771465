//! No secret is ever seen: not in output, argv or files, at full verbosity, with a registry that wants credentials.

use crate::stage::{Done, Registry, Stage, run};

const SECRET: &str = "correct-horse-battery";
const OTHERS: [(&str, &str); 3] = [
    ("BLUMEOPS_FORGE_TOKEN", "forge-token-0123456789"),
    ("OP_SERVICE_ACCOUNT_TOKEN", "ops_eyJ-0123456789"),
    ("AUTHENTIK_BOOTSTRAP_PASSWORD", "bootstrap-0123456789"),
];

/// `operator` with [`SECRET`], as bcrypt.
const HTPASSWD: &str = "operator:$2a$05$5d2Cun5BAAcr5..13SRqdeEzluOU4Nm.kdsd3HbzdB50GbMPLdmIy\n";

/// Writes down how it was called.
const SPY: &str = "echo \"$0 $*\" >> \"$SPY_LOG\"\nexec \"$real\" \"$@\"";

#[test]
fn nothing_secret_is_seen_at_full_verbosity() {
    let mut stage = Stage::new();
    let passwords = stage.path("htpasswd");
    std::fs::write(&passwords, HTPASSWD).unwrap();
    let more = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", passwords.display());
    stage.registry = Registry::start_with(&more);
    let log = stage.path("argv");
    for program in ["git", "nix-instantiate", "nix-build", "nix-store"] {
        stage.shadow(program, SPY);
    }
    let mut seen = String::new();
    let commands: [&[&str]; 7] = [
        &["doctor"],
        &["containers"],
        &["build", "tiny"],
        &["release", "tiny", "v1.0.0", "--here", "--commit", "--dry-run"],
        &["release", "tiny", "v1.0.0", "--here", "--commit"],
        &["publish", "tiny-v1.0.0"],
        &["pin", "tiny", "v1.0.0"],
    ];
    for args in commands {
        let mut command = stage.xtask(args);
        command.args(["-vv"]).envs(OTHERS).env("PATH", stage.shadowed_path()).env("SPY_LOG", &log);
        command.env("BLUMEOPS_REGISTRY_USERNAME", "operator").env("BLUMEOPS_REGISTRY_PASSWORD", SECRET);
        if args[0] == "publish" {
            stage.git(&["checkout", "--quiet", "tiny-v1.0.0"]);
        }
        let done = Done::from(command.output().unwrap());
        assert!(matches!(done.code, Some(0 | 1)), "{args:?}: {}", done.stderr);
        if args[0] == "release" || args[0] == "publish" {
            assert_eq!(done.code, Some(0), "{}", done.stderr);
        }
        seen += &(done.stdout + &done.stderr);
    }
    let argv = std::fs::read_to_string(&log).unwrap();
    assert!(argv.contains("nix-build") && seen.contains("nix-build"), "the spies saw nothing");
    let encoded = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("operator:{SECRET}"))
    };
    for secret in OTHERS.map(|(_, value)| value).into_iter().chain([SECRET, &encoded]) {
        assert!(!seen.contains(secret), "{secret} in the output");
        assert!(!argv.contains(secret), "{secret} in argv");
        let mut grep = stage.command("grep");
        grep.args(["--recursive", "--files-with-matches", "--fixed-strings", "--text", secret]);
        let files = Done::from(grep.arg(stage.path("")).output().unwrap());
        assert_eq!(files.stdout, "", "{secret} in files");
    }
}

#[test]
fn credentials_come_from_files_too() {
    let mut stage = Stage::new();
    let passwords = stage.path("htpasswd");
    std::fs::write(&passwords, HTPASSWD).unwrap();
    let more = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", passwords.display());
    stage.registry = Registry::start_with(&more);
    std::fs::write(stage.path("password"), format!("{SECRET}\n")).unwrap();
    let mut release = stage.xtask(&["release", "tiny", "--here"]);
    release.env("BLUMEOPS_REGISTRY_USERNAME", "operator");
    release.env("BLUMEOPS_REGISTRY_PASSWORD_FILE", stage.path("password"));
    run(&mut release);
}
