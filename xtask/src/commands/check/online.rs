//! `check --online`: what the registry has of the images that are pinned.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Context;
use crate::checks::published;
use crate::exec::parallel;
use crate::model::failure::{Failure, Kind};
use crate::model::finding::Finding;
use crate::model::world::World;

/// Enough to hide the time an answer takes, few enough for a registry on a small machine.
const AT_ONCE: usize = 8;

/// Asks for every pinned image at once and puts the answers among the facts of `world`.
///
/// # Errors
/// A signal came. A registry that does not answer is a finding.
pub(super) fn ask(cx: &Context, world: &mut World) -> Result<()> {
    let pins: BTreeSet<(String, String)> = published::pins(world).into_iter().map(|pin| pin.wanted()).collect();
    if pins.is_empty() {
        world.not_checked.push("images in the registry: none of ours is pinned yet".to_owned());
        return Ok(());
    }
    let registry = cx.registry()?.at_once();
    let pins: Vec<(String, String)> = pins.into_iter().collect();
    let answers = parallel::map(&pins, AT_ONCE, |(repository, reference)| registry.manifest(repository, reference));
    let mut silent = Vec::<(Failure, usize)>::new();
    for (pin, answer) in pins.into_iter().zip(answers) {
        match answer.map_err(anyhow::Error::downcast::<Failure>) {
            Ok(manifest) => {
                world.facts.published.insert(pin, manifest.map(|manifest| manifest.digest));
            }
            Err(Ok(failure)) if failure.kind == Kind::Interrupted => return Err(failure.into()),
            Err(Ok(failure)) => match silent.iter_mut().find(|(other, _)| reason(other) == reason(&failure)) {
                Some((_, count)) => *count += 1,
                None => silent.push((failure, 1)),
            },
            Err(Err(error)) => return Err(error),
        }
    }
    for (failure, count) in silent {
        let what = if count == 1 { "one pinned image".to_owned() } else { format!("{count} pinned images") };
        let finding = Finding::environment("registry-silent", format!("{what} can't be checked: {}", failure.summary));
        world.findings.push(match failure.next {
            Some(next) => finding.help(next),
            None => finding.help("check without --online needs no registry; BLUMEOPS_REGISTRY_URL names another door"),
        });
    }
    Ok(())
}

/// The failure without the address that was asked.
fn reason(failure: &Failure) -> &str {
    failure.summary.split_once(": ").map_or(failure.summary.as_str(), |(_, why)| why)
}
