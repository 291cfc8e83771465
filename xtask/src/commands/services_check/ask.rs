//! Asks: one call to a cluster and kind, one connection to a host, everything else by itself, all at once.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;

use crate::commands::Context;
use crate::exec::http::{self, Client};
use crate::exec::pool::{self, Event, Job};
use crate::exec::run::{System, tail};
use crate::exec::{signal, tls};
use crate::model::config::KubeContext;
use crate::model::expectation::{Answer, Ask};
use crate::model::inventory::{self, Host};
use crate::model::world::World;
use crate::probes::expect::context;
use crate::probes::web::{self, Response};
use crate::probes::{Bad, Check, Checked, Culprit, Kind, Question, Verdict, Want, certificate, kube, remote, scrapes};
use crate::report::health::Board;
use crate::tools::{kubectl, ssh};

/// A web server is asked by so many at once, a cluster's API by so many.
const WEB_AT_ONCE: usize = 128;
const CLUSTER_AT_ONCE: usize = 8;

/// How long an answer may take where nobody says otherwise: of a service, and of what starts a program.
const SERVICE: Duration = Duration::from_secs(5);
const PROGRAM: Duration = Duration::from_secs(10);

/// What may be said about how to ask.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asking {
    pub(crate) timeout: Option<Duration>,
}

/// One question to somebody, the answer to which several checks may need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Batch {
    List { cluster: String, kind: Kind, namespace: Option<String> },
    Host(String),
    Query(String),
    Single(usize),
}

/// What came back.
#[derive(Clone, Debug)]
enum Reply {
    Objects(Result<Vec<Value>, String>),
    Text(Result<String, String>),
    Verdict(Verdict),
}

/// Asks all of `checks`.
///
/// # Errors
/// A program is missing, or interrupted.
pub(crate) fn all(cx: &Context, world: &World, checks: Vec<Check>, asking: &Asking) -> Result<Vec<Checked>> {
    let batches = batches(&checks);
    preflight(world, &batches)?;
    let asked: Vec<(&Batch, Job<(Reply, Duration)>)> =
        batches.iter().map(|(batch, members)| (batch, job(cx, world, (batch, members), &checks, asking))).collect();
    let (order, jobs): (Vec<&Batch>, Vec<_>) = asked.into_iter().unzip();
    let board = std::io::stderr().is_terminal().then(|| Board::new(checks.iter().map(|check| check.group.as_str())));
    let replies = pool::run(jobs, &mut |event| {
        let Some(board) = &board else { return };
        if let Event::Done(at) = event {
            for check in batches[order[at]].iter().map(|at| &checks[*at]) {
                board.answered(&check.group, 1, &check.name);
            }
        }
        board.tick();
    })?;
    drop(board);
    let replies: BTreeMap<&Batch, Option<(Reply, Duration)>> = order.into_iter().zip(replies).collect();
    let now = Timestamp::now();
    let verdicts: Vec<(Verdict, Duration)> =
        checks.iter().enumerate().map(|(at, check)| verdict(check, at, &replies, now)).collect();
    let all = checks.into_iter().zip(verdicts);
    let mut all: Vec<Checked> = all.map(|(check, (verdict, took))| Checked { check, verdict, took }).collect();
    logs(cx, world, &mut all)?;
    Ok(all)
}

/// Every question, with the checks that need its answer.
fn batches(checks: &[Check]) -> BTreeMap<Batch, Vec<usize>> {
    let mut batches = BTreeMap::<Batch, Vec<usize>>::new();
    for (at, check) in checks.iter().enumerate() {
        batches.entry(batch(check, at)).or_default().push(at);
        if let Question::Object { cluster, want, .. } = &check.question
            && want.has_pods()
        {
            // No check is about the pods alone, and none of the board's lines counts them.
            batches.entry(Batch::List { cluster: cluster.clone(), kind: Kind::Pod, namespace: None }).or_default();
        }
    }
    batches
}

fn batch(check: &Check, at: usize) -> Batch {
    match &check.question {
        Question::Object { cluster, namespace, want, .. } => {
            let namespace = matches!(want, Want::Application { .. }).then(|| namespace.clone());
            Batch::List { cluster: cluster.clone(), kind: want.kind(), namespace }
        }
        Question::OnHost { host, .. } => Batch::Host(host.clone()),
        Question::Scrape { url, .. } => Batch::Query(url.clone()),
        _ => Batch::Single(at),
    }
}

fn preflight(world: &World, batches: &BTreeMap<Batch, Vec<usize>>) -> Result<()> {
    let hosts = inventory::hosts(&world.repo.files);
    let remote = |host: &String| hosts.iter().any(|known| known.name == *host && !known.local);
    let mut programs = Vec::new();
    if batches.keys().any(|batch| matches!(batch, Batch::List { .. })) {
        programs.push("kubectl");
    }
    if batches.keys().any(|batch| matches!(batch, Batch::Host(host) if remote(host))) {
        programs.push("ssh");
    }
    Context::preflight(&programs)
}

fn job(
    cx: &Context,
    world: &World,
    (batch, members): (&Batch, &[usize]),
    checks: &[Check],
    asking: &Asking,
) -> Job<(Reply, Duration)> {
    let own = members.iter().filter_map(|at| checks[*at].timeout).max();
    let within = |default: Duration| own.or(asking.timeout).unwrap_or(default);
    let system = cx.system.clone();
    let timed = |lane: String, at_once: usize, limit: Duration, work: Box<dyn FnOnce() -> Reply + Send>| Job {
        lane,
        at_once,
        limit,
        work: Box::new(move || {
            let started = Instant::now();
            let reply = work();
            (reply, started.elapsed())
        }),
    };
    match batch {
        Batch::List { cluster, kind, namespace } => {
            let (limit, resource, namespace) = (within(PROGRAM), kind.resource(), namespace.clone());
            let context = context(world, cluster).cloned();
            let work = move || {
                Reply::Objects(
                    context.and_then(|context| list(&system, &context, limit, (resource, namespace.as_deref()))),
                )
            };
            timed(format!("cluster {cluster}"), CLUSTER_AT_ONCE, limit + PROGRAM, Box::new(work))
        }
        Batch::Host(name) => {
            let limit = within(PROGRAM);
            let host = inventory::hosts(&world.repo.files).into_iter().find(|host| host.name == *name);
            let asks: Vec<Ask> = members.iter().filter_map(|at| on_host(&checks[*at])).cloned().collect();
            let name = name.clone();
            let lane = format!("host {name}");
            let work = move || {
                let host = host.ok_or_else(|| format!("the inventory has no host {name}"));
                Reply::Text(host.and_then(|host| connect(&system, &host, &asks, limit)))
            };
            timed(lane, 1, limit + PROGRAM, Box::new(work))
        }
        Batch::Query(url) => {
            let (limit, url) = (within(SERVICE), url.clone());
            let lane = web::host(&url).unwrap_or_default().to_owned();
            let work = move || {
                let response = patient(&url, limit).map(|response| response.body);
                Reply::Text(response)
            };
            timed(lane, WEB_AT_ONCE, limit, Box::new(work))
        }
        Batch::Single(at) => single(&checks[*at], within(SERVICE), &timed),
    }
}

type Timed<'a> = &'a dyn Fn(String, usize, Duration, Box<dyn FnOnce() -> Reply + Send>) -> Job<(Reply, Duration)>;

fn single(check: &Check, limit: Duration, timed: Timed<'_>) -> Job<(Reply, Duration)> {
    match check.question.clone() {
        Question::Web { url, answer, tailnet } => {
            let lane = web::host(&url).unwrap_or_default().to_owned();
            timed(
                lane,
                WEB_AT_ONCE,
                limit,
                Box::new(move || Reply::Verdict(visit(&url, &answer, tailnet.as_deref(), limit))),
            )
        }
        Question::Certificate { host, port } => {
            let lane = host.clone();
            let work = move || {
                Reply::Verdict(match tls::certificate(&host, port, limit) {
                    Ok(der) => certificate::judge(&der, Timestamp::now()),
                    Err(why) => no_answer(&web::explain(&why)),
                })
            };
            timed(lane, WEB_AT_ONCE, limit, Box::new(work))
        }
        Question::Tcp { host, port } => {
            let lane = host.clone();
            timed(lane, WEB_AT_ONCE, limit, Box::new(move || Reply::Verdict(knock(&host, port, limit))))
        }
        Question::Nobody(why) => {
            timed(String::new(), WEB_AT_ONCE, limit, Box::new(move || Reply::Verdict(Verdict::unanswered(why))))
        }
        Question::Object { .. } | Question::OnHost { .. } | Question::Scrape { .. } | Question::Container => {
            timed(String::new(), 1, limit, Box::new(|| Reply::Verdict(Verdict::bad("it was not asked"))))
        }
    }
}

fn on_host(check: &Check) -> Option<&Ask> {
    if let Question::OnHost { ask, .. } = &check.question { Some(ask) } else { None }
}

/// The objects of a kind; what may pass by itself is asked again.
///
/// # Errors
/// Why there is no answer.
pub(crate) fn list(
    system: &System,
    context: &KubeContext,
    limit: Duration,
    (resource, namespace): (&str, Option<&str>),
) -> Result<Vec<Value>, String> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(300);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let result = match system.output(&kubectl::list(context, left, resource, namespace)) {
            Ok(output) if output.success() => kubectl::parse_list(&output.stdout),
            Ok(output) => Err(kubectl::reason(&output.stderr)),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Err(why) if kubectl::is_transient(&why) && Instant::now() + pause * 3 < end => {
                signal::sleep(pause).map_err(|error| error.to_string())?;
                pause *= 3;
            }
            result => return result,
        }
    }
}

/// Everything that is asked of a host, over one connection.
fn connect(system: &System, host: &Host, asks: &[Ask], limit: Duration) -> Result<String, String> {
    let asks: Vec<&Ask> = asks.iter().filter(|ask| **ask != Ask::Answers).collect();
    let words = remote::command(&asks);
    let invocation = if host.local { ssh::here(limit, &words) } else { ssh::run(host, None, limit, &words) };
    match system.output(&invocation) {
        Ok(output) if output.code == Some(255) && !host.local => {
            let said = tail(&output.stderr);
            let said = said.last().map_or("it gave no reason", String::as_str);
            Err(format!("ssh: {}", said.trim_start_matches("ssh: ")))
        }
        Ok(output) => Ok(output.stdout),
        Err(error) => Err(error.to_string()),
    }
}

/// An answer; one that says that it is busy, or none, is asked for again while there is time.
pub(crate) fn patient(url: &str, limit: Duration) -> Result<Response, String> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(200);
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let result = client().ask(&http::Ask { url, limit: left, headers: &[], json: None });
        let again = match &result {
            Ok(answer) => web::is_busy(answer.status),
            Err(why) => !why.contains("ertificate"),
        };
        if !again || Instant::now() + pause * 2 >= end || pause > Duration::from_millis(1500) {
            let response =
                |answer: http::Answer| Response { status: answer.status, location: answer.location, body: answer.body };
            return result.map(response).map_err(|why| {
                let why = web::explain(&why);
                if why == "no answer in time" { format!("no answer within {:.1} s", limit.as_secs_f32()) } else { why }
            });
        }
        signal::sleep(pause).map_err(|error| error.to_string())?;
        pause *= 2;
    }
}

/// One agent for all: reading the machine's authorities takes a while.
fn client() -> &'static Client {
    static CLIENT: std::sync::OnceLock<Client> = std::sync::OnceLock::new();
    CLIENT.get_or_init(Client::new)
}

/// Asks an address and judges the answer.
pub(crate) fn visit(url: &str, answer: &Answer, tailnet: Option<&str>, limit: Duration) -> Verdict {
    match patient(url, limit) {
        Ok(response) => web::judge(answer, tailnet, &response),
        Err(why) => no_answer(&why),
    }
}

/// Why nothing came back; a certificate that is no good is an answer.
fn no_answer(why: &str) -> Verdict {
    if why.contains("certificate") { Verdict::bad(why) } else { Verdict::unanswered(why) }
}

/// Does a port take connections, and does PostgreSQL answer where it should?
fn knock(host: &str, port: u16, limit: Duration) -> Verdict {
    let mut stream = match tls::connect(host, port, limit) {
        Ok(stream) => stream,
        Err(why) => return no_answer(&web::explain(&why)),
    };
    let mut said = [0; 1];
    // PostgreSQL's request for TLS: its length, and a number that means it.
    if port == 5432 && stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).is_ok() && stream.read_exact(&mut said).is_err()
    {
        return Verdict::bad("it takes connections and says nothing");
    }
    web::judge_port(port, &said)
}

fn verdict(
    check: &Check,
    at: usize,
    replies: &BTreeMap<&Batch, Option<(Reply, Duration)>>,
    now: Timestamp,
) -> (Verdict, Duration) {
    let Some(Some((reply, took))) = replies.get(&batch(check, at)) else {
        return (Verdict::unanswered("it did not answer in time, and did not end"), Duration::ZERO);
    };
    let verdict = match (reply, &check.question) {
        (Reply::Verdict(verdict), _) => verdict.clone(),
        (Reply::Objects(Err(why)) | Reply::Text(Err(why)), _) => Verdict::unanswered(format!("can't be asked: {why}")),
        (Reply::Objects(Ok(objects)), Question::Object { cluster, namespace, name, want }) => {
            let pods = Batch::List { cluster: cluster.clone(), kind: Kind::Pod, namespace: None };
            match (want, replies.get(&pods)) {
                (Want::Workload(_), Some(Some((Reply::Objects(Err(why)), _)))) => {
                    Verdict::unanswered(format!("its pods can't be asked for: {why}"))
                }
                (_, pods) => {
                    let pods = match pods {
                        Some(Some((Reply::Objects(Ok(pods)), _))) => pods.as_slice(),
                        _ => &[],
                    };
                    kube::judge(want, namespace, name, &kube::Seen { cluster, objects, pods, now })
                }
            }
        }
        (Reply::Text(Ok(text)), Question::OnHost { ask, .. }) => remote::judge(ask, text),
        (Reply::Text(Ok(text)), Question::Scrape { job, targets, .. }) => scrapes::judge(job, targets, text),
        _ => Verdict::bad("the answer is not to this question"),
    };
    (verdict, *took)
}

/// Fetches the last lines of every container that crashes.
fn logs(cx: &Context, world: &World, all: &mut [Checked]) -> Result<()> {
    let culprits: Vec<Culprit> = all.iter().filter_map(|checked| culprit(&checked.verdict)).cloned().collect();
    let jobs = culprits.iter().map(|culprit| {
        let (system, context, culprit) =
            (cx.system.clone(), context(world, &culprit.cluster).cloned(), culprit.clone());
        let lane = culprit.cluster.clone();
        let work = move || last_lines(&system, &context.ok()?, &culprit);
        Job { lane, at_once: CLUSTER_AT_ONCE, limit: PROGRAM, work: Box::new(work) }
    });
    let found = pool::run(jobs.collect(), &mut |_| ())?;
    for checked in all {
        if let Verdict::Bad(Bad { culprit: Some(culprit), log, .. }) = &mut checked.verdict
            && let Some(at) = culprits.iter().position(|known| known == culprit)
        {
            *log = found[at].clone().flatten().unwrap_or_default();
        }
    }
    Ok(())
}

fn culprit(verdict: &Verdict) -> Option<&Culprit> {
    if let Verdict::Bad(bad) = verdict { bad.culprit.as_ref() } else { None }
}

fn last_lines(system: &System, context: &KubeContext, culprit: &Culprit) -> Option<Vec<String>> {
    let place = (culprit.namespace.as_str(), culprit.pod.as_str(), culprit.container.as_str());
    let of = |previous| {
        let output = system.output(&kubectl::logs(context, place, previous)).ok()?;
        Some(tail(&output.stdout)).filter(|lines| output.success() && !lines.is_empty())
    };
    of(culprit.previous).or_else(|| of(!culprit.previous))
}
