//! `xtask/blumeops.toml`: what the repository can't say itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::expectation::{self, Expectation, WaivedCheck};
use super::finding::Finding;
use super::image::{Architecture, Compression, Home};
use super::promise::Promises;
use super::source::Source;
use super::waiver::Waiver;

/// Where the file is, seen from the root.
pub(crate) const PATH: &str = "xtask/blumeops.toml";

/// An `http` or `https` address without path, user or password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) secure: bool,
    /// Host and, where given, port.
    pub(crate) authority: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err("expected http://host[:port] or https://host[:port]".to_owned()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if authority.is_empty() || !authority.chars().all(allowed) {
            return Err(
                "expected a host and perhaps a port after http:// or https://, no path and no credentials".to_owned()
            );
        }
        Ok(Self { secure, authority: authority.to_owned() })
    }
}

/// The forge that builds what is tagged.
#[derive(Clone, Debug)]
pub(crate) struct Forge {
    pub(crate) url: Option<Endpoint>,
    /// `owner/name`
    pub(crate) repository: String,
    pub(crate) remote: String,
    pub(crate) branch: String,
    pub(crate) workflow: String,
}

/// A cluster that Applications may name as their destination.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) architecture: Architecture,
    /// What kubectl calls it; without one no command asks this cluster anything.
    pub(crate) context: Option<KubeContext>,
    /// Where kubectl reaches it, where that is not `server`.
    pub(crate) api: Option<String>,
    /// What its engines read of layers beside gzip.
    pub(crate) layers: Compression,
    /// Where the context of that name leads on this machine, if not to this cluster.
    pub(crate) astray: Option<String>,
}

impl Cluster {
    /// What kubectl is to be told.
    ///
    /// # Errors
    /// Why it can't be asked.
    pub(crate) fn context(&self) -> Result<&KubeContext, String> {
        let Self { name, context, astray, .. } = self;
        match (context, astray, self.address()) {
            (None, ..) => Err(format!("{PATH} names no context for the cluster {name}")),
            (Some(context), None, _) => Ok(context),
            (Some(context), Some(there), here) => Err(format!(
                "the context {context} leads to {there} on this machine, and the repository has {name} at {}: write api = \"{there}\" into [clusters.{name}] of {PATH} if that is the same",
                here.unwrap_or_default()
            )),
        }
    }

    /// Where it is, as far as the repository says: `ArgoCD`'s own name for where it runs is no address.
    fn address(&self) -> Option<&str> {
        let server = Some(self.server.as_str()).filter(|server| *server != "https://kubernetes.default.svc");
        self.api.as_deref().or(server)
    }

    /// Notes where kubeconfigs say that its context leads. A tunnel that ends on this machine may lead anywhere.
    pub(crate) fn meet(&mut self, servers: &BTreeMap<String, String>) {
        let there = self.context.as_ref().and_then(|context| servers.get(&context.0));
        let elsewhere = |there: &&String| self.address().is_some_and(|here| !same_server(here, there));
        self.astray = there.filter(elsewhere).cloned();
    }

    /// Is it where an API server is asked at `server`, whatever the port?
    pub(crate) fn is_at(&self, server: &str) -> bool {
        let (there, _) = host_and_port(server);
        self.address().map(|here| host_and_port(here).0).is_some_and(|here| is_same_host(&here, &there))
    }
}

/// Of an address, in lower case; where it names no port, that of https.
pub(crate) fn host_and_port(url: &str) -> (String, String) {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let (host, port) =
        authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).unwrap_or((authority, "443"));
    (host.to_ascii_lowercase(), port.to_owned())
}

/// The short name of a host is its first label.
fn is_same_host(named: &str, used: &str) -> bool {
    named == used || named.split('.').next() == Some(used)
}

/// The same host and port.
fn same_server(named: &str, used: &str) -> bool {
    let ((here, here_port), (there, there_port)) = (host_and_port(named), host_and_port(used));
    let is_loopback = there.starts_with("127.") || ["localhost", "[::1]"].contains(&there.as_str());
    is_loopback || (here_port == there_port && is_same_host(&here, &there))
}

/// The name of a context in a kubeconfig. Only what the repository names is ever used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KubeContext(String);

impl FromStr for KubeContext {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As kubeadm names its own: kubernetes-admin@kubernetes.
        plain(&text.replace('@', "-")).map_err(|_| format!("{text:?} is not a plain name"))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KubeContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole file, valid.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where our images are named; without a file it is read off the manifests.
    pub(crate) home: Option<Home>,
    pub(crate) forge: Forge,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) waivers: Vec<Waiver>,
    /// Names in the tailnet of what this repository does not deploy.
    pub(crate) elsewhere: Vec<String>,
    /// What is to be well beside what is deployed.
    pub(crate) checks: Vec<Expectation>,
    pub(crate) waived_checks: Vec<WaivedCheck>,
    /// The one ArgoCD that commands speak to: its host.
    pub(crate) argocd: Option<String>,
    /// Who owns the mirrors on the forge; default: who owns the repository.
    pub(crate) mirrors: Option<String>,
    /// What deployments promise that are planned.
    pub(crate) plans: Promises,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    registry: Option<RawRegistry>,
    forge: RawForge,
    clusters: BTreeMap<String, RawCluster>,
    waivers: Vec<RawWaiver>,
    tailnet: RawTailnet,
    checks: Vec<expectation::RawCheck>,
    waived_checks: Vec<expectation::RawWaivedCheck>,
    argocd: RawArgocd,
    mirrors: RawMirrors,
    plans: Promises,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawArgocd {
    server: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawMirrors {
    owner: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawTailnet {
    elsewhere: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWaiver {
    rule: toml::Spanned<String>,
    path: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegistry {
    host: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawForge {
    url: Option<String>,
    repository: String,
    remote: String,
    branch: String,
    workflow: String,
}

impl Default for RawForge {
    fn default() -> Self {
        Self {
            url: None,
            repository: String::new(),
            remote: "origin".to_owned(),
            branch: "main".to_owned(),
            workflow: "build-container-nix.yaml".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    server: String,
    architecture: Architecture,
    context: Option<String>,
    api: Option<String>,
    #[serde(default)]
    layers: Compression,
}

impl Config {
    /// Who owns the mirrors on the forge.
    pub(crate) fn owner_of_mirrors(&self) -> String {
        let owner = || self.forge.repository.split('/').next().unwrap_or_default().to_owned();
        self.mirrors.clone().unwrap_or_else(owner)
    }

    /// Reads the file; without one, everything has the default that most repositories of this layout share.
    ///
    /// # Errors
    /// A finding at the line that is unknown, missing or malformed.
    pub(crate) fn parse(source: Option<&Source>) -> Result<Self, Box<Finding>> {
        let empty = Source::new(PATH, "");
        let source = source.unwrap_or(&empty);
        let raw: RawConfig = toml::from_str(&source.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            Box::new(Finding::environment("config", error.message().to_owned()).at(source.place(span.start, span.end)))
        })?;
        let bad = |value: &str, why: String| Box::new(Finding::environment("config", why).at(source.find(value)));
        for (value, what) in
            [(&raw.forge.remote, "remote"), (&raw.forge.branch, "branch"), (&raw.forge.workflow, "workflow")]
        {
            plain(value).map_err(|why| bad(value, format!("{what}: {why}")))?;
        }
        let home = raw.registry.map(|registry| Home { host: registry.host, namespace: registry.namespace });
        if let Some(home) = &home {
            plain(&home.host).and_then(|()| plain(&home.namespace)).map_err(|why| bad(&home.host, why))?;
        }
        let url = raw.forge.url.map(|url| url.parse().map_err(|why| bad(&url, why))).transpose()?;
        let RawForge { repository, remote, branch, workflow, .. } = raw.forge;
        let mut clusters = Vec::new();
        for (name, RawCluster { server, architecture, context, api, layers }) in raw.clusters {
            let context = context.map(|text| text.parse().map_err(|why| bad(&text, format!("context: {why}"))));
            let context = context.transpose()?;
            clusters.push(Cluster { name, server, architecture, context, api, layers, astray: None });
        }
        for value in [&raw.argocd.server, &raw.mirrors.owner].into_iter().flatten() {
            plain(value).map_err(|why| bad(value, why))?;
        }
        // A service is a word of the commands that its plan prints.
        raw.plans.iter().try_for_each(|(name, promise)| {
            let mut words = promise.containers.iter().chain(&promise.database).chain(&promise.replaces).chain([name]);
            words.try_for_each(|word| plain(word).map_err(|why| bad(word, why)))
        })?;
        let waivers = raw.waivers.iter().map(|raw| {
            let span = raw.rule.span();
            Waiver::of_path(raw.rule.get_ref(), &raw.path, &raw.reason, source.place(span.start, span.end))
        });
        let waivers = waivers.collect();
        Ok(Self {
            home,
            forge: Forge { url, repository, remote, branch, workflow },
            clusters,
            waivers,
            elsewhere: raw.tailnet.elsewhere,
            checks: expectation::parse(raw.checks, source)?,
            waived_checks: expectation::waived(raw.waived_checks, source)?,
            argocd: raw.argocd.server,
            mirrors: raw.mirrors.owner,
            plans: raw.plans,
        })
    }
}

/// A word that can stand in a command line or a path without meaning anything else.
fn plain(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':');
    if text.is_empty() || text.starts_with('-') || text.contains("..") || !text.chars().all(allowed) {
        return Err(format!("{text:?} is not a plain name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_leads_elsewhere_is_not_used() {
        let text =
            "[clusters.a]\nserver = 'https://a.example.ts.net:6443'\narchitecture = 'amd64'\ncontext = 'k3s-a'\n";
        let asked = |more: &str, there: &str| {
            let config = Config::parse(Some(&Source::new(PATH, &(text.to_owned() + more)))).unwrap();
            let mut cluster = config.clusters.into_iter().next().unwrap();
            cluster.meet(&BTreeMap::from([("k3s-a".to_owned(), there.to_owned())]));
            cluster.context().map(ToString::to_string)
        };
        for well in
            ["https://a.example.ts.net:6443", "https://A:6443/", "https://127.0.0.1:16443", "https://localhost:1"]
        {
            assert_eq!(asked("", well).as_deref(), Ok("k3s-a"), "{well}");
        }
        for astray in ["https://b.example.ts.net:6443", "https://a.example.ts.net:6444", "https://100.64.0.7:6443", ""]
        {
            assert!(asked("", astray).unwrap_err().contains("leads to"), "{astray}");
        }
        assert!(asked("api = 'https://100.64.0.7:6443'", "https://100.64.0.7:6443").is_ok());
        assert!(asked("api = 'https://100.64.0.7:6443'", "https://a.example.ts.net:6443").is_err());
    }

    #[test]
    fn an_engine_reads_gzip_and_may_read_more() {
        let text = "[clusters.a]\nserver = 'x'\narchitecture = 'amd64'\n[clusters.b]\nserver = 'y'\narchitecture = 'amd64'\nlayers = 'zstd'\n";
        let config = Config::parse(Some(&Source::new(PATH, text))).unwrap();
        let layers: Vec<Compression> = config.clusters.iter().map(|cluster| cluster.layers).collect();
        assert_eq!(layers, [Compression::Gzip, Compression::Zstd]);
    }

    #[test]
    fn mistakes_are_found_at_their_line() {
        for (text, line) in [
            ("[forge]\nremot = 'x'\n", 2),
            ("[forge]\n\nurl = 'ftp://x'\n", 3),
            ("[clusters.a]\nserver = 'x'\narchitecture = 'mips'\n", 3),
            ("[forge]\nremote = '--upload-pack=x'\n", 2),
            ("[clusters.a]\nserver = 'x'\narchitecture = 'amd64'\ncontext = '--token=x'\n", 4),
        ] {
            let finding = Config::parse(Some(&Source::new(PATH, text))).unwrap_err();
            assert_eq!(finding.place.unwrap().line_column().0, line, "{text}");
        }
    }

    #[test]
    fn no_file_is_a_valid_configuration() {
        let config = Config::parse(None).unwrap();
        assert_eq!((config.forge.remote.as_str(), config.forge.branch.as_str()), ("origin", "main"));
    }

    #[test]
    fn endpoints_hold_no_credentials() {
        assert!("https://a:b@c".parse::<Endpoint>().is_err());
        assert_eq!("http://127.0.0.1:5000/".parse::<Endpoint>().unwrap().to_string(), "http://127.0.0.1:5000");
    }
}
