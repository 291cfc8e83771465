//! Putting something into a registry: blobs in chunks that are taken up where a connection broke, then a manifest.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Result;
use ureq::Body;
use ureq::http::{Method, Response, header};

use super::{Registry, body, headers};
use crate::exec::http::{self, Patience, Payload, Request};
use crate::exec::signal;
use crate::model::digest::Digest;
use crate::model::failure::Failure;

/// How often a connection may break, or the registry be busy, before one chunk has arrived.
const TRIES: u32 = 6;

/// How a blob begins.
#[derive(Debug)]
pub(crate) enum Beginning<'a> {
    /// The registry has it, and needed no byte of it.
    Mounted,
    Upload(Upload<'a>),
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Arrived,
    /// The registry no longer knows what came before: the blob has to be sent anew.
    Lost(String),
}

/// What a registry says to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// It misses something that the manifest names.
    Incomplete(String),
}

/// What a registry has of a blob on its way.
enum Has {
    /// The blob is complete and has its digest.
    All,
    Bytes(u64),
    /// It does not know the upload.
    Nothing,
}

/// A blob on its way.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    registry: &'a Registry,
    repository: String,
    /// Where the next chunk goes; each answer may name another place.
    location: String,
    arrived: u64,
    sent: Arc<AtomicU64>,
}

impl Registry {
    /// Is the blob there?
    ///
    /// # Errors
    /// The registry can't be reached, says no, or answers with something else.
    pub(crate) fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let url = format!("{}/v2/{repository}/blobs/{digest}", self.endpoint);
        let response = self.send(Request::new(Method::HEAD, &url).patience(self.patience))?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            status => Err(self.unexpected(status, &url, "HEAD").into()),
        }
    }

    /// Begins a blob of `repository`. `from` names it in another repository, where it may be taken from.
    ///
    /// # Errors
    /// As [`Self::has_blob`].
    pub(crate) fn begin(
        &self,
        repository: &str,
        from: Option<(&Digest, &str)>,
        sent: &Arc<AtomicU64>,
    ) -> Result<Beginning<'_>> {
        let mount = from.map(|(digest, other)| format!("?mount={digest}&from={other}")).unwrap_or_default();
        let url = format!("{}/v2/{repository}/blobs/uploads/{mount}", self.endpoint);
        let response = self.send(Request::new(Method::POST, &url).patience(self.patience))?;
        match response.status().as_u16() {
            201 => Ok(Beginning::Mounted),
            202 => Ok(Beginning::Upload(Upload {
                registry: self,
                repository: repository.to_owned(),
                location: self.location(&response, &url)?,
                arrived: 0,
                sent: Arc::clone(sent),
            })),
            status => Err(self.unexpected(status, &url, "POST").into()),
        }
    }

    /// Gives `tag` to a manifest.
    ///
    /// # Errors
    /// As [`Self::has_blob`].
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: Vec<u8>) -> Result<Taken> {
        let url = format!("{}/v2/{repository}/manifests/{tag}", self.endpoint);
        let payload = Payload::new(&Arc::new(bytes), 0, &Arc::default());
        let request = Request::new(Method::PUT, &url).header(header::CONTENT_TYPE, media_type);
        let mut response = self.send(request.payload(payload).patience(self.patience))?;
        match response.status().as_u16() {
            200..=202 => Ok(Taken::Yes),
            status @ (400 | 404 | 422) => {
                let said = String::from_utf8_lossy(&body(&mut response, &url)?).into_owned();
                if said.contains("BLOB_UNKNOWN") || said.contains("BLOB_UPLOAD_UNKNOWN") {
                    return Ok(Taken::Incomplete(said));
                }
                let failure = Failure::refused(format!("{url}: the registry answered {status} to the manifest"));
                Err(failure.tail(said.lines().map(str::to_owned).collect()).into())
            }
            status => Err(self.unexpected(status, &url, "PUT").into()),
        }
    }

    fn unexpected(&self, status: u16, url: &str, method: &str) -> Failure {
        match status {
            401 | 403 => self.not_let_in(status, url),
            405 => Failure::refused(format!("{url}: the registry answered 405: it takes nothing")),
            status => Failure::environment(format!("{url}: the registry answered {status} to {method}")),
        }
    }

    /// Where an upload goes on.
    fn location(&self, response: &Response<Body>, url: &str) -> Result<String> {
        let named = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let named =
            named.ok_or_else(|| Failure::environment(format!("{url}: the registry names no place to send to")))?;
        Ok(headers::location(named, &self.endpoint))
    }
}

impl Upload<'_> {
    /// Sends a chunk, from where the last one ended.
    ///
    /// # Errors
    /// The registry can't be reached for long, says no, or a signal came.
    pub(crate) fn append(&mut self, chunk: &Arc<Vec<u8>>) -> Result<Delivery> {
        self.deliver(chunk, None)
    }

    /// Sends the last chunk and has the registry compare all of it with `digest`.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub(crate) fn finish(mut self, chunk: &Arc<Vec<u8>>, digest: &Digest) -> Result<Delivery> {
        self.deliver(chunk, Some(digest))
    }

    /// Gives it up.
    ///
    /// # Errors
    /// The registry can't be reached, or a signal came.
    pub(crate) fn cancel(self) -> Result<()> {
        let request = Request::new(Method::DELETE, &self.location).patience(Patience::Once);
        self.registry.send(request).map(drop)
    }

    fn deliver(&mut self, chunk: &Arc<Vec<u8>>, last: Option<&Digest>) -> Result<Delivery> {
        let begin = self.arrived;
        let end = begin + chunk.len() as u64;
        let mut delay = http::FIRST_DELAY;
        let mut trouble = String::new();
        for _ in 0..TRIES {
            let skip = usize::try_from(self.arrived - begin)?;
            let has = match self.one(chunk, skip, last) {
                Ok(response) if matches!(response.status().as_u16(), 200..=204) => match last {
                    Some(_) => Has::All,
                    None => Has::Bytes(self.follow(&response)?.unwrap_or(end)),
                },
                Ok(response) if http::is_busy(&response) => {
                    trouble = format!("the registry answered {}", response.status().as_u16());
                    signal::sleep(http::server_delay(&response).unwrap_or(delay))?;
                    delay *= 2;
                    self.status(last)?
                }
                Ok(response) if matches!(response.status().as_u16(), 404 | 416) => self.status(last)?,
                Ok(mut response) => return Err(self.refused(&mut response).into()),
                Err(error) => {
                    signal::sleep(delay)?;
                    trouble = error.to_string();
                    delay *= 2;
                    self.status(last)?
                }
            };
            match has {
                Has::All => return Ok(Delivery::Arrived),
                Has::Bytes(arrived) if arrived == end && last.is_none() => {
                    self.arrived = end;
                    return Ok(Delivery::Arrived);
                }
                Has::Bytes(arrived) if (begin..=end).contains(&arrived) => self.arrived = arrived,
                Has::Bytes(arrived) => {
                    return Ok(Delivery::Lost(format!("the registry has {arrived} bytes of it, not {begin}")));
                }
                Has::Nothing => return Ok(Delivery::Lost("the registry has forgotten the upload".to_owned())),
            }
        }
        let place = format!("{}/v2/{}", self.registry.endpoint, self.repository);
        Err(Failure::environment(format!("{place}: a layer does not arrive: {trouble}")).into())
    }

    fn one(&self, chunk: &Arc<Vec<u8>>, skip: usize, last: Option<&Digest>) -> Result<Response<Body>> {
        let url = match last {
            Some(digest) => {
                let separator = if self.location.contains('?') { '&' } else { '?' };
                format!("{}{separator}digest={digest}", self.location)
            }
            None => self.location.clone(),
        };
        let method = if last.is_some() { Method::PUT } else { Method::PATCH };
        let mut request = Request::new(method, &url)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .patience(Patience::Once)
            .payload(Payload::new(chunk, skip, &self.sent));
        if let Some(length) = chunk.len().checked_sub(skip + 1) {
            let range = format!("{}-{}", self.arrived, self.arrived + length as u64);
            request = request.header(header::CONTENT_RANGE, range);
        }
        self.registry.send(request)
    }

    /// Takes the next place from an answer, and how much has arrived where it says so.
    fn follow(&mut self, response: &Response<Body>) -> Result<Option<u64>> {
        if response.headers().contains_key(header::LOCATION) {
            self.location = self.registry.location(response, &self.location)?;
        }
        Ok(arrived(response))
    }

    fn status(&mut self, last: Option<&Digest>) -> Result<Has> {
        let location = self.location.clone();
        let response = self.registry.send(Request::new(Method::GET, &location))?;
        if matches!(response.status().as_u16(), 200 | 204) {
            return Ok(Has::Bytes(self.follow(&response)?.unwrap_or_default()));
        }
        // Its last answer may have been what got lost.
        match last {
            Some(digest) if self.registry.has_blob(&self.repository, digest)? => Ok(Has::All),
            _ => Ok(Has::Nothing),
        }
    }

    fn refused(&self, response: &mut Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let place = format!("{}/v2/{}/blobs/uploads/", self.registry.endpoint, self.repository);
        if matches!(status, 401 | 403) {
            return self.registry.not_let_in(status, &place);
        }
        let said = body(response, &place).unwrap_or_default();
        let said: Vec<String> = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
        let why = if status == 413 { ": what is in front of it takes no chunk of this size" } else { "" };
        Failure::refused(format!("{place}: the registry answered {status} to a part of a layer{why}")).tail(said)
    }
}

fn arrived(response: &Response<Body>) -> Option<u64> {
    headers::arrived(response.headers().get(header::RANGE)?.to_str().ok()?)
}
