//! Pods as the API server describes them: which are of a workload, and which will never start.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Reasons that no amount of waiting cures.
const HOPELESS: [&str; 6] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
];

#[derive(Deserialize)]
struct RawList {
    items: Vec<RawPod>,
}

#[derive(Deserialize)]
struct RawPod {
    metadata: RawMetadata,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawMetadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
}

#[derive(Deserialize)]
struct RawContainer {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawStatus {
    container_statuses: Vec<RawContainerStatus>,
    init_container_statuses: Vec<RawContainerStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainerStatus {
    name: String,
    #[serde(default)]
    state: RawState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawState {
    waiting: Option<RawWaiting>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawWaiting {
    reason: String,
    message: String,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Those that run beside each other, then those that run before them.
    pub(crate) containers: Vec<String>,
    pub(crate) trouble: Option<Trouble>,
}

/// Why a container will not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) container: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Reads `kubectl get pods --output=json`.
///
/// # Errors
/// It is no list of pods.
pub(crate) fn parse(json: &str) -> Result<Vec<Pod>, String> {
    let list: RawList = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok(list.items.into_iter().map(pod).collect())
}

fn pod(raw: RawPod) -> Pod {
    let statuses = raw.status.init_container_statuses.into_iter().chain(raw.status.container_statuses);
    let trouble = statuses
        .filter_map(|status| Some((status.name, status.state.waiting?)))
        .find(|(_, waiting)| HOPELESS.contains(&waiting.reason.as_str()))
        .map(|(container, RawWaiting { reason, message })| Trouble { container, reason, message });
    let containers = raw.spec.containers.into_iter().chain(raw.spec.init_containers);
    let containers = containers.map(|container| container.name).collect();
    Pod { name: raw.metadata.name, labels: raw.metadata.labels, containers, trouble }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_can_not_start_is_told_from_one_that_is_starting() {
        let list = r#"{"items":[
            {"metadata":{"name":"a","labels":{"app":"x"}},"spec":{"containers":[{"name":"c"}],"initContainers":[{"name":"i"}]},
             "status":{"containerStatuses":[{"name":"c","state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}}]}},
            {"metadata":{"name":"b"},"status":{"containerStatuses":[{"name":"c","state":{"waiting":{"reason":"ContainerCreating"}}}]}},
            {"metadata":{"name":"c"}}]}"#;
        let pods = parse(list).unwrap();
        assert_eq!(pods[0].containers, ["c", "i"]);
        assert_eq!(pods[0].trouble.as_ref().unwrap().reason, "CrashLoopBackOff");
        assert!(pods[1].trouble.is_none() && pods[2].trouble.is_none());
        assert!(parse("{\"items\":").is_err() && parse("{}").is_err());
    }
}
