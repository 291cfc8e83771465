//! A release that is killed anywhere is finished by the same command, and nothing is done twice.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::stage::{Done, Stage, kill};

/// Every program that a release starts.
const PROGRAMS: [&str; 3] = ["git", "nix-instantiate", "nix-build"];

const RELEASE: [&str; 5] = ["release", "tiny", "v1.0.0", "--here", "--commit"];

/// Counts the programs started, and kills who started the one whose turn it is, before it or after it.
const KILLER: &str = r#"
exec 9>"$SHADOW/lock"; flock 9
echo "$0" >> "$SHADOW/started"; n=$(wc -l < "$SHADOW/started")
exec 9>&-
if [ "$n" = "$KILL_AT" ]; then
  echo "$0 $*" > "$SHADOW/killed"
  if [ "$KILL_WHEN" = before ]; then kill -"$KILL_WITH" $PPID; fi
  if [ "$KILL_WHEN" = before ] && [ "$KILL_WITH" = KILL ]; then exit 1; fi
  "$real" "$@"; code=$?
  if [ "$KILL_WHEN" = after ]; then kill -"$KILL_WITH" $PPID; fi
  exit $code
fi
exec "$real" "$@"
"#;

fn killed_at(n: usize, signal: &str, when: &str) -> Option<(Stage, Done)> {
    let stage = Stage::new();
    for program in PROGRAMS {
        stage.shadow(program, KILLER);
    }
    let mut release = stage.xtask(&RELEASE);
    release.env("PATH", stage.shadowed_path()).env("SHADOW", stage.path("shadow"));
    release.env("KILL_AT", n.to_string()).env("KILL_WITH", signal).env("KILL_WHEN", when);
    let done = Done::from(release.output().unwrap());
    stage.path("shadow/killed").is_file().then_some((stage, done))
}

/// Kills at the first, second, … command until a release has no more of them.
fn every_boundary(signal: &str, when: &str, least: usize) {
    let next = AtomicUsize::new(1);
    let killed = AtomicUsize::new(0);
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            let Some((stage, done)) = killed_at(n, signal, when) else { return };
            killed.fetch_add(1, Ordering::SeqCst);
            let at = std::fs::read_to_string(stage.path("shadow/killed")).unwrap();
            if signal == "KILL" {
                assert_eq!(done.code, None, "{at}");
            } else {
                assert!(matches!(done.code, Some(130 | 0)), "{at}: {:?} {}", done.code, done.stderr);
            }
            let again = stage.run(&RELEASE);
            assert_eq!(again.code, Some(0), "killed at {at}: {}", again.stderr);
            stage.assert_released("v1.0.0");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    assert!(killed.load(Ordering::SeqCst) >= least, "only {killed:?} commands were reached");
}

#[test]
fn sigkill_before_any_command() {
    every_boundary("KILL", "before", 12);
}

#[test]
fn sigkill_after_any_command() {
    every_boundary("KILL", "after", 12);
}

#[test]
fn sigint_before_any_command() {
    every_boundary("INT", "before", 12);
}

#[test]
fn sigint_after_any_command() {
    every_boundary("INT", "after", 12);
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
