//! Waiting until the registry answers with a digest. The forge's word only explains the time it takes.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Release;
use crate::exec::signal;
use crate::forge::{Forge, Run, State};
use crate::model::failure::{Failure, Kind};
use crate::registry::Manifest;

/// From this pause to that one, growing: quick builds are seen at once, slow ones cost few questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(5));

/// Waits for the image of `release`.
///
/// # Errors
/// The build failed, the limit has passed, or a signal came.
pub(super) fn for_image(release: &Release<'_>) -> Result<Manifest> {
    let mut stage = release.cx.report.stage("image");
    let forge = release.cx.forge()?;
    let started = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        let last = started.elapsed() >= release.args.wait;
        match release.registry.manifest(&release.repository, &release.image_tag) {
            Ok(Some(manifest)) => {
                stage.done(&format!("{}:{} {}", release.repository, release.image_tag, manifest.digest.short()));
                return Ok(manifest);
            }
            Ok(None) => {}
            Err(error) if is_interruption(&error) || last => return Err(explained(release, error)),
            Err(error) => stage.update(&format!("{error}")),
        }
        let run = ask(release, forge.as_ref())?;
        stage.update(&run.as_ref().map_or_else(
            || "waiting for the forge to build it".to_owned(),
            |run| format!("the build is {}", run.status),
        ));
        if let (Some(forge), Some(run)) = (&forge, run.filter(|run| run.state == State::Failed)) {
            return Err(failed(release, forge, &run)?.into());
        }
        if last {
            let summary = format!(
                "no {}:{} in the registry after {} s",
                release.repository,
                release.image_tag,
                release.args.wait.as_secs()
            );
            return Err(explained(release, Failure::refused(summary).into()));
        }
        signal::sleep(pause.min(release.args.wait.saturating_sub(started.elapsed())))
            .map_err(|error| explained(release, error))?;
        pause = (pause * 5 / 4).min(PAUSES.1);
    }
}

fn ask(release: &Release<'_>, forge: Option<&Forge>) -> Result<Option<Run>> {
    forge.map_or(Ok(None), |forge| forge.run(&release.tag, release.commit()))
}

fn is_interruption(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.kind == Kind::Interrupted)
}

/// Any end of the wait leaves the same: a pushed tag.
fn explained(release: &Release<'_>, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) => failure
            .left(format!("{} is pushed; nothing is pinned", release.tag))
            .next("the same command again goes on waiting; --here builds on this machine")
            .into(),
        Err(error) => error,
    }
}

fn failed(release: &Release<'_>, forge: &Forge, run: &Run) -> Result<Failure> {
    let (step, log) = forge.failure_log(run)?;
    let step = step.map_or_else(String::new, |step| format!(" in step «{step}»"));
    let page = run.page.as_ref().map_or_else(String::new, |page| format!("see {page}; "));
    let failure =
        Failure::refused(format!("the forge's build of {} ended with {}{step}", release.tag, run.status)).tail(log);
    Ok(failure
        .left(format!("{} is pushed; there is no image and nothing is pinned", release.tag))
        .next(format!("{page}run the build again there or build with --here; a fix needs the next version")))
}
