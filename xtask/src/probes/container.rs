//! A container that was started to be looked at: is it as its image and its manifest declare?

use std::collections::BTreeSet;

use super::{Bad, Outlook, Verdict};
use crate::exec::process::Look;
use crate::model::image::RunConfig;
use crate::model::trial::Trial;
use crate::tools::engine::State;

/// A user or group: its number, or the name that an image gives it.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

/// Numbers of the user and group that it is to run as, where they are known.
pub(crate) fn user(trial: &Trial, image: &RunConfig) -> (Option<u32>, Option<u32>) {
    let (user, group) = image.user.split_once(':').map_or((&*image.user, None), |(user, group)| (user, Some(group)));
    (trial.user.or_else(|| number(user)), trial.group.or_else(|| group.and_then(number)))
}

/// Who it is to run as, in words.
pub(crate) fn expected_user(trial: &Trial, image: &RunConfig) -> String {
    let (user, group) = user(trial, image);
    let user = user.map_or_else(|| format!("`{}`", image.user), |user| user.to_string());
    let by = if trial.user.is_some() { "as runAsUser says" } else { "as the image says" };
    match group {
        Some(group) => format!("user {user}, group {group}, {by}"),
        None => format!("user {user}, {by}"),
    }
}

/// Does every process run as declared?
pub(crate) fn judge_user(trial: &Trial, image: &RunConfig, look: &Look) -> Verdict {
    let Some(first) = look.processes.first() else { return Verdict::bad("its processes can't be seen") };
    let (wanted, group) = user(trial, image);
    if trial.never_root && trial.user.is_none() && (wanted.is_none() || wanted == Some(0)) {
        let what = if wanted.is_none() { format!("the name `{}`", image.user) } else { "root".to_owned() };
        return Verdict::bad(format!("the image's user is {what}, and runAsNonRoot has the kubelet refuse it"));
    }
    // Root may hand its children to others; who is not root stays who it is.
    let others = if wanted == Some(0) { &[][..] } else { &look.processes[1..] };
    let odd = |it: &&crate::exec::process::Identity| wanted.is_some_and(|wanted| wanted != it.user);
    match std::iter::once(first).chain(others).find(odd) {
        Some(odd) => Verdict::bad(format!("{} runs as user {}", odd.program, odd.user)),
        None if group.is_some_and(|group| group != first.group) => {
            Verdict::bad(format!("{} runs as group {}", first.program, first.group))
        }
        None => Verdict::Fine(format!("user {}, group {}", first.user, first.group)),
    }
}

/// Is the image's own file system out of reach?
pub(crate) fn judge_root(look: &Look) -> Verdict {
    if look.root_is_read_only { Verdict::Fine("read-only".to_owned()) } else { Verdict::bad("it can be written") }
}

/// Can the user write a folder of this owner, group and mode?
pub(crate) fn judge_folder((user, group): (u32, u32), groups: &[u32], owner: Option<(u32, u32, u32)>) -> Verdict {
    let Some((of, of_group, mode)) = owner else { return Verdict::bad("it is gone") };
    let bit = if user == of {
        0o200
    } else if group == of_group || groups.contains(&of_group) {
        0o020
    } else {
        0o002
    };
    if mode & bit != 0 {
        Verdict::Fine(format!("user {user} can write it"))
    } else {
        Verdict::bad(format!(
            "user {user} can't write it: a new disk belongs to {of}:{of_group} with mode {:o}, and the pod has no fsGroup",
            mode & 0o7777
        ))
    }
}

/// What it is to listen on: number and whether it is UDP.
pub(crate) fn ports(trial: &Trial, image: &RunConfig) -> BTreeSet<(u16, bool)> {
    // A manifest chooses among what an image can do; without one, or without ports in it, all is meant.
    if trial.ports.is_empty() { exposed(image) } else { trial.ports.iter().copied().collect() }
}

fn exposed(image: &RunConfig) -> BTreeSet<(u16, bool)> {
    let port = |text: &str| {
        let (number, kind) = text.split_once('/').unwrap_or((text, "tcp"));
        Some((number.parse().ok()?, kind == "udp"))
    };
    image.ports().into_iter().filter_map(port).collect()
}

fn shown((port, udp): (u16, bool)) -> String {
    format!("{port}{}", if udp { "/udp" } else { "" })
}

/// Ports in words.
pub(crate) fn list(ports: &BTreeSet<(u16, bool)>) -> String {
    let all: Vec<String> = ports.iter().copied().map(shown).collect();
    if all.is_empty() { "no port".to_owned() } else { all.join(", ") }
}

/// Declared ports on which nothing from outside is taken.
pub(crate) fn missing(wanted: &BTreeSet<(u16, bool)>, look: &Look) -> BTreeSet<(u16, bool)> {
    let reached = reached(look);
    wanted.difference(&reached).copied().collect()
}

fn reached(look: &Look) -> BTreeSet<(u16, bool)> {
    let outside = |all: &[std::net::SocketAddr], udp| {
        let all = all.iter().filter(|address| !address.ip().is_loopback());
        all.map(move |address| (address.port(), udp)).collect::<Vec<_>>()
    };
    outside(&look.tcp, false).into_iter().chain(outside(&look.udp, true)).collect()
}

/// Are the ports those that the image and the manifest declare?
pub(crate) fn judge_ports(trial: &Trial, image: &RunConfig, look: &Look) -> Verdict {
    let wanted = ports(trial, image);
    let mut wrong = Vec::new();
    for (port, udp) in missing(&wanted, look) {
        let all = if udp { &look.udp } else { &look.tcp };
        let inside = all.iter().any(|address| address.port() == port);
        let how = if inside { "on loopback only" } else { "by nobody" };
        wrong.push(format!("{} is declared and listened to {how}", shown((port, udp))));
    }
    // What is bound for UDP may be a client that waits for an answer.
    for (port, _) in reached(look).into_iter().filter(|(_, udp)| !udp) {
        let by = [
            (!exposed(image).contains(&(port, false)), "the image"),
            (!trial.ports.is_empty() && !trial.ports.contains(&(port, false)), "the manifest"),
        ];
        let by: Vec<&str> = by.into_iter().filter(|(lacks, _)| *lacks).map(|(_, who)| who).collect();
        if !by.is_empty() {
            wrong.push(format!("{port} is listened on and not declared by {}", by.join(" or ")));
        }
    }
    if wrong.is_empty() {
        Verdict::Fine(format!("it listens on {}", list(&wanted)))
    } else {
        Verdict::bad(wrong.join("; "))
    }
}

/// How a container is to be that has no more to do, and one that has.
pub(crate) fn judge_end(trial: &Trial, state: &State, killed: u64, log: Vec<String>) -> Verdict {
    let seen = match (state.running, state.exit) {
        _ if state.out_of_memory || killed > 0 => {
            let limit = trial.memory.map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
            format!("the kernel ended a process: its memory limit{limit} is too small")
        }
        (true, _) if trial.ends => "it still runs".to_owned(),
        (true, _) => return Verdict::Fine("it runs".to_owned()),
        (false, 0) if trial.ends => return Verdict::Fine("it ended with 0".to_owned()),
        // Not every engine sees who killed it, and nobody but the kernel had a reason to.
        (false, 137) => match trial.memory {
            Some(bytes) => format!("it was killed: its memory limit of {bytes} bytes is too small, as it seems"),
            None => "it was killed".to_owned(),
        },
        (false, code) => format!("it ended with {code}"),
    };
    Verdict::Bad(Bad { seen, outlook: Outlook::MayPass, culprit: None, log })
}

/// Why it did not start, by the exit code that both engines document and the error's last link.
pub(crate) fn judge_start(code: Option<i32>, error: &str) -> Verdict {
    let memory = error.contains("memory limit") || error.contains("init was OOM-killed");
    Verdict::bad(match code {
        _ if memory => format!("its memory limit is too small to start: {error}"),
        Some(127) => format!("the entrypoint is not there: {error}"),
        Some(126) if error.contains("permission denied") => format!("the entrypoint is not executable: {error}"),
        _ => error.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::process::Identity;

    fn image(user: &str, ports: &[&str]) -> RunConfig {
        let exposed_ports = ports.iter().map(|port| ((*port).to_owned(), serde_json::json!({}))).collect();
        RunConfig { user: user.to_owned(), exposed_ports, ..RunConfig::default() }
    }

    fn look(users: &[u32], tcp: &[&str]) -> Look {
        let process = |user: &u32| Identity { program: "x".to_owned(), user: *user, group: 0 };
        Look {
            processes: users.iter().map(process).collect(),
            tcp: tcp.iter().map(|address| address.parse().unwrap()).collect(),
            ..Look::default()
        }
    }

    #[test]
    fn users_are_judged() {
        let trial = Trial::default();
        assert!(judge_user(&trial, &image("5", &[]), &look(&[5, 5], &[])).is_fine());
        assert_eq!(judge_user(&trial, &image("5", &[]), &look(&[5, 6], &[])).seen(), "x runs as user 6");
        assert!(judge_user(&trial, &image("", &[]), &look(&[0, 6], &[])).is_fine());
        assert!(judge_user(&Trial { user: Some(6), ..Trial::default() }, &image("5", &[]), &look(&[6], &[])).is_fine());
        let never = Trial { never_root: true, ..Trial::default() };
        assert!(judge_user(&never, &image("", &[]), &look(&[0], &[])).seen().contains("is root"));
        assert!(judge_user(&never, &image("redis", &[]), &look(&[9], &[])).seen().contains("`redis`"));
        assert!(!judge_user(&trial, &image("5", &[]), &look(&[], &[])).is_fine());
    }

    #[test]
    fn ports_are_judged() {
        let trial = Trial { ports: vec![(80, false)], ..Trial::default() };
        let both = image("", &["80/tcp", "81/tcp"]);
        assert!(judge_ports(&trial, &both, &look(&[], &["0.0.0.0:80", "127.0.0.1:9"])).is_fine());
        assert!(judge_ports(&Trial::default(), &both, &look(&[], &["[::]:80", "[::]:81"])).is_fine());
        let seen = |look: &Look| judge_ports(&trial, &both, look).seen().to_owned();
        assert_eq!(seen(&look(&[], &[])), "80 is declared and listened to by nobody");
        assert_eq!(seen(&look(&[], &["127.0.0.1:80"])), "80 is declared and listened to on loopback only");
        let more = look(&[], &["0.0.0.0:80", "0.0.0.0:81", "0.0.0.0:82"]);
        assert_eq!(
            seen(&more),
            "81 is listened on and not declared by the manifest; 82 is listened on and not declared by the image or the manifest"
        );
    }

    #[test]
    fn ends_are_judged() {
        let state = |running, exit| State { running, exit, ..State::default() };
        let (stays, ends) = (Trial::default(), Trial { ends: true, ..Trial::default() });
        let judged = |trial: &Trial, state: &State, killed| judge_end(trial, state, killed, Vec::new());
        assert!(judged(&stays, &state(true, 0), 0).is_fine() && judged(&ends, &state(false, 0), 0).is_fine());
        assert_eq!(judged(&stays, &state(false, 0), 0).seen(), "it ended with 0");
        assert_eq!(judged(&ends, &state(true, 0), 0).seen(), "it still runs");
        assert!(judged(&stays, &state(true, 0), 1).seen().contains("too small"));
        let limited = Trial { memory: Some(9), ..Trial::default() };
        assert!(judged(&limited, &state(false, 137), 0).seen().contains("limit of 9 bytes is too small, as it seems"));
    }

    #[test]
    fn folders_are_judged() {
        assert!(!judge_folder((5, 5), &[], Some((0, 0, 0o755))).is_fine());
        assert!(judge_folder((5, 5), &[7], Some((0, 7, 0o775))).is_fine());
        assert!(judge_folder((0, 0), &[], Some((0, 0, 0o755))).is_fine());
        assert!(!judge_folder((0, 0), &[], None).is_fine());
    }

    #[test]
    fn starts_are_judged() {
        assert!(judge_start(Some(127), "exec: stat").seen().starts_with("the entrypoint is not there"));
        assert!(judge_start(Some(126), "permission denied").seen().starts_with("the entrypoint is not executable"));
        assert!(judge_start(Some(126), "unable to set memory limit to 1").seen().contains("too small"));
        assert_eq!(judge_start(Some(125), "no such network").seen(), "no such network");
    }
}
