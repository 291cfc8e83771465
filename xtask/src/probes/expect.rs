//! What is expected to be well, derived from the repository.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Kind, Question, Want, hosts, remote, web};
use crate::checks::databases::{clusters, is_cnpg, is_ours, settings};
use crate::model::config::KubeContext;
use crate::model::expectation::{Expectation, Subject};
use crate::model::finding::Finding;
use crate::model::inventory::{self, Host};
use crate::model::names::tailscale_host;
use crate::model::world::{App, Object, Ref, World};
use crate::model::yaml::Node;

/// The checks, and what is wrong with the configuration of them.
#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) checks: Vec<Check>,
    pub(crate) findings: Vec<Finding>,
}

/// Everything that is expected.
pub(crate) fn all(world: &World) -> Expected {
    let mut expected = Expected::default();
    for app in &world.apps {
        expected.checks.extend(of_app(world, app));
    }
    expected.checks.extend(nodes(world));
    expected.checks.extend(hosts::caddy(world));
    expected.checks.extend(hosts::ports(world));
    expected.checks.extend(hosts::services(world));
    expected.checks.extend(hosts::scrapes(world));
    for extra in &world.repo.config.checks {
        add(world, &mut expected, extra);
    }
    expected.checks.extend(hosts::certificates(&expected.checks));
    depend(world, &mut expected.checks);
    waive(world, &mut expected);
    expected.checks.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    expected.checks.dedup_by(|a, b| a.name == b.name);
    expected
}

/// What kubectl calls a cluster that the configuration knows.
///
/// # Errors
/// Why it can't be asked.
pub(crate) fn context<'a>(world: &'a World, cluster: &str) -> Result<&'a KubeContext, String> {
    let known = world.repo.config.clusters.iter().find(|known| known.name == cluster);
    let known = known.ok_or_else(|| format!("xtask/blumeops.toml knows no cluster {cluster}"))?;
    known.context()
}

/// The cluster that ArgoCD runs in.
pub(crate) fn argocd(world: &World) -> String {
    let home = world.repo.config.clusters.iter().find(|cluster| cluster.server == "https://kubernetes.default.svc");
    home.map_or_else(|| "https://kubernetes.default.svc".to_owned(), |cluster| cluster.name.clone())
}

fn tags<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A check of one object; one that can't be asked says why.
fn object(world: &World, cluster: &str, (namespace, name): (&str, &str), want: Want) -> Check {
    let (resource, kind) = (want.kind().resource(), want.kind().word());
    let expected = match &want {
        Want::Application { revision } => format!("Synced, Healthy, on {revision}"),
        Want::Workload(_) => "all replicas ready, nothing crashing".to_owned(),
        Want::Job { .. } => "ended well, or running".to_owned(),
        Want::CronJob => "the last run ended well, and none is overdue".to_owned(),
        Want::Cluster { .. } => "healthy, every role reconciled".to_owned(),
        Want::Database => "applied".to_owned(),
        Want::ExternalSecret => "ready".to_owned(),
        Want::Ingress { host } => format!("published as {host}"),
        Want::Nodes => "every node ready".to_owned(),
    };
    let (see, question) = match context(world, cluster) {
        Ok(context) => (
            format!("kubectl --context={context} --namespace={namespace} describe {resource} {name}"),
            Question::Object {
                cluster: cluster.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                want,
            },
        ),
        Err(why) => ("cargo xtask check".to_owned(), Question::Nobody(why)),
    };
    Check {
        name: format!("{cluster}/{namespace}/{kind}/{name}"),
        group: cluster.to_owned(),
        tags: tags([name, namespace, cluster]),
        question,
        expected,
        see,
        timeout: None,
        waived: None,
    }
}

fn of_app(world: &World, app: &App) -> Vec<Check> {
    let source = |key: &str| app.node.path(&["spec", "source", key]).and_then(Node::text);
    let revision = source("targetRevision").unwrap_or(&world.repo.config.forge.branch).to_owned();
    let namespace = app.node.path(&["metadata", "namespace"]).and_then(Node::text).unwrap_or("argocd");
    let home = argocd(world);
    let mut checks = vec![object(world, &home, (namespace, &app.name), Want::Application { revision })];
    for object_ in &app.objects {
        let want = match object_.kind.as_str() {
            "Deployment" => Want::Workload(Kind::Deployment),
            "StatefulSet" => Want::Workload(Kind::StatefulSet),
            "DaemonSet" => Want::Workload(Kind::DaemonSet),
            "Job" => Want::Job { passes: passes(object_) },
            "CronJob" if object_.at(&["spec", "suspend"]).and_then(Ref::text) == Some("true") => continue,
            "CronJob" => Want::CronJob,
            "ExternalSecret" => Want::ExternalSecret,
            "Cluster" if is_cnpg(object_, "Cluster") => Want::Cluster { roles: roles(object_) },
            "Database" if is_cnpg(object_, "Database") => Want::Database,
            "Ingress" => match tailscale_host(object_).and_then(Ref::text) {
                Some(host) => Want::Ingress { host: host.to_owned() },
                None => continue,
            },
            _ => continue,
        };
        if object_.at(&["spec", "replicas"]).and_then(Ref::text) == Some("0") {
            continue;
        }
        checks.push(object(world, &app.cluster, (&object_.namespace, &object_.name), want));
        checks.extend(published(world, app, object_));
    }
    for check in &mut checks {
        check.tags.insert(app.name.clone());
        check.tags.insert(app.namespace.clone());
    }
    checks
}

/// Is a Job removed once it has ended: after a time, or by ArgoCD, whose hook it is?
fn passes(job: &Object) -> bool {
    let is_hook = |key| job.at(&["metadata", "annotations", key]).is_some();
    job.at(&["spec", "ttlSecondsAfterFinished"]).is_some()
        || ["argocd.argoproj.io/hook", "helm.sh/hook"].into_iter().any(is_hook)
}

/// The roles that a Cluster is to manage.
fn roles(cluster: &Object) -> Vec<String> {
    let roles = cluster.at(&["spec", "managed", "roles"]).map_or_else(Vec::new, Ref::items);
    let present = |role: &Ref<'_>| role.text_at(&["ensure"]) != Some("absent");
    roles.into_iter().filter(present).filter_map(|role| Some(role.text_at(&["name"])?.to_owned())).collect()
}

/// An Ingress is asked under its own name too, where the tailnet's zone is known.
fn published(world: &World, app: &App, ingress: &Object) -> Option<Check> {
    let host = tailscale_host(ingress)?.text()?;
    let zone = hosts::variable(world, "caddy_tailnet")?;
    let path = probe_path(world, app, ingress, "readinessProbe").unwrap_or_else(|| "/".to_owned());
    let url = format!("https://{host}.{zone}{path}");
    Some(hosts::web_check(
        format!("tailnet/{host}"),
        "tailnet",
        url,
        crate::model::expectation::Answer::default(),
        None,
    ))
}

/// The path that tells whether what is behind an Ingress is well.
pub(crate) fn probe_path(world: &World, app: &App, ingress: &Object, probe: &str) -> Option<String> {
    let workload = behind(world, app, ingress)?;
    let containers = workload.containers();
    let path = containers.iter().find_map(|container| container.text_at(&[probe, "httpGet", "path"]));
    path.filter(|path| path.starts_with('/')).map(str::to_owned)
}

/// The workload that an Ingress leads to.
pub(crate) fn behind<'a>(world: &'a World, app: &'a App, ingress: &'a Object) -> Option<&'a Object> {
    let default = ingress.at(&["spec", "defaultBackend", "service", "name"]).and_then(Ref::text);
    let rule = || {
        let path = *ingress.at(&["spec", "rules"])?.items().first()?.at(&["http", "paths"])?.items().first()?;
        path.text_at(&["backend", "service", "name"])
    };
    let name = default.or_else(rule)?;
    let service = world.beside(app, ingress, "Service").find(|service| service.name == name)?;
    let selector: BTreeMap<&str, Option<&str>> = labels(service.at(&["spec", "selector"]));
    app.objects.iter().find(|workload| {
        let own = labels(workload.pod_template().and_then(|pod| pod.at(&["metadata", "labels"])));
        workload.namespace == ingress.namespace
            && !selector.is_empty()
            && selector.iter().all(|(key, value)| own.get(key) == Some(value))
    })
}

fn labels(value: Option<Ref<'_>>) -> BTreeMap<&str, Option<&str>> {
    value.map_or_else(Vec::new, Ref::entries).into_iter().map(|(key, value)| (key, value.text())).collect()
}

/// One check for each cluster that something runs on.
fn nodes(world: &World) -> Vec<Check> {
    let used: BTreeSet<&str> = world.apps.iter().map(|app| app.cluster.as_str()).collect();
    let one = |cluster: &str| {
        let mut check = object(world, cluster, ("", ""), Want::Nodes);
        check.name = format!("{cluster}/nodes");
        if let Ok(context) = context(world, cluster) {
            check.see = format!("kubectl --context={context} get nodes");
        }
        check
    };
    used.into_iter().map(one).collect()
}

/// What the configuration adds.
fn add(world: &World, expected: &mut Expected, extra: &Expectation) {
    let Expectation { name, subject, timeout, place } = extra;
    let mut check = match subject {
        Subject::Web { url, answer } => hosts::web_check(name.clone(), "public", url.clone(), answer.clone(), None),
        Subject::Tcp { host, port } => hosts::port(host, *port),
        Subject::OnHost { host, ask } => {
            let known = inventory::hosts(&world.repo.files);
            let Some(host) = known.iter().find(|known| known.name == *host) else {
                let finding =
                    Finding::error("check-host", format!("the inventory has no host {host}")).at(place.clone());
                expected.findings.push(finding.did_you_mean(host, known.iter().map(|known| known.name.as_str())));
                return;
            };
            hosts::on_host(host, ask.clone())
        }
        Subject::Caddy { service, path, answer } => {
            let wanted = format!("caddy/{service}");
            let names: Vec<String> = expected.checks.iter().map(|check| check.name.clone()).collect();
            let Some(check) = expected.checks.iter_mut().find(|check| check.name == wanted) else {
                let finding = Finding::error("check-host", format!("Caddy has no service {service}")).at(place.clone());
                let services = names.iter().filter_map(|name| name.strip_prefix("caddy/"));
                expected.findings.push(finding.did_you_mean(service, services));
                return;
            };
            if let Question::Web { url, answer: known, .. } = &mut check.question {
                let base = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                *url = base + path;
                *known = answer.clone();
                check.see = hosts::curl(url);
                check.expected = web::expected(answer);
            }
            check.tags.insert(name.clone());
            check.timeout = *timeout;
            return;
        }
    };
    check.tags.insert(name.clone());
    check.timeout = *timeout;
    expected.checks.push(check);
}

/// Marks what an Application depends on with its name, so that asking for it asks for that too.
fn depend(world: &World, checks: &mut [Check]) {
    for app in &world.apps {
        let mut on: BTreeSet<String> = BTreeSet::from([format!("{}/nodes", app.cluster)]);
        let databases: BTreeSet<&str> = databases_of(world, app);
        if !databases.is_empty() {
            for (owner, cluster) in clusters(world) {
                on.insert(format!("{}/{}/cluster/{}", owner.cluster, cluster.namespace, cluster.name));
            }
            for (owner, database) in world.objects().filter(|(_, object)| is_cnpg(object, "Database")) {
                if database.at(&["spec", "name"]).and_then(Ref::text).is_some_and(|name| databases.contains(name)) {
                    on.insert(format!("{}/{}/database/{}", owner.cluster, database.namespace, database.name));
                }
            }
            on.extend(checks.iter().filter(|check| check.name.ends_with(":5432")).map(|check| check.name.clone()));
        }
        let ingresses: Vec<&str> = app.objects.iter().filter_map(|object| tailscale_host(object)?.text()).collect();
        on.extend(hosts::served(world, &ingresses).into_iter().map(|service| format!("caddy/{service}")));
        on.extend(hosts::jobs_of(world, &app.namespace).into_iter().map(|job| format!("scrape/{job}")));
        let secure: BTreeSet<String> = checks
            .iter()
            .filter(|check| on.contains(&check.name) || check.tags.contains(&app.name))
            .filter_map(|check| match &check.question {
                Question::Web { url, .. } => web::secure_address(url).map(hosts::certificate_name),
                _ => None,
            })
            .collect();
        for check in checks.iter_mut().filter(|check| on.contains(&check.name) || secure.contains(&check.name)) {
            check.tags.insert(app.name.clone());
        }
    }
}

/// The databases of our clusters that an Application is configured with.
pub(crate) fn databases_of<'a>(world: &'a World, app: &'a App) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for object in &app.objects {
        let settings = settings(object);
        for (name, host) in &settings {
            let Some(prefix) = name.strip_suffix("HOST") else { continue };
            if host.text().is_some_and(|host| is_ours(world, host)) {
                let named = settings
                    .iter()
                    .find(|(key, _)| key.strip_prefix(prefix).is_some_and(|rest| ["NAME", "DATABASE"].contains(&rest)));
                found.extend(named.and_then(|(_, value)| value.text()));
            }
        }
    }
    found
}

fn waive(world: &World, expected: &mut Expected) {
    for waiver in &world.repo.config.waived_checks {
        if let Some(check) = expected.checks.iter_mut().find(|check| check.name == waiver.check) {
            check.waived = Some(waiver.reason.clone());
            continue;
        }
        let finding = Finding::error("check-waiver", format!("there is no check {}", waiver.check));
        let names = expected.checks.iter().map(|check| check.name.as_str());
        expected.findings.push(finding.at(waiver.place.clone()).did_you_mean(&waiver.check, names));
    }
}

/// As a person would start a command there.
pub(crate) fn on_host_see(host: &Host, ask: &crate::model::expectation::Ask) -> String {
    let command = remote::see(ask);
    if host.local {
        command
    } else {
        format!("ssh {} {}", crate::tools::ssh::target(host), shell_words::quote(&command))
    }
}
