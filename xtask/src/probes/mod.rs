//! Health: what to ask, and how to judge the answer. Pure; asking is done by the commands.

pub(crate) mod borrowed;
pub(crate) mod certificate;
pub(crate) mod container;
pub(crate) mod expect;
pub(crate) mod flow;
pub(crate) mod hosts;
mod jobs;
pub(crate) mod kube;
pub(crate) mod plan;
pub(crate) mod remote;
pub(crate) mod scrapes;
pub(crate) mod select;
pub(crate) mod verify;
pub(crate) mod web;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::expectation::{Answer, Ask};

/// One expectation, and how it is found out.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// The machine or the place it belongs to, for the overview.
    pub(crate) group: String,
    /// Names that select it: services, hosts, Applications that depend on it.
    pub(crate) tags: BTreeSet<String>,
    pub(crate) question: Question,
    pub(crate) expected: String,
    /// How to see it yourself, ready to paste.
    pub(crate) see: String,
    pub(crate) timeout: Option<Duration>,
    /// Why a failure is lived with.
    pub(crate) waived: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// An object of a cluster, or all nodes of one.
    Object {
        cluster: String,
        namespace: String,
        name: String,
        want: Want,
    },
    Web {
        url: String,
        answer: Answer,
        tailnet: Option<String>,
    },
    Certificate {
        host: String,
        port: u16,
    },
    Tcp {
        host: String,
        port: u16,
    },
    OnHost {
        host: String,
        ask: Ask,
    },
    /// Targets of a job that Prometheus is to reach.
    Scrape {
        url: String,
        job: String,
        targets: Vec<String>,
    },
    /// Of a container that is started to be looked at.
    Container,
    /// It can't be asked, and that is a failure.
    Nobody(String),
}

/// What an object is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Synced, healthy and on this revision.
    Application { revision: String },
    /// All replicas ready, nothing crashing.
    Workload(Kind),
    /// Ended well, or still at it.
    Job {
        /// It is removed once it has ended.
        passes: bool,
    },
    /// Every run that was due was started, and the last one ended well.
    CronJob,
    /// Healthy, with these roles.
    Cluster { roles: Vec<String> },
    /// Applied.
    Database,
    /// Ready.
    ExternalSecret,
    /// Published under this name.
    Ingress { host: String },
    /// Every node ready.
    Nodes,
}

/// A kind of object, one call to each cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Application,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    Pod,
    Cluster,
    Database,
    ExternalSecret,
    Ingress,
    Node,
}

impl Kind {
    /// As kubectl knows it, so that no other API's kind of the same name answers.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Application => "applications.argoproj.io",
            Self::Deployment => "deployments.apps",
            Self::StatefulSet => "statefulsets.apps",
            Self::DaemonSet => "daemonsets.apps",
            Self::Job => "jobs.batch",
            Self::CronJob => "cronjobs.batch",
            Self::Pod => "pods",
            Self::Cluster => "clusters.postgresql.cnpg.io",
            Self::Database => "databases.postgresql.cnpg.io",
            Self::ExternalSecret => "externalsecrets.external-secrets.io",
            Self::Ingress => "ingresses.networking.k8s.io",
            Self::Node => "nodes",
        }
    }
}

impl Kind {
    /// One of them, in a check's name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::Job => "job",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Cluster => "cluster",
            Self::Database => "database",
            Self::ExternalSecret => "externalsecret",
            Self::Ingress => "ingress",
            Self::Node => "node",
        }
    }
}

impl Want {
    /// Are its pods asked for too? They say why.
    pub(crate) fn has_pods(&self) -> bool {
        matches!(self, Self::Workload(_) | Self::Job { .. } | Self::CronJob)
    }

    /// What to ask for to judge it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Application { .. } => Kind::Application,
            Self::Workload(kind) => *kind,
            Self::Job { .. } => Kind::Job,
            Self::CronJob => Kind::CronJob,
            Self::Cluster { .. } => Kind::Cluster,
            Self::Database => Kind::Database,
            Self::ExternalSecret => Kind::ExternalSecret,
            Self::Ingress { .. } => Kind::Ingress,
            Self::Nodes => Kind::Node,
        }
    }
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As expected; what was seen.
    Fine(String),
    Bad(Bad),
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) seen: String,
    pub(crate) outlook: Outlook,
    /// The container whose log says more.
    pub(crate) culprit: Option<Culprit>,
    pub(crate) log: Vec<String>,
}

/// Will waiting help?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    MayPass,
    /// Nobody answered, so what it is like is not known.
    Unanswered,
    Hopeless,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Culprit {
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// Its log is that of the run before: this one has said nothing yet.
    pub(crate) previous: bool,
}

impl Verdict {
    pub(crate) fn bad(seen: impl Into<String>) -> Self {
        Self::Bad(Bad { seen: seen.into(), outlook: Outlook::MayPass, culprit: None, log: Vec::new() })
    }

    /// Nobody answered.
    pub(crate) fn unanswered(why: impl Into<String>) -> Self {
        Self::Bad(Bad { seen: why.into(), outlook: Outlook::Unanswered, culprit: None, log: Vec::new() })
    }

    pub(crate) fn is_fine(&self) -> bool {
        matches!(self, Self::Fine(_))
    }

    pub(crate) fn seen(&self) -> &str {
        match self {
            Self::Fine(seen) | Self::Bad(Bad { seen, .. }) => seen,
        }
    }
}

/// A check with its verdict.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) check: Check,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

impl Checked {
    /// It failed and nobody has said that this is fine.
    pub(crate) fn fails(&self) -> bool {
        !self.verdict.is_fine() && self.check.waived.is_none()
    }
}
