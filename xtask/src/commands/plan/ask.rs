//! Asks reality how far a plan is: everybody at once, each within a time.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::Value;

use crate::commands::{Context, secrets, services_check};
use crate::exec::pool::{self, Job};
use crate::exec::{run, signal};
use crate::model::failure::{Failure, Kind};
use crate::model::name::ContainerName;
use crate::model::needs::Need;
use crate::model::plan::State;
use crate::model::tag::ImageTag;
use crate::model::version::Version;
use crate::model::world::World;
use crate::probes::plan::{Ask, Draft, Holds, state};
use crate::probes::{Check, Question};
use crate::tools::{git, op, own};

/// How long one of them may take. A verification and a chart start programs that ask others.
const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(90);

/// One question of a step.
type Asked = (String, Ask);

/// What was answered, step by step.
///
/// # Errors
/// Interrupted; nobody who answers is a state.
pub(super) fn all(cx: &Context, world: &World, drafts: &[Draft], service: &str) -> Result<BTreeMap<String, State>> {
    let (mut checks, mut others, mut remote) = (Vec::new(), Vec::new(), Vec::new());
    let mut states: BTreeMap<String, Vec<State>> = BTreeMap::new();
    for draft in drafts {
        let Holds::Asked(asks) = &draft.holds else { continue };
        states.entry(draft.id.clone()).or_default();
        for ask in asks {
            match ask {
                Ask::Well(check) => checks.push((draft.id.clone(), (**check).clone())),
                Ask::Tag(..) | Ask::Merged(_) => remote.push((draft.id.clone(), ask.clone())),
                Ask::Verified => {}
                _ => others.push((draft.id.clone(), ask.clone())),
            }
        }
    }
    let (clustered, plain): (Vec<_>, Vec<_>) =
        checks.into_iter().partition(|(_, check)| matches!(check.question, Question::Object { .. }));
    let answers = std::thread::scope(|scope| {
        let clustered = scope.spawn(|| well(cx, world, clustered));
        let plain = scope.spawn(|| well(cx, world, plain));
        let others = pooled(cx, service, others, remote);
        let lost = |_| Err(Failure::environment("a question ended without an answer").into());
        [clustered.join().unwrap_or_else(lost), plain.join().unwrap_or_else(lost), others]
    });
    for answer in answers {
        for (id, state) in answer? {
            states.entry(id).or_default().push(state);
        }
    }
    signal::check()?;
    let mut states: BTreeMap<String, State> =
        states.into_iter().map(|(id, states)| (id, State::all(&states))).collect();
    verified(cx, service, drafts, &mut states)?;
    Ok(states)
}

/// What stopped a question is why it has no answer; only an interruption stops everything.
fn why(error: anyhow::Error) -> Result<State> {
    let failure = error.downcast::<Failure>().unwrap_or_else(|error| Failure::environment(format!("{error:#}")));
    if failure.kind == Kind::Interrupted {
        return Err(failure.into());
    }
    let more = failure.findings.first().map(|finding| finding.message.clone()).or(failure.tail.last().cloned());
    Ok(State::Unknown(more.map_or_else(|| failure.summary.clone(), |more| format!("{}: {more}", failure.summary))))
}

/// What `services-check` asks, as it does.
fn well(cx: &Context, world: &World, checks: Vec<(String, Check)>) -> Result<Vec<(String, State)>> {
    let (ids, checks): (Vec<String>, Vec<Check>) = checks.into_iter().unzip();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    match services_check::all(cx, world, checks, &services_check::Asking::default()) {
        Ok(all) => Ok(ids.into_iter().zip(all.iter().map(state)).collect()),
        Err(error) => {
            let state = why(error)?;
            Ok(ids.into_iter().map(|id| (id, state.clone())).collect())
        }
    }
}

/// Everybody else: a thread each, given up when its time is over.
fn pooled(cx: &Context, service: &str, others: Vec<Asked>, remote: Vec<Asked>) -> Result<Vec<(String, State)>> {
    let mut jobs: Vec<Job<Result<Vec<State>>>> = Vec::new();
    let mut ids: Vec<Vec<String>> = Vec::new();
    for (id, ask) in others {
        ids.push(vec![id]);
        let (cx, service) = (owned(cx), service.to_owned());
        let limit = if matches!(ask, Ask::Chart) { LONG } else { LIMIT * 2 };
        // 1Password may want a fingerprint, and not several at once.
        let lane = if matches!(ask, Ask::Item(_)) { "vault".to_owned() } else { format!("{ask:?}") };
        let work = move || Ok(vec![one(&cx, &service, &ask).or_else(why)?]);
        jobs.push(Job { lane, at_once: 1, limit, work: Box::new(work) });
    }
    if !remote.is_empty() {
        ids.push(remote.iter().map(|(id, _)| id.clone()).collect());
        let cx = owned(cx);
        let work = move || of_remote(&cx, &remote);
        jobs.push(Job { lane: "remote".to_owned(), at_once: 1, limit: LONG, work: Box::new(work) });
    }
    let replies = pool::run(jobs, &mut |_| ())?;
    let mut found = Vec::new();
    for (ids, reply) in ids.into_iter().zip(replies) {
        let late = || Ok(vec![State::Unknown("no answer in time".to_owned()); ids.len()]);
        found.extend(ids.iter().cloned().zip(reply.unwrap_or_else(late)?));
    }
    Ok(found)
}

/// A context that a thread can keep.
fn owned(cx: &Context) -> Context {
    Context { system: cx.system.clone(), report: cx.report.clone(), repo: cx.repo.clone(), grammar: cx.grammar }
}

fn one(cx: &Context, service: &str, ask: &Ask) -> Result<State> {
    match ask {
        Ask::Mirror(url) => mirror(cx, url),
        Ask::Item(fields) => Ok(item(cx, fields)),
        Ask::Image(name) => image(cx, name),
        Ask::Chart => chart(cx, service),
        Ask::Tag(..) | Ask::Merged(_) | Ask::Well(_) | Ask::Verified => {
            Ok(State::Unknown("it was not asked".to_owned()))
        }
    }
}

fn mirror(cx: &Context, url: &str) -> Result<State> {
    let Some(forge) = cx.forge()? else { return Ok(State::Unknown("there is no forge to ask".to_owned())) };
    let owner = cx.repo.config.owner_of_mirrors();
    let name = url.rsplit('/').next().unwrap_or_default();
    Ok(match forge.repository(&owner, name)? {
        None => State::ToDo(format!("the forge has no {owner}/{name}")),
        Some(repository) => match repository.wrong(url, SystemTime::now()) {
            None => State::Done(format!("{owner}/{name}")),
            Some(why) => State::ToDo(format!("{owner}/{name}: {why}")),
        },
    })
}

/// Only names and whether they are set; nothing that op prints is shown.
fn item(cx: &Context, fields: &[Need]) -> State {
    let Some(first) = fields.first() else { return State::ToDo("no field of it is read".to_owned()) };
    if run::find("op").is_none() {
        return State::Unknown("op is not installed".to_owned());
    }
    let Ok(answer) = cx.system.output(&op::item(&first.vault, &first.item).limit(LIMIT)) else {
        return State::Unknown("op gave no answer in time".to_owned());
    };
    if !answer.success() {
        let trouble = op::trouble(&answer.stderr);
        let said = secrets::said(trouble);
        return if trouble == op::Trouble::NoItem { State::ToDo(said) } else { State::Unknown(said) };
    }
    let Ok(item) = op::parse(&answer.stdout) else {
        return State::Unknown("what op printed is no item".to_owned());
    };
    let judge = |need: &Need| match &need.field {
        Some(label) => secrets::field(&item, label).map(|why| format!("{label}: {why}")),
        None => secrets::whole(&item),
    };
    let wrong: Vec<String> = fields.iter().filter_map(judge).collect();
    if wrong.is_empty() {
        State::Done(format!("{} fields are set", fields.len()))
    } else {
        State::ToDo(wrong.join("; "))
    }
}

/// What is pinned, or else any release.
fn image(cx: &Context, name: &ContainerName) -> Result<State> {
    let home = cx.home()?;
    let (repository, image) = (home.repository(name), home.image(name));
    let registry = cx.registry()?.at_once();
    let users = cx.repo.users(&image);
    let pin = users.entries.iter().find_map(|(_, entry)| Some((entry.tag()?, entry.digest())));
    let Some((tag, digest)) = pin else {
        let tags = registry.tags(&repository)?;
        let newest = tags.iter().filter_map(|tag| tag.parse::<ImageTag>().ok()).max_by_key(|tag| tag.version);
        return Ok(match newest {
            Some(tag) => State::Done(format!("{repository}:{tag}")),
            None => State::ToDo(format!("the registry has no release of {repository}")),
        });
    };
    Ok(match registry.manifest(&repository, tag)? {
        None => State::ToDo(format!("{tag} is pinned, and the registry has no {repository}:{tag}")),
        Some(manifest) if digest.is_none_or(|pinned| pinned == manifest.digest.as_str()) => {
            State::Done(format!("{repository}:{tag} is {}", manifest.digest.short()))
        }
        Some(manifest) => {
            State::ToDo(format!("{repository}:{tag} is {}, which is not what is pinned", manifest.digest.short()))
        }
    })
}

/// Everything that is asked of the remote, with one question to it.
fn of_remote(cx: &Context, asked: &[Asked]) -> Result<Vec<State>> {
    let forge = &cx.repo.config.forge;
    let text = match cx.system.stdout(&git::ls_remote(&forge.remote, &forge.branch, "*-v*"), "asking the remote") {
        Ok(text) => text,
        Err(error) => return Ok(vec![why(error)?; asked.len()]),
    };
    let refs = git::parse_ls_remote(&text);
    let judge = |(_, ask): &Asked| match ask {
        Ask::Tag(name, version) => Ok(tag(cx, &refs, (name, *version))),
        Ask::Merged(paths) => merged(cx, refs.branch.as_deref(), paths).or_else(why),
        _ => Ok(State::Unknown("it was not asked".to_owned())),
    };
    asked.iter().map(judge).collect()
}

fn tag(cx: &Context, refs: &git::RemoteRefs, (name, version): (&ContainerName, Option<Version>)) -> State {
    let remote = &cx.repo.config.forge.remote;
    let mut tags = refs.tags.keys().filter(|tag| &tag.container == name);
    match version {
        Some(version) if tags.any(|tag| tag.version == version) => {
            State::Done(format!("{remote} has {name}-{version}"))
        }
        Some(version) => State::ToDo(format!("{version} is pinned, and {remote} has no tag {name}-{version}")),
        None => match tags.max_by_key(|tag| tag.version) {
            Some(tag) => State::Done(format!("{remote} has {tag}")),
            None => State::ToDo(format!("{remote} has no tag of it")),
        },
    }
}

/// Has the remote's main these files as they are here?
fn merged(cx: &Context, main: Option<&str>, paths: &[String]) -> Result<State> {
    let forge = &cx.repo.config.forge;
    let (remote, branch) = (&forge.remote, &forge.branch);
    let Some(main) = main else { return Ok(State::ToDo(format!("{remote} has no branch {branch}"))) };
    if !cx.system.output(&git::commit_of(main))?.success() {
        cx.system.stdout(&git::fetch_objects(remote, branch), "fetching the remote's main")?;
    }
    let mut left = git::parse_names(&cx.system.stdout(&git::differing(main, paths), "git diff")?);
    left.extend(git::parse_status(&cx.system.stdout(&git::status(paths), "git status")?));
    left.sort();
    left.dedup();
    Ok(match left.as_slice() {
        [] => State::Done(format!("{remote}'s {branch} at {}", main.get(..12).unwrap_or(main))),
        [only] => State::ToDo(format!("{only} is another there")),
        [first, rest @ ..] => State::ToDo(format!("{first} and {} more are others there", rest.len())),
    })
}

/// This program's own answer, by its exit code.
fn own(cx: &Context, words: &[&str]) -> Result<(Option<i32>, Value)> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = cx.system.output(&own::call(&words, &["--format", "json"])?.limit(LONG))?;
    Ok((output.code, serde_json::from_str(&output.stdout).unwrap_or_default()))
}

fn unknown(value: &Value) -> State {
    let text = |key: &str| value.pointer(key).and_then(Value::as_str);
    let more = text("/error/findings/0/message").map(|more| format!(": {more}")).unwrap_or_default();
    State::Unknown(format!("{}{more}", text("/error/summary").unwrap_or("it gave no answer")))
}

fn chart(cx: &Context, service: &str) -> Result<State> {
    let (code, value) = own(cx, &["parity", service])?;
    let result = &value["result"];
    let count = result["findings"].as_array().map(Vec::len);
    let accepted = &result["accepted"];
    Ok(match (code, count) {
        (Some(0), Some(_)) => State::Done(format!("{accepted} differences, each accepted with a reason")),
        (Some(1), Some(count)) => State::ToDo(format!("{count} differences that nobody has accepted")),
        _ => unknown(&value),
    })
}

/// The verification, once it is not in vain.
fn verified(cx: &Context, service: &str, drafts: &[Draft], states: &mut BTreeMap<String, State>) -> Result<()> {
    let is_meant = |draft: &&Draft| matches!(&draft.holds, Holds::Asked(asks) if asks.iter().any(|ask| matches!(ask, Ask::Verified)));
    for draft in drafts.iter().filter(is_meant) {
        let known = draft.needs.iter().filter_map(|need| Some((need, states.get(need)?)));
        let open = known.clone().find(|(_, state)| matches!(state, State::ToDo(_) | State::Blocked(..)));
        let unsure = known.clone().find(|(_, state)| matches!(state, State::Unknown(_)));
        let state = match (open, unsure) {
            (Some((need, _)), _) => State::ToDo(format!("not asked while {need} is not done")),
            (None, Some((need, _))) => State::Unknown(format!("not asked: it is not known of {need}")),
            (None, None) => verify(cx, service).or_else(why)?,
        };
        states.insert(draft.id.clone(), state);
    }
    Ok(())
}

fn verify(cx: &Context, service: &str) -> Result<State> {
    let (code, value) = own(cx, &["verify", service, "--services", service])?;
    let points = value.pointer("/result/points").and_then(Value::as_array);
    let Some(points) = points else { return Ok(unknown(&value)) };
    let failed: Vec<String> = points
        .iter()
        .filter(|point| point["state"] == "failed")
        .map(|point| {
            format!("{}: {}", point["point"].as_str().unwrap_or_default(), point["seen"].as_str().unwrap_or_default())
        })
        .collect();
    Ok(match (code, failed.is_empty()) {
        (Some(0), _) => State::Done(format!("{} points passed", points.len())),
        (_, false) => State::ToDo(failed.join("; ")),
        _ => unknown(&value),
    })
}
