//! One thing at a time is broken, and exactly the right points of the verification must turn red.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::cluster;
use super::deployment::{self, Deployment, PSQL, WAYS};
use super::facts::Facts;
use super::progress;
use crate::commands::Context;
use crate::exec::signal;
use crate::exec::workspace::Workspace;
use crate::model::failure::Failure;
use crate::report::{Outcome, table};
use crate::tools::own;

/// How long the points may take to show what was broken, or mended.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);

/// How a thing is broken. What the manifests say is mended by applying them again.
enum Act {
    Kubectl(&'static [&'static [&'static str]]),
    /// SQL that breaks, and SQL that mends.
    Sql(&'static str, &'static str),
    /// The entry of the service in Caddy's role.
    Caddy,
}

struct Breakage {
    name: &'static str,
    act: Act,
    /// The points that fail: soon, and once every probe has noticed.
    red: &'static [&'static [u64]],
    /// The step of the plan that is not done any more.
    back: &'static str,
    /// A failing point, and what it must say.
    reason: (u64, &'static str),
}

/// Of Authentik, whose objects these are.
const BREAKAGES: &[Breakage] = &[
    Breakage {
        name: "redis-stopped",
        act: Act::Kubectl(&[&["scale", "deployment/redis", "--replicas=0"]]),
        red: &[&[3, 8]],
        back: "pods",
        reason: (3, "redis: "),
    },
    Breakage {
        name: "wrong-password",
        act: Act::Sql(
            "create table stage_kept as select rolpassword from pg_authid where rolname = 'authentik'; \
             alter role authentik password 'another'",
            "do $$ begin execute format('alter role authentik password %L', (select rolpassword from stage_kept)); end $$; \
             drop table stage_kept",
        ),
        red: &[&[2, 4, 8], &[2, 3, 8]],
        back: "verified",
        reason: (2, "password authentication failed"),
    },
    Breakage {
        name: "role-dropped",
        act: Act::Sql("alter role authentik rename to stage_gone", "alter role stage_gone rename to authentik"),
        red: &[&[2, 4, 8], &[2, 3, 8]],
        back: "verified",
        reason: (2, "there is no role authentik"),
    },
    Breakage {
        name: "caddy-host-removed",
        act: Act::Caddy,
        red: &[&[5, 8]],
        back: "through-caddy",
        reason: (5, "404"),
    },
    Breakage {
        name: "service-renamed",
        act: Act::Kubectl(&[
            &["delete", "service/authentik"],
            &["create", "service", "clusterip", "authentik-renamed", "--tcp=80:8000"],
        ]),
        red: &[&[4, 7, 8]],
        back: "in-tailnet",
        reason: (4, "502"),
    },
    Breakage {
        name: "image-does-not-start",
        act: Act::Kubectl(&[&["set", "image", "deployment/redis", "redis=IMAGE"]]),
        red: &[&[3, 8]],
        back: "pods",
        reason: (3, "usage: ak server|worker"),
    },
    Breakage {
        name: "limit-too-small",
        act: Act::Kubectl(&[&["set", "resources", "deployment/redis", "--limits=memory=1Mi", "--requests=memory=1Mi"]]),
        red: &[&[3, 8]],
        back: "pods",
        reason: (3, "redis"),
    },
];

/// Refuses names that mean nothing.
pub(super) fn check_names(only: &[String]) -> Result<()> {
    let names: Vec<&str> = BREAKAGES.iter().map(|breakage| breakage.name).chain(["none"]).collect();
    match only.iter().find(|name| !names.contains(&name.as_str())) {
        Some(unknown) => Err(Failure::environment(format!("there is no breakage {unknown}"))
            .next(format!("there are: {}", names.join(", ")))
            .into()),
        None => Ok(()),
    }
}

/// What would be broken, and how, as lines.
pub(super) fn outline(facts: &Facts, only: &[String], workspace: &Workspace) -> Vec<String> {
    let lines = |breakage: &Breakage| match breakage.act {
        Act::Kubectl(calls) => {
            let in_namespace = ["--namespace", facts.namespace()];
            calls
                .iter()
                .map(|call| cluster::ask(workspace, &[&in_namespace[..], call].concat()).to_string())
                .collect::<Vec<_>>()
                .join("; ")
        }
        Act::Sql(statements, _) => {
            let pod = ["--namespace", "NAMESPACE", "exec", "PRIMARY", "--"];
            cluster::ask(workspace, &[&pod[..], &PSQL, &[statements]].concat()).to_string()
        }
        Act::Caddy => {
            let words = deployment::provision_words(workspace, &facts.host, WAYS[1]);
            format!("{} (without {})", own::shown(&words), facts.service)
        }
    };
    wanted(facts, only).map(|breakage| format!("{}: {}", breakage.name, lines(breakage))).collect()
}

/// Those of `only`, or all; the objects are Authentik's.
fn wanted<'a>(facts: &Facts, only: &'a [String]) -> impl Iterator<Item = &'static Breakage> + use<'a> {
    let all = if facts.service == "authentik" { BREAKAGES } else { &[] };
    all.iter().filter(|breakage| only.is_empty() || only.iter().any(|name| name == breakage.name))
}

/// Verifies the whole, then breaks it.
pub(super) fn run(cx: &Context, deployment: &Deployment<'_>, only: &[String], outcome: Outcome) -> Result<Outcome> {
    let started = Instant::now();
    let points = deployment.verify(PATIENCE * 2)?;
    let mut human = outcome.human + "\n" + &shown(&points);
    if !failed(&points).is_empty() {
        cx.report.say(&human);
        return Err(Failure::refused("not every point of the verification passed").into());
    }
    cx.report.say(&format!(
        "  ✓ {:8} {} points passed {:.1} s",
        "verify",
        points.len(),
        started.elapsed().as_secs_f32()
    ));
    let mut plan = outcome.json["plan"].as_array().cloned().unwrap_or_default();
    plan.push(progress::at_the_end(&deployment.cx, &deployment.facts.service, PATIENCE)?);
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for breakage in wanted(&deployment.facts, only) {
        let stage = cx.report.stage("break");
        let broken = Instant::now();
        let (seen, said) = breakage.run(cx, deployment)?;
        let red = seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        stage.done(&format!(
            "{}: points {red} turned red, {} was to do, and all is well again",
            breakage.name, breakage.back
        ));
        let seconds = format!("{:.0}", broken.elapsed().as_secs_f32());
        rows.push(vec![breakage.name.to_owned(), red, said.clone(), seconds]);
        values.push(json!({"breakage": breakage.name, "red": seen, "reason": said, "back": breakage.back}));
    }
    if !rows.is_empty() {
        human += &format!("\n{}", table(&["BROKEN", "RED POINTS", "BECAUSE", "SECONDS"], &rows));
        plan.push(progress::at_the_end(&deployment.cx, &deployment.facts.service, PATIENCE)?);
    }
    let json = json!({"plan": plan, "released": outcome.json["released"], "points": points, "breakages": values, "human": human});
    Ok(Outcome { human, json, ..outcome })
}

impl Breakage {
    /// Breaks, sees what turns red and why, mends, and sees all green.
    fn run(&self, cx: &Context, deployment: &Deployment<'_>) -> Result<(Vec<u64>, String)> {
        self.act.commit(cx, deployment)?;
        let until = Instant::now() + PATIENCE;
        let seen = loop {
            let points = deployment.verify(Duration::ZERO)?;
            let red = failed(&points);
            if self.red.contains(&red.as_slice())
                && let Some(said) = said(&points, self.reason)
            {
                break (red, said);
            }
            if Instant::now() > until {
                cx.report.say(&shown(&points));
                let want = format!("{:?} with «{}» at {}", self.red, self.reason.1, self.reason.0);
                return Err(Failure::refused(format!("{}: points {red:?} are red, not {want}", self.name)).into());
            }
            signal::sleep(Duration::from_secs(2))?;
        };
        self.goes_back(deployment, until)?;
        self.act.undo(cx, deployment)?;
        let points = deployment.verify(PATIENCE)?;
        if failed(&points).is_empty() {
            return Ok(seen);
        }
        cx.report.say(&shown(&points));
        Err(Failure::refused(format!("{} was mended, but not everything is green again", self.name)).into())
    }

    /// What was done is to do again, as the plan says.
    fn goes_back(&self, deployment: &Deployment<'_>, until: Instant) -> Result<()> {
        loop {
            let steps = progress::steps(&deployment.cx, &deployment.facts.service)?;
            let open = progress::open(&steps);
            if open.contains(&self.back) {
                return Ok(());
            }
            if Instant::now() > until {
                let summary = format!("{}: of the plan {open:?} is not done, and not {}", self.name, self.back);
                return Err(Failure::refused(summary).into());
            }
            signal::sleep(Duration::from_secs(2))?;
        }
    }
}

impl Act {
    fn commit(&self, cx: &Context, deployment: &Deployment<'_>) -> Result<()> {
        match self {
            Self::Kubectl(calls) => {
                let namespace = deployment.facts.namespace();
                for call in *calls {
                    let image = format!("redis={}", deployment.image());
                    let words = call.iter().map(|word| if *word == "redis=IMAGE" { image.as_str() } else { word });
                    let words: Vec<&str> = ["--namespace", namespace].into_iter().chain(words).collect();
                    deployment.kubectl(&words)?;
                }
                Ok(())
            }
            Self::Sql(statements, _) => deployment.sql(statements),
            Self::Caddy => deployment.provision(cx, false, Some(&deployment.facts.service)),
        }
    }

    fn undo(&self, cx: &Context, deployment: &Deployment<'_>) -> Result<()> {
        match self {
            Self::Kubectl(_) => {
                let namespace = deployment.facts.namespace();
                deployment.kubectl(&[
                    "--namespace",
                    namespace,
                    "delete",
                    "service/authentik-renamed",
                    "--ignore-not-found",
                ])?;
                deployment.apply_again()
            }
            Self::Sql(_, statements) => deployment.sql(statements),
            Self::Caddy => deployment.provision(cx, false, None),
        }
    }
}

fn state(point: &Value) -> &str {
    point["state"].as_str().unwrap_or_default()
}

fn failed(points: &[Value]) -> Vec<u64> {
    let failed = points.iter().filter(|point| state(point) == "failed");
    failed.filter_map(|point| point["number"].as_u64()).collect()
}

/// What the point says that has to say `what`: the sentence, or the line of its log, in which that stands.
fn said(points: &[Value], (number, what): (u64, &str)) -> Option<String> {
    let point = points.iter().find(|point| point["number"].as_u64() == Some(number))?;
    let log = point["log"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let sentences = point["seen"].as_str().into_iter().flat_map(|seen| seen.split("; "));
    sentences.chain(log).find(|text| text.contains(what)).map(|text| text.trim().to_owned())
}

fn shown(points: &[Value]) -> String {
    let mut text = String::new();
    for point in points {
        let mark = match state(point) {
            "passed" => "\x1b[32m✓\x1b[0m",
            "failed" => "\x1b[31m✗\x1b[0m",
            _ => "\x1b[2m-\x1b[0m",
        };
        let part = |key: &str| point[key].as_str().unwrap_or_default().to_owned();
        text += &format!(" {mark} {} {}: {}\n", point["number"], part("point"), part("seen"));
        for line in point["log"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            text += &format!("     | {line}\n");
        }
    }
    text
}
