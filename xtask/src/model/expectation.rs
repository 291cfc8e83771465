//! What is expected to be well beside what the repository deploys: `[[checks]]` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use super::finding::Finding;
use super::source::{Place, Source};

/// One expectation.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pub(crate) name: String,
    pub(crate) subject: Subject,
    pub(crate) timeout: Option<Duration>,
    pub(crate) place: Place,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// An address, with what it answers.
    Web { url: String, answer: Answer },
    /// Another path than the derived one for a service of Caddy.
    Caddy { service: String, path: String, answer: Answer },
    /// A port that takes connections.
    Tcp { host: String, port: u16 },
    /// Something on a host of the inventory.
    OnHost { host: String, ask: Ask },
}

/// An answer that is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Empty for 2xx and 3xx.
    pub(crate) status: Vec<u16>,
    pub(crate) contains: Option<String>,
}

/// A question to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// It answers at all.
    Answers,
    /// A launchd agent runs, or ended well where it only runs now and then.
    Launchd { label: String, scheduled: bool },
    /// A systemd unit is active.
    Systemd { unit: String },
    /// A service of Homebrew is started.
    Brew { service: String },
    /// A file is younger than this.
    File { path: String, max_age: Duration },
    /// It is online in its tailnet.
    Tailscale,
}

/// A failure that somebody has decided to live with.
#[derive(Clone, Debug)]
pub(crate) struct WaivedCheck {
    pub(crate) check: String,
    pub(crate) reason: String,
    pub(crate) place: Place,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCheck {
    name: toml::Spanned<String>,
    url: Option<String>,
    caddy: Option<String>,
    path: Option<String>,
    tcp: Option<String>,
    host: Option<String>,
    launchd: Option<String>,
    systemd: Option<String>,
    brew: Option<String>,
    file: Option<String>,
    #[serde(default)]
    tailscale: bool,
    #[serde(default)]
    scheduled: bool,
    max_age: Option<String>,
    #[serde(default)]
    status: Vec<u16>,
    contains: Option<String>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWaivedCheck {
    check: toml::Spanned<String>,
    reason: String,
}

pub(super) fn parse(raw: Vec<RawCheck>, source: &Source) -> Result<Vec<Expectation>, Box<Finding>> {
    let one = |raw: RawCheck| {
        let span = raw.name.span();
        let place = source.place(span.start, span.end);
        let bad = |why: String| Box::new(Finding::environment("config", why).at(place.clone()));
        let name = raw.name.get_ref().clone();
        let timeout = raw.timeout.as_deref().map(duration).transpose().map_err(bad)?;
        let subject = subject(raw).map_err(|why| bad(format!("{name}: {why}")))?;
        Ok(Expectation { name, subject, timeout, place })
    };
    raw.into_iter().map(one).collect()
}

pub(super) fn waived(raw: Vec<RawWaivedCheck>, source: &Source) -> Result<Vec<WaivedCheck>, Box<Finding>> {
    let one = |raw: RawWaivedCheck| {
        let span = raw.check.span();
        let place = source.place(span.start, span.end);
        if raw.reason.trim().is_empty() {
            let finding = Finding::environment("config", "a check is waived without a reason");
            return Err(Box::new(finding.at(place)));
        }
        Ok(WaivedCheck { check: raw.check.into_inner(), reason: raw.reason, place })
    };
    raw.into_iter().map(one).collect()
}

fn subject(raw: RawCheck) -> Result<Subject, String> {
    let on_host = [raw.launchd.is_some(), raw.systemd.is_some(), raw.brew.is_some(), raw.file.is_some(), raw.tailscale];
    let asks = on_host.iter().filter(|given| **given).count();
    let kinds = [raw.url.is_some(), raw.caddy.is_some(), raw.tcp.is_some(), raw.host.is_some()];
    if kinds.iter().filter(|given| **given).count() != 1 {
        return Err("expected exactly one of url, caddy, tcp and host".to_owned());
    }
    if (raw.host.is_some() && asks != 1) || (raw.host.is_none() && asks != 0) {
        return Err("host goes with exactly one of launchd, systemd, brew, file and tailscale".to_owned());
    }
    if raw.file.is_some() != raw.max_age.is_some() {
        return Err("file and max_age go together".to_owned());
    }
    if raw.scheduled && raw.launchd.is_none() {
        return Err("scheduled goes with launchd".to_owned());
    }
    let answer = Answer { status: raw.status, contains: raw.contains };
    if answer != Answer::default() && raw.url.is_none() && raw.caddy.is_none() {
        return Err("status and contains go with url or caddy".to_owned());
    }
    if let Some(url) = raw.url {
        let known = url.strip_prefix("https://").or(url.strip_prefix("http://")).is_some_and(|rest| !rest.is_empty());
        return if known && !url.contains('@') && !url.contains(char::is_whitespace) {
            Ok(Subject::Web { url, answer })
        } else {
            Err("url: expected http:// or https://, a host and a path, and no credentials".to_owned())
        };
    }
    if let Some(service) = raw.caddy {
        let path = raw.path.filter(|path| path.starts_with('/')).ok_or("caddy wants a path that starts with /")?;
        return Ok(Subject::Caddy { service, path, answer });
    }
    if let Some(address) = raw.tcp {
        let (host, port) = address.rsplit_once(':').ok_or("tcp: expected host:port")?;
        let port = port.parse().map_err(|_| "tcp: expected host:port".to_owned())?;
        return Ok(Subject::Tcp { host: host.to_owned(), port });
    }
    let ask = match (raw.launchd, raw.systemd, raw.brew, raw.file, raw.max_age) {
        (Some(label), ..) => Ask::Launchd { label, scheduled: raw.scheduled },
        (_, Some(unit), ..) => Ask::Systemd { unit },
        (_, _, Some(service), ..) => Ask::Brew { service },
        (_, _, _, Some(path), Some(age)) => Ask::File { path, max_age: duration(&age)? },
        _ => Ask::Tailscale,
    };
    Ok(Subject::OnHost { host: raw.host.unwrap_or_default(), ask })
}

/// `90s`, `30m`, `2h` or `3d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let shape = || format!("{text:?}: expected a number and s, m, h or d, as 90s or 2h");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return Err(shape()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| shape())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(shape)
}

#[cfg(test)]
mod tests {
    use crate::model::config::{Config, PATH};
    use crate::model::expectation::{Ask, Subject};
    use crate::model::source::Source;

    fn parse(text: &str) -> Result<Config, usize> {
        Config::parse(Some(&Source::new(PATH, text)))
            .map_err(|finding| finding.place.map_or(0, |place| place.line_column().0))
    }

    #[test]
    fn every_kind_is_understood() {
        let config = parse(
            "checks = [\n{name='a', url='https://a.example/x', status=[401]},\n{name='b', host='indri', launchd='x.y', scheduled=true},\n{name='c', host='indri', file='/f', max_age='26h'},\n{name='d', tcp='pg.example:5432'},\n{name='e', caddy='feed', path='/healthcheck'}]\nwaived_checks = [{check='a', reason='moving'}]\n",
        )
        .unwrap();
        assert_eq!(config.checks.len(), 5);
        assert!(matches!(&config.checks[1].subject, Subject::OnHost { ask: Ask::Launchd { scheduled: true, .. }, .. }));
        assert_eq!(config.waived_checks[0].reason, "moving");
    }

    #[test]
    fn mistakes_are_found_at_their_line() {
        for text in [
            "checks = [\n{name='a'}]",
            "checks = [\n{name='a', url='https://u:p@x/'}]",
            "checks = [\n{name='a', host='x'}]",
            "checks = [\n{name='a', host='x', file='/f'}]",
            "checks = [\n{name='a', tcp='x'}]",
            "checks = [\n{name='a', url='https://x/', nonsense=1}]",
            "checks = [\n{name='a', url='https://x/', timeout='5'}]",
            "waived_checks = [\n{check='a', reason=' '}]",
        ] {
            assert_eq!(parse(text).err(), Some(2), "{text}");
        }
    }
}
