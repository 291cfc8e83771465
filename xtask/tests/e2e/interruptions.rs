//! A release that is killed anywhere is finished by the same command, and nothing is done twice.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::stage::{Done, Stage, kill};

const RELEASE: [&str; 5] = ["release", "tiny", "v1.0.0", "--here", "--commit"];

/// git makes a lock beside the ref and is interrupted: stopped there it would be in the way of the next.
#[test]
fn what_is_over_in_a_moment_is_let_finish() {
    let stage = Stage::new();
    stage.shadow("git", r#"if [ "$1 $2" = "tag -a" ]; then kill -INT $PPID; sleep 0.05; fi; exec "$real" "$@""#);
    let mut release = stage.xtask(&RELEASE);
    let interrupted = Done::from(release.env("PATH", stage.shadowed_path()).output().unwrap());
    interrupted.expect(130, &["tiny-v1.0.0 is tagged here"]);
    assert_eq!(stage.git(&["tag", "--list"]).trim(), "tiny-v1.0.0");
    assert_eq!(stage.forge(&["tag", "--list"]), "");
    stage.run(&RELEASE).expect(0, &[]);
    stage.assert_released("v1.0.0");
}

#[test]
fn inside_the_wait() {
    for signal in ["KILL", "INT", "TERM"] {
        let stage = Stage::new();
        let arguments = ["release", "tiny", "v1.0.0", "--commit", "--wait", "2m"];
        let mut child = stage.xtask(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("waiting for the forge")), "it never waited");
        kill(signal, child.id());
        let rest: Vec<String> = lines.collect();
        let status = child.wait().unwrap();
        if signal != "KILL" {
            assert_eq!(status.code(), Some(130), "{rest:?}");
            assert!(rest.iter().any(|line| line.contains("tiny-v1.0.0 is pushed; nothing is pinned")), "{rest:?}");
        }
        stage.publish("tiny-v1.0.0").expect(0, &[]);
        stage.run(&arguments).expect(0, &["is on origin already"]);
        stage.assert_released("v1.0.0");
    }
}

/// Between the two files of a pin.
#[test]
fn half_a_pin_is_completed() {
    let stage = Stage::new();
    stage.run(&["release", "tiny", "v1.0.0", "--here"]).expect(0, &[]);
    stage.git(&["checkout", "--quiet", "--", "argocd/manifests/two"]);
    stage.run(&RELEASE).expect(0, &["argocd/manifests/two"]);
    stage.assert_released("v1.0.0");
}
