//! What comes when all is done: the service that was replaced goes. And the entry of Caddy that is missing.

use super::{Draft, Subject};
use crate::model::names::services;
use crate::model::plan::{Change, How, Phase, State};
use crate::model::source::Source;
use crate::model::yaml::{self, Node};
use crate::probes::hosts;

/// Folders whose files make something run.
const RUNNING: [&str; 3] = ["argocd/", "ansible/", "containers/"];

/// What is left of the service that this one replaces.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Draft> {
    let Some(old) = subject.promise.replaces.as_deref() else { return Vec::new() };
    let files =
        || subject.world.repo.files.iter().filter(|file| RUNNING.iter().any(|folder| file.path.starts_with(folder)));
    let own = |file: &Source| {
        file.path.starts_with(&format!("argocd/manifests/{old}/"))
            || file.path.starts_with(&format!("containers/{old}/"))
            || *file.path == *format!("argocd/apps/{old}.yaml")
    };
    let domain =
        hosts::variable(subject.world, "caddy_domain").map_or_else(|| "//".to_owned(), |it| format!("{old}.{it}"));
    let client = |file: &&Source| !own(file) && file.text.contains(&domain);
    let clients: Vec<String> = files().filter(client).map(|file| file.path.to_string()).collect();
    let mut left: Vec<String> = files().filter(|file| own(file)).map(|file| file.folder().to_owned()).collect();
    left.extend(hosts::host_of(subject.world, old).map(|host| format!("Caddy's {host}")));
    left.sort();
    left.dedup();
    let (moved, gone) =
        (settled(&clients, &format!("nothing names {domain}")), settled(&left, "nothing is left of it"));
    let phase = Phase::Afterwards;
    let how = |what: String| How::Person(what);
    let clients = ("clients", format!("what logs in through {old} does so through {}", subject.name));
    let clients = Draft::here(phase, clients, moved, how(format!("move the clients of {old}, one after the other")));
    let removed = how(format!("remove {old}, once its clients have done without it for a while"));
    let gone = Draft::here(phase, ("replaced", format!("{old} is removed")), gone, removed);
    vec![clients.after(&["verified"]), gone.after(&["clients"])]
}

fn settled(left: &[String], done: &str) -> State {
    if left.is_empty() { State::Done(done.to_owned()) } else { State::ToDo(left.join(", ")) }
}

/// The file of Caddy's services with one more, written like those beside it, where they are written on one line each.
pub(super) fn caddy_entry(subject: &Subject<'_>, label: &str) -> Option<Change> {
    let (file, _, entries) = services(subject.world)?;
    let is_like = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("- {") && line.contains("{{ caddy_tailnet }}") && line.contains("host:")
    };
    let last = file.text.split_inclusive('\n').rfind(is_like)?;
    let indent = &last[..last.len() - last.trim_start().len()];
    let entry = format!(
        "{indent}- {{name: {}, host: \"{label}.{{{{ caddy_domain }}}}\", backend: \"https://{label}.{{{{ caddy_tailnet }}}}\"}}\n",
        subject.name
    );
    let at = file.text.rfind(last)? + last.len();
    let after = format!("{}{entry}{}", &file.text[..at], &file.text[at..]);
    // Read back before it is written: the same services, and one more.
    let read = yaml::parse(&Source::new(&file.path, &after)).ok()?.into_iter().next()?;
    let count = read.get("caddy_services").map_or(0, |list| list.items().len());
    let is_there =
        read.get("caddy_services")?.items().iter().any(|it| it.get("name").and_then(Node::text) == Some(subject.name));
    let before = file.text.to_string();
    (count == entries.len() + 1 && is_there).then(|| Change { path: file.path.to_string(), before, after })
}
