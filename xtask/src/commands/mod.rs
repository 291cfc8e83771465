//! One file per subcommand: its arguments, then `run`.

pub(crate) mod apply;
pub(crate) mod branches;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod containers;
pub(crate) mod deploy;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod graph;
pub(crate) mod logs;
pub(crate) mod mirrors;
pub(crate) mod parity;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod provision;
pub(crate) mod publish;
pub(crate) mod refs;
pub(crate) mod registry;
pub(crate) mod rehearse;
pub(crate) mod release;
pub(crate) mod render;
pub(crate) mod report;
pub(crate) mod secrets;
pub(crate) mod services_check;
pub(crate) mod setup;
pub(crate) mod smoke;
pub(crate) mod verify;

use std::path::PathBuf;

use anyhow::Result;

use crate::exec::run::{self, System};
use crate::exec::{env, fs, signal};
use crate::forge::Forge;
use crate::model::failure::Failure;
use crate::model::finding::Finding;
use crate::model::grammar::Grammar;
use crate::model::image::Home;
use crate::model::name::ContainerName;
use crate::model::repo::{Container, Repo};
use crate::registry::{Credentials, Registry};
use crate::report::Reporter;
use crate::tools::argocd::{self, Argocd};
use crate::tools::catalog;

/// What every command works with.
pub(crate) struct Context {
    pub(crate) system: System,
    pub(crate) report: Reporter,
    pub(crate) repo: Repo,
    /// What the program can be called with, for the rule that judges calls.
    pub(crate) grammar: fn() -> Grammar,
}

impl Context {
    /// The same, of another checkout.
    pub(crate) fn at(&self, root: PathBuf) -> Result<Self> {
        let repo = Repo::load(fs::sources(&root))
            .map_err(|finding| Failure::of_findings("the configuration can't be read", vec![*finding]))?;
        let system = self.system.at(root, self.system.overlay.clone());
        Ok(Self { system, report: self.report.clone(), repo, grammar: self.grammar })
    }

    /// Every program that is missing, at once, before anything is done.
    pub(crate) fn preflight(programs: &[&'static str]) -> Result<()> {
        let is_missing = |program: &&&str| run::find(program).is_none();
        let findings: Vec<Finding> = programs
            .iter()
            .filter(is_missing)
            .map(|program| {
                Finding::environment("tool-missing", format!("{program} is not installed (not on PATH)"))
                    .help(catalog::install_hint(program))
            })
            .collect();
        if findings.is_empty() {
            Ok(())
        } else {
            Err(Failure::of_findings("nothing was done: a program is missing", findings).into())
        }
    }

    pub(crate) fn container(&self, name: &ContainerName) -> Result<&Container> {
        self.repo.container(name).map_err(|finding| Failure::of_findings("nothing was done", vec![finding]).into())
    }

    pub(crate) fn home(&self) -> Result<Home> {
        self.repo.home().map_err(|finding| Failure::of_findings("nothing was done", vec![finding]).into())
    }

    /// The registry of our images; `BLUMEOPS_REGISTRY_URL` names another door to it.
    pub(crate) fn registry(&self) -> Result<Registry> {
        let home = self.home()?;
        let url = env::var("BLUMEOPS_REGISTRY_URL").unwrap_or_else(|| format!("https://{}", home.host));
        let endpoint = url.parse().map_err(|why| Failure::environment(format!("BLUMEOPS_REGISTRY_URL: {why}")))?;
        Ok(Registry::new(endpoint, Credentials::find(&home.host).map_err(Failure::environment)?))
    }

    /// The forge, where there is one to ask; `BLUMEOPS_FORGE_URL` names another door to it, `none` none.
    pub(crate) fn forge(&self) -> Result<Option<Forge>> {
        let config = &self.repo.config.forge;
        let endpoint = match env::var("BLUMEOPS_FORGE_URL").as_deref() {
            Some("none") => None,
            Some(url) => Some(url.parse().map_err(|why| Failure::environment(format!("BLUMEOPS_FORGE_URL: {why}")))?),
            None => config.url.clone(),
        };
        Ok(Forge::new(endpoint, config).map_err(Failure::environment)?)
    }

    /// The one ArgoCD that the repository names.
    pub(crate) fn argocd(&self) -> Result<Argocd> {
        let server = self.repo.config.argocd.clone().ok_or_else(argocd::unnamed)?;
        Ok(Argocd { server })
    }

    /// Says what a failure leaves, where it does not say so itself.
    pub(crate) fn leaving<T>(result: Result<T>, left: &str) -> Result<T> {
        result.map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) if failure.left.is_none() && !failure.summary.contains("nothing was") => {
                let next =
                    failure.next.clone().unwrap_or_else(|| "the same command again goes on from there".to_owned());
                failure.left(left).next(next).into()
            }
            Ok(failure) => failure.into(),
            Err(error) => Failure::environment(format!("{error:#}")).left(left).into(),
        })
    }

    /// Stops here once a signal has come.
    pub(crate) fn pause_point(left: &str) -> Result<()> {
        if signal::interrupted() {
            return Err(signal::failure().left(left).next("the same command again finishes it").into());
        }
        Ok(())
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.system.root.join(relative)
    }

    /// Replaces a file of the checkout.
    pub(crate) fn write(&self, relative: &str, text: &str) -> Result<()> {
        fs::write(&self.path(relative), text)
    }
}
