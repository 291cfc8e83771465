//! git: tags, the remote's refs, what has changed. Parsed values, never porcelain meant for people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Invocation, line};
use crate::model::tag::GitTag;

/// A commit or tag object.
pub(crate) type ObjectId = String;

/// Never ask, never take locks for reading, never start housekeeping that outlives the command,
/// never quote paths.
const ENV: [(&str, &str); 8] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_CONFIG_COUNT", "3"),
    ("GIT_CONFIG_KEY_0", "gc.auto"),
    ("GIT_CONFIG_VALUE_0", "0"),
    ("GIT_CONFIG_KEY_1", "maintenance.auto"),
    ("GIT_CONFIG_VALUE_1", "false"),
    ("GIT_CONFIG_KEY_2", "core.quotePath"),
];
const REST: [(&str, &str); 1] = [("GIT_CONFIG_VALUE_2", "false")];

/// A push or fetch over a sleepy tailnet.
const NETWORK: Duration = Duration::from_secs(120);

fn git(invocation: Invocation) -> Invocation {
    invocation.env(&ENV).env(&REST)
}

/// Where the checkout's own git folder is; locks live there.
pub(crate) fn common_dir() -> Invocation {
    git(line!("git rev-parse --path-format=absolute --git-common-dir"))
}

/// The commit that `revision` names.
pub(crate) fn commit_of(revision: &str) -> Invocation {
    let revision = format!("{revision}^{{commit}}");
    git(line!("git rev-parse --verify --quiet --end-of-options {revision}"))
}

/// The commit that is checked out, with `-dirty` where files differ from it.
pub(crate) fn describe() -> Invocation {
    line!("git describe --always --dirty --abbrev=40 --exclude=*")
}

/// The object that a tag of this clone is.
pub(crate) fn object_of(tag: &GitTag) -> Invocation {
    let name = format!("refs/tags/{tag}");
    git(line!("git rev-parse --verify --quiet --end-of-options {name}"))
}

/// The branch that is checked out; empty when none is.
pub(crate) fn current_branch() -> Invocation {
    git(line!("git branch --show-current"))
}

/// Paths below `paths` that differ from HEAD or are not tracked.
pub(crate) fn status(paths: &[String]) -> Invocation {
    git(line!("git status --porcelain=v1 -z --untracked-files=all --ignored=no -- {paths...}"))
}

/// Reads `status -z`: the paths.
pub(crate) fn parse_status(output: &str) -> Vec<String> {
    let mut fields = output.split('\0');
    let mut paths = Vec::new();
    while let Some(field) = fields.next() {
        let Some((state, path)) = field.split_at_checked(3) else { continue };
        paths.push(path.to_owned());
        if state.starts_with(['R', 'C']) {
            fields.next(); // where it was renamed from
        }
    }
    paths
}

/// Tags matching `<container>-v*` with the commits they name.
pub(crate) fn local_tags(pattern: &str) -> Invocation {
    let pattern = format!("refs/tags/{pattern}");
    git(line!("git for-each-ref '--format=%(objectname) %(*objectname) %(refname)' {pattern}"))
}

/// Reads `for-each-ref`: tag to commit.
pub(crate) fn parse_local_tags(output: &str) -> BTreeMap<GitTag, ObjectId> {
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (object, peeled) = (words.next()?, words.next()?);
        let tag = words.next()?.strip_prefix("refs/tags/")?.parse().ok()?;
        Some((tag, if peeled.is_empty() { object } else { peeled }.to_owned()))
    };
    output.lines().filter_map(read).collect()
}

/// The remote's branch and its tags, in one question.
pub(crate) fn ls_remote(remote: &str, branch: &str, tags: &str) -> Invocation {
    let (branch, tags, peeled) =
        (format!("refs/heads/{branch}"), format!("refs/tags/{tags}"), format!("refs/tags/{tags}^{{}}"));
    git(line!("git ls-remote {remote} {branch} {tags} {peeled}")).limit(NETWORK)
}

/// What the remote has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteRefs {
    /// Where its branch is; nothing when it has none.
    pub(crate) branch: Option<ObjectId>,
    /// Tag to commit.
    pub(crate) tags: BTreeMap<GitTag, ObjectId>,
}

/// Reads `ls-remote`.
pub(crate) fn parse_ls_remote(output: &str) -> RemoteRefs {
    let mut refs = RemoteRefs::default();
    for (object, name) in output.lines().filter_map(|line| line.split_once('\t')) {
        if name.starts_with("refs/heads/") {
            refs.branch = Some(object.to_owned());
        } else if let Some(name) = name.strip_prefix("refs/tags/") {
            // The peeled name comes after the tag itself and replaces the tag object by its commit.
            let name = name.strip_suffix("^{}").unwrap_or(name);
            if let Ok(tag) = name.parse() {
                refs.tags.insert(tag, object.to_owned());
            }
        }
    }
    refs
}

/// The remote's branches and tags, all of them.
pub(crate) fn ls_remote_all(remote: &str) -> Invocation {
    git(line!("git ls-remote --heads --tags {remote}")).limit(NETWORK)
}

/// Reads `ls-remote`: branch to commit.
pub(crate) fn parse_heads(output: &str) -> BTreeMap<String, ObjectId> {
    let refs = output.lines().filter_map(|line| line.split_once('\t'));
    refs.filter_map(|(object, name)| Some((name.strip_prefix("refs/heads/")?.to_owned(), object.to_owned()))).collect()
}

/// Says `true` where history was cut off when this was cloned.
pub(crate) fn is_shallow() -> Invocation {
    git(line!("git rev-parse --is-shallow-repository"))
}

/// The kustomizations that each commit of a branch has changed, whole, the newest first. A merge counts as what it brings.
pub(crate) fn history_of_kustomizations(commit: &str) -> Invocation {
    // So many lines of context that there is no line that is not shown.
    let whole = ["--patch", "--unified=1000000", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"];
    let paths =
        [":(glob)argocd/**/kustomization.yaml", ":(glob)argocd/**/kustomization.yml", ":(glob)argocd/**/Kustomization"];
    git(line!(
        "git log --first-parent --diff-merges=first-parent '--format=commit %H' {whole...} {commit} -- {paths...}"
    ))
}

/// Reads that: path and text of each, as the commit left it.
pub(crate) fn parse_history(output: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut is_inside = false;
    for line in output.lines() {
        if line.starts_with("diff --git ") || line.starts_with("commit ") {
            is_inside = false;
        } else if let Some(path) = line.strip_prefix("+++ b/").filter(|_| !is_inside) {
            files.push((path.to_owned(), String::new()));
        } else if line.starts_with("@@ ") {
            // What was removed has no path and gives nothing.
            is_inside = true;
        } else if let (true, Some(rest), Some((_, text))) = (is_inside, line.strip_prefix(['+', ' ']), files.last_mut())
        {
            text.extend([rest, "\n"]);
        }
    }
    files
}

/// Brings a branch's commits without moving a single ref.
pub(crate) fn fetch_objects(remote: &str, branch: &str) -> Invocation {
    let refspec = format!("refs/heads/{branch}");
    git(line!("git fetch --quiet --no-tags --no-write-fetch-head --refmap= {remote} {refspec}")).limit(NETWORK)
}

/// Brings tag `tag` into this clone.
pub(crate) fn fetch_tag(remote: &str, tag: &GitTag) -> Invocation {
    let refspec = format!("refs/tags/{tag}:refs/tags/{tag}");
    git(line!("git fetch --quiet --no-tags --no-write-fetch-head --refmap= {remote} {refspec}")).limit(NETWORK)
}

/// Exit code 0 when `ancestor` is in the history of `commit`, 1 when not.
pub(crate) fn is_ancestor(ancestor: &str, commit: &str) -> Invocation {
    git(line!("git merge-base --is-ancestor {ancestor} {commit}"))
}

/// The commit that two histories part at; exit code 1 where they have none in common.
pub(crate) fn merge_base(one: &str, other: &str) -> Invocation {
    git(line!("git merge-base {one} {other}"))
}

/// The commits of `branch` that `main` does not have, each marked with whether it has a copy of it.
pub(crate) fn cherry(main: &str, branch: &str) -> Invocation {
    git(line!("git cherry {main} {branch}"))
}

/// Reads `cherry`: is there a copy of every commit?
pub(crate) fn all_are_there(output: &str) -> bool {
    !output.is_empty() && output.lines().all(|line| line.starts_with("- "))
}

/// Lines alone, without context: what was changed elsewhere meanwhile does not show. Binary files as text.
const PATCH: [&str; 6] = ["--unified=0", "--binary", "--no-color", "--no-renames", "--no-ext-diff", "--no-textconv"];

/// What changes from one commit to another.
pub(crate) fn patch(from: &str, to: &str) -> Invocation {
    let options = PATCH;
    git(line!("git diff {options...} {from} {to}"))
}

/// What each commit since `from` on the way to `to` changes of `paths`, as its first parent sees it, after a NUL.
pub(crate) fn patches(from: &str, to: &str, paths: &[String]) -> Invocation {
    let (options, range) = (PATCH, format!("{from}..{to}"));
    git(line!(
        "git log --first-parent --diff-merges=first-parent --format=%x00 --patch {options...} {range} -- {paths...}"
    ))
}

/// The changed lines of a patch, wherever in their file they are.
pub(crate) fn changes(patch: &str) -> Vec<&str> {
    let is_about_place = |line: &str| line.is_empty() || line.starts_with("@@ ") || line.starts_with("index ");
    patch.lines().filter(|line| !is_about_place(line)).collect()
}

/// Which of `paths` differ between two commits.
pub(crate) fn changed(from: &str, to: &str, paths: &[String]) -> Invocation {
    git(line!("git diff --name-only -z --no-renames --no-ext-diff {from} {to} -- {paths...}"))
}

/// Which of `paths` are not as in `commit`, in the index or the work tree.
pub(crate) fn differing(commit: &str, paths: &[String]) -> Invocation {
    git(line!("git diff --name-only -z --no-renames --no-ext-diff {commit} -- {paths...}"))
}

/// Reads names that are separated by NUL.
pub(crate) fn parse_names(output: &str) -> Vec<String> {
    output.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// An annotated tag on `commit`.
pub(crate) fn tag(tag: &GitTag, message: &str, commit: &str) -> Invocation {
    let tag = tag.to_string();
    git(line!("git tag -a {tag} -m {message} {commit}")).finishes()
}

/// Removes a tag from this clone.
pub(crate) fn delete_tag(tag: &GitTag) -> Invocation {
    let tag = tag.to_string();
    git(line!("git tag -d {tag}")).finishes()
}

/// Pushes that one tag and nothing else, whatever `push.followTags` says.
pub(crate) fn push_tag(remote: &str, tag: &GitTag) -> Invocation {
    let refspec = format!("refs/tags/{tag}:refs/tags/{tag}");
    git(line!("git push --no-follow-tags {remote} {refspec}")).limit(NETWORK).finishes()
}

/// One commit of exactly `paths`, whatever else is staged.
pub(crate) fn commit(message: &str, paths: &[String]) -> Invocation {
    git(line!("git commit --quiet -m {message} --only -- {paths...}")).finishes()
}

/// A repository without a work tree.
pub(crate) fn init_bare(path: &str) -> Invocation {
    git(line!("git init --quiet --bare --initial-branch=main {path}"))
}

/// HEAD becomes the main of the repository at `url`; tags stay here.
pub(crate) fn push_head(url: &str) -> Invocation {
    git(line!("git push --quiet --no-follow-tags --no-verify {url} HEAD:refs/heads/main")).limit(NETWORK)
}

/// A clone of the repository at `url`.
pub(crate) fn clone(url: &str, path: &str) -> Invocation {
    git(line!("git clone --quiet {url} {path}")).limit(NETWORK)
}

/// A clone with `tag` checked out, as a forge's runner has it.
pub(crate) fn clone_at(url: &str, path: &str, tag: &str) -> Invocation {
    git(line!("git -c advice.detachedHead=false clone --quiet --branch {tag} {url} {path}")).limit(NETWORK)
}

/// What is tracked, and what is neither tracked nor ignored; once more, what was removed from the work tree.
pub(crate) fn files() -> Invocation {
    git(line!("git ls-files -t -z --cached --others --deleted --exclude-standard"))
}

/// Reads `ls-files -t`: what is here. What a sparse checkout left out counts as here.
pub(crate) fn parse_files(output: &str) -> BTreeSet<String> {
    let marked = || output.split('\0').filter_map(|entry| entry.split_at_checked(2));
    let removed: BTreeSet<&str> = marked().filter(|(mark, _)| *mark == "R ").map(|(_, name)| name).collect();
    marked().map(|(_, name)| name).filter(|name| !removed.contains(name)).map(str::to_owned).collect()
}

/// The tree of `commit` as a tarball.
pub(crate) fn archive(commit: &str, file: &str) -> Invocation {
    git(line!("git archive --format=tar --output {file} {commit}"))
}

/// Every ref with its object.
pub(crate) fn all_refs() -> Invocation {
    git(line!("git for-each-ref '--format=%(objectname) %(refname)'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_refs_name_commits_not_tag_objects() {
        let refs = parse_ls_remote(
            "aaa\trefs/heads/main\nbbb\trefs/tags/redis-v1.0.0\nccc\trefs/tags/redis-v1.0.0^{}\nddd\trefs/tags/redis-v1.0.1\neee\trefs/tags/redis-v2\n",
        );
        assert_eq!(refs.branch.as_deref(), Some("aaa"));
        let tags: Vec<_> = refs.tags.iter().map(|(tag, id)| format!("{tag} {id}")).collect();
        assert_eq!(tags, ["redis-v1.0.0 ccc", "redis-v1.0.1 ddd"]);
    }

    #[test]
    fn local_tags_are_peeled() {
        let tags = parse_local_tags("bbb ccc refs/tags/redis-v1.0.0\nddd  refs/tags/redis-v1.0.1\n");
        assert_eq!(tags.values().collect::<Vec<_>>(), ["ccc", "ddd"]);
    }

    #[test]
    fn what_was_removed_is_not_here() {
        let files = parse_files("? new\0H gone\0R gone\0H a b\0S left out\0");
        assert_eq!(files.iter().collect::<Vec<_>>(), ["a b", "left out", "new"]);
    }

    #[test]
    fn status_reads_renames_and_odd_names() {
        assert_eq!(parse_status("R  new\0old\0?? a b\0 M é\0"), ["new", "a b", "é"]);
        assert!(parse_status("").is_empty());
    }

    #[test]
    fn history_gives_whole_files() {
        let output = "commit aaa\n\ndiff --git a/argocd/a/kustomization.yaml b/argocd/a/kustomization.yaml\nindex 1..2 100644\n--- a/argocd/a/kustomization.yaml\n+++ b/argocd/a/kustomization.yaml\n@@ -1,3 +1,3 @@\n images:\n-  - name: old\n+  - name: new\n \ncommit bbb\n\ndiff --git a/argocd/b/kustomization.yaml b/argocd/b/kustomization.yaml\ndeleted file mode 100644\n--- a/argocd/b/kustomization.yaml\n+++ /dev/null\n@@ -1 +0,0 @@\n-images: []\n";
        let files = parse_history(output);
        assert_eq!(files, [("argocd/a/kustomization.yaml".to_owned(), "images:\n  - name: new\n\n".to_owned())]);
        assert_eq!(parse_heads("aaa\trefs/heads/main\nbbb\trefs/tags/x-v1.0.0\n").len(), 1);
    }

    #[test]
    fn a_patch_is_the_same_wherever_it_applies() {
        let one = "diff --git a/f b/f\nindex 1..2 100644\n--- a/f\n+++ b/f\n@@ -1 +1 @@ x\n-a\n+b\n";
        let other = "\ndiff --git a/f b/f\nindex 3..4 100644\n--- a/f\n+++ b/f\n@@ -9 +9 @@\n-a\n+b\n";
        assert_eq!(changes(one), changes(other));
        assert_ne!(changes(one), changes(&other.replace("+b", "+c")));
        assert!(all_are_there("- a\n- b\n") && !all_are_there("- a\n+ b\n") && !all_are_there(""));
    }

    #[test]
    fn command_lines() {
        let tag: GitTag = "redis-v1.0.0".parse().unwrap();
        let lines = [
            push_tag("origin", &tag),
            super::tag(&tag, "redis v1.0.0", "abc"),
            ls_remote("origin", "main", "redis-v*"),
        ];
        assert_eq!(
            lines.map(|line| line.to_string()),
            [
                "git push --no-follow-tags origin refs/tags/redis-v1.0.0:refs/tags/redis-v1.0.0",
                "git tag -a redis-v1.0.0 -m 'redis v1.0.0' abc",
                "git ls-remote origin refs/heads/main 'refs/tags/redis-v*' 'refs/tags/redis-v*^{}'",
            ]
        );
    }
}
