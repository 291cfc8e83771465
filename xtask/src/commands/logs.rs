//! What a service's containers say, all together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Context, check, deploy};
use crate::exec::{parallel, signal};
use crate::model::failure::{Failure, Kind};
use crate::model::pods::{self, Pod};
use crate::model::world::{App, Ref};
use crate::report::{Format, Outcome, Reader};
use crate::tools::kubectl;

/// The API server's limit for a list.
const LIST: Duration = Duration::from_secs(10);

/// Following ends when somebody ends it.
const FOLLOW: Duration = Duration::from_secs(24 * 3600);

const COLOURS: [&str; 6] = ["\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[31m"];

/// Show the logs of a service's containers together, from the cluster it runs in
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask logs authentik\n  cargo xtask logs authentik --follow --container worker"
)]
pub(crate) struct Args {
    /// An Application of this repository
    pub(crate) service: String,
    /// Go on until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How far back, as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::release::duration)]
    pub(crate) since: Duration,
    /// Only containers of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    Context::preflight(&["kubectl"])?;
    if args.follow && cx.report.format == Format::Json {
        return Err(Failure::environment("what is followed has no end, and so is no JSON document").into());
    }
    let world = check::world(cx)?;
    let app = deploy::app(&world, &args.service)?;
    let context = deploy::context(cx, app)?;
    let question = kubectl::in_cluster(context, LIST, &["get", "pods", "--namespace", &app.namespace, "--output=json"]);
    let answer = cx.system.output(&question)?;
    if !answer.success() {
        let failure = cx.system.failed(&question, &answer, &format!("{} can't be asked for its pods", app.cluster));
        return Err(Failure { kind: Kind::Environment, ..failure }.into());
    }
    let unreadable = |why| Failure::environment(format!("kubectl wrote what is no list of pods: {why}"));
    let pods = pods::parse(&answer.stdout).map_err(unreadable)?;
    let wanted = wanted(app, &pods, args.container.as_deref());
    if wanted.is_empty() {
        return Err(nothing(app, &pods, args, &question.to_string()).into());
    }
    let since = format!("--since={}s", args.since.as_secs());
    let width = wanted.iter().map(|(pod, container)| pod.len() + container.len() + 1).max().unwrap_or_default();
    let numbered: Vec<(usize, &(String, String))> = wanted.iter().enumerate().collect();
    // Nobody reads any more: nobody needs to write either.
    let is_left = AtomicBool::new(false);
    let results = parallel::map(&numbered, wanted.len(), |(at, (pod, container))| {
        let mut words = vec!["logs", pod, "--namespace", &app.namespace, "--container", container, &since];
        words.extend(args.follow.then_some("--follow"));
        // Its own limit is for a request, and following is one that does not end.
        let limit = if args.follow { FOLLOW } else { LIST * 3 };
        let question = kubectl::in_cluster(context, limit, &words);
        let (colour, label) = (COLOURS[at % COLOURS.len()], format!("{pod}/{container}"));
        let mut lines = Vec::new();
        let result = cx.system.follow(&question, &mut |line| match cx.report.format {
            Format::Human => {
                if cx.report.data(&format!("{colour}{label:width$} │\x1b[0m {line}\n")) == Reader::Gone
                    && !is_left.swap(true, Ordering::SeqCst)
                {
                    signal::stop_children(Signal::TERM);
                }
            }
            _ => lines.push(line.to_owned()),
        });
        (label, lines, result.map(|output| (output.success(), cx.system.failed(&question, &output, "no log"))))
    });
    if is_left.into_inner() {
        return Ok(Outcome::ok(String::new(), Value::Null));
    }
    let (mut values, mut failures) = (Vec::new(), Vec::new());
    for (label, lines, result) in results {
        let (fine, failure) = result?;
        values.push(json!({"container": label, "lines": lines}));
        if !fine {
            cx.report.say(&format!("{label}: {}", failure.tail.last().unwrap_or(&failure.summary)));
            failures.push(label);
        }
    }
    let value = json!({"cluster": app.cluster, "namespace": app.namespace, "logs": values, "failed": failures});
    Ok(Outcome { human: String::new(), json: value, code: u8::from(!failures.is_empty()), other: None })
}

/// Pods and containers of the Application's workloads.
fn wanted(app: &App, pods: &[Pod], container: Option<&str>) -> Vec<(String, String)> {
    let selectors: Vec<Vec<(&str, &str)>> = app
        .objects
        .iter()
        .filter_map(|object| object.pod_template()?.at(&["metadata", "labels"]))
        .map(|labels| Ref::entries(labels).into_iter().filter_map(|(key, value)| Some((key, value.text()?))).collect())
        .collect();
    let is_of = |pod: &&Pod| {
        let has = |&(key, value): &(&str, &str)| pod.labels.get(key).is_some_and(|own| own == value);
        selectors.iter().any(|selector| !selector.is_empty() && selector.iter().all(has))
    };
    let all = pods.iter().filter(is_of);
    let all = all.flat_map(|pod| pod.containers.iter().map(|container| (pod.name.clone(), container.clone())));
    all.filter(|(_, own)| container.is_none_or(|wanted| own == wanted)).collect()
}

fn nothing(app: &App, pods: &[Pod], args: &Args, command: &str) -> Failure {
    let containers: Vec<String> = wanted(app, pods, None).into_iter().map(|(_, container)| container).collect();
    let failure = match &args.container {
        Some(name) if !containers.is_empty() => Failure::refused(format!("{} has no container {name}", app.name))
            .next(format!("there are: {}", containers.join(", "))),
        _ => Failure::refused(format!("no pod of {} is in {} of {}", app.name, app.namespace, app.cluster)),
    };
    Failure { command: Some(command.to_owned()), ..failure }
}
