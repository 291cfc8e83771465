//! What is asked of Forgejo: the state of the build that a tag set off.
//!
//! `actions/runs` came late, `actions/tasks` is older; a plain git server has neither. What a forge
//! can't say is left out, and the registry remains the judge.

pub(crate) mod mirror;

use anyhow::Result;
use serde::Deserialize;

use crate::exec::http::{Client, Patience, Request};
use crate::exec::run::tail;
use crate::exec::{env, signal};
use crate::model::config::{Endpoint, Forge as Config};
use crate::model::tag::GitTag;

/// The forge's word for how far a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) state: State,
    /// As the forge wrote it.
    pub(crate) status: String,
    pub(crate) page: Option<String>,
}

/// What a status means for somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    Running,
    Succeeded,
    Failed,
}

/// A forge with its repository.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    endpoint: Endpoint,
    repository: String,
    workflow: String,
    token: Option<String>,
    client: Client,
}

#[derive(Deserialize)]
struct RawRuns {
    #[serde(default)]
    workflow_runs: Vec<RawRun>,
}

#[derive(Deserialize)]
struct RawRun {
    id: u64,
    status: String,
    #[serde(default, alias = "head_sha")]
    commit_sha: String,
    #[serde(default)]
    workflow_id: String,
    #[serde(default, alias = "head_branch")]
    prettyref: String,
    #[serde(default, alias = "url")]
    html_url: Option<String>,
}

#[derive(Deserialize)]
struct RawJob {
    id: u64,
    #[serde(default)]
    status: String,
}

impl Forge {
    /// The forge of the configuration, or nothing where it names none.
    ///
    /// # Errors
    /// A token file that can't be read.
    pub(crate) fn new(endpoint: Option<Endpoint>, config: &Config) -> Result<Option<Self>, String> {
        let token = env::credential("BLUMEOPS_FORGE_TOKEN")?.map(|token| format!("token {token}"));
        Ok(endpoint.filter(|_| !config.repository.is_empty()).map(|endpoint| Self {
            endpoint,
            repository: config.repository.clone(),
            workflow: config.workflow.clone(),
            token,
            client: Client::new(),
        }))
    }

    /// The run that `tag` on `commit` set off; nothing where the forge knows of none or can't say.
    ///
    /// # Errors
    /// Interrupted.
    pub(crate) fn run(&self, tag: &GitTag, commit: &str) -> Result<Option<Run>> {
        for list in [format!("runs?event=push&head_sha={commit}&limit=50"), "tasks?limit=50".to_owned()] {
            let Some(text) = self.get(&format!("/api/v1/repos/{}/actions/{list}", self.repository))? else { continue };
            let Ok(runs) = serde_json::from_str::<RawRuns>(&text) else { continue };
            let found =
                runs.workflow_runs.into_iter().filter(|run| self.is_of(run, tag, commit)).max_by_key(|run| run.id);
            return Ok(found.map(|run| Run {
                id: run.id,
                state: state(&run.status),
                status: run.status,
                page: run.html_url,
            }));
        }
        Ok(None)
    }

    fn is_of(&self, run: &RawRun, tag: &GitTag, commit: &str) -> bool {
        let tag = tag.to_string();
        let same_ref = run.prettyref.is_empty() || run.prettyref == tag || run.prettyref == format!("refs/tags/{tag}");
        let same_workflow = run.workflow_id.is_empty() || run.workflow_id == self.workflow;
        run.commit_sha == commit && same_ref && same_workflow
    }

    /// The failing step and the end of the log, as far as the forge hands them out.
    ///
    /// # Errors
    /// Interrupted.
    pub(crate) fn failure_log(&self, run: &Run) -> Result<(Option<String>, Vec<String>)> {
        let jobs = self.get(&format!("/api/v1/repos/{}/actions/runs/{}/jobs", self.repository, run.id))?;
        let jobs = jobs.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()).unwrap_or_default();
        let list = jobs.get("jobs").unwrap_or(&jobs).clone();
        let jobs: Vec<RawJob> = serde_json::from_value(list).unwrap_or_default();
        let Some(job) = jobs.iter().find(|job| state(&job.status) == State::Failed).or(jobs.first()) else {
            return Ok((None, Vec::new()));
        };
        let log =
            self.get(&format!("/api/v1/repos/{}/actions/jobs/{}/logs", self.repository, job.id))?.unwrap_or_default();
        Ok((failing_step(&log), tail(&log)))
    }

    /// The body of a 200, nothing for any other answer: a forge that is down must not end a wait.
    fn get(&self, path: &str) -> Result<Option<String>> {
        let url = format!("{}{path}", self.endpoint);
        let request = Request::get(&url, "application/json, text/plain").authorized(self.token.as_deref());
        match self.client.send(&request.patience(Patience::AtOnce)) {
            Ok(mut response) if response.status() == 200 => Ok(response.body_mut().read_to_string().ok()),
            _ if signal::interrupted() => Err(signal::failure().into()),
            _ => Ok(None),
        }
    }
}

fn state(status: &str) -> State {
    match status {
        "success" => State::Succeeded,
        "failure" | "cancelled" | "skipped" => State::Failed,
        "running" => State::Running,
        _ => State::Queued,
    }
}

/// The runner marks a failed step with `❌  Failure - Main <step>`.
fn failing_step(log: &str) -> Option<String> {
    let step = log.lines().find_map(|line| line.split_once("Failure - "))?.1;
    Some(step.trim_start_matches("Main ").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_answers_are_understood() {
        let new = r#"{"workflow_runs":[{"id":7,"status":"running","commit_sha":"c","workflow_id":"w.yaml","prettyref":"redis-v1.0.0","html_url":"u"}]}"#;
        let old = r#"{"workflow_runs":[{"id":7,"status":"waiting","head_sha":"c","workflow_id":"w.yaml","head_branch":"redis-v1.0.0"}],"total_count":1}"#;
        for text in [new, old] {
            let runs: RawRuns = serde_json::from_str(text).unwrap();
            assert_eq!(
                (runs.workflow_runs[0].commit_sha.as_str(), runs.workflow_runs[0].prettyref.as_str()),
                ("c", "redis-v1.0.0")
            );
        }
        assert_eq!(
            [state("waiting"), state("blocked"), state("failure")],
            [State::Queued, State::Queued, State::Failed]
        );
        assert_eq!(failing_step("x\n  ❌  Failure - Main nix build\n").as_deref(), Some("nix build"));
    }
}
