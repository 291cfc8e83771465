//! `diff --live`: what applying would change in the clusters, as their API servers say it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::commands::check;
use crate::exec::parallel;
use crate::exec::workspace::Workspace;
use crate::model::config::KubeContext;
use crate::model::difference::{self, Change, Difference, Identity};
use crate::model::failure::{Failure, Kind};
use crate::model::world::{App, Rendered, World};
use crate::report::Outcome;
use crate::tools::kubectl;

/// An API server answers several at once; more would only queue there.
const AT_ONCE: usize = 4;

/// One Application and where it is compared.
struct Job<'a> {
    app: &'a App,
    context: &'a KubeContext,
    file: String,
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
    let workspace = Workspace::new("blumeops-live-", false)?;
    let mut missing = Vec::new();
    let mut jobs = Vec::new();
    for app in world.apps.iter().filter(|app| args.app.is_empty() || args.app.contains(&app.name)) {
        match job(&world, app, &workspace) {
            Ok(job) => jobs.push(job?),
            Err(why) => missing.push(format!("{}: {why}", app.name)),
        }
    }
    let (mut differences, mut objects) = (Vec::new(), 0);
    for compared in parallel::map(&jobs, AT_ONCE, |job| compare(cx, job)) {
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

/// Its manifests in a file of ours, or why there is nothing to compare.
fn job<'a>(world: &'a World, app: &'a App, workspace: &Workspace) -> Result<Result<Job<'a>>, String> {
    let cluster = world.repo.config.clusters.iter().find(|cluster| cluster.name == app.cluster);
    let cluster = cluster.ok_or_else(|| format!("xtask/blumeops.toml names no cluster {}", app.cluster))?;
    let context = cluster.context.as_ref();
    let context = context.ok_or_else(|| format!("xtask/blumeops.toml gives {} no context", cluster.name))?;
    let path = app.path.as_ref().ok_or("it does not come from this repository")?;
    let text = match world.facts.rendered.get(path) {
        Some(Rendered::Text(rendered)) if !rendered.text.trim().is_empty() => &rendered.text,
        Some(Rendered::NotChecked(why)) => return Err(why.clone()),
        Some(Rendered::Failed(finding)) => return Err(finding.message.clone()),
        Some(Rendered::Text(_)) | None => return Err("it renders to nothing".to_owned()),
    };
    let name = format!("{}.yaml", app.name.replace('/', "-"));
    Ok(workspace.write(&name, text).map(|()| Job { app, context, file: workspace.text(&name) }))
}

/// Asks for what is there, then for what would be there.
fn compare(cx: &Context, job: &Job<'_>) -> Result<Compared> {
    let mut compared = Compared::default();
    let calls = [
        kubectl::there(job.context, &job.app.namespace, &job.file),
        kubectl::would_be(job.context, &job.app.namespace, &job.file),
    ];
    let mut answers = Vec::new();
    for call in calls {
        match cx.system.output(&call).map_err(anyhow::Error::downcast::<Failure>) {
            Ok(output) => {
                let list = kubectl::parse_objects(&output.stdout);
                if let Err(why) = &list {
                    compared.missing.push(format!("{} in {}: {why}", job.app.name, job.app.cluster));
                }
                if !output.success() {
                    let reasons = kubectl::reasons(&output.stderr);
                    let at = format!("{} in {}", job.app.name, job.app.cluster);
                    compared.missing.extend(reasons.iter().map(|why| format!("{at}: {why}")));
                    // What was refused is said; whoever can't be asked once need not be asked again.
                    if list.as_ref().is_ok_and(Vec::is_empty) && answers.is_empty() {
                        return Ok(compared);
                    }
                }
                answers.push(by_identity(&job.app.cluster, list.unwrap_or_default()));
            }
            Err(Ok(failure)) if failure.kind == Kind::Interrupted => return Err(failure.into()),
            Err(Ok(failure)) => {
                compared.missing.push(format!("{} in {}: {}", job.app.name, job.app.cluster, failure.summary));
                return Ok(compared);
            }
            Err(Err(error)) => return Err(error),
        }
    }
    if let [live, predicted] = &mut answers[..] {
        live.retain(|identity, _| predicted.contains_key(identity));
        compared.objects = predicted.len();
        compared.differences = difference::compare(live, predicted).into_iter().map(without_secrets).collect();
    }
    compared.missing = compared.missing.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    Ok(compared)
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
