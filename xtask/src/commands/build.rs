//! Builds containers with Nix and says what came out.

use std::fs::File;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Context;
use super::publish::image::Image;
use crate::exec::{env, fs, parallel};
use crate::model::digest::Digest;
use crate::model::failure::Failure;
use crate::model::name::ContainerName;
use crate::model::repo::Container;
use crate::model::tag::BuildKind;
use crate::report::{Outcome, Stage, bytes, findings};
use crate::tools::archive::{self, Contents};
use crate::tools::{Invocation, nix};

/// Two builds at once keep the machine busy; Nix itself uses the rest of the cores.
const AT_ONCE: usize = 2;

/// Build containers with nix-build and show what came out
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask build authentik redis\n  cargo xtask build redis --dry-run")]
pub(crate) struct Args {
    /// Which containers, as under containers/
    #[arg(required = true)]
    pub(crate) names: Vec<ContainerName>,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A finished build.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) store_path: String,
    pub(crate) file: String,
    pub(crate) contents: Contents,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let mut containers = args.names.iter().map(|name| cx.container(name)).collect::<Result<Vec<_>>>()?;
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    containers.dedup_by(|a, b| a.name == b.name);
    if args.dry_run {
        return Ok(commands(cx, containers.iter().map(|container| nix::build(&container.expression()).to_string())));
    }
    Context::preflight(&["nix-build", "nix-store"])?;
    let results = parallel::map(&containers, AT_ONCE, |container| build(cx, container));
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let mut failed = None;
    for (container, result) in containers.iter().zip(results) {
        match result {
            Ok(built) => {
                rows.push(row(&container.name, &built));
                values.push(value(&container.name, &built));
            }
            Err(error) => {
                if let Some(Failure { .. }) = error.downcast_ref::<Failure>().filter(|_| containers.len() > 1) {
                    cx.report.say(&format!("{}: {error}", container.name));
                }
                failed.get_or_insert(error);
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let human = crate::report::table(
        &["CONTAINER", "STORE PATH", "IMAGE ID", "SIZE", "LAYERS", "USER", "PORTS", "ENTRYPOINT"],
        &rows,
    );
    Ok(Outcome::ok(human, json!({"built": values})))
}

/// The commands of a dry run, ready to paste.
pub(crate) fn commands(cx: &Context, lines: impl Iterator<Item = String>) -> Outcome {
    let folder = shell_words::quote(&cx.system.root.to_string_lossy()).into_owned();
    let lines: Vec<String> = std::iter::once(format!("cd {folder}")).chain(lines).collect();
    Outcome::ok(lines.join("\n"), json!({"dry_run": true, "commands": lines}))
}

/// Builds the archive of one container; what is built already costs an evaluation.
pub(crate) fn build(cx: &Context, container: &Container) -> Result<Built> {
    let stage = cx.report.stage("build");
    build_as(cx, container, &nix::build(&container.expression()), stage, |store_path| inspect(cx, store_path))
}

/// Builds what there is to push of one container.
pub(crate) fn to_push(cx: &Context, container: &Container) -> Result<Image> {
    let invocation = nix::build_to_push(&cx.path(&container.expression()));
    if let Some(image) = build_as(cx, container, &invocation, cx.report.stage("build"), Image::read)? {
        return Ok(image);
    }
    let archive = nix::build(&container.expression());
    let image = build_as(cx, container, &archive, cx.report.stage("archive"), Image::read)?;
    image.ok_or_else(|| Failure::refused(format!("{}: nix-build left no archive", container.name)).into())
}

fn build_as<T>(
    cx: &Context,
    container: &Container,
    invocation: &Invocation,
    mut stage: Stage<'_>,
    read: impl Fn(&str) -> Result<T>,
) -> Result<T> {
    if !container.kinds.contains(&BuildKind::Nix) {
        return Err(Failure::refused(format!(
            "{} has no default.nix: only Nix builds are made here",
            container.folder()
        ))
        .into());
    }
    stage.update(&format!("{}: evaluating", container.name));
    let mut log = String::new();
    let output = cx.system.stream(invocation, &mut |line| {
        log.push_str(line);
        log.push('\n');
        if let Some(progress) = nix::parse_progress(line) {
            stage.update(&format!("{}: {progress}", container.name));
        }
    })?;
    let log_file = env::cache_folder().join(format!("logs/build-{}.log", container.name));
    fs::write(&log_file, &log)?;
    if !output.success() {
        let what = match nix::parse_failed_derivation(&output.stderr) {
            Some(derivation) => format!("building {} failed in {derivation}", container.name),
            None => format!("{} does not evaluate", container.expression()),
        };
        return Err(cx
            .system
            .failed(invocation, &output, &what)
            .left("nothing was tagged, pushed or changed")
            .next(format!("the whole log is {}", log_file.display()))
            .into());
    }
    let store_path = nix::parse_store_path(&output.stdout)
        .ok_or_else(|| Failure::refused(format!("{}: nix-build named no store path", container.name)))?;
    let built = read(store_path)?;
    stage.done(&format!("{} {store_path}", container.name));
    Ok(built)
}

/// Reads what is in the archive, once for each content.
fn inspect(cx: &Context, store_path: &str) -> Result<Built> {
    let real = nix::real_path(store_path, env::var("NIX_REMOTE").as_deref());
    let hash = cx.system.stdout(&nix::content_hash(store_path).limit(Duration::from_secs(60)), "asking the store")?;
    let cache = env::cache_folder().join(format!("images/{}.json", &Digest::of(hash.trim().as_bytes()).as_str()[7..]));
    let known = std::fs::read_to_string(&cache).ok().and_then(|text| serde_json::from_str(&text).ok());
    let contents = if let Some(contents) = known {
        contents
    } else {
        let unreadable = |why: String| Failure::refused(format!("{}: {why}", real.display()));
        let file = File::open(&real).map_err(|error| unreadable(error.to_string()))?;
        let contents = archive::read(std::io::BufReader::new(file)).map_err(unreadable)?;
        fs::write(&cache, &serde_json::to_string(&contents)?)?;
        contents
    };
    Ok(Built { store_path: store_path.to_owned(), file: real.to_string_lossy().into_owned(), contents })
}

fn row(name: &ContainerName, built: &Built) -> Vec<String> {
    let Contents { image_id, config, layers, size } = &built.contents;
    let entrypoint = config
        .config
        .entrypoint
        .iter()
        .map(|word| word.rsplit('/').next().unwrap_or(word))
        .collect::<Vec<_>>()
        .join(" ");
    vec![
        name.to_string(),
        built.store_path.clone(),
        image_id[..19.min(image_id.len())].to_owned(),
        bytes(*size),
        layers.to_string(),
        config.config.user.clone(),
        config.config.ports().join(" "),
        entrypoint,
    ]
}

fn value(name: &ContainerName, built: &Built) -> serde_json::Value {
    let Contents { image_id, config, layers, size } = &built.contents;
    json!({"container": name.as_str(), "store_path": built.store_path, "image_id": image_id, "size": size, "layers": layers, "config": config})
}

/// Notes are said as they come; errors are handed back.
pub(crate) fn split_notes(
    cx: &Context,
    all: Vec<crate::model::finding::Finding>,
) -> Vec<crate::model::finding::Finding> {
    let (notes, errors): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|finding| finding.severity == crate::model::finding::Severity::Note);
    for note in &notes {
        cx.report.say(&findings::human(note));
    }
    errors
}
