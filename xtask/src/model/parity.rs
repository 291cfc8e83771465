//! The upstream chart that a service is compared with, and the differences that somebody has accepted.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::finding::Finding;
use super::source::{Place, Source};

/// Where the file of a service is, seen from the root.
pub(crate) fn path_of(service: &str) -> String {
    format!("{FOLDER}/{service}.toml")
}

const FOLDER: &str = "xtask/parity";

/// A version as charts have them: `2025.12.4`, `v1.2.3-rc.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChartVersion(String);

impl FromStr for ChartVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let core = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
        let parts: Vec<&str> = core.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if parts.len() == 3 && parts.iter().all(is_number) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no version of a chart; one is 2025.12.4"))
        }
    }
}

impl fmt::Display for ChartVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `--chart` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That version of the chart that the service's file names.
    Version(ChartVersion),
    /// A folder or a packed chart on this machine.
    File(PathBuf),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(version) => Ok(Self::Version(version)),
            Err(_) if text.is_empty() || text.starts_with('-') || text.contains("://") => {
                Err("expected a version, a folder or a .tgz; --repo names a repository".to_owned())
            }
            Err(_) => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

/// Where charts are got from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChartRepository {
    /// One with an index.
    Http(String),
    /// A registry and a namespace in it.
    Oci(String),
}

impl FromStr for ChartRepository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = text.trim_end_matches('/');
        let rest = ["https://", "http://", "oci://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let is_plain = |rest: &str| !rest.is_empty() && !rest.contains(['@', '?', '#', ' ']);
        match rest {
            Some(rest) if is_plain(rest) && url.starts_with("oci:") => Ok(Self::Oci(url.to_owned())),
            Some(rest) if is_plain(rest) => Ok(Self::Http(url.to_owned())),
            _ => Err("expected https://…, http://… or oci://…, without credentials".to_owned()),
        }
    }
}

impl fmt::Display for ChartRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Http(url) | Self::Oci(url)) = self;
        f.write_str(url)
    }
}

/// A chart by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChartName(String);

impl FromStr for ChartName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let fine = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed);
        if fine { Ok(Self(text.to_owned())) } else { Err(format!("{text:?} is no name of a chart")) }
    }
}

impl fmt::Display for ChartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file of a service; all of it may be left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<ChartName>,
    pub(crate) repository: Option<ChartRepository>,
    pub(crate) version: Option<ChartVersion>,
    /// The values that make the comparison fair, relative to the root.
    pub(crate) values: Option<String>,
    /// The Kubernetes that the chart is rendered for.
    pub(crate) kube_version: Option<String>,
    pub(crate) accepted: Vec<Accepted>,
    /// Blocks without a reason.
    pub(crate) unreasoned: Vec<Place>,
}

/// A difference that somebody has decided to live with.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// As [`super::parity`]'s differences write themselves: `path: chart -> ours`.
    pub(crate) line: String,
    pub(crate) reason: String,
    pub(crate) place: Place,
}

impl Accepted {
    /// Which trait it speaks of.
    pub(crate) fn path(&self) -> &str {
        self.line.split_once(": ").map_or(&self.line, |(path, _)| path)
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSettings {
    chart: RawChart,
    accepted: Vec<RawAccepted>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawChart {
    name: Option<String>,
    repository: Option<String>,
    version: Option<String>,
    values: Option<String>,
    kube_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccepted {
    #[serde(default)]
    reason: String,
    differences: toml::Spanned<Vec<toml::Spanned<String>>>,
}

impl Settings {
    /// Reads the file of a service.
    ///
    /// # Errors
    /// A finding at the line that is unknown, missing or malformed.
    pub(crate) fn parse(source: &Source) -> Result<Self, Box<Finding>> {
        let raw: RawSettings = toml::from_str(&source.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            Box::new(Finding::environment("config", error.message().to_owned()).at(source.place(span.start, span.end)))
        })?;
        let chart = raw.chart;
        let mut settings = Self {
            name: read(source, chart.name)?,
            repository: read(source, chart.repository)?,
            version: read(source, chart.version)?,
            values: chart.values.map(|name| format!("{FOLDER}/{name}")),
            kube_version: chart.kube_version,
            ..Self::default()
        };
        for block in raw.accepted {
            let span = block.differences.span();
            if block.reason.trim().is_empty() {
                settings.unreasoned.push(source.first_line(span.start, span.end));
            }
            for line in block.differences.into_inner() {
                let place = source.place(line.span().start, line.span().end);
                let accepted = |line| Accepted { line, reason: block.reason.clone(), place: place.clone() };
                settings.accepted.extend(of_each(line.get_ref()).into_iter().map(accepted));
            }
        }
        Ok(settings)
    }
}

/// `server,worker/port/http: …` is one line for two.
fn of_each(line: &str) -> Vec<String> {
    match line.split_once('/') {
        Some((first, rest)) if !first.contains(':') => {
            first.split(',').map(|role| format!("{}/{rest}", role.trim())).collect()
        }
        _ => vec![line.to_owned()],
    }
}

fn read<T: FromStr<Err = String>>(source: &Source, text: Option<String>) -> Result<Option<T>, Box<Finding>> {
    let read = |text: String| {
        text.parse()
            .map_err(|why| Box::new(Finding::environment("config", why).at(source.find(&format!("\"{text}\"")))))
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_from_a_path() {
        assert!(matches!("2025.12.4".parse(), Ok(Wanted::Version(_))));
        assert!(matches!("v1.2.3-rc.1".parse(), Ok(Wanted::Version(_))));
        for path in ["authentik-2025.12.4.tgz", "./2025.12.4", "charts/authentik", "2025.12"] {
            assert!(matches!(path.parse(), Ok(Wanted::File(_))), "{path}");
        }
        assert!("https://x/y".parse::<Wanted>().is_err() && "--debug".parse::<Wanted>().is_err());
        assert!("https://user:word@x".parse::<ChartRepository>().is_err());
        assert!("--flag".parse::<ChartName>().is_err());
    }

    #[test]
    fn mistakes_are_found_at_their_line() {
        for (text, line) in [
            ("[chart]\nnam = \"x\"\n", 2),
            ("[chart]\nversion = \"latest\"\n", 2),
            ("[[accepted]]\nreason = \"x\"\n", 1),
            ("[chart]\nname = \"x\"\nrepository = \"ftp://x\"\n", 3),
        ] {
            let finding = Settings::parse(&Source::new("x.toml", text)).unwrap_err();
            assert_eq!(finding.place.unwrap().line_column().0, line, "{text}");
        }
    }

    #[test]
    fn every_accepted_difference_knows_its_line() {
        let text = "[[accepted]]\nreason = \"so\"\ndifferences = [\n  \"a/b: 1 -> 2\",\n  \"c: x: y/z -> none\",\n  \"d,e/f: 1 -> 2\",\n]\n[[accepted]]\ndifferences = []\n";
        let settings = Settings::parse(&Source::new("x.toml", text)).unwrap();
        let lines: Vec<_> = settings.accepted.iter().map(|a| (a.path().to_owned(), a.place.line_column().0)).collect();
        let expected = [("a/b", 4), ("c", 5), ("d/f", 6), ("e/f", 6)].map(|(path, line)| (path.to_owned(), line));
        assert_eq!(lines, expected);
        assert_eq!(settings.unreasoned.len(), 1);
    }
}
