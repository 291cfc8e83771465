//! The chart: got, rendered, and its objects tied to the templates they come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Args, Context};
use crate::exec::fs;
use crate::exec::run::Output;
use crate::exec::workspace::Workspace;
use crate::model::failure::Failure;
use crate::model::parity::{ChartRepository, Settings, Wanted, path_of};
use crate::model::source::{Place, Source};
use crate::model::world::{App, Object};
use crate::model::yaml::{self, Node};
use crate::tools::helm::{self, Template};

/// A rendered chart.
pub(super) struct Chart {
    pub(super) name: String,
    pub(super) version: String,
    /// Where it was got from.
    pub(super) from: String,
    pub(super) objects: Vec<Object>,
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chart {} {}", self.name, self.version)
    }
}

/// A chart on this machine, unpacked.
struct Folder {
    path: PathBuf,
    /// As it is shown in places.
    shown: String,
    from: String,
}

pub(super) fn render(cx: &Context, app: &App, args: &Args, settings: &Settings) -> Result<Chart> {
    let workspace = Workspace::new("blumeops-chart-", false)?;
    let folder = get(cx, args, settings, &workspace)?;
    let (name, version) = identity(&folder)?;
    let kube_version = args.kube_version.as_deref().or(settings.kube_version.as_deref());
    let chart = folder.path.to_string_lossy();
    let values = values(cx, app, settings)?;
    let call = helm::template(&Template {
        release: &app.name,
        chart: &chart,
        namespace: &app.namespace,
        kube_version: kube_version.unwrap_or(helm::KUBE_VERSION),
        values: values.as_deref(),
    });
    let output = cx.system.output(&call)?;
    if !output.success() {
        let failure = cx.system.failed(&call, &output, &format!("chart {name} {version} does not render"));
        return Err(with_remedy(failure, &output).into());
    }
    let objects = objects(&folder, &app.namespace, &output.stdout)?;
    if objects.is_empty() {
        return Err(Failure::refused(format!("nothing was compared: chart {name} {version} renders to nothing")).into());
    }
    Ok(Chart { name, version, from: folder.from, objects })
}

fn with_remedy(failure: Failure, output: &Output) -> Failure {
    match helm::remedy(&output.stderr) {
        Some(remedy) => failure.next(remedy),
        None => failure,
    }
}

/// The values that the service's file names, which have to be there.
fn values(cx: &Context, app: &App, settings: &Settings) -> Result<Option<String>> {
    let Some(path) = &settings.values else { return Ok(None) };
    if cx.path(path).is_file() {
        return Ok(Some(cx.path(path).to_string_lossy().into_owned()));
    }
    Err(Failure::environment(format!("{} names {path}, which is not there", path_of(&app.name))).into())
}

fn get(cx: &Context, args: &Args, settings: &Settings, workspace: &Workspace) -> Result<Folder> {
    if let Some(Wanted::File(path)) = &args.chart {
        if path.is_dir() {
            let shown = path.to_string_lossy().trim_end_matches('/').to_owned();
            return Ok(Folder { path: path.clone(), from: shown.clone(), shown });
        }
        if !path.is_file() {
            return Err(Failure::environment(format!("there is no chart at {}", path.display()))
                .next("--chart takes a version, a folder with Chart.yaml, or a .tgz")
                .into());
        }
        return unpack(path, path.display().to_string(), workspace);
    }
    let unnamed = |what: &str| {
        let place = path_of(&args.service);
        Failure::environment(format!("it is not known {what}"))
            .next(format!("--chart FILE, or write it into {place}:\n[chart]\nname = …\nrepository = …\nversion = …"))
    };
    let name = settings.name.clone().map_or_else(|| args.service.parse(), Ok).map_err(Failure::environment)?;
    let repository: &ChartRepository = args
        .repo
        .as_ref()
        .or(settings.repository.as_ref())
        .ok_or_else(|| unnamed(&format!("where the chart of {} is got from", args.service)))?;
    let version = match &args.chart {
        Some(Wanted::Version(version)) => Some(version),
        _ => settings.version.as_ref(),
    };
    // What moves by itself can't be compared twice.
    let version = version.ok_or_else(|| unnamed(&format!("which version of the chart of {}", args.service)))?;
    let mut stage = cx.report.stage("chart");
    stage.update(&format!("{name} {version} from {repository}"));
    let call = helm::pull(&name, Some(version), repository, &workspace.text("pulled"));
    std::fs::create_dir_all(workspace.path("pulled")).context("no folder for the chart")?;
    let output = cx.system.output(&call)?;
    if !output.success() {
        let what = format!("chart {name} {version} can't be had from {repository}");
        return Err(with_remedy(cx.system.failed(&call, &output, &what), &output).into());
    }
    let is_packed = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "tgz");
    let packed = workspace.names("pulled").into_iter().find(is_packed);
    let packed = packed.ok_or_else(|| Failure::environment("helm pull ended well and left no chart"))?;
    let folder = unpack(&workspace.path("pulled").join(packed), repository.to_string(), workspace)?;
    stage.done(&folder.shown);
    Ok(folder)
}

/// A packed chart is one folder.
fn unpack(file: &Path, from: String, workspace: &Workspace) -> Result<Folder> {
    let no_chart = |why: String| Failure::environment(format!("{} is no packed chart: {why}", file.display()));
    let into = workspace.path("unpacked");
    let packed = std::fs::File::open(file).with_context(|| format!("can't read {}", file.display()))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    archive.unpack(&into).map_err(|error| no_chart(error.to_string()))?;
    let names = workspace.names("unpacked");
    let name = names.iter().find(|name| into.join(name).join("Chart.yaml").is_file());
    let name = name.ok_or_else(|| no_chart("no Chart.yaml in it".to_owned()))?;
    let shown = file.file_name().unwrap_or_default().to_string_lossy();
    let shown = shown.strip_suffix(".tgz").unwrap_or(&shown).to_owned();
    Ok(Folder { path: into.join(name), shown, from })
}

/// Name and version, as the chart says them.
fn identity(folder: &Folder) -> Result<(String, String)> {
    let no_chart = |why: &str| Failure::environment(format!("{} is no chart: {why}", folder.from));
    let source =
        fs::source(&folder.path, &folder.path.join("Chart.yaml")).ok_or_else(|| no_chart("no Chart.yaml in it"))?;
    let documents = yaml::parse(&source).map_err(|finding| no_chart(&finding.message))?;
    let text = |key: &str| documents.first().and_then(|node| node.get(key)).and_then(Node::text).map(str::to_owned);
    let both = text("name").zip(text("version"));
    both.ok_or_else(|| no_chart("its Chart.yaml has no name or no version").into())
}

/// What helm printed, each object with its template.
fn objects(folder: &Folder, namespace: &str, output: &str) -> Result<Vec<Object>> {
    let rendered = Source::new(&format!("{} (rendered)", folder.shown), output);
    let documents = yaml::parse(&rendered)
        .map_err(|finding| Failure::of_findings("what helm printed is not YAML", vec![*finding]))?;
    let mut templates = BTreeMap::<String, Source>::new();
    let mut objects = Vec::new();
    for node in documents {
        let place = match helm::source_of(output, node.start) {
            Some(path) => {
                let known = templates.entry(path.to_owned());
                known.or_insert_with(|| template(folder, path).unwrap_or_else(|| rendered.clone())).place(0, 0)
            }
            None => Place { source: rendered.clone(), start: node.start, end: node.start },
        };
        objects.extend(Object::of_template(node, namespace, place));
    }
    Ok(objects)
}

/// The template that helm calls `chart/templates/x.yaml`; a subchart may go by another name there.
fn template(folder: &Folder, path: &str) -> Option<Source> {
    let (_, inside) = path.split_once('/')?;
    let read = |inside: &str| {
        let source = fs::source(&folder.path, &folder.path.join(inside))?;
        Some(Source::new(&format!("{}/{inside}", folder.shown), &source.text))
    };
    read(inside).or_else(|| {
        let (_, rest) = inside.strip_prefix("charts/")?.split_once('/')?;
        let subcharts = std::fs::read_dir(folder.path.join("charts")).ok()?.flatten();
        let mut names: Vec<String> = subcharts.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().find_map(|name| read(&format!("charts/{name}/{rest}")))
    })
}
