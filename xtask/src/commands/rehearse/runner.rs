//! The forge's runner: takes the tags that the hook has queued and runs what the workflow runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::exec::run::System;
use crate::exec::signal;
use crate::exec::workspace::Workspace;
use crate::model::failure::Failure;
use crate::model::workflow;
use crate::report::Reporter;
use crate::tools::{git, own};

/// Runs the workflow's calls for each queued tag.
pub(super) struct Runner {
    system: System,
    report: Reporter,
    calls: Vec<String>,
    stopped: AtomicBool,
}

impl Runner {
    pub(super) fn new(system: System, report: Reporter, calls: Vec<String>) -> Self {
        Self { system, report, calls, stopped: AtomicBool::new(false) }
    }

    /// No job is started any more; with `now` the one that runs is ended, and all else with it.
    pub(super) fn stop(&self, now: bool) {
        self.stopped.store(true, Ordering::SeqCst);
        if now {
            signal::stop_children(Signal::TERM);
        }
    }

    /// Works until stopped.
    ///
    /// # Errors
    /// The first job that failed; whoever waits for its image is ended.
    pub(super) fn work(&self, workspace: &Workspace) -> Result<()> {
        while !self.stopped.load(Ordering::SeqCst) {
            for tag in workspace.names("forge.git/queue") {
                let done = self.job(workspace, &tag);
                if self.stopped.load(Ordering::SeqCst) {
                    return Ok(());
                }
                done.inspect_err(|_| signal::stop_children(Signal::TERM))?;
                workspace.remove_file(&format!("forge.git/queue/{tag}"))?;
            }
            if signal::sleep(Duration::from_millis(50)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn job(&self, workspace: &Workspace, tag: &str) -> Result<()> {
        let started = Instant::now();
        let folder = format!("runner/{tag}");
        let clone = git::clone_at(&workspace.text("forge.git"), &workspace.text(&folder), tag);
        self.system.stdout(&clone, "the runner's checkout failed")?;
        let mut overlay = self.system.overlay.clone();
        let files = [("GITHUB_OUTPUT", "outputs"), ("GITHUB_STEP_SUMMARY", "summary.md")];
        overlay.push(("GITHUB_REF_NAME".to_owned(), Some(tag.to_owned())));
        overlay
            .extend(files.map(|(name, file)| (name.to_owned(), Some(workspace.text(&format!("runner/{tag}.{file}"))))));
        let system = self.system.at(workspace.path(&folder), overlay);
        for call in &self.calls {
            let words = workflow::words(call, tag).map_err(Failure::refused)?;
            let invocation = own::tethered(&words, &[])?.limit(Duration::from_secs(1800));
            let output = system.output(&invocation)?;
            workspace.write(&format!("runner/{tag}.log"), &output.stderr)?;
            if !output.success() {
                let failure = system.failed(&invocation, &output, "the runner's build failed");
                return Err(Failure { command: Some(own::shown(&words)), ..failure }.into());
            }
        }
        let calls: Vec<&str> = self.calls.iter().map(String::as_str).collect();
        let seconds = started.elapsed().as_secs_f32();
        self.report.say(&format!("    (the runner ran `{}` for {tag} in {seconds:.1} s)", calls.join("; ")));
        Ok(())
    }
}
