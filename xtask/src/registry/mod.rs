//! What is asked of an OCI registry: tags, manifests, image configurations. Only `remove` writes.

mod auth;
mod holdings;
mod remove;

use anyhow::Result;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, header};

pub(crate) use auth::Credentials;
pub(crate) use remove::Removed;

use crate::exec::http::{Client, Request};
use crate::model::config::Endpoint;
use crate::model::digest::Digest;
use crate::model::failure::Failure;
use crate::model::image::ImageConfig;

/// Docker's and OCI's names for the same things.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Manifests and configurations are small; more than this is no manifest.
const LARGEST: u64 = 8 << 20;

/// A registry and how to be let in.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) endpoint: Endpoint,
    credentials: Option<Credentials>,
    client: Client,
    /// Asks again when nobody answers.
    patient: bool,
}

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    /// The digest of the configuration; nothing for an index of several platforms.
    pub(crate) config: Option<Digest>,
    /// Bytes of the layers as the registry keeps them.
    pub(crate) size: u64,
}

#[derive(Deserialize)]
struct RawManifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Registry {
    pub(crate) fn new(endpoint: Endpoint, credentials: Option<Credentials>) -> Self {
        Self { endpoint, credentials, client: Client::new(), patient: true }
    }

    /// The same, where an answer is only wanted at once.
    pub(crate) fn at_once(self) -> Self {
        Self { patient: false, ..self }
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// All tags of `repository`; none where the registry has no such repository.
    ///
    /// # Errors
    /// The registry can't be reached, says no, or answers with something else.
    pub(crate) fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let mut page = Some(format!("/v2/{repository}/tags/list"));
        while let Some(path) = page {
            let Some(mut response) = self.get(&path, "application/json")? else { break };
            page = next_page(&response).filter(|next| *next != path);
            all.extend(json::<Tags>(&mut response, &path)?.tags.unwrap_or_default());
        }
        Ok(all)
    }

    /// What `tag` names; nothing where there is no such tag.
    ///
    /// # Errors
    /// As [`Self::tags`]; also when the bytes are not those of the digest that the registry gave.
    pub(crate) fn manifest(&self, repository: &str, tag: &str) -> Result<Option<Manifest>> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let Some(mut response) = self.get(&path, MANIFESTS)? else { return Ok(None) };
        let claimed =
            response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = body(&mut response, &path)?;
        let digest = Digest::of(&bytes);
        if claimed.is_some_and(|claimed| claimed != digest.as_str()) {
            return Err(Failure::environment(format!(
                "{}{path}: the manifest is not the one its digest names",
                self.endpoint
            ))
            .into());
        }
        let raw: RawManifest = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::environment(format!("{}{path}: not a manifest: {error}", self.endpoint)))?;
        let config = raw
            .config
            .map(|config| config.digest.parse())
            .transpose()
            .map_err(|why: String| Failure::environment(format!("{}{path}: {why}", self.endpoint)))?;
        Ok(Some(Manifest { digest, config, size: raw.layers.iter().map(|layer| layer.size).sum() }))
    }

    /// The image configuration with that digest.
    ///
    /// # Errors
    /// As [`Self::tags`]; also when it is not there.
    pub(crate) fn config(&self, repository: &str, digest: &Digest) -> Result<ImageConfig> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let missing = || {
            Failure::environment(format!(
                "{}{path}: the registry has the manifest but not the configuration it names",
                self.endpoint
            ))
        };
        let mut response = self.get(&path, "*/*")?.ok_or_else(missing)?;
        json(&mut response, &path)
    }

    /// GET with whatever authorization the registry asks for; nothing on 404.
    fn get(&self, path: &str, accept: &str) -> Result<Option<Response<Body>>> {
        let url = format!("{}{path}", self.endpoint);
        let response = self.let_in(|authorization| {
            self.client.get(&Request { url: &url, accept, authorization, patient: self.patient })
        })?;
        match response.status().as_u16() {
            200 => Ok(Some(response)),
            404 => Ok(None),
            401 | 403 => Err(self.not_let_in(response.status().as_u16(), &url).into()),
            status => Err(Failure::environment(format!("{url}: the registry answered {status}")).into()),
        }
    }

    /// Asks; where the registry wants to know who asks, says so and asks again.
    fn let_in(&self, ask: impl Fn(Option<&str>) -> Result<Response<Body>>) -> Result<Response<Body>> {
        let response = ask(None)?;
        if response.status() != 401 {
            return Ok(response);
        }
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let basic = self.credentials.as_ref().map(Credentials::basic);
        let authorization = match auth::bearer(challenge.unwrap_or_default()) {
            Some(realm) => Some(auth::token(&self.client, &realm, basic.as_deref())?),
            None => basic,
        };
        match authorization {
            Some(authorization) => ask(Some(&authorization)),
            None => Ok(response),
        }
    }

    fn not_let_in(&self, status: u16, url: &str) -> Failure {
        let why = if self.credentials.is_some() {
            "the credentials are not accepted"
        } else {
            "it wants credentials and none are set"
        };
        Failure::environment(format!("{url}: the registry answered {status}: {why}")).next(
            "set BLUMEOPS_REGISTRY_USERNAME and BLUMEOPS_REGISTRY_PASSWORD (or …_PASSWORD_FILE), or run `skopeo login`",
        )
    }
}

fn next_page(response: &Response<Body>) -> Option<String> {
    let link = response.headers().get(header::LINK)?.to_str().ok()?;
    let (target, relation) = link.split_once('>')?;
    (relation.contains("next")).then(|| target.trim_start_matches('<').to_owned()).filter(|path| path.starts_with('/'))
}

fn body(response: &mut Response<Body>, path: &str) -> Result<Vec<u8>> {
    let read = response.body_mut().with_config().limit(LARGEST).read_to_vec();
    read.map_err(|error| Failure::environment(format!("{path}: the registry's answer broke off: {error}")).into())
}

fn json<T: for<'de> Deserialize<'de>>(response: &mut Response<Body>, path: &str) -> Result<T> {
    let bytes = body(response, path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::environment(format!("{path}: the registry's answer is not what it should be: {error}")).into()
    })
}
