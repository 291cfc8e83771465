//! Preflight: the facts, all gathered before the first effect, and everything that speaks against the release.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Args, builds_with_nix};
use crate::checks::release::{Choice, Known, choose};
use crate::commands::{Context, pin};
use crate::model::failure::{Failure, Kind};
use crate::model::finding::{Finding, Severity};
use crate::model::image::Declared;
use crate::model::repo::Container;
use crate::registry::Registry;
use crate::tools::{git, nix};

/// Reality before the release.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) head: String,
    /// What is tagged: HEAD, or the remote's main where that has the same inputs and HEAD is not on it.
    pub(crate) commit: String,
    /// The branch that is checked out, for the tag's message.
    pub(crate) branch: String,
    pub(crate) on_main: bool,
    pub(crate) known: Known,
    pub(crate) in_registry: BTreeSet<String>,
}

/// Facts and objections as they come in.
struct Gathering<'a> {
    cx: &'a Context,
    container: &'a Container,
    findings: Vec<Finding>,
    facts: Facts,
    /// What the image is built from.
    inputs: Vec<String>,
    main: Option<String>,
}

/// Gathers and judges.
///
/// # Errors
/// Every objection together; nothing has been changed.
pub(crate) fn preflight(
    cx: &Context,
    args: &Args,
    container: &Container,
    registry: &Registry,
) -> Result<(Choice, Facts, Declared)> {
    let inputs = vec![container.folder()];
    let head = cx.system.stdout(&git::commit_of("HEAD"), "this is not a git checkout with a commit")?.trim().to_owned();
    let branch = cx.system.stdout(&git::current_branch(), "git branch")?.trim().to_owned();
    let facts = Facts { commit: head.clone(), head, branch, ..Facts::default() };
    let mut gathering = Gathering { cx, container, findings: Vec::new(), facts, inputs, main: None };
    // Evaluation, remote and registry do not wait for each other.
    let (declared, remote, tags) = std::thread::scope(|scope| {
        let declared = scope.spawn(|| evaluate(cx, container));
        let remote = scope.spawn(|| remote_refs(cx, container));
        let tags = registry.tags(&cx.home()?.repository(&container.name));
        let lost = || Failure::environment("a check ended without an answer");
        anyhow::Ok((declared.join().map_err(|_| lost())?, remote.join().map_err(|_| lost())?, tags))
    })?;
    let declared = gathering.take_declared(declared)?;
    gathering.take_remote(remote)?;
    gathering.take_tags(tags)?;
    let choice = gathering.choose(args)?;
    gathering.judge(args, choice)?;
    let nothing = "nothing was tagged, pushed or changed";
    let Gathering { findings, facts, .. } = gathering;
    let only_unasked = findings.iter().all(|finding| finding.severity == Severity::Environment);
    match (declared, choice) {
        (Some(declared), Some(choice)) if findings.is_empty() => Ok((choice, facts, declared)),
        // What could not be asked is no reason not to show the commands.
        (declared, Some(choice)) if args.dry_run && only_unasked => {
            for finding in &findings {
                cx.report.say(&format!("not checked: {}", finding.message));
            }
            Ok((choice, facts, declared.unwrap_or_default()))
        }
        _ => Err(Failure::of_findings(format!("{} can't be released; {nothing}", container.name), findings).into()),
    }
}

fn evaluate(cx: &Context, container: &Container) -> Result<(Declared, Vec<String>)> {
    let image = cx.home()?.image(&container.name);
    let architecture = cx.repo.clusters_running(&image).first().map(|cluster| cluster.architecture);
    let invocation = nix::declared(&cx.path(&container.expression()), architecture);
    let output = cx.system.output(&invocation)?;
    if !output.success() {
        let failure = cx.system.failed(&invocation, &output, &format!("{} does not evaluate", container.expression()));
        let kind = if nix::lacks_nixpkgs(&output.stderr) { Kind::Environment } else { failure.kind };
        return Err(Failure {
            kind,
            command: Some(format!("nix-instantiate {}", container.expression())),
            ..failure.tail(nix::without_talk(&output.stderr))
        }
        .into());
    }
    let declared = serde_json::from_str(&output.stdout)
        .map_err(|error| Failure::refused(format!("{} declares no image: {error}", container.expression())))?;
    Ok((declared, nix::parse_inputs(&output.stderr, &cx.system.root)))
}

fn remote_refs(cx: &Context, container: &Container) -> Result<git::RemoteRefs> {
    let forge = &cx.repo.config.forge;
    let text = cx.system.stdout(
        &git::ls_remote(&forge.remote, &forge.branch, &format!("{}-v*", container.name)),
        "asking the remote",
    )?;
    Ok(git::parse_ls_remote(&text))
}

impl Gathering<'_> {
    /// A failure becomes a finding beside the others; a signal ends it all.
    fn object(&mut self, code: &'static str, error: anyhow::Error) -> Result<()> {
        let failure = error.downcast::<Failure>()?;
        if failure.kind == Kind::Interrupted {
            return Err(failure.into());
        }
        let tail = failure.tail.join("\n");
        let help = [
            failure.command.map(|command| format!("command: {command}")),
            (!tail.is_empty()).then_some(tail),
            failure.next,
        ];
        let finding = match failure.kind {
            Kind::Refused => Finding::error(code, failure.summary),
            _ => Finding::environment(code, failure.summary),
        };
        let help = help.into_iter().flatten().collect::<Vec<_>>().join("\n");
        self.findings.push(if help.is_empty() { finding } else { finding.help(help) });
        Ok(())
    }

    fn take_declared(&mut self, declared: Result<(Declared, Vec<String>)>) -> Result<Option<Declared>> {
        if !builds_with_nix(self.container) {
            self.findings
                .push(Finding::error("no-nix-build", format!("{} has no default.nix", self.container.folder())));
            return Ok(None);
        }
        match declared {
            Ok((declared, inputs)) => {
                let folder = format!("{}/", self.container.folder());
                self.inputs.extend(inputs.into_iter().filter(|path| !path.starts_with(&folder)));
                Ok(Some(declared))
            }
            Err(error) => self.object("evaluation", error).map(|()| None),
        }
    }

    fn take_remote(&mut self, remote: Result<git::RemoteRefs>) -> Result<()> {
        let system = &self.cx.system;
        let pattern = format!("{}-v*", self.container.name);
        self.facts.known.local = git::parse_local_tags(&system.stdout(&git::local_tags(&pattern), "git for-each-ref")?);
        self.facts.known.local.retain(|tag, _| tag.container == self.container.name);
        match remote {
            Ok(refs) => {
                self.facts.known.remote = refs.tags;
                self.facts.known.remote.retain(|tag, _| tag.container == self.container.name);
                self.main = refs.branch;
            }
            Err(error) => return self.object("remote", error),
        }
        let forge = &self.cx.repo.config.forge;
        let Some(main) = self.main.clone() else {
            self.findings.push(Finding::error("no-main", format!("{} has no branch {}", forge.remote, forge.branch)));
            return Ok(());
        };
        if !system.output(&git::commit_of(&main))?.success()
            && let Err(error) =
                system.stdout(&git::fetch_objects(&forge.remote, &forge.branch), "fetching the remote's main")
        {
            return self.object("remote", error);
        }
        self.facts.on_main = system.output(&git::is_ancestor(&self.facts.head, &main))?.success();
        Ok(())
    }

    fn take_tags(&mut self, tags: Result<Vec<String>>) -> Result<()> {
        match tags {
            Ok(tags) => {
                self.facts.known.registry = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
                self.facts.in_registry = tags.into_iter().collect();
                Ok(())
            }
            Err(error) => self.object("registry", error),
        }
    }

    fn choose(&mut self, args: &Args) -> Result<Option<Choice>> {
        // An unreachable remote or registry would make an old version look new.
        let unknown = |finding: &Finding| match finding.code {
            "remote" | "no-main" => true,
            "registry" => !args.dry_run,
            _ => false,
        };
        if self.findings.iter().any(unknown) {
            return Ok(None);
        }
        let newest = self.facts.known.newest_tag().cloned();
        if let Some(tag) = newest.filter(|tag| !self.facts.known.local.contains_key(tag)) {
            let commit = self.facts.known.commit(&tag).cloned().unwrap_or_default();
            if !self.cx.system.output(&git::commit_of(&commit))?.success() {
                self.cx
                    .system
                    .stdout(&git::fetch_tag(&self.cx.repo.config.forge.remote, &tag), "fetching the newest tag")?;
            }
        }
        let unchanged = |commit: &str| self.unchanged_since(commit).unwrap_or(false);
        match choose(&self.container.name, &self.facts.known, args.version, args.bump, unchanged) {
            Ok(choice) => Ok(Some(choice)),
            Err(finding) => {
                self.findings.push(finding);
                Ok(None)
            }
        }
    }

    /// Has `commit` the same inputs of the image as HEAD?
    fn unchanged_since(&self, commit: &str) -> Result<bool> {
        let system = &self.cx.system;
        if commit == self.facts.head {
            return Ok(true);
        }
        Ok(system.stdout(&git::changed(commit, &self.facts.head, &self.inputs), "git diff")?.is_empty())
    }

    fn judge(&mut self, args: &Args, choice: Option<Choice>) -> Result<()> {
        let image = self.cx.home()?.image(&self.container.name);
        if !args.no_pin
            && let Err(findings) = pin::check(&self.cx.repo, &image)
        {
            self.findings.extend(findings);
        }
        let system = &self.cx.system;
        let dirty = git::parse_status(&system.stdout(&git::status(&self.inputs), "git status")?);
        self.findings.extend(dirty.iter().map(|path| {
            Finding::error("dirty-container", format!("{path} is not as committed, and the image is built from it"))
                .help("commit or stash it")
        }));
        // A release whose tag is out already is finished from wherever its commit is.
        let tagged = choice.is_some_and(|choice| {
            choice.resumes && self.facts.known.remote.keys().any(|tag| tag.version == choice.version)
        });
        let (Some(main), false, false) = (&self.main, args.allow_branch, tagged) else { return Ok(()) };
        let forge = &self.cx.repo.config.forge;
        let differing =
            git::parse_names(&system.stdout(&git::changed(&self.facts.head, main, &self.inputs), "git diff")?);
        if self.facts.on_main {
            self.findings.extend(differing.iter().map(|path| {
                Finding::error("behind-main", format!("{path} is newer on {}'s {}", forge.remote, forge.branch))
                    .help("git pull, or say --allow-branch to release it as it is here")
            }));
        } else if differing.is_empty() {
            // Only other things are ahead, as the pin of the release before: main has this image's inputs.
            main.clone_into(&mut self.facts.commit);
            self.facts.on_main = true;
        } else {
            let message = format!("the commit {} is not on {}'s {}", self.facts.head, forge.remote, forge.branch);
            self.findings
                .push(Finding::error("not-on-main", message).help("push or merge it first, or say --allow-branch"));
        }
        Ok(())
    }
}
