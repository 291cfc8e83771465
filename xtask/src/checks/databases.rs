//! Databases: roles, databases, their secrets and their backup belong together.

use super::Rule;
use crate::model::finding::Finding;
use crate::model::source::Source;
use crate::model::world::{App, Object, Ref, World};
use crate::model::yaml::{self, Node};

const DATABASE: &str = "argocd/manifests/databases/database.yaml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "database-cluster",
        about: "A Database names a Cluster of its namespace.",
        why: "It is never created.",
        breaks: (DATABASE, "cluster: {name: pg}", "cluster: {name: pgg}"),
        check: cluster,
    },
    Rule {
        code: "database-owner",
        about: "A database's owner is a role of its cluster.",
        why: "It is never created, or belongs to somebody who can't log in.",
        breaks: (DATABASE, "owner: web", "owner: wep"),
        check: owner,
    },
    Rule {
        code: "database-role-secret",
        about: "A role's password comes from a basic-auth Secret with the role's own name in it.",
        why: "The operator refuses it, and the role has no password.",
        breaks: ("argocd/manifests/databases/external-secret.yaml", "username: web", "username: wep"),
        check: role_secret,
    },
    Rule {
        code: "database-login",
        about: "The user and database that an app is configured with exist.",
        why: "It never gets ready: no such role, or no such database.",
        breaks: (DATABASE, "  name: web\n", "  name: website\n"),
        check: login,
    },
    Rule {
        code: "database-backup",
        about: "Every database is in borgmatic's list.",
        why: "It is in no backup.",
        breaks: ("ansible/roles/borgmatic/defaults/main.yml", "  - {name: web, hostname: pg}\n", ""),
        check: backup,
    },
];

pub(crate) fn is_cnpg(object: &Object, kind: &str) -> bool {
    object.kind == kind
        && object
            .at(&["apiVersion"])
            .and_then(Ref::text)
            .is_some_and(|version| version.starts_with("postgresql.cnpg.io/"))
}

pub(crate) fn clusters(world: &World) -> impl Iterator<Item = (&App, &Object)> {
    world.objects().filter(|(_, object)| is_cnpg(object, "Cluster"))
}

pub(crate) fn databases(world: &World) -> impl Iterator<Item = (&App, &Object)> {
    world.objects().filter(|(_, object)| is_cnpg(object, "Database"))
}

fn managed(cluster: &Object) -> Vec<Ref<'_>> {
    cluster.at(&["spec", "managed", "roles"]).map_or_else(Vec::new, Ref::items)
}

fn roles(cluster: &Object) -> Vec<&str> {
    let own = cluster.at(&["spec", "bootstrap", "initdb", "owner"]).and_then(Ref::text).unwrap_or("app");
    managed(cluster).into_iter().filter_map(|role| role.text_at(&["name"])).chain([own, "postgres"]).collect()
}

fn cluster_of<'a>(world: &'a World, app: &App, database: &Object) -> Option<&'a Object> {
    let name = database.at(&["spec", "cluster", "name"])?.text()?;
    let same = |(other, object): &(&App, &Object)| {
        other.cluster == app.cluster && object.namespace == database.namespace && object.name == name
    };
    clusters(world).find(same).map(|(_, object)| object)
}

fn cluster(world: &World, findings: &mut Vec<Finding>) {
    for (app, database) in databases(world) {
        if !world.knows_all_of(&app.cluster, &database.namespace) {
            continue;
        }
        let Some(name) = database.at(&["spec", "cluster", "name"]) else { continue };
        if cluster_of(world, app, database).is_none() {
            let text = name.text().unwrap_or_default();
            let message = format!("there is no Cluster {text} in namespace {}", database.namespace);
            let finding = Finding::error("database-cluster", message).at(name.place());
            findings.push(finding.did_you_mean(text, clusters(world).map(|(_, object)| object.name.as_str())));
        }
    }
}

fn owner(world: &World, findings: &mut Vec<Finding>) {
    for (app, database) in databases(world) {
        let (Some(cluster), Some(owner)) = (cluster_of(world, app, database), database.at(&["spec", "owner"])) else {
            continue;
        };
        let text = owner.text().unwrap_or_default();
        if !roles(cluster).contains(&text) {
            let message = format!("{} has no role {text}", cluster.name);
            let finding =
                Finding::error("database-owner", message).at(owner.place()).also(cluster.place(), "its roles");
            findings.push(finding.did_you_mean(text, roles(cluster)));
        }
    }
}

fn role_secret(world: &World, findings: &mut Vec<Finding>) {
    for (app, cluster) in clusters(world) {
        for role in managed(cluster) {
            let (Some(name), Some(secret)) = (role.text_at(&["name"]), role.at(&["passwordSecret", "name"])) else {
                continue;
            };
            let wanted = secret.text().unwrap_or_default();
            let targets = |object: &&Object| object.secret_name() == wanted;
            let Some(source) = world.beside(app, cluster, "ExternalSecret").find(targets) else {
                if world.beside(app, cluster, "ExternalSecret").next().is_some() {
                    let message = format!("nothing produces Secret {wanted}, the password of {name}");
                    findings.push(Finding::error("database-role-secret", message).at(secret.place()));
                }
                continue;
            };
            let kind = source.at(&["spec", "target", "template", "type"]);
            if kind.and_then(Ref::text) != Some("kubernetes.io/basic-auth") {
                let place = kind.map_or_else(|| source.place(), Ref::place);
                let message = format!("Secret {wanted} is not of type kubernetes.io/basic-auth");
                findings
                    .push(Finding::error("database-role-secret", message).at(place).also(secret.place(), "the role"));
            }
            let user = source.at(&["spec", "target", "template", "data", "username"]);
            if let Some(user) = user.filter(|user| user.text().is_some_and(|text| text != name && !text.contains("{{")))
            {
                let message = format!("Secret {wanted} is for {}, the role is {name}", user.text().unwrap_or_default());
                findings.push(
                    Finding::error("database-role-secret", message).at(user.place()).also(secret.place(), "the role"),
                );
            }
        }
    }
}

/// Names and values of an app's settings: the environment, and the templates of its secrets.
pub(crate) fn settings(object: &Object) -> Vec<(&str, Ref<'_>)> {
    let env = object.containers().into_iter().filter_map(|container| container.get("env")).flat_map(Ref::items);
    let env = env.filter_map(|env| Some((env.text_at(&["name"])?, env.get("value")?)));
    let template = object.at(&["spec", "target", "template", "data"]).filter(|_| object.kind == "ExternalSecret");
    env.chain(template.map_or_else(Vec::new, Ref::entries)).collect()
}

/// Is `host` one under which a cluster of ours is reached?
pub(crate) fn is_ours(world: &World, host: &str) -> bool {
    let first = host.split('.').next().unwrap_or(host);
    let services = world.objects().filter(|(_, object)| object.kind == "Service");
    let published = services
        .filter(|(_, object)| object.at(&["spec", "selector", "cnpg.io/cluster"]).is_some())
        .filter_map(|(_, object)| object.at(&["metadata", "annotations", "tailscale.com/hostname"])?.text());
    let own = clusters(world).any(|(_, object)| first.strip_suffix("-rw") == Some(&object.name));
    own || published.into_iter().any(|name| name == first)
}

fn login(world: &World, findings: &mut Vec<Finding>) {
    let all_roles: Vec<&str> = clusters(world).flat_map(|(_, cluster)| roles(cluster)).collect();
    let bootstrap =
        clusters(world).filter_map(|(_, cluster)| cluster.at(&["spec", "bootstrap", "initdb", "database"])?.text());
    let own = databases(world).filter_map(|(_, database)| database.at(&["spec", "name"])?.text());
    let all_databases: Vec<&str> = bootstrap.chain(own).chain(["postgres", "app"]).collect();
    for (_, object) in world.objects().filter(|_| world.knows_all()) {
        let settings = settings(object);
        for (name, host) in &settings {
            let Some(prefix) = name.strip_suffix("HOST") else { continue };
            if !host.text().is_some_and(|host| is_ours(world, host)) {
                continue;
            }
            let groups =
                [(["USER", "USERNAME"], &all_roles, "role"), (["NAME", "DATABASE"], &all_databases, "database")];
            for (suffixes, known, what) in groups {
                let named =
                    |(key, _): &&(&str, Ref<'_>)| key.strip_prefix(prefix).is_some_and(|rest| suffixes.contains(&rest));
                for (_, value) in settings.iter().filter(named) {
                    let text = value.text().unwrap_or_default();
                    if !known.contains(&text) && !text.contains("{{") {
                        let message = format!("no cluster has a {what} {text}");
                        let finding = Finding::error("database-login", message).at(value.place());
                        findings.push(finding.did_you_mean(text, known.iter().copied()));
                    }
                }
            }
        }
    }
}

/// borgmatic's list: the file and the entries.
fn backed_up(world: &World) -> Option<(&Source, Node)> {
    world.repo.files.iter().filter(|file| file.path.starts_with("ansible/")).find_map(|file| {
        let document = yaml::parse(file).ok()?.into_iter().next()?;
        Some((file, document.get("borgmatic_postgresql_databases")?.clone()))
    })
}

/// The names on that list, where there is one.
pub(crate) fn backed_up_names(world: &World) -> Option<Vec<String>> {
    let (_, list) = backed_up(world)?;
    Some(list.items().iter().filter_map(|item| item.get("name")?.text()).map(str::to_owned).collect())
}

fn backup(world: &World, findings: &mut Vec<Finding>) {
    let (Some((file, list)), Some(names)) = (backed_up(world), backed_up_names(world)) else { return };
    let bootstrap = clusters(world).filter_map(|(_, cluster)| cluster.at(&["spec", "bootstrap", "initdb", "database"]));
    let own = databases(world).filter_map(|(_, database)| database.at(&["spec", "name"]));
    for database in bootstrap.chain(own) {
        let text = database.text().unwrap_or_default();
        if !names.iter().any(|name| name == text || name == "all") {
            let message = format!("database {text} is in no backup");
            findings.push(
                Finding::error("database-backup", message).at(database.place()).also(list.place(file), "the list"),
            );
        }
    }
}
