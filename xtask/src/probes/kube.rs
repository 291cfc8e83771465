//! Objects as a cluster has them.

use jiff::Timestamp;
use serde_json::Value;

use super::{Bad, Culprit, Outlook, Verdict, Want, jobs};

/// A container that was started again less long ago than this is not well, whatever it says now.
const RECENT: i64 = 600;

/// Reasons that no waiting cures.
const HOPELESS: [&str; 8] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What a cluster has of what is asked about.
pub(crate) struct Seen<'a> {
    pub(crate) cluster: &'a str,
    /// All objects of the kind.
    pub(crate) objects: &'a [Value],
    pub(crate) pods: &'a [Value],
    pub(crate) now: Timestamp,
}

/// Judges the object called `name`.
pub(crate) fn judge(want: &Want, namespace: &str, name: &str, seen: &Seen<'_>) -> Verdict {
    if *want == Want::Nodes {
        return nodes(seen.objects);
    }
    let same = |object: &&Value| object["metadata"]["name"] == name && object["metadata"]["namespace"] == namespace;
    let Some(object) = seen.objects.iter().find(same) else {
        return match want {
            Want::Job { passes: true } => Verdict::Fine("it has ended and was removed".to_owned()),
            _ => Verdict::bad(format!("there is none in namespace {namespace}")),
        };
    };
    if *want == Want::CronJob {
        return jobs::scheduled(object, seen);
    }
    let status = &object["status"];
    if !status.is_object() || status.as_object().is_some_and(serde_json::Map::is_empty) {
        return Verdict::bad("it has no status: nothing has looked at it yet");
    }
    match want {
        Want::Application { revision } => application(object, revision),
        Want::Workload(_) => workload(object, seen),
        Want::Job { .. } => jobs::job(object, seen),
        Want::CronJob => jobs::scheduled(object, seen),
        Want::Cluster { roles } => cluster(status, roles),
        Want::Database => match status["applied"].as_bool() {
            Some(true) => Verdict::Fine("applied".to_owned()),
            _ => Verdict::bad(format!("not applied: {}", text(&status["message"]))),
        },
        Want::ExternalSecret => ready(status, "Ready"),
        Want::Ingress { host } => ingress(status, host),
        Want::Nodes => nodes(seen.objects),
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or("no reason given")
}

fn application(object: &Value, revision: &str) -> Verdict {
    let status = &object["status"];
    let (sync, health) = (text(&status["sync"]["status"]), text(&status["health"]["status"]));
    let mut reasons = Vec::new();
    let sources = object["spec"]["sources"].as_array().cloned().unwrap_or_default();
    let single = Some(&object["spec"]["source"]).filter(|source| source.is_object());
    for source in single.into_iter().chain(&sources).filter(|source| source["chart"].is_null()) {
        let live = source["targetRevision"].as_str().unwrap_or("HEAD");
        if live != revision {
            reasons.push(format!("on {live} instead of {revision}"));
        }
    }
    if sync != "Synced" {
        reasons.push(format!("sync {sync}"));
    }
    if health != "Healthy" {
        let message = status["health"]["message"].as_str().map_or_else(String::new, |message| format!(": {message}"));
        reasons.push(format!("{health}{message}"));
    }
    let broken = status["operationState"]["phase"].as_str().filter(|phase| ["Failed", "Error"].contains(phase));
    if let Some(phase) = broken {
        reasons.push(format!("last sync {phase}: {}", text(&status["operationState"]["message"])));
    }
    let errors = status["conditions"].as_array().cloned().unwrap_or_default();
    let errors =
        errors.iter().filter(|condition| condition["type"].as_str().is_some_and(|kind| kind.ends_with("Error")));
    reasons.extend(errors.map(|condition| text(&condition["message"]).to_owned()));
    if reasons.is_empty() { Verdict::Fine(format!("{sync}, {health}")) } else { Verdict::bad(reasons.join("; ")) }
}

fn workload(object: &Value, seen: &Seen<'_>) -> Verdict {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    let is_daemon =
        object["kind"] == "DaemonSet" || spec["replicas"].is_null() && status["desiredNumberScheduled"].is_u64();
    let (wanted, ready) = if is_daemon {
        (number("desiredNumberScheduled"), number("numberReady"))
    } else {
        (spec["replicas"].as_u64().unwrap_or(1), number("readyReplicas"))
    };
    if let Some(bad) = seen.pods.iter().filter(|pod| belongs(pod, object)).find_map(|pod| pod_trouble(pod, seen)) {
        return Verdict::Bad(Bad { seen: format!("{ready} of {wanted} ready; {}", bad.seen), ..bad });
    }
    let behind = status["observedGeneration"].as_i64() < object["metadata"]["generation"].as_i64();
    if wanted == 0 {
        Verdict::bad("it is scaled to 0")
    } else if behind {
        Verdict::bad("its controller has not seen the last change")
    } else if ready < wanted {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let why =
            conditions.iter().find(|condition| condition["status"] == "False" || condition["type"] == "ReplicaFailure");
        let why = why.map_or_else(String::new, |condition| format!("; {}", text(&condition["message"])));
        Verdict::bad(format!("{ready} of {wanted} ready{why}"))
    } else if !is_daemon && !status["updatedReplicas"].is_null() && number("updatedReplicas") < wanted {
        Verdict::bad(format!("{} of {wanted} are of the last revision", number("updatedReplicas")))
    } else {
        Verdict::Fine(format!("{ready} of {wanted} ready"))
    }
}

/// Does a pod carry the labels that a workload selects?
fn belongs(pod: &Value, workload: &Value) -> bool {
    let labels = workload["spec"]["selector"]["matchLabels"].as_object();
    pod["metadata"]["namespace"] == workload["metadata"]["namespace"]
        && labels.is_some_and(|labels| {
            !labels.is_empty() && labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)
        })
}

/// What is wrong with a pod that should be running.
fn pod_trouble(pod: &Value, seen: &Seen<'_>) -> Option<Bad> {
    if pod["metadata"]["deletionTimestamp"].is_string() || pod["status"]["phase"] == "Succeeded" {
        return None;
    }
    let name = text(&pod["metadata"]["name"]);
    let lists = ["initContainerStatuses", "containerStatuses"].map(|key| pod["status"][key].as_array());
    for status in lists.into_iter().flatten().flatten() {
        let container = text(&status["name"]);
        let restarts = status["restartCount"].as_u64().unwrap_or_default();
        let waiting = status["state"]["waiting"]["reason"].as_str().filter(|reason| !is_starting(reason));
        let last = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
        let last = last.into_iter().find(|state| state.is_object() && state["exitCode"] != 0);
        let recently = last.is_some_and(|state| age(&state["finishedAt"], seen.now).is_some_and(|age| age < RECENT));
        let ended = last.map(|state| {
            let reason = state["reason"].as_str().filter(|reason| *reason != "Error");
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            format!("ended with {}{reason}", state["exitCode"])
        });
        let Some(what) = waiting.map(str::to_owned).or_else(|| {
            let (ended, often) = (ended.as_ref()?, restarts > 1 || !status["state"]["running"].is_object());
            (recently && often).then(|| format!("{ended} and was started {restarts} times again"))
        }) else {
            continue;
        };
        let message =
            status["state"]["waiting"]["message"].as_str().map_or_else(String::new, |text| format!(": {text}"));
        let ended = ended.filter(|ended| !what.contains(ended)).map_or_else(String::new, |ended| format!(", {ended}"));
        let outlook = if HOPELESS.contains(&what.as_str()) { Outlook::Hopeless } else { Outlook::MayPass };
        let culprit = Culprit {
            cluster: seen.cluster.to_owned(),
            namespace: text(&pod["metadata"]["namespace"]).to_owned(),
            pod: name.to_owned(),
            container: container.to_owned(),
            previous: restarts > 0 && !status["state"]["terminated"].is_object(),
        };
        // A container that never ran has no log.
        let culprit = Some(culprit).filter(|_| last.is_some());
        let message = if what == "CrashLoopBackOff" { String::new() } else { message };
        return Some(Bad {
            seen: format!("{name}/{container}: {what}{ended}{message}"),
            outlook,
            culprit,
            log: Vec::new(),
        });
    }
    unscheduled(pod, name)
}

fn is_starting(reason: &str) -> bool {
    ["ContainerCreating", "PodInitializing"].contains(&reason)
}

fn unscheduled(pod: &Value, name: &str) -> Option<Bad> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|it| it["type"] == "PodScheduled" && it["status"] == "False")?;
    let seen = format!("{name}: {}: {}", text(&condition["reason"]), text(&condition["message"]));
    Some(Bad { seen, outlook: Outlook::MayPass, culprit: None, log: Vec::new() })
}

/// Seconds since a time that Kubernetes wrote.
fn age(time: &Value, now: Timestamp) -> Option<i64> {
    let then: Timestamp = time.as_str()?.parse().ok()?;
    Some(now.duration_since(then).as_secs())
}

fn cluster(status: &Value, roles: &[String]) -> Verdict {
    let phase = text(&status["phase"]);
    let (ready, wanted) =
        (status["readyInstances"].as_u64().unwrap_or_default(), status["instances"].as_u64().unwrap_or(1));
    let managed = &status["managedRolesStatus"];
    let reconciled = |role: &String| {
        let lists = ["reconciled", "reserved"].map(|key| managed["byStatus"][key].as_array());
        lists.into_iter().flatten().flatten().any(|known| known == role.as_str())
    };
    let open: Vec<String> = roles
        .iter()
        .filter(|role| !reconciled(role))
        .map(|role| match managed["cannotReconcile"][role].as_array().and_then(|why| why.first()?.as_str()) {
            Some(why) => format!("role {role}: {why}"),
            None => format!("role {role} is not reconciled"),
        })
        .collect();
    if phase != "Cluster in healthy state" {
        Verdict::bad(format!("{phase}: {}", text(&status["phaseReason"])))
    } else if ready < wanted {
        Verdict::bad(format!("{ready} of {wanted} instances ready"))
    } else if !open.is_empty() {
        Verdict::bad(open.join("; "))
    } else {
        Verdict::Fine(format!("healthy, {ready} of {wanted} instances, {} roles", roles.len()))
    }
}

fn ready(status: &Value, kind: &str) -> Verdict {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter().find(|condition| condition["type"] == kind) {
        Some(condition) if condition["status"] == "True" => Verdict::Fine(kind.to_lowercase()),
        Some(condition) => Verdict::bad(format!("{}: {}", text(&condition["reason"]), text(&condition["message"]))),
        None => Verdict::bad(format!("nothing says whether it is {}", kind.to_lowercase())),
    }
}

fn ingress(status: &Value, host: &str) -> Verdict {
    let published = status["loadBalancer"]["ingress"][0]["hostname"].as_str().unwrap_or_default();
    let first = published.split('.').next().unwrap_or_default();
    if published.is_empty() {
        Verdict::bad("it has no name yet: the operator has not published it")
    } else if first == host {
        Verdict::Fine(published.to_owned())
    } else {
        Verdict::bad(format!("published as {published}"))
    }
}

fn nodes(nodes: &[Value]) -> Verdict {
    let bad: Vec<String> = nodes
        .iter()
        .filter_map(|node| match ready(&node["status"], "Ready") {
            Verdict::Fine(_) => None,
            Verdict::Bad(bad) => Some(format!("{}: {}", text(&node["metadata"]["name"]), bad.seen)),
        })
        .collect();
    match (nodes.len(), bad.is_empty()) {
        (0, _) => Verdict::bad("the cluster has no nodes"),
        (count, true) => Verdict::Fine(format!("{count} ready")),
        _ => Verdict::bad(bad.join("; ")),
    }
}
