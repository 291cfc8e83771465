//! Scrapes: the jobs and targets that are configured, and what Prometheus says of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Verdict;
use crate::checks::monitoring::configurations;
use crate::model::source::Source;
use crate::model::world::World;
use crate::model::yaml::{self, Node};

/// Every job with its fixed targets.
pub(crate) fn jobs(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut jobs = BTreeMap::new();
    for text in configurations(world) {
        if text.contains("scrape_configs:") {
            prometheus(text, &mut jobs);
        } else if text.contains("prometheus.scrape") {
            alloy(text, &mut jobs);
        }
    }
    jobs
}

fn prometheus(text: &str, jobs: &mut BTreeMap<String, Vec<String>>) {
    for document in yaml::parse(&Source::new("prometheus.yml", text)).unwrap_or_default() {
        for scrape in document.get("scrape_configs").map_or(&[][..], Node::items) {
            let Some(name) = scrape.get("job_name").and_then(Node::text) else { continue };
            let configs = scrape.get("static_configs").map_or(&[][..], Node::items);
            let targets = configs.iter().flat_map(|config| config.get("targets").map_or(&[][..], Node::items));
            let targets = targets.filter_map(Node::text).map(str::to_owned);
            jobs.entry(name.to_owned()).or_default().extend(targets);
        }
    }
}

/// Alloy's blocks `prometheus.scrape "name" { targets = […] job_name = "…" }`.
fn alloy(text: &str, jobs: &mut BTreeMap<String, Vec<String>>) {
    for block in text.split("prometheus.scrape ").skip(1) {
        let block = block.split("\n}").next().unwrap_or(block);
        let quoted = |marker: &str| -> Vec<String> {
            let rest = block.match_indices(marker).map(|(at, _)| &block[at + marker.len()..]);
            rest.filter_map(|rest| rest.trim_start_matches([' ', '=']).strip_prefix('"')?.split('"').next())
                .map(str::to_owned)
                .collect()
        };
        let label = block.trim_start_matches('"').split('"').next().unwrap_or_default();
        let name = quoted("job_name").into_iter().next().unwrap_or_else(|| format!("prometheus.scrape.{label}"));
        jobs.entry(name).or_default().extend(quoted("\"__address__\""));
    }
}

/// The address that asks Prometheus at `base` for `query`.
pub(crate) fn address(base: &str, query: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    format!("{base}/api/v1/query?query={}", query.bytes().map(encode).collect::<String>())
}

/// The series of an answer of Prometheus' query API, as labels and value.
///
/// # Errors
/// What it says instead.
pub(crate) fn series(body: &str) -> Result<Vec<(Value, String)>, String> {
    let value: Value = serde_json::from_str(body).map_err(|_| "the answer is not Prometheus'".to_owned())?;
    if value["status"] != "success" {
        return Err(format!("Prometheus says: {}", value["error"].as_str().unwrap_or("nothing")));
    }
    let result = value["data"]["result"].as_array().ok_or("the answer has no result")?;
    let one = |item: &Value| (item["metric"].clone(), item["value"][1].as_str().unwrap_or_default().to_owned());
    Ok(result.iter().map(one).collect())
}

/// Judges the `up` of a job.
pub(crate) fn judge(job: &str, targets: &[String], body: &str) -> Verdict {
    let all = match series(body) {
        Ok(all) => all,
        Err(why) => return Verdict::bad(why),
    };
    let own: Vec<&(Value, String)> = all.iter().filter(|(labels, _)| labels["job"] == job).collect();
    let instance = |labels: &Value| labels["instance"].as_str().unwrap_or("?").to_owned();
    let down: Vec<String> = own.iter().filter(|(_, value)| value != "1").map(|(labels, _)| instance(labels)).collect();
    let missing: Vec<&String> =
        targets.iter().filter(|target| !own.iter().any(|(labels, _)| instance(labels) == **target)).collect();
    let list = |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if own.is_empty() {
        Verdict::bad("Prometheus has no such job")
    } else if !down.is_empty() {
        Verdict::bad(format!("down: {}", down.join(", ")))
    } else if !missing.is_empty() {
        Verdict::bad(format!("not scraped: {}", list(&missing)))
    } else {
        Verdict::Fine(format!("{} up", own.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_both_kinds() {
        let mut jobs = BTreeMap::new();
        prometheus(
            "scrape_configs:\n  - job_name: cnpg\n    static_configs:\n      - targets: ['pg:9187']\n",
            &mut jobs,
        );
        alloy(
            "prometheus.scrape \"a\" {\n  targets = [\n    {\"__address__\" = \"a.svc:1\", \"x\" = \"y\"},\n    {\"__address__\" = \"b.svc:2\"},\n  ]\n  job_name = \"authentik\"\n}\nprometheus.scrape \"b\" {\n}\n",
            &mut jobs,
        );
        assert_eq!(jobs["cnpg"], ["pg:9187"]);
        assert_eq!(jobs["authentik"], ["a.svc:1", "b.svc:2"]);
        assert!(jobs["prometheus.scrape.b"].is_empty());
    }

    #[test]
    fn up_is_judged_by_target() {
        let body = |value: &str| {
            format!(
                r#"{{"status":"success","data":{{"result":[{{"metric":{{"job":"a","instance":"x:1"}},"value":[1,"{value}"]}}]}}}}"#
            )
        };
        let seen = |job: &str, targets: &[&str], body: &str| {
            let targets: Vec<String> = targets.iter().map(|&target| target.to_owned()).collect();
            judge(job, &targets, body).seen().to_owned()
        };
        assert_eq!(seen("a", &["x:1"], &body("1")), "1 up");
        assert_eq!(seen("a", &["x:1"], &body("0")), "down: x:1");
        assert_eq!(seen("a", &["x:1", "y:2"], &body("1")), "not scraped: y:2");
        assert_eq!(seen("b", &[], &body("1")), "Prometheus has no such job");
        assert_eq!(seen("a", &[], "<html>"), "the answer is not Prometheus'");
        assert_eq!(seen("a", &[], r#"{"status":"error","error":"parse"}"#), "Prometheus says: parse");
    }
}
