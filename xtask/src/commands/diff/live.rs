//! `diff --live`: what applying would change in the clusters, as their API servers say it.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::commands::check;
use crate::exec::parallel;
use crate::exec::workspace::Workspace;
use crate::model::config::KubeContext;
use crate::model::difference::{self, Change, Difference, Identity};
use crate::model::failure::{Failure, Kind};
use crate::model::manifest::{self, Apply, Manifest};
use crate::model::world::{App, Rendered, World};
use crate::report::Outcome;
use crate::tools::{Invocation, kubectl};

/// An API server answers several at once; more would only queue there.
const AT_ONCE: usize = 4;

/// The manifests of one Application that are applied in one way, and where they are compared.
struct Job<'a> {
    app: &'a App,
    context: &'a KubeContext,
    way: Apply,
    manifests: Vec<Manifest>,
}

/// What became of one: differences, and what was not compared with the reason.
#[derive(Default)]
struct Compared {
    differences: Vec<Difference>,
    objects: usize,
    missing: Vec<String>,
}

pub(super) fn run(cx: &Context, args: &super::Args) -> Result<Outcome> {
    Context::preflight(&["kubectl"])?;
    let world = check::world(cx)?;
    if let Some(unknown) = args.app.iter().find(|name| !world.apps.iter().any(|app| app.name == **name)) {
        let names: Vec<&str> = world.apps.iter().map(|app| app.name.as_str()).collect();
        let failure = Failure::environment(format!("there is no Application {unknown}"));
        return Err(failure.next(format!("there are: {}", names.join(", "))).into());
    }
    let mut missing = Vec::new();
    let mut jobs = Vec::new();
    for app in world.apps.iter().filter(|app| args.app.is_empty() || args.app.contains(&app.name)) {
        match jobs_of(&world, app) {
            Ok(more) => jobs.extend(more),
            Err(why) => missing.push(format!("{}: {why}", app.name)),
        }
    }
    missing.extend(without_the_silent(cx, &mut jobs)?);
    let workspace = Workspace::new("blumeops-live-", false)?;
    let (mut differences, mut objects) = (Vec::new(), 0);
    for compared in parallel::map(&jobs, AT_ONCE, |job| compare(cx, job, &workspace)) {
        let compared = compared?;
        differences.extend(compared.differences);
        missing.extend(compared.missing);
        objects += compared.objects;
    }
    differences.sort_by(|a, b| a.object.cmp(&b.object));
    for what in &missing {
        cx.report.say(&format!("not compared: {what}"));
    }
    if objects == 0 {
        return Err(Failure::environment("nothing was compared").next("kubectl config get-contexts").into());
    }
    let values: Vec<Value> = differences.iter().map(super::value).collect();
    let value = json!({"against": "live", "objects": objects, "differences": values, "not_compared": missing});
    let code = if missing.is_empty() { 0 } else { 2 };
    Ok(Outcome { human: super::written(&differences, args.markdown), json: value, code, other: None })
}

/// Its manifests by the way they are applied, or why there is nothing to compare.
fn jobs_of<'a>(world: &'a World, app: &'a App) -> Result<Vec<Job<'a>>, String> {
    let cluster = world.repo.config.clusters.iter().find(|cluster| cluster.name == app.cluster);
    let cluster = cluster.ok_or_else(|| format!("xtask/blumeops.toml names no cluster {}", app.cluster))?;
    let context = cluster.context()?;
    let path = app.path.as_ref().ok_or("it does not come from this repository")?;
    let text = match world.facts.rendered.get(path) {
        Some(Rendered::Text(rendered)) if !rendered.text.trim().is_empty() => &rendered.text,
        Some(Rendered::NotChecked(why)) => return Err(why.clone()),
        Some(Rendered::Failed(finding)) => return Err(finding.message.clone()),
        Some(Rendered::Text(_)) | None => return Err("it renders to nothing".to_owned()),
    };
    let all = manifest::split(text, manifest::way_of(&app.node));
    let job = |way| {
        let manifests: Vec<Manifest> = all.iter().filter(|manifest| manifest.way == way).cloned().collect();
        Job { app, context, way, manifests }
    };
    Ok([Apply::Client, Apply::Server].map(job).into_iter().filter(|job| !job.manifests.is_empty()).collect())
}

/// Takes out what belongs to clusters that don't answer at all: each is asked once, not once for every Application.
fn without_the_silent(cx: &Context, jobs: &mut Vec<Job<'_>>) -> Result<Vec<String>> {
    let contexts: BTreeMap<&str, &KubeContext> =
        jobs.iter().map(|job| (job.app.cluster.as_str(), job.context)).collect();
    let contexts: Vec<(&str, &KubeContext)> = contexts.into_iter().collect();
    let answers = parallel::map(&contexts, AT_ONCE, |(_, context)| asked(cx, &kubectl::version(context)));
    let mut silent = BTreeMap::new();
    for ((cluster, _), answer) in contexts.into_iter().zip(answers) {
        // Whoever refuses an answer is there.
        let Answer { reasons, .. } = answer?;
        if let Some(why) = reasons.into_iter().find(|why| !why.contains("may not do that")) {
            silent.insert(cluster.to_owned(), why);
        }
    }
    jobs.retain(|job| !silent.contains_key(&job.app.cluster));
    Ok(silent.into_iter().map(|(cluster, why)| format!("everything in {cluster}: {why}")).collect())
}

/// What kubectl said, and why that is not all.
struct Answer {
    stdout: String,
    stderr: String,
    reasons: Vec<String>,
}

fn asked(cx: &Context, call: &Invocation) -> Result<Answer> {
    match cx.system.output(call).map_err(anyhow::Error::downcast::<Failure>) {
        Ok(output) => {
            let reasons = if output.success() { Vec::new() } else { kubectl::reasons(&output.stderr) };
            Ok(Answer { stdout: output.stdout, stderr: output.stderr, reasons })
        }
        Err(Ok(failure)) if failure.kind == Kind::Interrupted => Err(failure.into()),
        Err(Ok(failure)) => Ok(Answer { stdout: String::new(), stderr: String::new(), reasons: vec![failure.summary] }),
        Err(Err(error)) => Err(error),
    }
}

/// Asks for what is there, then for what would be there. One kind that the cluster does not know keeps kubectl from
/// saying anything of the others: they are asked for again without it.
fn compare(cx: &Context, job: &Job<'_>, workspace: &Workspace) -> Result<Compared> {
    let (app, mut compared) = (job.app, Compared::default());
    let at = format!("{} in {}", app.name, app.cluster);
    let mut set = Set::new(job, workspace)?;
    let there = |file: &str| kubectl::there(job.context, &app.namespace, file);
    let unknown = kubectl::unknown_kinds(&asked(cx, &there(&set.file))?.stderr);
    if !unknown.is_empty() {
        let kinds: Vec<&str> = unknown.iter().map(|(_, kind)| kind.as_str()).collect();
        let count = set.without(&unknown)?;
        let why = "the cluster does not know the kind; its CustomResourceDefinition is not installed";
        compared.missing.push(format!("{at}: {count} of kind {}: {why}", kinds.join(", ")));
        if set.manifests.is_empty() || count == 0 {
            return Ok(compared);
        }
    }
    let (live, reasons) = set.ask(cx, there)?;
    let is_over = live.is_empty() && reasons.iter().any(|why| kubectl::concerns_all(why));
    say(&reasons, &at, &mut compared);
    if is_over {
        return Ok(compared);
    }
    let (predicted, reasons) = set.ask(cx, |file| kubectl::would_be(job.context, &app.namespace, file, job.way))?;
    say(&reasons, &at, &mut compared);
    let predicted = by_identity(&app.cluster, predicted);
    let mut live = by_identity(&app.cluster, live);
    live.retain(|identity, _| predicted.contains_key(identity));
    compared.objects = predicted.len();
    compared.differences = difference::compare(&live, &predicted).into_iter().map(without_secrets).collect();
    Ok(compared)
}

/// The manifests of a job in a file of ours.
struct Set<'a> {
    workspace: &'a Workspace,
    name: String,
    file: String,
    manifests: Vec<Manifest>,
}

impl<'a> Set<'a> {
    fn new(job: &Job<'_>, workspace: &'a Workspace) -> Result<Self> {
        let name = format!("{}-{:?}.yaml", job.app.name.replace('/', "-"), job.way).to_lowercase();
        let file = workspace.text(&name);
        let set = Self { workspace, name, file, manifests: job.manifests.clone() };
        set.write()?;
        Ok(set)
    }

    fn write(&self) -> Result<()> {
        self.workspace.write(&self.name, &manifest::joined(&self.manifests))
    }

    /// Takes out what is of one of these kinds; how many that were.
    fn without(&mut self, kinds: &[(String, String)]) -> Result<usize> {
        let before = self.manifests.len();
        self.manifests.retain(|manifest| !kinds.contains(&(manifest.version.clone(), manifest.kind.clone())));
        self.write()?;
        Ok(before - self.manifests.len())
    }

    /// The objects of the answer, and why some or all are missing. Of many objects kubectl tells nothing as soon as one
    /// is refused: then each is asked for alone.
    fn ask(&self, cx: &Context, call: impl Fn(&str) -> Invocation + Sync) -> Result<(Vec<Value>, Vec<String>)> {
        let together = asked(cx, &call(&self.file))?;
        let is_hopeless = together.reasons.iter().any(|why| kubectl::concerns_all(why));
        if !together.stdout.trim().is_empty() || together.reasons.is_empty() || self.manifests.len() < 2 || is_hopeless
        {
            let objects = kubectl::parse_objects(&together.stdout);
            let reasons = objects.as_ref().err().into_iter().cloned().chain(together.reasons).collect();
            return Ok((objects.unwrap_or_default(), reasons));
        }
        let numbered: Vec<(usize, &Manifest)> = self.manifests.iter().enumerate().collect();
        let answers = parallel::map(&numbered, AT_ONCE, |(number, manifest)| {
            let name = format!("{number}-{}", self.name);
            self.workspace.write(&name, &manifest::joined(std::slice::from_ref(*manifest)))?;
            asked(cx, &call(&self.workspace.text(&name)))
        });
        let (mut objects, mut refused) = (Vec::new(), String::new());
        for answer in answers {
            let answer = answer?;
            objects.extend(kubectl::parse_objects(&answer.stdout).unwrap_or_default());
            refused.extend([answer.stderr.as_str(), "\n"]);
        }
        Ok((objects, kubectl::reasons(&refused)))
    }
}

fn say(reasons: &[String], at: &str, compared: &mut Compared) {
    for reason in reasons.iter().map(|why| format!("{at}: {why}")) {
        if !compared.missing.contains(&reason) {
            compared.missing.push(reason);
        }
    }
}

fn by_identity(cluster: &str, objects: Vec<Value>) -> BTreeMap<Identity, Value> {
    let identify = |mut object: Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let identity = Identity {
            cluster: cluster.to_owned(),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        };
        difference::without_noise(&mut object);
        (identity, object)
    };
    objects.into_iter().map(identify).collect()
}

/// That a secret changes is told, not to what.
fn without_secrets(difference: Difference) -> Difference {
    let change = match difference.change {
        Change::Fields(fields) if difference.object.kind == "Secret" => {
            let hide = |mut field: difference::Field| {
                for value in [&mut field.before, &mut field.after] {
                    *value = value.take().map(|_| "[secret]".into());
                }
                field
            };
            Change::Fields(fields.into_iter().map(hide).collect())
        }
        change => change,
    };
    Difference { change, ..difference }
}
