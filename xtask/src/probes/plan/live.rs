//! What only the forge, the vault, the registry, the clusters and the hosts can tell of the plan.

use std::collections::BTreeSet;

use super::files::{database_of, ingress_host};
use super::{Ask, Draft, Holds, Subject, words};
use crate::checks::hosts::plays;
use crate::model::name::ContainerName;
use crate::model::names::services;
use crate::model::order;
use crate::model::plan::{How, Phase, State};
use crate::model::upstream;
use crate::model::world::App;
use crate::model::yaml::Node;
use crate::probes::{Check, Checked, Kind, Outlook, Question, Verdict, Want, expect, hosts, web};

/// Adds the steps that follow from `drafts`, which tell of the files.
pub(super) fn extend(subject: &Subject<'_>, drafts: &mut Vec<Draft>) {
    drafts.extend(mirrors(subject));
    let items: Vec<String> = drafts.iter().map(|draft| draft.id.clone()).filter(|id| id.starts_with("item-")).collect();
    let pins: Vec<String> = drafts.iter().map(|draft| draft.id.clone()).filter(|id| id.starts_with("pin-")).collect();
    drafts.push(merged(subject, &pins));
    let checks = expect::all(subject.world).checks;
    let deploy = || How::Accept(words(&["deploy", subject.name, "--main"]));
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    let phase = Phase::Manifests;
    let push = |drafts: &mut Vec<Draft>, phase, (id, what): (&str, &str), asks: Vec<Ask>, how: How| {
        drafts.push(Draft::asked(phase, (id, what.to_owned()), asks, how));
    };
    if let Some(name) = database_of(subject) {
        let what = format!("the database {name} and its role are there");
        push(drafts, phase, ("database-there", &what), well(&checks, |check| is_database(subject, check)), deploy());
        need(drafts, &[&["role", "database", "merged"][..], &items].concat());
        narrow(subject, drafts, &name);
    }
    let own = |check: &Check| is_own(subject, check);
    let kind = |wanted: Kind| move |check: &Check| matches!(&check.question, Question::Object { want, .. } if want.kind() == wanted);
    push(
        drafts,
        phase,
        ("synced", "ArgoCD has it in sync, on main"),
        well(&checks, |check| {
            kind(Kind::Application)(check) && check.name.ends_with(&format!("/application/{}", subject.name))
        }),
        deploy(),
    );
    need(drafts, &["application", "merged", "database-there"]);
    if subject.app.is_some_and(|app| app.objects.iter().any(|object| object.kind == "ExternalSecret")) {
        let secrets = well(&checks, |check| own(check) && kind(Kind::ExternalSecret)(check));
        push(drafts, phase, ("secrets", "its Secrets have been fetched"), secrets, deploy());
        need(drafts, &[&["synced"][..], &items].concat());
    }
    let pods = well(&checks, |check| {
        own(check) && matches!(&check.question, Question::Object { want, .. } if want.has_pods())
    });
    push(drafts, phase, ("pods", "its pods are ready"), pods, deploy());
    need(drafts, &["synced", "secrets"]);
    network(subject, drafts, &checks);
    if drafts.iter().any(|draft| draft.id == "scrape") {
        let namespace = subject.app.map_or(subject.name, |app| app.namespace.as_str());
        let jobs = hosts::jobs_of(subject.world, namespace);
        let scraped =
            well(&checks, |check| matches!(&check.question, Question::Scrape { job, .. } if jobs.contains(job)));
        let how = collector(subject).map_or_else(deploy, |app| How::Accept(words(&["deploy", app, "--main"])));
        push(drafts, Phase::Monitoring, ("scraped", "Prometheus has its metrics"), scraped, how);
        need(drafts, &["scrape", "pods"]);
    }
    let how = How::Person(format!("cargo xtask verify {}: see which point fails, and why", subject.name));
    push(
        drafts,
        Phase::Documentation,
        ("verified", "every point of its verification passes"),
        vec![Ask::Verified],
        how,
    );
    need(drafts, &["pods", "database-there", "in-tailnet", "through-caddy", "scraped"]);
}

/// The last step comes after these.
fn need(drafts: &mut [Draft], needs: &[&str]) {
    if let Some(draft) = drafts.last_mut() {
        *draft = draft.clone().after(needs);
    }
}

fn well(checks: &[Check], is_meant: impl Fn(&Check) -> bool) -> Vec<Ask> {
    checks.iter().filter(|check| is_meant(check)).map(|check| Ask::Well(Box::new(check.clone()))).collect()
}

/// Is it an object of the service itself?
fn is_own(subject: &Subject<'_>, check: &Check) -> bool {
    let inside = |app: &App| check.name.starts_with(&format!("{}/{}/", app.cluster, app.namespace));
    subject.app.is_some_and(|app| inside(app) && check.tags.contains(&app.name))
}

/// Its PostgreSQL cluster, its database, or the door to them.
fn is_database(subject: &Subject<'_>, check: &Check) -> bool {
    let is_kind = match &check.question {
        Question::Object { want: Want::Cluster { .. } | Want::Database, .. } => true,
        Question::Tcp { port, .. } => *port == 5432,
        _ => false,
    };
    is_kind && check.tags.contains(subject.name)
}

/// Of the roles of the PostgreSQL cluster only its own matters here.
fn narrow(subject: &Subject<'_>, drafts: &mut [Draft], name: &str) {
    let login =
        subject.service.as_ref().and_then(|service| service.database.as_ref()).map(|own| own.login.user.clone());
    let user = login.unwrap_or_else(|| name.to_owned());
    let Some(Holds::Asked(asks)) = drafts.last_mut().map(|draft| &mut draft.holds) else { return };
    for ask in asks {
        if let Ask::Well(check) = ask
            && let Question::Object { want: Want::Cluster { roles }, .. } = &mut check.question
        {
            *roles = vec![user.clone()];
        }
    }
}

/// Phase 1: every upstream that its cards name has a mirror.
fn mirrors(subject: &Subject<'_>) -> Vec<Draft> {
    let names: BTreeSet<&str> = subject.containers.iter().map(ContainerName::as_str).chain([subject.name]).collect();
    let is_own = |path: &str| {
        let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".md");
        names.contains(stem)
    };
    let upstreams =
        upstream::all(&subject.world.repo).into_iter().filter(|upstream| is_own(&upstream.place.source.path));
    let one = |upstream: upstream::Upstream| {
        let how = How::Person("mirror it on the forge: cargo xtask mirrors check prints the command".to_owned());
        let what = format!("{} is mirrored", upstream.url);
        let id = format!("mirror-{}", super::slug(&upstream.name));
        Draft::asked(Phase::Prerequisites, (&id, what), vec![Ask::Mirror(upstream.url)], how)
    };
    upstreams.map(one).collect()
}

/// Phase 3: main has what is here.
fn merged(subject: &Subject<'_>, pins: &[String]) -> Draft {
    let world = subject.world;
    let mut paths: BTreeSet<String> = subject.containers.iter().map(|name| format!("containers/{name}")).collect();
    let databases = subject.app.map_or_else(Vec::new, |app| order::databases(world, app));
    for app in subject.app.into_iter().chain(databases) {
        paths.insert(app.file.path.to_string());
        let inputs = app.path.as_deref().map(|path| world.repo.inputs(path)).unwrap_or_default();
        paths.extend(inputs.into_iter().map(str::to_owned));
    }
    paths.extend(services(world).map(|(file, ..)| file.path.to_string()));
    let forge = &world.repo.config.forge;
    let how = How::Person(format!("commit, push and merge it: ArgoCD follows {}'s {}", forge.remote, forge.branch));
    let what = format!("{}'s {} has these files as they are here", forge.remote, forge.branch);
    let asks = vec![Ask::Merged(paths.into_iter().collect())];
    let draft = Draft::asked(Phase::Manifests, ("merged", what), asks, how);
    let needs: Vec<&str> = pins.iter().map(String::as_str).collect();
    draft.after(&[&["application", "ingress", "caddy", "role", "database"][..], &needs].concat())
}

/// Phase 4: it answers under both of its names.
fn network(subject: &Subject<'_>, drafts: &mut Vec<Draft>, checks: &[Check]) {
    if !drafts.iter().any(|draft| draft.id == "ingress") {
        return;
    }
    let label = ingress_host(subject);
    let zone = hosts::variable(subject.world, "caddy_tailnet").unwrap_or_default();
    let asked = |host: &str, check: &Check| match &check.question {
        Question::Web { url, .. } => web::host(url) == Some(host),
        Question::Certificate { host: named, .. } => named == host,
        _ => false,
    };
    let tailnet = label.as_ref().map(|label| format!("{label}.{zone}"));
    let is_ingress = |check: &Check| {
        is_own(subject, check) && matches!(&check.question, Question::Object { want: Want::Ingress { .. }, .. })
    };
    let inside = well(checks, |check| is_ingress(check) || tailnet.as_ref().is_some_and(|host| asked(host, check)));
    let how = How::Accept(words(&["deploy", subject.name, "--main"]));
    let what = "it answers in the tailnet".to_owned();
    let draft = Draft::asked(Phase::Networking, ("in-tailnet", what), inside, how);
    drafts.push(draft.after(&["ingress", "pods"]));
    let domain = label.as_deref().and_then(|label| hosts::host_of(subject.world, label));
    let domain = domain.as_deref().and_then(|host| host.split(':').next());
    let outside = well(checks, |check| domain.is_some_and(|host| asked(host, check)));
    let how = match caddy_host(subject) {
        Some(host) => How::Accept(words(&["provision", &host, "--tags", "caddy", "--yes"])),
        None => How::Person("provision the host that runs Caddy".to_owned()),
    };
    let what = "it answers through Caddy".to_owned();
    let draft = Draft::asked(Phase::Networking, ("through-caddy", what), outside, how);
    drafts.push(draft.after(&["caddy", "merged", "in-tailnet"]));
}

/// The host whose playbook has the role that configures Caddy.
fn caddy_host(subject: &Subject<'_>) -> Option<String> {
    let (file, ..) = services(subject.world)?;
    let role = file.path.strip_prefix("ansible/roles/")?.split('/').next()?;
    let named = |item: &Node| item.get("role").or(item.get("name")).unwrap_or(item).text() == Some(role);
    let plays = plays(subject.world);
    let play = plays.iter().find(|(_, play)| play.get("roles").map_or(&[][..], Node::items).iter().any(named))?;
    play.1.get("hosts")?.text().map(str::to_owned)
}

/// The Application whose configuration scrapes it.
fn collector<'a>(subject: &'a Subject<'_>) -> Option<&'a str> {
    let namespace = subject.app?.namespace.as_str();
    let mark = format!(".{namespace}.svc");
    let is_meant = |app: &&App| {
        let inputs = app.path.as_deref().map(|path| subject.world.repo.inputs(path)).unwrap_or_default();
        let mut files = subject.world.repo.files.iter().filter(|file| inputs.contains(&*file.path));
        app.name != subject.name && files.any(|file| file.text.contains(&mark) && file.text.contains("scrape"))
    };
    subject.world.apps.iter().find(is_meant).map(|app| app.name.as_str())
}

/// What a check came to, as the state of what it is about.
pub(crate) fn state(checked: &Checked) -> State {
    let Checked { check, verdict, .. } = checked;
    let told = format!("{}: {}", check.name, verdict.seen());
    match verdict {
        Verdict::Fine(_) => State::Done(told),
        Verdict::Bad(bad) if bad.outlook == Outlook::Unanswered => State::Unknown(told),
        Verdict::Bad(_) => State::ToDo(told),
    }
}
