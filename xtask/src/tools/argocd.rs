//! argocd: Applications of the one server that the repository names.

use std::time::Duration;

use serde::Deserialize;

use super::{Invocation, line};
use crate::model::failure::Failure;

/// ArgoCD renders before it answers.
const LIMIT: Duration = Duration::from_secs(90);

/// Says what to write where no server is named.
pub(crate) fn unnamed() -> Failure {
    Failure::environment("it is not known which ArgoCD to speak to")
        .next(format!("write [argocd] with server into {}", crate::model::config::PATH))
}

/// The command line's client of one server.
#[derive(Clone, Debug)]
pub(crate) struct Argocd {
    pub(crate) server: String,
}

impl Argocd {
    fn app(&self, words: &[&str]) -> Invocation {
        let server = &self.server;
        // Through a reverse proxy gRPC only passes as HTTP.
        line!("argocd app {words...} --server {server} --grpc-web").limit(LIMIT)
    }

    /// Its state, compared anew with what git has.
    pub(crate) fn get(&self, name: &str) -> Invocation {
        self.app(&["get", name, "--refresh", "--output", "json"])
    }

    pub(crate) fn list(&self) -> Invocation {
        self.app(&["list", "--output", "json"])
    }

    pub(crate) fn set_revision(&self, name: &str, revision: &str) -> Invocation {
        self.app(&["set", name, "--revision", revision])
    }

    /// Exit code 1 where there are differences.
    pub(crate) fn diff(&self, name: &str) -> Invocation {
        self.app(&["diff", name])
    }

    pub(crate) fn sync(&self, name: &str) -> Invocation {
        self.app(&["sync", name, "--async"])
    }

    /// What a person would wait with; we look at the reasons too and give up sooner.
    pub(crate) fn wait(&self, name: &str, limit: Duration) -> Invocation {
        let seconds = limit.as_secs().to_string();
        self.app(&["wait", name, "--sync", "--health", "--operation", "--timeout", &seconds])
    }
}

#[derive(Deserialize)]
struct RawApp {
    metadata: RawMetadata,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawMetadata {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSpec {
    source: RawSource,
    sources: Vec<RawSource>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawSource {
    target_revision: String,
    chart: String,
    path: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawStatus {
    sync: RawSync,
    health: RawHealth,
    operation_state: Option<RawOperation>,
    conditions: Vec<RawCondition>,
    resources: Vec<RawResource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSync {
    status: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHealth {
    status: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawOperation {
    phase: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCondition {
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawResource {
    kind: String,
    name: String,
    health: Option<RawHealth>,
}

/// An Application, as ArgoCD sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) name: String,
    /// The revision that its source in git is followed at; nothing where it has only charts.
    pub(crate) revision: Option<String>,
    pub(crate) sync: String,
    pub(crate) health: String,
    /// The phase of its last sync.
    pub(crate) operation: String,
    /// What it says is wrong.
    pub(crate) reasons: Vec<String>,
}

impl State {
    pub(crate) fn is_settled(&self) -> bool {
        self.sync == "Synced" && self.health == "Healthy" && !self.is_syncing()
    }

    pub(crate) fn is_syncing(&self) -> bool {
        matches!(self.operation.as_str(), "Running" | "Terminating")
    }

    /// In three words.
    pub(crate) fn words(&self) -> String {
        let words = [&self.sync, &self.health].map(|word| if word.is_empty() { "no state" } else { word });
        let syncing = if self.is_syncing() { ", syncing" } else { "" };
        format!("{}, {}{syncing}", words[0], words[1])
    }
}

/// Reads `app get`.
///
/// # Errors
/// It is no Application.
pub(crate) fn parse(json: &str) -> Result<State, String> {
    serde_json::from_str::<RawApp>(json).map(state).map_err(|error| error.to_string())
}

/// Reads `app list`.
///
/// # Errors
/// It is no list of Applications.
pub(crate) fn parse_list(json: &str) -> Result<Vec<State>, String> {
    let list: Option<Vec<RawApp>> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok(list.unwrap_or_default().into_iter().map(state).collect())
}

fn state(raw: RawApp) -> State {
    let sources = if raw.spec.sources.is_empty() { vec![raw.spec.source] } else { raw.spec.sources };
    let revision = sources.into_iter().find(|source| source.chart.is_empty() && !source.path.is_empty());
    let revision = revision.map(|source| source.target_revision).map(|text| match text.as_str() {
        "" => "HEAD".to_owned(),
        _ => text,
    });
    let operation = raw.status.operation_state.unwrap_or_default();
    let mut reasons: Vec<String> = raw.status.conditions.into_iter().map(|condition| condition.message).collect();
    reasons.push(raw.status.health.message);
    if matches!(operation.phase.as_str(), "Failed" | "Error") {
        reasons.push(operation.message);
    }
    for RawResource { kind, name, health } in raw.status.resources {
        if let Some(health) = health.filter(|health| !matches!(health.status.as_str(), "Healthy" | "")) {
            reasons.push(format!("{kind} {name} is {}: {}", health.status, health.message));
        }
    }
    reasons.retain(|reason| !reason.trim().is_empty());
    let (sync, health) = (raw.status.sync.status, raw.status.health.status);
    State { name: raw.metadata.name, revision, sync, health, operation: operation.phase, reasons }
}

/// Does a failed `app get` mean that there is no such Application? ArgoCD hides that behind a lack of permission.
pub(crate) fn is_absent(stderr: &str) -> bool {
    (stderr.contains("NotFound") || stderr.contains("PermissionDenied")) && !stderr.contains("Unauthenticated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_reasons() {
        let json = r#"{"metadata":{"name":"a"},"spec":{"source":{"path":"x","targetRevision":"topic"}},"status":{
            "sync":{"status":"OutOfSync"},"health":{"status":"Degraded"},"operationState":{"phase":"Failed","message":"one resource is invalid"},
            "resources":[{"kind":"Deployment","name":"d","health":{"status":"Degraded","message":"exceeded its deadline"}},{"kind":"Service","name":"s"}]}}"#;
        let state = parse(json).unwrap();
        assert_eq!(state.revision.as_deref(), Some("topic"));
        assert_eq!(state.reasons, ["one resource is invalid", "Deployment d is Degraded: exceeded its deadline"]);
        assert!(!state.is_settled());
        assert_eq!(parse(r#"{"metadata":{"name":"b"}}"#).unwrap().words(), "no state, no state");
        assert!(parse("{").is_err());
        assert!(parse_list("null").unwrap().is_empty());
        let chart = r#"[{"metadata":{"name":"c"},"spec":{"source":{"chart":"x","targetRevision":"1.2"}}}]"#;
        assert_eq!(parse_list(chart).unwrap()[0].revision, None);
    }

    #[test]
    fn the_server_is_always_named() {
        let argocd = Argocd { server: "argocd.example".to_owned() };
        assert_eq!(
            argocd.set_revision("a", "topic/x").to_string(),
            "argocd app set a --revision topic/x --server argocd.example --grpc-web"
        );
        assert!(is_absent("rpc error: code = PermissionDenied desc = permission denied"));
        assert!(!is_absent("rpc error: code = Unauthenticated desc = no session"));
    }
}
