//! What a manifest wants of a container: all that decides whether its image starts, so that an engine can be told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::image::split_reference;
use super::quantity;
use super::world::{App, Object, Ref, World};

/// One container of a workload, or an image that no manifest uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trial {
    /// `deployment/redis`; empty where no manifest uses the image.
    pub(crate) workload: String,
    /// Its Application's namespace.
    pub(crate) namespace: String,
    pub(crate) container: String,
    pub(crate) hostname: String,
    /// It does its work and ends well: a job, or an init container.
    pub(crate) ends: bool,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) folder: Option<String>,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    /// Beside its own: `fsGroup` and `supplementalGroups`.
    pub(crate) groups: Vec<u32>,
    pub(crate) never_root: bool,
    pub(crate) read_only: bool,
    pub(crate) escalates: bool,
    pub(crate) drops: Vec<String>,
    pub(crate) adds: Vec<String>,
    pub(crate) memory: Option<u64>,
    /// Thousandths of a processor.
    pub(crate) cpu: Option<u64>,
    pub(crate) settings: Vec<(String, Value)>,
    pub(crate) mounts: Vec<Mount>,
    /// Declared ports: number and whether it is UDP.
    pub(crate) ports: Vec<(u16, bool)>,
    pub(crate) probes: Vec<Probe>,
    /// What is not as it will be in the cluster.
    pub(crate) notes: Vec<String>,
}

/// A value of the environment, or of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// As the repository has it.
    Written(String),
    /// From a vault: something is made up in its place.
    MadeUp,
}

/// Something mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) at: String,
    pub(crate) read_only: bool,
    pub(crate) storage: Storage,
}

/// What is mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// A folder that every mount of this volume shares; `open` to the container's user, or root's as a new disk is.
    Folder {
        volume: String,
        open: bool,
    },
    Files(BTreeMap<String, Value>),
    File(Value),
}

/// A probe of the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) kind: Kind,
    pub(crate) ask: Ask,
    pub(crate) delay: u32,
    pub(crate) period: u32,
    pub(crate) timeout: u32,
    pub(crate) threshold: u32,
}

/// In the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// How it asks. A port that is named and not declared has no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Http { path: String, port: Option<u16>, secure: bool, headers: Vec<(String, String)> },
    Tcp { port: Option<u16> },
    Exec(Vec<String>),
}

impl Probe {
    /// Delay, pause and how often: its own, shrunk so that all of it fits into `wait`.
    pub(crate) fn schedule(&self, wait: Duration) -> (Duration, Duration, u32) {
        let whole = f64::from(self.delay) + f64::from(self.period) * f64::from(self.threshold);
        let scale = (wait.as_secs_f64() / whole).min(1.0);
        let scaled = |seconds: u32| Duration::from_secs_f64(f64::from(seconds) * scale);
        (scaled(self.delay), scaled(self.period), self.threshold)
    }
}

/// Every container whose manifest uses `image`, of the workload called `only` or of all; the names of all workloads.
pub(crate) fn of(world: &World, image: &str, only: Option<&str>) -> (Vec<Trial>, Vec<String>) {
    let (mut trials, mut names) = (Vec::new(), Vec::new());
    for (app, object) in world.objects() {
        let Some(pod) = object.pod_template().and_then(|pod| pod.get("spec")) else { continue };
        let name = format!("{}/{}", object.kind.to_lowercase(), object.name);
        let uses = |container: &Ref<'_>| {
            container.text_at(&["image"]).is_some_and(|reference| split_reference(reference).0 == image)
        };
        let mut own: Vec<Trial> = Vec::new();
        for (list, init) in [("initContainers", true), ("containers", false)] {
            for container in pod.list(&[list]).into_iter().filter(uses) {
                let reader = Reader { world, app, object, pod, container };
                let ends = init && container.text_at(&["restartPolicy"]) != Some("Always")
                    || matches!(object.kind.as_str(), "Job" | "CronJob");
                own.push(Trial { workload: name.clone(), ends, ..reader.trial() });
            }
        }
        if !own.is_empty() {
            names.push(name.clone());
            trials.extend(own.into_iter().filter(|_| only.is_none_or(|only| only == name || only == object.name)));
        }
    }
    (trials, names)
}

struct Reader<'a> {
    world: &'a World,
    app: &'a App,
    object: &'a Object,
    pod: Ref<'a>,
    container: Ref<'a>,
}

impl Reader<'_> {
    fn trial(&self) -> Trial {
        let (pod, container) = (self.pod, self.container);
        let text = |keys: &[&str]| container.text_at(keys).map(str::to_owned);
        // The container's own word counts before the pod's.
        let security = |key: &str| {
            let keys = ["securityContext", key];
            container.text_at(&keys).or_else(|| pod.text_at(&keys))
        };
        let number = |key: &str| security(key).and_then(|text| text.parse().ok());
        let groups = pod.list(&["securityContext", "supplementalGroups"]).into_iter().filter_map(Ref::text);
        let groups = pod.text_at(&["securityContext", "fsGroup"]).into_iter().chain(groups);
        let mut notes = Vec::new();
        let (settings, mounts) = (self.settings(&mut notes), self.mounts(&mut notes));
        Trial {
            namespace: self.object.namespace.clone(),
            container: text(&["name"]).unwrap_or_default(),
            hostname: pod.text_at(&["hostname"]).unwrap_or(&self.object.name).to_owned(),
            command: texts(container, &["command"]),
            args: texts(container, &["args"]),
            folder: text(&["workingDir"]),
            user: number("runAsUser"),
            group: number("runAsGroup"),
            groups: groups.filter_map(|text| text.parse().ok()).collect(),
            never_root: security("runAsNonRoot") == Some("true"),
            read_only: security("readOnlyRootFilesystem") == Some("true"),
            escalates: security("allowPrivilegeEscalation") != Some("false"),
            drops: texts(container, &["securityContext", "capabilities", "drop"]),
            adds: texts(container, &["securityContext", "capabilities", "add"]),
            memory: container.text_at(&["resources", "limits", "memory"]).and_then(quantity::bytes),
            cpu: container.text_at(&["resources", "limits", "cpu"]).and_then(quantity::millicores),
            settings,
            mounts,
            ports: self.ports(),
            probes: self.probes(),
            notes,
            ..Trial::default()
        }
    }

    fn ports(&self) -> Vec<(u16, bool)> {
        let ports = self.container.list(&["ports"]).into_iter();
        let port = |port: Ref<'_>| {
            Some((port.text_at(&["containerPort"])?.parse().ok()?, port.text_at(&["protocol"]) == Some("UDP")))
        };
        ports.filter_map(port).collect()
    }

    fn probes(&self) -> Vec<Probe> {
        let kinds =
            [("startupProbe", Kind::Startup), ("livenessProbe", Kind::Liveness), ("readinessProbe", Kind::Readiness)];
        kinds.into_iter().filter_map(|(key, kind)| Some(self.probe(self.container.get(key)?, kind))).collect()
    }

    fn probe(&self, probe: Ref<'_>, kind: Kind) -> Probe {
        let port = |at: Ref<'_>| {
            let wanted = at.text_at(&["port"])?;
            let ports = self.container.list(&["ports"]);
            let named = ports.iter().find(|port| port.text_at(&["name"]) == Some(wanted));
            wanted.parse().ok().or_else(|| named?.text_at(&["containerPort"])?.parse().ok())
        };
        let ask = if let Some(http) = probe.get("httpGet") {
            let header = |header: Ref<'_>| {
                Some((header.text_at(&["name"])?.to_owned(), header.text_at(&["value"]).unwrap_or_default().to_owned()))
            };
            Ask::Http {
                path: http.text_at(&["path"]).unwrap_or("/").to_owned(),
                port: port(http),
                secure: http.text_at(&["scheme"]) == Some("HTTPS"),
                headers: http.list(&["httpHeaders"]).into_iter().filter_map(header).collect(),
            }
        } else if let Some(tcp) = probe.get("tcpSocket").or_else(|| probe.get("grpc")) {
            Ask::Tcp { port: port(tcp) }
        } else {
            Ask::Exec(texts(probe, &["exec", "command"]))
        };
        let number = |key: &str, default| probe.text_at(&[key]).and_then(|text| text.parse().ok()).unwrap_or(default);
        Probe {
            kind,
            ask,
            delay: number("initialDelaySeconds", 0),
            period: number("periodSeconds", 10).max(1),
            timeout: number("timeoutSeconds", 1).max(1),
            threshold: number("failureThreshold", 3).max(1),
        }
    }

    fn settings(&self, notes: &mut Vec<String>) -> Vec<(String, Value)> {
        let mut settings = BTreeMap::new();
        for from in self.container.list(&["envFrom"]) {
            let prefix = from.text_at(&["prefix"]).unwrap_or_default();
            for kind in ["configMapRef", "secretRef"] {
                let Some(name) = from.text_at(&[kind, "name"]) else { continue };
                let known = self.source(kind == "secretRef", name, notes);
                settings.extend(known.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
            }
        }
        for entry in self.container.list(&["env"]) {
            let Some(name) = entry.text_at(&["name"]) else { continue };
            let value = match entry.get("valueFrom") {
                Some(from) => self.value_from(from, notes),
                None => Some(Value::Written(entry.text_at(&["value"]).unwrap_or_default().to_owned())),
            };
            settings.extend(value.map(|value| (name.to_owned(), value)));
        }
        settings.into_iter().collect()
    }

    fn value_from(&self, from: Ref<'_>, notes: &mut Vec<String>) -> Option<Value> {
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let Some(reference) = from.get(kind) else { continue };
            let (name, key) = (reference.text_at(&["name"])?, reference.text_at(&["key"])?);
            let found = self.source(kind == "secretKeyRef", name, &mut Vec::new()).remove(key);
            let optional = reference.text_at(&["optional"]) == Some("true");
            return found.or_else(|| (!optional).then_some(Value::MadeUp));
        }
        let field = from.text_at(&["fieldRef", "fieldPath"]);
        let written = match field {
            Some("metadata.name" | "spec.nodeName") => self.object.name.clone(),
            Some("metadata.namespace") => self.object.namespace.clone(),
            Some("status.podIP" | "status.hostIP") => "127.0.0.1".to_owned(),
            _ => {
                let what = field.unwrap_or("a resource's field");
                notes.push(format!("{what} is known in a cluster only: something is made up"));
                return Some(Value::MadeUp);
            }
        };
        Some(Value::Written(written))
    }

    /// What a `ConfigMap` or Secret holds, as far as the repository says.
    fn source(&self, secret: bool, name: &str, notes: &mut Vec<String>) -> BTreeMap<String, Value> {
        let beside = |kind| self.world.beside(self.app, self.object, kind);
        let entries = |at: Option<Ref<'_>>| {
            let entries = at.map_or_else(Vec::new, Ref::entries).into_iter();
            entries
                .map(|(key, value)| (key.to_owned(), value.text().unwrap_or_default().to_owned()))
                .collect::<Vec<_>>()
        };
        if !secret {
            let Some(map) = beside("ConfigMap").find(|map| map.name == name) else {
                notes.push(format!("there is no ConfigMap {name} in the repository"));
                return BTreeMap::new();
            };
            return entries(map.at(&["data"])).into_iter().map(|(key, text)| (key, Value::Written(text))).collect();
        }
        let made = beside("ExternalSecret").find(|object| object.secret_name() == name);
        if let Some(made) = made {
            // A template's plain text is no secret: it is written in the repository.
            let template = entries(made.at(&["spec", "target", "template", "data"]));
            if !template.is_empty() {
                let value = |text: String| if text.contains("{{") { Value::MadeUp } else { Value::Written(text) };
                return template.into_iter().map(|(key, text)| (key, value(text))).collect();
            }
            let keys = made.root().list(&["spec", "data"]).into_iter().filter_map(|item| item.text_at(&["secretKey"]));
            return keys.map(|key| (key.to_owned(), Value::MadeUp)).collect();
        }
        let Some(secret) = beside("Secret").find(|object| object.name == name) else {
            notes.push(format!("what the Secret {name} holds is not known here"));
            return BTreeMap::new();
        };
        let keys = [secret.at(&["data"]), secret.at(&["stringData"])].into_iter().flat_map(entries);
        keys.map(|(key, _)| (key, Value::MadeUp)).collect()
    }

    fn mounts(&self, notes: &mut Vec<String>) -> Vec<Mount> {
        let volumes = self.pod.list(&["volumes"]);
        let mut mounts = Vec::new();
        for mount in self.container.list(&["volumeMounts"]) {
            let (Some(name), Some(at)) = (mount.text_at(&["name"]), mount.text_at(&["mountPath"])) else { continue };
            let volume = volumes.iter().find(|volume| volume.text_at(&["name"]) == Some(name)).copied();
            let storage = self.storage(name, volume, mount.text_at(&["subPath"]), notes);
            let read_only = mount.text_at(&["readOnly"]) == Some("true") || !matches!(storage, Storage::Folder { .. });
            mounts.push(Mount { at: at.to_owned(), read_only, storage });
        }
        mounts
    }

    fn storage(&self, name: &str, volume: Option<Ref<'_>>, part: Option<&str>, notes: &mut Vec<String>) -> Storage {
        let get = |key: &str| volume.and_then(|volume| volume.get(key));
        let folder = |open| Storage::Folder { volume: name.to_owned(), open };
        let map = get("configMap").and_then(|map| Some((map, map.text_at(&["name"])?, false)));
        let secret = get("secret").and_then(|secret| Some((secret, secret.text_at(&["secretName"])?, true)));
        let Some((source, object, is_secret)) = map.or(secret) else {
            if get("persistentVolumeClaim").is_some() || self.claims(name) {
                // A new disk is root's; the kubelet opens it to `fsGroup`.
                return folder(self.pod.at(&["securityContext", "fsGroup"]).is_some());
            }
            if get("emptyDir").is_none() {
                notes.push(format!("the volume {name} is an empty folder here"));
            }
            return folder(true);
        };
        let known = self.source(is_secret, object, notes);
        let items = source.list(&["items"]);
        let files: BTreeMap<String, Value> = if items.is_empty() {
            known
        } else {
            let chosen = items.into_iter().filter_map(|item| Some((item.text_at(&["key"])?, item.text_at(&["path"])?)));
            chosen.filter_map(|(key, path)| Some((path.to_owned(), known.get(key)?.clone()))).collect()
        };
        match part {
            Some(part) => Storage::File(files.get(part).cloned().unwrap_or(Value::MadeUp)),
            None => Storage::Files(files),
        }
    }

    /// Is it a volume that a `StatefulSet` claims for each of its pods?
    fn claims(&self, name: &str) -> bool {
        let claims = self.object.root().list(&["spec", "volumeClaimTemplates"]);
        claims.iter().any(|claim| claim.text_at(&["metadata", "name"]) == Some(name))
    }
}

fn texts(at: Ref<'_>, keys: &[&str]) -> Vec<String> {
    at.list(keys).into_iter().filter_map(Ref::text).map(str::to_owned).collect()
}

/// `$(NAME)` as the kubelet puts values in: what is not known stays.
pub(crate) fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("$(") {
        // `$$(NAME)` means itself.
        if let Some(before) = before.strip_suffix('$') {
            done.extend([before, "$("]);
            rest = after;
            continue;
        }
        done += before;
        let known = after.split_once(')').and_then(|(name, behind)| Some((values.get(name)?, behind)));
        if let Some((value, behind)) = known {
            done += value;
            rest = behind;
        } else {
            done += "$(";
            rest = after;
        }
    }
    done + rest
}

/// The hosts of other services that the settings name: with them away, readiness is not to be had.
pub(crate) fn hosts(settings: &[(String, Value)]) -> Vec<(String, String)> {
    let is_host = |name: &str| ["HOST", "HOSTNAME", "SERVER"].iter().any(|end| name.ends_with(end));
    let is_other = |text: &str| !text.is_empty() && !matches!(text, "localhost" | "0.0.0.0" | "127.0.0.1" | "::");
    let host = |(name, value): &(String, Value)| match value {
        Value::Written(text) if is_host(name) && is_other(text) => Some((name.clone(), text.clone())),
        _ => None,
    };
    settings.iter().filter_map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;
    use crate::model::source::Source;
    use crate::model::world::{Facts, Rendered};

    const APP: &str = "
//- argocd/apps/a.yaml
kind: Application
metadata: {name: a}
spec: {source: {path: m/a}, destination: {server: s, namespace: n}}
";

    fn trials(manifests: &str) -> Vec<Trial> {
        let mut facts = Facts::default();
        facts.paths.insert("m/a/x.yaml".to_owned());
        facts.rendered.insert("m/a".to_owned(), Rendered::Text(Source::new("m/a", manifests)));
        of(&World::new(repo(APP), facts), "r/b/x", None).0
    }

    #[test]
    fn a_manifest_is_read() {
        let text = r#"
kind: Deployment
metadata: {name: d}
spec: {template: {spec: {securityContext: {runAsUser: 5, fsGroup: 7}, containers: [{name: c, image: "r/b/x:1@sha256:0",
  args: ["--a", $(A)], ports: [{name: web, containerPort: 80}], resources: {limits: {cpu: 200m, memory: 1Mi}},
  securityContext: {runAsUser: 6, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}},
  envFrom: [{secretRef: {name: s}}], env: [{name: A, value: b}, {name: K, valueFrom: {configMapKeyRef: {name: m, key: k}}}],
  livenessProbe: {httpGet: {path: /x, port: web}, periodSeconds: 20},
  volumeMounts: [{name: v, mountPath: /v}, {name: m, mountPath: /m}]}],
  volumes: [{name: v, persistentVolumeClaim: {claimName: p}}, {name: m, configMap: {name: m}}]}}}
---
kind: ConfigMap
metadata: {name: m}
data: {k: w}
---
kind: ExternalSecret
metadata: {name: s}
spec: {target: {template: {data: {DB_HOST: db.example, PASSWORD: "{{ .p }}"}}}}
---
kind: Deployment
metadata: {name: other}
spec: {template: {spec: {containers: [{name: c, image: "r/b/y:1"}]}}}
"#;
        let all = trials(text);
        let [trial] = &all[..] else { panic!("{all:?}") };
        assert_eq!((trial.workload.as_str(), trial.user, trial.groups.as_slice()), ("deployment/d", Some(6), &[7][..]));
        assert_eq!((trial.memory, trial.cpu, trial.read_only), (Some(1 << 20), Some(200), true));
        let written = |text: &str| Value::Written(text.to_owned());
        let settings: BTreeMap<_, _> = trial.settings.iter().cloned().collect();
        assert_eq!(settings["PASSWORD"], Value::MadeUp);
        assert_eq!([&settings["A"], &settings["K"]], [&written("b"), &written("w")]);
        assert_eq!(hosts(&trial.settings), [("DB_HOST".to_owned(), "db.example".to_owned())]);
        assert_eq!(trial.mounts[0].storage, Storage::Folder { volume: "v".to_owned(), open: true });
        assert!(matches!(&trial.mounts[1].storage, Storage::Files(files) if files["k"] == written("w")));
        let [probe] = &trial.probes[..] else { panic!("{:?}", trial.probes) };
        assert!(matches!(&probe.ask, Ask::Http { port: Some(80), .. }));
        assert_eq!(probe.schedule(Duration::from_secs(6)).1, Duration::from_secs(2));
    }

    #[test]
    fn a_claim_without_a_group_is_roots() {
        let text = r#"
kind: Deployment
metadata: {name: d}
spec: {template: {spec: {containers: [{name: c, image: "r/b/x", volumeMounts: [{name: v, mountPath: /v}]}],
  volumes: [{name: v, persistentVolumeClaim: {claimName: p}}]}}}
"#;
        assert!(matches!(trials(text)[0].mounts[0].storage, Storage::Folder { open: false, .. }));
    }

    #[test]
    fn variables_are_put_in() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$(A)y$(B)$$(A)$", &values), "x1y$(B)$(A)$");
    }
}
