//! From what a manifest wants to what an engine is told: command line, environment, folders and files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};

use super::{Smoke, group};
use crate::exec::redact::Redactor;
use crate::exec::workspace::Workspace;
use crate::exec::{env, process};
use crate::model::failure::Failure;
use crate::model::secret::Secret;
use crate::model::trial::{Ask, Storage, Trial, Value, expand, hosts};
use crate::tools::engine::{Engine, Run};

/// The folder of what a dry run prints.
pub(super) const FOLDER: &str = "/tmp/blumeops-smoke-dry-run";

/// What stands for a secret where it would be seen.
const THROW_AWAY: &str = "throw-away";

/// Variables that were given by hand.
pub(super) struct Overrides {
    values: BTreeMap<String, String>,
    /// Those whose value came from the environment, as secrets do.
    quiet: Vec<String>,
}

impl Overrides {
    /// `NAME=VALUE`, or `NAME` with the value that it has in our environment.
    pub(super) fn read(given: &[String]) -> Result<Self> {
        let (mut values, mut quiet) = (BTreeMap::new(), Vec::new());
        for text in given {
            let (name, value) = if let Some((name, value)) = text.split_once('=') {
                (name, value.to_owned())
            } else {
                quiet.push(text.clone());
                let unset = Failure::environment(format!("--env {text}: it is not set"));
                (text.as_str(), env::var(text).ok_or_else(|| unset.next(format!("--env {text}=VALUE")))?)
            };
            if name.is_empty() || value.contains('\n') {
                return Err(Failure::environment(format!("--env {name}: a name and one line are wanted")).into());
            }
            values.insert(name.to_owned(), value);
        }
        Ok(Self { values, quiet })
    }
}

/// What a container is started with.
pub(super) struct Prepared {
    pub(super) run: Run,
    env_file: String,
    /// Its path below the run's folder, and what is in it.
    files: Vec<(String, String)>,
    /// Its path, and whether everybody may write it.
    folders: Vec<(String, bool)>,
    /// Services that are named and not here.
    pub(super) away: Vec<(String, String)>,
    /// What could not be handed over.
    pub(super) notes: Vec<String>,
}

/// The container's folders that its user is to write: where each is in it, and in the run's folder.
pub(super) fn writable(trial: &Trial, at: usize) -> Vec<(&str, String)> {
    let folder = |volume: &str| format!("volumes/{at}/{volume}");
    let mounts = trial.mounts.iter().filter(|mount| !mount.read_only);
    mounts
        .filter_map(|mount| match &mount.storage {
            Storage::Folder { volume, .. } => Some((mount.at.as_str(), folder(volume))),
            _ => None,
        })
        .collect()
}

/// Decides everything; `make_up` gives what takes a secret's place.
pub(super) fn prepare(
    smoke: &Smoke<'_>,
    (at, trial): (usize, &Trial),
    (folder, name, image): (&str, &str, &str),
    make_up: &mut dyn FnMut() -> Result<String>,
) -> Result<Prepared> {
    let mut values = BTreeMap::new();
    let mut shown = BTreeMap::new();
    for (key, value) in &trial.settings {
        let (value, seen) = match value {
            Value::Written(text) => (text.clone(), text.clone()),
            Value::MadeUp => (make_up()?, THROW_AWAY.to_owned()),
        };
        values.insert(key.clone(), value);
        shown.insert(key.clone(), seen);
    }
    let literal = |key: &String| trial.settings.iter().any(|(name, value)| name == key && *value != Value::MadeUp);
    for key in values.keys().cloned().collect::<Vec<_>>().into_iter().filter(literal) {
        let (value, seen) = (expand(&values[&key], &values), expand(&shown[&key], &shown));
        values.insert(key.clone(), value);
        shown.insert(key, seen);
    }
    values.extend(smoke.overrides.values.clone());
    let (lines, long): (Vec<_>, Vec<_>) = values.iter().partition(|(_, value)| !value.contains('\n'));
    let env_file = lines.into_iter().flat_map(|(key, value)| [key, "=", value, "\n"]).collect();
    let notes = long.into_iter().map(|(key, _)| format!("{key} has several lines and is left out")).collect();
    let mut prepared = Prepared {
        run: command(smoke, trial, (folder, name, image)),
        env_file,
        files: Vec::new(),
        folders: Vec::new(),
        away: Vec::new(),
        notes,
    };
    prepared.run.env_file = format!("{folder}/environment-{at}");
    prepared.run.command = trial.command.iter().map(|word| expand(word, &shown)).collect();
    prepared.run.args = trial.args.iter().map(|word| expand(word, &shown)).collect();
    if smoke.args.network.is_none() {
        let here = |(key, _): &(String, String)| !smoke.overrides.values.contains_key(key);
        prepared.away = hosts(&trial.settings).into_iter().filter(here).collect();
    }
    prepared.mount((at, trial), folder, make_up)?;
    Ok(prepared)
}

fn command(smoke: &Smoke<'_>, trial: &Trial, (folder, name, image): (&str, &str, &str)) -> Run {
    let user = trial.user.map(|user| match trial.group {
        Some(group) => format!("{user}:{group}"),
        None => user.to_string(),
    });
    let own = smoke.engine == Engine::Podman && !rustix::process::geteuid().is_root();
    let asked = trial.probes.iter().filter_map(|probe| match &probe.ask {
        Ask::Http { port, .. } | Ask::Tcp { port } => *port,
        Ask::Exec(_) => None,
    });
    let mut forwards: Vec<u16> = asked.filter(|_| own && smoke.args.network.is_none()).collect();
    forwards.sort_unstable();
    forwards.dedup();
    Run {
        name: name.to_owned(),
        owner: folder.to_owned(),
        image: image.to_owned(),
        read_only: trial.read_only || !smoke.args.writable,
        network: smoke.args.network.clone(),
        hostname: trial.hostname.clone(),
        user,
        groups: trial.groups.clone(),
        drops: trial.drops.clone(),
        adds: trial.adds.clone(),
        escalates: trial.escalates,
        memory: trial.memory,
        cpu: trial.cpu,
        folder: trial.folder.clone(),
        files: process::file_limit(),
        forwards,
        ..Run::default()
    }
}

impl Prepared {
    fn mount(
        &mut self,
        (at, trial): (usize, &Trial),
        folder: &str,
        make_up: &mut dyn FnMut() -> Result<String>,
    ) -> Result<()> {
        let mut text = |value: &Value| match value {
            Value::Written(text) => Ok(text.clone()),
            Value::MadeUp => make_up(),
        };
        for (number, mount) in trial.mounts.iter().enumerate() {
            let path = match &mount.storage {
                Storage::Folder { volume, open } => {
                    let path = format!("volumes/{at}/{volume}");
                    self.folders.push((path.clone(), *open));
                    path
                }
                Storage::File(value) => {
                    let path = format!("files/{at}-{number}");
                    self.files.push((path.clone(), text(value)?));
                    path
                }
                Storage::Files(files) => {
                    let path = format!("files/{at}-{number}");
                    for (name, value) in files {
                        self.files.push((format!("{path}/{name}"), text(value)?));
                    }
                    self.folders.push((path.clone(), false));
                    path
                }
            };
            self.run.volumes.push((format!("{folder}/{path}"), mount.at.clone(), !mount.read_only));
        }
        Ok(())
    }

    /// Makes the folders and files. The run's own folder is nobody else's.
    pub(super) fn write(&self, workspace: &Workspace) -> Result<()> {
        let allow = |path: &str, mode| {
            let path = workspace.path(path);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .with_context(|| format!("can't set the mode of {}", path.display()))
        };
        for (path, open) in &self.folders {
            std::fs::create_dir_all(workspace.path(path)).with_context(|| format!("can't make {path}"))?;
            allow(path, if *open { 0o777 } else { 0o755 })?;
        }
        for (path, text) in &self.files {
            workspace.write(path, text)?;
            allow(path, 0o444)?;
        }
        let name = self.run.env_file.rsplit('/').next().unwrap_or_default();
        workspace.write(name, "")?;
        allow(name, 0o600)?;
        workspace.write(name, &self.env_file)
    }
}

/// Random text that is hidden from then on.
pub(super) fn made_up(redactor: &Redactor) -> Result<String> {
    let text = process::random().context("no random text is to be had")?;
    redactor.learn(&Secret::new(text.clone()));
    Ok(text)
}

/// Values that were given in place of secrets are secrets.
pub(super) fn hide(smoke: &Smoke<'_>, trial: &Trial) {
    let secret = |name: &&String| {
        let in_vault = trial.settings.iter().any(|(known, value)| known == *name && *value == Value::MadeUp);
        in_vault || smoke.overrides.quiet.contains(name)
    };
    for name in smoke.overrides.values.keys().filter(secret) {
        smoke.cx.system.redactor.learn(&Secret::new(smoke.overrides.values[name].clone()));
    }
}

/// The commands of a dry run for each container.
pub(super) fn lines(smoke: &Smoke<'_>, trials: &[Trial]) -> Result<Vec<String>> {
    let image = Engine::reference(smoke.args.name.as_str(), "dry-run");
    let quoted = |text: &str| shell_words::quote(text).into_owned();
    let mut lines = Vec::new();
    for (at, trial) in trials.iter().enumerate() {
        hide(smoke, trial);
        let name = format!("blumeops-smoke-dry-run-{at}");
        let prepared = prepare(smoke, (at, trial), (FOLDER, &name, &image), &mut || Ok(THROW_AWAY.to_owned()))?;
        lines.push(format!("# {}, container {}", group(trial), trial.container));
        for (path, open) in &prepared.folders {
            lines.push(format!("mkdir -p {FOLDER}/{path} && chmod {} {FOLDER}/{path}", if *open { 777 } else { 755 }));
        }
        for (path, text) in &prepared.files {
            let path = quoted(&format!("{FOLDER}/{path}"));
            lines.push(format!("mkdir -p \"$(dirname {path})\" && printf %s {} > {path}", quoted(text)));
        }
        let settings: Vec<String> = prepared.env_file.lines().map(quoted).collect();
        let file = &prepared.run.env_file;
        lines.push(if settings.is_empty() {
            format!("(umask 077 && : > {file})")
        } else {
            format!("(umask 077 && printf '%s\\n' {} > {file})", settings.join(" "))
        });
        lines.push(smoke.engine.run(&prepared.run).to_string());
        lines.push(smoke.engine.logs(&name).to_string());
        lines.push(smoke.engine.remove(&name).to_string());
    }
    lines.push(smoke.engine.remove_image(&image).to_string());
    lines.push(format!("rm -r {FOLDER}"));
    Ok(lines)
}
