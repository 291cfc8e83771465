//! Where the faults happen: stages that are prepared once and copied for each case, programs that can go wrong.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tempfile::TempDir;

use super::subjects::{Start, Subject};
use crate::stage::{Done, Stage, run};
use crate::stand_ins::StandIn;
use crate::wrong::{Fault, Plan, Proxy, locked};

/// Every program that is found at all: what is not among them can't be started, so none goes uncounted.
const PROGRAMS: [&str; 7] = ["git", "nix-instantiate", "nix-build", "nix-store", "skopeo", "kustomize", "setpriv"];

/// Those that change nothing that a release undoes. Their real answers are recorded once and given again.
const ANSWERED: [&str; 3] = ["nix-instantiate", "nix-build", "nix-store"];

/// The most seconds that a command or request may take, where something hangs.
const PATIENCE: &str = "3";

/// The same of a command that calls this program again, which takes as long as all that it does.
const PATIENCE_WITH_A_CALL: &str = "20";

/// An Application that is planned, and a Deployment of it that renders.
const PLANNED: &str = r#"
//- argocd/manifests/one/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: one}
spec:
  selector: {matchLabels: {app: one}}
  template:
    metadata: {labels: {app: one}}
    spec: {containers: [{name: a, image: "registry.example/blumeops/tiny:kustomized"}]}
"#;

/// The system calls that change files, as strace has them.
const WRITES: &str = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,fsync,fchmod,chmod,ftruncate";

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

const FAULTS: &str = include_str!("../../../stand-ins/faults.sh");

/// What all cases share.
pub(super) struct Grounds {
    folder: TempDir,
    /// Nothing is done.
    fresh: Stage,
    /// The tag is pushed, and the runner has it checked out.
    tagged: Stage,
    /// The image is in the registry too.
    published: Stage,
    /// The digest that the image has.
    pub(super) digest: String,
    /// Each user's kustomization once it is pinned.
    pins: [(&'static str, String); 2],
    /// How often HEAD was moved before.
    pub(super) commits: usize,
}

/// Which command, request or write of a run goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// The program and which call of it, as `git-7`.
    Command(String),
    Request(usize),
    /// The calls that change a file, as far as the one that goes wrong.
    Write(Vec<String>),
}

/// A copy of a stage with everything around it that can go wrong.
pub(super) struct Trial<'a> {
    grounds: &'a Grounds,
    subject: &'a Subject,
    pub(super) stage: Stage,
    pub(super) plan: Arc<Plan>,
    registry: Proxy,
    forge: Option<(StandIn, Proxy)>,
}

impl Grounds {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "plain"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let fresh = Stage::new();
        fresh.write_files(PLANNED);
        let configuration = "xtask/blumeops.toml";
        fresh.write(configuration, &(fresh.read(configuration) + "[plans.one]\ncontainers = [\"tiny\"]\n"));
        fresh.commit_and_push("a plan");
        fresh.git(&["remote", "set-url", "origin", "../forge.git"]);
        // How often the remote's refs were moved is then known to the remote itself.
        fresh.forge(&["config", "core.logAllRefUpdates", "always"]);
        record(&fresh, folder.path());
        for program in PROGRAMS {
            let answers = folder.path().join("plain").join(program);
            let real = if ANSWERED.contains(&program) { answers.clone() } else { which(program) };
            if real != answers {
                std::os::unix::fs::symlink(&real, answers).unwrap();
            }
            let tools =
                ["cat", "head", "sleep", "wc"].map(|tool| format!("{tool}={}\n", which(tool).display())).concat();
            script(&folder.path().join("bin").join(program), &format!("real={}\n{tools}{FAULTS}", real.display()));
        }
        let tagged = fresh.copy();
        tagged.git(&["tag", "-a", "tiny-v1.0.0", "-m", "tiny v1.0.0"]);
        tagged.git(&["push", "--quiet", "origin", "tiny-v1.0.0"]);
        let quiet = ["-c", "advice.detachedHead=false", "clone", "--quiet", "--branch", "tiny-v1.0.0"];
        run(tagged.command("git").args(quiet).args([tagged.path("forge.git"), tagged.path("runner")]));
        let published = tagged.copy();
        run(published.xtask(&["publish", "tiny-v1.0.0"]).current_dir(published.path("runner")));
        let digest = published.registry.digest("blumeops/tiny", "v1.0.0-nix");
        let pinned = published.copy();
        pinned.run(&["pin", "tiny", "v1.0.0"]).expect(0, &[]);
        let pins =
            ["one", "two"].map(|user| (user, pinned.read(&format!("argocd/manifests/{user}/kustomization.yaml"))));
        let commits = commits(&fresh);
        Self { folder, fresh, tagged, published, digest, pins, commits }
    }

    pub(super) fn pinned(&self, user: &str) -> &str {
        let (_, text) = self.pins.iter().find(|(name, _)| *name == user).expect("a user");
        text
    }

    pub(super) fn trial<'a>(&'a self, subject: &'a Subject) -> Trial<'a> {
        let stage = match subject.start {
            Start::Fresh => &self.fresh,
            Start::Tagged => &self.tagged,
            Start::Published => &self.published,
        }
        .copy();
        fs::create_dir(stage.path("faults")).unwrap();
        let plan = Arc::<Plan>::default();
        let registry = Proxy::before(&stage.registry.url, &plan);
        let forge = subject.waits.then(|| {
            let forge = self.forge(&stage);
            let proxy = Proxy::before(&forge.url, &plan);
            (forge, proxy)
        });
        Trial { grounds: self, subject, stage, plan, registry, forge }
    }

    /// Forgejo, whose runner has pushed the image by the time that it is first asked.
    fn forge(&self, stage: &Stage) -> StandIn {
        let (from, into) = (self.published.registry.storage(), stage.registry.storage());
        let commit = stage.git(&["rev-parse", "HEAD"]);
        let run = format!(
            r#"{{"workflow_runs":[{{"id":7,"status":"running","commit_sha":"{}","prettyref":"tiny-v1.0.0"}}]}}"#,
            commit.trim()
        );
        StandIn::serve(move |_| {
            if !into.join("docker").is_dir() {
                copy(&from, &into);
            }
            (200, run.clone())
        })
    }
}

/// Runs the real programs once and makes scripts that answer the same.
fn record(stage: &Stage, folder: &Path) {
    // Each call has files of its own, named after its arguments without the place where it was made.
    let key = "key=${*//$PWD/here}; key=${key//[^a-zA-Z0-9]/-}; key=${key: -60}";
    let recorder = |program: &str| {
        let place = folder.join(program);
        let keep = format!("at={}$key; \"$real\" \"$@\" > \"$at.out\" 2> \"$at.err\"; code=$?", place.display());
        format!("{key}\n{keep}; cat \"$at.out\"; cat \"$at.err\" >&2; echo \"exit $code\" > \"$at.code\"; exit $code")
    };
    for program in ANSWERED {
        stage.shadow(program, &recorder(program));
    }
    let copy = stage.copy();
    let release = ["release", "tiny", "v1.0.0", "--here", "--commit"];
    run(copy.xtask(&release).env("PATH", copy.shadowed_path()));
    // What is known of an image that was looked into once; the answers are those of the stage's own copy.
    run(stage.command("cp").arg("-a").arg(copy.path("cache")).arg(stage.path("cache")));
    fs::remove_dir_all(stage.path("shadow")).unwrap();
    let (root, sed, cat) = (copy.clone_folder(), which("sed"), which("cat"));
    for program in ANSWERED {
        let (at, root) = (folder.join(program), root.display());
        let (sed, cat, at) = (sed.display(), cat.display(), at.display());
        let answer =
            format!("at={at}$key\n{sed} \"s|{root}|$PWD|g\" \"$at.err\" >&2\n{cat} \"$at.out\"\n. \"$at.code\"");
        script(&folder.join("plain").join(program), &format!("{key}\n{answer}"));
    }
}

/// How often HEAD was moved.
pub(super) fn commits(stage: &Stage) -> usize {
    fs::read_to_string(stage.path("clone/.git/logs/HEAD")).unwrap_or_default().lines().count()
}

/// The system call in a line of a trace.
fn call(line: &str) -> Option<String> {
    line.split_once('(')
        .filter(|(name, _)| WRITES.split(',').any(|known| known == *name))
        .map(|(name, _)| name.to_owned())
}

fn which(program: &str) -> PathBuf {
    crate::around::tool(program)
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/bash\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Copies what is in a folder.
pub(super) fn copy(from: &Path, into: &Path) {
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(into));
}

impl Trial<'_> {
    /// Runs the command with nothing wrong, where `spot` is nothing; else with that fault.
    pub(super) fn run(&self, wrong: Option<(&Spot, Fault)>) -> Done {
        let mut command = match wrong {
            Some((Spot::Write(calls), fault)) => self.traced(calls, fault),
            _ => self.stage.xtask(self.subject.arguments),
        };
        let bin =
            self.grounds.folder.path().join(if matches!(wrong, Some((Spot::Command(_), _))) { "bin" } else { "plain" });
        self.environment(&mut command, &bin);
        if let Some((spot, fault)) = wrong {
            if let Spot::Command(at) = spot {
                command.env("FAULT_AT", at).env("FAULT", fault.word());
            }
            if self.subject.calls_itself {
                command.env("BLUMEOPS_PATIENCE", PATIENCE_WITH_A_CALL);
            } else if matches!(fault, Fault::Hangs(_)) {
                command.env("BLUMEOPS_PATIENCE", PATIENCE);
            }
        }
        *locked(&self.plan.fault) = match wrong {
            Some((Spot::Request(at), fault)) => Some((*at, fault)),
            _ => None,
        };
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        *locked(&self.plan.victim) = Some(Pid::from_child(&child));
        self.done(child)
    }

    /// Waits for its end. Until it is waited for its number is nobody else's.
    fn done(&self, mut child: Child) -> Done {
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (mut data, mut talk) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| stderr.read_to_end(&mut talk).unwrap());
            stdout.read_to_end(&mut data).unwrap();
        });
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap();
        *locked(&self.plan.victim) = None;
        std::process::Output { status: child.wait().unwrap(), stdout: data, stderr: talk }.into()
    }

    fn environment(&self, command: &mut Command, bin: &Path) {
        command.current_dir(self.stage.path(self.subject.folder)).env("PATH", bin);
        command.env("FAULTS", self.stage.path("faults")).env("BLUMEOPS_REGISTRY_URL", &self.registry.url);
        if let Some((_, proxy)) = &self.forge {
            command.env("BLUMEOPS_FORGE_URL", &proxy.url);
        }
    }

    /// With the last of these calls made to fail. strace counts each kind of call for itself.
    fn traced(&self, calls: &[String], fault: Fault) -> Command {
        let count = |name: &str| calls.iter().filter(|call| *call == name).count();
        let (last, before) = calls.split_last().expect("a call");
        let at = count(last);
        let mut command = self.strace();
        let mut inject = |how: String| {
            command.args(["-e", &format!("inject={how}")]);
        };
        match fault {
            Fault::Killed(_) => inject(format!("{last}:signal=KILL:when={at}")),
            Fault::Interrupted(_) => inject(format!("{last}:signal=INT:when={at}")),
            Fault::Gone => WRITES.split(',').for_each(|name| {
                let from = before.iter().filter(|call| *call == name).count() + 1;
                inject(format!("{name}:error=ENOSPC:when={from}+"));
            }),
            _ => inject(format!("{last}:error=EIO:when={at}")),
        }
        command.args(self.program());
        command
    }

    /// Only the main thread is looked at: it is the one that writes.
    fn strace(&self) -> Command {
        let mut command = self.stage.command(which("strace").to_str().unwrap());
        command.arg("-o").arg(self.trace()).args(["-e", &format!("trace={WRITES}")]);
        command
    }

    fn program(&self) -> Vec<&str> {
        std::iter::once(XTASK).chain(self.subject.arguments.iter().copied()).collect()
    }

    fn trace(&self) -> PathBuf {
        self.stage.path("faults/trace")
    }

    /// What the fault came to; nothing where it never came.
    pub(super) fn came_to(&self, spot: &Spot) -> Option<String> {
        match spot {
            Spot::Command(_) => fs::read_to_string(self.stage.path("faults/came")).ok(),
            Spot::Request(at) => {
                let seen = locked(&self.plan.seen);
                self.plan.came.load(Ordering::SeqCst).then(|| seen[*at].0.clone())
            }
            Spot::Write(calls) => {
                let trace = fs::read_to_string(self.trace()).unwrap_or_default();
                trace.lines().filter(|line| call(line).is_some()).nth(calls.len() - 1).map(str::to_owned)
            }
        }
    }

    /// Runs once with nothing wrong; gives every spot where something could be, and whether it answers anything.
    pub(super) fn spots(&self) -> Vec<(Spot, bool)> {
        let mut command = self.strace();
        command.args(self.program());
        self.environment(&mut command, &self.grounds.folder.path().join("bin"));
        command.env("FAULT_AT", "").env("FAULT", "none");
        run(&mut command);
        let trace = fs::read_to_string(self.trace()).unwrap();
        fs::remove_file(self.trace()).unwrap();
        let writes: Vec<String> = trace.lines().filter_map(call).collect();
        let mut spots = Vec::new();
        for entry in fs::read_dir(self.stage.path("faults")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if let Some(call) = name.strip_prefix("answer-") {
                spots.push((Spot::Command(call.to_owned()), entry.metadata().unwrap().len() > 0));
            }
        }
        let seen = locked(&self.plan.seen);
        spots.extend(seen.iter().enumerate().map(|(at, (_, answers))| (Spot::Request(at), *answers)));
        // Of several that are asked at once now one is the first and now another: how many answer stays the same.
        spots.sort_by_key(|(spot, answers)| (matches!(spot, Spot::Request(_)), *answers, format!("{spot:?}")));
        spots.extend((1..=writes.len()).map(|at| (Spot::Write(writes[..at].to_vec()), false)));
        spots
    }
}
