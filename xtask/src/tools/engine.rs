//! podman or docker: runs one container as a manifest says, and takes everything away again.

use std::time::Duration;

use serde::Deserialize;

use super::{Invocation, line};
use crate::model::image::RunConfig;

/// What containers of ours carry; its value is the folder of the run they belong to.
pub(crate) const LABEL: &str = "blumeops.smoke";

/// What names of containers and folders start with.
pub(crate) const PREFIX: &str = "blumeops-smoke-";

/// Where loaded images are, each under the name of its run: no tag of anybody else is moved.
const IMAGES: &str = "localhost/blumeops-smoke/";

/// Starting and loading take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// podman
    Podman,
    /// docker
    Docker,
}

/// Everything that a container is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) name: String,
    /// The folder of the run.
    pub(crate) owner: String,
    pub(crate) image: String,
    pub(crate) read_only: bool,
    pub(crate) network: Option<String>,
    pub(crate) hostname: String,
    /// As `--user` takes it.
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<u32>,
    pub(crate) drops: Vec<String>,
    pub(crate) adds: Vec<String>,
    pub(crate) escalates: bool,
    pub(crate) memory: Option<u64>,
    /// Thousandths of a processor.
    pub(crate) cpu: Option<u64>,
    /// The file with the environment.
    pub(crate) env_file: String,
    /// What is where, and whether it can be written.
    pub(crate) volumes: Vec<(String, String, bool)>,
    pub(crate) folder: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    /// The limit of open files, where the machine does not let an engine raise it.
    pub(crate) files: Option<u64>,
    /// Ports that only a forward reaches: those of an engine without root.
    pub(crate) forwards: Vec<u16>,
}

impl Engine {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// The name that the image of a run is loaded as.
    pub(crate) fn reference(name: &str, run: &str) -> String {
        format!("{IMAGES}{name}:{}", run.to_lowercase())
    }

    pub(crate) fn load(self, archive: &str) -> Invocation {
        let program = self.program();
        line!("{program} load --quiet --input {archive}").limit(PATIENCE)
    }

    /// Starts it and comes back.
    pub(crate) fn run(self, run: &Run) -> Invocation {
        let program = self.program();
        let Run { name, image, hostname, env_file, .. } = run;
        let label = format!("{LABEL}={}", run.owner);
        let mut words: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        // Names of production must not resolve: this is no place to log in to its databases from.
        match &run.network {
            Some(network) => flag("--network", network.clone()),
            None => flag("--dns", "127.0.0.1".to_owned()),
        }
        run.user.iter().for_each(|user| flag("--user", user.clone()));
        run.groups.iter().for_each(|group| flag("--group-add", group.to_string()));
        run.drops.iter().for_each(|capability| flag("--cap-drop", capability.clone()));
        run.adds.iter().for_each(|capability| flag("--cap-add", capability.clone()));
        if let Some(memory) = run.memory {
            flag("--memory", memory.to_string());
            // As much again of swap would hide a limit that is too small.
            flag("--memory-swap", memory.to_string());
        }
        run.cpu.iter().for_each(|cpu| flag("--cpus", format!("{}.{:03}", cpu / 1000, cpu % 1000)));
        for (from, to, writable) in &run.volumes {
            flag("--volume", format!("{from}:{to}{}", if *writable { "" } else { ":ro" }));
        }
        run.folder.iter().for_each(|folder| flag("--workdir", folder.clone()));
        run.forwards.iter().for_each(|port| flag("--publish", format!("127.0.0.1::{port}")));
        if let (Some(files), Self::Podman) = (run.files, self) {
            flag("--ulimit", format!("nofile={files}:{files}"));
            flag("--ulimit", "nproc=4096:4096".to_owned());
        }
        // Of several words docker takes the first only; the others come before the arguments.
        run.command.first().into_iter().for_each(|first| flag("--entrypoint", first.clone()));
        if run.read_only {
            words.push("--read-only".to_owned());
        }
        if self == Self::Podman {
            // Without the first it puts a /tmp and a /run into a read-only image, which no kubelet does.
            words.extend(["--read-only-tmpfs=false", "--security-opt", "label=disable"].map(str::to_owned));
        }
        if !run.escalates {
            words.extend(["--security-opt", "no-new-privileges"].map(str::to_owned));
        }
        let rest = run.command.iter().skip(1).chain(&run.args);
        line!("{program} run --detach --pull never --name {name} --label {label} --hostname {hostname} --env-file {env_file} {words...} {image} {rest...}").limit(PATIENCE)
    }

    pub(crate) fn inspect(self, name: &str) -> Invocation {
        let program = self.program();
        line!("{program} container inspect {name}")
    }

    pub(crate) fn inspect_image(self, reference: &str) -> Invocation {
        let program = self.program();
        line!("{program} image inspect {reference}")
    }

    pub(crate) fn exec(self, name: &str, words: &[String], limit: Duration) -> Invocation {
        let program = self.program();
        line!("{program} exec {name} {words...}").limit(limit)
    }

    pub(crate) fn logs(self, name: &str) -> Invocation {
        let program = self.program();
        line!("{program} logs --tail 20 {name}")
    }

    pub(crate) fn remove(self, name: &str) -> Invocation {
        match self {
            // It waits for ten seconds otherwise.
            Self::Podman => line!("podman rm --force --time 0 {name}"),
            Self::Docker => line!("docker rm --force {name}"),
        }
    }

    pub(crate) fn remove_image(self, reference: &str) -> Invocation {
        let program = self.program();
        line!("{program} rmi {reference}")
    }

    /// The names of every container of ours.
    pub(crate) fn containers(self) -> Invocation {
        let program = self.program();
        let filter = format!("label={LABEL}");
        line!("{program} ps --all --filter {filter} --format {NAMES}")
    }

    pub(crate) fn images(self) -> Invocation {
        let program = self.program();
        line!("{program} images --format {FORMAT}")
    }
}

/// Without root the files of podman's containers belong to users that only it can act as.
pub(crate) fn empty(folder: &str) -> Invocation {
    line!("podman unshare rm -rf {folder}")
}

/// How [`Engine::images`] writes them.
const FORMAT: &str = "{{.Repository}}:{{.Tag}}";

/// How [`Engine::containers`] writes them.
const NAMES: &str = "{{.Names}}";

/// Images of ours and the run's name in each.
pub(crate) fn parse_images(text: &str) -> Vec<(&str, &str)> {
    let ours = text.lines().filter(|line| line.starts_with(IMAGES));
    ours.filter_map(|line| Some((line, line.rsplit_once(':')?.1))).collect()
}

/// How a container stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) running: bool,
    pub(crate) pid: i32,
    pub(crate) exit: i32,
    pub(crate) out_of_memory: bool,
    /// Empty where only a forward reaches it.
    pub(crate) address: String,
    /// The folder of its run.
    pub(crate) owner: String,
    /// Where a port of it is reached on this machine.
    pub(crate) forwards: Vec<(u16, u16)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    state: RawState,
    #[serde(default)]
    config: RawConfig,
    network_settings: RawNetwork,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    running: bool,
    pid: i32,
    exit_code: i32,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawNetwork {
    #[serde(rename = "IPAddress")]
    address: String,
    ports: Option<std::collections::BTreeMap<String, Option<Vec<RawForward>>>>,
    networks: Option<std::collections::BTreeMap<String, RawAttached>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawForward {
    host_port: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAttached {
    #[serde(rename = "IPAddress")]
    address: String,
}

/// Reads what [`Engine::inspect`] prints.
///
/// # Errors
/// It is no container's description.
pub(crate) fn parse_state(json: &str) -> Result<State, String> {
    let all: Vec<RawContainer> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let raw = all.into_iter().next().ok_or("it describes no container")?;
    let RawNetwork { address, ports, networks } = raw.network_settings;
    let attached = networks.unwrap_or_default().into_values().map(|network| network.address);
    let address = std::iter::once(address).chain(attached).find(|address| !address.is_empty()).unwrap_or_default();
    let forward = |(port, to): (String, Option<Vec<RawForward>>)| {
        let port = port.split('/').next()?.parse().ok()?;
        Some((port, to?.into_iter().next()?.host_port.parse().ok()?))
    };
    let forwards = ports.unwrap_or_default().into_iter().filter_map(forward).collect();
    let RawState { running, pid, exit_code, oom_killed } = raw.state;
    let owner = raw.config.labels.unwrap_or_default().remove(LABEL).unwrap_or_default();
    Ok(State { owner, running, pid, exit: exit_code, out_of_memory: oom_killed, address, forwards })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawImage {
    config: RunConfig,
}

/// What an image declares, from [`Engine::inspect_image`].
///
/// # Errors
/// It is no image's description.
pub(crate) fn parse_image(json: &str) -> Result<RunConfig, String> {
    let all: Vec<RawImage> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    all.into_iter().next().map(|image| image.config).ok_or_else(|| "it describes no image".to_owned())
}

/// Why a container did not start, in words: an engine's error is a chain of which the last links say it.
pub(crate) fn parse_error(stderr: &str) -> String {
    let line = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    let chain = ["unable to start container process: ", "runc create failed: ", "Error: "];
    chain.iter().find_map(|link| Some(line.split_once(link)?.1)).unwrap_or(line).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let run = Run {
            name: "n".into(),
            owner: "/tmp/o".into(),
            image: "i".into(),
            read_only: true,
            hostname: "h".into(),
            user: Some("1:2".into()),
            groups: vec![3],
            drops: vec!["ALL".into()],
            memory: Some(1024),
            cpu: Some(200),
            env_file: "e".into(),
            volumes: vec![("/a".into(), "/b".into(), false)],
            command: vec!["c".into(), "d".into()],
            args: vec!["* -::*".into()],
            ..Run::default()
        };
        assert_eq!(
            Engine::Docker.run(&run).to_string(),
            "docker run --detach --pull never --name n --label 'blumeops.smoke=/tmp/o' --hostname h --env-file e --dns 127.0.0.1 --user 1:2 --group-add 3 --cap-drop ALL --memory 1024 --memory-swap 1024 --cpus 0.200 --volume /a:/b:ro --entrypoint c --read-only --security-opt no-new-privileges i d '* -::*'"
        );
        let podman = Engine::Podman.run(&Run { files: Some(9), escalates: true, ..run }).to_string();
        assert!(podman.contains("--ulimit 'nofile=9:9' --ulimit 'nproc=4096:4096'"), "{podman}");
        assert!(!podman.contains("no-new-privileges") && podman.contains("'--read-only-tmpfs=false'"), "{podman}");
        assert_eq!(Engine::Podman.images().to_string(), "podman images --format {{.Repository}}:{{.Tag}}");
    }

    #[test]
    fn a_container_is_read() {
        let json = r#"[{"State":{"Running":true,"Pid":7,"ExitCode":0,"OOMKilled":false},
            "Config":{"Labels":{"blumeops.smoke":"/o"}},
            "NetworkSettings":{"IPAddress":"","Ports":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"4000"}],"81/tcp":null},
            "Networks":{"x":{"IPAddress":"10.0.0.2"}}}}]"#;
        let state = parse_state(json).unwrap();
        assert_eq!((state.pid, state.address.as_str(), state.forwards.clone()), (7, "10.0.0.2", vec![(80, 4000)]));
        assert_eq!(state.owner, "/o");
        assert!(parse_state("[]").is_err() && parse_state("").is_err());
    }

    #[test]
    fn an_error_is_what_its_last_link_says() {
        let stderr = "time=x\nError: runc: runc create failed: unable to start container process: exec: \"/bin/nope\": stat /bin/nope: no such file or directory: OCI runtime attempted to invoke a command that was not found\n";
        assert!(parse_error(stderr).starts_with("exec: \"/bin/nope\": stat"), "{}", parse_error(stderr));
        assert_eq!(parse_error(""), "it gave no reason");
    }

    #[test]
    fn what_is_ours_is_told_from_the_rest() {
        assert_eq!(
            parse_images("a:b\nlocalhost/blumeops-smoke/redis:r1\n"),
            [("localhost/blumeops-smoke/redis:r1", "r1")]
        );
    }
}
