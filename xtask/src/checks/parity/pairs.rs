//! Which workload of the chart is which of ours: by what it runs and is said to be, not by its name alone.

use super::Side;
use crate::model::image::split_reference;
use crate::model::world::{Object, Ref};

/// Each workload with the role that it has in both.
pub(super) struct Roles<'a> {
    pub(super) chart: Vec<(&'a Object, String)>,
    pub(super) ours: Vec<(&'a Object, String)>,
}

/// Less in common than this is chance.
const ENOUGH: u32 = 2;

pub(super) fn roles<'a>(chart: Side<'a>, ours: Side<'a>) -> Roles<'a> {
    let (theirs, mine) = (chart.workloads(), ours.workloads());
    let mut pairs = Vec::new();
    for (left, one) in theirs.iter().enumerate() {
        for (right, other) in mine.iter().enumerate() {
            let likeness = likeness((chart, one), (ours, other));
            pairs.extend((likeness >= ENOUGH).then_some((likeness, left, right)));
        }
    }
    // The most alike first; of equals the first written.
    pairs.sort_by_key(|&(likeness, left, right)| (std::cmp::Reverse(likeness), left, right));
    let mut partner = vec![None; theirs.len()];
    for (_, left, right) in pairs {
        if partner[left].is_none() && !partner.contains(&Some(right)) {
            partner[left] = Some(right);
        }
    }
    let mut names: Vec<String> = Vec::new();
    let mine: Vec<(&Object, String)> =
        mine.into_iter().map(|object| (object, name(ours, object, &mut names))).collect();
    let theirs = theirs.into_iter().zip(partner).map(|(object, partner)| {
        let role = partner.and_then(|right| mine.get(right)).map(|(_, role)| role.clone());
        (object, role.unwrap_or_else(|| name(chart, object, &mut names)))
    });
    Roles { chart: theirs.collect(), ours: mine }
}

/// A role that none has yet.
fn name(side: Side<'_>, object: &Object, taken: &mut Vec<String>) -> String {
    let own = component(object).unwrap_or_else(|| side.own_name(&object.name)).to_owned();
    let candidates = [own, object.name.clone(), format!("{}-{}", object.name, object.kind)];
    let free = candidates.iter().find(|name| !taken.contains(name)).unwrap_or(&candidates[2]).clone();
    taken.push(free.clone());
    free
}

fn likeness(chart: (Side<'_>, &Object), ours: (Side<'_>, &Object)) -> u32 {
    let points = |points, same: bool| if same { points } else { 0 };
    let both = |one: Option<&str>, other: Option<&str>| one.is_some() && one == other;
    let names = (chart.0.own_name(&chart.1.name), ours.0.own_name(&ours.1.name));
    let (one, other) = (chart.1, ours.1);
    points(4, both(verb(one), verb(other)))
        + points(3, both(component(one), component(other)))
        + points(2, names.0 == names.1)
        + points(2, both(image(one), image(other)))
        + points(1, one.name == other.name)
}

/// What the pod says that it is.
fn component(object: &Object) -> Option<&str> {
    let labels = object.pod_template()?.at(&["metadata", "labels"])?;
    labels.text_at(&["app.kubernetes.io/component"]).or_else(|| labels.text_at(&["component"]))
}

/// The first word that its container is called with, where that is a word: `server`, `worker`.
fn verb(object: &Object) -> Option<&str> {
    let container = object.pod_template()?.at(&["spec"])?.list(&["containers"]).into_iter().next()?;
    let word = |key: &str| container.list(&[key]).first().and_then(|word| word.text());
    let is_word = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word("args").filter(is_word)
}

/// The last part of the image's name, which stays where the image is somebody else's build.
fn image(object: &Object) -> Option<&str> {
    let container = object.pod_template()?.at(&["spec"])?.list(&["containers"]).into_iter().next()?;
    split_reference(container.text_at(&["image"])?).0.rsplit('/').next()
}

/// The container that does the work; those beside it help.
pub(super) fn main_container<'a>(containers: &[Ref<'a>], role: &str) -> Option<Ref<'a>> {
    let is_role = |container: &&Ref<'_>| {
        let verb = container.list(&["args"]).first().and_then(|word| word.text());
        verb == Some(role) || container.text_at(&["name"]) == Some(role)
    };
    containers.iter().find(is_role).or(containers.first()).copied()
}
