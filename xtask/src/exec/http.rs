//! HTTP: one agent, limits on every phase, retries where the server or the network asks for them.

use std::time::Duration;

use anyhow::Result;
use ureq::http::{Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::signal;
use crate::model::failure::Failure;

/// How often a request is made before it is given up.
const TRIES: u32 = 4;

/// A server's own delay is honoured up to this.
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// A client for one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
}

/// One GET request.
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    pub(crate) accept: &'a str,
    pub(crate) authorization: Option<&'a str>,
    /// Tried again when the server can't be reached; off where the answer is only wanted at once.
    pub(crate) patient: bool,
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(20)))
            .timeout_global(Some(Duration::from_secs(60)))
            .user_agent("blumeops-xtask")
            // Authorities that the machine trusts, not those that the library came with.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Self { agent: config.new_agent() }
    }

    /// For probes: as the kubelet it asks without a proxy and takes any certificate.
    pub(crate) fn of_kubelet() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .user_agent("kube-probe/blumeops-xtask")
            .tls_config(TlsConfig::builder().disable_verification(true).build())
            .build();
        Self { agent: config.new_agent() }
    }

    /// The server's answer, whatever its status; 429 and 5xx only after [`TRIES`] of them.
    ///
    /// # Errors
    /// The server could not be reached, or a signal came.
    pub(crate) fn get(&self, request: &Request<'_>) -> Result<Response<Body>> {
        let Request { url, accept, authorization, patient } = *request;
        tried((url, patient), || authorized(self.agent.get(url).header(header::ACCEPT, accept), authorization))
    }

    /// DELETE, which may be made again: what is gone stays gone.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn delete(&self, url: &str, authorization: Option<&str>) -> Result<Response<Body>> {
        tried((url, true), || authorized(self.agent.delete(url), authorization))
    }
}

fn authorized(builder: RequestBuilder<WithoutBody>, authorization: Option<&str>) -> RequestBuilder<WithoutBody> {
    match authorization {
        Some(authorization) => builder.header(header::AUTHORIZATION, authorization),
        None => builder,
    }
}

/// Makes a request until there is an answer, but not through a signal.
fn tried((url, patient): (&str, bool), request: impl Fn() -> RequestBuilder<WithoutBody>) -> Result<Response<Body>> {
    let mut delay = Duration::from_millis(400);
    for last in (0..TRIES).map(|n| n + 1 == TRIES) {
        let builder = request();
        match signal::wait_for(move || builder.call())? {
            Ok(response) if last || !busy(response.status().as_u16()) => return Ok(response),
            Ok(response) => signal::sleep(server_delay(&response).unwrap_or(delay))?,
            Err(error) if last || !patient => {
                return Err(Failure::environment(format!("can't reach {url}: {error}")).into());
            }
            Err(_) => signal::sleep(delay)?,
        }
        delay *= 2;
    }
    Err(Failure::environment(format!("can't reach {url}")).into())
}

/// How much of an answer is read.
const LONGEST_BODY: u64 = 512 << 10;

/// One request of a conversation that ends within its limit, whatever happens.
pub(crate) struct Ask<'a> {
    pub(crate) url: &'a str,
    pub(crate) limit: Duration,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Sent as JSON; a GET without one.
    pub(crate) json: Option<&'a str>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// `name=value` of each cookie that was set.
    pub(crate) cookies: Vec<String>,
    pub(crate) body: String,
}

impl Client {
    /// Asks once and follows no redirect. No `Accept: application/json` is sent: a service may then say 200 while it starts.
    ///
    /// # Errors
    /// Why there is no answer, with the words of all its causes.
    pub(crate) fn ask(&self, ask: &Ask<'_>) -> Result<Answer, String> {
        let words = |error: ureq::Error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            text
        };
        let sent = match ask.json {
            None => {
                let mut request = self.agent.get(ask.url).header(header::ACCEPT, "*/*");
                for (name, value) in ask.headers {
                    request = request.header(*name, *value);
                }
                request.config().timeout_global(Some(ask.limit)).max_redirects(0).build().call()
            }
            Some(json) => {
                let mut request = self.agent.post(ask.url).header(header::ACCEPT, "*/*");
                for (name, value) in ask.headers {
                    request = request.header(*name, *value);
                }
                let request = request.header(header::CONTENT_TYPE, "application/json");
                request.config().timeout_global(Some(ask.limit)).max_redirects(0).build().send(json)
            }
        };
        let mut response = sent.map_err(words)?;
        let text = |name: header::HeaderName| {
            let values = response.headers().get_all(name).iter();
            values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
        };
        let location = text(header::LOCATION).into_iter().next();
        let cookies = text(header::SET_COOKIE);
        let cookies = cookies.iter().filter_map(|cookie| cookie.split(';').next()).map(str::to_owned).collect();
        let mut bytes = Vec::new();
        let mut reader = std::io::Read::take(response.body_mut().as_reader(), LONGEST_BODY);
        std::io::Read::read_to_end(&mut reader, &mut bytes).map_err(|error| format!("half an answer: {error}"))?;
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: response.status().as_u16(), location, cookies, body })
    }
}

fn busy(status: u16) -> bool {
    status == 429 || (500..600).contains(&status)
}

fn server_delay(response: &Response<Body>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_DELAY))
}
