//! The API server's own types. A package of its own: they take longer to compile than all the rest, and never change.

use k8s_openapi::api;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

/// What is wrong, at the end of a path of keys and positions.
#[derive(Debug)]
pub struct Mistake {
    /// From the object's root.
    pub path: Vec<String>,
    /// A fragment in lower case.
    pub what: String,
    /// The last key itself is wrong, not what stands behind it.
    pub is_key: bool,
}

/// Into a kind's type and back.
pub type Decode = fn(Value) -> Result<Value, Mistake>;

/// The decoder for a kind; nothing where there is no schema for it.
pub fn decoder(version: &str, kind: &str) -> Option<Decode> {
    Some(match (version, kind) {
        ("v1", "ConfigMap") => decode::<api::core::v1::ConfigMap>,
        ("v1", "Endpoints") => decode::<api::core::v1::Endpoints>,
        ("v1", "LimitRange") => decode::<api::core::v1::LimitRange>,
        ("v1", "Namespace") => decode::<api::core::v1::Namespace>,
        ("v1", "PersistentVolume") => decode::<api::core::v1::PersistentVolume>,
        ("v1", "PersistentVolumeClaim") => decode::<api::core::v1::PersistentVolumeClaim>,
        ("v1", "Pod") => decode::<api::core::v1::Pod>,
        ("v1", "ResourceQuota") => decode::<api::core::v1::ResourceQuota>,
        ("v1", "Secret") => decode::<api::core::v1::Secret>,
        ("v1", "Service") => decode::<api::core::v1::Service>,
        ("v1", "ServiceAccount") => decode::<api::core::v1::ServiceAccount>,
        ("apps/v1", "DaemonSet") => decode::<api::apps::v1::DaemonSet>,
        ("apps/v1", "Deployment") => decode::<api::apps::v1::Deployment>,
        ("apps/v1", "ReplicaSet") => decode::<api::apps::v1::ReplicaSet>,
        ("apps/v1", "StatefulSet") => decode::<api::apps::v1::StatefulSet>,
        ("autoscaling/v2", "HorizontalPodAutoscaler") => decode::<api::autoscaling::v2::HorizontalPodAutoscaler>,
        ("batch/v1", "CronJob") => decode::<api::batch::v1::CronJob>,
        ("batch/v1", "Job") => decode::<api::batch::v1::Job>,
        ("coordination.k8s.io/v1", "Lease") => decode::<api::coordination::v1::Lease>,
        ("discovery.k8s.io/v1", "EndpointSlice") => decode::<api::discovery::v1::EndpointSlice>,
        ("networking.k8s.io/v1", "Ingress") => decode::<api::networking::v1::Ingress>,
        ("networking.k8s.io/v1", "IngressClass") => decode::<api::networking::v1::IngressClass>,
        ("networking.k8s.io/v1", "NetworkPolicy") => decode::<api::networking::v1::NetworkPolicy>,
        ("node.k8s.io/v1", "RuntimeClass") => decode::<api::node::v1::RuntimeClass>,
        ("policy/v1", "PodDisruptionBudget") => decode::<api::policy::v1::PodDisruptionBudget>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => decode::<api::rbac::v1::ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => decode::<api::rbac::v1::ClusterRoleBinding>,
        ("rbac.authorization.k8s.io/v1", "Role") => decode::<api::rbac::v1::Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => decode::<api::rbac::v1::RoleBinding>,
        ("scheduling.k8s.io/v1", "PriorityClass") => decode::<api::scheduling::v1::PriorityClass>,
        ("storage.k8s.io/v1", "CSIDriver") => decode::<api::storage::v1::CSIDriver>,
        ("storage.k8s.io/v1", "StorageClass") => decode::<api::storage::v1::StorageClass>,
        _ => return None,
    })
}

/// Into the type and back: what is lost was unknown, what is new had to be there.
fn decode<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, Mistake> {
    let typed: T = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().iter().map(|segment| segment.to_string().trim_matches(['[', ']']).to_owned()).collect();
        Mistake { path, what: error.into_inner().to_string(), is_key: false }
    })?;
    serde_json::to_value(typed).map_err(|error| Mistake { path: Vec::new(), what: error.to_string(), is_key: false })
}
