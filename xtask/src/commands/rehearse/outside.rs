//! What the plan asks for outside the tailnet and its clusters: mirrors on the forge, upstream's chart. Stand-ins, served
//! by a real Caddy; the chart is packed by a real helm.

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::enclosure::OUTSIDE_PORT;
use crate::commands::Context;
use crate::exec::fs;
use crate::exec::workspace::Workspace;
use crate::model::parity::{self, ChartName, ChartRepository, Settings};
use crate::model::repo::Repo;
use crate::model::upstream;
use crate::tools::{Invocation, helm, line};

/// Who is there to be asked.
pub(super) struct Outside {
    forge: Option<Forge>,
    pub(super) charts: Option<Charts>,
}

/// Forgejo's API behind Caddy, as far as mirrors are asked for.
struct Forge {
    /// Of this machine, where Caddy's role looks for it.
    port: u16,
    /// Path of each repository, and what it mirrors.
    mirrors: Vec<(String, String)>,
}

/// The repository of upstream's chart.
pub(super) struct Charts {
    pub(super) host: String,
    /// Empty, or with a slash before it.
    path: String,
    chart: ChartName,
}

impl Outside {
    /// What the repository names; `entries` are Caddy's services.
    pub(super) fn of(repo: &Repo, root: &Path, service: &str, entries: &[Value]) -> Self {
        let settings = fs::source(root, &root.join(parity::path_of(service)));
        let settings = settings.and_then(|file| Settings::parse(&file).ok());
        let charts = settings.and_then(Charts::of);
        Self { forge: Forge::of(repo, entries), charts: charts.filter(|charts| root.join(charts.folder()).is_dir()) }
    }

    /// The commands that bring it up; the last one serves.
    pub(super) fn lines(&self, workspace: &Workspace) -> Vec<Invocation> {
        let charts = self.charts.iter().flat_map(|charts| {
            let chart = workspace.text(&format!("clone/{}", charts.folder()));
            helm::repository(&chart, &workspace.text(FOLDER))
        });
        let file = workspace.text(CADDYFILE);
        charts.chain([line!("caddy run --config {file} --adapter caddyfile")]).collect()
    }

    /// Makes what is served; gives the command that serves it.
    pub(super) fn make(&self, cx: &Context, workspace: &Workspace) -> Result<Invocation> {
        std::fs::create_dir_all(workspace.path(FOLDER)).context("can't make a folder for charts")?;
        let mut lines = self.lines(workspace);
        let serve = lines.pop().context("nothing serves")?;
        for line in &lines {
            cx.system.stdout(line, "the repository of charts")?;
        }
        workspace.write(CADDYFILE, &self.caddyfile(workspace))?;
        Ok(serve)
    }

    fn caddyfile(&self, workspace: &Workspace) -> String {
        let mut text = "{\n\tadmin off\n\tauto_https off\n}\n".to_owned();
        if let Some(Forge { port, mirrors }) = &self.forge {
            let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
            let _ = write!(text, "http://:{port} {{\n\tbind 127.0.0.1\n");
            for (path, url) in mirrors {
                let body = json!({
                    "mirror": true, "empty": false, "original_url": url, "mirror_interval": "8h0m0s",
                    "mirror_updated": now.to_string(),
                });
                let _ = write!(text, "\thandle {path} {{\n\t\trespond `{body}`\n\t}}\n");
            }
            text += "\thandle {\n\t\trespond 404\n\t}\n}\n";
        }
        if let Some(Charts { host, path, .. }) = &self.charts {
            let (pki, folder) = (workspace.text("pki/outside"), workspace.text(FOLDER));
            let _ = write!(
                text,
                "https://{host}:{OUTSIDE_PORT} {{\n\ttls {pki}.crt {pki}.key\n\thandle_path {path}/* {{\n\t\troot * {folder}\n\t\tfile_server\n\t}}\n}}\n"
            );
        }
        text
    }
}

const FOLDER: &str = "outside/charts";
const CADDYFILE: &str = "outside/Caddyfile";

impl Forge {
    fn of(repo: &Repo, entries: &[Value]) -> Option<Self> {
        let url = repo.config.forge.url.as_ref()?.to_string();
        let name = url.split("://").nth(1)?.split('.').next()?.to_owned();
        let is_it =
            |entry: &&Value| entry["host"].as_str().is_some_and(|host| host.split('.').next() == Some(name.as_str()));
        let backend = entries.iter().find(is_it)?["backend"].as_str()?;
        let port = backend.strip_prefix("http://localhost:").or_else(|| backend.strip_prefix("http://127.0.0.1:"))?;
        let owner = repo.config.owner_of_mirrors();
        let mirrors = upstream::all(repo)
            .into_iter()
            .map(|upstream| (format!("/api/v1/repos/{owner}/{}", upstream.name), upstream.url))
            .collect();
        Some(Self { port: port.parse().ok()?, mirrors })
    }
}

impl Charts {
    fn of(settings: Settings) -> Option<Self> {
        let (Some(chart), Some(ChartRepository::Http(url))) = (settings.name, settings.repository) else {
            return None;
        };
        let (host, path) = url.strip_prefix("https://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Some(Self { host: host.to_owned(), path, chart })
    }

    fn folder(&self) -> String {
        format!("xtask/stand-ins/chart/{}", self.chart)
    }
}
