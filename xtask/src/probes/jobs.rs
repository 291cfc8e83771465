//! Jobs and `CronJobs`: did the last run end well, and was every run started that was due?

use std::str::FromStr as _;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::kube::{Seen, text};
use super::remote::age;
use super::{Bad, Culprit, Outlook, Verdict};

/// How late, in seconds, a run may start.
const LATE: i64 = 300;

/// What names its Job on a pod; the second is the older one.
const LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Judges a Job.
pub(super) fn job(object: &Value, seen: &Seen<'_>) -> Verdict {
    let status = &object["status"];
    let count = |key: &str| status[key].as_u64().unwrap_or_default();
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let condition = |kind: &str| conditions.iter().find(|it| it["type"] == kind && it["status"] == "True");
    let name = text(&object["metadata"]["name"]);
    let failed = |what: String, outlook| {
        let culprit = culprit(object, seen, |job| job == name);
        Verdict::Bad(Bad { seen: what, outlook, culprit, log: Vec::new() })
    };
    if let Some(why) = condition("Failed") {
        failed(format!("it failed: {}: {}", text(&why["reason"]), text(&why["message"])), Outlook::Hopeless)
    } else if condition("Complete").is_some() {
        Verdict::Fine("complete".to_owned())
    } else if object["spec"]["suspend"] == true {
        Verdict::bad("it is suspended")
    } else if count("failed") > 0 {
        failed(format!("{} of its pods failed, and it goes on", count("failed")), Outlook::MayPass)
    } else if count("active") > 0 {
        Verdict::Fine("running".to_owned())
    } else {
        Verdict::bad("no pod of it runs")
    }
}

/// Judges a `CronJob`; one that was not due yet has no status at all.
pub(super) fn scheduled(object: &Value, seen: &Seen<'_>) -> Verdict {
    let (spec, status) = (&object["spec"], &object["status"]);
    let (last, good) = (time(&status["lastScheduleTime"]), time(&status["lastSuccessfulTime"]));
    let ago = |then: Timestamp| age(seen.now.duration_since(then).as_secs().max(0).unsigned_abs());
    let is_active = status["active"].as_array().is_some_and(|active| !active.is_empty());
    if spec["suspend"] == true {
        let last =
            last.map_or_else(|| "it has never run".to_owned(), |last| format!("its last run was {} ago", ago(last)));
        return Verdict::bad(format!("it is suspended, and git does not say so; {last}"));
    }
    if let Some(last) = last
        && !is_active
        && good.is_none_or(|good| good < last)
    {
        let prefix = format!("{}-", text(&object["metadata"]["name"]));
        let numbered =
            |job: &str| job.strip_prefix(&prefix).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        let good = good.map_or_else(
            || "none has succeeded".to_owned(),
            |good| format!("the last good one ended {} ago", ago(good)),
        );
        let seen_ = format!("the run of {} ago did not succeed; {good}", ago(last));
        let culprit = culprit(object, seen, numbered);
        return Verdict::Bad(Bad { seen: seen_, outlook: Outlook::MayPass, culprit, log: Vec::new() });
    }
    let Some(since) = last.or_else(|| time(&object["metadata"]["creationTimestamp"])) else {
        return Verdict::bad("nothing says since when it is there");
    };
    match (due(spec, since), last) {
        (Err(why), _) => Verdict::bad(format!("its schedule {} can't be read: {why}", spec["schedule"])),
        (Ok(due), Some(_)) if is_late(due, seen.now) && is_active => {
            Verdict::bad(format!("a run was due {} ago, and the one of {} ago still goes on", ago(due), ago(since)))
        }
        (Ok(due), Some(_)) if is_late(due, seen.now) => {
            Verdict::bad(format!("a run was due {} ago and was not started; the last was {} ago", ago(due), ago(since)))
        }
        (Ok(due), None) if is_late(due, seen.now) => {
            Verdict::bad(format!("it has never run, and was due {} ago", ago(due)))
        }
        (Ok(_), Some(_)) if is_active => Verdict::Fine(format!("running for {}", ago(since))),
        (Ok(_), Some(_)) => Verdict::Fine(format!("the run of {} ago succeeded", ago(since))),
        (Ok(due), None) => Verdict::Fine(format!("due for the first time at {due}")),
    }
}

fn is_late(due: Timestamp, now: Timestamp) -> bool {
    now.duration_since(due).as_secs() > LATE
}

/// The first run after `since`.
fn due(spec: &Value, since: Timestamp) -> Result<Timestamp, String> {
    let schedule = spec["schedule"].as_str().unwrap_or_default();
    // The controller's own zone, where none is named, is UTC.
    let zone = spec["timeZone"].as_str().map(TimeZone::get).transpose().map_err(|error| error.to_string())?;
    let since = since.to_zoned(zone.unwrap_or(TimeZone::UTC));
    if let Some(every) = schedule.strip_prefix("@every ") {
        let every: jiff::SignedDuration = every.trim().parse().map_err(|error| format!("{error}"))?;
        return (since.timestamp() + every).round(jiff::Unit::Second).map_err(|error| error.to_string());
    }
    let cron = Cron::from_str(schedule).map_err(|error| error.to_string())?;
    let next = cron.find_next_occurrence(&since, false).map_err(|error| error.to_string())?;
    Ok(next.timestamp())
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// The container that ended badly in the newest failed pod of a Job that is meant.
fn culprit(object: &Value, seen: &Seen<'_>, is_meant: impl Fn(&str) -> bool) -> Option<Culprit> {
    let job =
        |pod: &Value| LABELS.iter().find_map(|label| pod["metadata"]["labels"][label].as_str().map(str::to_owned));
    let is_of = |pod: &&Value| {
        pod["metadata"]["namespace"] == object["metadata"]["namespace"] && job(pod).is_some_and(|job| is_meant(&job))
    };
    let failed = seen.pods.iter().filter(is_of).filter(|pod| pod["status"]["phase"] == "Failed");
    let pod = failed.max_by_key(|pod| time(&pod["metadata"]["creationTimestamp"]))?;
    let lists = ["initContainerStatuses", "containerStatuses"].map(|key| pod["status"][key].as_array());
    let ended = |status: &&Value| {
        let state = &status["state"]["terminated"];
        state.is_object() && state["exitCode"] != 0
    };
    let status = lists.into_iter().flatten().flatten().find(ended)?;
    Some(Culprit {
        cluster: seen.cluster.to_owned(),
        namespace: text(&pod["metadata"]["namespace"]).to_owned(),
        pod: text(&pod["metadata"]["name"]).to_owned(),
        container: text(&status["name"]).to_owned(),
        previous: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(judge: fn(&Value, &Seen<'_>) -> Verdict, object: &Value, pods: &[Value]) -> Verdict {
        let now = "2026-02-20T12:00:00Z".parse().unwrap();
        judge(object, &Seen { cluster: "c", objects: &[], pods, now })
    }

    fn pod(job: &str, at: &str) -> Value {
        json!({"metadata": {"namespace": "n", "name": format!("{job}-{at}"), "creationTimestamp": format!("2026-02-20T{at}:00:00Z"),
            "labels": {"job-name": job}}, "status": {"phase": "Failed", "containerStatuses": [
            {"name": "side", "state": {"terminated": {"exitCode": 0}}}, {"name": "main", "state": {"terminated": {"exitCode": 3}}}]}})
    }

    #[test]
    fn a_job_is_judged_by_how_it_ended() {
        let of = |status: Value| {
            let object = json!({"metadata": {"name": "migrate", "namespace": "n"}, "spec": {}, "status": status});
            judged(job, &object, &[pod("migrate", "10"), pod("migrate", "11"), pod("other", "11")])
        };
        let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]});
        assert_eq!(of(condition("Complete")), Verdict::Fine("complete".into()));
        assert_eq!(of(json!({"active": 1})), Verdict::Fine("running".into()));
        assert!(!of(json!({"active": 1, "failed": 2})).is_fine() && !of(json!({"ready": 0})).is_fine());
        let Verdict::Bad(bad) = of(condition("Failed")) else { panic!("it failed") };
        assert_eq!((bad.seen.as_str(), bad.outlook), ("it failed: BackoffLimitExceeded: too often", Outlook::Hopeless));
        let culprit = bad.culprit.unwrap();
        assert_eq!((culprit.pod.as_str(), culprit.container.as_str()), ("migrate-11", "main"));
    }

    #[test]
    fn a_cron_job_is_judged_by_its_last_run_and_by_what_was_due() {
        let of = |spec: Value, status: Value| {
            let metadata = json!({"name": "dump", "namespace": "n", "creationTimestamp": "2026-02-19T00:30:00Z"});
            let object = json!({"metadata": metadata, "spec": spec, "status": status});
            judged(scheduled, &object, &[pod("dump-1", "10"), pod("dump-er-1", "11")])
        };
        let hourly = || json!({"schedule": "0 * * * *"});
        let ran = |last: &str, good: &str| json!({"lastScheduleTime": last, "lastSuccessfulTime": good});
        let seen = |spec, status| of(spec, status).seen().to_owned();
        let (noon, eleven) = ("2026-02-20T12:00:00Z", "2026-02-20T11:00:00Z");
        assert!(of(hourly(), ran(noon, "2026-02-20T12:00:09Z")).is_fine());
        assert!(of(hourly(), ran(eleven, "2026-02-20T11:00:09Z")).is_fine(), "it is due just now");
        let Verdict::Bad(bad) = of(hourly(), ran(noon, eleven)) else { panic!("it failed") };
        assert_eq!(bad.seen, "the run of 0 s ago did not succeed; the last good one ended 60 min ago");
        assert_eq!(bad.culprit.unwrap().pod, "dump-1-10");
        assert!(seen(hourly(), json!({"lastScheduleTime": noon})).ends_with("none has succeeded"));
        assert!(of(hourly(), json!({"lastScheduleTime": noon, "active": [{}]})).is_fine());
        assert_eq!(seen(hourly(), json!({})), "it has never run, and was due 35 h ago");
        assert!(of(json!({"schedule": "0 0 1 1 *"}), json!({})).is_fine());
        let late = ran("2026-02-20T08:00:00Z", "2026-02-20T08:01:00Z");
        assert_eq!(seen(hourly(), late), "a run was due 3 h ago and was not started; the last was 4 h ago");
        let hangs = json!({"lastScheduleTime": "2026-02-20T08:00:00Z", "active": [{}]});
        assert_eq!(seen(hourly(), hangs), "a run was due 3 h ago, and the one of 4 h ago still goes on");
        assert!(seen(json!({"schedule": "0 * * * *", "suspend": true}), json!({})).contains("it has never run"));
        assert!(seen(json!({"schedule": "nonsense"}), json!({})).contains("can't be read"));
        assert!(of(json!({"schedule": "@every 90m"}), ran(eleven, "2026-02-20T11:00:09Z")).is_fine());
        assert!(of(json!({"schedule": "@daily"}), ran("2026-02-20T00:00:00Z", "2026-02-20T00:00:09Z")).is_fine());
    }
}
