//! What the CI runner does for a pushed tag: build, push, read back.

pub(crate) mod image;
mod known;
mod push;
mod sender;

use anyhow::Result;
use serde_json::json;

use super::Context;
use super::build;
use crate::exec::{env, fs};
use crate::model::failure::Failure;
use crate::model::finding::Finding;
use crate::model::repo::Container;
use crate::model::tag::{BuildKind, GitTag, ImageTag};
use crate::report::Outcome;
use crate::tools::{git, nix, own};
pub(crate) use push::{Missing, Pushed, missing, push};

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
        return Ok(build::commands(cx, command_lines(cx, container, &repository, &image_tag).into_iter()));
    }
    Context::preflight(&["git", "nix-build"])?;
    Context::leaving(check_head(cx, container, &args.tag), "nothing was published")?;
    let built = Context::leaving(build::to_push(cx, container), "nothing was published")?;
    let pushed = push(cx, &registry, &repository, &image_tag, &built);
    let pushed = Context::leaving(pushed, &format!("whether the registry has {repository}:{image_tag} is not known"))?;
    let image = format!("{}:{image_tag}", cx.home()?.image(&container.name));
    outputs(&image, &pushed, built.layers.len())?;
    let Pushed { manifest, image_id, sent } = pushed;
    let human = format!("{image}@{}", manifest.digest);
    Ok(Outcome::ok(
        human,
        json!({"image": image, "digest": manifest.digest.as_str(), "image_id": image_id.as_str(), "store_path": built.store_path, "sent": sent}),
    ))
}

/// The commands that publishing comes to.
pub(crate) fn command_lines(cx: &Context, container: &Container, repository: &str, image_tag: &str) -> Vec<String> {
    let build = nix::build_to_push(&cx.path(&container.expression()));
    let push = own::shown(&["registry".to_owned(), "push".to_owned()]);
    vec![
        format!("built=$({build})"),
        format!("{push} \"$built\" {}", shell_words::quote(&format!("{repository}:{image_tag}"))),
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

/// Step outputs and step summary, where CI asks for them.
fn outputs(image: &str, Pushed { manifest, .. }: &Pushed, layers: usize) -> Result<()> {
    if let Some(file) = env::var("GITHUB_OUTPUT") {
        fs::append(file.as_ref(), &format!("image={image}\ndigest={}\n", manifest.digest))?;
    }
    if let Some(file) = env::var("GITHUB_STEP_SUMMARY") {
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
