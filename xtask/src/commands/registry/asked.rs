//! Everybody who may use an image is asked: this checkout, git here and on the remote, and every cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;

use super::Context;
use crate::commands::diff;
use crate::exec::workspace::Workspace;
use crate::exec::{fs, parallel};
use crate::model::config::Cluster;
use crate::model::digest::Digest;
use crate::model::failure::{Failure, Kind};
use crate::model::finding::Finding;
use crate::model::image::Home;
use crate::model::kustomization::{FILE_NAMES, ImageEntry, Kustomization};
use crate::model::repo::Repo;
use crate::model::source::Source;
use crate::model::tag::{BuildKind, GitTag, ImageTag};
use crate::model::uses::{self, Pin, Uses};
use crate::tools::{Invocation, git, kubectl};

/// Everything that runs images, or will when its time or its scale comes.
const WORKLOADS: &str =
    "pods,deployments.apps,statefulsets.apps,daemonsets.apps,jobs.batch,cronjobs.batch,replicationcontrollers";

/// A list of all of them.
const LIST: Duration = Duration::from_secs(30);

/// Trees are unpacked; more at once would only wait for the disk.
const AT_ONCE: usize = 4;

/// What everybody has said.
pub(super) struct Asked {
    pub(super) uses: Uses,
    /// Every digest that main has ever pinned: some may be there without a tag.
    pub(super) pinned: BTreeSet<Digest>,
    /// Who was asked, in words.
    pub(super) who: Vec<String>,
}

/// One commit that a branch ends with.
struct Tip {
    commit: String,
    branch: String,
}

/// Asks everybody.
///
/// # Errors
/// Somebody could not be asked; all of them are named.
pub(super) fn everybody(cx: &Context, home: &Home, keep: usize) -> Result<Asked> {
    let mut stage = cx.report.stage("ask");
    stage.update(&format!("git, and {} clusters", cx.repo.config.clusters.len()));
    let (clusters, git) = std::thread::scope(|scope| {
        let clusters =
            scope.spawn(|| parallel::map(&cx.repo.config.clusters, AT_ONCE, |cluster| cluster_uses(cx, cluster)));
        (clusters_of(clusters), of_git(cx, home, keep))
    });
    let mut missing = Vec::new();
    let mut uses = uses::of_repository(&cx.repo, home, "");
    missing.extend(unread(&cx.repo, "this checkout"));
    let mut who = vec!["this checkout".to_owned()];
    let mut pinned = BTreeSet::new();
    match git {
        Ok(git) => {
            uses.extend(git.uses);
            missing.extend(git.missing);
            pinned = git.pinned;
            who.extend(git.who);
        }
        Err(error) => missing.push(not_asked("git", error)?),
    }
    if cx.repo.config.clusters.is_empty() {
        let why = Finding::environment("not-asked", "no cluster is named, so nobody can say what runs");
        missing.push(why.help(format!("write [clusters.…] into {}", crate::model::config::PATH)));
    }
    for (cluster, answer) in cx.repo.config.clusters.iter().zip(clusters?) {
        match answer {
            Ok((found, objects)) => {
                uses.extend(found);
                who.push(format!("{} ({objects} objects)", cluster.name));
            }
            Err(error) => missing.push(not_asked(&cluster.name, error)?),
        }
    }
    if missing.is_empty() {
        stage.done(&who.join(", "));
        return Ok(Asked { uses, pinned, who });
    }
    let summary = "nothing was judged: not everybody who may use an image could be asked";
    Err(Failure::of_findings(summary, missing).left("the registry is as it was").into())
}

type Answers = Vec<Result<(Uses, usize)>>;

fn clusters_of(handle: std::thread::ScopedJoinHandle<'_, Answers>) -> Result<Answers> {
    handle.join().map_err(|_| Failure::environment("asking the clusters failed").into())
}

/// Who was not asked and why; an interruption stays one.
fn not_asked(who: &str, error: anyhow::Error) -> Result<Finding> {
    let failure = error.downcast::<Failure>()?;
    if failure.kind == Kind::Interrupted {
        return Err(failure.into());
    }
    let tail = failure.tail.last().map_or_else(String::new, |line| format!(" ({line})"));
    let finding = Finding::environment("not-asked", format!("{who} could not be asked: {}{tail}", failure.summary));
    Ok(match failure.next {
        Some(next) => finding.help(next),
        None => finding,
    })
}

/// What a cluster runs.
fn cluster_uses(cx: &Context, cluster: &Cluster) -> Result<(Uses, usize)> {
    let context = cluster.context().map_err(|why| Failure::environment(why).next("kubectl config get-contexts"))?;
    let output = cx.system.output(&kubectl::list(context, LIST, WORKLOADS, None))?;
    if !output.success() {
        return Err(Failure::environment(kubectl::reasons(&output.stderr).join("; ")).into());
    }
    let objects = kubectl::parse_list(&output.stdout).map_err(Failure::environment)?;
    let pods = objects.iter().filter(|object| object["kind"] == "Pod").count();
    if pods == 0 {
        // No cluster runs nothing: these credentials see nothing, or it is not the cluster that is meant.
        return Err(Failure::environment("it says that it runs no pod at all").into());
    }
    Ok((uses::of_objects(&objects, &cluster.name), objects.len()))
}

/// What git has said.
struct OfGit {
    uses: Uses,
    missing: Vec<Finding>,
    pinned: BTreeSet<Digest>,
    who: Vec<String>,
}

fn of_git(cx: &Context, home: &Home, keep: usize) -> Result<OfGit> {
    let (remote, branch) = (&cx.repo.config.forge.remote, &cx.repo.config.forge.branch);
    let ask = |invocation: &Invocation, what: &str| cx.system.stdout(invocation, what);
    let shallow = ask(&git::is_shallow(), "this is no git checkout")?;
    if shallow.trim() == "true" {
        return Err(Failure::environment("this clone does not have the whole history")
            .next("git fetch --unshallow")
            .into());
    }
    let answer = ask(&git::ls_remote_all(remote), &format!("{remote} does not answer"))?;
    let heads = git::parse_heads(&answer);
    let main = heads.get(branch).ok_or_else(|| Failure::environment(format!("{remote} has no branch {branch}")))?;
    let tips = tips(cx, &heads)?;
    let workspace = Workspace::new("blumeops-branches-", false)?;
    let mut git = OfGit { uses: Uses::default(), missing: Vec::new(), pinned: BTreeSet::new(), who: Vec::new() };
    for (tip, answer) in tips.iter().zip(parallel::map(&tips, AT_ONCE, |tip| tip_uses(cx, tip, (home, &workspace)))) {
        match answer {
            Ok((uses, missing)) => {
                git.uses.extend(uses);
                git.missing.extend(missing);
            }
            Err(error) => git.missing.push(not_asked(&format!("branch {}", tip.branch), error)?),
        }
    }
    let history = ask(&git::history_of_kustomizations(main), "main's history can't be read")?;
    let pins = pins(&git::parse_history(&history));
    git.pinned = pins.iter().filter_map(|pin| pin.digest.clone()).collect();
    git.uses.extend(uses::of_history(&pins, keep));
    let tags = git::parse_ls_remote(&answer).tags;
    git.uses.extend(released(tags.keys(), home, keep));
    git.who.push(format!("{} branches", tips.len()));
    git.who.push(format!("{} pins of {branch}", pins.len()));
    Ok(git)
}

/// The end of every branch here and there, each commit once. What is only there is fetched, and no ref moved.
fn tips(cx: &Context, heads: &BTreeMap<String, String>) -> Result<Vec<Tip>> {
    let remote = &cx.repo.config.forge.remote;
    let mut tips = BTreeMap::<String, String>::new();
    let head = cx.system.stdout(&git::commit_of("HEAD"), "this checkout has no commit")?;
    tips.insert(head.trim().to_owned(), "HEAD".to_owned());
    let refs = cx.system.stdout(&git::all_refs(), "git for-each-ref")?;
    for (object, name) in refs.lines().filter_map(|line| line.split_once(' ')) {
        let branch = ["refs/heads/", "refs/remotes/"].iter().find_map(|prefix| name.strip_prefix(prefix));
        if let Some(branch) = branch {
            tips.insert(object.to_owned(), branch.to_owned());
        }
    }
    for (branch, commit) in heads {
        if !tips.contains_key(commit) {
            let what = format!("branch {branch} of {remote} can't be fetched");
            cx.system.stdout(&git::fetch_objects(remote, branch), &what)?;
            tips.insert(commit.clone(), format!("{remote}/{branch}"));
        }
    }
    Ok(tips.into_iter().map(|(commit, branch)| Tip { commit, branch }).collect())
}

/// What the files at the end of a branch use.
fn tip_uses(cx: &Context, tip: &Tip, (home, workspace): (&Home, &Workspace)) -> Result<(Uses, Vec<Finding>)> {
    let tree = diff::tree_at(cx, &tip.commit, workspace)?;
    let repo = Repo::load(fs::sources(&tree))
        .map_err(|finding| Failure::environment(format!("its configuration can't be read: {}", finding.message)))?;
    let of = format!(" of branch {}", tip.branch);
    Ok((uses::of_repository(&repo, home, &of), unread(&repo, &of)))
}

/// Kustomizations that can't be read: what they pin is not known.
fn unread(repo: &Repo, of: &str) -> Vec<Finding> {
    let is_kustomization = |finding: &&Finding| {
        let path = finding.place.as_ref().map(|place| place.source.path.clone()).unwrap_or_default();
        FILE_NAMES.contains(&path.rsplit('/').next().unwrap_or_default())
    };
    let unread = repo.findings.iter().filter(is_kustomization);
    let finding = |finding: &Finding| {
        let place = finding.place.as_ref().map_or_else(String::new, ToString::to_string);
        let message = format!("{place}{of} can't be read, so what it pins is not known: {}", finding.message);
        Finding::environment("not-asked", message)
    };
    unread.map(finding).collect()
}

/// The pins of history, the newest first.
fn pins(files: &[(String, String)]) -> Vec<Pin> {
    let parsed = files.iter().filter_map(|(path, text)| Kustomization::parse(Source::new(path, text)).ok());
    let pin = |entry: &ImageEntry| Pin {
        image: entry.image().to_owned(),
        tag: entry.tag().map(str::to_owned),
        digest: entry.digest().and_then(|digest| digest.parse().ok()),
    };
    let pins = parsed.flat_map(|kustomization| kustomization.images.iter().map(pin).collect::<Vec<_>>());
    pins.filter(|pin| pin.tag.is_some() || pin.digest.is_some()).collect()
}

/// The images of the last `keep` release tags of each container: one may be on its way.
fn released<'a>(tags: impl Iterator<Item = &'a GitTag>, home: &Home, keep: usize) -> Uses {
    let mut uses = Uses::default();
    let mut all = BTreeMap::<_, BTreeSet<_>>::new();
    for tag in tags {
        all.entry(&tag.container).or_default().insert(tag.version);
    }
    for (container, versions) in all {
        for version in versions.into_iter().rev().take(keep) {
            for kind in [BuildKind::Nix, BuildKind::Dockerfile] {
                let tag = ImageTag::release(version, kind).to_string();
                uses.add_tag(&home.repository(container), &tag, &format!("git tag {container}-{version}"));
            }
        }
    }
    uses
}
