//! A throw-away repository with a forge, a clone, a registry and an environment of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The smallest repository that has everything a release touches: one container, two users of its image.
const REPOSITORY: &str = r#"
//- containers/tiny/default.nix
{ pkgs ? import <nixpkgs> { } }:
pkgs.dockerTools.buildLayeredImage {
  name = "blumeops/tiny";
  tag = "latest";
  contents = [ pkgs.dockerTools.fakeNss ];
  config = {
    Entrypoint = [ "/bin/tiny" ];
    User = "65534";
    ExposedPorts = { "8000/tcp" = { }; };
  };
}
//- containers/lonely/default.nix
{ pkgs ? import <nixpkgs> { } }:
pkgs.dockerTools.buildLayeredImage { name = "blumeops/lonely"; tag = "latest"; config = { }; }
//- argocd/apps/one.yaml
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: one, namespace: argocd}
spec:
  source: {repoURL: x, path: argocd/manifests/one, targetRevision: main}
  destination: {server: "https://ringtail.example:6443", namespace: one}
//- argocd/manifests/one/kustomization.yaml
resources: [deployment.yaml]
images:
  - name: registry.example/blumeops/tiny   # pinned by the release
//- argocd/manifests/one/deployment.yaml
kind: Deployment
spec: {template: {spec: {containers: [{name: a, image: "registry.example/blumeops/tiny:kustomized"}]}}}
//- argocd/manifests/two/kustomization.yaml
resources: [deployment.yaml]
images:
- {name: registry.example/blumeops/tiny}
//- argocd/manifests/two/deployment.yaml
kind: Deployment
spec: {template: {spec: {containers: [{name: a, image: "registry.example/blumeops/tiny:kustomized"}]}}}
//- xtask/blumeops.toml
[registry]
host = "registry.example"
namespace = "blumeops"
[forge]
repository = "eblume/blumeops"
[clusters.ringtail]
server = "https://ringtail.example:6443"
architecture = "ARCH"
//- .forgejo/workflows/build-container-nix.yaml
jobs: {publish: {steps: [{run: 'cargo xtask publish "$GITHUB_REF_NAME"'}]}}
"#;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// What the stand-in vault holds.
pub(crate) const SECRET: &str = "hunter2-of-the-vault";

/// Everything that a test needs, gone when dropped.
pub(crate) struct Stage {
    folder: TempDir,
    pub(crate) registry: Registry,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Done {
    /// Wants this exit code and all of these words on stderr.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no «{word}» in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self::empty();
        stage.write_files(&REPOSITORY.replace("ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }));
        stage.set_up();
        stage
    }

    /// This repository, as it is in the work tree.
    pub(crate) fn of_this_repository() -> Self {
        let stage = Self::empty();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let names = run(Command::new("git").current_dir(root).args(list));
        for name in names.split('\0').filter(|name| root.join(name).is_file()) {
            let target = stage.clone_folder().join(name);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(root.join(name), target).unwrap();
        }
        stage.set_up();
        stage
    }

    /// A repository of exactly these files.
    pub(crate) fn of(files: &str) -> Self {
        let stage = Self::empty();
        stage.write_files(files);
        stage.set_up();
        stage
    }

    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), registry: Registry::start() }
    }

    /// The same again elsewhere: files, remote, caches, and what the registry has.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::empty();
        run(Command::new("cp").arg("-a").arg(self.path(".")).arg(copy.path("")));
        run(Command::new("cp").arg("-a").arg(self.registry.storage().join(".")).arg(copy.registry.storage()));
        copy
    }

    fn set_up(&self) {
        let home = "[user]\n\tname = tester\n\temail = tester@localhost\n[init]\n\tdefaultBranch = main\n";
        fs::create_dir_all(self.path("home")).unwrap();
        fs::write(self.path("home/.gitconfig"), home).unwrap();
        self.git(&["init", "--quiet"]);
        self.commit("a repository");
        run(self.command("git").args(["init", "--quiet", "--bare"]).arg(self.path("forge.git")));
        self.git(&["remote", "add", "origin", self.path("forge.git").to_str().unwrap()]);
        self.git(&["push", "--quiet", "-u", "origin", "main"]);
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub(crate) fn clone_folder(&self) -> PathBuf {
        self.path("clone")
    }

    /// Writes files of the clone; `//- path` starts each.
    pub(crate) fn write_files(&self, text: &str) {
        for part in text.split("//- ").skip(1) {
            let (path, body) = part.split_once('\n').unwrap();
            self.write(path, body);
        }
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.clone_folder().join(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.clone_folder().join(relative)).unwrap()
    }

    /// A command in the clone, with nothing of the machine's own settings in its environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let nix_config = "sandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64 /etc/ld.so.cache\nbuild-users-group =\nsubstituters =";
        command
            .env_clear()
            .current_dir(if self.clone_folder().is_dir() { self.clone_folder() } else { self.folder.path().into() })
            .env("PATH", path())
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.folder.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("BLUMEOPS_REGISTRY_URL", &self.registry.url)
            .env("BLUMEOPS_FORGE_URL", "none")
            // One store for all tests: what is built once is not built again.
            .env("NIX_REMOTE", format!("local?root={}", nix_root().display()))
            .env("NIX_PATH", format!("nixpkgs={}/stand-ins/nixpkgs", env!("CARGO_MANIFEST_DIR")))
            .env("NIX_CONFIG", nix_config)
            .stdin(Stdio::null());
        command
    }

    /// The program under test.
    pub(crate) fn xtask(&self, args: &[&str]) -> Command {
        let mut command = self.command(XTASK);
        command.args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.xtask(args).output().unwrap().into()
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        run(self.command("git").current_dir(self.clone_folder()).args(args))
    }

    pub(crate) fn forge(&self, args: &[&str]) -> String {
        run(self.command("git").current_dir(self.path("forge.git")).args(args))
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    pub(crate) fn commit_and_push(&self, message: &str) {
        self.commit(message);
        self.git(&["push", "--quiet", "origin", "HEAD:main"]);
    }

    /// What the forge's runner does for `tag`: a checkout of its own, and `publish`.
    pub(crate) fn publish(&self, tag: &str) -> Done {
        let folder = self.path(&format!("runner-{tag}"));
        if !folder.is_dir() {
            run(self
                .command("git")
                .args(["-c", "advice.detachedHead=false", "clone", "--quiet", "--branch", tag])
                .args([self.path("forge.git"), folder.clone()]));
        }
        self.xtask(&["publish", tag]).current_dir(folder).output().unwrap().into()
    }

    /// Everything that a release may change: work tree, refs here and there, registry.
    pub(crate) fn state(&self) -> String {
        let files = self.git(&["ls-files", "--cached", "--others", "--stage"]);
        let changes = self.git(&["status", "--porcelain=v1", "--ignored"]) + &self.git(&["diff", "HEAD"]);
        let refs = self.git(&["for-each-ref"]) + &self.forge(&["for-each-ref"]);
        format!("{files}\n{changes}\n{refs}\n{}", self.registry.state())
    }

    /// Puts a program in front of the real ones; `$real` in it is the one behind.
    pub(crate) fn shadow(&self, program: &str, script: &str) {
        let real = which::which(program).unwrap_or_else(|_| panic!("{program} is missing: cargo xtask setup"));
        let path = self.path("shadow").join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/bash\nreal={}\n{script}\n", real.display())).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Puts a stand-in of a program that this machine does not need to have first on the shadowed PATH.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.path("shadow").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// A stand-in for `op`: every item has these fields, each with [`SECRET`], and a reference reads as it.
    pub(crate) fn vault(&self, labels: &[&str]) {
        let field = |label: &&str| format!(r#"{{"label":"{label}","value":"{SECRET}"}}"#);
        let fields: Vec<String> = labels.iter().map(field).collect();
        let fields = fields.join(",");
        self.op(&format!(
            "case $1 in read) echo {SECRET} ;; *) echo '{{\"fields\":[{fields}]}}'; echo {SECRET} >&2 ;; esac"
        ));
    }

    /// `op` is this script; how it is called is told by [`Self::asked_of_op`].
    pub(crate) fn op(&self, script: &str) {
        self.program("op", &format!("echo \"$*\" >> {}\n{script}", self.path("op.log").display()));
    }

    pub(crate) fn asked_of_op(&self) -> String {
        fs::read_to_string(self.path("op.log")).unwrap_or_default()
    }

    /// PATH with the shadows first.
    pub(crate) fn shadowed_path(&self) -> String {
        format!("{}:{}", self.path("shadow").display(), path())
    }

    /// One tag, one image, one pin in both users, committed once, nothing left over.
    #[track_caller]
    pub(crate) fn assert_released(&self, version: &str) {
        let tag = format!("tiny-{version}");
        assert_eq!(self.forge(&["tag", "--list"]).trim(), tag);
        assert_eq!(self.registry.tags("blumeops/tiny"), [format!("{version}-nix")]);
        let digest = self.registry.digest("blumeops/tiny", &format!("{version}-nix"));
        for user in ["one", "two"] {
            let text = self.read(&format!("argocd/manifests/{user}/kustomization.yaml"));
            assert_eq!(text.matches(&format!("newTag: {version}-nix")).count(), 1, "{text}");
            assert_eq!(text.matches(&format!("digest: {digest}")).count(), 1, "{text}");
        }
        assert_eq!(self.git(&["log", "--format=%s", "origin/main..HEAD"]).trim(), format!("Pin tiny to {version}-nix"));
        assert_eq!(self.git(&["status", "--porcelain=v1", "--ignored"]), "");
        self.assert_nothing_runs();
    }

    /// No process of this stage but its registry is alive.
    #[track_caller]
    pub(crate) fn assert_nothing_runs(&self) {
        let marker = format!("XDG_CACHE_HOME={}", self.path("cache").display());
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = processes_with(&marker);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still running: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The store that the tests share. It is made once: two that make it at once get in each other's way.
pub(crate) fn nix_root() -> PathBuf {
    static MADE: std::sync::Once = std::sync::Once::new();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nix");
    MADE.call_once(|| {
        run(Command::new("nix-store").arg("--init").env("NIX_REMOTE", format!("local?root={}", root.display())));
    });
    root
}

/// Processes whose environment holds `marker`.
fn processes_with(marker: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ours = entries.filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
    });
    ours.map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
}

/// Sends a signal.
pub(crate) fn kill(signal: &str, pid: impl std::fmt::Display) {
    // The shell's own: a small Debian has no program of that name.
    run(Command::new("sh").args(["-c", &format!("kill -s {signal} -- {pid}")]));
}

/// Runs to success; the output is its stdout.
#[track_caller]
/// PATH, and what `setup` has brought: a stage's own cache is empty.
pub(crate) fn path() -> String {
    let home = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap()));
    format!("{}:{home}/blumeops-xtask/tools/bin", std::env::var("PATH").unwrap())
}

/// Runs to success; the output is its stdout.
pub(crate) fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; try `cargo xtask setup`"));
    let done = Done::from(output);
    assert_eq!(done.code, Some(0), "{program}: {}{}", done.stdout, done.stderr);
    done.stdout
}

/// A real OCI registry on loopback.
pub(crate) struct Registry {
    pub(crate) url: String,
    folder: TempDir,
    child: Child,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The registry of a kept rehearsal.
    pub(crate) fn serve(configuration: &Path) -> Self {
        let text = fs::read_to_string(configuration).unwrap();
        let (_, port) = text.split_once("127.0.0.1:").expect("an address");
        let port = port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        Self::start_at(configuration, port, tempfile::tempdir().unwrap())
    }

    /// With more configuration, as lines of YAML; `FOLDER` in it is the registry's own.
    pub(crate) fn start_with(more: &str) -> Self {
        Self::start_as("", more)
    }

    /// With more configuration of its storage.
    pub(crate) fn start_with_storage(storage: &str) -> Self {
        Self::start_as(&format!(", {storage}"), "")
    }

    fn start_as(storage: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blobs")).unwrap();
        let port = free_port();
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: FOLDER/blobs}}{storage}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{more}"
        );
        let file = folder.path().join("registry.yml");
        fs::write(&file, configuration.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
        Self::start_at(&file, port, folder)
    }

    fn start_at(file: &Path, port: u16, folder: TempDir) -> Self {
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is missing: cargo xtask setup --yes --for tests");
        wait_for_port(port);
        Self { url: format!("http://127.0.0.1:{port}"), folder, child }
    }

    /// Where it keeps everything.
    pub(crate) fn storage(&self) -> PathBuf {
        self.folder.path().join("blobs")
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let mut response = ureq::get(format!("{}{path}", self.url))
            .header("accept", "application/vnd.docker.distribution.manifest.v2+json")
            .call()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        response.body_mut().read_to_string().unwrap()
    }

    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(&self.get(&format!("/v2/{repository}/tags/list"))).unwrap();
        serde_json::from_value(value["tags"].clone()).unwrap()
    }

    pub(crate) fn digest(&self, repository: &str, tag: &str) -> String {
        use sha2::Digest as _;
        let manifest = self.get(&format!("/v2/{repository}/manifests/{tag}"));
        format!("sha256:{}", base16(&sha2::Sha256::digest(manifest)))
    }

    /// Every file below its storage that names something: repositories, tags and their digests.
    fn state(&self) -> String {
        let mut lines = Vec::new();
        list(&self.storage(), &mut lines);
        lines.retain(|line| line.contains("_manifests"));
        lines.sort();
        lines.join("\n")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn base16(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn list(folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            list(&entry.path(), lines);
        } else {
            lines.push(entry.path().display().to_string());
        }
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
pub(crate) fn wait_for_port(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
