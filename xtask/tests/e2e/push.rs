//! Pushes: what is sent and what is not, whatever breaks on the way; the registry is real, what breaks is in front of it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use serde_json::Value;

use crate::proxy::{Fate, Proxy, Seen};
use crate::stage::{Done, Registry, Stage, kill, nix_root, run};
use crate::stand_ins::TokenServer;

/// Two layers of this size do not fit into one chunk each; the rest of the image is small.
const EXPRESSION: &str = r#"
{ pkgs ? import <nixpkgs> { }, note ? "first" }:
let
  noise = name: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/bash";
    args = [ "-c" "mkdir -p $out/share && for n in 1 2 3; do head -c 3500000 /dev/urandom > $out/share/${name}-$n; done" ];
    PATH = "/usr/bin:/bin";
  };
in
pkgs.dockerTools.buildLayeredImage {
  name = "blumeops/tiny";
  tag = "latest";
  contents = [ pkgs.dockerTools.fakeNss pkgs.dumb-init (noise "one") (noise "two") ];
  extraCommands = "mkdir -p tmp && echo ${note} > note && ln -s /nix/store/nowhere ${"l" + builtins.concatStringsSep "" (builtins.genList (n: "-long") 30)}";
  fakeRootCommands = "chown 65534:65534 tmp && chmod 1777 tmp";
  config = { Entrypoint = [ "/bin/tiny" ]; Env = [ "NOTE=<ä & \"ö\">" ]; User = "65534"; ExposedPorts = { "8000/tcp" = { }; }; };
}
"#;

const IMAGE: &str = "blumeops/tiny";

/// A clone in which `tiny-v1.0.0` is tagged.
fn stage() -> Stage {
    let stage = Stage::new();
    stage.write("containers/tiny/default.nix", EXPRESSION);
    stage.commit_and_push("an image of some size");
    stage.git(&["tag", "tiny-v1.0.0"]);
    stage
}

/// A new version, in which only this note differs.
fn change(stage: &Stage, note: &str, tag: &str) {
    stage.write("containers/tiny/default.nix", &EXPRESSION.replace("\"first\"", &format!("\"{note}\"")));
    stage.commit_and_push(note);
    stage.git(&["tag", tag]);
}

fn publish(stage: &Stage, tag: &str, registry: &str) -> Command {
    let mut command = stage.xtask(&["publish", tag, "--format", "json"]);
    command.env("BLUMEOPS_REGISTRY_URL", registry).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn published(command: &mut Command) -> Value {
    let done = Done::from(command.output().unwrap()).expect(0, &[]);
    serde_json::from_str::<Value>(&done.stdout).unwrap()["result"].clone()
}

fn reference(registry: &str, tag: &str) -> String {
    format!("docker://{}/{IMAGE}:{tag}", registry.trim_start_matches("http://"))
}

/// What another client says of an image.
fn inspect(stage: &Stage, registry: &str, tag: &str, more: &[&str]) -> String {
    run(stage.command("skopeo").args(["inspect", "--tls-verify=false"]).args(more).arg(reference(registry, tag)))
}

/// Digest and size of everything that a manifest names.
fn blobs(registry: &Registry, tag: &str) -> BTreeMap<String, u64> {
    let manifest: Value = serde_json::from_str(&registry.get(&format!("/v2/{IMAGE}/manifests/{tag}"))).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
    layers.map(|blob| (blob["digest"].as_str().unwrap().to_owned(), blob["size"].as_u64().unwrap())).collect()
}

/// How another client sends the archive of the expression as it is in the clone now.
fn push_with_skopeo(stage: &Stage, registry: &str, tag: &str) {
    let archive = run(stage.command("nix-build").args(["--no-out-link", "containers/tiny/default.nix"]));
    // skopeo 1.9 misreads gzip.
    let unpack = format!("gzip -dc {}{} > ../plain.tar", nix_root().display(), archive.trim());
    run(stage.command("sh").args(["-c", &unpack]));
    let archive = format!("docker-archive:{}", stage.path("plain.tar").display());
    let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--format", "v2s2", &archive];
    run(stage.command("skopeo").args(copy).arg(reference(registry, tag)));
}

#[test]
fn what_another_client_pushes_is_the_same_image() {
    let stage = stage();
    let theirs = Registry::start();
    push_with_skopeo(&stage, &theirs.url, "v1.0.0-nix");
    let sent = Done::from(publish(&stage, "tiny-v1.0.0", &theirs.url).output().unwrap());
    sent.expect(0, &["is in the registry already"]);
    let ours = published(&mut publish(&stage, "tiny-v1.0.0", &stage.registry.url));
    assert_eq!(
        inspect(&stage, &theirs.url, "v1.0.0-nix", &["--config", "--raw"]),
        inspect(&stage, &stage.registry.url, "v1.0.0-nix", &["--config", "--raw"])
    );
    // Another client takes it whole, and compares every digest as it does.
    let folder = stage.path("pulled");
    let copy = [
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &reference(&stage.registry.url, "v1.0.0-nix"),
    ];
    run(stage.command("skopeo").args(copy).arg(format!("docker-archive:{}:x:y", folder.display())));
    assert!(folder.metadata().unwrap().len() > 20_000_000);
    assert_eq!(ours["digest"], stage.registry.digest(IMAGE, "v1.0.0-nix"));
    // Their layers are known again by what they are made of, though they are compressed in another way.
    change(&stage, "second", "tiny-v1.0.1");
    let proxy = Proxy::start(&theirs.url, |_, _, _| Fate::Fine);
    published(&mut publish(&stage, "tiny-v1.0.1", &proxy.url));
    assert!(proxy.sent() < 20_000, "{} bytes were sent", proxy.sent());
    assert_eq!(
        blobs(&theirs, "v1.0.0-nix").keys().filter(|digest| blobs(&theirs, "v1.0.1-nix").contains_key(*digest)).count(),
        blobs(&theirs, "v1.0.0-nix").len() - 2
    );
}

#[test]
fn only_what_changed_is_sent_and_nothing_is_read_for_the_rest() {
    let stage = stage();
    let proxy = Proxy::start(&stage.registry.url, |_, _, _| Fate::Fine);
    let first = published(&mut publish(&stage, "tiny-v1.0.0", &proxy.url));
    let needed: u64 = blobs(&stage.registry, "v1.0.0-nix").values().sum();
    let manifest = stage.registry.get(&format!("/v2/{IMAGE}/manifests/v1.0.0-nix")).len() as u64;
    assert_eq!(proxy.sent() as u64, needed + manifest);
    assert_eq!(first["sent"].as_u64(), Some(needed));
    let before = proxy.sent();
    let again = published(&mut publish(&stage, "tiny-v1.0.0", &proxy.url));
    assert_eq!((proxy.sent() - before, &again["digest"], &again["sent"]), (0, &first["digest"], &Value::from(0)));
    // The same image under another tag: a manifest.
    stage.git(&["tag", "tiny-v1.0.1"]);
    let other = published(&mut publish(&stage, "tiny-v1.0.1", &proxy.url));
    assert_eq!(((proxy.sent() - before) as u64, &other["digest"]), (manifest, &first["digest"]));
    let before = proxy.sent();
    change(&stage, "second", "tiny-v1.0.2");
    published(&mut publish(&stage, "tiny-v1.0.2", &proxy.url));
    assert!(proxy.sent() - before < 20_000, "{}", proxy.sent() - before);
    assert!(!proxy.seen().iter().any(|seen| seen.method == "GET" && seen.path.contains("uploads")));
}

#[test]
fn what_a_sister_image_has_is_taken_over_and_not_sent() {
    let stage = stage();
    published(&mut publish(&stage, "tiny-v1.0.0", &stage.registry.url));
    stage.write("containers/lonely/default.nix", &EXPRESSION.replace("blumeops/tiny", "blumeops/lonely"));
    stage.commit_and_push("a sister");
    stage.git(&["tag", "lonely-v1.0.0"]);
    let proxy = Proxy::start(&stage.registry.url, |_, _, _| Fate::Fine);
    published(&mut publish(&stage, "lonely-v1.0.0", &proxy.url));
    assert!(proxy.sent() < 20_000, "{} bytes were sent", proxy.sent());
    let mounted = proxy.seen().iter().filter(|seen| seen.path.contains("mount=") && seen.status == Some(201)).count();
    assert_eq!(mounted, blobs(&stage.registry, "v1.0.0-nix").len() - 1);
}

/// The registry sends who comes to a server that gives tokens, each for some repositories and for what is done there.
#[test]
fn a_registry_that_wants_tokens_gets_them() {
    let stage = stage();
    let tokens = TokenServer::start(&stage.path(""), "operator:correct-horse");
    let registry = Registry::start_with(&tokens.configuration());
    let publish_as = |tag: &str, password: &str| {
        let mut command = publish(&stage, tag, &registry.url);
        command.env("BLUMEOPS_REGISTRY_USERNAME", "operator").env("BLUMEOPS_REGISTRY_PASSWORD", password);
        Done::from(command.output().unwrap())
    };
    let refused = publish_as("tiny-v1.0.0", "wrong-battery").expect(2, &["/token?", "401", "gave no token"]);
    assert!(!refused.stderr.contains("wrong-battery"), "{}", refused.stderr);
    assert_eq!(tokens.asked(), [""; 0]);
    publish_as("tiny-v1.0.0", "correct-horse").expect(0, &[]);
    let asked = tokens.asked();
    let is_asked = |scope: &str| asked.iter().any(|question| question.ends_with(scope));
    assert!(is_asked("scope=repository:blumeops/tiny:pull"), "{asked:?}");
    // The registry names them in either order.
    let is_asked_for_both = ["pull,push", "push,pull"].map(|both| format!("scope=repository:blumeops/tiny:{both}"));
    assert!(is_asked_for_both.iter().any(|scope| is_asked(scope)), "{asked:?}");
    assert!(asked.len() < 12, "a token is asked for once, not for each request: {asked:?}");
    publish_as("tiny-v1.0.0", "correct-horse").expect(0, &["is in the registry already"]);
    tokens.asked();
    // To take a layer over one has to be let into both.
    stage.write("containers/sister/default.nix", &EXPRESSION.replace("blumeops/tiny", "blumeops/sister"));
    stage.commit_and_push("a sister");
    stage.git(&["tag", "sister-v1.0.0"]);
    let proxy = Proxy::start(&registry.url, |_, _, _| Fate::Fine);
    let mut sister = publish(&stage, "sister-v1.0.0", &proxy.url);
    sister.env("BLUMEOPS_REGISTRY_USERNAME", "operator").env("BLUMEOPS_REGISTRY_PASSWORD", "correct-horse");
    published(&mut sister);
    let asked = tokens.asked();
    let both = |question: &String| ["blumeops/sister:", "blumeops/tiny:"].iter().all(|name| question.contains(name));
    assert!(asked.iter().any(both), "{asked:?}");
    assert!(proxy.sent() < 100_000, "{} bytes were sent", proxy.sent());
}

#[test]
fn an_image_without_a_list_of_layers_is_read_from_its_archive() {
    let stage = stage();
    let plain = EXPRESSION.replace("\npkgs.dockerTools", "\nremoveAttrs (pkgs.dockerTools").replacen(
        "};\n}\n",
        "};\n}) [ \"stream\" ]\n",
        1,
    );
    stage.write("containers/tiny/default.nix", &plain);
    stage.commit_and_push("no stream");
    stage.git(&["tag", "tiny-v1.1.0"]);
    let archive = published(&mut publish(&stage, "tiny-v1.1.0", &stage.registry.url));
    assert!(archive["store_path"].as_str().unwrap().ends_with(".tar.gz"), "{archive}");
    stage.git(&["checkout", "--quiet", "tiny-v1.0.0"]);
    let other = Registry::start();
    let layers = published(&mut publish(&stage, "tiny-v1.0.0", &other.url));
    assert!(layers["store_path"].as_str().unwrap().ends_with("-conf.json"), "{layers}");
    assert_eq!((&archive["image_id"], &archive["digest"]), (&layers["image_id"], &layers["digest"]));
}

/// Once every engine that runs it reads zstd; what is there of gzip stays as it is.
#[test]
fn layers_are_of_zstd_where_every_cluster_reads_it() {
    let stage = stage();
    published(&mut publish(&stage, "tiny-v1.0.0", &stage.registry.url));
    let config = stage.read("xtask/blumeops.toml");
    stage.write("xtask/blumeops.toml", &config.replace("architecture =", "layers = \"zstd\"\narchitecture ="));
    change(&stage, "second", "tiny-v1.0.1");
    published(&mut publish(&stage, "tiny-v1.0.1", &stage.registry.url));
    let text = inspect(&stage, &stage.registry.url, "v1.0.1-nix", &["--raw"]);
    assert!(text.contains("layer.v1.tar+gzip") && text.matches("layer.v1.tar+zstd").count() == 1, "{text}");
    // An engine that reads gzip only gets what is of zstd anew.
    stage.write("xtask/blumeops.toml", &config);
    stage.commit_and_push("gzip again");
    stage.git(&["tag", "tiny-v1.0.2"]);
    let gzip = published(&mut publish(&stage, "tiny-v1.0.2", &stage.registry.url));
    assert!(!inspect(&stage, &stage.registry.url, "v1.0.2-nix", &["--raw"]).contains("zstd"));
    stage.git(&["checkout", "--quiet", "tiny-v1.0.1"]);
    let same = published(&mut publish(&stage, "tiny-v1.0.1", &stage.registry.url));
    assert_eq!((&same["image_id"], &same["sent"]), (&gzip["image_id"], &Value::from(0)));
    let to = format!("oci:{}:x", stage.path("pulled").display());
    let copy = [
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &reference(&stage.registry.url, "v1.0.1-nix"),
        &to,
    ];
    run(stage.command("skopeo").args(copy));
}

#[test]
fn two_at_once_both_succeed() {
    let stage = stage();
    let started = [0, 1].map(|_| publish(&stage, "tiny-v1.0.0", &stage.registry.url).spawn().unwrap());
    let done = started.map(|child| Done::from(child.wait_with_output().unwrap()).expect(0, &[]));
    let digest = stage.registry.digest(IMAGE, "v1.0.0-nix");
    assert!(done.iter().all(|done| done.stdout.contains(&digest)));
}

/// The bytes of the blobs that arrived: an upload of each ended well.
fn finished(seen: &[Seen], sizes: &BTreeMap<String, u64>) -> u64 {
    let done = seen.iter().filter(|seen| seen.method == "PUT" && seen.status == Some(201));
    done.filter_map(|seen| sizes.get(seen.path.split("digest=").nth(1)?)).sum()
}

/// Kills at every request that writes, before and after the registry has done it.
#[test]
fn killed_anywhere_and_run_again_nothing_that_has_arrived_is_sent_again() {
    let stage = stage();
    published(&mut publish(&stage, "tiny-v1.0.0", &stage.registry.url));
    let sizes = blobs(&stage.registry, "v1.0.0-nix");
    let digest = stage.registry.digest(IMAGE, "v1.0.0-nix");
    let manifest = stage.registry.get(&format!("/v2/{IMAGE}/manifests/v1.0.0-nix")).len() as u64;
    let needed: u64 = sizes.values().sum();
    let mut kills = 0;
    for late in [false, true] {
        for at in 1.. {
            let registry = Registry::start();
            let (pid, writes) = (Arc::new(AtomicU32::new(0)), AtomicUsize::new(0));
            let victim = Arc::clone(&pid);
            let proxy = Proxy::start(&registry.url, move |_, method, path| {
                let writes = if matches!(method, "POST" | "PATCH" | "PUT") && !path.contains("mount=") {
                    writes.fetch_add(1, Ordering::SeqCst) + 1
                } else {
                    0
                };
                if writes != at {
                    return Fate::Fine;
                }
                let kill_it = move |pid: u32| kill("KILL", pid);
                if late {
                    let pid = victim.load(Ordering::SeqCst);
                    std::thread::spawn(move || {
                        std::thread::sleep(std::time::Duration::from_millis(60));
                        kill_it(pid);
                    });
                    return Fate::Fine;
                }
                kill_it(victim.load(Ordering::SeqCst));
                Fate::Lost
            });
            let child = publish(&stage, "tiny-v1.0.0", &proxy.url).spawn().unwrap();
            pid.store(child.id(), Ordering::SeqCst);
            let code = child.wait_with_output().unwrap().status.code();
            if code == Some(0) {
                assert!(at > 10, "only {at} writes");
                break;
            }
            assert_eq!(code, None, "at {at}");
            kills += 1;
            // What is on its way to the registry arrives there.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let arrived = finished(&proxy.seen(), &sizes);
            let again = Proxy::start(&registry.url, |_, _, _| Fate::Fine);
            published(&mut publish(&stage, "tiny-v1.0.0", &again.url));
            assert_eq!(registry.digest(IMAGE, "v1.0.0-nix"), digest, "at {at}");
            let sent = again.sent() as u64;
            assert!(sent <= needed - arrived + manifest, "at {at}: {sent} sent, {arrived} of {needed} had arrived");
            assert!(proxy.sent() as u64 + sent <= 2 * (needed + manifest), "at {at}");
        }
    }
    assert!(kills > 20, "only {kills} kills");
}

/// Every request is refused, lost, torn or left without its answer, once.
#[test]
fn whatever_breaks_once_the_push_succeeds_and_gives_the_same_digest() {
    let stage = stage();
    let proxy = Proxy::start(&stage.registry.url, |_, _, _| Fate::Fine);
    let first = published(&mut publish(&stage, "tiny-v1.0.0", &proxy.url));
    let requests = proxy.seen().len();
    let needed = proxy.sent();
    let fates = [Fate::Refused(429), Fate::Refused(503), Fate::Lost, Fate::Torn, Fate::Unanswered];
    let cases: Vec<(Fate, usize)> = fates.iter().flat_map(|fate| (0..requests).map(|at| (*fate, at))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((fate, at)) = cases.get(next.fetch_add(1, Ordering::SeqCst)).copied() {
            let registry = Registry::start();
            let proxy = Proxy::start(&registry.url, move |number, _, _| if number == at { fate } else { Fate::Fine });
            let done = Done::from(publish(&stage, "tiny-v1.0.0", &proxy.url).output().unwrap());
            assert_eq!(done.code, Some(0), "{fate:?} at {at}: {}", done.stderr);
            assert!(done.stdout.contains(first["digest"].as_str().unwrap()), "{fate:?} at {at}: {}", done.stdout);
            // A layer of two chunks is sent anew when the registry has forgotten the first.
            assert!(proxy.sent() <= needed + 12_000_000, "{fate:?} at {at}: {} for {needed}", proxy.sent());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    assert!(requests > 20, "only {requests} requests");
}

#[test]
fn a_signal_ends_a_push_within_a_second_and_says_what_is_left() {
    let stage = stage();
    for signal in ["INT", "TERM"] {
        let registry = Registry::start();
        let asked = Arc::new(AtomicUsize::new(0));
        let writes = Arc::clone(&asked);
        let proxy = Proxy::start(&registry.url, move |_, method, _| {
            if method == "PUT" {
                writes.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_secs(30));
            }
            Fate::Fine
        });
        let child = publish(&stage, "tiny-v1.0.0", &proxy.url).spawn().unwrap();
        while asked.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let signalled = std::time::Instant::now();
        kill(signal, child.id());
        let done = Done::from(child.wait_with_output().unwrap());
        assert!(signalled.elapsed() < std::time::Duration::from_secs(1), "{:?}", signalled.elapsed());
        done.expect(130, &["interrupted", "stay in the registry", "the same command again"]);
    }
}
