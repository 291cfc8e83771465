//! The steps of a service's deployment, derived from the repository; what only reality can tell is asked by the command.

mod after;
mod files;
mod live;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use live::state;

use super::Check;
use super::verify::{Service, service};
use crate::model::name::ContainerName;
use crate::model::needs::Need;
use crate::model::plan::{How, Phase, State, Step, block};
use crate::model::promise::Promise;
use crate::model::version::Version;
use crate::model::world::{App, World};

/// What has to be asked of somebody.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// The forge, for a mirror of this upstream.
    Mirror(String),
    /// 1Password, for these fields of one item.
    Item(Vec<Need>),
    /// The remote, for the tag of this version, or of any.
    Tag(ContainerName, Option<Version>),
    /// The registry, for what is pinned, or for any release.
    Image(ContainerName),
    /// The remote's main, for what these files are here.
    Merged(Vec<String>),
    /// What `services-check` asks.
    Well(Box<Check>),
    /// `parity`, for differences from the chart that nobody has accepted.
    Chart,
    /// `verify`, for every point; in vain while anything that it needs is not done.
    Verified,
}

/// How it is found out whether a step is done.
#[derive(Clone, Debug)]
pub(crate) enum Holds {
    /// The checkout has told.
    Here(State),
    /// All of these have to be so.
    Asked(Vec<Ask>),
}

/// A step before reality is asked.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) promise: String,
    pub(crate) needs: Vec<String>,
    pub(crate) how: How,
    pub(crate) holds: Holds,
}

/// What the steps are derived from.
pub(super) struct Subject<'a> {
    pub(super) world: &'a World,
    pub(super) name: &'a str,
    pub(super) promise: Promise,
    pub(super) app: Option<&'a App>,
    pub(super) service: Option<Service<'a>>,
    pub(super) containers: Vec<ContainerName>,
}

/// The services that a plan can be made of: Applications, and what is promised.
pub(crate) fn names(world: &World) -> BTreeSet<&str> {
    let apps = world.apps.iter().map(|app| app.name.as_str());
    apps.chain(world.repo.config.plans.keys().map(String::as_str)).collect()
}

/// Every step of the deployment of `name`, in order.
pub(crate) fn drafts(world: &World, name: &str) -> Vec<Draft> {
    let app = world.apps.iter().find(|app| app.name == name);
    let promise = world.repo.config.plans.get(name).cloned().unwrap_or_default();
    let service = app.map(|app| service(world, app));
    let mut containers: Vec<ContainerName> = promise.containers.iter().filter_map(|name| name.parse().ok()).collect();
    let known = service.iter().flat_map(|service| service.containers.clone());
    let more: Vec<ContainerName> = known.filter(|name| !containers.contains(name)).collect();
    containers.extend(more);
    let subject = Subject { world, name, promise, app, service, containers };
    let mut drafts = files::analysis(&subject);
    drafts.extend(files::prerequisites(&subject));
    drafts.extend(files::containers(&subject));
    drafts.extend(files::manifests(&subject));
    drafts.extend(files::networking(&subject));
    drafts.extend(files::monitoring(&subject));
    drafts.extend(files::documentation(&subject));
    live::extend(&subject, &mut drafts);
    drafts.extend(after::steps(&subject));
    drafts.sort_by_key(|draft| draft.phase);
    drafts
}

/// The steps, given what was answered to those that were asked.
pub(crate) fn settle(drafts: &[Draft], answers: &BTreeMap<String, State>) -> Vec<Step> {
    let state = |draft: &Draft| match &draft.holds {
        Holds::Here(state) => state.clone(),
        Holds::Asked(_) => answers.get(&draft.id).cloned().unwrap_or_else(unasked),
    };
    let step = |draft: &Draft| Step {
        id: draft.id.clone(),
        phase: draft.phase,
        promise: draft.promise.clone(),
        needs: draft.needs.clone(),
        how: draft.how.clone(),
        state: state(draft),
    };
    let mut steps: Vec<Step> = drafts.iter().map(step).collect();
    block(&mut steps);
    steps
}

fn unasked() -> State {
    State::Unknown("the checkout alone does not say".to_owned())
}

impl Subject<'_> {
    /// Is what the Application deploys known? Only then what is not among it is missing.
    pub(super) fn rendered(&self) -> Result<&App, State> {
        match self.app {
            None => Err(State::ToDo(format!("there is no Application {}", self.name))),
            Some(app) if app.objects.is_empty() && !app.is_whole => {
                let about = |why: &&String| why.starts_with(&format!("{}:", app.name));
                let why = self.world.not_checked.iter().find(about).cloned();
                let why = why.or_else(|| self.world.findings.first().map(|finding| finding.message.clone()));
                Err(State::Unknown(why.unwrap_or_else(|| "what it deploys does not render".to_owned())))
            }
            Some(app) => Ok(app),
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.world.facts.paths.contains(path)
    }

    /// Done where a file is there.
    pub(super) fn file(&self, path: &str) -> State {
        if self.has(path) { State::Done(path.to_owned()) } else { State::ToDo(format!("there is no {path}")) }
    }
}

impl Draft {
    /// A step that the checkout tells of.
    pub(super) fn here(phase: Phase, (id, promise): (&str, String), state: State, how: How) -> Self {
        Self { id: id.to_owned(), phase, promise, needs: Vec::new(), how, holds: Holds::Here(state) }
    }

    /// A step that somebody has to be asked about.
    pub(super) fn asked(phase: Phase, (id, promise): (&str, String), asks: Vec<Ask>, how: How) -> Self {
        Self { id: id.to_owned(), phase, promise, needs: Vec::new(), how, holds: Holds::Asked(asks) }
    }

    pub(super) fn after(mut self, needs: &[&str]) -> Self {
        self.needs.extend(needs.iter().map(|need| (*need).to_owned()));
        self
    }
}

/// A word of a step's name.
pub(super) fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// One of ours, as words.
pub(super) fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;
    use crate::model::source::Source;
    use crate::model::world::{Facts, Rendered};

    fn world(files: &str, rendered: &str) -> World {
        let repo = repo(files);
        let mut facts = Facts::default();
        facts.paths.extend(repo.files.iter().map(|file| file.path.to_string()));
        facts.rendered.insert("argocd/m/web".to_owned(), Rendered::Text(Source::new("argocd/m/web", rendered)));
        World::new(repo, facts)
    }

    fn shown(world: &World, answers: &BTreeMap<String, State>) -> Vec<String> {
        let steps = settle(&drafts(world, "web"), answers);
        steps.iter().map(|step| format!("{} {}: {}", step.phase.number(), step.id, step.state.word())).collect()
    }

    const PROMISE: &str = "
//- xtask/blumeops.toml
[registry]
host = 'r.example'
namespace = 'ops'
[plans.web]
containers = ['web']
database = 'web'
published = true
";

    #[test]
    fn what_is_only_promised_is_all_to_do() {
        let world = world(PROMISE, "");
        assert_eq!(
            shown(&world, &BTreeMap::new()),
            [
                "1 role: to do",
                "1 database: to do",
                "1 backup: to do",
                "2 expression-web: to do",
                "2 tag-web: cannot tell",
                "2 image-web: cannot tell",
                "2 pin-web: blocked",
                "3 application: to do",
                "3 merged: cannot tell",
                "3 database-there: cannot tell",
                "3 synced: cannot tell",
                "3 pods: cannot tell",
                "4 ingress: to do",
                "4 caddy: to do",
                "4 in-tailnet: cannot tell",
                "4 through-caddy: cannot tell",
                "6 card: to do",
                "6 page-services: to do",
                "6 changelog: to do",
                "6 verified: cannot tell",
            ]
        );
    }

    #[test]
    fn a_service_without_a_promise_has_the_steps_that_follow_from_its_manifests() {
        let files = "
//- argocd/apps/web.yaml
kind: Application
metadata: {name: web}
spec: {source: {path: argocd/m/web}, destination: {server: s, namespace: web}}
//- argocd/m/web/all.yaml
//- containers/web/default.nix
//- xtask/blumeops.toml
[registry]
host = 'r.example'
namespace = 'ops'
//- docs/reference/services/web.md
//- docs/changelog.d/x.feature.md
Web is new.
";
        let rendered = "kind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: a, image: 'r.example/ops/web:v1.0.0-nix'}]}}}\n---\nkind: ExternalSecret\nmetadata: {name: s}\nspec: {secretStoreRef: {name: onepassword-ops}, data: [{remoteRef: {key: 'Web (x)', property: p}}]}\n";
        let world = world(files, rendered);
        let answers = BTreeMap::from([
            ("item-web-x".to_owned(), State::ToDo("there is no such item".to_owned())),
            ("synced".to_owned(), State::ToDo("not there".to_owned())),
            ("secrets".to_owned(), State::ToDo("not there".to_owned())),
            ("merged".to_owned(), State::Done("abc".to_owned())),
        ]);
        let shown = shown(&world, &answers);
        for step in [
            "1 item-web-x: to do",
            "2 expression-web: done",
            "2 pin-web: to do",
            "3 application: done",
            "3 merged: done",
            "3 synced: to do",
            "3 secrets: blocked",
            "6 card: done",
            "6 page-services: to do",
            "6 changelog: done",
        ] {
            assert!(shown.iter().any(|line| line == step), "{step} is not in {shown:#?}");
        }
        let phases: BTreeSet<char> = shown.iter().filter_map(|line| line.chars().next()).collect();
        assert_eq!(phases.into_iter().collect::<String>(), "1236");
    }
}
