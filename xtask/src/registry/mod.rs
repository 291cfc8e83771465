//! What is asked of an OCI registry: tags, manifests, image configurations. Only `remove` and `upload` write.

mod auth;
mod headers;
mod holdings;
mod remove;
mod upload;

use anyhow::Result;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, header};

pub(crate) use auth::Credentials;
use auth::Grants;
pub(crate) use remove::Removed;
pub(crate) use upload::{Beginning, Delivery, Taken, Upload};

use crate::exec::http::{Client, Patience, Request};
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
    patience: Patience,
    grants: Grants,
}

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    /// The digest of the configuration; nothing for an index of several platforms.
    pub(crate) config: Option<Digest>,
    /// Bytes of the layers as the registry keeps them.
    pub(crate) size: u64,
    /// Lowest first; none for an index.
    pub(crate) layers: Vec<Blob>,
}

/// Bytes that a registry keeps by their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

#[derive(Deserialize)]
struct RawManifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
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
        Self { endpoint, credentials, client: Client::new(), patience: Patience::Patient, grants: Grants::default() }
    }

    /// The same, where an answer is only wanted at once.
    pub(crate) fn at_once(self) -> Self {
        Self { patience: Patience::AtOnce, ..self }
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
        let blob = |descriptor: Descriptor| {
            let Descriptor { media_type, digest, size } = descriptor;
            digest.parse().map(|digest| Blob { media_type, digest, size })
        };
        let named = |why: String| Failure::environment(format!("{}{path}: {why}", self.endpoint));
        let config = raw.config.map(blob).transpose().map_err(named)?.map(|config| config.digest);
        let layers: Vec<Blob> = raw.layers.into_iter().map(blob).collect::<Result<_, _>>().map_err(named)?;
        Ok(Some(Manifest { digest, config, size: layers.iter().map(|layer| layer.size).sum(), layers }))
    }

    /// The image configuration with that digest.
    ///
    /// # Errors
    /// As [`Self::tags`]; also when it is not there.
    pub(crate) fn config(&self, repository: &str, digest: &Digest) -> Result<ImageConfig> {
        let bytes = self.config_bytes(repository, digest)?;
        let unlike = |error| {
            Failure::environment(format!(
                "{}/v2/{repository}/blobs/{digest}: not a configuration: {error}",
                self.endpoint
            ))
        };
        Ok(serde_json::from_slice(&bytes).map_err(unlike)?)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// As [`Self::config`]; also when the bytes are not those of the digest.
    pub(crate) fn config_bytes(&self, repository: &str, digest: &Digest) -> Result<Vec<u8>> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let bad = |why: &str| Failure::environment(format!("{}{path}: {why}", self.endpoint));
        let mut response = self
            .get(&path, "*/*")?
            .ok_or_else(|| bad("the registry has the manifest but not the configuration it names"))?;
        let bytes = body(&mut response, &path)?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(bad("the configuration is not the one its digest names").into())
        }
    }

    /// GET with whatever authorization the registry asks for; nothing on 404.
    fn get(&self, path: &str, accept: &str) -> Result<Option<Response<Body>>> {
        let url = format!("{}{path}", self.endpoint);
        let response = self.send(Request::get(&url, accept).patience(self.patience))?;
        match response.status().as_u16() {
            200 => Ok(Some(response)),
            404 => Ok(None),
            401 | 403 => Err(self.not_let_in(response.status().as_u16(), &url).into()),
            status => Err(Failure::environment(format!("{url}: the registry answered {status}")).into()),
        }
    }

    /// Every request goes through here. Where the registry wants to know who asks, it is told, and what it then grants
    /// is used until it wants to know again.
    fn send(&self, request: Request<'_>) -> Result<Response<Body>> {
        // What is sent elsewhere, as to where a registry keeps its blobs, is none of our credentials.
        if !request.url().starts_with(&format!("{}/", self.endpoint)) {
            return self.client.send(&request);
        }
        let granted = self.grants.of(request.url());
        let response = self.client.send(&request.clone().authorized(granted.as_deref()))?;
        if response.status() != 401 {
            return Ok(response);
        }
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let basic = self.credentials.as_ref().map(Credentials::basic);
        let authorization = match headers::bearer(challenge.unwrap_or_default()) {
            Some(realm) if headers::is_plainer(&realm, &self.endpoint.to_string()) => {
                return Err(self.named_a_plain(&realm).into());
            }
            Some(realm) => Some(auth::token(&self.client, &realm, basic.as_deref())?),
            None => basic,
        };
        match authorization.filter(|authorization| granted.as_ref() != Some(authorization)) {
            Some(authorization) => {
                self.grants.keep(request.url(), &authorization);
                self.client.send(&request.authorized(Some(&authorization)))
            }
            None => Ok(response),
        }
    }

    fn named_a_plain(&self, realm: &str) -> Failure {
        let server = realm.split('?').next().unwrap_or_default();
        Failure::environment(format!(
            "{}: it names {server} as its token server: no credentials are sent without TLS where the registry has it",
            self.endpoint
        ))
        .next("correct the realm in the registry's configuration")
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
    headers::next_page(response.headers().get(header::LINK)?.to_str().ok()?)
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
