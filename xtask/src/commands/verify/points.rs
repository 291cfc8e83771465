//! Asks one point after the other.

use std::time::Duration;

use anyhow::Result;

use crate::commands::services_check::{self, Asking, list, patient, visit};
use crate::commands::{Context, build};
use crate::exec::http::{self, Client};
use crate::exec::run::{System, tail};
use crate::exec::signal;
use crate::model::expectation::Answer;
use crate::model::failure::{Failure, Kind as End};
use crate::model::image::split_reference;
use crate::model::name::ContainerName;
use crate::model::secret::Secret;
use crate::model::world::{Object, Ref, World};
use crate::probes::expect::{self, context};
use crate::probes::flow::{self, Step};
use crate::probes::verify::{Database, Ingress, Point, Service, State};
use crate::probes::web::Response;
use crate::probes::{Bad, Outlook, Question, Verdict, hosts, scrapes, web};
use crate::tools::{kubectl, nix, op, psql};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A flow has a handful of stages.
const MOST_STEPS: usize = 12;

/// Who asks about what.
pub(super) struct Asked<'a> {
    pub(super) cx: &'a Context,
    pub(super) world: &'a World,
    pub(super) service: &'a Service<'a>,
    pub(super) services: &'a [String],
}

/// Why a point fails: what was seen, and how to see it.
struct No {
    bad: Bad,
    see: String,
}

fn no(seen: impl Into<String>, see: impl Into<String>) -> No {
    No { bad: Bad { seen: seen.into(), outlook: Outlook::MayPass, culprit: None, log: Vec::new() }, see: see.into() }
}

type Seen = Result<Result<String, No>>;

impl Asked<'_> {
    /// Every program that a point needs, before the first is asked.
    pub(super) fn preflight(&self) -> Result<()> {
        let points = self.service.points();
        let programs =
            [("kubectl", Point::Pods), ("kubectl", Point::Database), ("psql", Point::Database), ("op", Point::Login)];
        let mut needed: Vec<&'static str> =
            programs.iter().filter(|(_, point)| points.contains(point)).map(|(program, _)| *program).collect();
        needed.dedup();
        Context::preflight(&needed)
    }

    /// How `point` stands.
    ///
    /// # Errors
    /// Interrupted; everything else is a state.
    pub(super) fn point(&self, point: Point) -> Result<State> {
        let mut stage = self.cx.report.stage("verify");
        stage.update(point.title());
        let service = self.service;
        let seen = match (point, &service.database, &service.ingress) {
            (Point::Builds, ..) => self.builds(),
            (Point::Database, Some(database), _) => self.database(database),
            (Point::Pods, ..) => self.pods(),
            (Point::Ingress, _, Some(ingress)) => Ok(ingress_answers(ingress)),
            (Point::Page, _, Some(ingress)) => Ok(self.page(ingress)),
            (Point::Login, _, Some(ingress)) => self.login(ingress),
            (Point::Metrics, ..) => Ok(self.metrics()),
            (Point::Services, ..) => self.services(),
            (Point::Database | Point::Ingress | Point::Page | Point::Login, ..) => {
                Ok(Err(no("there is nothing to ask", "")))
            }
        };
        drop(stage);
        signal::check()?;
        Ok(match settle(seen)? {
            Ok(seen) => State::Passed(seen),
            Err(No { bad, see }) => State::Failed(bad, see),
        })
    }

    fn builds(&self) -> Seen {
        let mut seen = Vec::new();
        for name in &self.service.containers {
            let container = self.cx.container(name)?;
            let see = nix::build(&container.expression()).to_string();
            if let Some(pinned) = self.pinned(name)? {
                let expression = self.cx.path(&container.expression());
                let output = self.cx.system.output(&nix::declared(&expression, None))?;
                if !output.success() {
                    let bad = Bad { log: tail(&output.stderr), ..no("", "").bad };
                    let seen = format!(
                        "{pinned} is in the registry, but {} does not evaluate any more",
                        container.expression()
                    );
                    return Ok(Err(No { bad: Bad { seen, ..bad }, see }));
                }
                seen.push(format!("{pinned} is in the registry and its expression evaluates"));
                continue;
            }
            match build::build(self.cx, container) {
                Ok(built) => seen.push(format!("{name} builds: {}", built.store_path)),
                Err(error) => {
                    let failure = error.downcast::<Failure>()?;
                    if failure.kind == End::Interrupted {
                        return Err(failure.into());
                    }
                    let bad = Bad { seen: failure.summary, log: failure.tail, ..no("", "").bad };
                    return Ok(Err(No { bad, see }));
                }
            }
        }
        Ok(Ok(seen.join("; ")))
    }

    /// What is pinned of a container, if the registry has it.
    fn pinned(&self, name: &ContainerName) -> Result<Option<String>> {
        let home = self.cx.home()?;
        let image = home.image(name);
        let images = self.service.app.objects.iter().flat_map(Object::containers);
        let reference =
            images.filter_map(|container| container.text_at(&["image"])).find(|it| split_reference(it).0 == image);
        let Some(tag) = reference.and_then(|reference| split_reference(reference).1) else { return Ok(None) };
        let tag = tag.split('@').next().unwrap_or(tag);
        let repository = format!("{}/{name}", home.namespace);
        // A registry that can't be asked leaves the build to show it.
        let there = self.cx.registry()?.manifest(&repository, tag).ok().flatten();
        Ok(there.map(|_| format!("{name}:{tag}")))
    }

    fn database(&self, database: &Database) -> Seen {
        let Database { cluster, namespace, name, login, secret } = database;
        let context_ = match context(self.world, cluster) {
            Ok(context) => context,
            Err(why) => return Ok(Err(no(why, ""))),
        };
        let see =
            format!("kubectl --context={context_} --namespace={namespace} get pods --selector=cnpg.io/cluster={name}");
        let pods = match list(&self.cx.system, context_, LIMIT, ("pods", Some(namespace))) {
            Ok(pods) => pods,
            Err(why) => return Ok(Err(no(format!("can't be asked: {why}"), see))),
        };
        let primary = pods.iter().find(|pod| {
            let label = |key: &str| pod["metadata"]["labels"][key].as_str();
            label("cnpg.io/cluster") == Some(name) && label("cnpg.io/instanceRole").or(label("role")) == Some("primary")
        });
        let Some(pod) = primary.and_then(|pod| pod["metadata"]["name"].as_str()) else {
            return Ok(Err(no(format!("{name} has no primary pod"), see)));
        };
        let question = psql::question(&login.user, &login.database);
        let question: Vec<&str> = question.iter().map(String::as_str).collect();
        let invocation = kubectl::exec(context_, (namespace, pod, "postgres"), &question);
        let output = self.cx.system.output(&invocation)?;
        let see = invocation.to_string();
        let owner = output.stdout.lines().find_map(|line| line.strip_prefix("database of "));
        if !output.success() {
            return Ok(Err(no(format!("can't be asked: {}", kubectl::reason(&output.stderr)), see)));
        }
        if !output.stdout.lines().any(|line| line == "role") {
            return Ok(Err(no(format!("there is no role {} that may log in", login.user), see)));
        }
        let Some(owner) = owner else { return Ok(Err(no(format!("there is no database {}", login.database), see))) };
        let password = match self.secret(secret) {
            Ok(password) => password,
            Err(no) => return Ok(Err(no)),
        };
        let invocation = psql::login(login);
        let output = with_password(&self.cx.system, &password).output(&invocation)?;
        if output.success() && output.stdout.trim() == login.user {
            let place = format!("{}:{}", login.host, login.port);
            return Ok(Ok(format!("role {}, database {} of {owner}, login at {place}", login.user, login.database)));
        }
        let said = tail(&output.stderr).pop().unwrap_or_else(|| "it gave no reason".to_owned());
        Ok(Err(no(format!("{} can't log in: {said}", login.user), invocation.to_string())))
    }

    /// The password that the pods have.
    fn secret(&self, (name, key): &(String, String)) -> Result<Secret, No> {
        let app = self.service.app;
        let context = context(self.world, &app.cluster).map_err(|why| no(why, ""))?;
        let invocation = kubectl::secret(context, LIMIT, &app.namespace, name);
        let see = format!("kubectl --context={context} --namespace={} describe secret {name}", app.namespace);
        let output = self.cx.system.output(&invocation).map_err(|error| no(error.to_string(), see.clone()))?;
        if !output.success() {
            return Err(no(format!("Secret {name} can't be read"), see));
        }
        let secret = kubectl::parse_secret(&output.stdout, key);
        let secret = secret.map_err(|why| no(format!("Secret {name}: {key}: {why}"), see))?;
        self.cx.system.redactor.learn(&secret);
        Ok(secret)
    }

    fn pods(&self) -> Seen {
        let app = self.service.app;
        let own = |check: &crate::probes::Check| match &check.question {
            Question::Object { want, .. } => want.has_pods(),
            Question::Nobody(_) => true,
            _ => false,
        };
        let own = |check: &crate::probes::Check| {
            let inside = check.name.starts_with(&format!("{}/{}/", app.cluster, app.namespace));
            inside && check.tags.contains(&app.name) && own(check)
        };
        let checks: Vec<_> = expect::all(self.world).checks.into_iter().filter(own).collect();
        if checks.is_empty() {
            return Ok(Err(no("none are expected", "")));
        }
        let all = services_check::all(self.cx, self.world, checks, &Asking::default())?;
        let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let seen: Vec<String> =
            all.iter().map(|checked| format!("{}: {}", short(&checked.check.name), checked.verdict.seen())).collect();
        let failed = all.iter().filter_map(|checked| match &checked.verdict {
            Verdict::Bad(bad) => Some((bad, checked)),
            Verdict::Fine(_) => None,
        });
        let failed: Vec<_> = failed.collect();
        let Some((first, checked)) = failed.iter().find(|(bad, _)| !bad.log.is_empty()).or(failed.first()) else {
            return Ok(Ok(seen.join(", ")));
        };
        let hopeless = failed.iter().any(|(bad, _)| bad.outlook == Outlook::Hopeless);
        let outlook = if hopeless { Outlook::Hopeless } else { Outlook::MayPass };
        Ok(Err(No { bad: Bad { seen: seen.join(", "), outlook, ..(*first).clone() }, see: checked.check.see.clone() }))
    }

    fn page(&self, ingress: &Ingress) -> Result<String, No> {
        let domain = ingress.domain.clone().unwrap_or_default();
        let (path, answer) = if self.service.is_authentik() {
            (flow::PAGE, Answer { status: vec![200], contains: Some(flow::MARK.to_owned()) })
        } else {
            ("/", Answer::default())
        };
        let url = format!("https://{domain}{path}");
        let zone = hosts::variable(self.world, "caddy_tailnet");
        answered(visited(&url, answer, zone), &url)
    }

    fn login(&self, ingress: &Ingress) -> Seen {
        let (vault, item, field) = bootstrap(self.service);
        let invocation = op::item(&vault, &item);
        let see = invocation.to_string();
        let output = self.cx.system.output(&invocation)?;
        if !output.success() {
            let why = match op::trouble(&output.stderr) {
                op::Trouble::NoItem => format!("the vault {vault} has no item {item}"),
                op::Trouble::NoVault => format!("there is no vault {vault}"),
                op::Trouble::NotSignedIn => "op is not signed in".to_owned(),
                op::Trouble::Unknown => "op failed; what it says is not shown".to_owned(),
            };
            return Ok(Err(no(why, "op whoami")));
        }
        let password = match op::value(&output.stdout, &field) {
            Ok(password) => password,
            Err(why) => return Ok(Err(no(format!("{item} {why}: {field}"), see))),
        };
        self.cx.system.redactor.learn(&password);
        let base = format!("https://{}", ingress.domain.clone().unwrap_or_default());
        let see = web_see(&format!("{base}{}", flow::PAGE));
        Ok(signal::wait_for(move || log_in(&base, &password))?.map_err(|why| no(why, see)))
    }

    fn metrics(&self) -> Result<String, No> {
        let Some(base) = hosts::prometheus(self.world) else {
            return Err(no("Caddy has no service prometheus to ask", ""));
        };
        let targets = scrapes::jobs(self.world);
        let mut seen = Vec::new();
        for job in &self.service.jobs {
            let url = scrapes::address(&base, &format!("up{{job=\"{job}\"}}"));
            let body = patiently(&url).map_err(|why| no(format!("can't be asked: {why}"), web_see(&url)))?.body;
            let targets = targets.get(job).map_or(&[][..], Vec::as_slice);
            seen.push(answered(scrapes::judge(job, targets, &body), &url)?);
        }
        if self.service.is_authentik() {
            let url = scrapes::address(&base, "count({__name__=~\"authentik_.+\"})");
            let body = patiently(&url).map_err(|why| no(format!("can't be asked: {why}"), web_see(&url)))?.body;
            match scrapes::series(&body).map_err(|why| no(why, web_see(&url)))?.first() {
                Some((_, count)) if count != "0" => seen.push(format!("{count} series of authentik")),
                _ => return Err(no("Prometheus has no series whose name starts with authentik_", web_see(&url))),
            }
        }
        Ok(seen.join(", "))
    }

    fn services(&self) -> Seen {
        let all = services_check::once(self.cx, self.world, self.services, &Asking::default())?;
        let failed: Vec<String> = all
            .iter()
            .filter(|checked| checked.fails())
            .map(|checked| format!("{}: {}", checked.check.name, checked.verdict.seen()))
            .collect();
        if failed.is_empty() {
            return Ok(Ok(format!("{} checks passed", all.len())));
        }
        let seen = format!("{} of {} checks failed", failed.len(), all.len());
        let names =
            shell_words::join(std::iter::once("services-check").chain(self.services.iter().map(String::as_str)));
        Ok(Err(No { bad: Bad { log: failed, ..no(seen, "").bad }, see: format!("cargo xtask {names} --only-failed") }))
    }
}

/// What stops a point is its failure; only an interruption stops everything.
fn settle(seen: Seen) -> Result<Result<String, No>> {
    let error = match seen {
        Ok(seen) => return Ok(seen),
        Err(error) => error,
    };
    let failure = error.downcast::<Failure>()?;
    if failure.kind == End::Interrupted {
        return Err(failure.into());
    }
    let log = failure.findings.iter().map(|finding| finding.message.clone()).chain(failure.tail).collect();
    let see = failure.command.or(failure.next).unwrap_or_default();
    Ok(Err(No { bad: Bad { log, ..no(failure.summary, "").bad }, see }))
}

/// As [`patient`], but a signal ends it at once; whoever asks notices it next.
fn patiently(url: &str) -> Result<Response, String> {
    let url = url.to_owned();
    signal::wait_for(move || patient(&url, LIMIT)).unwrap_or_else(|error| Err(error.to_string()))
}

/// As [`visit`], but a signal ends it at once; whoever asks notices it next.
fn visited(url: &str, answer: Answer, zone: Option<String>) -> Verdict {
    let url = url.to_owned();
    let visit = move || visit(&url, &answer, zone.as_deref(), LIMIT);
    signal::wait_for(visit).unwrap_or_else(|error| Verdict::bad(error.to_string()))
}

fn web_see(url: &str) -> String {
    hosts::curl(url)
}

fn answered(verdict: Verdict, url: &str) -> Result<String, No> {
    match verdict {
        Verdict::Fine(seen) => Ok(format!("{url}: {seen}")),
        Verdict::Bad(bad) => Err(No { bad: Bad { seen: format!("{url}: {}", bad.seen), ..bad }, see: web_see(url) }),
    }
}

fn ingress_answers(ingress: &Ingress) -> Result<String, No> {
    let well = Answer { status: vec![200], contains: None };
    let mut seen = Vec::new();
    for path in &ingress.paths {
        let url = format!("https://{}{path}", ingress.tailnet);
        seen.push(answered(visited(&url, well.clone(), None), &url)?);
    }
    Ok(seen.join(", "))
}

/// The door through which `psql` gets the password: its environment, never its arguments.
fn with_password(system: &System, password: &Secret) -> System {
    let mut overlay = system.overlay.clone();
    overlay.push(("PGPASSWORD".to_owned(), Some(password.reveal().to_owned())));
    system.at(system.root.clone(), overlay)
}

/// Vault, item and field of the bootstrap password, as its ExternalSecret says.
fn bootstrap(service: &Service<'_>) -> (String, String, String) {
    let secrets = service.app.objects.iter().filter(|object| object.kind == "ExternalSecret");
    for object in secrets {
        let template = object.at(&["spec", "target", "template", "data", "AUTHENTIK_BOOTSTRAP_PASSWORD"]);
        let Some(template) = template.and_then(Ref::text) else { continue };
        let data = object.at(&["spec", "data"]).map_or_else(Vec::new, Ref::items);
        let named = |item: &&Ref<'_>| item.text_at(&["secretKey"]).is_some_and(|key| template.contains(key));
        let Some(item) = data.iter().find(named) else { continue };
        let store = object.at(&["spec", "secretStoreRef", "name"]).and_then(Ref::text).unwrap_or_default();
        let vault = store.strip_prefix("onepassword-").unwrap_or("blumeops");
        if let (Some(title), Some(field)) =
            (item.text_at(&["remoteRef", "key"]), item.text_at(&["remoteRef", "property"]))
        {
            return (vault.to_owned(), title.to_owned(), field.to_owned());
        }
    }
    ("blumeops".to_owned(), "Authentik (blumeops)".to_owned(), "bootstrap-password".to_owned())
}

/// Goes through the flow as the page's script does, and asks who is logged in.
fn log_in(base: &str, password: &Secret) -> Result<String, String> {
    let client = Client::new();
    let executor = format!("{base}{}", flow::EXECUTOR);
    let mut cookies: Vec<(String, String)> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut body: Option<String> = None;
    for _ in 0..MOST_STEPS {
        let answer = talk(&client, &executor, body.as_deref(), (base, &mut cookies))?;
        if matches!(answer.status, 301..=308) {
            body = None;
            continue;
        }
        let challenge = serde_json::from_str(&answer.body).unwrap_or_default();
        if answer.status >= 400 {
            return Err(format!("the flow's API says {}", answer.status));
        }
        match flow::step(&challenge, password, &seen) {
            Step::Send(json) => body = Some(json),
            Step::In => {
                let me = talk(&client, &format!("{base}{}", flow::ME), None, (base, &mut cookies))?;
                return if me.status == 200 {
                    flow::admin(&me.body)
                } else {
                    Err(format!("who is logged in: {}", me.status))
                };
            }
            Step::Refused(why) => return Err(why),
        }
        seen.push(challenge["component"].as_str().unwrap_or_default().to_owned());
    }
    Err("the flow does not end".to_owned())
}

/// One request of a session.
fn talk(
    client: &Client,
    url: &str,
    json: Option<&str>,
    (base, cookies): (&str, &mut Vec<(String, String)>),
) -> Result<http::Answer, String> {
    let all = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
    let token =
        cookies.iter().find(|(name, _)| name == "authentik_csrf").map_or_else(String::new, |(_, value)| value.clone());
    let referer = format!("{base}/");
    let mut headers = vec![("referer", referer.as_str())];
    headers.extend((!all.is_empty()).then_some(("cookie", all.as_str())));
    headers.extend((!token.is_empty()).then_some(("x-authentik-csrf", token.as_str())));
    let answer =
        client.ask(&http::Ask { url, limit: LIMIT, headers: &headers, json }).map_err(|why| web::explain(&why))?;
    for cookie in &answer.cookies {
        if let Some((name, value)) = cookie.split_once('=') {
            cookies.retain(|(known, _)| known != name);
            cookies.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(answer)
}
