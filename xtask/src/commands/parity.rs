//! An upstream chart against the manifests of a service: what differs, and what of that nobody has accepted.

mod chart;

use anyhow::Result;
use serde_json::{Value, json};

use self::chart::Chart;
use super::{Context, check, deploy};
use crate::checks::parity::{self, Compared, Difference, Judged, Side};
use crate::exec::fs;
use crate::model::failure::Failure;
use crate::model::parity::{ChartRepository, Settings, Wanted, path_of};
use crate::model::world::{App, World};
use crate::report::{Format, Outcome, findings, formats};

/// Compare a service with its upstream Helm chart, by meaning
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The chart is rendered by helm, with the values that xtask/parity/SERVICE.toml names. A difference is a finding, or accepted in that file with its reason.\n\nExamples:\n  cargo xtask parity authentik\n  cargo xtask parity authentik --chart 2026.2.0\n  cargo xtask parity authentik --chart ./authentik-2026.2.0.tgz --format markdown"
)]
pub(crate) struct Args {
    /// Which Application
    pub(crate) service: String,
    /// A version of the chart, a folder, or a packed chart; default: the version in the service's file
    #[arg(long, value_name = "VERSION|FILE|FOLDER")]
    pub(crate) chart: Option<Wanted>,
    /// Where the chart is got from instead: https://… or oci://…
    #[arg(long, value_name = "URL")]
    pub(crate) repo: Option<ChartRepository>,
    /// The Kubernetes that the chart is rendered for; default: 1.34
    #[arg(long, value_name = "VERSION")]
    pub(crate) kube_version: Option<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    Context::preflight(&["helm"])?;
    let world = check::world(cx)?;
    let app = deploy::app(&world, &args.service)?;
    let file = path_of(&app.name);
    let settings = settings(cx, &file)?;
    let objects = &app.objects;
    if objects.is_empty() {
        return Err(nothing_of_ours(&world, app));
    }
    let chart = chart::render(cx, app, args, &settings)?;
    let (theirs, ours) = (Side { objects: &chart.objects, prefix: &app.name }, Side { objects, prefix: &app.name });
    let compared = parity::compare(theirs, ours);
    if compared.pairs == 0 {
        let failure = Failure::refused(format!(
            "nothing was compared: no workload of {chart} is one of {}, by what it runs, its component or its name",
            app.name
        ));
        return Err(failure
            .next("look whether it is the chart of this service, and whether its values turn it on")
            .into());
    }
    let own = app.path.as_deref().and_then(|path| world.repo.kustomization(path));
    let fallback = own.map_or_else(|| app.file.place(0, 0), |kustomization| kustomization.source.place(0, 0));
    let judged = parity::judge(&compared.differences, &settings, (&file, &fallback));
    Ok(outcome(cx, (app, &chart), &compared, &judged))
}

/// The service's file; a service without one has nothing accepted.
fn settings(cx: &Context, file: &str) -> Result<Settings> {
    let Some(source) = fs::source(&cx.system.root, &cx.path(file)) else { return Ok(Settings::default()) };
    Settings::parse(&source)
        .map_err(|finding| Failure::of_findings(format!("{file} can't be read"), vec![*finding]).into())
}

fn nothing_of_ours(world: &World, app: &App) -> anyhow::Error {
    let findings = world.findings.iter().filter(|finding| matches!(finding.code, "app-render" | "tool-missing"));
    let about = |why: &&String| why.starts_with(&format!("{}:", app.name));
    let why = world.not_checked.iter().find(about).map_or_else(String::new, |why| format!(" ({why})"));
    let summary = format!("nothing was compared: what {} deploys is not known{why}", app.name);
    let findings: Vec<_> = findings.cloned().collect();
    if findings.is_empty() { Failure::refused(summary).into() } else { Failure::of_findings(summary, findings).into() }
}

fn outcome(cx: &Context, (app, chart): (&App, &Chart), compared: &Compared, judged: &Judged) -> Outcome {
    let found = &judged.findings;
    let accepted = judged.reasons.iter().flatten().count();
    let counts = format!(
        "{chart}: {} objects, {} workloads, against {} objects of {}: {} findings, {accepted} differences accepted",
        chart.objects.len(),
        compared.pairs,
        app.objects.len(),
        app.name,
        found.len()
    );
    let human = found.iter().map(|finding| findings::human(finding) + "\n").collect::<String>() + &counts + "\n";
    let list: Vec<Value> = found.iter().map(findings::finding_json).collect();
    let pairs = compared.differences.iter().zip(&judged.reasons);
    let differences: Vec<Value> = pairs.map(|(difference, reason)| value(difference, reason.as_deref())).collect();
    let value = json!({
        "service": app.name, "chart": {"name": chart.name, "version": chart.version, "from": chart.from},
        "workloads": compared.pairs, "findings": list, "differences": differences, "accepted": accepted,
    });
    let title = format!("cargo xtask parity {}", app.name);
    let other = match cx.report.format {
        Format::Sarif => Some(formats::sarif("cargo xtask parity", parity::CODES.iter().map(|code| code.0), found)),
        Format::Markdown => Some(formats::summary(&title, found, (&counts, &[]))),
        _ => None,
    };
    Outcome { human, json: value, code: u8::from(!found.is_empty()), other }
}

fn value(difference: &Difference, reason: Option<&str>) -> Value {
    let [chart, ours] = difference.values();
    json!({"path": difference.path, "code": difference.code(), "chart": chart, "ours": ours, "accepted": reason})
}
