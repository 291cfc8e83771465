//! What the checkout tells of the plan: the files of each phase, and what they have to say.

use super::{Ask, Draft, Subject, slug, words};
use crate::checks::databases::{backed_up_names, clusters, databases};
use crate::model::name::ContainerName;
use crate::model::names::{services, tailscale_host};
use crate::model::needs;
use crate::model::parity::path_of;
use crate::model::plan::{How, Phase, State};
use crate::model::tag::ImageTag;
use crate::model::world::{App, Object, Ref};
use crate::probes::hosts;

fn person(what: impl Into<String>) -> How {
    How::Person(what.into())
}

/// Phase 0: the chart is compared, and every difference accepted with a reason.
pub(super) fn analysis(subject: &Subject<'_>) -> Vec<Draft> {
    let (name, file) = (subject.name, path_of(subject.name));
    if !subject.promise.chart && !subject.has(&file) {
        return Vec::new();
    }
    let what = format!("what differs from the chart is written down in {file}");
    let how = person(format!("write {file}: the chart, its values, each difference with its reason"));
    let chart = Draft::here(Phase::Analysis, ("chart", what), subject.file(&file), how);
    let how = person(format!("cargo xtask parity {name} shows each difference: change the manifest, or accept it"));
    let what = "no difference from the chart is unaccounted for".to_owned();
    let parity = Draft::asked(Phase::Analysis, ("parity", what), vec![Ask::Chart], how);
    vec![chart, parity.after(&["chart", "application"])]
}

/// Phase 1: mirrors, the role and the database in the manifests, the backup.
pub(super) fn prerequisites(subject: &Subject<'_>) -> Vec<Draft> {
    let mut drafts = database(subject);
    drafts.extend(items(subject));
    drafts
}

/// The name of the role and the database, from the promise or the service's own settings.
pub(super) fn database_of(subject: &Subject<'_>) -> Option<String> {
    let own = || Some(subject.service.as_ref()?.database.as_ref()?.login.database.clone());
    subject.promise.database.clone().or_else(own)
}

fn database(subject: &Subject<'_>) -> Vec<Draft> {
    let Some(name) = database_of(subject) else { return Vec::new() };
    let login =
        subject.service.as_ref().and_then(|service| service.database.as_ref()).map(|own| own.login.user.clone());
    let user = login.unwrap_or_else(|| name.clone());
    let found = clusters(subject.world).find_map(|(app, cluster)| Some((app, cluster, role_of(cluster, &user)?)));
    let role = match found {
        None => State::ToDo(format!("no Cluster manages a role {user}")),
        Some((app, cluster, role)) => match role.text_at(&["passwordSecret", "name"]) {
            None => State::ToDo(format!("the role {user} of {} has no password Secret", cluster.name)),
            Some(secret) if makes(subject, app, cluster, secret) => {
                State::Done(format!("{} manages {user}, with Secret {secret}", cluster.name))
            }
            Some(secret) => State::ToDo(format!("nothing makes Secret {secret}, the password of {user}")),
        },
    };
    let made = databases(subject.world)
        .find(|(_, object)| object.at(&["spec", "name"]).and_then(Ref::text) == Some(name.as_str()));
    let database = match made.and_then(|(_, object)| object.at(&["spec", "owner"])?.text()) {
        Some(owner) if owner == user => State::Done(format!("a Database {name} of {owner}")),
        Some(owner) => State::ToDo(format!("the Database {name} is {owner}'s, not {user}'s")),
        None => State::ToDo(format!("no manifest makes a database {name}")),
    };
    let unrendered = |state: State| if clusters(subject.world).next().is_some() { state } else { no_cluster(subject) };
    let backup = match backed_up_names(subject.world) {
        Some(names) if names.iter().any(|known| *known == name || known == "all") => {
            State::Done(format!("borgmatic backs up {name}"))
        }
        Some(_) => State::ToDo(format!("borgmatic_postgresql_databases does not name {name}")),
        None => State::ToDo("no role has borgmatic_postgresql_databases".to_owned()),
    };
    let phase = Phase::Prerequisites;
    let role_how = person(format!("add the role {user} to the Cluster's managed roles, and an ExternalSecret for it"));
    let role_what = format!("the role {user} is in the manifests, with a password");
    let database_how = person(format!("write a Database {name} owned by {user} beside the Cluster"));
    vec![
        Draft::here(phase, ("role", role_what), unrendered(role), role_how),
        Draft::here(phase, ("database", format!("so is the database {name}")), unrendered(database), database_how),
        Draft::here(
            phase,
            ("backup", format!("the database {name} is backed up")),
            backup,
            person(format!("add {name} to borgmatic_postgresql_databases")),
        ),
    ]
}

fn no_cluster(subject: &Subject<'_>) -> State {
    match subject.world.findings.first() {
        Some(finding) => State::Unknown(finding.message.clone()),
        None => State::ToDo("no manifest makes a PostgreSQL Cluster".to_owned()),
    }
}

fn role_of<'a>(cluster: &'a Object, name: &str) -> Option<Ref<'a>> {
    let roles = cluster.at(&["spec", "managed", "roles"]).map_or_else(Vec::new, Ref::items);
    roles.into_iter().find(|role| role.text_at(&["name"]) == Some(name))
}

fn makes(subject: &Subject<'_>, app: &App, cluster: &Object, secret: &str) -> bool {
    subject.world.beside(app, cluster, "ExternalSecret").any(|object| object.secret_name() == secret)
}

/// One step for each item of the vault that the service's Secrets are made of.
fn items(subject: &Subject<'_>) -> Vec<Draft> {
    let all = needs::of(subject.world);
    let own = all.iter().filter(|need| need.app.as_deref() == Some(subject.name));
    let mut titles: Vec<(&str, &str)> = own.map(|need| (need.vault.as_str(), need.item.as_str())).collect();
    titles.sort_unstable();
    titles.dedup();
    let item = |(vault, title): (&str, &str)| {
        // What the databases read of the same item belongs to it as well.
        let mut fields: Vec<_> =
            all.iter().filter(|need| (need.vault.as_str(), need.item.as_str()) == (vault, title)).cloned().collect();
        fields.dedup_by(|a, b| a.field == b.field);
        let names: Vec<&str> = fields.iter().filter_map(|need| need.field.as_deref()).collect();
        let names = names.join(", ");
        let how = person(format!("make item \"{title}\" in vault {vault} of 1Password, with the fields {names}"));
        let what = format!("item \"{title}\" is in 1Password: {names}");
        let id = format!("item-{}", slug(title));
        Draft::asked(Phase::Prerequisites, (&id, what), vec![Ask::Item(fields)], how)
    };
    titles.into_iter().map(item).collect()
}

/// Phase 2: each image has an expression, a tag, is in the registry, and is pinned.
pub(super) fn containers(subject: &Subject<'_>) -> Vec<Draft> {
    subject.containers.iter().flat_map(|name| container(subject, name)).collect()
}

fn container(subject: &Subject<'_>, name: &ContainerName) -> Vec<Draft> {
    let phase = Phase::Containers;
    let repo = &subject.world.repo;
    let expression = format!("containers/{name}/default.nix");
    let has_dockerfile = repo.containers.iter().any(|container| &container.name == name);
    let image = repo.home().map(|home| home.image(name)).unwrap_or_default();
    let users = repo.users(&image);
    let pins: Vec<(&str, Option<&str>)> =
        users.entries.iter().filter_map(|(_, entry)| Some((entry.tag()?, entry.digest()))).collect();
    let pinned = match (users.entries.as_slice(), users.unpinned.first()) {
        (_, Some(used)) => State::ToDo(format!("{} names it with no kustomization to pin it", used.place)),
        ([], None) => State::ToDo(format!("no kustomization has an entry for {image}")),
        (entries, None) if pins.len() < entries.len() => State::ToDo("it is not pinned".to_owned()),
        _ if pins.windows(2).any(|pair| pair[0] != pair[1]) => State::ToDo("its users pin different images".to_owned()),
        _ if pins.iter().any(|(_, digest)| digest.is_none()) => State::ToDo("it is pinned without a digest".to_owned()),
        _ => State::Done(format!("{} with its digest", pins.first().map_or("", |(tag, _)| tag))),
    };
    let version = pins.iter().find_map(|(tag, _)| tag.parse::<ImageTag>().ok()).map(|tag| tag.version);
    let release = || How::Run(words(&["release", name.as_str(), "--commit"]));
    let id = |what: &str| format!("{what}-{name}");
    let state = if has_dockerfile { State::Done(format!("containers/{name}/")) } else { subject.file(&expression) };
    vec![
        Draft::here(
            phase,
            (&id("expression"), format!("{expression} says how {name} is built")),
            state,
            person(format!("write {expression}")),
        ),
        Draft::asked(
            phase,
            (&id("tag"), format!("a release of {name} is tagged")),
            vec![Ask::Tag(name.clone(), version)],
            release(),
        )
        .after(&[&id("expression")]),
        Draft::asked(
            phase,
            (&id("image"), format!("its image {name} is in the registry")),
            vec![Ask::Image(name.clone())],
            release(),
        )
        .after(&[&id("tag")]),
        Draft::here(phase, (&id("pin"), format!("every user of {name} pins it")), pinned, release())
            .after(&[&id("image"), "application"]),
    ]
}

/// Phase 3: the Application and what it deploys.
pub(super) fn manifests(subject: &Subject<'_>) -> Vec<Draft> {
    let name = subject.name;
    let state = match subject.rendered() {
        Ok(app) => {
            let count = app.objects.iter().filter(|object| object.pod_template().is_some()).count();
            match count {
                0 => State::ToDo(format!("{name} deploys nothing that runs")),
                _ => State::Done(format!("{}, on {}; workloads: {count}", app.file.path, app.cluster)),
            }
        }
        Err(state) => state,
    };
    let how = person(format!("write argocd/apps/{name}.yaml and the manifests that it deploys"));
    let what = "an Application deploys it from manifests".to_owned();
    vec![Draft::here(Phase::Manifests, ("application", what), state, how)]
}

/// Phase 4: a name in the tailnet, and one under the domain.
pub(super) fn networking(subject: &Subject<'_>) -> Vec<Draft> {
    let host = ingress_host(subject);
    if !subject.promise.published && host.is_none() {
        return Vec::new();
    }
    let ingress = match (&host, subject.rendered()) {
        (Some(host), _) => State::Done(format!("an Ingress publishes {host}")),
        (None, Err(state)) => state,
        (None, Ok(_)) => State::ToDo("no Ingress of class tailscale is in its manifests".to_owned()),
    };
    let wanted = host.as_deref().unwrap_or(subject.name);
    let (caddy, how) = match (hosts::host_of(subject.world, wanted), super::after::caddy_entry(subject, wanted)) {
        (Some(host), _) => (State::Done(format!("{host} leads to {wanted}")), person("")),
        (None, Some(change)) => (State::ToDo(format!("no service of Caddy leads to {wanted}")), How::Change(change)),
        (None, None) => {
            let at = services(subject.world).map_or("caddy_services", |(file, ..)| &file.path);
            let how = person(format!("add {wanted} to {at}"));
            (State::ToDo(format!("no service of Caddy leads to {wanted}")), how)
        }
    };
    let phase = Phase::Networking;
    let write = person(format!("write an Ingress of class tailscale for {wanted}"));
    vec![
        Draft::here(phase, ("ingress", "it is published in the tailnet".to_owned()), ingress, write),
        Draft::here(phase, ("caddy", "Caddy leads to it".to_owned()), caddy, how),
    ]
}

/// Its name in the tailnet.
pub(super) fn ingress_host(subject: &Subject<'_>) -> Option<String> {
    let mut objects = subject.app.into_iter().flat_map(|app| &app.objects);
    objects.find_map(|object| tailscale_host(object)?.text()).map(str::to_owned)
}

/// Phase 5: it is scraped, and there is a dashboard.
pub(super) fn monitoring(subject: &Subject<'_>) -> Vec<Draft> {
    let namespace = subject.app.map_or(subject.name, |app| app.namespace.as_str());
    let jobs = hosts::jobs_of(subject.world, namespace);
    if !subject.promise.monitored && jobs.is_empty() {
        return Vec::new();
    }
    let phase = Phase::Monitoring;
    let scrape = match jobs.first() {
        Some(_) => State::Done(format!("job {}", jobs.join(", "))),
        None => State::ToDo(format!("no job of Prometheus or Alloy has a target in {namespace}")),
    };
    let how = person("add a scrape job where its Services resolve");
    let mut drafts = vec![Draft::here(phase, ("scrape", "its metrics are scraped".to_owned()), scrape, how)];
    if subject.promise.monitored {
        let name = subject.name;
        let is_board = |object: &Object| {
            let label = object.at(&["metadata", "labels", "grafana_dashboard"]).and_then(Ref::text);
            object.kind == "ConfigMap" && label.is_some() && object.name.contains(name)
        };
        let board = subject.world.objects().find(|(_, object)| is_board(object));
        let state = board.map_or_else(
            || State::ToDo(format!("no ConfigMap labelled grafana_dashboard is called after {name}")),
            |(_, object)| State::Done(format!("ConfigMap {}", object.name)),
        );
        let how = person(format!("write a ConfigMap with a dashboard, called after {name}"));
        drafts.push(Draft::here(phase, ("dashboard", "Grafana has a dashboard of it".to_owned()), state, how));
    }
    drafts
}

/// Phase 6: card, index, changelog, and the pages that have to speak of it.
pub(super) fn documentation(subject: &Subject<'_>) -> Vec<Draft> {
    let name = subject.name;
    let folder = "docs/reference/services";
    let card = format!("{folder}/{name}.md");
    let phase = Phase::Documentation;
    let here = |id: &str, what: String, state: State, how: String| Draft::here(phase, (id, what), state, person(how));
    let mut drafts = vec![here("card", "it has a card".to_owned(), subject.file(&card), format!("write {card}"))];
    let mut pages = vec![format!("{folder}/services.md")];
    pages.extend(subject.promise.pages.clone());
    for page in pages {
        let file = subject.world.repo.files.iter().find(|file| *file.path == page);
        let speaks = file.is_some_and(|file| file.text.contains(&format!("[[{name}]]")));
        let state = match (file, speaks) {
            (_, true) => State::Done(format!("{page} links to it")),
            (Some(_), false) => State::ToDo(format!("{page} has no [[{name}]]")),
            (None, false) => State::ToDo(format!("there is no {page}")),
        };
        let stem = page.rsplit('/').next().unwrap_or_default().trim_end_matches(".md");
        let how = format!("speak of [[{name}]] in {page}");
        drafts.push(here(&format!("page-{}", slug(stem)), format!("{stem} speaks of it"), state, how));
    }
    let told = subject.world.repo.files.iter().find(|file| {
        let is_change = file.path.starts_with("docs/changelog.d/") || file.path.eq_ignore_ascii_case("changelog.md");
        let about = file.path.contains(name) || file.text.to_lowercase().contains(&name.to_lowercase());
        is_change && about
    });
    let state = match told {
        Some(file) => State::Done(file.path.to_string()),
        None => State::ToDo(format!("no fragment of docs/changelog.d speaks of {name}")),
    };
    let how = format!("write docs/changelog.d/deploy-{name}.feature.md");
    drafts.push(here("changelog", "the changelog tells of it".to_owned(), state, how));
    drafts
}
