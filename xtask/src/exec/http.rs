//! HTTP: one agent, limits on every phase, retries where the server or the network asks for them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use ureq::http::{self, HeaderName, Method, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::{env, signal};
use crate::model::failure::Failure;

/// How often a request is made before it is given up.
pub(crate) const TRIES: u32 = 4;

/// How long to wait before the second try, where the server does not say; each later one takes twice as long.
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(400);

/// A server's own delay is honoured up to this.
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// What is sent may be large and the way to the server slow; what the server then makes of it takes its time too.
const SENDING: Duration = Duration::from_secs(900);

/// A client for one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
}

/// When a request is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// When the server is busy or can't be reached: for what may be done twice.
    Patient,
    /// When the server is busy: where the answer is only wanted at once.
    AtOnce,
    /// Never: whoever sends finds out first what has arrived.
    Once,
}

/// What is sent: bytes that are shared, from an offset on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    bytes: Arc<Vec<u8>>,
    from: usize,
    /// Counts what has been handed to the connection.
    sent: Arc<AtomicU64>,
}

impl Payload {
    pub(crate) fn new(bytes: &Arc<Vec<u8>>, from: usize, sent: &Arc<AtomicU64>) -> Self {
        Self { bytes: Arc::clone(bytes), from, sent: Arc::clone(sent) }
    }

    fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.from)
    }
}

impl Read for Payload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if signal::interrupted() {
            return Err(io::Error::other("interrupted"));
        }
        let mut rest = self.bytes.get(self.from..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.from += count;
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    method: Method,
    url: &'a str,
    headers: Vec<(HeaderName, String)>,
    payload: Option<Payload>,
    patience: Patience,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, url: &'a str) -> Self {
        Self { method, url, headers: Vec::new(), payload: None, patience: Patience::Patient }
    }

    pub(crate) fn get(url: &'a str, accept: &str) -> Self {
        Self::new(Method::GET, url).header(header::ACCEPT, accept)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn authorized(self, authorization: Option<&str>) -> Self {
        match authorization {
            Some(authorization) => self.header(header::AUTHORIZATION, authorization),
            None => self,
        }
    }

    pub(crate) fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn payload(self, payload: Payload) -> Self {
        Self { payload: Some(payload), ..self }
    }

    pub(crate) fn url(&self) -> &'a str {
        self.url
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(env::patience(Duration::from_secs(5))))
            .timeout_recv_response(Some(env::patience(Duration::from_secs(20))))
            .timeout_global(Some(env::patience(Duration::from_secs(60))))
            .max_idle_connections_per_host(8)
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

    /// The server's answer, whatever its status, but not through a signal. A request that may be made again is, and
    /// gives 429 and 5xx only after [`TRIES`] of them.
    ///
    /// # Errors
    /// The server could not be reached, or a signal came.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Response<Body>> {
        let Request { url, patience, .. } = request;
        let tries = if *patience == Patience::Once { 1 } else { TRIES };
        let mut delay = FIRST_DELAY;
        for last in (0..tries).map(|n| n + 1 == tries) {
            match self.once(request)? {
                Ok(response) if last || !is_busy(&response) => return Ok(response),
                Ok(response) => signal::sleep(server_delay(&response).unwrap_or(delay))?,
                Err(error) if last || *patience != Patience::Patient => {
                    return Err(Failure::environment(format!("can't reach {url}: {error}")).into());
                }
                Err(_) => signal::sleep(delay)?,
            }
            delay *= 2;
        }
        Err(Failure::environment(format!("can't reach {url}")).into())
    }

    fn once(&self, request: &Request<'_>) -> Result<Result<Response<Body>, ureq::Error>> {
        let mut builder = http::Request::builder().method(&request.method).uri(request.url);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let payload = match (&request.payload, &request.method) {
            (Some(payload), _) => Some(payload.clone()),
            // Some servers want to be told that there is nothing.
            (None, &Method::POST | &Method::PUT) => Some(Payload::default()),
            (None, _) => None,
        };
        let agent = self.agent.clone();
        signal::wait_for(move || match payload {
            None => agent.run(builder.body(())?),
            Some(payload) => {
                let builder = builder.header(header::CONTENT_LENGTH, payload.len());
                let request = builder.body(SendBody::from_owned_reader(payload))?;
                let request = agent.configure_request(request);
                let limit = Some(env::patience(SENDING));
                let request = request.timeout_global(None).timeout_send_body(limit);
                agent.run(request.timeout_recv_response(limit).build())
            }
        })
    }
}

/// Is it only now that the server does not do it?
pub(crate) fn is_busy(response: &Response<Body>) -> bool {
    let status = response.status().as_u16();
    status == 429 || (500..600).contains(&status)
}

/// How long the server wants us to wait: as seconds, or as a date.
pub(crate) fn server_delay(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = text.parse().map(Duration::from_secs).ok().or_else(|| {
        let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        // A date that has passed is no delay at all.
        Some(Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default())
    })?;
    Some(delay.min(LONGEST_DELAY))
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
        let mut reader = Read::take(response.body_mut().as_reader(), LONGEST_BODY);
        Read::read_to_end(&mut reader, &mut bytes).map_err(|error| format!("half an answer: {error}"))?;
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: response.status().as_u16(), location, cookies, body })
    }
}
