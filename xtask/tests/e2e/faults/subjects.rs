//! The commands that are tried, and what each of them does to the world, read from the world.

use std::fs;

use super::grounds::{Grounds, commits};
use crate::stage::Stage;

/// From where a command sets out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Fresh,
    Tagged,
    Published,
}

/// One command.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) arguments: &'static [&'static str],
    /// Where it runs.
    pub(super) folder: &'static str,
    pub(super) start: Start,
    /// There is a forge whose runner builds the image.
    pub(super) waits: bool,
    /// It has this program do things, and goes by what reality says of them.
    pub(super) calls_itself: bool,
    /// One case in so many happens in a short run.
    pub(super) share: usize,
    pub(super) effects: &'static [Effect],
}

/// A new command with effects is one more of these.
pub(super) const SUBJECTS: [Subject; 5] = [
    Subject {
        name: "release --here",
        arguments: &["release", "tiny", "v1.0.0", "--here", "--commit"],
        folder: "clone",
        start: Start::Fresh,
        waits: false,
        calls_itself: false,
        share: 5,
        effects: &[Effect::Tag, Effect::Image, Effect::Pin("one"), Effect::Pin("two"), Effect::Commit],
    },
    Subject {
        name: "release",
        arguments: &["release", "tiny", "v1.0.0", "--commit", "--wait", "4s"],
        folder: "clone",
        start: Start::Fresh,
        waits: true,
        calls_itself: false,
        share: 5,
        effects: &[Effect::Tag, Effect::Image, Effect::Pin("one"), Effect::Pin("two"), Effect::Commit],
    },
    Subject {
        name: "publish",
        arguments: &["publish", "tiny-v1.0.0"],
        folder: "runner",
        start: Start::Tagged,
        waits: false,
        calls_itself: false,
        share: 5,
        effects: &[Effect::Image],
    },
    Subject {
        name: "pin",
        arguments: &["pin", "tiny", "v1.0.0"],
        folder: "clone",
        start: Start::Published,
        waits: false,
        calls_itself: false,
        share: 5,
        effects: &[Effect::Pin("one"), Effect::Pin("two")],
    },
    Subject {
        name: "apply",
        arguments: &["apply", "containers", "--service", "one"],
        folder: "clone",
        start: Start::Fresh,
        waits: true,
        calls_itself: true,
        share: 12,
        effects: &[Effect::Tag, Effect::Image, Effect::Pin("one"), Effect::Pin("two"), Effect::Kept],
    },
];

/// One thing that is different afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The tag on the remote, at the commit that main is at.
    Tag,
    /// The tag in the registry, with the digest of what was built.
    Image,
    /// The kustomization of this user.
    Pin(&'static str),
    /// The commit of the pins.
    Commit,
    /// That commit, or the pins in the work tree, where to commit and to push is a person's step.
    Kept,
}

/// How often something was done, and what is odd about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) count: usize,
    pub(super) odd: Option<String>,
}

impl Effect {
    /// What a run says that finds it done.
    pub(super) fn done_already(self) -> &'static str {
        match self {
            Self::Tag => "tiny-v1.0.0 is on origin already",
            Self::Image => "blumeops/tiny:v1.0.0-nix is in the registry already",
            Self::Pin(_) => "v1.0.0-nix already",
            Self::Commit | Self::Kept => "the pin is committed already",
        }
    }

    /// How often it was done so far.
    pub(super) fn times(self, grounds: &Grounds, stage: &Stage) -> Times {
        match self {
            Self::Tag => tag(stage),
            Self::Image => image(grounds, stage),
            Self::Pin(user) => pin(grounds, stage, user),
            Self::Commit => commit(grounds, stage),
            Self::Kept => kept(grounds, stage),
        }
    }
}

/// The remote's own log of that ref says how often it was moved.
fn tag(stage: &Stage) -> Times {
    let moves = fs::read_to_string(stage.path("forge.git/logs/refs/tags/tiny-v1.0.0")).unwrap_or_default();
    let count = moves.lines().count();
    if count == 0 {
        return Times::default();
    }
    let there = stage.forge(&["rev-parse", "refs/tags/tiny-v1.0.0^{commit}", "refs/heads/main"]);
    let (tag, main) = there.trim().split_once('\n').unwrap();
    Times { count, odd: (tag != main).then(|| format!("the tag is at {tag}, main at {main}")) }
}

/// The registry keeps every digest that a tag has ever named.
fn image(grounds: &Grounds, stage: &Stage) -> Times {
    let tags = stage.registry.storage().join("docker/registry/v2/repositories/blumeops/tiny/_manifests/tags");
    let names = |folder: &std::path::Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let digests = names(&tags.join("v1.0.0-nix/index/sha256"));
    let right = digests.iter().all(|digest| grounds.digest == format!("sha256:{digest}")) && names(&tags).len() < 2;
    Times { count: digests.len(), odd: (!right).then(|| format!("{digests:?} among {:?}", names(&tags))) }
}

fn pin(grounds: &Grounds, stage: &Stage, user: &str) -> Times {
    let text = stage.read(&format!("argocd/manifests/{user}/kustomization.yaml"));
    let count = text.matches("newTag: v1.0.0-nix").count();
    let whole = count == 0 && !text.contains("digest") || text == grounds.pinned(user);
    Times { count, odd: (!whole).then(|| format!("half a file: {text}")) }
}

fn commit(grounds: &Grounds, stage: &Stage) -> Times {
    let log = stage.git(&["log", "--format=%s", "--name-only", "origin/main..HEAD"]);
    let count = commits(stage) - grounds.commits;
    let whole =
        "Pin tiny to v1.0.0-nix\n\nargocd/manifests/one/kustomization.yaml\nargocd/manifests/two/kustomization.yaml\n";
    Times { count, odd: (count > 0 && log != whole).then_some(log) }
}

fn kept(grounds: &Grounds, stage: &Stage) -> Times {
    let committed = commit(grounds, stage);
    let pinned = ["one", "two"].iter().all(|user| pin(grounds, stage, user).count == 1);
    Times { count: committed.count.max(usize::from(pinned)), ..committed }
}
