//! A repository on the forge that mirrors another: is it one, is there something in it, is it fresh?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::Deserialize;

use super::Forge;
use crate::exec::http::Request;
use crate::model::failure::Failure;

/// What the forge says of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Repository {
    #[serde(default)]
    mirror: bool,
    #[serde(default)]
    empty: bool,
    #[serde(default)]
    original_url: String,
    #[serde(default)]
    mirror_interval: String,
    #[serde(default)]
    mirror_updated: String,
}

impl Forge {
    /// The repository `owner/name`; nothing where there is none that we may see.
    ///
    /// # Errors
    /// The forge can't be asked, or gives no answer that can be read.
    pub(crate) fn repository(&self, owner: &str, name: &str) -> Result<Option<Repository>> {
        let url = format!("{}/api/v1/repos/{owner}/{name}", self.endpoint);
        let request = Request::get(&url, "application/json").authorized(self.token.as_deref());
        let mut response = self.client.send(&request)?;
        match response.status().as_u16() {
            404 => Ok(None),
            200 => {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                let unreadable = |error| Failure::environment(format!("{url} gave what is no repository: {error}"));
                Ok(Some(serde_json::from_str(&text).map_err(unreadable)?))
            }
            status => Err(Failure::environment(format!("{url} answered {status}"))
                .next("a token in BLUMEOPS_FORGE_TOKEN may be needed")
                .into()),
        }
    }
}

impl Repository {
    /// What is wrong with it as a mirror of `upstream`, if anything is.
    pub(crate) fn wrong(&self, upstream: &str, now: SystemTime) -> Option<String> {
        let plain = |url: &str| url.trim_end_matches('/').trim_end_matches(".git").to_lowercase();
        if !self.mirror {
            return Some("it is no mirror".to_owned());
        }
        if !self.original_url.is_empty() && plain(&self.original_url) != plain(upstream) {
            return Some(format!("it mirrors {}", self.original_url));
        }
        if self.empty {
            return Some("it is empty: it has never been fetched".to_owned());
        }
        let Some(interval) = interval(&self.mirror_interval).filter(|interval| !interval.is_zero()) else {
            return Some(format!("it is never fetched again (interval {:?})", self.mirror_interval));
        };
        let Some(updated) = time(&self.mirror_updated) else {
            return Some(format!("it is not known when it was fetched ({:?})", self.mirror_updated));
        };
        let age = now.duration_since(updated).unwrap_or_default();
        // One fetch may be missed.
        let limit = interval * 2 + Duration::from_secs(3600);
        (age > limit).then(|| {
            format!(
                "it was last fetched {} hours ago, and should be every {}",
                age.as_secs() / 3600,
                self.mirror_interval
            )
        })
    }
}

/// Go's way to write a duration, as in `8h0m0s`.
fn interval(text: &str) -> Option<Duration> {
    let mut seconds = 0;
    for part in text.split_inclusive(['h', 'm', 's']) {
        let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
        let scale = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        seconds += number.parse::<u64>().ok()?.checked_mul(scale)?;
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// RFC 3339, as in `2026-02-20T10:00:00+01:00`.
fn time(text: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let clock = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.get(..1)? {
        "Z" => 0,
        sign => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let offset = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if sign == "-" { -offset } else { offset }
        }
    };
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(days * 86_400 + clock - offset).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_intervals() {
        let seconds = |text: &str| time(text).unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds("1970-01-01T00:00:00Z"), 0);
        assert_eq!(seconds("2024-02-29T12:00:00Z"), 1_709_208_000);
        assert_eq!(seconds("2026-02-20T11:00:00.5+01:00"), seconds("2026-02-20T10:00:00Z"));
        assert!(time("").is_none() && time("yesterday").is_none());
        assert_eq!(interval("8h0m0s"), Some(Duration::from_secs(28_800)));
        assert!(interval("").is_none() && interval("8x").is_none() && interval("é").is_none());
    }

    #[test]
    fn a_mirror_is_one_of_that_upstream_full_and_fresh() {
        let good = Repository {
            mirror: true,
            empty: false,
            original_url: "https://github.com/Redis/redis.git".to_owned(),
            mirror_interval: "8h0m0s".to_owned(),
            mirror_updated: "2026-02-20T10:00:00Z".to_owned(),
        };
        let at = |text: &str| time(text).unwrap();
        let upstream = "https://github.com/redis/redis";
        let wrong = |repository: &Repository, now: &str| repository.wrong(upstream, at(now)).unwrap_or_default();
        assert_eq!(wrong(&good, "2026-02-21T02:00:00Z"), "");
        assert!(wrong(&good, "2026-02-21T12:00:00Z").contains("26 hours ago"));
        assert!(wrong(&Repository { mirror: false, ..good.clone() }, "2026-02-20T11:00:00Z").contains("no mirror"));
        assert!(wrong(&Repository { empty: true, ..good.clone() }, "2026-02-20T11:00:00Z").contains("empty"));
        let other = Repository { original_url: "https://evil.example/x".to_owned(), ..good.clone() };
        assert!(wrong(&other, "2026-02-20T11:00:00Z").contains("evil"));
        let never = Repository { mirror_interval: "0s".to_owned(), ..good };
        assert!(wrong(&never, "2026-02-20T11:00:00Z").contains("never fetched again"));
    }
}
