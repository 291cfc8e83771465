//! Would this image start? Runs it as its manifests say, and looks.

mod image;
mod prepare;
mod watch;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Context, build, check};
use crate::exec::run;
use crate::exec::workspace::Workspace;
use crate::model::expectation::duration;
use crate::model::failure::Failure;
use crate::model::name::ContainerName;
use crate::model::repo::Container;
use crate::model::suggest::nearest;
use crate::model::trial::{self, Trial};
use crate::probes::Checked;
use crate::report::{Outcome, health};
use crate::tools::engine::{self, Engine};
use prepare::Overrides;

/// Run an image as its manifests say, and look: user, files, ports, health
#[derive(clap::Args, Debug)]
#[command(
    after_help = "What comes from a vault is made up for the run. Names outside do not resolve; --env and --network lead to services\nthat are there.\n\nExamples:\n  cargo xtask smoke redis\n  cargo xtask smoke authentik --workload deployment/authentik-worker\n  cargo xtask smoke authentik --image v1.0.0-nix\n  cargo xtask smoke authentik --env AUTHENTIK_POSTGRESQL__HOST=10.88.0.1 --env AUTHENTIK_POSTGRESQL__PASSWORD\n  cargo xtask smoke redis --format junit"
)]
pub(crate) struct Args {
    /// Which container, as under containers/
    pub(crate) name: ContainerName,
    /// Only as this workload, as in deployment/redis
    #[arg(long, value_name = "KIND/NAME")]
    pub(crate) workload: Option<String>,
    /// An archive, a published tag or any reference; default: what is built now
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// What runs it; default: podman, or docker where there is no podman
    #[arg(long, value_enum)]
    pub(crate) engine: Option<Engine>,
    /// Set a variable, or take its value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A network of the engine, on which services are
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// Let the image's own files be written, unless the manifest forbids it
    #[arg(long)]
    pub(crate) writable: bool,
    /// How long each container may take; its probes' own timing is shrunk to this
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) wait: Duration,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// All that a run needs to know.
struct Smoke<'a> {
    cx: &'a Context,
    args: &'a Args,
    engine: Engine,
    container: &'a Container,
    overrides: Overrides,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let container = cx.container(&args.name)?;
    let overrides = Overrides::read(&args.env)?;
    let engine = args.engine.unwrap_or_else(engine_here);
    let trials = trials(cx, args)?;
    let smoke = Smoke { cx, args, engine, container, overrides };
    if args.dry_run {
        let lines = image::lines(&smoke)?.into_iter().chain(prepare::lines(&smoke, &trials)?);
        return Ok(build::commands(cx, lines));
    }
    let builds: &[&'static str] = if args.image.is_none() { &["nix-build", "nix-store"] } else { &[] };
    Context::preflight(&[&[engine.program(), "skopeo"], builds].concat())?;
    let started = Instant::now();
    let workspace = Workspace::new(engine::PREFIX, false)?;
    image::sweep(&smoke)?;
    let image = image::load(&smoke, &workspace)?;
    let mut all = Vec::new();
    for (at, trial) in trials.iter().enumerate() {
        trial.notes.iter().for_each(|note| cx.report.say(&format!("  {}: {note}", group(trial))));
        all.extend(watch::watch(&smoke, &workspace, &image, (at, trial))?);
    }
    Ok(outcome(&smoke, &all, started.elapsed()))
}

/// What is installed.
fn engine_here() -> Engine {
    if run::find("podman").is_none() && run::find("docker").is_some() { Engine::Docker } else { Engine::Podman }
}

/// Every container to try; one that no manifest uses is tried as it is declared.
fn trials(cx: &Context, args: &Args) -> Result<Vec<Trial>> {
    let world = check::world(cx)?;
    if !world.findings.is_empty() {
        return Err(Failure::of_findings("nothing was run: not all manifests are known", world.findings).into());
    }
    let (mut trials, names) = trial::of(&world, &cx.home()?.image(&args.name), args.workload.as_deref());
    if let (true, Some(only)) = (trials.is_empty(), &args.workload) {
        let near = nearest(only, names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let next = near.unwrap_or_else(|| format!("there are: {}", names.join(", ")));
        return Err(Failure::refused(format!("no workload {only} uses the image {}", args.name)).next(next).into());
    }
    if trials.is_empty() {
        cx.report.say(&format!("no manifest uses {}: it is run as its image declares", args.name));
        let name = args.name.to_string();
        trials = vec![Trial { hostname: name.clone(), container: name, escalates: true, ..Trial::default() }];
    }
    Ok(trials)
}

/// What its checks stand under.
fn group(trial: &Trial) -> String {
    if trial.workload.is_empty() { trial.container.clone() } else { trial.workload.clone() }
}

fn outcome(smoke: &Smoke<'_>, all: &[Checked], took: Duration) -> Outcome {
    let failed = all.iter().filter(|checked| checked.fails()).count();
    let values: Vec<Value> = all.iter().map(health::value).collect();
    let json = json!({
        "container": smoke.args.name.as_str(), "engine": smoke.engine.program(), "checks": values,
        "count": all.len(), "failed": failed, "seconds": took.as_secs_f64(),
    });
    Outcome {
        human: health::human(all, false, took.as_secs_f32()),
        json,
        code: u8::from(failed > 0),
        other: health::other(smoke.cx.report.format, "smoke", all),
    }
}
