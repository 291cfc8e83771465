//! Being let in: basic and bearer authentication, credentials from the environment or an auth file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::exec::env;
use crate::exec::http::{Client, Request};
use crate::model::failure::Failure;

/// User and password in the form that both HTTP and auth files use.
#[derive(Clone)]
pub(crate) struct Credentials {
    encoded: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// From the environment, else from the auth file that skopeo and docker share.
    ///
    /// # Errors
    /// A file that is named but can't be read.
    pub(crate) fn find(host: &str) -> Result<Option<Self>, String> {
        let user = env::credential("BLUMEOPS_REGISTRY_USERNAME")?;
        if let (Some(user), Some(password)) = (user, env::credential("BLUMEOPS_REGISTRY_PASSWORD")?) {
            return Ok(Some(Self { encoded: STANDARD.encode(format!("{user}:{password}")) }));
        }
        Ok(auth_files().into_iter().find_map(|file| from_file(&std::fs::read_to_string(file).ok()?, host)))
    }

    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", self.encoded)
    }

    /// What must not be shown.
    pub(crate) fn secret(&self) -> &str {
        &self.encoded
    }
}

fn auth_files() -> Vec<PathBuf> {
    let file = |variable: &str, rest: &str| env::var(variable).map(|base| PathBuf::from(base).join(rest));
    let given = env::var("REGISTRY_AUTH_FILE").map(PathBuf::from);
    [given, file("XDG_RUNTIME_DIR", "containers/auth.json"), file("HOME", ".docker/config.json")]
        .into_iter()
        .flatten()
        .collect()
}

fn from_file(text: &str, host: &str) -> Option<Credentials> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let encoded = value.get("auths")?.get(host)?.get("auth")?.as_str()?;
    Some(Credentials { encoded: encoded.to_owned() })
}

/// What a registry let us in with, for each of its repositories; shared by all who ask it.
#[derive(Clone, Default)]
pub(super) struct Grants(Arc<Mutex<BTreeMap<String, String>>>);

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grants")
    }
}

impl Grants {
    pub(super) fn of(&self, url: &str) -> Option<String> {
        self.all().get(repository(url)).cloned()
    }

    pub(super) fn keep(&self, url: &str, authorization: &str) {
        self.all().insert(repository(url).to_owned(), authorization.to_owned());
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address up to the repository that it is about.
fn repository(url: &str) -> &str {
    let end = ["/manifests/", "/blobs/", "/tags/", "/referrers/"].iter().filter_map(|part| url.find(part)).min();
    &url[..end.unwrap_or(url.len())]
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Asks the token server.
pub(super) fn token(client: &Client, url: &str, basic: Option<&str>) -> Result<String> {
    let mut response = client.send(&Request::get(url, "application/json").authorized(basic))?;
    let status = response.status();
    let token = response.body_mut().read_json::<Token>().ok().and_then(|token| token.token.or(token.access_token));
    let token = token
        .ok_or_else(|| Failure::environment(format!("{url}: the token server answered {status} and gave no token")))?;
    Ok(format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_files_and_what_is_shown_of_them() {
        assert_eq!(repository("https://r/v2/a/b/blobs/uploads/?mount=x"), repository("https://r/v2/a/b/manifests/v1"));
        let credentials = Credentials { encoded: "dTpw".into() };
        let file = r#"{"auths":{"h:1":{"auth":"dTpw"}}}"#;
        assert_eq!(from_file(file, "h:1").unwrap().basic(), "Basic dTpw");
        assert_eq!(format!("{credentials:?}"), "Credentials");
    }
}
