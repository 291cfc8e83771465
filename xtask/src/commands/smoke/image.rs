//! The image: from a build, an archive or a registry into the engine, and out of it again.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Smoke;
use crate::commands::build;
use crate::exec::env;
use crate::exec::run::System;
use crate::exec::workspace::Workspace;
use crate::model::failure::Failure;
use crate::model::image::RunConfig;
use crate::model::tag::ImageTag;
use crate::tools::engine::{self, Engine};
use crate::tools::{archive, nix, skopeo};

/// Where an image comes from.
enum Source {
    Build,
    Archive(String),
    /// A reference, and whether its registry is asked over TLS.
    Registry(String, bool),
}

/// An image in the engine, taken out when dropped.
pub(super) struct Loaded<'a> {
    system: &'a System,
    engine: Engine,
    workspace: &'a Workspace,
    pub(super) reference: String,
    pub(super) config: RunConfig,
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        self.system.clean_up(&self.engine.remove_image(&self.reference));
        if self.engine == Engine::Podman && !rustix::process::geteuid().is_root() {
            self.system.clean_up(&engine::empty(&self.workspace.text("volumes")));
        }
    }
}

fn source(smoke: &Smoke<'_>) -> Result<Source> {
    let Some(image) = &smoke.args.image else { return Ok(Source::Build) };
    let path = std::env::current_dir().unwrap_or_default().join(image);
    if path.is_file() {
        return Ok(Source::Archive(path.to_string_lossy().into_owned()));
    }
    if image.parse::<ImageTag>().is_ok() {
        let registry = smoke.cx.registry()?;
        let repository = smoke.cx.home()?.repository(&smoke.args.name);
        let reference = format!("{}/{repository}:{image}", registry.endpoint.authority);
        return Ok(Source::Registry(reference, registry.endpoint.secure));
    }
    if !image.contains(['/', ':']) {
        return Err(Failure::environment(format!("--image {image}: no such file, and no tag as v1.0.0-nix")).into());
    }
    Ok(Source::Registry(image.clone(), true))
}

/// Gets the image and loads it under a name of its own.
pub(super) fn load<'a>(smoke: &Smoke<'a>, workspace: &'a Workspace) -> Result<Loaded<'a>> {
    let cx = smoke.cx;
    let (from, secure) = match source(smoke)? {
        Source::Build => (unpacked(&build::build(cx, smoke.container)?.file, workspace)?, true),
        Source::Archive(path) => (unpacked(&path, workspace)?, true),
        Source::Registry(reference, secure) => (format!("docker://{reference}"), secure),
    };
    let stage = cx.report.stage("load");
    let reference = Engine::reference(smoke.args.name.as_str(), &workspace.name());
    let named = workspace.text("named.tar");
    cx.system.stdout(&skopeo::to_archive(&from, secure, &named, &reference), "the image can't be read")?;
    // From here on it is taken out again, however this ends.
    let mut loaded = Loaded {
        system: &cx.system,
        engine: smoke.engine,
        workspace,
        reference: reference.clone(),
        config: RunConfig::default(),
    };
    cx.system.stdout(&smoke.engine.load(&named), "the image can't be loaded")?;
    let json = cx.system.stdout(&smoke.engine.inspect_image(&reference), "the image can't be inspected")?;
    loaded.config = engine::parse_image(&json).map_err(|why| {
        Failure::environment(format!(
            "{} describes {reference} in a way that is not known: {why}",
            smoke.engine.program()
        ))
    })?;
    stage.done(&format!("{} into {}", smoke.args.name, smoke.engine.program()));
    Ok(loaded)
}

/// The archive without its compression, which older versions of skopeo misread.
fn unpacked(archive: &str, workspace: &Workspace) -> Result<String> {
    let path = workspace.text("image.tar");
    let mut file = std::fs::File::create(&path).with_context(|| format!("can't make {path}"))?;
    let unreadable = |why: String| Failure::refused(format!("{archive}: {why}"));
    let packed = std::fs::File::open(archive).map_err(|error| unreadable(error.to_string()))?;
    let mut plain = archive::plain(std::io::BufReader::new(packed)).map_err(unreadable)?;
    std::io::copy(&mut plain, &mut file).with_context(|| format!("unpacking {archive}"))?;
    Ok(format!("docker-archive:{path}"))
}

/// Takes away what runs have left that were killed.
pub(super) fn sweep(smoke: &Smoke<'_>) -> Result<()> {
    let (system, engine) = (&smoke.cx.system, smoke.engine);
    let hint = format!("{} can't be asked: is its engine running?", engine.program());
    let containers = system.stdout(&engine.containers(), &hint)?;
    for name in containers.lines() {
        // What another run has removed by now is nobody's any more.
        let Ok(state) = engine::parse_state(&system.output(&engine.inspect(name))?.stdout) else { continue };
        if !Path::new(&state.owner).is_dir() {
            smoke.cx.report.say(&format!("  removing {name}, which a killed run has left"));
            system.clean_up(&engine.remove(name));
        }
    }
    let names: Vec<String> = std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().to_lowercase())
        .collect();
    let images = system.stdout(&engine.images(), &hint)?;
    for (image, _) in engine::parse_images(&images).into_iter().filter(|(_, run)| !names.iter().any(|name| name == run))
    {
        system.clean_up(&engine.remove_image(image));
    }
    Ok(())
}

/// The commands that bring the image into the engine.
pub(super) fn lines(smoke: &Smoke<'_>) -> Result<Vec<String>> {
    let folder = super::prepare::FOLDER;
    let mut lines = vec![format!("mkdir -p -m 700 {folder}")];
    let unpack = |archive: &str| format!("gzip --decompress --stdout --force {archive} > {folder}/image.tar");
    let (from, secure) = match source(smoke)? {
        Source::Build => {
            // A store below a root names its paths as if it were not.
            let root = nix::real_path("/", env::var("NIX_REMOTE").as_deref()).to_string_lossy().into_owned();
            let root = Some(root.trim_end_matches('/')).filter(|root| !root.is_empty()).map(shell_words::quote);
            let build = nix::build(&smoke.container.expression());
            lines.push(unpack(&format!("{}\"$({build})\"", root.unwrap_or_default())));
            (format!("docker-archive:{folder}/image.tar"), true)
        }
        Source::Archive(path) => {
            lines.push(unpack(&shell_words::quote(&path)));
            (format!("docker-archive:{folder}/image.tar"), true)
        }
        Source::Registry(reference, secure) => (format!("docker://{reference}"), secure),
    };
    let reference = Engine::reference(smoke.args.name.as_str(), "dry-run");
    let named = format!("{folder}/named.tar");
    lines.push(skopeo::to_archive(&from, secure, &named, &reference).to_string());
    lines.push(smoke.engine.load(&named).to_string());
    Ok(lines)
}
