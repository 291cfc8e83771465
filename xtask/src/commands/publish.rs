//! What the CI runner does for a pushed tag: build, push, read back.

use std::io::{Seek as _, Write as _};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Context;
use super::build::{self, Built};
use crate::exec::{env, fs};
use crate::model::failure::Failure;
use crate::model::finding::Finding;
use crate::model::repo::Container;
use crate::model::tag::{BuildKind, GitTag, ImageTag};
use crate::registry::{Manifest, Registry};
use crate::report::Outcome;
use crate::tools::{Invocation, archive, git, nix, skopeo};

/// Build and push the image of a git tag, as CI does
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask publish authentik-v1.0.0\n  cargo xtask publish \"$GITHUB_REF_NAME\"")]
pub(crate) struct Args {
    /// The git tag, <container>-vX.Y.Z; HEAD must be what it names
    pub(crate) tag: GitTag,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let container = cx.container(&args.tag.container)?;
    let registry = cx.registry()?;
    let repository = cx.home()?.repository(&container.name);
    let image_tag = ImageTag::release(args.tag.version, BuildKind::Nix).to_string();
    if args.dry_run {
        return Ok(build::commands(cx, command_lines(container, &registry, &repository, &image_tag).into_iter()));
    }
    Context::preflight(&["git", "nix-build", "nix-store", "skopeo"])?;
    check_head(cx, container, &args.tag)?;
    let built = build::build(cx, container)?;
    let manifest = push(cx, &registry, &repository, &image_tag, &built)?;
    let image = format!("{}:{image_tag}", cx.home()?.image(&container.name));
    outputs(&image, &manifest, &built)?;
    let human = format!("{image}@{}", manifest.digest);
    Ok(Outcome::ok(
        human,
        json!({"image": image, "digest": manifest.digest.as_str(), "image_id": built.contents.image_id, "store_path": built.store_path}),
    ))
}

/// The commands that publishing comes to.
pub(crate) fn command_lines(
    container: &Container,
    registry: &Registry,
    repository: &str,
    image_tag: &str,
) -> Vec<String> {
    // The store may be below a root of its own; then the archive is too.
    let root = nix::real_path("/", env::var("NIX_REMOTE").as_deref());
    let archive = format!("{}$archive", root.to_string_lossy().trim_end_matches('/'));
    let copy = skopeo::push("PLAIN", &registry.endpoint, repository, image_tag).to_string();
    vec![
        format!("archive=$({})", nix::build(&container.expression())),
        format!("plain=$(mktemp) && gzip --decompress --force --stdout \"{archive}\" > \"$plain\""),
        copy.replace("docker-archive:PLAIN", "\"docker-archive:$plain\""),
        "rm \"$plain\"".to_owned(),
    ]
}

fn check_head(cx: &Context, container: &Container, tag: &GitTag) -> Result<()> {
    let mut findings = Vec::new();
    let head = cx.system.stdout(&git::commit_of("HEAD"), "this is not a git checkout with a commit")?;
    let named = cx.system.output(&git::commit_of(&format!("refs/tags/{tag}")))?;
    if !named.success() {
        findings.push(
            Finding::error("no-such-tag", format!("there is no tag {tag} in this clone")).help("git fetch --tags"),
        );
    } else if named.stdout.trim() != head.trim() {
        findings.push(
            Finding::error(
                "head-is-not-the-tag",
                format!("{tag} names {}, but {} is checked out", named.stdout.trim(), head.trim()),
            )
            .help(format!("git checkout {tag}")),
        );
    }
    let dirty = git::parse_status(&cx.system.stdout(&git::status(&[container.folder()]), "git status")?);
    findings.extend(dirty.iter().map(|path| Finding::error("dirty-container", format!("{path} is not as committed"))));
    if findings.is_empty() { Ok(()) } else { Err(Failure::of_findings("nothing was published", findings).into()) }
}

/// Pushes what was built and reads it back. A tag that names the same image is left alone, a tag that
/// names another one is never moved.
pub(crate) fn push(cx: &Context, registry: &Registry, repository: &str, tag: &str, built: &Built) -> Result<Manifest> {
    let stage = cx.report.stage("push");
    let same =
        |manifest: &Manifest| manifest.config.as_ref().is_some_and(|config| config.as_str() == built.contents.image_id);
    if let Some(manifest) = registry.manifest(repository, tag)? {
        if same(&manifest) {
            stage.skipped(&format!("{repository}:{tag} is in the registry already"));
            return Ok(manifest);
        }
        let failure = Failure::refused(format!(
            "{repository}:{tag} exists and is another image ({}), so it was not overwritten",
            manifest.digest
        ));
        return Err(failure
            .left(format!("what was built is {}", built.store_path))
            .next("release the next version")
            .into());
    }
    let (_open, archive) = unpacked(&built.file)?;
    run_with_credentials(cx, registry, skopeo::push(&archive, &registry.endpoint, repository, tag))?;
    let manifest = registry.manifest(repository, tag)?.filter(same);
    let manifest = manifest.ok_or_else(|| {
        Failure::refused(format!(
            "{repository}:{tag} is not what was pushed when read back: somebody else pushed it, or the registry lies"
        ))
    })?;
    stage.done(&format!("{repository}:{tag} {}", manifest.digest.short()));
    Ok(manifest)
}

/// Writes an archive without its compression.
pub(super) fn unpack(archive: &str, into: &mut std::fs::File) -> Result<()> {
    let unreadable = |why: String| Failure::refused(format!("{archive}: {why}"));
    let packed = std::fs::File::open(archive).map_err(|error| unreadable(error.to_string()))?;
    let mut plain = archive::plain(std::io::BufReader::new(packed)).map_err(unreadable)?;
    std::io::copy(&mut plain, into).with_context(|| format!("unpacking {archive}"))?;
    Ok(())
}

/// The archive as skopeo gets it: not compressed, because skopeo 1.9 misreads gzip and newer ones would unpack it just
/// the same. The file has no name, so that nothing is left however we end.
#[cfg(target_os = "linux")]
fn unpacked(archive: &str) -> Result<(std::fs::File, String)> {
    let mut file = tempfile::tempfile().context("no room to unpack the image")?;
    unpack(archive, &mut file)?;
    let path = own_descriptor(&file);
    Ok((file, path))
}

#[cfg(not(target_os = "linux"))]
fn unpacked(archive: &str) -> Result<(std::fs::File, String)> {
    Ok((std::fs::File::open(archive)?, archive.to_owned()))
}

/// The name that a child opens to read what we hold open.
fn own_descriptor(file: &std::fs::File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(file))
}

/// Credentials reach skopeo as a file that exists in memory only: not in argv, not on disk.
fn run_with_credentials(cx: &Context, registry: &Registry, mut invocation: Invocation) -> Result<()> {
    let mut _memory = None;
    if let Some(credentials) = registry.credentials() {
        let mut file = memory_file()?;
        file.write_all(credentials.auth_file(&registry.endpoint.authority).as_bytes())?;
        file.rewind()?;
        // skopeo takes flags behind the image names as well.
        invocation.private_args = vec!["--dest-authfile".to_owned(), own_descriptor(&file)];
        _memory = Some(file);
    }
    cx.system.stdout(&invocation, "pushing the image").map(drop)
}

#[cfg(target_os = "linux")]
fn memory_file() -> Result<std::fs::File> {
    let descriptor = rustix::fs::memfd_create("registry-credentials", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(descriptor.into())
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> Result<std::fs::File> {
    Err(Failure::environment("credentials from the environment can be handed to skopeo on Linux only")
        .next("run `skopeo login` and unset them")
        .into())
}

/// Step outputs and step summary, where CI asks for them.
fn outputs(image: &str, manifest: &Manifest, built: &Built) -> Result<()> {
    if let Some(file) = env::var("GITHUB_OUTPUT") {
        fs::append(file.as_ref(), &format!("image={image}\ndigest={}\n", manifest.digest))?;
    }
    if let Some(file) = env::var("GITHUB_STEP_SUMMARY") {
        let layers = built.contents.layers;
        fs::append(
            file.as_ref(),
            &format!(
                "### Published\n\n| image | digest | layers |\n|---|---|---|\n| `{image}` | `{}` | {layers} |\n",
                manifest.digest
            ),
        )?;
    }
    Ok(())
}
