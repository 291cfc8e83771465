//! What the whole check costs beside the kustomize processes alone: `cargo bench --bench check`.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark starts programs and fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// An odd number, so that there is a middle one.
const ROUNDS: usize = 15;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifests = std::fs::read_dir(root.join("argocd/manifests")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = manifests.filter(|folder| folder.join("kustomization.yaml").is_file()).collect();
    let cache = tempfile::tempdir().unwrap();
    let kustomize_at = installed();
    let path = kustomize_at.parent().unwrap().to_str().unwrap().to_owned() + ":" + &std::env::var("PATH").unwrap();
    let check = || check(root, cache.path(), &path);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let own = cache.path().join("blumeops-xtask/render");
        drop(std::fs::remove_dir_all(own));
        times[0].push(timed(|| kustomize(&kustomize_at, &folders)));
        times[1].push(timed(check));
        times[2].push(timed(check));
    }
    let [alone, cold, warm] = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2].as_secs_f64()
    });
    println!("median of {ROUNDS} rounds over {} folders", folders.len());
    println!("kustomize alone, in parallel  {alone:.3} s");
    println!("check, cold                   {cold:.3} s  {:.2} of it", cold / alone);
    println!("check, nothing changed        {warm:.3} s  {:.2} of it", warm / alone);
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// On PATH, or where `setup` puts it; the rounds have a cache of their own, in which no program is.
fn installed() -> PathBuf {
    let home = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.cache");
    let ours = Path::new(&home).join("blumeops-xtask/tools/bin/kustomize");
    which::which("kustomize").or_else(|_| which::which(ours)).expect("cargo xtask setup --yes --for check")
}

/// As many at once as the check runs.
fn kustomize(program: &Path, folders: &[PathBuf]) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(folder) = folders.get(next.fetch_add(1, Ordering::SeqCst)) {
            let status = Command::new(program).arg("build").arg(folder).stdout(Stdio::null()).status();
            assert!(status.unwrap().success());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(work);
        }
    });
}

fn check(root: &Path, cache: &Path, path: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("check").current_dir(root).env("XDG_CACHE_HOME", cache).env("PATH", path);
    let status = command.stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "the check fails");
}
