//! What a deployment promises before anything of it is there: `[plans.SERVICE]` of the configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What is to become true of a service, as far as files that may not be there yet would say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Promise {
    /// The page that shows how far it is.
    pub(crate) page: Option<String>,
    /// The containers whose images it runs.
    pub(crate) containers: Vec<String>,
    /// Its database and the role that owns it, which share a name.
    pub(crate) database: Option<String>,
    /// It is compared with its upstream chart.
    pub(crate) chart: bool,
    /// It has a name in the tailnet and, through Caddy, under the domain.
    pub(crate) published: bool,
    /// Prometheus has its metrics, and Grafana a dashboard.
    pub(crate) monitored: bool,
    /// Pages beside its card that have to speak of it.
    pub(crate) pages: Vec<String>,
    /// The service that goes once this one has taken over.
    pub(crate) replaces: Option<String>,
}

/// By service.
pub(crate) type Promises = BTreeMap<String, Promise>;
