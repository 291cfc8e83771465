//! What Ansible says: the services of Caddy, its ports, the units that roles install; and what Prometheus scrapes.

use std::collections::{BTreeMap, BTreeSet};

use super::expect::{on_host_see, probe_path};
use super::{Check, Question, remote, scrapes, web};
use crate::checks::hosts::plays;
use crate::model::expectation::{Answer, Ask};
use crate::model::inventory::{self, Host};
use crate::model::names::tailscale_host;
use crate::model::names::{expand, services as caddy_services};
use crate::model::world::{Ref, World, is_yaml};
use crate::model::yaml::{self, Node};

fn check(name: String, group: &str, question: Question, expected: String, see: String) -> Check {
    let tags = BTreeSet::from([group.to_owned(), name.rsplit('/').next().unwrap_or(&name).to_owned()]);
    Check { name, group: group.to_owned(), tags, question, expected, see, timeout: None, waived: None }
}

/// A variable of the file that has Caddy's services.
pub(crate) fn variable(world: &World, name: &str) -> Option<String> {
    let (_, document, _) = caddy_services(world)?;
    Some(expand(document.get(name)?.text()?, &document)).filter(|text| !text.is_empty())
}

/// The command that shows an answer to a person.
pub(crate) fn curl(url: &str) -> String {
    format!("curl --silent --show-error --include {}", shell_words::quote(url))
}

/// A check of an address.
pub(crate) fn web_check(name: String, group: &str, url: String, answer: Answer, tailnet: Option<String>) -> Check {
    let (expected, see) = (web::expected(&answer), curl(&url));
    let host = web::host(&url).unwrap_or_default().to_owned();
    let mut check = check(name, group, Question::Web { url, answer, tailnet }, expected, see);
    check.tags.insert(host);
    check
}

/// Name, host and first label of the backend of each service.
fn entries(world: &World) -> Vec<(String, String, String)> {
    let Some((_, document, services)) = caddy_services(world) else { return Vec::new() };
    let text = |service: &Node, key: &str| Some(expand(service.get(key)?.text()?, &document));
    let entry = |service: &Node| {
        let backend = text(service, "backend").unwrap_or_default();
        Some((text(service, "name")?, text(service, "host")?, backend))
    };
    services.iter().filter_map(entry).collect()
}

/// Every service of Caddy, asked through the domain.
pub(crate) fn caddy(world: &World) -> Vec<Check> {
    let port = variable(world, "caddy_https_port").filter(|port| port != "443");
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let tailnet = variable(world, "caddy_tailnet");
    let one = |(name, host, backend): (String, String, String)| {
        let path = path_of(world, &backend).unwrap_or_else(|| "/".to_owned());
        let url = format!("https://{host}{port}{path}");
        let mut check = web_check(format!("caddy/{name}"), "caddy", url, Answer::default(), tailnet.clone());
        check.tags.insert(host.split('.').next().unwrap_or_default().to_owned());
        check
    };
    entries(world).into_iter().map(one).collect()
}

/// The readiness path of what a backend in the tailnet leads to.
fn path_of(world: &World, backend: &str) -> Option<String> {
    let label = web::host(backend)?.split('.').next()?;
    let published = |(_, object): &(&crate::model::world::App, &crate::model::world::Object)| {
        tailscale_host(object).and_then(Ref::text) == Some(label)
    };
    let (app, ingress) = world.objects().find(published)?;
    probe_path(world, app, ingress, "readinessProbe")
}

/// The services of Caddy that lead to one of these names in the tailnet.
pub(crate) fn served(world: &World, ingresses: &[&str]) -> Vec<String> {
    let leads = |(_, _, backend): &(String, String, String)| {
        web::host(backend).and_then(|host| host.split('.').next()).is_some_and(|label| ingresses.contains(&label))
    };
    entries(world).into_iter().filter(leads).map(|(name, ..)| name).collect()
}

/// The host of the service of Caddy that leads to `ingress`.
pub(crate) fn host_of(world: &World, ingress: &str) -> Option<String> {
    let service = served(world, &[ingress]).into_iter().next()?;
    let port = variable(world, "caddy_https_port").filter(|port| port != "443");
    let host = entries(world).into_iter().find(|(name, ..)| *name == service)?.1;
    Some(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
}

/// A port that takes connections.
pub(crate) fn port(host: &str, port: u16) -> Check {
    let question = Question::Tcp { host: host.to_owned(), port };
    let (expected, see) = match port {
        5432 => ("PostgreSQL answers".to_owned(), format!("pg_isready --host={host} --port={port}")),
        _ => ("takes connections".to_owned(), format!("nc -z {host} {port}")),
    };
    let mut check = check(format!("port/{host}:{port}"), "caddy", question, expected, see);
    check.tags.insert(host.to_owned());
    check
}

/// Caddy's plain ports: under the domain's name for the backend, or the name that Applications are fetched from.
pub(crate) fn ports(world: &World) -> Vec<Check> {
    let Some((_, document, _)) = caddy_services(world) else { return Vec::new() };
    let Some(domain) = variable(world, "caddy_domain") else { return Vec::new() };
    let urls: BTreeSet<&str> = world.repo.applications.iter().map(|app| app.url.as_str()).collect();
    let one = |entry: &Node| {
        let number: u16 = entry.get("port")?.text()?.parse().ok()?;
        let backend = expand(entry.get("backend")?.text()?, &document);
        let label = backend.split([':', '.']).next().filter(|label| *label != "localhost");
        let fetched = || urls.iter().filter_map(|url| web::host(url).filter(|_| url.contains(&format!(":{number}/"))));
        let host = label.map(|label| format!("{label}.{domain}"));
        let host = host.or_else(|| fetched().next().map(|host| host.rsplit('@').next().unwrap_or(host).to_owned()))?;
        Some(port(&host, number))
    };
    document.get("caddy_layer4").map_or(&[][..], Node::items).iter().filter_map(one).collect()
}

/// Something asked of a host.
pub(crate) fn on_host(host: &Host, ask: Ask) -> Check {
    let (kind, object) = match &ask {
        Ask::Answers => ("ssh", String::new()),
        Ask::Launchd { label, .. } => ("launchd", label.clone()),
        Ask::Systemd { unit } => ("systemd", unit.clone()),
        Ask::Brew { service } => ("brew", service.clone()),
        Ask::File { path, .. } => ("file", path.rsplit('/').next().unwrap_or(path).to_owned()),
        Ask::Tailscale => ("tailscale", String::new()),
    };
    let name = format!("{}/{kind}/{object}", host.name);
    let (expected, see) = (remote::expected(&ask), on_host_see(host, &ask));
    let question = Question::OnHost { host: host.name.clone(), ask };
    check(name.trim_end_matches('/').to_owned(), &host.name, question, expected, see)
}

/// Hosts that playbooks provision, and the units that the roles of these name.
pub(crate) fn services(world: &World) -> Vec<Check> {
    let mut checks = Vec::new();
    let plays = plays(world);
    for host in inventory::hosts(&world.repo.files) {
        let names = |play: &&(&crate::model::source::Source, Node)| {
            let hosts = play.1.get("hosts").and_then(Node::text).unwrap_or_default();
            hosts.split([',', ':']).any(|name| [host.name.as_str(), "all"].contains(&name.trim()))
        };
        let own: Vec<_> = plays.iter().filter(names).collect();
        if own.is_empty() {
            continue;
        }
        checks.push(on_host(&host, Ask::Answers));
        let roles = own.iter().flat_map(|(_, play)| play.get("roles").map_or(&[][..], Node::items));
        let roles = roles.filter_map(|role| role.get("role").or(role.get("name")).unwrap_or(role).text());
        for role in roles.collect::<BTreeSet<&str>>() {
            for ask in units(world, role) {
                let mut check = on_host(&host, ask);
                check.tags.insert(role.to_owned());
                checks.push(check);
            }
        }
    }
    checks
}

/// What a role starts: agents that it hands to launchctl, units that it hands to a module.
fn units(world: &World, role: &str) -> Vec<Ask> {
    let folder = format!("ansible/roles/{role}/");
    let mut found = BTreeMap::new();
    let files = world.repo.files.iter().filter(|file| file.path.starts_with(&folder) && is_yaml(&file.path));
    for document in files.flat_map(|file| yaml::parse(file).unwrap_or_default()) {
        let mut visit = |key: &Node, value: &Node| {
            let words: Vec<&str> = value.items().iter().filter_map(Node::text).collect();
            if words.first().is_some_and(|first| first.ends_with("launchctl")) {
                let label = words.iter().find(|word| word.starts_with("gui/")).and_then(|word| word.rsplit('/').next());
                let label = label.filter(|label| !label.contains(['{', '}']) && !label.is_empty());
                found.extend(
                    label.map(|label| (label.to_owned(), Ask::Launchd { label: label.to_owned(), scheduled: false })),
                );
            }
            let module = key.text().and_then(|key| key.rsplit('.').next()).unwrap_or_default();
            let name = value.get("name").and_then(Node::text).filter(|name| !name.contains('{'));
            if let (Some(name), "systemd" | "systemd_service" | "service") = (name, module) {
                found.insert(name.to_owned(), Ask::Systemd { unit: name.to_owned() });
            }
            if let (Some(name), "launchd") = (name, module) {
                found.insert(name.to_owned(), Ask::Launchd { label: name.to_owned(), scheduled: false });
            }
        };
        document.walk(&mut visit);
        for task in document.items() {
            task.walk(&mut visit);
        }
    }
    found.into_values().collect()
}

/// Where Prometheus is asked: at its service of Caddy.
pub(crate) fn prometheus(world: &World) -> Option<String> {
    let host = entries(world).into_iter().find(|(name, ..)| name == "prometheus")?.1;
    let port = variable(world, "caddy_https_port").filter(|port| port != "443");
    Some(format!("https://{host}{}", port.map_or_else(String::new, |port| format!(":{port}"))))
}

/// Every job that is configured.
pub(crate) fn scrapes(world: &World) -> Vec<Check> {
    let jobs = scrapes::jobs(world);
    let Some(base) = prometheus(world) else { return Vec::new() };
    let one = |(job, targets): (String, Vec<String>)| {
        let url = format!("{base}/api/v1/query?query=up");
        let see = format!(
            "{} --data-urlencode {}",
            curl(&format!("{base}/api/v1/query")),
            shell_words::quote(&format!("query=up{{job=\"{job}\"}}"))
        );
        let expected = format!("up, {} targets", targets.len().max(1));
        check(format!("scrape/{job}"), "prometheus", Question::Scrape { url, job, targets }, expected, see)
    };
    jobs.into_iter().map(one).collect()
}

/// The jobs with a target in a namespace.
pub(crate) fn jobs_of(world: &World, namespace: &str) -> Vec<String> {
    let inside =
        |target: &String| target.contains(&format!(".{namespace}.svc")) || target.contains(&format!(".{namespace}:"));
    let jobs = scrapes::jobs(world).into_iter();
    jobs.filter(|(_, targets)| targets.iter().any(inside)).map(|(job, _)| job).collect()
}

/// What the check of the certificate at an address is called.
pub(crate) fn certificate_name((host, port): (&str, u16)) -> String {
    if port == 443 { format!("tls/{host}") } else { format!("tls/{host}:{port}") }
}

/// One check of the certificate of each host that is asked over TLS.
pub(crate) fn certificates(checks: &[Check]) -> Vec<Check> {
    let mut addresses = BTreeMap::new();
    for check in checks {
        if let Question::Web { url, .. } = &check.question
            && let Some((host, port)) = web::secure_address(url)
        {
            addresses.entry((host.to_owned(), port)).or_insert_with(|| check.group.clone());
        }
    }
    let one = |((host, port), group): ((String, u16), String)| {
        let see = format!("openssl s_client -connect {host}:{port} -servername {host} -verify_return_error");
        let expected = "a certificate of a trusted authority, for this name, for 10 days or more".to_owned();
        let mut check = check(
            certificate_name((&host, port)),
            &group,
            Question::Certificate { host: host.clone(), port },
            expected,
            see,
        );
        check.tags.insert(host);
        check
    };
    addresses.into_iter().map(one).collect()
}
