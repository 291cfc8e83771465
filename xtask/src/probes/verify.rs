//! The points that a deployed service is verified by, as far as they apply to it.

use super::expect::{behind, probe_path};
use super::hosts;
use crate::checks::databases::{clusters, is_cnpg, is_ours, settings};
use crate::model::image::split_reference;
use crate::model::name::ContainerName;
use crate::model::names::tailscale_host;
use crate::model::world::{App, Object, Ref, World};
use crate::tools::psql::Login;

/// The points, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    Builds,
    Database,
    Pods,
    Ingress,
    Page,
    Login,
    Metrics,
    Services,
}

impl Point {
    pub(crate) const ALL: [Self; 8] = [
        Self::Builds,
        Self::Database,
        Self::Pods,
        Self::Ingress,
        Self::Page,
        Self::Login,
        Self::Metrics,
        Self::Services,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Builds => "Container builds",
            Self::Database => "Database role, database and login",
            Self::Pods => "Pods running and ready",
            Self::Ingress => "Health over the Tailscale ingress",
            Self::Page => "Web page through Caddy",
            Self::Login => "Admin login with the bootstrap credentials",
            Self::Metrics => "Metrics in Prometheus",
            Self::Services => "services-check passes",
        }
    }

    /// The points without which asking this one is in vain.
    pub(crate) fn needs(self) -> &'static [Self] {
        match self {
            Self::Builds | Self::Database | Self::Pods | Self::Services => &[],
            Self::Ingress | Self::Metrics => &[Self::Pods],
            Self::Page => &[Self::Pods, Self::Ingress],
            Self::Login => &[Self::Pods, Self::Ingress, Self::Page],
        }
    }
}

/// How a point stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Passed(String),
    Failed(super::Bad, String),
    /// In vain, because of this point.
    NotAsked(Point),
}

/// The first point that `point` needs and that has not passed.
pub(crate) fn in_vain(point: Point, known: &[(Point, State)]) -> Option<Point> {
    let failed = |needed: &Point| known.iter().any(|(at, state)| at == needed && !matches!(state, State::Passed(_)));
    point.needs().iter().copied().find(failed)
}

/// What is known of a service.
pub(crate) struct Service<'a> {
    pub(crate) app: &'a App,
    pub(crate) containers: Vec<ContainerName>,
    pub(crate) database: Option<Database>,
    pub(crate) ingress: Option<Ingress>,
    pub(crate) jobs: Vec<String>,
}

/// Its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Database {
    /// Where the PostgreSQL cluster runs, and what it is called.
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) login: Login,
    /// The Secret, beside the service, and the key in it that has the password.
    pub(crate) secret: (String, String),
}

/// Its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ingress {
    pub(crate) tailnet: String,
    pub(crate) paths: Vec<String>,
    pub(crate) domain: Option<String>,
}

/// Reads off the repository what there is to verify.
pub(crate) fn service<'a>(world: &'a World, app: &'a App) -> Service<'a> {
    let ingress = app.objects.iter().find(|object| tailscale_host(object).is_some());
    Service {
        app,
        containers: containers(world, app),
        database: app.objects.iter().find_map(|object| database(world, object)),
        ingress: ingress.and_then(|object| way_in(world, app, object)),
        jobs: hosts::jobs_of(world, &app.namespace),
    }
}

impl Service<'_> {
    /// Is it what only Authentik answers?
    pub(crate) fn is_authentik(&self) -> bool {
        self.containers.iter().any(|container| container.as_str() == "authentik")
    }

    /// The points that apply.
    pub(crate) fn points(&self) -> Vec<Point> {
        let applies = |point: &Point| match point {
            Point::Builds => !self.containers.is_empty(),
            Point::Database => self.database.is_some(),
            Point::Pods => self.app.objects.iter().any(|object| object.pod_template().is_some()),
            Point::Ingress => self.ingress.is_some(),
            Point::Page => self.ingress.as_ref().is_some_and(|ingress| ingress.domain.is_some()),
            Point::Login => self.is_authentik() && self.ingress.as_ref().is_some_and(|it| it.domain.is_some()),
            Point::Metrics => !self.jobs.is_empty(),
            Point::Services => true,
        };
        Point::ALL.into_iter().filter(applies).collect()
    }
}

/// Our containers whose images it runs.
fn containers(world: &World, app: &App) -> Vec<ContainerName> {
    let Ok(home) = world.repo.home() else { return Vec::new() };
    let images: Vec<&str> = app
        .objects
        .iter()
        .flat_map(Object::containers)
        .filter_map(|container| container.text_at(&["image"]).map(|image| split_reference(image).0))
        .collect();
    let own = world.repo.containers.iter().map(|container| &container.name);
    own.filter(|name| images.contains(&home.image(name).as_str())).cloned().collect()
}

fn database(world: &World, object: &Object) -> Option<Database> {
    let settings = settings(object);
    let (prefix, host) = settings.iter().find_map(|(name, host)| {
        let text = host.text().filter(|host| is_ours(world, host))?;
        Some((name.strip_suffix("HOST")?, text))
    })?;
    let value = |suffixes: &[&str]| {
        let named = |(key, _): &&(&str, Ref<'_>)| key.strip_prefix(prefix).is_some_and(|rest| suffixes.contains(&rest));
        settings.iter().find(named).and_then(|(key, value)| Some((*key, value.text()?)))
    };
    let (_, database) = value(&["NAME", "DATABASE"])?;
    let (_, user) = value(&["USER", "USERNAME"])?;
    let (key, _) = value(&["PASSWORD", "PASS"])?;
    let secret = object.secret_name();
    let owns = |(_, own): &(&App, &Object)| {
        is_cnpg(own, "Database") && own.at(&["spec", "name"]).and_then(Ref::text) == Some(database)
    };
    let cluster = world.objects().find(owns).and_then(|(_, own)| own.at(&["spec", "cluster", "name"])?.text());
    let (owner, pg) = clusters(world).find(|(_, pg)| cluster.is_none_or(|cluster| pg.name == cluster))?;
    let text = |value: Option<(&str, &str)>, default: &str| value.map_or(default, |(_, text)| text).to_owned();
    Some(Database {
        cluster: owner.cluster.clone(),
        namespace: pg.namespace.clone(),
        name: pg.name.clone(),
        login: Login {
            host: host.to_owned(),
            port: text(value(&["PORT"]), "5432"),
            database: database.to_owned(),
            user: user.to_owned(),
            tls: text(value(&["SSLMODE"]), "prefer"),
        },
        secret: (secret.to_owned(), key.to_owned()),
    })
}

fn way_in(world: &World, app: &App, object: &Object) -> Option<Ingress> {
    let host = tailscale_host(object)?.text()?;
    let zone = hosts::variable(world, "caddy_tailnet")?;
    let found = |probe| behind(world, app, object).and_then(|_| probe_path(world, app, object, probe));
    let mut paths: Vec<String> = ["livenessProbe", "readinessProbe"].into_iter().filter_map(found).collect();
    paths.dedup();
    if paths.is_empty() {
        paths.push("/".to_owned());
    }
    Some(Ingress { tailnet: format!("{host}.{zone}"), paths, domain: hosts::host_of(world, host) })
}
