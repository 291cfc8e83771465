//! The environment, read in one place.

use std::path::PathBuf;
use std::time::Duration;

/// Variables that hold our credentials. They are read by this process and taken from every child.
pub(crate) const CREDENTIALS: [&str; 3] =
    ["BLUMEOPS_REGISTRY_USERNAME", "BLUMEOPS_REGISTRY_PASSWORD", "BLUMEOPS_FORGE_TOKEN"];

/// The value of `name`; empty counts as unset.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A credential: from `name`, or from the file that `name_FILE` names.
///
/// # Errors
/// The file that can't be read.
pub(crate) fn credential(name: &str) -> Result<Option<String>, String> {
    if let Some(value) = var(name) {
        return Ok(Some(value));
    }
    let Some(file) = var(&format!("{name}_FILE")) else { return Ok(None) };
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{name}_FILE names {file}: {error}"))?;
    Ok(Some(text.trim_end().to_owned()))
}

/// No command and no request may take longer than this: `limit`, or as many seconds as `BLUMEOPS_PATIENCE` says.
pub(crate) fn patience(limit: Duration) -> Duration {
    let seconds = var("BLUMEOPS_PATIENCE").and_then(|text| text.parse().ok());
    seconds.map_or(limit, |seconds| limit.min(Duration::from_secs(seconds)))
}

/// Values of variables whose name says that they are secret.
pub(crate) fn secret_values() -> Vec<String> {
    let names = ["TOKEN", "PASSWORD", "PASSWD", "SECRET", "CREDENTIAL", "PRIVATE_KEY", "API_KEY"];
    let is_secret =
        |name: &str| names.iter().any(|part| name.to_ascii_uppercase().contains(part)) && !name.ends_with("_FILE");
    let all =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    all.filter(|(name, value)| is_secret(name) && value.len() >= 6).map(|(_, value)| value).collect()
}

/// The time, to the second.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// What tells this build of the program from others.
pub(crate) fn build() -> String {
    let metadata = std::env::current_exe().and_then(|path| path.metadata());
    metadata.map_or_else(|_| String::new(), |metadata| format!("{} {:?}", metadata.len(), metadata.modified().ok()))
}

/// Where `setup` puts programs that the system's packages don't have.
pub(crate) fn tools_folder() -> PathBuf {
    cache_folder().join("tools")
}

/// Where things that can be made again are kept.
pub(crate) fn cache_folder() -> PathBuf {
    let base =
        var("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("blumeops-xtask")
}
