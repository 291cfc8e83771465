//! The only thing that is ever taken from a registry: a manifest, by its digest.

use anyhow::Result;
use ureq::http::Method;

use super::Registry;
use crate::exec::http::Request;
use crate::model::digest::Digest;
use crate::model::failure::Failure;

/// What became of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Now,
    /// Somebody, or a run before, has removed it.
    Before,
}

impl Registry {
    /// Removes a manifest and, with it, every tag that names it; looks that it is gone.
    ///
    /// # Errors
    /// The registry can't be reached, says no, or still has it.
    pub(crate) fn remove(&self, repository: &str, digest: &Digest) -> Result<Removed> {
        let url = self.manifest_url(repository, digest);
        // What is gone stays gone: it may be asked for twice.
        let response = self.send(Request::new(Method::DELETE, &url))?;
        match response.status().as_u16() {
            200 | 202 | 204 => {}
            404 => return Ok(Removed::Before),
            405 => {
                return Err(Failure::environment(format!("{url}: the registry answered 405: it removes nothing"))
                    .next("its configuration has to allow it: docker-registry's storage.delete.enabled, Zot's access control policy")
                    .into());
            }
            status @ (401 | 403) => return Err(self.not_let_in(status, &url).into()),
            status => {
                return Err(Failure::refused(format!("{url}: the registry answered {status} to DELETE")).into());
            }
        }
        if self.manifest(repository, digest.as_str())?.is_some() {
            return Err(
                Failure::refused(format!("{url}: the registry said that it is removed and still has it")).into()
            );
        }
        Ok(Removed::Now)
    }

    /// Where a manifest is.
    pub(crate) fn manifest_url(&self, repository: &str, digest: &Digest) -> String {
        format!("{}/v2/{repository}/manifests/{digest}", self.endpoint)
    }
}
