//! What every Application's folder renders to; unchanged folders cost a hash.

mod judged;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::Context;
use crate::exec::{env, fs, parallel, run};
use crate::model::digest::Digest;
use crate::model::failure::{Failure, Kind};
use crate::model::finding::Finding;
use crate::model::repo::{Files, is_manifest};
use crate::model::source::Source;
use crate::model::world::Rendered;
use crate::report::Outcome;
use crate::tools::kustomize;

/// Render the manifests of Applications with kustomize
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask render authentik\n  cargo xtask render --to rendered")]
pub(crate) struct Args {
    /// Which Applications, by the last part of their folder; default: all
    pub(crate) apps: Vec<String>,
    /// Write one file for each into this folder instead of to stdout
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let all = folders(cx);
    let name = |folder: &str| folder.rsplit('/').next().unwrap_or(folder).to_owned();
    let wanted: BTreeSet<String> =
        all.iter().filter(|folder| args.apps.is_empty() || args.apps.contains(&name(folder))).cloned().collect();
    if let Some(unknown) = args.apps.iter().find(|app| !wanted.iter().any(|folder| name(folder) == **app)) {
        let known: Vec<String> = all.iter().map(|folder| name(folder)).collect();
        return Err(Failure::refused(format!("no Application deploys a folder {unknown}"))
            .next(format!("there are: {}", known.join(", ")))
            .into());
    }
    let rendered = render(cx, &wanted)?;
    let mut findings = Vec::new();
    let (mut text, mut values, mut files) = (String::new(), Vec::new(), Vec::new());
    let alone = |folder: &str| wanted.iter().filter(|other| name(other) == name(folder)).count() == 1;
    for (folder, result) in &rendered {
        match result {
            Rendered::Text(manifests) => {
                let manifests = &*manifests.text;
                values.push(json!({"folder": folder, "manifests": manifests}));
                if let Some(to) = &args.to {
                    let file = if alone(folder) { name(folder) } else { folder.replace('/', "-") };
                    files.push((to.join(format!("{file}.yaml")), manifests));
                } else {
                    text += &format!("# {folder}\n---\n{manifests}");
                }
            }
            Rendered::Failed(finding) => findings.push((**finding).clone()),
            Rendered::NotChecked(why) => cx.report.say(&format!("not rendered: {folder}: {why}")),
        }
    }
    if findings.is_empty() {
        // All of them or none: half a folder would be taken for a whole one.
        files.into_iter().try_for_each(|(path, manifests)| fs::write(&path, manifests))?;
        return Ok(Outcome::ok(text, json!({"rendered": values})));
    }
    Err(Failure::of_findings("not everything renders", findings).into())
}

/// The folders that Applications deploy, and those that nothing deploys but have a kustomization.
pub(crate) fn folders(cx: &Context) -> BTreeSet<String> {
    let deployed = cx.repo.applications.iter().map(|application| application.path.trim_matches('/').to_owned());
    deployed.filter(|folder| !folder.is_empty() && cx.path(folder).is_dir()).collect()
}

/// Renders `folders`, several at once, from the cache where nothing has changed.
///
/// # Errors
/// A signal came; what does not render is a finding in the result.
pub(crate) fn render(cx: &Context, folders: &BTreeSet<String>) -> Result<BTreeMap<String, Rendered>> {
    let folders: Vec<&String> = folders.iter().collect();
    let program = program();
    let at_once = std::thread::available_parallelism().map_or(2, NonZero::get);
    let hangs = AtomicBool::new(false);
    let results = parallel::map(&folders, at_once, |folder| one(cx, folder, program, &hangs));
    folders.into_iter().zip(results).map(|(folder, result)| Ok((folder.clone(), result?))).collect()
}

/// What renders here.
pub(crate) fn program() -> Option<&'static str> {
    ["kustomize", "kubectl"].into_iter().find(|program| run::find(program).is_some())
}

/// How long others may take once one has not ended: what holds one up holds up all.
const AFTER_A_HANG: Duration = Duration::from_secs(5);

fn one(cx: &Context, folder: &str, program: Option<&str>, hangs: &AtomicBool) -> Result<Rendered> {
    let inputs = cx.repo.inputs(folder);
    let files: Vec<&Source> = cx.repo.files.iter().filter(|file| inputs.contains(&*file.path)).collect();
    let Some(kustomization) = cx.repo.kustomization(folder) else {
        let application = cx.repo.applications.iter().find(|application| application.path == folder);
        return Ok(plain(folder, &files, application.map_or(Files::Own, |application| application.files)));
    };
    let mut reached = cx.repo.kustomizations.iter().filter(|k| inputs.contains(&*k.source.path));
    if let Some(place) = reached.find_map(|kustomization| kustomization.remote.as_ref()) {
        return Ok(Rendered::NotChecked(format!("needs something from elsewhere, {place}")));
    }
    let Some(program) = program else {
        return Ok(Rendered::NotChecked("kustomize is not installed (nor is kubectl)".to_owned()));
    };
    let cached = env::cache_folder().join(format!("render/{}.yaml", key(cx, program, &files)));
    if let Ok(text) = std::fs::read_to_string(&cached) {
        let known = rendered(folder, &text);
        // What somebody has cut off there is made again.
        if judged::implausible(&known, &files).is_none() {
            return Ok(Rendered::Text(known));
        }
    }
    let failed = |why: &str| {
        let finding = Finding::error("app-render", format!("{folder} does not render: {why}"));
        let finding = finding.at(judged::place(&kustomization.source, why));
        Rendered::Failed(Box::new(finding.help(kustomize::build(program, folder).to_string())))
    };
    let limit = if hangs.load(Ordering::Relaxed) { AFTER_A_HANG.min(limit()) } else { limit() };
    let started = Instant::now();
    match cx.system.output(&kustomize::build(program, folder).limit(limit)) {
        Ok(output) if output.success() => {
            let rendered = rendered(folder, &output.stdout);
            if let Some(why) = judged::implausible(&rendered, &files) {
                return Ok(failed(&why));
            }
            // Without a folder to keep it in, the next run renders again.
            drop(fs::write(&cached, &output.stdout));
            Ok(Rendered::Text(rendered))
        }
        Ok(output) => match kustomize::cannot(&output.stderr) {
            Some(why) => Ok(Rendered::NotChecked(why.to_owned())),
            None if output.code.is_none() => Ok(failed("it was killed")),
            None => Ok(failed(kustomize::parse_error(&output.stderr))),
        },
        Err(error) => match error.downcast::<Failure>()? {
            failure if failure.kind == Kind::Interrupted => Err(failure.into()),
            failure => {
                hangs.fetch_or(started.elapsed() >= limit, Ordering::Relaxed);
                Ok(failed(&failure.summary))
            }
        },
    }
}

/// What a folder renders to, parsed here, where several are at once.
fn text_of(folder: &str, text: &str) -> Rendered {
    let source = rendered(folder, text);
    source.documents();
    Rendered::Text(source)
}

fn rendered(folder: &str, text: &str) -> Source {
    Source::new(&format!("{folder} (rendered)"), text)
}

/// How long one folder may take; `BLUMEOPS_KUSTOMIZE_LIMIT` says otherwise, in seconds.
fn limit() -> Duration {
    let seconds = env::var("BLUMEOPS_KUSTOMIZE_LIMIT").and_then(|text| text.parse().ok());
    seconds.map_or(kustomize::RENDER, Duration::from_secs_f32)
}

/// What the render depends on: the program and every file, also those that are no text.
fn key(cx: &Context, program: &str, files: &[&Source]) -> String {
    let program = run::find(program).unwrap_or_default();
    let size = program.metadata().map_or(0, |metadata| metadata.len());
    let mut text = format!("{} {size}\n", program.display());
    for file in files {
        text.extend([&*file.path, "\0", &*file.text, "\0"]);
    }
    let known: BTreeSet<&str> = files.iter().map(|file| &*file.path).collect();
    let folders = files.iter().filter(|file| cx.repo.kustomization(file.folder()).is_some()).map(|file| file.folder());
    for stamp in folders.collect::<BTreeSet<_>>().into_iter().flat_map(|f| fs::stamps(&cx.system.root, f, &known)) {
        text.extend([&stamp, "\0"]);
    }
    Digest::of(text.as_bytes()).as_str()["sha256:".len()..].to_owned()
}

/// A folder without a kustomization: ArgoCD applies its files as they are.
fn plain(folder: &str, files: &[&Source], taken: Files) -> Rendered {
    if files.iter().any(|file| *file.path == format!("{folder}/Chart.yaml")) {
        return Rendered::NotChecked("it is a Helm chart".to_owned());
    }
    if taken == Files::Chosen {
        return Rendered::NotChecked("its Application does not take the files as they are".to_owned());
    }
    let is_taken = |file: &&&Source| (taken == Files::Below || file.folder() == folder) && is_manifest(file);
    let own = files.iter().filter(is_taken);
    let mut text = String::new();
    for file in own {
        text.extend([
            "---\n",
            file.text.trim_start_matches('\u{feff}'),
            if file.text.ends_with('\n') { "" } else { "\n" },
        ]);
    }
    text_of(folder, &text)
}
