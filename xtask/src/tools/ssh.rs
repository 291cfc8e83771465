//! ssh: a host of the inventory, no questions asked, one connection for all that is asked of it.

use std::path::Path;
use std::time::Duration;

use super::{Invocation, line};
use crate::model::inventory::Host;

/// For a host that does not answer at all.
const CONNECT: &str = "ConnectTimeout=5";

/// Runs `words` on `host`, through the connection that has its socket in `folder` where one is given.
///
/// The far end has a shell that reads what ssh hands it, so every word is quoted for it.
pub(crate) fn run(host: &Host, folder: Option<&Path>, limit: Duration, words: &[&str]) -> Invocation {
    let mut options = options(folder);
    options.extend(host.port.map(|port| format!("Port={port}")));
    let options: Vec<String> = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
    let target = target(host);
    let command = shell_words::join(words);
    line!("ssh -T {options...} -- {target} {command}").limit(limit)
}

/// As [`run`], where the host is this machine.
pub(crate) fn here(limit: Duration, words: &[&str]) -> Invocation {
    let (program, words) = (words.first().copied().unwrap_or("true"), words.get(1..).unwrap_or_default());
    line!("{program} {words...}").limit(limit)
}

#[allow(dead_code, reason = "for commands that ask a host more than once")]
/// Ends the connection whose socket is in `folder`.
pub(crate) fn close(host: &Host, folder: &Path) -> Invocation {
    let path = control_path(folder);
    let target = target(host);
    line!("ssh -O exit -o {path} -- {target}").limit(Duration::from_secs(5))
}

fn options(folder: Option<&Path>) -> Vec<String> {
    let mut options: Vec<String> = [
        // Nobody is there to type a password or to say yes to an unknown key.
        "BatchMode=yes",
        CONNECT,
        // A host that hangs after connecting is given up after three silences.
        "ServerAliveInterval=3",
        "ServerAliveCountMax=3",
        "LogLevel=ERROR",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(folder) = folder {
        // The first one opens the connection, the others go through it; it lives a minute longer than the last.
        options.extend(["ControlMaster=auto".to_owned(), control_path(folder), "ControlPersist=60".to_owned()]);
    }
    options
}

/// %C is short and the same for the same target; a socket's path may have a hundred characters.
fn control_path(folder: &Path) -> String {
    format!("ControlPath={}/%C", folder.display())
}

/// As a person would type it after `ssh`.
pub(crate) fn target(host: &Host) -> String {
    match &host.user {
        Some(user) => format!("{user}@{}", host.address),
        None => host.address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_far_end_as_they_are() {
        let host = Host {
            name: "indri".into(),
            address: "indri.example".into(),
            user: Some("me".into()),
            port: None,
            local: false,
        };
        let shown = run(&host, None, Duration::from_secs(9), &["ls", "a b"]).to_string();
        assert!(shown.ends_with(r"-- me@indri.example 'ls '\''a b'\'''"), "{shown}");
        assert!(shown.starts_with("ssh -T -o 'BatchMode=yes' -o 'ConnectTimeout=5'"), "{shown}");
        let shown = run(&host, Some(Path::new("/run/x")), Duration::from_secs(9), &["true"]).to_string();
        assert!(shown.contains("'ControlPath=/run/x/%C'"), "{shown}");
        assert_eq!(
            close(&host, Path::new("/run/x")).to_string(),
            "ssh -O exit -o 'ControlPath=/run/x/%C' -- me@indri.example"
        );
    }
}
